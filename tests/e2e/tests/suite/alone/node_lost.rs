//! A node that is gone: its sandboxes are told, and new ones go elsewhere.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pilotlight_bench::objects::text;
use pilotlight_e2e::agents::Agents;
use pilotlight_e2e::faults::Faults;
use pilotlight_e2e::scene::{Scene, alone};
use serde_json::json;

/// How long an end may take to show once the cluster knows of it; seconds, on a machine that does much else.
const SECONDS: Duration = Duration::from_secs(15);

/// Says that the node is off for certain, as an administrator does; or takes it back.
async fn taint(scene: &Scene, node: &str, present: bool) -> Result<()> {
    let mut taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute".to_owned();
    if !present {
        taint.push('-');
    }
    scene.kubectl(&["taint", "node", node, &taint]).await?;
    Ok(())
}

#[test]
fn a_lost_node_is_told_to_its_sandboxes_and_new_ones_go_elsewhere() {
    alone("node-lost", |scene| async move {
        let Some(faults) = Faults::of(scene.environment) else {
            return Ok(());
        };
        faults.healed().await?;
        scene.create("lost").await?;
        scene.running("lost").await?;
        let sandbox = scene.seen("lost")?;
        let node = text(&sandbox, "/status/nodeName")
            .context("no node")?
            .to_owned();
        // One of the other API beside it.
        let agents = Agents::of(&scene).await?;
        let mut pod = agents.idle();
        pod["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
        let tolerate = |key| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2 });
        pod["tolerations"] = json!(
            [
                "node.kubernetes.io/unreachable",
                "node.kubernetes.io/not-ready"
            ]
            .map(tolerate)
        );
        agents
            .create("beside", json!({ "podTemplate": { "spec": pod } }))
            .await?;
        agents.ready("beside").await?;
        let uid = agents.pod_uid("beside")?;
        faults.stop(&node).await?;
        let off = Instant::now();
        let mut result = without(&scene, &node, off).await;
        if result.is_ok() {
            // Its pod is gone with the node, and the next one waits for a place.
            result = agents
                .says("beside", "PodScheduled", "False Unschedulable")
                .await;
        }
        faults.start(&node).await?;
        let healed = match taint(&scene, &node, false).await {
            // Where it never got as far as that.
            Err(error) if !error.to_string().contains("not found") => Err(error),
            _ => faults.healed().await,
        };
        if result.is_ok() && healed.is_ok() {
            agents.another_pod("beside", &uid).await?;
            agents.ready("beside").await?;
            agents.delete("beside").await?;
        }
        println!(
            "node lost: all well again {} ms after it was off",
            off.elapsed().as_millis()
        );
        result.and(healed)
    });
}

async fn without(scene: &Scene, node: &str, off: Instant) -> Result<()> {
    scene.waits_for("lost", "NodeUnreachable").await?;
    println!(
        "node lost: NodeUnreachable after {} ms",
        off.elapsed().as_millis()
    );
    taint(scene, node, true).await?;
    let known = Instant::now();
    scene.ends("lost", "Failed", "NodeLost", SECONDS).await?;
    println!(
        "node lost: NodeLost {} ms after the cluster knew",
        known.elapsed().as_millis()
    );
    scene.create("elsewhere").await?;
    scene.running("elsewhere").await?;
    let new = scene.seen("elsewhere")?;
    ensure!(
        text(&new, "/status/nodeName").is_some_and(|n| n != node),
        "it is on the lost node"
    );
    Ok(())
}
