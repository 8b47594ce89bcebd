//! What is due, whatever it was that woke the agent. Called by [`State::step`].

use std::time::Duration;

use pilotlight_common::network::RulesDigest;
use pilotlight_common::stream::{AgentRefusal, Assignment};

use super::assignments::Stage;
use super::backoff::Time;
use super::cpus::ask_before_publication;
use super::pods::Pod;
use super::types::{Action, Write};
use super::usage::SAMPLE_INTERVAL;
use super::{State, named};
use crate::api::facts::PodPhase;
use crate::protocol::MAX_PODS;

/// How long an assignment waits for a pod that the watch has not shown or `host` has not looked at.
const POD_PATIENCE: Duration = Duration::from_secs(2);
/// The same while `host` does not answer: it may be restarting.
const HOST_PATIENCE: Duration = Duration::from_secs(10);
/// Pods that are due within this are looked at in one batch.
const BATCH: Duration = Duration::from_secs(3);

impl State {
    /// Starts whatever is due, assignments first, and notes when the next thing is.
    pub(super) fn settle(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.wake = now + SAMPLE_INTERVAL;
        self.settle_assignments(now, actions);
        self.settle_network(now, actions);
        self.settle_cpus(now, actions);
        self.settle_host(now, actions);
        self.settle_pods(now, actions);
    }

    pub(super) fn due(&mut self, at: Time, now: Time) -> bool {
        if at > now {
            self.wake = self.wake.min(at);
        }
        at <= now
    }

    fn settle_assignments(&mut self, now: Time, actions: &mut Vec<Action>) {
        let mut wake = self.wake;
        for entry in self.assignments.entries.values_mut() {
            match &entry.stage {
                Stage::Look(at) if *at <= now => {
                    entry.stage = Stage::Looking;
                    actions.push(Action::Look(entry.assignment.clone()));
                }
                Stage::Look(at) => wake = wake.min(*at),
                // Before the first list nothing can be said about any pod.
                Stage::Waiting(_) if !self.listed => {}
                Stage::Waiting(since) => {
                    let since = since.unwrap_or(now);
                    entry.stage = Stage::Waiting(Some(since));
                    let assignment = &entry.assignment;
                    let pod = named(&mut self.pods, &self.by_name, assignment);
                    let uid = pod.as_ref().map(|pod| pod.facts.uid.clone());
                    let table = pod.as_ref().map(|pod| pod.link.digest());
                    match place(assignment, pod, self.host.answers, since, now) {
                        // This life of the agent gave it to nobody, but its table remembers.
                        Place::Publish
                            if table.is_some_and(|table| {
                                table != RulesDigest::FRESH && table != entry.network_digest
                            }) =>
                        {
                            entry.refuse(
                                AgentRefusal::PodGone,
                                "the pod's network has the rules of another sandbox",
                            );
                            actions.push(Action::CountRefused(AgentRefusal::PodGone));
                        }
                        Place::Publish if entry.lacks_cpus() => {
                            let Some(uid) = uid else { continue };
                            match ask_before_publication(entry, uid, now) {
                                Ok(action) => actions.push(action),
                                Err(at) => wake = wake.min(at),
                            }
                        }
                        Place::Publish => {
                            entry.stage = Stage::Publishing;
                            let cpus = entry.wish.granted.clone();
                            actions.push(Action::Publish(entry.assignment.clone(), cpus));
                        }
                        Place::Wait(until) => wake = wake.min(until),
                        Place::Refuse(reason, message) => {
                            entry.refuse(reason, &message);
                            actions.push(Action::CountRefused(reason));
                        }
                    }
                }
                Stage::Looking
                | Stage::Pinning
                | Stage::Publishing
                | Stage::Published
                | Stage::Refused(..) => {}
            }
        }
        self.wake = wake;
    }

    fn settle_host(&mut self, now: Time, actions: &mut Vec<Action>) {
        let not_before = self.host.not_before;
        if !self.host.inspecting {
            let next = self
                .pods
                .values()
                .filter(|pod| pod.inspectable())
                .map(|pod| pod.inspect_at.max(not_before))
                .min();
            if let Some(next) = next
                && self.due(next, now)
            {
                let mut due: Vec<&Pod> = self
                    .pods
                    .values()
                    .filter(|pod| pod.inspectable() && pod.inspect_at <= now + BATCH)
                    .collect();
                // Whoever waits longest first, since a batch is bounded.
                due.sort_by_key(|pod| pod.inspect_at);
                due.truncate(MAX_PODS);
                let uids = due.into_iter().map(|pod| pod.facts.uid.clone()).collect();
                self.host.inspecting = true;
                actions.push(Action::Inspect(uids));
            }
        }
        if !self.host.sampling && self.due(self.host.sample_at.max(not_before), now) {
            self.host.sampling = true;
            self.host.sample_at = now + SAMPLE_INTERVAL;
            let pods = self.pods.keys().chain(self.agents.keys());
            actions.push(Action::Sample(pods.cloned().collect()));
        }
        let pods = &self.pods;
        let named = || {
            pods.values()
                .flat_map(|pod| pod.facts.profiles.iter().cloned())
                .collect()
        };
        match self.profiles.due(not_before, named, now) {
            Ok(ask) => actions.push(Action::Profiles(ask)),
            Err(at) => self.wake = self.wake.min(at),
        }
    }

