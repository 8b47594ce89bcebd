//! Which assignments are live, and how far each has come. Called by [`super::State`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use pilotlight_common::network::{NetworkRules, RulesDigest};
use pilotlight_common::stream::{AgentRefusal, Assignment, RefusedAssignment};

use super::backoff::{Time, backoff};
use super::cpus::Wish;

/// What identifies an assignment: UID of what owns the pod, UID of the sandbox.
pub type Key = (String, String);

/// The address of a scheduler replica.
pub type Replica = SocketAddr;

/// First pause before a publication whose outcome is unknown is looked at.
const PUBLISH_BACKOFF: Duration = Duration::from_millis(50);
/// Longest pause between two tries of a publication.
const PUBLISH_BACKOFF_CAP: Duration = Duration::from_secs(5);
/// Longest refusal message.
const MAX_MESSAGE: usize = 200;

/// The key of an assignment.
pub fn key(assignment: &Assignment) -> Key {
    (assignment.owner.uid.clone(), assignment.sandbox.uid.clone())
}

/// How far an assignment has come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stage {
    /// The Sandbox is to be read first, from this time on: it may have been published already.
    Look(Time),
    /// The Sandbox is being read.
    Looking,
    /// The pod is awaited, since then.
    Waiting(Option<Time>),
    /// CPUs for its pod are asked for.
    Pinning,
    /// The publication is on its way.
    Publishing,
    /// Done.
    Published,
    /// Given back.
    Refused(AgentRefusal, String),
}

/// One live assignment.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The assignment.
    pub assignment: Assignment,
    /// When it was first heard of.
    pub received: Time,
    /// How far it has come.
    pub stage: Stage,
    /// Publications and readings that failed in a row.
    pub failures: u32,
    /// How it stands with the CPUs it wants.
    pub wish: Wish,
    /// Digest of the assignment's network rules.
    pub network_digest: RulesDigest,
}

impl Entry {
    /// Tries again after a pause, beginning with a look: what failed may have arrived.
    pub fn failed(&mut self, now: Time) {
        self.failures = self.failures.saturating_add(1);
        let pause = backoff(
            PUBLISH_BACKOFF,
            PUBLISH_BACKOFF_CAP,
            self.failures,
            &self.assignment.sandbox.uid,
        );
        self.stage = Stage::Look(now + pause);
    }

    /// Gives it back, until it is released.
    pub fn refuse(&mut self, reason: AgentRefusal, message: &str) {
        self.stage = Stage::Refused(reason, message.chars().take(MAX_MESSAGE).collect());
    }
}

/// What each replica lists, and what became of it.
#[derive(Debug, Default)]
pub struct Assignments {
    /// The live ones.
    pub entries: BTreeMap<Key, Entry>,
    replicas: BTreeMap<Replica, Listing>,
}

#[derive(Debug, Default)]
struct Listing {
    keys: BTreeSet<Key>,
    connected: bool,
    forgotten: bool,
}

impl Assignments {
    /// A replica lists exactly these. Returns the keys that were not known.
    pub fn snapshot(
        &mut self,
        replica: Replica,
        assignments: Vec<Assignment>,
        now: Time,
    ) -> Vec<Key> {
        let listing = self.replicas.entry(replica).or_default();
        listing.connected = true;
        listing.forgotten = false;
        listing.keys = assignments.iter().map(key).collect();
        // What replicas listed that have gone for good is decided by those that are there.
        self.replicas.retain(|_, listing| !listing.forgotten);
        let new = assignments
            .into_iter()
            .filter_map(|assignment| self.insert(assignment, Stage::Look(now), now))
            .collect();
        self.drop_unlisted();
        new
    }

    /// A replica lists one more.
    pub fn assign(&mut self, replica: Replica, assignment: Assignment, stage: Stage, now: Time) {
        let listing = self.replicas.entry(replica).or_default();
        listing.keys.insert(key(&assignment));
        self.insert(assignment, stage, now);
    }

    fn insert(&mut self, assignment: Assignment, stage: Stage, now: Time) -> Option<Key> {
        let key = key(&assignment);
        if self.entries.contains_key(&key) {
            // The same one, but for rules that may have been edited since.
            self.set_network(&key, assignment.network);
            return None;
        }
        let entry = Entry {
            network_digest: assignment.network.digest(),
            assignment,
            received: now,
            stage,
            failures: 0,
            wish: Wish::default(),
        };
        self.entries.insert(key.clone(), entry);
        Some(key)
    }

