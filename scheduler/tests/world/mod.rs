//! A small cluster in memory, for tests of the decisions: it keeps objects, enforces the set-once rule, runs pods
//! and agents, and delivers watch events late but in order. What it stands in for, the API server and the node
//! agent, is tested for real in the e2e suite.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops at the first surprise; clippy knows that of #[test] functions only"
)]
#![allow(dead_code, reason = "each test program uses its own part of the world")]

pub mod nodes;
pub mod pinning;
pub mod runtimes;
pub mod seccomp;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::kinds::{
    Condition, ConditionStatus, PoolResources, SandboxPhase, SandboxResources, SandboxSpec,
    WarmPodPhase, WarmPoolSpec, WarmPoolStatus,
};
use pilotlight_common::names::OwnerKind;
use pilotlight_common::network::NetworkRules;
use pilotlight_common::resolve::{Defaults, PodTemplate, image_hash};
use pilotlight_common::stream::{AgentRefusal, NodeReport, RefusedAssignment};
use pilotlight_scheduler::action::{Action, AssignOutcome, ColdOutcome, Done, EventNote, Outcome};
use pilotlight_scheduler::index::{Index, Notice, Settings};
use pilotlight_scheduler::input::{Change, Input};
use pilotlight_scheduler::view::{
    Claim, Identity, Key, NodeView, PodOwner, PodView, PoolView, ProfileView, RuntimeClassView,
    RuntimeView, SandboxView, SeccompMapView, Trouble, WarmPodView,
};

/// Nodes of the world.
pub const NODES: [&str; 2] = ["node-a", "node-b"];

/// Rounds of half a second without news after which all has come to rest: every pause and deadline is shorter, and the
/// longest is the minute between two counts of who uses a runtime.
const QUIET: usize = 130;

/// The world, with one scheduler in it.
pub struct World {
    pub index: Index,
    pub now: Timestamp,
    pub sandboxes: BTreeMap<String, SandboxView>,
    pub warm_pods: BTreeMap<Key, WarmPodView>,
    pub pods: BTreeMap<Key, PodView>,
    pub pool: PoolView,
    /// What the NetworkPolicies of single pods allow, by pod, where those keep sandboxes to their rules.
    pub policies: BTreeMap<String, NetworkRules>,
    networks_by_policy: bool,
    /// Whether a node has room for one more cold pod.
    pub has_room: bool,
    pub nodes: BTreeMap<String, NodeView>,
    pub runtimes: BTreeMap<String, RuntimeView>,
    pub profiles: BTreeMap<Key, ProfileView>,
    pub runtime_classes: BTreeMap<String, RuntimeClassView>,
    /// ConfigMaps with users' seccomp profiles.
    pub seccomp_maps: Vec<SeccompMapView>,
    /// Users' profiles that a node has installed.
    pub installed: BTreeMap<String, Vec<String>>,
    /// What keeps pods of an image from running, by the image's hash.
    pub broken: BTreeMap<String, Trouble>,
    /// Pods as the scheduler was shown them.
    pub shown_pods: BTreeMap<Key, PodView>,
    /// Every Event that was recorded: what about, and its reason.
    pub recorded: Vec<(String, String)>,
    /// Watch events not yet delivered.
    pub undelivered: VecDeque<Input>,
    /// Actions not yet carried out.
    pub under_way: Vec<Action>,
    /// Assignments that each agent refuses.
    pub refusals: BTreeMap<String, BTreeSet<(String, String)>>,
    /// Every (WarmPod UID, sandbox UID) that ever was.
    pub claims_ever: BTreeMap<String, String>,
    /// Pods ever published, by sandbox UID.
    pub published_ever: BTreeMap<String, String>,
    /// Events about sandboxes, as they were recorded.
    pub events: Vec<EventNote>,
    /// Sandboxes that a node published without having been given them.
    pub intruded: BTreeSet<String>,
    /// Looks that the scheduler took at a publication which its index did not bear out.
    pub looks: usize,
    /// Status writes of sandboxes by the scheduler.
    pub status_writes: usize,
    /// What agents were told.
    pub told: Vec<Notice>,
    /// CPUs that the agents give out.
    pub cpus: pinning::Cpus,
    finished_ttl: Option<SignedDuration>,
    revision: u64,
    next: u64,
    streams: BTreeMap<String, u64>,
}

impl World {
    pub fn new(min_size: i64, max_size: i64) -> Self {
        Self::with(min_size, max_size, 100, None)
    }

