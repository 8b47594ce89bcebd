//! The pods' networks: when each is armed, which rules it is to have, and what follows from the answers. Called by [`super::State`].
//!
//! A pod is armed as soon as it can be, long before anybody gets it: from then on nothing gets in or out but what is opened. What its
//! sandbox may reach is put in force beside the publication; until then, and wherever that fails, the pod reaches nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pilotlight_common::network::{NetworkRules, RulesDigest};

use super::assignments::Stage;
use super::backoff::{Lane, Time, about, backoff};
use super::types::Action;
use super::{State, named};
use crate::api::dns::RefusedName;
use crate::network_protocol::{Armed, MAX_PODS, NetworkProblem, PodNetwork};
use crate::protocol::PodUid;

/// Every table is compared with what it must be this often.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Questions to arm a pod that are on their way at once: those of assigned pods come between.
const ARMING: usize = 8;
/// First pause before a pod is tried again that cannot be armed yet: it has no network, or no process in it.
const ARM_BACKOFF: Duration = Duration::from_millis(25);
/// Longest pause.
const ARM_BACKOFF_CAP: Duration = Duration::from_secs(2);
/// A running pod that is not armed for so long says so: the process that does it may be restarting.
const PATIENCE: Duration = Duration::from_secs(10);

/// A question for `network`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NetworkAsk {
    /// Close the pod's network, and serve its DNS.
    Arm(PodUid),
    /// Put rules in force.
    Configure(PodUid, Arc<NetworkRules>),
    /// Compare every table; whatever is not named is forgotten.
    Check(BTreeSet<PodUid>),
}

/// Why `network` could not do it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NetworkFailure {
    /// The word.
    pub reason: NetworkProblem,
    /// What happened, for people.
    pub message: String,
}

/// An answer of `network`, with the number of the connection it was asked on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NetworkAnswer {
    /// To [`NetworkAsk::Arm`].
    Armed {
        /// The pod.
        pod: PodUid,
        /// The connection.
        connection: u64,
        /// Where it is armed, and what its table says.
        result: Result<Armed, NetworkFailure>,
    },
    /// To [`NetworkAsk::Configure`].
    Configured {
        /// The pod.
        pod: PodUid,
        /// The connection.
        connection: u64,
        /// The rules that are in force.
        result: Result<RulesDigest, NetworkFailure>,
    },
    /// To [`NetworkAsk::Check`].
    Checked {
        /// The connection.
        connection: u64,
        /// The armed pods.
        result: Result<Vec<PodNetwork>, NetworkFailure>,
        /// Names that pods were refused since the last time.
        refused: Vec<(PodUid, Vec<RefusedName>)>,
    },
}

/// What is known of all pods' networks.
#[derive(Debug)]
pub(super) struct Networks {
    /// Whether this agent keeps pods to their rules at all.
    pub enforced: bool,
    /// The connection that answers count of.
    connection: u64,
    check: Lane,
    check_asked: Time,
    /// Packets out of pods that were refused, as far as this life of the agent saw them counted.
    pub refused_out: u64,
    /// Packets into pods that were dropped, likewise.
    pub dropped_in: u64,
}

/// How one pod's network stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    /// Not known to be armed.
    Open,
    /// Armed, or it was a moment ago: its containers changed since.
    Doubted,
    /// Armed.
    Armed,
}

/// One pod's network.
#[derive(Clone, Debug)]
pub struct PodLink {
    /// None needed: somebody else keeps it to its rules.
    enforced: bool,
    standing: Standing,
    lane: Lane,
    /// What its table says.
    digest: RulesDigest,
    /// The rules that the proxy judges by, in this life of the agent.
    judged_by: Option<RulesDigest>,
    armed_at: Time,
    /// Since when it is not armed.
    since: Time,
    /// Whether its containers changed after it was asked to be armed, and before that was answered.
    doubted_on_its_way: bool,
    /// What its table counted at the last comparison: packets out of it that were refused, and into it that were dropped.
    counted: (u64, u64),
    /// The last failure.
    failure: Option<NetworkFailure>,
}

impl PodLink {
    pub(super) fn new(enforced: bool, now: Time) -> Self {
        Self {
            enforced,
            standing: Standing::Open,
            lane: Lane::default(),
            digest: RulesDigest::FRESH,
            judged_by: None,
            armed_at: Time::ZERO,
            since: now,
            doubted_on_its_way: false,
            counted: (0, 0),
            failure: None,
        }
    }

    /// Whether nothing gets in or out but what is opened.
    pub fn is_armed(&self) -> bool {
        !self.enforced || self.standing == Standing::Armed
    }

    /// What its table says; a pod that had rules served a sandbox.
    pub fn digest(&self) -> RulesDigest {
        self.digest
    }

