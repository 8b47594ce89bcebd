//! What the index knows of each object beyond its view: what is under way, and what follows from the others.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pilotlight_common::network::{NetworkRules, RulesDigest};
use pilotlight_common::reasons::Refusal;
use pilotlight_common::resolve::{ResolvedPool, ResolvedSandbox};
use pilotlight_common::stream::NodeReport;

use super::health::Health;
use super::network_policies::PolicyState;
use super::pinning::NodePins;
use super::ready::Place;
use super::standing::Standing;
use super::{ColdStart, Pace};
use crate::decide::{Needs, Preloading};
use crate::view::{Claim, Key, NodeView, PoolView, SandboxView, WarmPodView};

/// A sandbox.
#[derive(Debug)]
pub struct SandboxEntry {
    /// The object.
    pub view: SandboxView,
    /// What it asks of its pod, with the shape; or why it cannot be had.
    pub resolved: Result<(ResolvedSandbox, String), Refusal>,
    /// What it may reach over the network: the last rules that could be fulfilled. An edit that cannot leaves them as they are.
    pub network: NetworkRules,
    /// Digest of the rules that its node was told.
    pub network_told: Option<RulesDigest>,
    /// Its NetworkPolicy, where those keep sandboxes to their rules.
    pub network_policy: PolicyState,
    /// When this replica first saw it.
    pub first_seen: Timestamp,
    /// The WarmPod whose assignment to it is under way.
    pub in_flight: Option<Key>,
    /// Whether a status write is under way.
    pub busy: bool,
    /// No status write before this time.
    pub not_before: Timestamp,
    /// Failed status writes in a row.
    pub failures: u32,
    /// Its place among the waiting, where it waits: its shape, and the CPUs it wants for its own.
    pub waiting_as: Option<(String, u32)>,
    /// Whether it was counted as a hit or a miss.
    pub counted: bool,
    /// What is under way where it gets a pod of its own.
    pub cold: ColdStart,
    /// The name of its runtime, while it counts among its users.
    pub uses_runtime: Option<String>,
    /// How its pod fares, once it is published.
    pub health: Health,
    /// Whether its publication is borne out.
    pub standing: Standing,
}

/// Where a warm pod stands in its pool.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// Being made, or on a node that cannot be reached now.
    Pending = 0,
    /// Assignable now.
    Available = 1,
    /// A sandbox's, or about to be.
    Assigned = 2,
    /// Being made, but not what its pool wants any more.
    Stale = 3,
    /// Idle, and its pod or its pool is gone.
    Broken = 4,
    /// On its way out.
    Leaving = 5,
    /// Ready, but of another shape or with other preloads than its pool wants, or too old: it goes once another pod
    /// is there in its place, and is assignable until then.
    Outdated = 6,
}

impl Class {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// All of them, in order of their number.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Pending,
        Self::Available,
        Self::Assigned,
        Self::Stale,
        Self::Broken,
        Self::Leaving,
        Self::Outdated,
    ];

    /// The word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Available => "available",
            Self::Assigned => "assigned",
            Self::Stale => "stale",
            Self::Broken => "broken",
            Self::Leaving => "leaving",
            Self::Outdated => "outdated",
        }
    }
}

/// A warm pod.
#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "four facts that are independent of each other"
)]
pub struct WarmPodEntry {
    /// The object; of one being created, what it will be.
    pub view: WarmPodView,
    /// Whether it is being created and was not seen yet.
    pub placeholder: bool,
    /// When this replica first saw it.
    pub first_seen: Timestamp,
    /// Whether its pod was seen.
    pub had_pod: bool,
    /// Its class, as counted in its pool.
    pub class: Class,
    /// Its place in the ready queue, where it has one.
    pub place: Option<Place>,
    /// UID of the sandbox whose assignment to it is under way.
    pub in_flight: Option<String>,
    /// Whether another write is under way.
    pub busy: bool,
    /// Whether its removal is under way: it is no longer one of its pool's pods, or the next look at the pool
    /// would find it too many once more and remove another.
    pub leaving: bool,
    /// A race for it was lost at this revision: no candidate until a later one is seen.
    pub lost_at: Option<u64>,
    /// When this replica first saw whom it belongs to.
    pub claim_seen: Option<Timestamp>,
    /// Why its agent will not publish the sandbox it belongs to.
    pub refused: Option<String>,
    /// Node and sandbox UID that the node's agent was told.
    pub announced: Option<(String, String)>,
    /// No write before this time.
    pub not_before: Timestamp,
    /// Failed writes in a row.
    pub failures: u32,
}

