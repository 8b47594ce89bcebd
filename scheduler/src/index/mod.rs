//! The index: pure state, fed with [`Input`]s, from which [`crate::decide`] computes [`crate::action::Action`]s.
//!
//! The engine owns the only instance. Nothing here reads a clock or holds a client: `now` is always handed in.
//! Every change marks what it touched as dirty, and a decision looks at dirty things only, so that its cost
//! does not grow with the cluster.

mod agents;
mod announce;
mod catalog;
mod cold;
mod done;
mod entries;
mod health;
mod names;
mod network_policies;
mod observe;
mod pace;
pub mod pinning;
pub mod ready;
mod runtimes;
mod seccomp;
mod standing;
mod touch;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::reasons::Refusal;
use pilotlight_common::resolve::Defaults;

use crate::action::{Action, EventNote};
use crate::input::Input;
use crate::view::{Key, NodeView, PodView, ProfileView, WarmPodView};
pub(crate) use agents::{NODE_GRACE, STREAM_GRACE};
pub use announce::Notice;
pub use cold::ColdStart;
pub use entries::{Class, NodeEntry, PoolEntry, SandboxEntry, WarmPodEntry};
pub(crate) use observe::{POD_LAG, WAITING_AFTER};
pub use pace::Pace;
use pinning::Pinning;
use ready::ReadyQueues;
pub use runtimes::{RuntimeEntry, Trial, Uses, Verdict};
use runtimes::{Trials, Usage};
pub use seccomp::MAX_USER_PROFILES;
use seccomp::Seccomp;
pub use standing::Standing;
pub(crate) use touch::{expires, replaced_for};
pub use volumes::VolumeEntry;

/// What the installation decides about the scheduler.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What [`pilotlight_common::resolve`] takes where nobody says anything. The index leaves the RuntimeClass out
    /// while there is none of that name.
    pub defaults: Defaults,
    /// Namespace of the scheduler's own objects; validation pods are made there.
    pub namespace: String,
    /// How long a validation pod may take to become ready.
    pub validation_timeout: SignedDuration,
    /// DNS domain of the cluster, for endpoints.
    pub cluster_domain: String,
    /// How long an agent may take to publish an assignment before another pod is tried.
    pub agent_deadline: SignedDuration,
    /// Pods created a second, all pools together.
    pub refill_per_second: u32,
    /// How long the preloads of a pool may take in one pod.
    pub preload_timeout: SignedDuration,
    /// How long a sandbox is kept once it is over; none means until somebody deletes it.
    pub finished_ttl: Option<SignedDuration>,
    /// Part of the names of created pods that differs between replicas and restarts.
    pub nonce: String,
}

/// Something to look at again at a certain time.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Timer {
    Sandbox(String),
    WarmPod(Key),
    Pool(Key),
    Node(String),
    Orphan(Key),
    Shape(String),
    Runtime(Key),
    Runtimes,
    Usage,
}

/// What changed since the last decision.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    pub shapes: BTreeSet<String>,
    pub sandboxes: BTreeSet<String>,
    pub warm_pods: BTreeSet<Key>,
    pub pods: BTreeSet<Key>,
    pub pools: BTreeSet<Key>,
    pub nodes: BTreeSet<String>,
    pub runtimes: BTreeSet<Key>,
}

/// The kinds whose first list must have come before anything is decided.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Sandboxes.
    Sandbox,
    /// WarmPods.
    WarmPod,
    /// WarmPools.
    Pool,
    /// Pods.
    Pod,
    /// RuntimeEnvironments.
    Runtime,
    /// SandboxProfiles.
    Profile,
    /// Claims of persistent volumes.
    Volume,
    /// Nodes.
    Node,
    /// RuntimeClasses.
    RuntimeClass,
    /// ConfigMaps with seccomp profiles.
    SeccompMap,
}

/// All kinds.
pub const KINDS: [Kind; 10] = [
    Kind::Sandbox,
    Kind::WarmPod,
    Kind::Pool,
    Kind::Pod,
    Kind::Runtime,
    Kind::Profile,
    Kind::Volume,
    Kind::Node,
    Kind::RuntimeClass,
    Kind::SeccompMap,
];

