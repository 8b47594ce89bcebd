//! One pod: whether it is prepared, and what has to be written about it. Called by [`super::State`].

use std::hash::Hash;
use std::time::Duration;

use pilotlight_common::names::OwnerKind;

use pilotlight_common::stream::Assignment;

use super::backoff::{Lane, Time, about, backoff};
use super::blocked::Blocked;
use super::network::PodLink;
use super::usage::UsageTrack;
use super::verdict::{Verdict, verdict};
use crate::api::facts::{PodFacts, PodPhase};
use crate::protocol::PodInspection;

/// Confined pods are looked at again this often.
const VERIFY_INTERVAL: Duration = Duration::from_secs(30);
/// A process without a filter is looked at again after this before the pod is given up: `kubectl exec` starts one
/// that takes its filter on a moment later.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);
/// A pod that was given up is looked at again this often.
const GIVEN_UP_INTERVAL: Duration = Duration::from_secs(5);
/// First pause before a pod that shows too little is looked at again.
const LOOK_BACKOFF: Duration = Duration::from_millis(25);
/// Longest pause before a pod that shows too little is looked at again.
const LOOK_BACKOFF_CAP: Duration = Duration::from_secs(5);
/// So many looks that showed too little before the condition says so: a few hundred milliseconds.
const DOUBTS_TOLD: u32 = 5;
/// So many looks in a row that show too little before a confined pod no longer counts as confined.
const DOUBTS_LOST: u32 = 2;
/// A condition that was written and is not seen yet is not written again before this.
const WATCH_PATIENCE: Duration = Duration::from_secs(10);
/// A WarmPod that is Ready is looked at again this often, in case somebody reset it.
const WARM_RESYNC: Duration = Duration::from_mins(10);

/// The first heartbeat comes so long after the pod was prepared, or up to a half sooner.
const FIRST_HEARTBEAT: Duration = Duration::from_mins(1);
/// The first usage is written so long after the publication, or up to a half sooner: never in the middle of a burst.
const FIRST_USAGE: Duration = Duration::from_secs(30);

/// The condition's reasons. Programs match on them, so a word is never changed.
pub mod reason {
    /// True: confined and running.
    pub const PREPARED: &str = "Prepared";
    /// False: the containers no longer run.
    pub const NOT_RUNNING: &str = "NotRunning";
    /// False: the specification asks for less than confinement.
    pub const ASKS_UNCONFINED: &str = "SeccompNotRequested";
    /// False: a process runs that no filter holds.
    pub const UNCONFINED: &str = "SeccompUnconfined";
    /// False: not enough could be seen.
    pub const UNVERIFIED: &str = "SeccompUnverified";
    /// False: nothing keeps the pod to its network rules.
    pub const NETWORK_OPEN: &str = "NetworkNotArmed";
    /// False: the CPUs that were the sandbox's own are not, or not all of them.
    pub const CPUS_LOST: &str = "CpusLost";
}

/// What was found out about the processes.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Seccomp {
    Unknown,
    Confined,
    Unconfined(String),
}

/// How it stands with CPUs of its own.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Cpus {
    Unwanted,
    Own,
    Lost(String),
}

/// What the WarmPod is known to say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Warm {
    Unknown,
    Ready,
    Pending,
    Gone,
}

/// What the condition must say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// Its status.
    pub status: bool,
    /// Its reason.
    pub reason: &'static str,
    /// Its message.
    pub message: String,
}

/// One managed pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What the API server says.
    pub facts: PodFacts,
    seccomp: Seccomp,
    ever_prepared: bool,
    doubts: u32,
    doubt: &'static str,
    offender: Option<(String, u32)>,
    /// When `host` looks at it next.
    pub inspect_at: Time,
    /// UID of the sandbox that a publication was tried for; a pod serves no second one, ever.
    pub served_by: Option<String>,
    /// Whether that publication is known to have succeeded.
    pub published: bool,
    /// Writes of the condition.
    pub condition: Lane,
    written: Option<(bool, &'static str, Time)>,
    /// Writes of the WarmPod's phase.
    pub warm: Lane,
    warm_state: Warm,
    warm_check_at: Time,
    /// The next heartbeat.
    pub heartbeat_at: Time,
    /// What it uses.
    pub usage: UsageTrack,
    /// What its sandbox was refused.
    pub blocked: Blocked,
    /// Writes of the Sandbox's usage.
    pub usage_lane: Lane,
    /// The Sandbox takes no more usage.
    pub usage_over: bool,
    cpus: Cpus,
    /// Its network.
    pub link: PodLink,
}