    /// A world whose scheduler makes so many pods a second.
    pub fn with_refill(min_size: i64, max_size: i64, refill_per_second: u32) -> Self {
        Self::with(min_size, max_size, refill_per_second, None)
    }

    /// A world whose scheduler deletes sandboxes so long after their end.
    pub fn with_finished_ttl(min_size: i64, max_size: i64, ttl: Option<SignedDuration>) -> Self {
        Self::with(min_size, max_size, 100, ttl)
    }

    fn with(
        min_size: i64,
        max_size: i64,
        refill_per_second: u32,
        finished_ttl: Option<SignedDuration>,
    ) -> Self {
        let settings = Self::settings(refill_per_second, finished_ttl, "test".into());
        Self::of(settings, min_size, max_size)
    }

    /// A world in which NetworkPolicies keep sandboxes to their rules.
    pub fn with_network_policies(min_size: i64, max_size: i64) -> Self {
        let settings = Settings {
            defaults: Defaults {
                networks_by_policy: true,
                ..runtimes::defaults()
            },
            ..Self::settings(100, None, "test".into())
        };
        Self::of(settings, min_size, max_size)
    }

    fn settings(
        refill_per_second: u32,
        finished_ttl: Option<SignedDuration>,
        nonce: String,
    ) -> Settings {
        Settings {
            defaults: runtimes::defaults(),
            namespace: "system".into(),
            validation_timeout: SignedDuration::from_secs(300),
            cluster_domain: "cluster.local".into(),
            agent_deadline: SignedDuration::from_secs(30),
            refill_per_second,
            preload_timeout: SignedDuration::from_secs(300),
            finished_ttl,
            nonce,
        }
    }

    fn of(settings: Settings, min_size: i64, max_size: i64) -> Self {
        let finished_ttl = settings.finished_ttl;
        let networks_by_policy = settings.defaults.networks_by_policy;
        let mut world = Self {
            index: Index::new(settings),
            networks_by_policy,
            policies: BTreeMap::new(),
            now: Timestamp::from_second(1_000_000).unwrap(),
            sandboxes: BTreeMap::new(),
            warm_pods: BTreeMap::new(),
            pods: BTreeMap::new(),
            pool: PoolView::default(),
            has_room: true,
            nodes: BTreeMap::new(),
            runtimes: BTreeMap::new(),
            profiles: BTreeMap::new(),
            runtime_classes: BTreeMap::new(),
            seccomp_maps: Vec::new(),
            installed: BTreeMap::new(),
            broken: BTreeMap::new(),
            shown_pods: BTreeMap::new(),
            recorded: Vec::new(),
            undelivered: VecDeque::new(),
            under_way: Vec::new(),
            refusals: BTreeMap::new(),
            claims_ever: BTreeMap::new(),
            published_ever: BTreeMap::new(),
            events: Vec::new(),
            intruded: BTreeSet::new(),
            looks: 0,
            status_writes: 0,
            told: Vec::new(),
            cpus: pinning::Cpus::default(),
            finished_ttl,
            revision: 1,
            next: 0,
            streams: BTreeMap::new(),
        };
        world.pool = PoolView {
            identity: world.identity("pool"),
            spec: WarmPoolSpec {
                runtime: "python".into(),
                min_size,
                max_size: Some(max_size),
                resources: Some(PoolResources {
                    cpu: Some("10m".into()),
                    memory: Some("32Mi".into()),
                }),
                ttl: Some(0),
                ..WarmPoolSpec::default()
            },
            status: WarmPoolStatus::default(),
        };
        world.add_runtime("python", "image");
        world.undelivered.clear();
        world.lists();
        for node in NODES {
            world.stream_up(node);
        }
        world.handle(Input::Leading(true));
        world
    }

    /// The first lists, as they are now.
    fn lists(&mut self) {
        for name in NODES {
            let identity = self.identity(name);
            self.nodes.entry(name.to_owned()).or_insert(NodeView {
                identity,
                labelled: true,
                distrusted: false,
            });
        }
        let nodes = self.nodes.values().cloned().collect();
        for input in [
            Input::Node(Change::Replace(nodes)),
            Input::Runtime(Change::Replace(self.runtimes.values().cloned().collect())),
            Input::Profile(Change::Replace(self.profiles.values().cloned().collect())),
            Input::RuntimeClass(Change::Replace(
                self.runtime_classes.values().cloned().collect(),
            )),
            Input::SeccompMap(Change::Replace(self.seccomp_maps.clone())),
            Input::Volume(Change::Replace(vec![])),
            Input::Pool(Change::Replace(vec![self.pool.clone()])),
            Input::WarmPod(Change::Replace(self.warm_pods.values().cloned().collect())),
            Input::Pod(Change::Replace(self.pods.values().cloned().collect())),
            Input::Sandbox(Change::Replace(self.sandboxes.values().cloned().collect())),
        ] {
            self.handle(input);
        }
    }

