//! What the policies refuse, by the tokens of those whom they hold: a node's agent, the scheduler, and everybody else.

pub(crate) mod agent;
mod controller;
mod others;
mod scheduler;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ApiResource, DynamicObject};
use pilotlight_bench::objects::{self, is_ready, is_running, text};
use pilotlight_e2e::scene::Scene;
use serde_json::json;

/// Reason of a Sandbox that waits for what is not there: no pod is ever given to it.
const WAITS: &str = "RuntimeNotFound";

pub(crate) fn nodes() -> ApiResource {
    ApiResource::erase::<Node>(&())
}

/// The names of two nodes with agents.
async fn two_nodes(scene: &Scene) -> Result<(String, String)> {
    let all: Api<DynamicObject> = Api::all_with(scene.client().clone(), &nodes());
    let labelled = kube::api::ListParams::default().labels("llmsafespace.dev/agent=ready");
    let found = all.list(&labelled).await?.items.into_iter();
    let mut names = found.filter_map(|node| node.metadata.name);
    let mut next = || names.next().context("fewer than two nodes take sandboxes");
    Ok((next()?, next()?))
}

/// An idle WarmPod of a node.
pub(crate) fn idle_on(scene: &Scene, node: &str) -> Result<String> {
    let all = scene.warm_pods.objects();
    let found = all
        .iter()
        .find(|(_, o)| is_ready(o) && text(o, "/status/nodeName") == Some(node));
    let ((_, name), _) = found.with_context(|| format!("no idle pod on {node}"))?;
    Ok(name.clone())
}

/// A running Sandbox of a node, and its pod.
pub(crate) fn running_on(scene: &Scene, node: &str) -> Result<(String, String)> {
    let all = scene.sandboxes.objects();
    let found = all
        .iter()
        .find(|(_, o)| is_running(o) && text(o, "/status/nodeName") == Some(node));
    let ((_, name), sandbox) = found.with_context(|| format!("nothing runs on {node}"))?;
    let pod = text(sandbox, "/status/podName").unwrap_or_default();
    Ok((name.clone(), pod.to_owned()))
}

/// Both nodes have idle pods and running Sandboxes, and one Sandbox `waiting` is given to nobody.
pub(crate) async fn set_up(scene: &Scene) -> Result<(String, String)> {
    let (first, second) = two_nodes(scene).await?;
    scene.filled_pool(8, 0).await?;
    // A sandbox goes to the node with the most idle pods, and another idle pod comes where there are fewer: soon both have some.
    for number in 0..12 {
        let name = format!("s{number}");
        scene.create(&name).await?;
        scene.running(&name).await?;
        if running_on(scene, &first).is_ok() && running_on(scene, &second).is_ok() {
            break;
        }
    }
    let sandbox = json!({ "runtime": "not-there" });
    scene.ask("waiting", sandbox).await?;
    scene.waits_for("waiting", WAITS).await?;
    scene.ready(8).await?;
    for node in [&first, &second] {
        idle_on(scene, node)?;
        running_on(scene, node)?;
    }
    Ok((first, second))
}

/// What must not have changed: metadata that has a meaning, and the specification.
async fn shapes(scene: &Scene, pods: &[&str]) -> Result<Vec<serde_json::Value>> {
    let api = objects::api(scene.client(), &scene.namespace, &objects::pods());
    let all = try_join_all(pods.iter().map(|name| api.get(name))).await?;
    let shape = |pod: DynamicObject| {
        json!([
            pod.metadata.labels,
            pod.metadata.annotations,
            pod.metadata.finalizers,
            pod.metadata.owner_references,
            pod.data["spec"],
        ])
    };
    let shapes: Vec<_> = all.into_iter().map(shape).collect();
    ensure!(shapes.len() == pods.len(), "pods are missing");
    Ok(shapes)
}
