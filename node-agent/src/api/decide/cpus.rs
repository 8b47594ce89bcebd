//! CPUs of their own: when they are asked of `host`, and what follows from the answers. Called by [`super::State`].
//!
//! A sandbox that wants CPUs is published only once its pod has them. What `host` gives stays the pod's until the pod is
//! gone, so nothing here gives anything back; `host` sees that for itself.

use std::time::Duration;

use pilotlight_common::stream::{AgentRefusal, CpuReport};

use super::assignments::{Entry, Key, Stage};
use super::backoff::{Lane, Time};
use super::types::{Action, Write};
use super::{State, named};
use crate::cpu::CpuSet;
use crate::protocol::{CpuState, Pin, PinAnswer, PinRefusal, PodUid};

/// Time between two questions about the node's CPUs where nobody has any of its own.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);
/// The same where some have: they become free when their pod is gone, and somebody may wait for them.
const BUSY_INTERVAL: Duration = Duration::from_secs(2);
/// Tries that may fail for reasons that pass before the assignment is given back: about three seconds.
const TRIES: u32 = 5;

/// What is known of the node's CPUs.
#[derive(Debug, Default)]
pub(super) struct NodeCpus {
    state: Option<CpuState>,
    asking: bool,
    ask_at: Time,
}

/// How an assignment stands with the CPUs it wants.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// What its pod was granted in this life of the agent.
    pub granted: Option<CpuSet>,
    /// Questions for it.
    pub lane: Lane,
    /// Whether the Sandbox may say other CPUs than these.
    pub unwritten: bool,
    /// The write that sets it right.
    pub write: Lane,
}

impl Entry {
    /// Whether it wants CPUs and has none that are known of.
    pub(super) fn lacks_cpus(&self) -> bool {
        self.assignment.cpus > 0 && self.wish.granted.is_none()
    }

    /// The question for its CPUs, where it is time; otherwise when it is.
    fn ask(&mut self, pod: PodUid, now: Time) -> Result<Action, Time> {
        if self.wish.lane.in_flight {
            return Err(Time::MAX);
        }
        if now < self.wish.lane.not_before {
            return Err(self.wish.lane.not_before);
        }
        self.wish.lane.in_flight = true;
        Ok(Action::Pin {
            key: super::key(&self.assignment),
            pod,
            cpus: self.assignment.cpus,
        })
    }
}

/// Asks for the CPUs of an assignment that is to be published on a pod.
pub(super) fn ask_before_publication(
    entry: &mut Entry,
    pod: PodUid,
    now: Time,
) -> Result<Action, Time> {
    let asked = entry.ask(pod, now);
    if asked.is_ok() {
        entry.stage = Stage::Pinning;
    }
    asked
}

