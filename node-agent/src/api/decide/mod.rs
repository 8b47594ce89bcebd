//! The agent's mind: what to do next, given everything that happened. Called by [`super::engine`] alone.
//!
//! [`State::step`] takes one event in and then looks at everything that is due, so what is done never depends on why it woke.
//! There is no client, clock or randomness in here: time is an argument, and what is to be done comes back as [`Action`]s.

mod assignments;
mod backoff;
mod blocked;
mod cpus;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod model_tests;
mod network;
mod pods;
mod profiles;
mod settle;
mod types;
mod usage;
mod verdict;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use pilotlight_common::stream::{Assignment, NodeReport, StreamMessage};

pub use assignments::{Key, Replica, key};
pub use backoff::Time;
pub use network::{NetworkAnswer, NetworkAsk, NetworkFailure};
pub use profiles::Ask;
pub use types::{Action, Attempt, Event, Now, Outcome, Summary, Write};
pub use usage::Usage;

use crate::api::facts::PodFacts;
use crate::protocol::PodUid;
use assignments::{Assignments, Stage};
use backoff::{Lane, about, backoff, spread};
use pods::Pod;
use profiles::Profiles;
use usage::{UsageTrack, WRITE_INTERVAL};

/// An assignment decided longer ago than this may have been published by another life of this agent: look before writing.
/// Where the node's clock is ahead of the scheduler's that costs a read and nothing else.
const FRESH: SignedDuration = SignedDuration::from_secs(5);
/// For so long after the start every assignment may be an old one.
const YOUNG: Duration = Duration::from_secs(10);
/// Time between two heartbeats of one WarmPod.
const HEARTBEAT_INTERVAL: Duration = Duration::from_mins(1);
/// Least time between two heartbeats of the node.
const HEARTBEAT_PACE: Duration = Duration::from_secs(1);
/// First pause after `host` did not answer.
const HOST_BACKOFF: Duration = Duration::from_millis(100);
/// Longest pause after `host` did not answer.
const HOST_BACKOFF_CAP: Duration = Duration::from_secs(5);

/// Whether `host` answers, and when it is asked next.
#[derive(Debug, Default)]
struct Host {
    answers: bool,
    error: String,
    failures: u32,
    not_before: Time,
    inspecting: bool,
    sampling: bool,
    sample_at: Time,
}

/// Everything the agent knows.
#[derive(Debug, Default)]
pub struct State {
    pods: BTreeMap<PodUid, Pod>,
    by_name: BTreeMap<(String, String), PodUid>,
    /// Pods of Sandboxes of agents.x-k8s.io: nothing is done for them but that what they use is told.
    agents: BTreeMap<PodUid, UsageTrack>,
    assignments: Assignments,
    host: Host,
    profiles: Profiles,
    node_cpus: cpus::NodeCpus,
    networks: network::Networks,
    listed: bool,
    stopping: bool,
    heartbeat: Lane,
    wake: Time,
}

impl State {
    /// Knows nothing yet. `enforces_network`: whether this agent keeps pods to their network rules.
    pub fn new(enforces_network: bool) -> Self {
        Self {
            networks: network::Networks::new(enforces_network),
            ..Self::default()
        }
    }