impl Pod {
    /// A pod seen for the first time.
    pub fn new(facts: PodFacts, enforces_network: bool, now: Time) -> Self {
        Self {
            facts,
            seccomp: Seccomp::Unknown,
            ever_prepared: false,
            doubts: 0,
            doubt: "",
            offender: None,
            inspect_at: now,
            served_by: None,
            published: false,
            condition: Lane::default(),
            written: None,
            warm: Lane::default(),
            warm_state: Warm::Unknown,
            warm_check_at: Time::ZERO,
            heartbeat_at: Time::MAX,
            usage: UsageTrack::default(),
            blocked: Blocked::default(),
            usage_lane: Lane::default(),
            usage_over: false,
            cpus: Cpus::Unwanted,
            link: PodLink::new(enforces_network, now),
        }
    }

    /// Whether its network can and must be closed. Init containers come before: they install what the sandbox is to find.
    pub fn to_be_armed(&self) -> bool {
        self.facts.initialized && !self.facts.terminating && self.facts.phase != PodPhase::Over
    }

    /// Whether an assignment that names it means it: another of that name has another owner.
    pub fn is_meant_by(&self, assignment: &Assignment) -> bool {
        self.facts.owner.id.uid == assignment.owner.uid
    }

    /// It was granted CPUs of its own.
    pub fn has_cpus(&mut self) {
        self.cpus = Cpus::Own;
    }

    /// Its sandbox was promised CPUs of its own, and it has not got them.
    pub fn lost_cpus(&mut self, why: &str) {
        self.cpus = Cpus::Lost(why.to_owned());
    }

    /// Takes in what the API server says now.
    pub fn update(&mut self, facts: PodFacts, now: Time) {
        // What was verified were other processes, or the pod just came up: look at once.
        let other = facts.running != self.facts.running || facts.phase != self.facts.phase;
        let came_up = facts.containers_ready && !self.facts.containers_ready;
        self.facts = facts;
        if other {
            self.seccomp = Seccomp::Unknown;
            self.link.doubt();
        }
        if other || came_up {
            self.doubts = 0;
            self.offender = None;
            self.inspect_at = now;
        }
    }

    /// Takes in what `host` saw.
    pub fn inspected(&mut self, inspection: &PodInspection, now: Time) {
        let own = match &inspection.pin {
            Some(pin) if pin.intact => Cpus::Own,
            Some(pin) => Cpus::Lost(format!(
                "it is not alone on its CPUs {}, or not on all",
                pin.cpus
            )),
            None => Cpus::Lost("its CPUs are not its own any more".to_owned()),
        };
        if self.cpus != Cpus::Unwanted {
            self.cpus = own;
        }
        match verdict(&self.facts, inspection) {
            Verdict::Confined => {
                if self.heartbeat_at == Time::MAX {
                    // What makes the WarmPod Ready is a sign of life too, so the first beat has time.
                    self.heartbeat_at = about(now, FIRST_HEARTBEAT, 2, &self.facts.uid);
                }
                self.seccomp = Seccomp::Confined;
                self.doubts = 0;
                self.offender = None;
                self.inspect_at = match self.cpus {
                    Cpus::Lost(_) => now + GIVEN_UP_INTERVAL,
                    Cpus::Own | Cpus::Unwanted => about(now, VERIFY_INTERVAL, 5, &self.facts.uid),
                };
            }
            Verdict::Unconfined(container, pid) => {
                let again = self.offender.as_ref() == Some(&(container.clone(), pid));
                if again {
                    self.seccomp = Seccomp::Unconfined(format!(
                        "process {pid} of container {container} is not held by a seccomp filter"
                    ));
                    self.inspect_at = now + GIVEN_UP_INTERVAL;
                } else {
                    self.inspect_at = now + DOUBT_INTERVAL;
                }
                self.offender = Some((container, pid));
            }
            Verdict::NotYet(why) => {
                self.doubts = self.doubts.saturating_add(1);
                self.doubt = why;
                if self.seccomp == Seccomp::Confined && self.doubts >= DOUBTS_LOST {
                    self.seccomp = Seccomp::Unknown;
                }
                self.inspect_at =
                    now + backoff(LOOK_BACKOFF, LOOK_BACKOFF_CAP, self.doubts, &self.facts.uid);
            }
        }
        self.ever_prepared |= self.prepared();
    }