    fn settle_pods(&mut self, now: Time, actions: &mut Vec<Action>) {
        let busy = self.assignments.busy();
        let mut wake = self.wake;
        let mut writes = Vec::new();
        for pod in self.pods.values_mut() {
            let facts = &pod.facts;
            match pod.condition_due(now) {
                Ok(wanted) => {
                    writes.push(Write::Condition {
                        pod: facts.pod.clone(),
                        status: wanted.status,
                        reason: wanted.reason,
                        message: wanted.message,
                    });
                    pod.condition.in_flight = true;
                }
                Err(at) => wake = wake.min(at),
            }
            match pod.warm_due(now) {
                Ok(ready) => {
                    writes.push(Write::WarmPod {
                        warm_pod: pod.facts.owner.id.clone(),
                        pod: pod.facts.pod.clone(),
                        ready,
                    });
                    pod.warm.in_flight = true;
                }
                Err(at) => wake = wake.min(at),
            }
            // Everything below can wait for the assignments.
            if busy {
                continue;
            }
            if !self.heartbeat.in_flight && pod.beats() {
                let at = pod.heartbeat_at.max(self.heartbeat.not_before);
                if at <= now {
                    writes.push(Write::Heartbeat {
                        warm_pod: pod.facts.owner.id.clone(),
                        pod: pod.facts.pod.clone(),
                    });
                    self.heartbeat.in_flight = true;
                } else {
                    wake = wake.min(at);
                }
            }
        }
        self.wake = wake;
        if !busy {
            self.settle_usage(now, &mut writes);
            self.settle_blocked(now, &mut writes);
        }
        actions.extend(writes.into_iter().map(Action::Write));
    }

    fn settle_usage(&mut self, now: Time, writes: &mut Vec<Write>) {
        for entry in self.assignments.entries.values() {
            if entry.stage != Stage::Published {
                continue;
            }
            let Some(pod) = named(&mut self.pods, &self.by_name, &entry.assignment) else {
                continue;
            };
            let ours = pod.published && pod.is_meant_by(&entry.assignment);
            let Some(usage) = pod.usage.current else {
                continue;
            };
            if !ours
                || pod.usage_over
                || pod.usage_lane.in_flight
                || !usage.is_news(pod.usage.written)
            {
                continue;
            }
            let at = pod.usage.not_before.max(pod.usage_lane.not_before);
            if at > now {
                self.wake = self.wake.min(at);
                continue;
            }
            pod.usage_lane.in_flight = true;
            writes.push(Write::Usage {
                sandbox: entry.assignment.sandbox.clone(),
                pod: pod.facts.pod.clone(),
                usage,
            });
        }
    }
}

/// What becomes of an assignment whose Sandbox is not published.
enum Place {
    Publish,
    Wait(Time),
    Refuse(AgentRefusal, String),
}

fn place(
    assignment: &Assignment,
    pod: Option<&mut Pod>,
    host_answers: bool,
    since: Time,
    now: Time,
) -> Place {
    let gone = |message: &str| Place::Refuse(AgentRefusal::PodGone, message.to_owned());
    let cold = assignment.is_cold();
    let Some(pod) = pod else {
        if cold {
            // The scheduler saw it placed here before the watch did; it takes the assignment back once it is gone.
            return Place::Wait(Time::MAX);
        }
        let until = since + POD_PATIENCE;
        return if now < until {
            Place::Wait(until)
        } else {
            gone("the node has no such pod")
        };
    };
    if !pod.is_meant_by(assignment) {
        return gone("the pod of that name belongs to another object");
    }
    if pod.facts.terminating {
        return gone("the pod is terminating");
    }
    let sandbox = &assignment.sandbox.uid;
    if pod.served_by.as_ref().is_some_and(|other| other != sandbox) {
        return gone("the pod already serves another sandbox");
    }
    if pod.prepared() {
        pod.served_by = Some(sandbox.clone());
        return Place::Publish;
    }
    if cold && pod.facts.phase != PodPhase::Over {
        // It is this sandbox's whatever becomes of it; how its start goes is for the scheduler to judge.
        return Place::Wait(Time::MAX);
    }
    let not_prepared = |message: String| Place::Refuse(AgentRefusal::PodNotPrepared, message);
    if let Some(why) = pod.hopeless() {
        return not_prepared(why);
    }
    let until = since
        + if host_answers {
            POD_PATIENCE
        } else {
            HOST_PATIENCE
        };
    if now < until {
        Place::Wait(until)
    } else {
        not_prepared(pod.lacks().to_owned())
    }
}