impl WarmPodEntry {
    pub(crate) fn new(view: WarmPodView, placeholder: bool, now: Timestamp) -> Self {
        Self {
            view,
            placeholder,
            first_seen: now,
            had_pod: false,
            class: Class::Leaving,
            place: None,
            in_flight: None,
            busy: placeholder,
            leaving: false,
            lost_at: None,
            claim_seen: None,
            refused: None,
            announced: None,
            not_before: Timestamp::MIN,
            failures: 0,
        }
    }

    /// UID of the sandbox it belongs to.
    pub fn sandbox(&self) -> Option<&str> {
        match &self.view.claim {
            Claim::Sandbox(uid) => Some(uid),
            Claim::Free | Claim::Retired => None,
        }
    }
}

/// A pool.
#[derive(Debug)]
pub struct PoolEntry {
    /// The object; absent where WarmPods name a pool that is gone.
    pub view: Option<PoolView>,
    /// What it asks for, with the shape of its pods; or why there can be none.
    pub resolved: Result<(ResolvedPool, String), Refusal>,
    /// Its pods by class, oldest first.
    pub members: [BTreeSet<(Timestamp, Key)>; Class::COUNT],
    /// Whether a status write is under way.
    pub busy: bool,
    /// No status write before this time.
    pub not_before: Timestamp,
    /// Since when pods are missing that the refill lane has not made.
    pub starving_since: Option<Timestamp>,
    /// Idle pods it is to hold, as last decided.
    pub wanted: usize,
    /// What it needed lately, where its size follows its use.
    pub needs: Option<Needs>,
    /// When its number of pods was last changed on purpose, in whole seconds as the status holds it.
    pub scaled_at: Option<Timestamp>,
    /// Whether its preloads take too long.
    pub preloading: Preloading,
    /// When a pod of it was last made.
    pub refilled_at: Timestamp,
    /// How long its pods take to start.
    pub pace: Pace,
}

impl PoolEntry {
    /// Members of a class.
    pub fn count(&self, class: Class) -> usize {
        self.members[class as usize].len()
    }

    /// Hash of what its pods must be.
    pub fn shape(&self) -> Option<&str> {
        self.resolved.as_ref().ok().map(|(_, shape)| shape.as_str())
    }
}

/// A node.
#[derive(Debug, Default)]
pub struct NodeEntry {
    /// The object.
    pub view: Option<NodeView>,
    /// Streams its agent holds to this replica.
    pub streams: BTreeSet<u64>,
    /// Whether its agent ever held one.
    pub was_heard: bool,
    /// Since when there is none.
    pub silent_since: Option<Timestamp>,
    /// The agent's last report.
    pub report: Option<NodeReport>,
    /// Its warm pods.
    pub warm_pods: BTreeSet<Key>,
    /// UIDs of the sandboxes whose own pods are on it and were announced.
    pub cold: BTreeSet<String>,
    /// Whether a label write is under way.
    pub busy: bool,
    /// No label write before this time.
    pub not_before: Timestamp,
    /// Warm pod UIDs that the last report refused, with the reason; kept for pods not seen yet.
    pub refused: BTreeMap<(String, String), String>,
    /// The CPUs it can give.
    pub pins: NodePins,
}

impl NodeEntry {
    /// Whether its agent listens and says it can arm pods.
    pub fn is_up(&self) -> bool {
        !self.streams.is_empty() && self.report.as_ref().is_some_and(|r| r.ready)
    }

    /// Whether its agent said that a seccomp profile is installed.
    pub fn has_profile(&self, file: &str) -> bool {
        self.report
            .as_ref()
            .is_some_and(|report| report.profiles.iter().any(|there| there == file))
    }

    /// Whether it published what it was not given, and nobody has cleared it since.
    pub fn is_distrusted(&self) -> bool {
        self.view.as_ref().is_some_and(|v| v.distrusted)
    }

    /// Whether pods of this node can be assigned.
    pub fn is_assignable(&self) -> bool {
        self.is_up() && !self.is_distrusted()
    }
}