/// The state of the world as this replica knows it.
#[derive(Debug)]
pub struct Index {
    pub(crate) settings: Settings,
    synced: BTreeSet<Kind>,
    pub(crate) leading: bool,
    pub(crate) leading_since: Option<Timestamp>,
    pub(crate) sandboxes: HashMap<String, SandboxEntry>,
    pub(crate) sandbox_uids: HashMap<Key, String>,
    pub(crate) warm_pods: HashMap<Key, WarmPodEntry>,
    pub(crate) pods: HashMap<Key, PodView>,
    /// Pods made for one sandbox alone, by its UID.
    pub(crate) cold_pods: HashMap<String, BTreeSet<Key>>,
    /// Claims of persistent volumes.
    pub(crate) volumes: HashMap<Key, VolumeEntry>,
    /// How long pods made for one sandbox alone take to start.
    pub(crate) pace: Pace,
    pub(crate) pools: HashMap<Key, PoolEntry>,
    /// Pools by the shape they keep; of several, the first is the one that makes pods for waiting sandboxes.
    pub(crate) pools_of_shape: HashMap<String, BTreeSet<Key>>,
    pub(crate) runtimes: BTreeMap<Key, RuntimeEntry>,
    pub(crate) trials: Trials,
    pub(crate) usage: Usage,
    /// The seccomp profiles that users brought.
    pub(crate) seccomp: Seccomp,
    /// RuntimeClasses by name, with their UID.
    runtime_classes: BTreeMap<Key, String>,
    /// The RuntimeClass of level `high` that the installation names, whether it is there or not.
    high_runtime_class: Option<String>,
    /// Profiles that make no sense, until that was said.
    pub(crate) invalid_profiles: BTreeMap<Key, (pilotlight_common::stream::ObjectId, Refusal)>,
    pub(crate) profiles: HashMap<Key, ProfileView>,
    pub(crate) nodes: HashMap<String, NodeEntry>,
    pub(crate) ready: ReadyQueues,
    pub(crate) pinning: Pinning,
    /// Sandboxes without a pod by shape and by the CPUs they want for their own, oldest first.
    pub(crate) waiting: BTreeMap<(String, u32), BTreeSet<(Timestamp, String)>>,
    /// WarmPods by the UID of the sandbox they are assigned to.
    pub(crate) claims: HashMap<String, BTreeSet<Key>>,
    /// UID of the sandbox that is published on a pod.
    pub(crate) published: HashMap<Key, String>,
    /// UIDs of running sandboxes whose pod is not Ready.
    pub(crate) unready: BTreeSet<String>,
    /// UIDs of sandboxes whose deletion was seen while a WarmPod was theirs.
    pub(crate) gone_sandboxes: BTreeSet<String>,
    pub(crate) dirty: Dirty,
    pub(crate) timers: BTreeSet<(Timestamp, Timer)>,
    /// Events that follow from what was seen, to be recorded by the leader.
    pub(crate) records: Vec<(pilotlight_common::stream::ObjectId, EventNote)>,
    notices: Vec<Notice>,
    pub(crate) names_given: u64,
    pub(crate) assigns_in_flight: usize,
    pub(crate) last_assign: Option<Timestamp>,
    pub(crate) refill_tokens: f64,
    pub(crate) refill_at: Option<Timestamp>,
    pub(crate) observations: Vec<Observation>,
}

