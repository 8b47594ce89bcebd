//! What sandboxes were refused by their network rules, and when their users are told. Called by [`super::State`].
//!
//! A program that tries for ever must not make the agent write for ever: a Sandbox is written at most twice a minute, and only where
//! there is something new to see in it.

use std::collections::VecDeque;
use std::hash::Hash;
use std::time::Duration;

use super::assignments::Stage;
use super::backoff::{Lane, Time, spread};
use super::pods::Pod;
use super::types::Write;
use super::{State, named};
use crate::api::dns::{MAX_REFUSED, RefusedName};
use crate::protocol::PodUid;

/// Time between two writes of one Sandbox, at least, and up to a fifth more.
const WRITE_INTERVAL: Duration = Duration::from_secs(30);

/// What one sandbox was refused.
#[derive(Clone, Debug, Default)]
pub struct Blocked {
    /// The last names, the latest at the end.
    names: VecDeque<RefusedName>,
    /// Packets.
    packets: u64,
    /// Whether the Sandbox does not show it yet.
    unwritten: bool,
    lane: Lane,
}

impl Blocked {
    fn add(&mut self, names: Vec<RefusedName>, packets: u64) {
        self.unwritten |= !names.is_empty() || packets > 0;
        self.packets = self.packets.saturating_add(packets);
        for mut name in names {
            if let Some(at) = self.names.iter().position(|known| known.name == name.name) {
                let known = self.names.remove(at);
                let times = known.map_or(0, |known| known.times);
                name.times = name.times.saturating_add(times);
            }
            self.names.push_back(name);
        }
        let excess = self.names.len().saturating_sub(MAX_REFUSED);
        self.names.drain(..excess);
    }

    /// It was written.
    pub fn written(&mut self, now: Time, seed: &impl Hash) {
        self.lane.succeeded();
        self.lane.not_before =
            now + WRITE_INTERVAL + spread(WRITE_INTERVAL / 5, seed, now.as_secs());
    }

    /// It was not written, and is tried again.
    pub fn failed(&mut self, now: Time, seed: &impl Hash) {
        self.lane.failed(now, seed);
        self.unwritten = true;
    }
}

impl State {
    /// Takes in what a pod was refused; what it tried before it served a sandbox is of no interest to anybody.
    pub(super) fn was_refused(&mut self, pod: &PodUid, names: Vec<RefusedName>, packets: u64) {
        let pod = self.pods.get_mut(pod);
        if let Some(pod) = pod.filter(|pod| pod.published) {
            pod.blocked.add(names, packets);
        }
    }

    /// Tells the users that are to be told.
    pub(super) fn settle_blocked(&mut self, now: Time, writes: &mut Vec<Write>) {
        for entry in self.assignments.entries.values() {
            if entry.stage != Stage::Published {
                continue;
            }
            let pod = named(&mut self.pods, &self.by_name, &entry.assignment);
            let ours = |pod: &&mut Pod| pod.published && pod.is_meant_by(&entry.assignment);
            let Some(pod) = pod.filter(ours) else {
                continue;
            };
            let blocked = &mut pod.blocked;
            if !blocked.unwritten || blocked.lane.in_flight {
                continue;
            }
            if blocked.lane.not_before > now {
                self.wake = self.wake.min(blocked.lane.not_before);
                continue;
            }
            blocked.lane.in_flight = true;
            blocked.unwritten = false;
            writes.push(Write::Blocked {
                sandbox: entry.assignment.sandbox.clone(),
                pod: pod.facts.pod.clone(),
                names: blocked.names.iter().rev().cloned().collect(),
                packets: blocked.packets,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str, times: u64) -> RefusedName {
        RefusedName {
            name: text.to_owned(),
            times,
        }
    }

    #[test]
    fn the_last_names_are_kept_and_counted_over_all_time() {
        let mut blocked = Blocked::default();
        blocked.add(vec![], 0);
        assert!(!blocked.unwritten);
        blocked.add((0..16).map(|n| name(&format!("{n}.org"), 1)).collect(), 3);
        blocked.add(vec![name("3.org", 2), name("new.org", 1)], 4);
        assert_eq!(blocked.names.len(), MAX_REFUSED);
        assert_eq!(blocked.packets, 7);
        assert_eq!(blocked.names[14], name("3.org", 3));
        assert_eq!(blocked.names[15].name, "new.org");
        assert_eq!(blocked.names[0].name, "1.org");
    }
}