    /// Whether it can never be armed.
    pub fn hopeless(&self) -> Option<&str> {
        let failure = self.failure.as_ref().filter(|_| !self.is_armed())?;
        let lasting = matches!(
            failure.reason,
            NetworkProblem::HostNetwork | NetworkProblem::Unsupported
        );
        lasting.then_some(failure.message.as_str())
    }

    /// What is wrong, where that is certain: it cannot be armed at all, or was not for a while.
    pub fn trouble(&self, now: Time) -> Option<&str> {
        if self.is_armed() || self.standing == Standing::Doubted {
            return None;
        }
        if self.hopeless().is_none() && now < self.since + PATIENCE {
            return None;
        }
        Some(
            self.failure
                .as_ref()
                .map_or("its network was not armed yet", |failure| {
                    failure.message.as_str()
                }),
        )
    }

    /// When [`PodLink::trouble`] begins to say so.
    pub fn trouble_at(&self, now: Time) -> Time {
        let at = self.since + PATIENCE;
        let silent = self.is_armed() || self.standing == Standing::Doubted || at <= now;
        if silent { Time::MAX } else { at }
    }

    /// Whether this agent keeps it to its rules.
    pub fn is_enforced(&self) -> bool {
        self.enforced
    }

    /// Whether only a comparison can tell if it is armed.
    pub fn is_doubted(&self) -> bool {
        self.standing == Standing::Doubted
    }

    /// Its containers changed: its network may be another.
    pub fn doubt(&mut self) {
        if self.standing == Standing::Armed {
            self.standing = Standing::Doubted;
        }
        // What is on its way may have been found before.
        self.doubted_on_its_way |= self.lane.in_flight;
    }

    fn lost(&mut self, now: Time) {
        if self.standing != Standing::Open {
            self.since = now;
        }
        self.standing = Standing::Open;
        self.lane.not_before = Time::ZERO;
    }

    fn failed(&mut self, failure: NetworkFailure, now: Time, seed: &PodUid) {
        self.lane.in_flight = false;
        self.lane.failures = self.lane.failures.saturating_add(1);
        self.lane.not_before =
            now + backoff(ARM_BACKOFF, ARM_BACKOFF_CAP, self.lane.failures, seed);
        self.failure = Some(failure);
    }

    fn succeeded(&mut self) {
        self.lane.succeeded();
        self.failure = None;
    }
}

impl Default for Networks {
    /// Enforced by somebody else.
    fn default() -> Self {
        Self::new(false)
    }
}

impl Networks {
    pub(super) fn new(enforced: bool) -> Self {
        Self {
            enforced,
            connection: 0,
            check: Lane::default(),
            check_asked: Time::ZERO,
            refused_out: 0,
            dropped_in: 0,
        }
    }

    /// Something changed that a comparison tells more of.
    pub(super) fn check_soon(&mut self) {
        self.check.not_before = Time::ZERO;
    }
}

impl State {
    /// A connection ended: every pod is to be armed again, over the next one.
    pub(super) fn network_lost(&mut self, connection: u64, now: Time) {
        self.networks.connection = connection + 1;
        for pod in self.pods.values_mut() {
            pod.link.lost(now);
        }
    }

    /// Takes an answer in.
    pub(super) fn network_answered(&mut self, answer: NetworkAnswer, now: Time) {
        match answer {
            NetworkAnswer::Armed {
                pod,
                connection,
                result,
            } => {
                let current = connection == self.networks.connection;
                let Some(link) = self.link(&pod) else { return };
                match result {
                    Ok(armed) if current => {
                        link.succeeded();
                        let doubted = std::mem::take(&mut link.doubted_on_its_way);
                        link.standing = if doubted {
                            Standing::Doubted
                        } else {
                            Standing::Armed
                        };
                        link.armed_at = now;
                        link.digest = armed.digest;
                        link.judged_by = None;
                        if doubted {
                            self.networks.check_soon();
                        }
                    }
                    // Of a connection that ended since: asked again over the next.
                    Ok(_) => link.lane.succeeded(),
                    Err(failure) => link.failed(failure, now, &pod),
                }
            }
            NetworkAnswer::Configured {
                pod,
                connection,
                result,
            } => {
                let current = connection == self.networks.connection;
                let Some(link) = self.link(&pod) else { return };
                match result {
                    Ok(digest) if current => {
                        link.succeeded();
                        link.digest = digest;
                        link.judged_by = Some(digest);
                    }
                    Ok(_) => link.lane.succeeded(),
                    Err(failure) => {
                        // Whatever its table says now, it is found out by arming it again.
                        link.failed(failure, now, &pod);
                        let not_before = link.lane.not_before;
                        link.lost(now);
                        link.lane.not_before = not_before;
                    }
                }
            }
            NetworkAnswer::Checked {
                connection,
                result,
                refused,
            } => {
                self.networks.check.in_flight = false;
                for (pod, names) in refused {
                    self.was_refused(&pod, names, 0);
                }
                match result {
                    Ok(told) if connection == self.networks.connection => {
                        self.networks_checked(&told, now);
                    }
                    Ok(_) => {}
                    Err(failure) => {
                        tracing::debug!(message = failure.message, "the networks were not checked");
                    }
                }
            }
        }
    }

