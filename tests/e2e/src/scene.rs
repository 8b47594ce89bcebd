//! A test's own namespace, watched from beginning to end, with nothing left behind at the end.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams};
use pilotlight_bench::hub::{Hub, Objects};
use pilotlight_bench::objects::{self, is_ready, is_running, text};
use pilotlight_common::names::{MANAGED_BY, MANAGED_BY_LABEL};

use crate::environment::{Environment, PATIENCE, RUNTIME, environment};
use crate::ledger::Ledger;
use crate::state;

/// How long a pool may take to fill: 60 pods take half a minute on two cores that are otherwise idle.
const FILL_LIMIT: Duration = Duration::from_mins(5);
/// How long the end of everything in a namespace may take: pods end one by one, within their grace period.
const CLEAR_LIMIT: Duration = Duration::from_mins(3);

/// A namespace with its watches.
pub struct Scene {
    /// The namespace.
    pub namespace: String,
    /// The installation it is on.
    pub environment: &'static Environment,
    /// Its sandboxes.
    pub sandboxes: Hub,
    /// Its WarmPods.
    pub warm_pods: Hub,
    /// Its pods that are the project's.
    pub pods: Hub,
    /// CPU limit of its sandboxes, where a test does not say otherwise.
    pub cpu: &'static str,
    ledger: Arc<Mutex<Ledger>>,
}

/// CPU limit of a sandbox with which a container and python start within a second. Some twenty fit on each of two small
/// nodes, for all scenes that run at the same time.
const CPU: &str = "100m";

/// Held by every scene: shared by those that run beside others, by one alone where it must.
static STAGE: RwLock<()> = RwLock::new(());

/// Runs one test in a namespace of its own, possibly beside others. Where it fails, everything about it is printed first.
///
/// # Panics
/// Where the test fails: that is what a test does.
pub fn scene<F, R>(name: &str, test: F)
where
    F: FnOnce(Arc<Scene>) -> R,
    R: Future<Output = Result<()>>,
{
    let _beside = STAGE.read().unwrap_or_else(PoisonError::into_inner);
    perform(name, CPU, test);
}

/// The same while no other test runs: its faults would disturb others, or others what it counts and measures.
///
/// # Panics
/// Where the test fails.
pub fn alone<F, R>(name: &str, test: F)
where
    F: FnOnce(Arc<Scene>) -> R,
    R: Future<Output = Result<()>>,
{
    let _alone = STAGE.write().unwrap_or_else(PoisonError::into_inner);
    perform(name, CPU, test);
}

/// The same with more sandboxes than both nodes could hold of the usual size.
///
/// # Panics
/// Where the test fails.
pub fn crowd<F, R>(name: &str, test: F)
where
    F: FnOnce(Arc<Scene>) -> R,
    R: Future<Output = Result<()>>,
{
    let _alone = STAGE.write().unwrap_or_else(PoisonError::into_inner);
    perform(name, objects::CPU, test);
}