impl State {
    /// Takes the answer to [`Action::Pin`] in.
    pub(super) fn pinned(
        &mut self,
        key: &Key,
        answer: Result<PinAnswer, String>,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => PinAnswer::Refused {
                reason: PinRefusal::Failed,
                message: format!("the agent's host process does not answer: {error}"),
            },
        };
        // What can be given has changed, or is other than was thought.
        self.node_cpus.ask_at = now;
        let Some(entry) = self.assignments.entries.get_mut(key) else {
            return;
        };
        let seed = entry.assignment.sandbox.uid.clone();
        let before_publication = entry.stage == Stage::Pinning;
        if before_publication {
            entry.stage = Stage::Waiting(Some(now));
        }
        let pod = named(&mut self.pods, &self.by_name, &entry.assignment)
            .filter(|pod| pod.is_meant_by(&entry.assignment));
        match answer {
            PinAnswer::Granted(cpus) => {
                entry.wish.lane.succeeded();
                if let Some(pod) = pod {
                    pod.has_cpus();
                    // Until the next answer: what is given is not free any more.
                    self.node_cpus.note(&pod.facts.uid, &cpus);
                }
                // What was published by another life of this agent may have been lost since, in a boot of the node.
                entry.wish.unwritten = !before_publication;
                entry.wish.granted = Some(cpus);
            }
            PinAnswer::Refused { reason, message } => {
                entry.wish.lane.failed(now, &seed);
                if !before_publication {
                    if let Some(pod) = pod {
                        pod.lost_cpus(&message);
                    }
                    return;
                }
                if reason != PinRefusal::Failed || entry.wish.lane.failures >= TRIES {
                    entry.refuse(AgentRefusal::CpusUnavailable, &message);
                    actions.push(Action::CountRefused(AgentRefusal::CpusUnavailable));
                }
            }
        }
    }

    /// Takes the answer to [`Action::Cpus`] in.
    pub(super) fn cpus_told(&mut self, state: Option<CpuState>, now: Time) {
        self.node_cpus.asking = false;
        let busy = state.as_ref().is_some_and(|state| !state.pins.is_empty());
        let interval = if busy { BUSY_INTERVAL } else { IDLE_INTERVAL };
        self.node_cpus.ask_at = self.node_cpus.ask_at.max(now + interval);
        if state.is_some() {
            self.node_cpus.state = state;
        }
    }

    /// Asks about the node's CPUs, and for those of published sandboxes whose pins are not known to this life of the agent.
    pub(super) fn settle_cpus(&mut self, now: Time, actions: &mut Vec<Action>) {
        let ask_at = self.node_cpus.ask_at.max(self.host.not_before);
        // Whether it is there at all is asked by the samples alone.
        if self.host.answers && !self.node_cpus.asking && self.due(ask_at, now) {
            self.node_cpus.asking = true;
            // Whatever comes of it, it is not asked again at once.
            self.node_cpus.ask_at = now;
            actions.push(Action::Cpus);
        }
        let mut wake = self.wake;
        for entry in self.assignments.entries.values_mut() {
            if entry.stage != Stage::Published || entry.assignment.cpus == 0 {
                continue;
            }
            let pod = named(&mut self.pods, &self.by_name, &entry.assignment);
            let Some(pod) =
                pod.filter(|pod| pod.is_meant_by(&entry.assignment) && !pod.facts.terminating)
            else {
                continue;
            };
            if entry.lacks_cpus() {
                match entry.ask(pod.facts.uid.clone(), now) {
                    Ok(action) => actions.push(action),
                    Err(at) => wake = wake.min(at),
                }
                continue;
            }
            let Wish {
                granted: Some(cpus),
                unwritten: true,
                write,
                ..
            } = &mut entry.wish
            else {
                continue;
            };
            if write.in_flight {
                continue;
            }
            if now < write.not_before {
                wake = wake.min(write.not_before);
                continue;
            }
            write.in_flight = true;
            actions.push(Action::Write(Write::Cpus {
                sandbox: entry.assignment.sandbox.clone(),
                pod: pod.facts.pod.clone(),
                cpus: cpus.clone(),
            }));
        }
        self.wake = wake;
    }

    /// Takes in how [`Write::Cpus`] ended.
    pub(super) fn cpus_written(&mut self, sandbox: &str, done: bool, now: Time) {
        let entries = self.assignments.entries.values_mut();
        for entry in entries.filter(|entry| entry.assignment.sandbox.uid == sandbox) {
            if done {
                entry.wish.write.succeeded();
                entry.wish.unwritten = false;
            } else {
                entry.wish.write.failed(now, &sandbox);
            }
        }
    }

    /// What the schedulers are to know.
    pub(super) fn cpu_report(&self) -> CpuReport {
        let Some(state) = &self.node_cpus.state else {
            return CpuReport {
                message: "the agent has not asked about the node's CPUs yet".to_owned(),
                ..CpuReport::default()
            };
        };
        CpuReport {
            message: state.message.clone(),
            free: state.free,
            capacity: state.capacity,
            core: state.core,
            pinned: state.pins.iter().map(|pin| pin.pod.to_string()).collect(),
        }
    }
}

impl NodeCpus {
    /// A pod was granted CPUs: until `host` is asked again the report says what is certain, that they are gone.
    fn note(&mut self, pod: &PodUid, cpus: &CpuSet) {
        let Some(state) = &mut self.state else {
            return;
        };
        if state.pins.iter().any(|pin| pin.pod == *pod) {
            return;
        }
        let core = usize::try_from(state.core.max(1)).unwrap_or(1);
        let cost = u32::try_from(cpus.len().next_multiple_of(core)).unwrap_or(u32::MAX);
        state.free = state.free.saturating_sub(cost);
        state.pins.push(Pin {
            pod: pod.clone(),
            cpus: cpus.clone(),
            intact: true,
        });
    }
}

#[cfg(test)]
mod tests;
