//! The event loop: feeds [`super::decide::State`] and sets off what it decides. Started by [`super::run`].

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use pilotlight_common::stream::NodeReport;
use tokio::sync::{Semaphore, mpsc, watch};

use super::apply::Apply;
use super::decide::{Action, Ask, Event, Now, State, key};
use super::host_client::{Host, HostError};
use super::http::Health;
use super::network::Network;
use crate::metrics::Metrics;

/// Events that may wait. Senders wait when it is full; the engine itself never sends.
pub const QUEUE: usize = 1024;
/// Background writes on their way at once, so that a full node does not delay its own publications.
const BACKGROUND: usize = 8;

/// What the engine works with.
#[derive(Debug)]
pub struct Engine<H> {
    /// Carries out writes.
    pub apply: Arc<Apply>,
    /// Answers questions about pods.
    pub host: Arc<H>,
    /// Keeps pods to their network rules, where this agent does.
    pub network: Option<Arc<Network>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Shown by the probes.
    pub health: Arc<Health>,
    /// Where results come back to.
    pub sender: mpsc::Sender<Event>,
    /// What the schedulers are to know.
    pub report: watch::Sender<NodeReport>,
    /// Whether assignments are on their way; the end of the process waits for them.
    pub busy: watch::Sender<bool>,
}

impl<H: Host> Engine<H> {
    /// Works until all senders are gone.
    pub async fn run(self, mut events: mpsc::Receiver<Event>) {
        let started = Instant::now();
        let now = || Now {
            time: started.elapsed(),
            wall: Timestamp::now(),
        };
        let background = Arc::new(Semaphore::new(BACKGROUND));
        let mut state = State::new(self.network.is_some());
        // The first turn asks `host` for a sign of life.
        let mut event = Event::Wake;
        loop {
            for action in state.step(event, now()) {
                self.act(action, &background);
            }
            self.show(&state);
            let wake = tokio::time::Instant::from_std(started + state.wake());
            event = tokio::select! {
                // Events before time: a busy loop is late for its timers, never for its assignments.
                biased;
                event = events.recv() => match event {
                    Some(event) => event,
                    None => return,
                },
                () = tokio::time::sleep_until(wake) => Event::Wake,
            };
        }
    }

    fn show(&self, state: &State) {
        let report = state.report();
        let summary = state.summary();
        self.health.turn(report.ready);
        self.metrics.summarize(&summary, report.ready);
        if let Some(network) = &self.network {
            self.metrics.asked(network.counters());
        }
        self.busy
            .send_if_modified(|busy| std::mem::replace(busy, summary.busy) != summary.busy);
        self.report.send_if_modified(|last| {
            let news = *last != report;
            if news {
                if last.ready != report.ready {
                    tracing::info!(
                        ready = report.ready,
                        message = report.message,
                        "readiness changed"
                    );
                }
                *last = report;
            }
            news
        });
    }

    fn act(&self, action: Action, background: &Arc<Semaphore>) {
        let (apply, host) = (Arc::clone(&self.apply), Arc::clone(&self.host));
        let (sender, metrics) = (self.sender.clone(), Arc::clone(&self.metrics));
        match action {
            Action::Publish(assignment, cpus) => {
                tokio::spawn(async move {
                    let attempt = apply.publish(&assignment, cpus.as_ref()).await;
                    let _ = sender
                        .send(Event::Attempted(key(&assignment), attempt))
                        .await;
                });
            }
            Action::Look(assignment) => {
                tokio::spawn(async move {
                    let attempt = apply.look(&assignment).await;
                    let _ = sender
                        .send(Event::Attempted(key(&assignment), attempt))
                        .await;
                });
            }
            Action::Write(write) => {
                let background = Arc::clone(background);
                tokio::spawn(async move {
                    let _place = background.acquire().await;
                    let outcome = apply.write(&write).await;
                    let _ = sender.send(Event::Wrote(write, outcome)).await;
                });
            }
            Action::Inspect(pods) => {
                tokio::spawn(async move {
                    let result = answered(host.inspect(pods).await, &metrics);
                    let _ = sender.send(Event::Inspected(result)).await;
                });
            }
            Action::Sample(pods) => {
                tokio::spawn(async move {
                    let result = answered(host.usage(pods).await, &metrics);
                    let _ = sender.send(Event::Sampled(result)).await;
                });
            }
            Action::Profiles(Ask::Install(profile)) => {
                tokio::spawn(async move {
                    let result = answered(host.install_profile(profile.clone()).await, &metrics);
                    let _ = sender.send(Event::ProfileInstalled(profile, result)).await;
                });
            }
            Action::Profiles(Ask::Check { wanted, named }) => {
                tokio::spawn(async move {
                    let result = answered(host.check_profiles(wanted, named).await, &metrics);
                    let _ = sender.send(Event::ProfilesChecked(result)).await;
                });
            }
            Action::TellRefusedProfile(name, why) => {
                tracing::warn!(name, why, "refused a user's seccomp profile");
            }
            Action::Pin { key, pod, cpus } => {
                tokio::spawn(async move {
                    let result = answered(host.pin(pod, cpus).await, &metrics);
                    let _ = sender.send(Event::Pinned(key, result)).await;
                });
            }
            Action::Cpus => {
                tokio::spawn(async move {
                    let result = answered(host.cpus().await, &metrics);
                    let _ = sender.send(Event::Cpus(result)).await;
                });
            }
            Action::Network(ask) => {
                let Some(network) = self.network.clone() else {
                    return;
                };
                tokio::spawn(async move {
                    let answer = network.ask(ask).await;
                    let _ = sender.send(Event::Network(answer)).await;
                });
            }
            Action::ForgetNetwork(pod) => {
                if let Some(network) = &self.network {
                    network.forget(&pod);
                }
            }
            Action::CountPublished(latency) => metrics.published(latency),
            Action::CountRefused(reason) => {
                tracing::info!(reason = reason.as_str(), "refused an assignment");
                metrics.refused(reason);
            }
            Action::CountCpu { sandboxes, agents } => metrics.used_cpu(sandboxes, agents),
        }
    }
}

/// What `host` answered; a failure to answer is counted, and told in words.
fn answered<T>(result: Result<T, HostError>, metrics: &Metrics) -> Result<T, String> {
    result.map_err(|error| {
        metrics.host_failed();
        error.to_string()
    })
}
