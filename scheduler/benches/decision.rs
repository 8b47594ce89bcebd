//! One assignment decision with 100,000 warm pods on 1,000 nodes in the index: what the engine does between a
//! sandbox's event and the W1 that goes out. Prints the percentiles too, since the target is on the 99th.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros define undocumented items; a benchmark stops at the first surprise"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use kube::core::ObjectMeta;
use pilotlight_common::kinds::{
    RuntimeEnvironment, RuntimeEnvironmentSpec, SandboxPhase, SandboxSpec, WarmPodPhase,
    WarmPoolSpec,
};
use pilotlight_common::resolve::SeccompProfiles;
use pilotlight_common::resolve::{Defaults, image_hash};
use pilotlight_common::stream::NodeReport;
use pilotlight_scheduler::action::{Action, AssignOutcome, Done};
use pilotlight_scheduler::index::{Index, Settings};
use pilotlight_scheduler::input::{Change, Input};
use pilotlight_scheduler::view::{
    Claim, Identity, Key, NodeView, PodOwner, PodView, PoolView, RuntimeView, SandboxView,
    WarmPodView,
};

const WARM_PODS: usize = 100_000;
const NODES: usize = 1_000;
const POOLS: usize = 10;
const SAMPLES: usize = 20_000;

struct Cluster {
    index: Index,
    now: Timestamp,
    revision: u64,
    made: usize,
}

fn key(name: impl Into<String>) -> Key {
    Key {
        namespace: "ns".into(),
        name: name.into(),
    }
}

impl Cluster {
    fn new() -> Self {
        let settings = Settings {
            defaults: Defaults::default(),
            namespace: "system".into(),
            validation_timeout: SignedDuration::from_secs(300),
            cluster_domain: "cluster.local".into(),
            agent_deadline: SignedDuration::from_secs(30),
            refill_per_second: 10,
            preload_timeout: SignedDuration::from_secs(300),
            finished_ttl: None,
            nonce: "bench".into(),
        };
        let now = Timestamp::from_second(1_000_000).unwrap();
        let mut this = Self {
            index: Index::new(settings),
            now,
            revision: 0,
            made: 0,
        };
        let runtimes = (0..POOLS).map(|n| {
            let name = format!("runtime-{n}");
            let mut object = RuntimeEnvironment::new(
                &name,
                RuntimeEnvironmentSpec {
                    image: name.clone(),
                    language: "python".into(),
                    ..Default::default()
                },
            );
            object.metadata = ObjectMeta {
                name: Some(name.clone()),
                ..Default::default()
            };
            RuntimeView {
                identity: this.identity(&name),
                object,
            }
        });
        let runtimes = runtimes.collect();
        let nodes = (0..NODES)
            .map(|n| NodeView {
                identity: this.identity(&format!("node-{n}")),
                labelled: true,
                distrusted: false,
            })
            .collect();
        let pools: Vec<PoolView> = (0..POOLS)
            .map(|n| PoolView {
                identity: this.identity(&format!("pool-{n}")),
                spec: WarmPoolSpec {
                    runtime: format!("runtime-{n}"),
                    min_size: i64::try_from(WARM_PODS / POOLS).unwrap(),
                    ttl: Some(0),
                    ..Default::default()
                },
                ..Default::default()
            })
            .collect();
        this.handle(Input::Runtime(Change::Replace(runtimes)));
        this.handle(Input::Profile(Change::Replace(vec![])));
        this.handle(Input::RuntimeClass(Change::Replace(vec![])));
        this.handle(Input::Volume(Change::Replace(vec![])));
        this.handle(Input::SeccompMap(Change::Replace(vec![])));
        this.handle(Input::Node(Change::Replace(nodes)));
        this.handle(Input::Pool(Change::Replace(pools)));
        this.handle(Input::Sandbox(Change::Replace(vec![])));
        for n in 0..NODES {
            let node = format!("node-{n}");
            let (sender, _) = tokio::sync::mpsc::channel(1);
            this.handle(Input::StreamOpened {
                node: node.clone(),
                id: n as u64,
                sender,
            });
            this.handle(Input::Report {
                node,
                report: NodeReport {
                    profiles: SeccompProfiles::default().installed.into_values().collect(),
                    ready: true,
                    ..Default::default()
                },
            });
        }
        let (warm_pods, pods): (Vec<_>, Vec<_>) = (0..WARM_PODS).map(|_| this.warm_pod()).unzip();
        this.handle(Input::Pod(Change::Replace(pods)));
        this.handle(Input::WarmPod(Change::Replace(warm_pods)));
        this.handle(Input::Leading(true));
        black_box(this.index.decide(now));
        this
    }

    fn identity(&mut self, name: &str) -> Identity {
        self.revision += 1;
        Identity {
            key: key(name),
            uid: format!("uid-{}", self.revision),
            revision: self.revision,
            created: self.now,
            deleting: false,
        }
    }

