//! How sandboxes end, each way with its own reason; and what of a living one can be edited.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, EvictParams};
use pilotlight_bench::objects::{is_running, text};
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::scene::scene;
use pilotlight_e2e::state::condition;
use serde_json::{Value, json};

/// How long an end may take to show once the cluster knows of it; seconds, on a machine that does much else.
const SECONDS: Duration = Duration::from_secs(15);

#[test]
fn of_a_sandbox_only_what_it_can_follow_is_edited() {
    scene("edits", |scene| async move {
        // It waits for its runtime, so that its storage costs nothing.
        let given = json!({
            "runtime": "no-such-runtime", "securityLevel": "standard",
            "filesystem": { "writablePaths": ["/tmp"] }, "securityContext": { "runAsUser": 1000 },
            "storage": { "persistent": true, "volumeSize": "2Mi" }, "profileRef": { "name": "a" },
        });
        scene.ask("kept", given).await?;
        let refused: [(&str, Value); 10] = [
            ("spec.runtime", json!({ "runtime": "other" })),
            ("spec.securityLevel", json!({ "securityLevel": "custom" })),
            ("spec.resources", json!({ "resources": { "cpu": "20m" } })),
            ("spec.resources", json!({ "resources": null })),
            (
                "spec.filesystem",
                json!({ "filesystem": { "readOnlyRoot": false } }),
            ),
            (
                "spec.securityContext",
                json!({ "securityContext": { "runAsUser": 2000 } }),
            ),
            ("spec.profileRef", json!({ "profileRef": { "name": "b" } })),
            (
                "spec.storage.persistent",
                json!({ "storage": { "persistent": false } }),
            ),
            (
                "spec.storage.volumeSize",
                json!({ "storage": { "volumeSize": "1Mi" } }),
            ),
            ("spec.timeout", json!({ "timeout": 0 })),
        ];
        for (field, edit) in refused {
            let error = scene.edit("kept", edit.clone()).await.err();
            let error = error.with_context(|| format!("{field} was edited: {edit}"))?;
            let said = error.to_string();
            let expected = match field {
                "spec.timeout" => "spec.timeout".to_owned(),
                "spec.storage.volumeSize" => format!("{field} can only grow"),
                _ => format!("{field} cannot be changed: create a new Sandbox"),
            };
            ensure!(
                said.contains(&expected),
                "{edit}: the API server says {said}"
            );
        }
        for edit in [
            json!({ "timeout": 60 }),
            json!({ "storage": { "volumeSize": "3Mi" } }),
            json!({ "networkAccess": {} }),
        ] {
            scene
                .edit("kept", edit.clone())
                .await
                .with_context(|| format!("{edit}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_timeout_is_edited_while_the_sandbox_runs() {
    scene("lifetime", |scene| async move {
        scene.filled_pool(2, 2).await?;
        scene.ask("longer", json!({ "timeout": 6 })).await?;
        scene.running("longer").await?;
        scene.edit("longer", json!({ "timeout": 3600 })).await?;
        scene.create("shorter").await?;
        let pod = scene.running("shorter").await?;
        // Later than the first end of the other would have been.
        scene.edit("shorter", json!({ "timeout": 7 })).await?;
        scene
            .ends("shorter", "Terminated", "TimedOut", PATIENCE)
            .await?;
        scene
            .pods
            .expect(&scene.namespace, &pod, |pod| pod.is_none())
            .within(PATIENCE)
            .await
            .context("the pod outlives its sandbox")?;
        let ended = scene.seen("shorter")?;
        ensure!(
            text(&ended, "/status/finishedTime").is_some(),
            "no finishedTime"
        );
        let still = scene.seen("longer")?;
        ensure!(
            is_running(&still),
            "the other sandbox is {}",
            still.data["status"]
        );

        // An edit that cannot be followed is refused, and hurts nothing.
        scene
            .edit(
                "longer",
                json!({ "networkAccess": { "egress": [{ "domain": "not..a.name" }] } }),
            )
            .await?;
        let accepts = |status: &'static str| {
            let told = scene
                .sandboxes
                .expect(&scene.namespace, "longer", move |o| {
                    o.and_then(|o| condition(o, "Accepted"))
                        .is_some_and(|c| c["status"] == status)
                });
            told.within(PATIENCE)
        };
        accepts("False").await.context("the edit is not refused")?;
        let refused = scene.seen("longer")?;
        let said = condition(&refused, "Accepted").context("no condition")?;
        ensure!(
            said["reason"] == "InvalidNetworkAccess" && is_running(&refused),
            "{said}"
        );
        scene
            .edit("longer", json!({ "networkAccess": null }))
            .await?;
        accepts("True").await.context("the edit was taken back")?;
        Ok(())
    });
}

/// Waits for a file, and then uses memory until there is none.
const EATER: &str = "import os, time
while not os.path.exists('/tmp/eat'):
    time.sleep(0.1)
eaten = []
while True:
    eaten.append(b'x' * (1 << 20))";

#[test]
fn each_way_to_lose_a_pod_is_told_by_its_own_reason() {
    scene("losses", |scene| async move {
        let eater = json!({ "command": ["python3", "-c", EATER] });
        let eater = scene.runtime("eater", eater).await?;
        let able = json!({ "cpu": "100m", "memory": "48Mi" });
        scene
            .ask("eats", json!({ "runtime": eater, "resources": able }))
            .await?;
        scene.create("evicted").await?;
        scene
            .ask(
                "huge",
                json!({ "resources": { "cpu": "4000.0", "memory": "48Mi" } }),
            )
            .await?;

        let pod = scene.running("evicted").await?;
        let pods: Api<Pod> = Api::namespaced(scene.client().clone(), &scene.namespace);
        let start = Instant::now();
        pods.evict(&pod, &EvictParams::default()).await?;
        scene.ends("evicted", "Failed", "Evicted", SECONDS).await?;
        println!("evicted: Failed after {} ms", start.elapsed().as_millis());

        let pod = scene.running("eats").await?;
        let start = Instant::now();
        scene.python(&pod, "open('/tmp/eat', 'w')").await?;
        scene.ends("eats", "Failed", "OOMKilled", SECONDS).await?;
        println!(
            "out of memory: Failed {} ms after it was told to eat",
            start.elapsed().as_millis()
        );
        scene.warned("eats", "OOMKilled").await?;

        scene.waits_for("huge", "PodUnschedulable").await?;
        let said = scene.seen("huge")?;
        let said = condition(&said, "Ready").context("no condition")?["message"].to_string();
        ensure!(
            said.contains("cpu"),
            "it does not say what there is too little of: {said}"
        );
        Ok(())
    });
}
