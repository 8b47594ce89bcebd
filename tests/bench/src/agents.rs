//! Sandboxes of `agents.x-k8s.io`, many at once: what the controller adds to the time that their pods take, and what it writes. Called by
//! [`super::run`].
//!
//! All times are between two events of this program's own watches, so that what its own requests take is in none of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use kube::Client;
use kube::api::{ApiResource, DynamicObject};
use pilotlight_common::agents::v1beta1::Sandbox;
use serde::Serialize;
use serde_json::{Value, json};

use crate::hub::{Hub, Objects};
use crate::objects::{self, is_pod_ready};
use crate::requests::Writes;
use crate::stats::{Samples, Summary, count, rounded};

const NAMESPACE: &str = "pilotlight-bench-agents";
/// How long all of them may take: fifty pods start within half a minute on two cores.
const LIMIT: Duration = Duration::from_mins(5);
/// What the controller writes; the same verbs of others are the kubelet's and the pod scheduler's, of other resources.
const OURS: [&str; 6] = [
    "POST pods",
    "POST services",
    "PATCH pods",
    "PATCH sandboxes/status",
    "POST persistentvolumeclaims",
    "DELETE pods",
];

/// The numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Agents {
    /// From the Sandbox to its pod.
    pub created: Summary,
    /// From the pod that is ready to the Sandbox that is.
    pub ready: Summary,
    /// Writes of the controller for each, events apart.
    pub writes_per_sandbox: f64,
}

impl Agents {
    /// For people.
    pub fn line(&self) -> String {
        format!(
            "agents.x-k8s.io, {} at once: Sandbox to its pod p50 {:.1} ms, p99 {:.1} ms; pod ready to Sandbox ready p50 {:.1} ms, p99 {:.1} ms \
             (aim: p50 below 20 each); {:.2} writes each",
            self.created.n,
            self.created.p50_ms,
            self.created.p99_ms,
            self.ready.p50_ms,
            self.ready.p99_ms,
            self.writes_per_sandbox
        )
    }
}

/// When one was first seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    sandbox: Option<Instant>,
    pod: Option<Instant>,
    pod_ready: Option<Instant>,
    sandbox_ready: Option<Instant>,
}

type All = Arc<Mutex<BTreeMap<String, Seen>>>;

fn note(all: &All, name: &str, what: fn(&mut Seen) -> &mut Option<Instant>) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = all.entry(name.to_owned()).or_default();
    what(seen).get_or_insert_with(Instant::now);
}

fn is_ready(sandbox: &DynamicObject) -> bool {
    let conditions = sandbox.data.pointer("/status/conditions");
    let mut conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Creates `n` at once and waits until all are ready.
pub async fn measure(client: &Client, image: &str, n: u32) -> Result<Agents> {
    objects::namespace(client, NAMESPACE).await?;
    let measured = within(client, image, n).await;
    objects::delete_namespace(client, NAMESPACE).await?;
    measured
}

async fn within(client: &Client, image: &str, n: u32) -> Result<Agents> {
    let kind = ApiResource::erase::<Sandbox>(&());
    let api = objects::api(client, NAMESPACE, &kind);
    let sandboxes = Hub::open(api.clone()).await?;
    let pods = Hub::open(objects::api(client, NAMESPACE, &objects::pods())).await?;
    let all = All::default();
    let seen = Arc::clone(&all);
    sandboxes.observe(move |(_, name), sandbox| {
        if let Some(sandbox) = sandbox {
            note(&seen, name, |seen| &mut seen.sandbox);
            if is_ready(sandbox) {
                note(&seen, name, |seen| &mut seen.sandbox_ready);
            }
        }
    });
    let seen = Arc::clone(&all);
    pods.observe(move |(_, name), pod| {
        if let Some(pod) = pod {
            note(&seen, name, |seen| &mut seen.pod);
            if is_pod_ready(pod) {
                note(&seen, name, |seen| &mut seen.pod_ready);
            }
        }
    });
    let before = Writes::when_quiet(client).await?;
    let wanted = usize::try_from(n)?;
    let wait = sandboxes.expect_all(move |all: &Objects| {
        all.values().filter(|sandbox| is_ready(sandbox)).count() >= wanted
    });
    let creations = (0..n).map(|i| {
        let sandbox = objects::object(&kind, &format!("s-{i}"), json!({ "spec": spec(image) }));
        let api = api.clone();
        async move { objects::create(&api, &sandbox).await }
    });
    try_join_all(creations).await?;
    wait.within(LIMIT)
        .await
        .context("the Sandboxes of agents.x-k8s.io do not get ready")?;
    let writes = Writes::when_quiet(client).await?.since(&before);
    let total: u64 = OURS.iter().filter_map(|what| writes.0.get(*what)).sum();
    let all = all.lock().unwrap_or_else(PoisonError::into_inner);
    let between = |from: fn(&Seen) -> Option<Instant>, to: fn(&Seen) -> Option<Instant>| {
        let took = all
            .values()
            .filter_map(|seen| Some(to(seen)?.saturating_duration_since(from(seen)?)));
        let samples = Samples {
            took: took.collect(),
            ..Samples::default()
        };
        samples.summary(None)
    };
    Ok(Agents {
        created: between(|s| s.sandbox, |s| s.pod),
        ready: between(|s| s.pod_ready, |s| s.sandbox_ready),
        writes_per_sandbox: rounded(count(usize::try_from(total)?) / count(wanted.max(1))),
    })
}

fn spec(image: &str) -> Value {
    json!({ "podTemplate": { "spec": {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
        "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{
            "name": "main",
            "image": image,
            "command": ["sleep", "infinity"],
            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "cpu": "100m", "memory": "64Mi" } },
            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
        }],
    } } })
}