    /// The scheduler dies with all it had under way, and a new one starts from lists.
    pub fn restart_scheduler(&mut self) {
        let nonce = format!("restart-{}", self.next);
        let mut settings = Self::settings(100, self.finished_ttl, nonce);
        settings.defaults.networks_by_policy = self.networks_by_policy;
        self.index = Index::new(settings);
        self.under_way.clear();
        self.undelivered.clear();
        self.streams.clear();
        self.lists();
        for node in NODES {
            self.stream_up(node);
        }
        self.handle(Input::Leading(true));
    }

    fn identity(&mut self, name: &str) -> Identity {
        self.revision += 1;
        self.next += 1;
        Identity {
            key: Key {
                namespace: "ns".into(),
                name: name.into(),
            },
            uid: format!("uid-{name}-{}", self.next),
            revision: self.revision,
            created: self.now,
            deleting: false,
        }
    }

    pub fn handle(&mut self, input: Input) {
        self.show_pods(&input);
        self.index.handle(input, self.now);
        let actions = self.index.decide(self.now);
        self.take_up(actions);
        let told = self.index.take_notices();
        self.told.extend(told);
    }

    pub fn advance(&mut self, milliseconds: i64) {
        self.now = self
            .now
            .checked_add(SignedDuration::from_millis(milliseconds))
            .unwrap();
        let actions = self.index.decide(self.now);
        self.take_up(actions);
    }

