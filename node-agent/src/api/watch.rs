//! The watches on the node's own pods: the managed ones, and of those of agents.x-k8s.io that they are there. Started by [`super::run`]; feed
//! [`super::engine`].
//!
//! Only pods by `spec.nodeName` cost the API server nothing per watcher, so the agent watches nothing else.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use pilotlight_common::agents::names::NAME_HASH_LABEL;
use pilotlight_common::names::{MANAGED_BY, MANAGED_BY_LABEL};
use rand::RngExt;
use tokio::sync::mpsc;

use super::decide::Event;
use super::facts::PodFacts;
use crate::metrics::Metrics;
use crate::protocol::PodUid;

/// Pods asked for at once: a page of them is about one megabyte.
const PAGE: u32 = 100;
/// First pause after an error.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause. kube's own default goes to 30 s, which is too long for an agent whose API server just restarted.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Doubling pauses with jitter.
struct Pauses(Duration);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        Some(pause.mul_f64(rand::rng().random_range(0.5..1.0)))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = FIRST_PAUSE;
    }
}

/// Watches until the process ends.
pub async fn run(client: Client, node: String, events: mpsc::Sender<Event>, metrics: Arc<Metrics>) {
    // The guard: an object that cannot be read must not stop the watch of all others.
    let pods: Api<DeserializeGuard<Pod>> = Api::all(client);
    let config = watcher::Config::default()
        .fields(&format!("spec.nodeName={node}"))
        .labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"))
        .page_size(PAGE);
    let mut stream = pin!(watcher(pods, config).backoff(Pauses(FIRST_PAUSE)));
    let mut listed = BTreeSet::new();
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                metrics.watch_failed();
                tracing::warn!(%error, "the pod watch failed; it goes on");
                continue;
            }
        };
        let event = match event {
            watcher::Event::Init => {
                listed.clear();
                continue;
            }
            watcher::Event::InitApply(pod) => {
                let event = seen(pod);
                if let Some(Event::Pod(facts)) = &event {
                    listed.insert(facts.uid.clone());
                }
                event
            }
            watcher::Event::InitDone => Some(Event::PodsListed(std::mem::take(&mut listed))),
            watcher::Event::Apply(pod) => seen(pod),
            watcher::Event::Delete(pod) => {
                let metadata = match pod.0 {
                    Ok(pod) => pod.metadata,
                    Err(invalid) => invalid.metadata,
                };
                gone(metadata.uid)
            }
        };
        let Some(event) = event else {
            continue;
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Watches the pods of agents.x-k8s.io until the process ends: what they use is told in the metrics.
pub async fn run_agents(
    client: Client,
    node: String,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
) {
    let pods: Api<PartialObjectMeta<Pod>> = Api::all(client);
    let config = watcher::Config::default()
        .fields(&format!("spec.nodeName={node}"))
        .labels(NAME_HASH_LABEL)
        .page_size(PAGE);
    let mut stream = pin!(watcher(pods, config).backoff(Pauses(FIRST_PAUSE)));
    let mut listed = BTreeSet::new();
    let uid = |pod: PartialObjectMeta<Pod>| PodUid::try_from(pod.metadata.uid?).ok();
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(pod)) => {
                let uid = uid(pod);
                listed.extend(uid.clone());
                uid.map(Event::AgentsPod)
            }
            Ok(watcher::Event::InitDone) => {
                Some(Event::AgentsPodsListed(std::mem::take(&mut listed)))
            }
            Ok(watcher::Event::Apply(pod)) => uid(pod).map(Event::AgentsPod),
            Ok(watcher::Event::Delete(pod)) => uid(pod).map(Event::AgentsPodGone),
            Err(error) => {
                metrics.watch_failed();
                tracing::warn!(%error, "the watch of agents.x-k8s.io pods failed; it goes on");
                continue;
            }
        };
        let Some(event) = event else {
            continue;
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Of the whole pod only the facts are kept; the rest, managed fields and all, is dropped here.
fn seen(pod: DeserializeGuard<Pod>) -> Option<Event> {
    match pod.0 {
        Ok(pod) => match PodFacts::of(&pod) {
            Some(facts) => Some(Event::Pod(Box::new(facts))),
            None => gone(pod.metadata.uid),
        },
        Err(invalid) => {
            tracing::warn!(error = %invalid, "a pod cannot be read and is left alone");
            gone(invalid.metadata.uid)
        }
    }
}

fn gone(uid: Option<String>) -> Option<Event> {
    PodUid::try_from(uid?).ok().map(Event::PodGone)
}