    /// Its sandbox may reach something else from now on.
    pub fn set_network(&mut self, key: &Key, rules: NetworkRules) {
        if let Some(entry) = self.entries.get_mut(key)
            && entry.assignment.network != rules
        {
            entry.network_digest = rules.digest();
            entry.assignment.network = rules;
        }
    }

    /// A replica no longer lists it. It stays live while another does.
    pub fn release(&mut self, replica: Replica, key: &Key) {
        if let Some(listing) = self.replicas.get_mut(&replica) {
            listing.keys.remove(key);
        }
        self.drop_unlisted();
    }

    /// The stream of a replica ended. What it listed stays, until it or another says otherwise.
    pub fn disconnected(&mut self, replica: Replica) {
        if let Some(listing) = self.replicas.get_mut(&replica) {
            listing.connected = false;
        }
    }

    /// A replica is gone for good. What it listed stays where no other is connected, until one is.
    pub fn forget(&mut self, replica: Replica) {
        let others = self
            .replicas
            .iter()
            .any(|(other, listing)| *other != replica && listing.connected);
        if others {
            self.replicas.remove(&replica);
            self.drop_unlisted();
        } else if let Some(listing) = self.replicas.get_mut(&replica) {
            listing.connected = false;
            listing.forgotten = true;
        }
    }

    /// Replicas whose stream is up.
    pub fn connected(&self) -> usize {
        self.replicas.values().filter(|l| l.connected).count()
    }

    /// Whether one is on its way, so that everything else has to wait. A pod that is only starting is none: its image
    /// can take minutes.
    pub fn busy(&self) -> bool {
        self.entries.values().any(|entry| match entry.stage {
            Stage::Published | Stage::Refused(..) => false,
            Stage::Waiting(_) => !entry.assignment.is_cold(),
            Stage::Look(_) | Stage::Looking | Stage::Pinning | Stage::Publishing => true,
        })
    }

    /// What is refused, for the report.
    pub fn refused(&self) -> Vec<RefusedAssignment> {
        self.entries
            .iter()
            .filter_map(|((owner_uid, sandbox_uid), entry)| match &entry.stage {
                Stage::Refused(reason, message) => Some(RefusedAssignment {
                    owner_uid: owner_uid.clone(),
                    sandbox_uid: sandbox_uid.clone(),
                    reason: *reason,
                    message: message.clone(),
                }),
                _ => None,
            })
            .collect()
    }

    fn drop_unlisted(&mut self) {
        let replicas = &self.replicas;
        self.entries
            .retain(|key, _| replicas.values().any(|listing| listing.keys.contains(key)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{assignment, at};
    use super::*;

    fn replica(n: u16) -> Replica {
        SocketAddr::from(([10, 0, 0, 1], n))
    }

    #[test]
    fn an_assignment_lives_while_any_replica_lists_it() {
        let mut all = Assignments::default();
        all.snapshot(replica(1), vec![assignment(1, 1)], at(0));
        all.snapshot(replica(2), vec![assignment(1, 1)], at(0));
        let key = key(&assignment(1, 1));
        all.release(replica(1), &key);
        assert!(all.entries.contains_key(&key));
        all.snapshot(replica(2), vec![], at(1));
        assert!(all.entries.is_empty());
    }

    #[test]
    fn a_repeated_assignment_keeps_its_stage() {
        let mut all = Assignments::default();
        all.assign(replica(1), assignment(1, 1), Stage::Waiting(None), at(0));
        let key = key(&assignment(1, 1));
        all.entries.get_mut(&key).unwrap().stage = Stage::Published;
        all.assign(replica(2), assignment(1, 1), Stage::Waiting(None), at(1));
        all.snapshot(replica(1), vec![assignment(1, 1)], at(2));
        assert_eq!(all.entries[&key].stage, Stage::Published);
    }

    #[test]
    fn without_any_scheduler_the_last_word_stands_until_one_comes_back() {
        let mut all = Assignments::default();
        all.snapshot(replica(1), vec![assignment(1, 1)], at(0));
        all.disconnected(replica(1));
        all.forget(replica(1));
        assert_eq!(all.entries.len(), 1);
        all.snapshot(replica(2), vec![], at(1));
        assert!(all.entries.is_empty());
    }

    #[test]
    fn a_replica_that_is_gone_while_another_is_there_has_no_say() {
        let mut all = Assignments::default();
        all.snapshot(replica(1), vec![assignment(1, 1)], at(0));
        all.snapshot(replica(2), vec![], at(0));
        all.forget(replica(1));
        assert!(all.entries.is_empty());
    }
}
