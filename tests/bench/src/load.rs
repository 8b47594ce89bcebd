//! The load: floor sequences and assignments, one by one, all at once, or by a timetable.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::join_all;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::hub::{Hub, Objects};
use crate::objects::{self, is_ready, is_running, text};
use crate::stats::Samples;

/// How long one sample may take before it counts as failed.
const SAMPLE_LIMIT: Duration = Duration::from_mins(1);
/// How long a pool may take to fill: 60 pods on two shared cores took up to a minute.
const FILL_LIMIT: Duration = Duration::from_mins(5);

/// Time for what follows the last change of a pod, endpoints above all.
const REST: Duration = Duration::from_secs(3);

/// One namespace, watched.
pub struct Field {
    /// The namespace.
    pub namespace: String,
    /// Its sandboxes.
    pub sandboxes: Hub,
    /// Its WarmPods.
    pub warm_pods: Hub,
    /// Its pods.
    pub pods: Hub,
    sandbox_api: Api<DynamicObject>,
    warm_pod_api: Api<DynamicObject>,
}

/// Node of the floor's WarmPods; it need not exist.
pub const FLOOR_NODE: &str = "node-1";

/// Who writes in a floor sequence, in the place of the programs.
pub struct Writers {
    /// Makes and assigns WarmPods.
    pub scheduler: Client,
    /// Says that they are ready, and publishes; of [`FLOOR_NODE`].
    pub agent: Client,
}

impl Field {
    /// Creates the namespace and opens the watches.
    pub async fn open(client: &Client, namespace: &str) -> Result<Self> {
        objects::namespace(client, namespace).await?;
        let sandbox_api = objects::api(client, namespace, &objects::sandboxes());
        let warm_pod_api = objects::api(client, namespace, &objects::warm_pods());
        Ok(Self {
            namespace: namespace.to_owned(),
            sandboxes: Hub::open(sandbox_api.clone()).await?,
            warm_pods: Hub::open(warm_pod_api.clone()).await?,
            pods: Hub::open(objects::api(client, namespace, &objects::pods())).await?,
            sandbox_api,
            warm_pod_api,
        })
    }

    /// Creates a Sandbox, with these network rules if any, and waits until it is seen Running.
    pub async fn assign(
        &self,
        name: &str,
        runtime: &str,
        access: Option<&Value>,
    ) -> Result<Duration> {
        let running = self
            .sandboxes
            .expect(&self.namespace, name, |o| o.is_some_and(is_running));
        let mut sandbox = objects::sandbox(name, runtime, objects::CPU);
        if let Some(access) = access {
            sandbox.data["spec"]["networkAccess"] = access.clone();
        }
        let start = Instant::now();
        let (_, at) = futures::try_join!(
            objects::create(&self.sandbox_api, &sandbox),
            running.within(SAMPLE_LIMIT)
        )?;
        Ok(at - start)
    }

    /// The same writes without anybody to decide: create, W1 and W2, each seen by watch before the next.
    pub async fn floor(&self, writers: &Writers, name: &str) -> Result<Duration> {
        let created = self
            .sandboxes
            .expect(&self.namespace, name, |o| o.is_some());
        let sandbox = objects::sandbox(name, "floor", objects::CPU);
        let start = Instant::now();
        let (sandbox, _) = futures::try_join!(
            objects::create(&self.sandbox_api, &sandbox),
            created.within(SAMPLE_LIMIT)
        )?;
        let uid = sandbox.metadata.uid.context("a created object has a UID")?;
        let assigned = self.warm_pods.expect(&self.namespace, name, |o| {
            o.is_some_and(|o| text(o, "/status/assignedTo").is_some())
        });
        let warm_pods = self.warm_pods_of(&writers.scheduler);
        let w1 = json!({ "status": {
            "phase": "Assigned", "assignedTo": uid, "assignedAt": now(), "sandboxName": name,
        }});
        futures::try_join!(
            patch_status(&warm_pods, name, &w1),
            assigned.within(SAMPLE_LIMIT)
        )?;
        let running = self
            .sandboxes
            .expect(&self.namespace, name, |o| o.is_some_and(is_running));
        let w2 =
            json!({ "metadata": { "uid": uid }, "status": running_status(name, &self.namespace) });
        let sandboxes = objects::api(&writers.agent, &self.namespace, &objects::sandboxes());
        let (_, at) = futures::try_join!(
            patch_status(&sandboxes, name, &w2),
            running.within(SAMPLE_LIMIT)
        )?;
        Ok(at - start)
    }

    /// WarmPods for floor sequences, without pods, as Ready as an agent would write them.
    pub async fn floor_warm_pods(&self, writers: &Writers, names: &[String]) -> Result<()> {
        let (made, armed) = (
            self.warm_pods_of(&writers.scheduler),
            self.warm_pods_of(&writers.agent),
        );
        for name in names {
            let spec =
                json!({ "spec": { "poolRef": { "name": "floor" }, "shape": "0123456789abcdef" }});
            objects::create(&made, &objects::object(&objects::warm_pods(), name, spec)).await?;
            let ready = json!({ "status": {
                "phase": "Ready", "podName": name, "podNamespace": self.namespace,
                "nodeName": FLOOR_NODE, "readyAt": now(),
            }});
            patch_status(&armed, name, &ready).await?;
        }
        Ok(())
    }