    /// Whether `host` has to look at it at all.
    pub fn inspectable(&self) -> bool {
        self.fit() && self.facts.asks_unconfined.is_none()
    }

    fn fit(&self) -> bool {
        !self.facts.terminating
            && self.facts.phase == PodPhase::Running
            && self.facts.containers_ready
    }

    /// Whether a sandbox can be published on it now.
    pub fn prepared(&self) -> bool {
        self.inspectable()
            && self.seccomp == Seccomp::Confined
            && !matches!(self.cpus, Cpus::Lost(_))
            && self.link.is_armed()
    }

    /// Why waiting for it is in vain, where it is.
    pub fn hopeless(&self) -> Option<String> {
        if let Some(why) = self.facts.asks_unconfined {
            return Some(why.to_owned());
        }
        if let Seccomp::Unconfined(message) = &self.seccomp {
            return Some(message.clone());
        }
        if self.facts.phase == PodPhase::Over {
            return Some("the pod is over".to_owned());
        }
        if let Some(why) = self.link.hopeless() {
            return Some(why.to_owned());
        }
        (self.ever_prepared && !self.fit()).then(|| "a container no longer runs".to_owned())
    }

    /// What the pod lacks, for people.
    pub fn lacks(&self) -> &'static str {
        if self.fit() {
            if self.seccomp == Seccomp::Confined && !self.link.is_armed() {
                "its network is not armed yet"
            } else if self.doubt.is_empty() {
                "its processes were not looked at yet"
            } else {
                self.doubt
            }
        } else {
            "its containers are not ready"
        }
    }

    /// What the condition must say; `None` where nothing is certain enough to change it.
    fn wanted(&self, now: Time) -> Option<Wanted> {
        let no = |reason, message: &str| {
            Some(Wanted {
                status: false,
                reason,
                message: message.chars().take(200).collect(),
            })
        };
        if self.facts.terminating {
            // The kubelet reports its end; a write more would be one for nothing.
            return None;
        }
        if let Some(why) = self.facts.asks_unconfined {
            return no(reason::ASKS_UNCONFINED, why);
        }
        if !self.fit() {
            // A pod that is coming up says by its missing condition that it is not prepared.
            let told = self.facts.condition.as_ref().is_some_and(|c| c.0) || self.ever_prepared;
            return told
                .then(|| no(reason::NOT_RUNNING, "a container no longer runs"))
                .flatten();
        }
        match (&self.seccomp, &self.cpus) {
            (Seccomp::Confined, Cpus::Lost(message)) => no(reason::CPUS_LOST, message),
            (Seccomp::Confined, _) if !self.link.is_armed() => {
                no(reason::NETWORK_OPEN, self.link.trouble(now)?)
            }
            (Seccomp::Confined, _) => Some(Wanted {
                status: true,
                reason: reason::PREPARED,
                message: if self.link.is_enforced() {
                    "every process is held by a seccomp filter, and the network by its rules"
                } else {
                    "every process is held by a seccomp filter"
                }
                .to_owned(),
            }),
            (Seccomp::Unconfined(message), _) => no(reason::UNCONFINED, message),
            (Seccomp::Unknown, _) if self.doubts >= DOUBTS_TOLD => {
                no(reason::UNVERIFIED, self.doubt)
            }
            (Seccomp::Unknown, _) => None,
        }
    }

    /// The condition to write, where one is due; otherwise when to look again.
    pub fn condition_due(&self, now: Time) -> Result<Wanted, Time> {
        let Some(wanted) = self.wanted(now) else {
            return Err(self.link.trouble_at(now));
        };
        let says = (wanted.status, wanted.reason);
        let stands = self
            .facts
            .condition
            .as_ref()
            .map(|(status, reason)| (*status, reason.as_str()));
        if stands == Some(says) || self.condition.in_flight {
            return Err(Time::MAX);
        }
        if let Some((status, reason, at)) = self.written
            && (status, reason) == says
            && now < at + WATCH_PATIENCE
        {
            return Err(at + WATCH_PATIENCE);
        }
        if now < self.condition.not_before {
            return Err(self.condition.not_before);
        }
        Ok(wanted)
    }

    /// The condition was written.
    pub fn condition_written(&mut self, status: bool, reason: &'static str, now: Time) {
        self.condition.succeeded();
        self.written = Some((status, reason, now));
    }

    /// Whether the WarmPod's phase is to be written, and to what: Ready or Pending; otherwise when to look again.
    pub fn warm_due(&self, now: Time) -> Result<bool, Time> {
        // Once it serves a sandbox the phase is the scheduler's alone; a pod of no pool has no WarmPod at all.
        if self.facts.owner.kind != OwnerKind::WarmPod
            || self.warm_state == Warm::Gone
            || self.served_by.is_some()
            || self.warm.in_flight
        {
            return Err(Time::MAX);
        }
        let ready = if self.prepared() {
            true
        } else {
            let was = self.warm_state == Warm::Ready
                || self.facts.condition.as_ref().is_some_and(|c| c.0);
            // A pod that was prepared before this process started is not given up before it was looked at.
            let certain = !self.fit() || self.wanted(now).is_some_and(|w| !w.status);
            if !(was && certain) {
                return Err(Time::MAX);
            }
            false
        };
        let due = match (self.warm_state, ready) {
            (Warm::Ready, true) => self.warm_check_at,
            (Warm::Pending, false) => return Err(Time::MAX),
            _ => Time::ZERO,
        }
        .max(self.warm.not_before);
        if now < due { Err(due) } else { Ok(ready) }
    }

    /// The WarmPod says what it must, or is past caring.
    pub fn warm_written(&mut self, ready: bool, now: Time) {
        self.warm.succeeded();
        self.warm_state = if ready { Warm::Ready } else { Warm::Pending };
        self.warm_check_at = about(now, WARM_RESYNC, 5, &self.facts.uid);
    }

    /// The WarmPod is gone; its pod will follow.
    pub fn warm_is_gone(&mut self) {
        self.warm.succeeded();
        self.warm_state = Warm::Gone;
    }

    /// Whether heartbeats are sent for it.
    pub fn beats(&self) -> bool {
        self.facts.owner.kind == OwnerKind::WarmPod
            && self.prepared()
            && self.warm_state != Warm::Gone
    }

    /// It is published for the sandbox with this UID.
    pub fn is_published(&mut self, sandbox: &str, now: Time) {
        let served = self.served_by.get_or_insert_with(|| sandbox.to_owned());
        if served == sandbox && !self.published {
            self.published = true;
            self.usage.not_before = about(now, FIRST_USAGE, 2, &self.facts.uid);
        }
    }

    /// Something to spread its writes by.
    pub fn seed(&self) -> impl Hash + use<> {
        self.facts.uid.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, confined, facts, inspection};
    use super::*;

    fn prepared(now: Time) -> Pod {
        let mut pod = Pod::new(facts(1), false, now);
        pod.inspected(&confined(1), now);
        pod
    }

    #[test]
    fn a_pod_is_prepared_by_what_host_saw_and_nothing_else() {
        let mut pod = Pod::new(facts(1), false, at(0));
        assert!(!pod.prepared());
        assert!(pod.condition_due(at(0)).is_err());
        assert!(pod.warm_due(at(0)).is_err());
        pod.inspected(&confined(1), at(0));
        assert!(pod.prepared());
        assert!(pod.condition_due(at(0)).unwrap().status);
        assert_eq!(pod.warm_due(at(0)), Ok(true));
    }

    #[test]
    fn a_pod_that_asks_for_less_is_never_prepared_and_says_why() {
        let mut facts = facts(1);
        facts.asks_unconfined = Some("a container is privileged");
        let mut pod = Pod::new(facts, false, at(0));
        pod.inspected(&confined(1), at(0));
        assert!(!pod.prepared() && !pod.inspectable());
        let wanted = pod.condition_due(at(0)).unwrap();
        assert_eq!(
            (wanted.status, wanted.reason),
            (false, reason::ASKS_UNCONFINED)
        );
        assert!(pod.hopeless().is_some());
    }

    #[test]
    fn an_exec_that_takes_its_filter_on_late_does_not_cost_the_pod() {
        let mut pod = prepared(at(0));
        pod.inspected(&inspection(1, 3, Some(77)), at(30));
        assert!(pod.prepared());
        assert_eq!(pod.inspect_at, at(31));
        pod.inspected(&inspection(1, 3, Some(78)), at(31));
        assert!(pod.prepared());
        pod.inspected(&confined(1), at(32));
        assert!(pod.prepared());
    }

    #[test]
    fn a_process_that_stays_without_a_filter_costs_the_pod() {
        let mut pod = prepared(at(0));
        pod.warm_written(true, at(0));
        for _ in 0..2 {
            pod.inspected(&inspection(1, 3, Some(77)), at(30));
        }
        assert!(!pod.prepared());
        let wanted = pod.condition_due(at(31)).unwrap();
        assert_eq!((wanted.status, wanted.reason), (false, reason::UNCONFINED));
        assert_eq!(pod.warm_due(at(31)), Ok(false));
    }

    #[test]
    fn a_restarted_container_is_verified_anew() {
        let mut pod = prepared(at(0));
        let mut other = facts(1);
        other.running = ["c2".to_owned()].into();
        other.known = other.running.clone();
        pod.update(other, at(5));
        assert!(!pod.prepared());
        assert_eq!(pod.inspect_at, at(5));
    }

    #[test]
    fn a_pod_that_stopped_clears_its_condition_and_gives_the_warm_pod_back() {
        let mut pod = prepared(at(0));
        pod.condition_written(true, reason::PREPARED, at(0));
        pod.warm_written(true, at(0));
        let mut stopped = facts(1);
        stopped.containers_ready = false;
        stopped.condition = Some((true, reason::PREPARED.into()));
        pod.update(stopped, at(5));
        assert_eq!(
            pod.condition_due(at(5)).unwrap().reason,
            reason::NOT_RUNNING
        );
        assert_eq!(pod.warm_due(at(5)), Ok(false));
        pod.served_by = Some("s".into());
        assert_eq!(pod.warm_due(at(5)), Err(Time::MAX));
    }

    #[test]
    fn after_a_restart_nothing_is_taken_back_before_it_was_looked_at() {
        let mut known = facts(1);
        known.condition = Some((true, reason::PREPARED.into()));
        let pod = Pod::new(known, false, at(0));
        assert!(pod.condition_due(at(0)).is_err());
        assert!(pod.warm_due(at(0)).is_err());
    }

    #[test]
    fn a_write_that_the_watch_has_not_shown_is_not_repeated_at_once() {
        let mut pod = prepared(at(0));
        pod.condition_written(true, reason::PREPARED, at(0));
        assert_eq!(pod.condition_due(at(1)), Err(WATCH_PATIENCE));
        assert!(pod.condition_due(WATCH_PATIENCE).is_ok());
    }

    #[test]
    fn failures_back_off_and_success_resets() {
        let mut pod = prepared(at(0));
        pod.condition.failed(at(0), &1);
        assert!(pod.condition_due(at(0)).is_err());
        assert!(pod.condition_due(at(1)).is_ok());
        pod.condition_written(true, reason::PREPARED, at(1));
        assert_eq!(pod.condition.failures, 0);
    }
}