    /// One more ready warm pod, with its pod.
    fn warm_pod(&mut self) -> (WarmPodView, PodView) {
        let n = self.made;
        self.made += 1;
        let pool = n % POOLS;
        let identity = self.identity(&format!("pool-{pool}-{n:08x}"));
        let shape = self.shape(pool);
        let pod = PodView {
            identity: self.identity(&identity.key.name),
            owner: PodOwner::WarmPod(identity.uid.clone()),
            managed: true,
            node: Some(format!("node-{}", (n / POOLS) % NODES)),
            ready: true,
            image_hash: Some(image_hash(&format!("runtime-{pool}"), &[])),
            ..PodView::default()
        };
        let view = WarmPodView {
            identity,
            pool: format!("pool-{pool}"),
            shape,
            phase: Some(WarmPodPhase::Ready),
            node: Some(format!("node-{}", (n / POOLS) % NODES)),
            ready_at: Some(self.now),
            claim: Claim::Free,
            ..WarmPodView::default()
        };
        (view, pod)
    }

    fn shape(&self, pool: usize) -> String {
        self.index
            .pool_shape(&key(format!("pool-{pool}")))
            .unwrap()
            .to_owned()
    }

    fn handle(&mut self, input: Input) {
        self.index.handle(input, self.now);
    }

    /// One sandbox from its event to its end; returns the time of the decision alone.
    fn assignment(&mut self, number: usize) -> Duration {
        self.now = self
            .now
            .checked_add(SignedDuration::from_millis(1))
            .unwrap();
        let mut sandbox = SandboxView {
            identity: self.identity(&format!("sandbox-{number}")),
            spec: SandboxSpec {
                runtime: format!("runtime-{}", number % POOLS),
                ..Default::default()
            },
            ..SandboxView::default()
        };
        let event = Input::Sandbox(Change::Upsert(sandbox.clone()));
        let started = Instant::now();
        self.index.handle(event, self.now);
        let actions = self.index.decide(self.now);
        let took = started.elapsed();
        let assign = actions
            .iter()
            .find_map(|a| {
                if let Action::Assign(a) = a {
                    Some(a.clone())
                } else {
                    None
                }
            })
            .unwrap();
        self.finish(&mut sandbox, assign);
        took
    }

    /// W1 wins, the agent publishes, the sandbox is deleted, its pod goes and another one is made.
    fn finish(&mut self, sandbox: &mut SandboxView, assign: pilotlight_scheduler::action::Assign) {
        let pod = Key::from(&assign.warm_pod);
        let mut won = self.index.warm_pod(&pod).unwrap().clone();
        self.revision += 1;
        won.identity.revision = self.revision;
        won.claim = Claim::Sandbox(sandbox.identity.uid.clone());
        won.phase = Some(WarmPodPhase::Assigned);
        let uid = won.identity.uid.clone();
        self.handle(Input::Done(Done::Assign {
            assign,
            outcome: AssignOutcome::Won(Box::new(won)),
        }));
        sandbox.phase = Some(SandboxPhase::Running);
        sandbox.pod_name = Some(pod.name.clone());
        sandbox.started = Some(self.now);
        self.revision += 1;
        sandbox.identity.revision = self.revision;
        self.handle(Input::Sandbox(Change::Upsert(sandbox.clone())));
        self.handle(Input::Sandbox(Change::Remove(
            sandbox.identity.key.clone(),
            sandbox.identity.uid.clone(),
        )));
        self.handle(Input::WarmPod(Change::Remove(pod, uid)));
        let (view, pod) = self.warm_pod();
        self.handle(Input::Pod(Change::Upsert(pod)));
        self.handle(Input::WarmPod(Change::Upsert(view)));
        black_box(self.index.decide(self.now));
        self.index.take_notices();
        self.index.take_observations();
    }
}

fn decision(criterion: &mut Criterion) {
    let mut cluster = Cluster::new();
    let mut number = 0;
    let mut next = |cluster: &mut Cluster| {
        number += 1;
        cluster.assignment(number)
    };
    let mut samples: Vec<Duration> = (0..SAMPLES).map(|_| next(&mut cluster)).collect();
    samples.sort_unstable();
    let at = |share: usize| samples[(SAMPLES * share / 1000).min(SAMPLES - 1)];
    println!(
        "one decision at {WARM_PODS} warm pods on {NODES} nodes: p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}",
        at(500),
        at(990),
        at(999),
        samples[SAMPLES - 1]
    );
    criterion.bench_function("decision at 100,000 warm pods", |b| {
        b.iter_custom(|count| (0..count).map(|_| next(&mut cluster)).sum());
    });
}

criterion_group!(benches, decision);
criterion_main!(benches);