    fn warm_pods_of(&self, client: &Client) -> Api<DynamicObject> {
        objects::api(client, &self.namespace, &objects::warm_pods())
    }

    /// Waits until `wanted` pods can be assigned and no pod starts or ends any more: what kubelets and controllers do about those
    /// takes CPU and writes that are not an assignment's.
    pub async fn filled(&self, wanted: usize) -> Result<()> {
        self.warm_pods
            .expect_all(move |all| all.values().filter(|o| is_ready(o)).count() >= wanted)
            .within(FILL_LIMIT)
            .await
            .with_context(|| format!("{wanted} warm pods were not ready in time"))?;
        self.pods
            .expect_all(|all| all.values().all(objects::is_pod_ready))
            .within(FILL_LIMIT)
            .await
            .context("pods that start or end did not come to rest")?;
        // Controllers follow within a second or two, and nothing says when they are through.
        tokio::time::sleep(REST).await;
        Ok(())
    }

    /// Waits until there are no WarmPods and no pods any more.
    pub async fn emptied(&self) -> Result<()> {
        for hub in [&self.warm_pods, &self.pods] {
            hub.expect_all(Objects::is_empty)
                .within(FILL_LIMIT)
                .await
                .context("pods are left")?;
        }
        Ok(())
    }

    /// Deletes one sandbox.
    pub async fn delete(&self, name: &str) -> Result<()> {
        objects::delete(&self.sandbox_api, name).await
    }

    /// Deletes all sandboxes and waits until none is left.
    pub async fn clear(&self) -> Result<()> {
        clear(&self.sandbox_api, &self.sandboxes).await
    }

    /// Deletes all WarmPods too; for those that have no pod.
    pub async fn clear_warm_pods(&self) -> Result<()> {
        clear(&self.warm_pod_api, &self.warm_pods).await
    }
}

async fn clear(api: &Api<DynamicObject>, hub: &Hub) -> Result<()> {
    api.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    hub.expect_all(Objects::is_empty)
        .within(SAMPLE_LIMIT)
        .await?;
    Ok(())
}

async fn patch_status(
    api: &Api<DynamicObject>,
    name: &str,
    patch: &serde_json::Value,
) -> Result<DynamicObject> {
    let params = PatchParams {
        field_manager: Some(objects::MANAGER.to_owned()),
        ..PatchParams::default()
    };
    Ok(api
        .patch_status(name, &params, &Patch::Merge(patch))
        .await?)
}

fn now() -> k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(k8s_openapi::jiff::Timestamp::now())
}

/// What an agent publishes, in full, so that the floor's write weighs as much.
fn running_status(pod: &str, namespace: &str) -> serde_json::Value {
    let now = now();
    let second = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now.0);
    let condition = |type_: &str, reason: &str, message: &str| json!({ "type": type_, "status": "True", "reason": reason, "message": message, "lastTransitionTime": second });
    json!({
        "phase": "Running", "podName": pod, "podNamespace": namespace, "nodeName": FLOOR_NODE, "startTime": now,
        "endpoint": format!("{pod}.sandboxes.{namespace}.svc.cluster.local"),
        "conditions": [
            condition("Accepted", "Resolved", "the request can be fulfilled"),
            condition("Assigned", "WarmPodAssigned", "a warm pod was assigned"),
            condition("Prepared", "Verified", "the node enforces what the sandbox asks for"),
            condition("Ready", "Running", "the sandbox runs"),
        ],
    })
}

/// One after the other.
pub async fn serial<F, R>(names: &[String], sample: F) -> Samples
where
    F: Fn(String) -> R,
    R: Future<Output = Result<Duration>>,
{
    let start = Instant::now();
    let mut samples = Samples::default();
    for name in names {
        take(&mut samples, sample(name.clone()).await);
    }
    samples.wall = start.elapsed();
    samples
}

/// All at once.
pub async fn burst<F, R>(names: &[String], sample: F) -> Samples
where
    F: Fn(String) -> R,
    R: Future<Output = Result<Duration>> + Send + 'static,
{
    let at_once = vec![Duration::ZERO; names.len()];
    timetable(names, &at_once, sample).await
}

/// Each at its offset from now, whether or not those before it are through.
pub async fn timetable<F, R>(names: &[String], offsets: &[Duration], sample: F) -> Samples
where
    F: Fn(String) -> R,
    R: Future<Output = Result<Duration>> + Send + 'static,
{
    let start = Instant::now();
    let tasks = names.iter().zip(offsets).map(|(name, offset)| {
        let sample = sample(name.clone());
        let due = tokio::time::Instant::from_std(start + *offset);
        tokio::spawn(async move {
            tokio::time::sleep_until(due).await;
            sample.await
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut samples = Samples::default();
    for result in join_all(tasks).await {
        take(
            &mut samples,
            result.unwrap_or_else(|error| Err(error.into())),
        );
    }
    samples.wall = start.elapsed();
    samples
}

fn take(samples: &mut Samples, result: Result<Duration>) {
    match result {
        Ok(took) => samples.took.push(took),
        Err(error) => {
            eprintln!("a sample failed: {error:#}");
            samples.failed += 1;
        }
    }
}

/// `prefix-0`, `prefix-1`, ...
pub fn names(prefix: &str, count: u32) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}-{i}")).collect()
}

/// A field that tasks share.
pub type SharedField = Arc<Field>;