#[allow(clippy::panic)] // A test that fails.
fn perform<F, R>(name: &str, cpu: &'static str, test: F)
where
    F: FnOnce(Arc<Scene>) -> R,
    R: Future<Output = Result<()>>,
{
    let environment = match environment() {
        Ok(environment) => environment,
        Err(error) => panic!("{error:#}"),
    };
    let begun = Instant::now();
    let result = environment.runtime.block_on(async {
        let scene = Arc::new(Scene::open(environment, name, cpu).await?);
        let mut result = test(Arc::clone(&scene)).await;
        if result.is_ok() {
            result = scene.close().await;
        }
        if result.is_err() {
            eprintln!("{}", state::describe(&scene).await);
            // The next test is not to run beside what this one left.
            if let Err(error) = scene.clear().await {
                eprintln!("cannot clear {}: {error:#}", scene.namespace);
            }
        }
        scene.clear_runtimes().await?;
        objects::delete_namespace(&environment.client, &scene.namespace).await?;
        result
    });
    println!("scene {name}: {:.1} s", begun.elapsed().as_secs_f64());
    if let Err(error) = result {
        panic!("{name}: {error:#}");
    }
}

impl Scene {
    async fn open(
        environment: &'static Environment,
        name: &str,
        cpu: &'static str,
    ) -> Result<Self> {
        let client = &environment.client;
        // A number of its own: the namespace of the last run may still be ending.
        let second = std::time::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_secs();
        let namespace = format!("e2e-{name}-{}", second % 1_000_000);
        objects::namespace(client, &namespace).await?;
        let open = |kind| Hub::open(objects::api(client, &namespace, &kind));
        let scene = Self {
            sandboxes: open(objects::sandboxes()).await?,
            warm_pods: open(objects::warm_pods()).await?,
            pods: open(objects::pods()).await?,
            ledger: Arc::default(),
            environment,
            namespace,
            cpu,
        };
        let ledger = Arc::clone(&scene.ledger);
        scene.warm_pods.observe(move |_, object| {
            if let Some(object) = object {
                lock(&ledger).warm_pod(object);
            }
        });
        let ledger = Arc::clone(&scene.ledger);
        scene.sandboxes.observe(move |_, object| {
            if let Some(object) = object {
                lock(&ledger).sandbox(object);
            }
        });
        Ok(scene)
    }

    /// What was seen so far.
    pub fn ledger(&self) -> Ledger {
        lock(&self.ledger).clone()
    }

    /// The client of all tests.
    pub fn client(&self) -> &Client {
        &self.environment.client
    }

    /// Sandboxes of this namespace.
    pub fn sandbox_api(&self) -> Api<DynamicObject> {
        objects::api(self.client(), &self.namespace, &objects::sandboxes())
    }

    /// WarmPods of this namespace.
    pub fn warm_pod_api(&self) -> Api<DynamicObject> {
        objects::api(self.client(), &self.namespace, &objects::warm_pods())
    }

    /// WarmPools of this namespace.
    pub fn pool_api(&self) -> Api<DynamicObject> {
        objects::api(self.client(), &self.namespace, &objects::warm_pools())
    }

    /// Sets the bounds of the pool `pool`; `max` 0 is none.
    pub async fn pool(&self, min: u32, max: u32) -> Result<()> {
        objects::apply(
            &self.pool_api(),
            &objects::warm_pool("pool", RUNTIME, min, max, self.cpu),
        )
        .await
    }

    /// A pool of `min` pods, all of them ready.
    pub async fn filled_pool(&self, min: u32, max: u32) -> Result<()> {
        let start = Instant::now();
        self.pool(min, max).await?;
        self.ready(min).await?;
        eprintln!("{min} warm pods after {} ms", start.elapsed().as_millis());
        Ok(())
    }

    /// Waits until this many pods can be assigned.
    pub async fn ready(&self, wanted: u32) -> Result<()> {
        let wanted = usize::try_from(wanted)?;
        self.warm_pods
            .expect_all(move |all| all.values().filter(|o| is_ready(o)).count() >= wanted)
            .within(FILL_LIMIT)
            .await
            .with_context(|| format!("{wanted} warm pods were not ready in time"))?;
        Ok(())
    }

    /// Creates a Sandbox. An API server that is away for a moment is asked again.
    pub async fn create(&self, name: &str) -> Result<DynamicObject> {
        self.create_with(self.client(), &objects::sandbox(name, RUNTIME, self.cpu))
            .await
    }

    /// The same by another client.
    pub async fn create_with(
        &self,
        client: &Client,
        sandbox: &DynamicObject,
    ) -> Result<DynamicObject> {
        let api = objects::api(client, &self.namespace, &objects::sandboxes());
        let name = sandbox.metadata.name.clone().unwrap_or_default();
        let until = Instant::now() + PATIENCE;
        loop {
            let error = match objects::create(&api, sandbox).await {
                Ok(created) => return Ok(created),
                Err(error) => error,
            };
            // An answer that was lost: the object is there.
            if let Ok(Some(there)) = api.get_opt(&name).await {
                return Ok(there);
            }
            let refused = matches!(
                error.downcast_ref::<kube::Error>(),
                Some(kube::Error::Api(status)) if (400..429).contains(&status.code)
            );
            if refused || Instant::now() > until {
                return Err(error.context(format!("cannot create Sandbox {name}")));
            }
            // Nothing announces an API server that listens again; this is the pause of any client.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Creates `count` sandboxes at once and waits until all run; the time it took.
    pub async fn burst(&self, prefix: &str, count: u32) -> Result<Duration> {
        let start = Instant::now();
        let all = (0..count).map(|i| async move {
            let name = format!("{prefix}-{i}");
            self.create(&name).await?;
            self.running(&name).await
        });
        try_join_all(all).await?;
        Ok(start.elapsed())
    }

    /// Waits until a Sandbox is seen Running; its pod.
    pub async fn running(&self, name: &str) -> Result<String> {
        self.sandboxes
            .expect(&self.namespace, name, |o| o.is_some_and(is_running))
            .within(FILL_LIMIT)
            .await
            .with_context(|| format!("Sandbox {name} did not get to Running"))?;
        let objects = self.sandboxes.objects();
        let sandbox = objects.get(&(self.namespace.clone(), name.to_owned()));
        let pod = sandbox.and_then(|s| text(s, "/status/podName"));
        Ok(pod.context("a running Sandbox names its pod")?.to_owned())
    }

    /// Waits until a Sandbox's Ready condition is False for this reason.
    pub async fn waits_for(&self, name: &str, reason: &'static str) -> Result<()> {
        self.sandboxes
            .expect(&self.namespace, name, move |o| {
                o.is_some_and(|o| state::not_ready_reason(o) == Some(reason))
            })
            .within(PATIENCE)
            .await
            .with_context(|| format!("Sandbox {name} does not say {reason}"))?;
        Ok(())
    }

    /// Runs python in a sandbox's pod.
    pub async fn python(&self, pod: &str, program: &str) -> Result<String> {
        let mut command = self.environment.installation.kubectl();
        command.args([
            "-n",
            &self.namespace,
            "exec",
            pod,
            "--",
            "python3",
            "-c",
            program,
        ]);
        tokio::task::spawn_blocking(move || crate::environment::output(&mut command)).await?
    }

    /// Checks what must hold at any moment: nothing given twice, nothing published twice.
    pub fn check(&self) -> Result<()> {
        let ledger = self.ledger();
        ensure!(
            ledger.violations().is_empty(),
            "{}",
            ledger.violations().join("\n")
        );
        let mut by_pod = std::collections::BTreeMap::new();
        for ((_, name), sandbox) in &self.sandboxes.objects() {
            if let Some(pod) = text(sandbox, "/status/podName")
                && let Some(other) = by_pod.insert(pod.to_owned(), name.clone())
            {
                anyhow::bail!("pod {pod} is of {other} and of {name}");
            }
        }
        Ok(())
    }

    /// Pods that were made for one sandbox alone, by the UID of that sandbox.
    pub fn cold_pods(&self) -> std::collections::BTreeMap<String, String> {
        let pods = self.pods.objects();
        let owner = |pod: &DynamicObject| {
            let owners = pod.metadata.owner_references.clone().unwrap_or_default();
            Some(owners.into_iter().find(|o| o.kind == "Sandbox")?.uid)
        };
        pods.into_iter()
            .filter_map(|((_, name), pod)| Some((owner(&pod)?, name)))
            .collect()
    }

    /// Waits until every assigned WarmPod is the one of a running Sandbox, and each Sandbox has one, or a pod of its own.
    pub async fn one_to_one(&self) -> Result<()> {
        let sandboxes = self.sandboxes.objects();
        let cold = self.cold_pods();
        let pods: std::collections::BTreeMap<String, String> = sandboxes
            .values()
            .filter_map(|s| {
                let pod = text(s, "/status/podName")?.to_owned();
                let uid = s.metadata.uid.clone()?;
                (cold.get(&uid) != Some(&pod)).then_some((uid, pod))
            })
            .collect();
        self.warm_pods
            .expect_all(move |all| {
                let assigned: Vec<_> = all
                    .values()
                    .filter_map(|w| {
                        Some((text(w, "/status/assignedTo")?, text(w, "/status/podName")?))
                    })
                    .collect();
                assigned.len() == pods.len()
                    && assigned
                        .iter()
                        .all(|(to, pod)| pods.get(*to).is_some_and(|p| p == pod))
            })
            .within(CLEAR_LIMIT)
            .await
            .context("WarmPods are left that serve no running Sandbox, or two serve one")?;
        Ok(())
    }

    /// Ends everything and checks that nothing is left behind.
    async fn close(&self) -> Result<()> {
        self.clear().await?;
        self.check()
    }

    async fn clear(&self) -> Result<()> {
        let all = ListParams::default();
        for api in [self.pool_api(), self.sandbox_api()] {
            api.delete_collection(&DeleteParams::default(), &all)
                .await?;
        }
        let gone = |hub: &Hub, what: &'static str| {
            let wait = hub.expect_all(Objects::is_empty).within(CLEAR_LIMIT);
            async move {
                wait.await
                    .with_context(|| format!("{what} are left behind"))
            }
        };
        gone(&self.sandboxes, "sandboxes").await?;
        gone(&self.warm_pods, "WarmPods").await?;
        self.pods
            .expect_all(|all| !all.values().any(is_managed))
            .within(CLEAR_LIMIT)
            .await
            .context("pods are left behind")?;
        Ok(())
    }
}

/// Whether a pod is the project's; a test may have pods of its own.
fn is_managed(pod: &DynamicObject) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels
        .and_then(|l| l.get(MANAGED_BY_LABEL))
        .is_some_and(|by| by == MANAGED_BY)
}

fn lock(ledger: &Mutex<Ledger>) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