    pub fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some(event) = self.undelivered.pop_front() else {
                return;
            };
            self.handle(event);
        }
    }

    /// All events come at once, before anything is decided.
    pub fn deliver_together(&mut self) {
        for event in std::mem::take(&mut self.undelivered) {
            self.index.handle(event, self.now);
        }
        let actions = self.index.decide(self.now);
        self.under_way.extend(actions);
    }

    /// Leadership ends while every assignment is still unanswered, again and again until no pod is left to try.
    pub fn abandon_assignments(&mut self) {
        while let Some(at) = self
            .under_way
            .iter()
            .position(|a| matches!(a, Action::Assign(_)))
        {
            if let Action::Assign(assign) = self.under_way.swap_remove(at) {
                let outcome = AssignOutcome::Abandoned;
                self.handle(Input::Done(Done::Assign { assign, outcome }));
            }
        }
    }

    /// Holds back what the watch of the pods has still to say.
    pub fn take_pod_events(&mut self) -> Vec<Input> {
        let (late, rest): (Vec<Input>, Vec<Input>) = std::mem::take(&mut self.undelivered)
            .into_iter()
            .partition(|input| matches!(input, Input::Pod(_)));
        self.undelivered = rest.into();
        late
    }

    pub fn create_sandbox(&mut self) -> String {
        self.next += 1;
        let identity = self.identity(&format!("sandbox-{}", self.next));
        let uid = identity.uid.clone();
        let view = SandboxView {
            identity,
            spec: SandboxSpec {
                runtime: "python".into(),
                timeout: Some(3600),
                resources: Some(SandboxResources {
                    cpu: Some("10m".into()),
                    memory: Some("32Mi".into()),
                    ..SandboxResources::default()
                }),
                ..SandboxSpec::default()
            },
            ..SandboxView::default()
        };
        self.sandboxes.insert(uid.clone(), view.clone());
        self.undelivered
            .push_back(Input::Sandbox(Change::Upsert(view)));
        uid
    }

    pub fn delete_sandbox(&mut self, uid: &str) {
        if let Some(view) = self.sandboxes.remove(uid) {
            self.undelivered.push_back(Input::Sandbox(Change::Remove(
                view.identity.key,
                view.identity.uid,
            )));
        }
    }

    pub fn resize(&mut self, min_size: i64, max_size: i64) {
        self.pool.spec.min_size = min_size;
        self.pool.spec.max_size = Some(max_size);
        self.revision += 1;
        self.pool.identity.revision = self.revision;
        self.undelivered
            .push_back(Input::Pool(Change::Upsert(self.pool.clone())));
    }

    /// The pool's owner edits it.
    pub fn change_pool(&mut self, change: impl FnOnce(&mut WarmPoolSpec)) {
        change(&mut self.pool.spec);
        self.revision += 1;
        self.pool.identity.revision = self.revision;
        self.undelivered
            .push_back(Input::Pool(Change::Upsert(self.pool.clone())));
    }

    /// One more pool, of the world's own but for its name, size and limits.
    pub fn add_pool(&mut self, name: &str, min_size: i64, memory: &str) {
        let mut view = PoolView {
            identity: self.identity(name),
            ..self.pool.clone()
        };
        view.spec.min_size = min_size;
        view.spec.resources = Some(PoolResources {
            cpu: Some("10m".into()),
            memory: Some(memory.into()),
        });
        self.undelivered
            .push_back(Input::Pool(Change::Upsert(view)));
    }

    /// The cluster says something new about a pod.
    pub fn change_pod(&mut self, key: &Key, change: impl FnOnce(&mut PodView)) {
        self.revision += 1;
        let revision = self.revision;
        if let Some(view) = self.pods.get_mut(key) {
            change(view);
            view.identity.revision = revision;
            let view = view.clone();
            self.undelivered.push_back(Input::Pod(Change::Upsert(view)));
        }
    }

    /// Everything that is on its way arrives, until nothing is. Time stands still, and no pod starts.
    pub fn come_to_rest(&mut self) {
        while !self.undelivered.is_empty() || !self.under_way.is_empty() {
            self.deliver(usize::MAX);
            while !self.under_way.is_empty() {
                self.carry_out(0, true);
            }
        }
    }

    pub fn stream_up(&mut self, node: &str) {
        self.next += 1;
        let id = self.next;
        self.streams.insert(node.to_owned(), id);
        let (sender, _) = tokio::sync::mpsc::channel(1);
        self.handle(Input::StreamOpened {
            node: node.into(),
            id,
            sender,
        });
        self.report(node);
    }

    pub fn stream_down(&mut self, node: &str) {
        if let Some(id) = self.streams.remove(node) {
            self.handle(Input::StreamClosed {
                node: node.into(),
                id,
            });
        }
    }

    pub fn report(&mut self, node: &str) {
        if !self.streams.contains_key(node) {
            return;
        }
        let refused = self
            .refusals
            .get(node)
            .into_iter()
            .flatten()
            .map(|(pod, sandbox)| RefusedAssignment {
                owner_uid: pod.clone(),
                sandbox_uid: sandbox.clone(),
                reason: AgentRefusal::PodNotPrepared,
                message: String::new(),
            });
        let report = NodeReport {
            agent_version: "test".into(),
            ready: true,
            message: String::new(),
            profiles: self.profiles_on(node),
            refused: refused.chain(self.cpu_refusals(node)).collect(),
            cpus: self.cpu_report(node),
        };
        self.handle(Input::Report {
            node: node.into(),
            report,
        });
    }

    fn warm_pod_event(&mut self, key: &Key) {
        self.revision += 1;
        let revision = self.revision;
        if let Some(view) = self.warm_pods.get_mut(key) {
            view.identity.revision = revision;
            let view = view.clone();
            self.undelivered
                .push_back(Input::WarmPod(Change::Upsert(view)));
        }
    }

    /// A pod starts, and its node's agent arms it.
    pub fn pod_becomes_ready(&mut self, key: &Key) {
        let (now, broken) = (self.now, self.is_broken(key));
        let Some(view) = self.warm_pods.get_mut(key) else {
            return;
        };
        if view.phase.is_some()
            || view.claim != Claim::Free
            || !self.pods.contains_key(key)
            || broken
        {
            return;
        }
        let node = NODES[key.name.len() * usize::from(key.name.as_bytes()[key.name.len() - 1]) % 2];
        view.phase = Some(WarmPodPhase::Ready);
        view.node = Some(node.into());
        view.ready_at = Some(now);
        self.warm_pod_event(key);
        if let Some(pod) = self.pods.get_mut(key) {
            pod.node = Some(node.into());
        }
        self.pod_runs(key);
    }

    /// A pod is gone, whoever deleted it.
    pub fn lose_pod(&mut self, key: &Key) {
        if let Some(pod) = self.pods.remove(key) {
            self.undelivered
                .push_back(Input::Pod(Change::Remove(key.clone(), pod.identity.uid)));
        }
    }

    /// Somebody edits a sandbox, as far as the CRD lets them.
    pub fn edit(&mut self, uid: &str, change: impl FnOnce(&mut SandboxSpec)) {
        let Some(view) = self.sandboxes.get_mut(uid) else {
            return;
        };
        change(&mut view.spec);
        self.revision += 1;
        view.identity.revision = self.revision;
        let view = view.clone();
        self.undelivered
            .push_back(Input::Sandbox(Change::Upsert(view)));
    }

    /// The agent of a WarmPod's node publishes the sandbox it is assigned to (W2), with the rules of the CRD.
    pub fn publish(&mut self, key: &Key) {
        let Some((view, Claim::Sandbox(uid))) = self
            .warm_pods
            .get(key)
            .map(|v| (v.clone(), v.claim.clone()))
        else {
            return;
        };
        let refused = self
            .refusals
            .get(view.node.as_deref().unwrap_or_default())
            .is_some_and(|r| r.contains(&(view.identity.uid.clone(), uid.clone())));
        if refused || !self.pods.contains_key(key) || !self.arm(key) {
            return;
        }
        let node = view.node.unwrap_or_default();
        self.write_publication(&uid, &key.name, &node);
    }

    /// W2, with the rules of the CRD and of the policies.
    fn write_publication(&mut self, uid: &str, pod: &str, node: &str) {
        if self.nodes[node].distrusted {
            return;
        }
        let now = self.now;
        self.revision += 1;
        let Some(sandbox) = self.sandboxes.get_mut(uid) else {
            return;
        };
        // An agent that finds it published, here or elsewhere, writes nothing.
        if sandbox.is_final() || sandbox.pod_name.is_some() {
            return;
        }
        sandbox.pod_name = Some(pod.to_owned());
        sandbox.node = Some(node.to_owned());
        sandbox.phase = Some(SandboxPhase::Running);
        sandbox.conditions = ["Accepted", "Assigned", "Prepared", "Ready"]
            .map(|type_| Condition::new(type_, ConditionStatus::True, "Published", "", now))
            .to_vec();
        sandbox.started.get_or_insert(now);
        sandbox.identity.revision = self.revision;
        let first = self
            .published_ever
            .entry(uid.to_owned())
            .or_insert_with(|| pod.to_owned());
        assert_eq!(*first, pod, "I2: published on two pods");
        let view = sandbox.clone();
        self.undelivered
            .push_back(Input::Sandbox(Change::Upsert(view)));
    }

    /// The agent refuses what a WarmPod is assigned to.
    pub fn refuse(&mut self, key: &Key) {
        let Some(view) = self.warm_pods.get(key).cloned() else {
            return;
        };
        let (Claim::Sandbox(uid), Some(node)) = (view.claim.clone(), view.node.clone()) else {
            return;
        };
        // A published sandbox is not refused any more.
        if self
            .sandboxes
            .get(&uid)
            .is_some_and(|s| s.pod_name.as_ref() == Some(&key.name))
        {
            return;
        }
        self.refusals
            .entry(node.clone())
            .or_default()
            .insert((view.identity.uid, uid));
        self.report(&node);
    }

    /// Carries an action out. `answered`: whether the scheduler learns of it.
    pub fn carry_out(&mut self, index: usize, answered: bool) {
        if index >= self.under_way.len() {
            return;
        }
        let action = self.under_way.swap_remove(index);
        let Some(done) = self.execute(action) else {
            return;
        };
        // An assignment is sent until it is answered; of the others, "failed" covers what is not known.
        match done {
            Done::Assign { assign, .. } if !answered => self.under_way.push(Action::Assign(assign)),
            Done::WarmPod { key, .. } if !answered => self.handle(Input::Done(Done::WarmPod {
                key,
                outcome: Outcome::Failed,
            })),
            Done::Trial { runtime, pod, .. } if !answered => {
                self.handle(Input::Done(Done::Trial {
                    runtime,
                    pod,
                    outcome: Outcome::Failed,
                }));
            }
            done => self.handle(Input::Done(done)),
        }
    }

    #[allow(
        clippy::too_many_lines,
        reason = "one arm for each action, none of them long"
    )]
    fn execute(&mut self, action: Action) -> Option<Done> {
        Some(match action {
            Action::Assign(assign) => {
                let key = Key::from(&assign.warm_pod);
                let won = self.claim(
                    &key,
                    &assign.warm_pod.uid,
                    &Claim::Sandbox(assign.sandbox.uid.clone()),
                );
                if won {
                    let first = self
                        .claims_ever
                        .entry(assign.warm_pod.uid.clone())
                        .or_insert_with(|| assign.sandbox.uid.clone());
                    assert_eq!(
                        *first, assign.sandbox.uid,
                        "I1: a warm pod was given to two sandboxes"
                    );
                    if let Some(view) = self.warm_pods.get_mut(&key) {
                        view.sandbox_name = Some(assign.sandbox.name.clone());
                    }
                }
                let outcome = if won {
                    AssignOutcome::Won(Box::new(self.warm_pods[&key].clone()))
                } else {
                    AssignOutcome::Lost
                };
                Done::Assign { assign, outcome }
            }
            Action::Retire { warm_pod, .. } => {
                let key = Key::from(&warm_pod);
                let won = self.claim(&key, &warm_pod.uid, &Claim::Retired);
                if won {
                    self.remove(&key);
                }
                Done::WarmPod {
                    key,
                    outcome: if won { Outcome::Done } else { Outcome::Stale },
                }
            }
            Action::Remove {
                warm_pod,
                unless_exists,
                ..
            } => {
                let key = Key::from(&warm_pod);
                let exists = unless_exists.is_some_and(|s| self.sandboxes.contains_key(&s.uid));
                if !exists {
                    self.assert_not_in_use(&key);
                    self.remove(&key);
                }
                Done::WarmPod {
                    key,
                    outcome: if exists {
                        Outcome::Stale
                    } else {
                        Outcome::Done
                    },
                }
            }
            Action::RemovePod { pod, unless_exists } => {
                let key = Key::from(&pod);
                let exists = unless_exists.is_some_and(|(kind, owner)| match kind {
                    OwnerKind::WarmPod => self
                        .warm_pods
                        .get(&Key::from(&owner))
                        .is_some_and(|w| w.identity.uid == owner.uid),
                    OwnerKind::Sandbox => self.sandboxes.contains_key(&owner.uid),
                    OwnerKind::RuntimeEnvironment => true,
                });
                if !exists && self.pods.contains_key(&key) {
                    self.assert_not_published(&key);
                    self.pods.remove(&key);
                    self.undelivered
                        .push_back(Input::Pod(Change::Remove(key.clone(), pod.uid)));
                }
                Done::Pod {
                    key,
                    outcome: if exists {
                        Outcome::Stale
                    } else {
                        Outcome::Done
                    },
                }
            }
            Action::CreateColdPod(create) => {
                let node = self.place(&create.key);
                // The cluster keeps to the nodes that a pod names.
                let node = node.map(|node| match &create.nodes[..] {
                    [] => node,
                    named if named.contains(&node) => node,
                    named => named[0].clone(),
                });
                let view = PodView {
                    identity: self.identity(&create.key.name),
                    owner: PodOwner::Sandbox(create.sandbox.uid.clone()),
                    owner_name: create.sandbox.name,
                    managed: true,
                    hold_up: node
                        .is_none()
                        .then(|| Trouble::new("PodUnschedulable", "no node has room")),
                    node,
                    ..PodView::default()
                };
                self.pods.insert(create.key, view.clone());
                self.undelivered
                    .push_back(Input::Pod(Change::Upsert(view.clone())));
                Done::ColdPod {
                    uid: create.sandbox.uid,
                    outcome: ColdOutcome::Created(Box::new(view)),
                }
            }
            Action::WriteNetworkPolicy(write) => {
                let digest = write.rules.digest();
                self.policies.insert(write.pod.name, write.rules);
                Done::NetworkPolicy {
                    uid: write.sandbox.uid,
                    digest,
                    outcome: Outcome::Done,
                }
            }
            Action::GrowVolume(grow) => Done::Volume {
                key: Key::from(&grow.claim),
                outcome: Outcome::Done,
            },
            Action::CreateWarmPod(create) => {
                let view = WarmPodView {
                    identity: self.identity(&create.key.name),
                    pool: create.pool,
                    shape: create.shape,
                    preload: create.preload.map(|p| p.hash().to_owned()),
                    ..WarmPodView::default()
                };
                self.warm_pods.insert(create.key.clone(), view.clone());
                self.undelivered
                    .push_back(Input::WarmPod(Change::Upsert(view)));
                self.create_pod(&create.key, &create.template);
                Done::WarmPod {
                    key: create.key,
                    outcome: Outcome::Done,
                }
            }
            Action::CreatePod {
                warm_pod, template, ..
            } => {
                let key = Key::from(&warm_pod);
                self.create_pod(&key, &template);
                Done::WarmPod {
                    key,
                    outcome: Outcome::Done,
                }
            }
            Action::SandboxStatus(write) => {
                self.revision += 1;
                let revision = self.revision;
                let pod_lives = write
                    .unless_pod_lives
                    .as_ref()
                    .and_then(|key| self.pods.get(key))
                    .is_some_and(PodView::lives);
                let now = self.now;
                let written = match self.sandboxes.get_mut(&write.sandbox.uid) {
                    Some(view) if view.identity.revision == write.revision && !pod_lives => {
                        view.phase = Some(write.phase);
                        view.conditions.clone_from(&write.conditions);
                        if write.phase.is_final() {
                            view.finished = Some(now);
                        }
                        view.identity.revision = revision;
                        Some(view.clone())
                    }
                    _ => None,
                };
                let outcome = if written.is_some() {
                    self.status_writes += 1;
                    self.events.extend(write.event);
                    Outcome::Done
                } else {
                    Outcome::Stale
                };
                if let Some(view) = written {
                    self.undelivered
                        .push_back(Input::Sandbox(Change::Upsert(view)));
                }
                Done::Sandbox {
                    uid: write.sandbox.uid,
                    outcome,
                }
            }
            Action::Expel(expel) => self.expel(&expel),
            Action::DeleteSandbox { sandbox } => {
                assert!(self.sandboxes[&sandbox.uid].is_final(), "a live one");
                self.delete_sandbox(&sandbox.uid);
                Done::Sandbox {
                    uid: sandbox.uid,
                    outcome: Outcome::Done,
                }
            }
            Action::PoolStatus { pool, status, .. } => {
                // Of a pool beside the world's own nobody looks at the status.
                if pool.name == self.pool.identity.key.name {
                    self.revision += 1;
                    self.pool.identity.revision = self.revision;
                    self.pool.status = *status;
                    self.undelivered
                        .push_back(Input::Pool(Change::Upsert(self.pool.clone())));
                }
                Done::Pool {
                    key: Key::from(&pool),
                    outcome: Outcome::Done,
                }
            }
            Action::LabelNode { node, .. } => Done::Node {
                node,
                outcome: Outcome::Done,
            },
            Action::Validate(_) | Action::RemoveTrial { .. } | Action::RuntimeStatus { .. } => {
                return self.execute_of_runtime(action);
            }
            Action::Record { about, event } => {
                self.recorded.push((about.name, event.reason.clone()));
                self.events.push(event);
                return None;
            }
        })
    }

    /// The CRD's set-once rule.
    fn claim(&mut self, key: &Key, uid: &str, claim: &Claim) -> bool {
        let Some(view) = self
            .warm_pods
            .get_mut(key)
            .filter(|v| v.identity.uid == uid)
        else {
            return false;
        };
        if view.claim != Claim::Free && view.claim != *claim {
            return false;
        }
        view.claim = claim.clone();
        view.phase = Some(if *claim == Claim::Retired {
            WarmPodPhase::Terminating
        } else {
            WarmPodPhase::Assigned
        });
        self.warm_pod_event(key);
        true
    }

    /// The node of a new cold pod; none while there is no room.
    fn place(&self, key: &Key) -> Option<String> {
        self.has_room
            .then(|| NODES[usize::from(key.name.as_bytes()[key.name.len() - 1]) % 2].to_owned())
    }

    /// The cluster finds a node for a pod that had none.
    fn place_again(&mut self, key: &Key) {
        if self.cpus.kept.contains(key) {
            return;
        }
        if self.has_room && self.pods.get(key).is_some_and(|pod| pod.node.is_none()) {
            let node = self.place(key);
            self.change_pod(key, |pod| {
                pod.node = node;
                pod.hold_up = None;
            });
        }
    }

    /// The agent of a cold pod's node publishes the sandbox that the pod was made for (W2).
    pub fn publish_cold(&mut self, key: &Key) {
        let Some(pod) = self.pods.get(key) else {
            return;
        };
        let PodOwner::Sandbox(uid) = pod.owner.clone() else {
            return;
        };
        let waits = |s: &SandboxView| s.pod_name.is_none();
        let can = pod.node.is_some() && pod.lives();
        if can && self.sandboxes.get(&uid).is_some_and(waits) && self.arm(key) {
            self.change_pod(key, |pod| {
                pod.ready = true;
                pod.prepared = true;
            });
            let node = self.pods[key].node.clone().unwrap_or_default();
            self.write_publication(&uid, &key.name, &node);
        }
    }

    /// Keys of the pods that were made for one sandbox each.
    pub fn cold_pods(&self) -> Vec<Key> {
        let cold = |pod: &&PodView| matches!(pod.owner, PodOwner::Sandbox(_));
        self.pods
            .values()
            .filter(cold)
            .map(|pod| pod.identity.key.clone())
            .collect()
    }

    fn assert_not_published(&self, key: &Key) {
        let published = self.sandboxes.values().any(|s| {
            s.pod_name.as_ref() == Some(&key.name)
                && s.phase == Some(SandboxPhase::Running)
                && self.pods.get(key).is_some_and(|pod| pod.ended.is_none())
        });
        assert!(!published, "the pod of a running sandbox was removed");
    }

    /// No live sandbox may lose the pod it is published on.
    fn assert_not_in_use(&self, key: &Key) {
        if let Some(Claim::Sandbox(uid)) = self.warm_pods.get(key).map(|v| v.claim.clone())
            && let Some(sandbox) = self.sandboxes.get(&uid)
        {
            let published_here = sandbox.pod_name.as_ref() == Some(&key.name)
                && sandbox.phase == Some(SandboxPhase::Running);
            assert!(!published_here, "the pod of a running sandbox was removed");
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(pod) = self.pods.remove(key) {
            self.undelivered
                .push_back(Input::Pod(Change::Remove(key.clone(), pod.identity.uid)));
        }
        if let Some(view) = self.warm_pods.remove(key) {
            self.undelivered.push_back(Input::WarmPod(Change::Remove(
                key.clone(),
                view.identity.uid,
            )));
        }
    }

    fn create_pod(&mut self, key: &Key, template: &PodTemplate) {
        let Some(owner) = self.warm_pods.get(key).map(|v| v.identity.uid.clone()) else {
            return;
        };
        if self.pods.contains_key(key) {
            return;
        }
        let view = PodView {
            identity: self.identity(&key.name),
            owner: PodOwner::WarmPod(owner),
            managed: true,
            image_hash: Some(image_hash(&template.image, &template.command)),
            ..PodView::default()
        };
        self.pods.insert(key.clone(), view.clone());
        self.undelivered.push_back(Input::Pod(Change::Upsert(view)));
    }

    /// Lets everything come to rest, with all agents up and nothing lost.
    pub fn settle(&mut self) {
        for node in NODES {
            if !self.streams.contains_key(node) {
                self.stream_up(node);
            }
        }
        let mut quiet = 0;
        for _ in 0..400 {
            quiet += 1;
            if !self.undelivered.is_empty() || !self.under_way.is_empty() {
                quiet = 0;
            }
            if quiet > QUIET {
                return;
            }
            self.step(500);
        }
    }

    /// Lets everything that is due happen, and then time pass.
    pub fn step(&mut self, milliseconds: i64) {
        self.deliver(usize::MAX);
        while !self.under_way.is_empty() {
            self.carry_out(0, true);
        }
        for key in self.warm_pods.keys().cloned().collect::<Vec<_>>() {
            self.pod_becomes_ready(&key);
            self.publish(&key);
        }
        for key in self.cold_pods() {
            self.place_again(&key);
            self.publish_cold(&key);
        }
        self.trials_run();
        self.release_cpus();
        self.advance(milliseconds);
    }

    /// Lets so many seconds pass, a quarter at a time.
    pub fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds * 4 {
            self.step(250);
        }
    }

    pub fn conditions(&self, uid: &str) -> &[Condition] {
        &self.sandboxes[uid].conditions
    }

    /// A condition of a sandbox: whether it is True, and its reason.
    pub fn condition(&self, uid: &str, type_: &str) -> (bool, &str) {
        let found = self.conditions(uid).iter().find(|c| c.type_ == type_);
        let condition = found.unwrap();
        (
            condition.status == ConditionStatus::True,
            condition.reason.as_deref().unwrap(),
        )
    }
}