    fn link(&mut self, pod: &PodUid) -> Option<&mut PodLink> {
        self.pods.get_mut(pod).map(|pod| &mut pod.link)
    }

    fn networks_checked(&mut self, told: &[PodNetwork], now: Time) {
        for told in told {
            self.count(told);
        }
        for (uid, pod) in &mut self.pods {
            // What is on its way decides by its own answer, and what came meanwhile is newer than this.
            let newer = pod.link.armed_at > self.networks.check_asked;
            if newer || pod.link.lane.in_flight || pod.link.standing == Standing::Open {
                continue;
            }
            match told.iter().find(|told| told.pod == *uid) {
                Some(told) if told.message.is_empty() => {
                    if !told.intact {
                        pod.link.judged_by = None;
                    }
                    pod.link.digest = told.digest;
                    pod.link.standing = Standing::Armed;
                }
                Some(told) => {
                    pod.link.lost(now);
                    pod.link.failure = Some(NetworkFailure {
                        reason: NetworkProblem::Failed,
                        message: told.message.clone(),
                    });
                }
                None => pod.link.lost(now),
            }
        }
    }

    /// Adds what was counted since the last time. A table that was made anew counts from nothing.
    fn count(&mut self, told: &PodNetwork) {
        let Some(link) = self.link(&told.pod) else {
            return;
        };
        let more = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        let refused = more(told.refused_out, link.counted.0);
        let dropped = more(told.dropped_in, link.counted.1);
        link.counted = (told.refused_out, told.dropped_in);
        self.networks.refused_out = self.networks.refused_out.saturating_add(refused);
        self.networks.dropped_in = self.networks.dropped_in.saturating_add(dropped);
        self.was_refused(&told.pod, Vec::new(), refused);
    }

    /// Asks whatever is due.
    pub(super) fn settle_network(&mut self, now: Time, actions: &mut Vec<Action>) {
        if !self.networks.enforced {
            return;
        }
        let mut wake = self.wake;
        // The rules of assigned pods come before the arming of others.
        for entry in self.assignments.entries.values() {
            if !matches!(entry.stage, Stage::Publishing | Stage::Published) {
                continue;
            }
            let pod = named(&mut self.pods, &self.by_name, &entry.assignment);
            let Some(pod) = pod.filter(|pod| pod.is_meant_by(&entry.assignment)) else {
                continue;
            };
            let link = &mut pod.link;
            let wanted = entry.network_digest;
            let stands = link.digest == wanted && link.judged_by == Some(wanted);
            // A table without rules is what no rules come to.
            let nothing = link.digest == RulesDigest::FRESH
                && link.judged_by.is_none()
                && entry.assignment.network.is_empty();
            if link.standing != Standing::Armed || link.lane.in_flight || stands || nothing {
                continue;
            }
            if link.lane.not_before > now {
                wake = wake.min(link.lane.not_before);
                continue;
            }
            link.lane.in_flight = true;
            actions.push(Action::Network(NetworkAsk::Configure(
                pod.facts.uid.clone(),
                Arc::new(entry.assignment.network.clone()),
            )));
        }
        let mut places = ARMING.saturating_sub(
            self.pods
                .values()
                .filter(|pod| pod.link.lane.in_flight && pod.link.standing == Standing::Open)
                .count(),
        );
        let mut due = Vec::new();
        for pod in self.pods.values_mut().filter(|pod| pod.to_be_armed()) {
            let link = &pod.link;
            if link.standing != Standing::Open || link.lane.in_flight {
                continue;
            }
            if link.lane.not_before > now {
                wake = wake.min(link.lane.not_before);
            } else {
                due.push(pod);
            }
        }
        // A pod that serves a sandbox waits for nobody.
        due.sort_by_key(|pod| (pod.served_by.is_none(), pod.link.lane.not_before));
        for pod in due {
            if places == 0 {
                break;
            }
            places -= 1;
            pod.link.lane.in_flight = true;
            actions.push(Action::Network(NetworkAsk::Arm(pod.facts.uid.clone())));
        }
        let check = &mut self.networks.check;
        if !check.in_flight && self.listed {
            if check.not_before <= now {
                check.in_flight = true;
                self.networks.check_asked = now;
                let check = &mut self.networks.check;
                check.not_before = about(now, CHECK_INTERVAL, 10, &"check");
                let pods = self.pods.keys().take(MAX_PODS).cloned().collect();
                actions.push(Action::Network(NetworkAsk::Check(pods)));
            } else {
                wake = wake.min(check.not_before);
            }
        }
        self.wake = wake;
    }
}

#[cfg(test)]
mod tests;
