//! A compromised node that helps itself to a Sandbox. The node loses its idle pods, those of every other test too.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use pilotlight_bench::hub::Hub;
use pilotlight_bench::objects::{self, is_ready, pods, sandboxes, text, warm_pods};
use pilotlight_e2e::attempt::{Expected, How, attempt, try_all};
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::scene::{Scene, alone};
use pilotlight_e2e::token;
use serde_json::json;

use crate::confinement::agent::attempts::{condition_patch, publication};
use crate::confinement::{idle_on, nodes, running_on, set_up};

/// Publishes the Sandbox that waits, with the token of a node's agent, on an idle pod of that node.
async fn helps_itself(scene: &Scene, first: &str, second: &str) -> Result<()> {
    let environment = scene.environment;
    let stolen = token::of_agent(environment, first).await?;
    let thief = token::client(environment, stolen).await?;
    let idle = idle_on(scene, first)?;
    let api: Api<DynamicObject> = objects::api(&thief, &scene.namespace, &sandboxes());
    let patch = Patch::Merge(publication(&idle, &scene.namespace, first));
    let start = Instant::now();
    api.patch_status("waiting", &PatchParams::default(), &patch)
        .await?;
    scene
        .ends("waiting", "Failed", "NotAssigned", PATIENCE)
        .await?;
    let took = start.elapsed();
    println!("ended after {} ms", took.as_millis());
    ensure!(took < Duration::from_secs(1), "it took {took:?}");

    let all: Api<DynamicObject> = Api::all_with(scene.client().clone(), &nodes());
    let label = all.get(first).await?.metadata.labels.unwrap_or_default();
    let label = label.get("llmsafespace.dev/agent");
    ensure!(
        label.is_some_and(|l| l == "distrusted"),
        "the node says {label:?}"
    );
    scene.warned("waiting", "NotAssigned").await?;

    // Its idle pods go, and others come on the other node.
    let (first, second) = (first.to_owned(), second.to_owned());
    let left = first.clone();
    let none_left =
        move |o: &DynamicObject| is_ready(o) && text(o, "/status/nodeName") == Some(&left);
    scene
        .warm_pods
        .expect_all(move |all| !all.values().any(&none_left))
        .within(PATIENCE)
        .await
        .context("idle pods are left on the node")?;
    scene.ready(8).await?;
    scene.is_served("afterwards", json!({})).await?;
    let served = scene.seen("afterwards")?;
    let on = text(&served, "/status/nodeName");
    ensure!(on == Some(&second), "the next one runs on {on:?}");

    // And the token is good for nothing any more.
    let (sandbox, pod) = running_on(scene, &first)?;
    let usage = json!({ "status": { "resources": { "cpuUsage": "1m" } } });
    let beat = json!({ "spec": { "lastHeartbeat": "2036-01-01T00:00:00Z" } });
    let ns = scene.namespace.as_str();
    let attempts = [
        attempt(
            "distrusted: usage of its own Sandbox",
            &sandboxes(),
            (ns, &sandbox),
            How::Merge("status", usage),
        ),
        attempt(
            "distrusted: heartbeat of its own WarmPod",
            &warm_pods(),
            (ns, &pod),
            How::Merge("", beat),
        ),
        attempt(
            "distrusted: condition of its own pod",
            &pods(),
            (ns, &pod),
            How::Strategic(
                "status",
                condition_patch("llmsafespace.dev/prepared", "False"),
            ),
        ),
    ];
    try_all(&thief, Expected::Refused, &attempts).await
}

#[test]
fn a_node_that_helps_itself_is_found_out_within_a_second_and_gets_no_more_sandboxes() {
    alone("helps-itself", |scene| async move {
        let (first, second) = set_up(&scene).await?;
        let all = Hub::open(Api::all_with(scene.client().clone(), &nodes())).await?;
        let result = helps_itself(&scene, &first, &second).await;
        // As somebody would who has looked into the node. Whatever became of the test, the next one needs it.
        let clear = json!({ "metadata": { "labels": { "llmsafespace.dev/agent": null } } });
        let api: Api<DynamicObject> = Api::all_with(scene.client().clone(), &nodes());
        api.patch(&first, &PatchParams::default(), &Patch::Merge(&clear))
            .await?;
        let trusted = all.expect("", &first, |node| {
            let labels = node.and_then(|n| n.metadata.labels.as_ref());
            labels
                .and_then(|l| l.get("llmsafespace.dev/agent"))
                .is_some_and(|l| l == "ready")
        });
        trusted
            .within(PATIENCE)
            .await
            .context("the node is not trusted again")?;
        result
    });
}