/// Something worth a metric; the engine takes these out after every decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Observation {
    /// A sandbox was seen Running for the first time.
    Published {
        /// Seconds since this replica saw it.
        seconds: f64,
        /// Whether on a pod that was made for it.
        cold: bool,
    },
    /// A sandbox found a ready pod at once.
    Hit,
    /// A sandbox found none.
    Miss,
    /// An agent refused an assignment, for this reason.
    AgentRefused(&'static str),
    /// An agent did not publish in time.
    AgentSilent,
    /// A runtime was validated, with this result.
    Validated(&'static str),
}

impl Index {
    /// An empty index.
    pub fn new(mut settings: Settings) -> Self {
        Self {
            high_runtime_class: settings.defaults.high_runtime_class.take(),
            settings,
            synced: BTreeSet::new(),
            leading: false,
            leading_since: None,
            sandboxes: HashMap::new(),
            sandbox_uids: HashMap::new(),
            warm_pods: HashMap::new(),
            pods: HashMap::new(),
            cold_pods: HashMap::new(),
            volumes: HashMap::new(),
            pace: Pace::default(),
            pools: HashMap::new(),
            pools_of_shape: HashMap::new(),
            runtimes: BTreeMap::new(),
            trials: Trials::default(),
            usage: Usage::default(),
            seccomp: Seccomp::default(),
            runtime_classes: BTreeMap::new(),
            invalid_profiles: BTreeMap::new(),
            profiles: HashMap::new(),
            nodes: HashMap::new(),
            ready: ReadyQueues::default(),
            pinning: Pinning::default(),
            waiting: BTreeMap::new(),
            claims: HashMap::new(),
            published: HashMap::new(),
            unready: BTreeSet::new(),
            gone_sandboxes: BTreeSet::new(),
            dirty: Dirty::default(),
            timers: BTreeSet::new(),
            records: Vec::new(),
            notices: Vec::new(),
            names_given: 0,
            assigns_in_flight: 0,
            last_assign: None,
            refill_tokens: 0.0,
            refill_at: None,
            observations: Vec::new(),
        }
    }

    /// Takes one change in.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Sandbox(change) => self.observe_sandboxes(change, now),
            Input::WarmPod(change) => self.observe_warm_pods(change, now),
            Input::Pool(change) => self.observe_pools(change, now),
            Input::Pod(change) => self.observe_pods(change, now),
            Input::Runtime(change) => self.observe_runtimes(change, now),
            Input::Profile(change) => self.observe_profiles(change, now),
            Input::Volume(change) => self.observe_volumes(change),
            Input::RuntimeClass(change) => self.observe_runtime_classes(change, now),
            Input::SeccompMap(change) => self.observe_seccomp_maps(change, now),
            Input::Node(change) => self.observe_nodes(change, now),
            Input::StreamOpened {
                node,
                id,
                sender: _,
            } => self.stream_opened(&node, id, now),
            Input::StreamClosed { node, id } => self.stream_closed(&node, id, now),
            Input::Report { node, report } => self.reported(&node, report, now),
            Input::Leading(leading) => self.set_leading(leading, now),
            Input::Done(done) => self.done(done, now),
        }
    }

    /// Whether the first list of every kind has come.
    pub fn is_synced(&self) -> bool {
        self.synced.len() == KINDS.len()
    }

    pub(crate) fn has_listed(&self, kind: Kind) -> bool {
        self.synced.contains(&kind)
    }

    pub(crate) fn mark_synced(&mut self, kind: Kind) {
        self.synced.insert(kind);
        if self.is_synced() {
            self.everything_is_dirty();
        }
    }

    /// What is due: every action that the state asks for now. Each is asked for once, until its
    /// [`crate::action::Done`] comes back.
    pub fn decide(&mut self, now: Timestamp) -> Vec<Action> {
        self.fire_timers(now);
        if !self.leading || !self.is_synced() {
            // A standby's worklist is made anew when it begins to lead.
            self.dirty = Dirty::default();
            self.records.clear();
            return Vec::new();
        }
        crate::decide::decide(self, now)
    }

    /// When the next timer is due.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes the messages for agents that have come up.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Takes what is worth a metric.
    pub fn take_observations(&mut self) -> Vec<Observation> {
        std::mem::take(&mut self.observations)
    }

    /// A warm pod as this replica knows it.
    pub fn warm_pod(&self, key: &Key) -> Option<&WarmPodView> {
        self.warm_pods.get(key).map(|entry| &entry.view)
    }

    /// Hash of what a pool's pods must be, where it can be had.
    pub fn pool_shape(&self, key: &Key) -> Option<&str> {
        self.pools.get(key).and_then(PoolEntry::shape)
    }

    /// Whether this replica leads.
    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// Pods by class over all pools, for metrics, with the number of waiting sandboxes last.
    pub fn totals(&self) -> ([usize; Class::COUNT], usize) {
        let mut totals = [0; Class::COUNT];
        for pool in self.pools.values() {
            for class in Class::ALL {
                totals[class as usize] += pool.count(class);
            }
        }
        (totals, self.waiting.values().map(BTreeSet::len).sum())
    }

    /// Pools by what they are: holding their minimum, not yet, or refused.
    pub fn pool_states(&self) -> [(&'static str, usize); 3] {
        let mut states = [("ready", 0), ("filling", 0), ("refused", 0)];
        for pool in self.pools.values() {
            let Some(view) = &pool.view else { continue };
            let available = i64::try_from(pool.count(Class::Available)).unwrap_or(i64::MAX);
            let state = match &pool.resolved {
                Err(_) => 2,
                Ok(_) if available < view.spec.min_size => 1,
                Ok(_) => 0,
            };
            states[state].1 += 1;
        }
        states
    }

    /// Pods that all pools together are to keep ready.
    pub fn pool_minimum(&self) -> i64 {
        let minima = self.pools.values().filter_map(|pool| pool.view.as_ref());
        minima.fold(0, |sum, view| sum.saturating_add(view.spec.min_size))
    }

    /// Running sandboxes whose pod is not Ready.
    pub fn unready_sandboxes(&self) -> usize {
        self.unready.len()
    }

    /// Nodes whose agent holds a stream to this replica.
    pub fn streaming_nodes(&self) -> usize {
        self.nodes
            .values()
            .filter(|n| !n.streams.is_empty())
            .count()
    }

    /// Nodes that published what they were not given, and that nobody has cleared since.
    pub fn distrusted_nodes(&self) -> usize {
        let nodes = self.nodes.values();
        nodes.filter(|n| n.is_distrusted()).count()
    }

    pub(crate) fn timer(&mut self, at: Timestamp, timer: Timer) {
        self.timers.insert((at, timer));
    }

    fn fire_timers(&mut self, now: Timestamp) {
        while let Some((at, timer)) = self.timers.pop_first() {
            if at > now {
                self.timers.insert((at, timer));
                break;
            }
            match timer {
                Timer::Sandbox(uid) => {
                    self.dirty.sandboxes.insert(uid);
                }
                Timer::WarmPod(key) => self.touch_warm_pod(&key, now),
                Timer::Pool(key) => {
                    self.dirty.pools.insert(key);
                }
                Timer::Node(name) => {
                    self.dirty.nodes.insert(name);
                }
                Timer::Orphan(key) => {
                    self.dirty.pods.insert(key);
                }
                Timer::Shape(shape) => {
                    self.dirty.shapes.insert(shape);
                }
                Timer::Runtime(key) => {
                    self.dirty.runtimes.insert(key);
                }
                Timer::Runtimes => self.dirty.runtimes.extend(self.runtimes.keys().cloned()),
                // The decision that follows counts.
                Timer::Usage => {}
            }
        }
    }

    fn set_leading(&mut self, leading: bool, now: Timestamp) {
        if self.leading == leading {
            return;
        }
        self.leading = leading;
        if !leading {
            self.leading_since = None;
            return;
        }
        self.leading_since = Some(now);
        self.watched_by_another();
        // A list taken just now precedes this: assignments that were given up unanswered are in it, or never
        // happened, so their pods are candidates again.
        let unanswered: Vec<Key> = self
            .warm_pods
            .iter_mut()
            .filter_map(|(key, entry)| entry.lost_at.take().map(|_| key.clone()))
            .collect();
        for key in unanswered {
            self.touch_warm_pod(&key, now);
        }
        self.everything_is_dirty();
    }

    fn everything_is_dirty(&mut self) {
        let waiting = self.waiting.keys().map(|(shape, _)| shape.clone());
        self.dirty.shapes.extend(waiting);
        self.dirty.sandboxes.extend(self.sandboxes.keys().cloned());
        self.dirty.warm_pods.extend(self.warm_pods.keys().cloned());
        self.dirty.pods.extend(self.pods.keys().cloned());
        self.dirty.pools.extend(self.pools.keys().cloned());
        self.dirty.nodes.extend(self.nodes.keys().cloned());
        self.dirty.runtimes.extend(self.runtimes.keys().cloned());
        self.usage.stale = true;
    }
}

impl NodeEntry {
    pub(crate) fn labelled(&self) -> bool {
        self.view.as_ref().is_some_and(|v: &NodeView| v.labelled)
    }
}