    /// Takes an event in and says what is to be done.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        self.absorb(event, now, &mut actions);
        self.settle(now.time, &mut actions);
        actions
    }

    /// When [`Event::Wake`] is due at the latest.
    pub fn wake(&self) -> Time {
        self.wake
    }

    /// What the schedulers are to know.
    pub fn report(&self) -> NodeReport {
        let message = if self.stopping {
            "the agent is stopping".to_owned()
        } else if !self.listed {
            "the agent has not seen the node's pods yet".to_owned()
        } else if !self.host.answers {
            format!(
                "the agent's host process does not answer: {}",
                self.host.error
            )
        } else {
            self.profiles.lacking().unwrap_or_default()
        };
        NodeReport {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: message.is_empty(),
            message: message.chars().take(200).collect(),
            profiles: self.profiles.names(),
            refused: self.assignments.refused(),
            cpus: self.cpu_report(),
        }
    }

    /// Numbers for the metrics.
    pub fn summary(&self) -> Summary {
        Summary {
            pods: self.pods.len(),
            prepared: self.pods.values().filter(|pod| pod.prepared()).count(),
            assignments: self.assignments.entries.len(),
            replicas: self.assignments.connected(),
            profiles: self.profiles.names().len(),
            armed: self
                .pods
                .values()
                .filter(|pod| self.networks.enforced && pod.link.is_armed())
                .count(),
            network_refused_out: self.networks.refused_out,
            network_dropped_in: self.networks.dropped_in,
            profiles_refused: self.profiles.refused().count(),
            memory_bytes: self.pods.values().map(|p| p.usage.memory_bytes()).sum(),
            agents_memory_bytes: self.agents.values().map(UsageTrack::memory_bytes).sum(),
            busy: self.assignments.busy(),
        }
    }

    fn absorb(&mut self, event: Event, now: Now, actions: &mut Vec<Action>) {
        let time = now.time;
        match event {
            Event::Pod(facts) => self.pod_seen(*facts, time),
            Event::PodGone(uid) => self.pod_gone(&uid, actions),
            Event::PodsListed(uids) => {
                let gone: Vec<PodUid> = self
                    .pods
                    .keys()
                    .filter(|uid| !uids.contains(uid))
                    .cloned()
                    .collect();
                for uid in gone {
                    self.pod_gone(&uid, actions);
                }
                self.listed = true;
            }
            Event::AgentsPod(uid) => {
                self.agents.entry(uid).or_default();
            }
            Event::AgentsPodGone(uid) => {
                self.agents.remove(&uid);
            }
            Event::AgentsPodsListed(uids) => self.agents.retain(|uid, _| uids.contains(uid)),
            Event::Stream(replica, message) => self.heard(replica, message, now),
            Event::Disconnected(replica) => self.assignments.disconnected(replica),
            Event::Forgotten(replica) => {
                self.assignments.forget(replica);
                self.profiles.forget(replica);
            }
            Event::Inspected(result) => {
                self.host.inspecting = false;
                if let Some(seen) = self.host_answered(result, time) {
                    for inspection in seen {
                        if let Some(pod) = self.pods.get_mut(&inspection.uid) {
                            pod.inspected(&inspection, time);
                        }
                    }
                }
            }
            Event::Sampled(result) => {
                self.host.sampling = false;
                if let Some(samples) = self.host_answered(result, time) {
                    let (mut sandboxes, mut agents) = (0_u64, 0_u64);
                    for sample in samples {
                        if let Some(pod) = self.pods.get_mut(&sample.uid) {
                            sandboxes = sandboxes.saturating_add(pod.usage.observe(&sample));
                        } else if let Some(track) = self.agents.get_mut(&sample.uid) {
                            agents = agents.saturating_add(track.observe(&sample));
                        }
                    }
                    actions.push(Action::CountCpu { sandboxes, agents });
                }
            }
            Event::ProfileInstalled(profile, result) => {
                self.profiles.unanswered();
                if let Some(result) = self.host_answered(result, time) {
                    if let Err(why) = &result {
                        actions.push(Action::TellRefusedProfile(
                            profile.name.clone(),
                            why.clone(),
                        ));
                    }
                    self.profiles.installed(profile, result, time);
                }
            }
            Event::ProfilesChecked(result) => {
                self.profiles.unanswered();
                if let Some(checked) = self.host_answered(result, time) {
                    self.profiles.checked(checked);
                }
            }
            Event::Pinned(key, answer) => self.pinned(&key, answer, time, actions),
            Event::Cpus(result) => {
                let state = self.host_answered(result, time);
                self.cpus_told(state, time);
            }
            Event::Network(answer) => self.network_answered(answer, time),
            Event::NetworkLost(connection) => self.network_lost(connection, time),
            Event::Attempted(key, attempt) => self.attempted(&key, attempt, time, actions),
            Event::Wrote(write, outcome) => self.wrote(&write, outcome, time),
            Event::Stop => self.stopping = true,
            Event::Wake => {}
        }
    }

    fn pod_seen(&mut self, facts: PodFacts, now: Time) {
        let name = (facts.pod.namespace.clone(), facts.pod.name.clone());
        let uid = facts.uid.clone();
        self.by_name.insert(name, uid.clone());
        if let Some(pod) = self.pods.get_mut(&uid) {
            pod.update(facts, now);
            if pod.link.is_doubted() {
                self.networks.check_soon();
            }
        } else {
            let pod = Pod::new(facts, self.networks.enforced, now);
            self.pods.insert(uid, pod);
        }
    }

    fn pod_gone(&mut self, uid: &PodUid, actions: &mut Vec<Action>) {
        if self.networks.enforced {
            actions.push(Action::ForgetNetwork(uid.clone()));
        }
        if let Some(pod) = self.pods.remove(uid) {
            let name = (pod.facts.pod.namespace, pod.facts.pod.name);
            // A successor of the same name may be there already.
            if self.by_name.get(&name) == Some(uid) {
                self.by_name.remove(&name);
            }
        }
    }

    fn heard(&mut self, replica: Replica, message: StreamMessage, now: Now) {
        match message {
            StreamMessage::Snapshot {
                assignments,
                profiles,
            } => {
                self.assignments.snapshot(replica, assignments, now.time);
                self.profiles.heard(replica, profiles);
            }
            StreamMessage::Profiles { profiles } => self.profiles.heard(replica, profiles),
            StreamMessage::Assign { assignment } => {
                // What another life of this agent may have published is read first: writing again would move its start.
                let tried = self
                    .pod_of(&assignment)
                    .is_some_and(|pod| pod.served_by.as_ref() == Some(&assignment.sandbox.uid));
                let old = now.wall.duration_since(assignment.assigned_at) > FRESH;
                let stage = if tried || old || now.time < YOUNG {
                    Stage::Look(now.time)
                } else {
                    Stage::Waiting(None)
                };
                self.assignments
                    .assign(replica, assignment, stage, now.time);
            }
            StreamMessage::Release { owner, sandbox_uid } => {
                self.assignments.release(replica, &(owner.uid, sandbox_uid));
            }
            StreamMessage::Network {
                owner,
                sandbox_uid,
                rules,
            } => self
                .assignments
                .set_network(&(owner.uid, sandbox_uid), rules),
            StreamMessage::Bookmark => {}
        }
    }

    fn host_answered<T>(&mut self, result: Result<T, String>, now: Time) -> Option<T> {
        match result {
            Ok(answer) => {
                self.host.answers = true;
                self.host.failures = 0;
                self.host.not_before = Time::ZERO;
                Some(answer)
            }
            Err(error) => {
                self.host.answers = false;
                self.host.error = error;
                self.host.failures = self.host.failures.saturating_add(1);
                self.host.not_before =
                    now + backoff(HOST_BACKOFF, HOST_BACKOFF_CAP, self.host.failures, &"host");
                // A host that came back is noticed by the next sample.
                self.host.sample_at = self.host.not_before;
                None
            }
        }
    }

    fn attempted(&mut self, key: &Key, attempt: Attempt, now: Time, actions: &mut Vec<Action>) {
        if attempt == Attempt::Published
            && let Some(pod) = self
                .pods
                .values_mut()
                .find(|pod| pod.facts.owner.id.uid == key.0)
        {
            pod.is_published(&key.1, now);
        }
        let Some(entry) = self.assignments.entries.get_mut(key) else {
            return;
        };
        if !matches!(entry.stage, Stage::Looking | Stage::Publishing) {
            return;
        }
        match attempt {
            Attempt::Published => {
                // Of an assignment that was only found published the time says nothing.
                if entry.stage == Stage::Publishing {
                    actions.push(Action::CountPublished(now.saturating_sub(entry.received)));
                }
                entry.stage = Stage::Published;
            }
            Attempt::Unpublished => entry.stage = Stage::Waiting(None),
            Attempt::Refused(reason, message) => {
                entry.refuse(reason, &message);
                actions.push(Action::CountRefused(reason));
            }
            Attempt::Failed => entry.failed(now),
        }
    }

    fn wrote(&mut self, write: &Write, outcome: Outcome, now: Time) {
        if matches!(write, Write::Heartbeat { .. }) {
            match outcome {
                Outcome::Done | Outcome::Gone => self.heartbeat.succeeded(),
                Outcome::Failed => self.heartbeat.failed(now, &"heartbeat"),
            }
            self.heartbeat.not_before = self.heartbeat.not_before.max(now + HEARTBEAT_PACE);
        }
        if let Write::Cpus { sandbox, .. } = write {
            self.cpus_written(&sandbox.uid, outcome != Outcome::Failed, now);
        }
        let interval = self.heartbeat_interval();
        let pod = PodUid::try_from(write.pod().uid.clone())
            .ok()
            .and_then(|uid| self.pods.get_mut(&uid));
        let Some(pod) = pod else {
            return;
        };
        let seed = pod.seed();
        match (write, outcome) {
            // Of a pod that is gone the watch will say so in a moment; until then there is nothing to write to.
            (Write::Condition { status, reason, .. }, Outcome::Done | Outcome::Gone) => {
                pod.condition_written(*status, reason, now);
            }
            (Write::Condition { .. }, Outcome::Failed) => pod.condition.failed(now, &seed),
            (Write::WarmPod { ready, .. }, Outcome::Done) => pod.warm_written(*ready, now),
            (Write::WarmPod { .. } | Write::Heartbeat { .. }, Outcome::Gone) => pod.warm_is_gone(),
            (Write::WarmPod { .. }, Outcome::Failed) => pod.warm.failed(now, &seed),
            (Write::Heartbeat { .. }, Outcome::Done) => {
                pod.heartbeat_at = about(now, interval, 10, &seed);
            }
            (Write::Heartbeat { .. }, Outcome::Failed) | (Write::Cpus { .. }, _) => {}
            (Write::Blocked { .. }, Outcome::Done | Outcome::Gone) => {
                pod.blocked.written(now, &seed);
            }
            (Write::Blocked { .. }, Outcome::Failed) => pod.blocked.failed(now, &seed),
            (Write::Usage { usage, .. }, Outcome::Done) => {
                pod.usage_lane.succeeded();
                pod.usage.written = Some(*usage);
                pod.usage.not_before =
                    now + WRITE_INTERVAL + spread(WRITE_INTERVAL / 5, &seed, now.as_secs());
            }
            (Write::Usage { .. }, Outcome::Gone) => pod.usage_over = true,
            (Write::Usage { .. }, Outcome::Failed) => pod.usage_lane.failed(now, &seed),
        }
    }

    /// Slower where the node has many, so that all of them together stay below [`HEARTBEAT_PACE`].
    fn heartbeat_interval(&self) -> Duration {
        let pods = u32::try_from(self.pods.len()).unwrap_or(u32::MAX);
        HEARTBEAT_INTERVAL.max(HEARTBEAT_PACE.saturating_mul(pods))
    }

    fn pod_of(&self, assignment: &Assignment) -> Option<&Pod> {
        self.pods.get(self.by_name.get(&name_of(assignment))?)
    }
}

/// Namespace and name of an assignment's pod.
fn name_of(assignment: &Assignment) -> (String, String) {
    (
        assignment.owner.namespace.clone(),
        assignment.pod_name.clone(),
    )
}

/// The pod that an assignment names, which may be another of that name: see [`Pod::is_meant_by`].
fn named<'a>(
    pods: &'a mut BTreeMap<PodUid, Pod>,
    by_name: &BTreeMap<(String, String), PodUid>,
    assignment: &Assignment,
) -> Option<&'a mut Pod> {
    pods.get_mut(by_name.get(&name_of(assignment))?)
}

#[cfg(test)]
mod tests;
