//! Sandboxes of `agents.x-k8s.io`, many at once: what the controller adds to the time that their pods take, and what it writes. Called by
//! [`super::run`].
//!
//! All times are between two events of this program's own watches, so that what its own requests take is in none of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
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
    /// What of that is the controller's own: from its news of the Sandbox to its request for the pod, median in milliseconds, rounded up to a
    /// bucket of its histogram.
    pub own_create_p50_ms: f64,
    /// The same from its news of the pod to its request for the status.
    pub own_ready_p50_ms: f64,
    /// Writes of the controller for each, events apart.
    pub writes_per_sandbox: f64,
}

impl Agents {
    /// For people.
    pub fn line(&self) -> String {
        format!(
            "agents.x-k8s.io, {} at once: Sandbox to its pod p50 {:.1} ms, p99 {:.1} ms, of which the controller's {:.1} ms (aim: below 20); pod ready to \
             Sandbox ready p50 {:.1} ms, p99 {:.1} ms, of which {:.1} ms (aim: below 20); {:.2} writes each",
            self.created.n,
            self.created.p50_ms,
            self.created.p99_ms,
            self.own_create_p50_ms,
            self.ready.p50_ms,
            self.ready.p99_ms,
            self.own_ready_p50_ms,
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
pub async fn measure(client: &Client, system: &str, image: &str, n: u32) -> Result<Agents> {
    objects::namespace(client, NAMESPACE).await?;
    let measured = within(client, system, image, n).await;
    objects::delete_namespace(client, NAMESPACE).await?;
    measured
}

async fn within(client: &Client, system: &str, image: &str, n: u32) -> Result<Agents> {
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
    let reacted = reactions(client, system).await?;
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
    let reactions = reactions(client, system).await?;
    let own = |action: &str| median(&reactions, &reacted, action) * 1000.0;
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
        own_create_p50_ms: rounded(own("create_pod")),
        own_ready_p50_ms: rounded(own("status")),
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

/// Of an action and an upper bound in nanoseconds, how many reactions were below it.
type Reactions = BTreeMap<(String, u64), u64>;

/// What all replicas of the controller say of the time that they take.
async fn reactions(client: &Client, system: &str) -> Result<Reactions> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), system);
    let replicas = ListParams::default().labels("app.kubernetes.io/component=agents");
    let mut all = Reactions::new();
    for pod in pods.list(&replicas).await?.items {
        let name = pod.metadata.name.unwrap_or_default();
        let path = format!("/api/v1/namespaces/{system}/pods/{name}:9090/proxy/metrics");
        let request = http::Request::get(path).body(Vec::new())?;
        for (key, n) in parse(&client.request_text(request).await?) {
            *all.entry(key).or_default() += n;
        }
    }
    Ok(all)
}

fn parse(metrics: &str) -> Reactions {
    let lines = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("pilotlight_agents_reaction_seconds_bucket{")?;
        let (labels, n) = rest.split_once("} ")?;
        let label = |key: &str| {
            let mut labels = labels.split(',').filter_map(|label| label.split_once('='));
            let found = labels.find(|(label, _)| *label == key)?.1;
            Some(found.trim_matches('"').to_owned())
        };
        let bound: f64 = label("le")?.replace("+Inf", "1e9").parse().ok()?;
        let bound = u64::try_from(Duration::from_secs_f64(bound).as_nanos()).ok()?;
        Some(((label("action")?, bound), n.trim().parse().ok()?))
    });
    lines.collect()
}

/// The upper bound, in seconds, that half of the reactions since `before` are within.
fn median(now: &Reactions, before: &Reactions, action: &str) -> f64 {
    let of_action = now.iter().filter(|((of, _), _)| of == action);
    let since: Vec<(u64, u64)> = of_action
        .map(|(key, n)| {
            (
                key.1,
                n.saturating_sub(before.get(key).copied().unwrap_or(0)),
            )
        })
        .collect();
    let total = since.last().map_or(0, |(_, n)| *n);
    let half = since.iter().find(|(_, n)| *n * 2 >= total);
    half.map_or(0.0, |(bound, _)| Duration::from_nanos(*bound).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_what_came_meanwhile() {
        let line = |action: &str, le: &str, n: u64| {
            format!(
                "pilotlight_agents_reaction_seconds_bucket{{le=\"{le}\",action=\"{action}\"}} {n}\n"
            )
        };
        let before: String = ["0.001", "0.002", "0.004", "+Inf"]
            .map(|bound| line("status", bound, 100))
            .concat();
        let before = parse(&before);
        let now = line("status", "0.001", 100)
            + &line("status", "0.002", 110)
            + &line("status", "0.004", 120)
            + &line("status", "+Inf", 121)
            + &line("create_pod", "0.001", 5);
        let now = parse(&now);
        assert!((median(&now, &before, "status") - 0.004).abs() < 1e-9);
        assert!((median(&now, &before, "create_pod") - 0.001).abs() < 1e-9);
        assert!(median(&now, &before, "other").abs() < 1e-9);
    }
}
