//! Whether a RuntimeEnvironment works, who uses it, and what becomes of them when it does not or is gone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use kube::api::DynamicObject;
use pilotlight_bench::hub::{Hub, Objects};
use pilotlight_bench::objects::{self, text};
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::scene::{Scene, scene};
use pilotlight_e2e::state::condition;
use serde_json::{Value, json};

/// A command that stays up and is no other runtime's, so that no other runtime's pods show that it works.
fn own_command(scene: &Scene, word: &str) -> Value {
    json!([
        "/bin/sh",
        "-c",
        format!("exec sleep infinity # {word} of {}", scene.namespace)
    ])
}

/// Waits until a runtime's condition has this status and reason; returns the runtime.
async fn says(
    hub: &Hub,
    runtime: &str,
    type_: &'static str,
    status: &'static str,
    reason: &'static str,
) -> Result<DynamicObject> {
    hub.expect("", runtime, move |o| {
        let condition = o.and_then(|o| condition(o, type_));
        condition.is_some_and(|c| c["status"] == status && c["reason"] == reason)
    })
    .within(PATIENCE)
    .await
    .with_context(|| format!("{runtime} does not say {type_} {status} {reason}"))?;
    let key = (String::new(), runtime.to_owned());
    hub.objects().remove(&key).context("the runtime is gone")
}

/// Whether a pod was made to show that this runtime works.
fn shows(pod: &DynamicObject, runtime: &str) -> bool {
    let owners = pod.metadata.owner_references.iter().flatten();
    let mut owners = owners.filter(|o| o.kind == "RuntimeEnvironment" && o.name == runtime);
    owners.next().is_some()
}

#[test]
fn a_runtime_is_shown_to_work_by_a_pod_of_its_users_or_by_one_made_for_that() {
    scene("validated", |scene| async move {
        let runtimes = Hub::open(scene.runtime_api()).await?;
        let system = &scene.environment.installation.namespace;
        let pods = Hub::open(objects::api(scene.client(), system, &objects::pods())).await?;
        let made: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let alone_name = format!("{}-alone", scene.namespace);
        let (seen, name) = (Arc::clone(&made), alone_name.clone());
        pods.observe(move |key, pod| {
            if pod.is_some_and(|pod| shows(pod, &name)) {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.insert(key.1.clone());
            }
        });

        let alone = scene
            .runtime("alone", json!({
                "command": own_command(&scene, "alone"), "version": scene.namespace, "tags": ["small", "quick"],
            }))
            .await?;
        let used = scene
            .runtime("used", json!({ "command": own_command(&scene, "used") }))
            .await?;
        scene.ask("user", json!({ "runtime": used })).await?;
        scene.running("user").await?;
        for runtime in [&used, &alone] {
            let shown = says(&runtimes, runtime, "Available", "True", "PodBecameReady").await?;
            ensure!(
                shown.data["status"]["available"] == true,
                "{}",
                shown.data["status"]
            );
            ensure!(text(&shown, "/status/lastValidated").is_some(), "no time");
        }
        let in_use = says(&runtimes, &used, "InUse", "True", "Used").await?;
        let message = condition(&in_use, "InUse").map(|c| c["message"].to_string());
        ensure!(
            message.is_some_and(|m| m.contains("1 Sandbox")),
            "{}",
            in_use.data["status"]
        );
        says(&runtimes, &alone, "InUse", "False", "Unused").await?;
        let pods_for_alone = made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ensure!(
            pods_for_alone.len() == 1,
            "made to show that it works: {pods_for_alone:?}"
        );
        let gone = {
            let name = alone_name.clone();
            move |all: &Objects| !all.values().any(|pod| shows(pod, &name))
        };
        pods.expect_all(gone)
            .within(PATIENCE)
            .await
            .context("its validation pod stays")?;

        // What is shown is shown of one image and command.
        let before = runtimes.objects();
        let hash = |all: &Objects| {
            let runtime = all.get(&(String::new(), alone_name.clone()))?;
            text(runtime, "/status/imageHash").map(str::to_owned)
        };
        let old = hash(&before).context("no imageHash")?;
        scene
            .runtime("alone", json!({
                "command": own_command(&scene, "changed"), "version": scene.namespace, "tags": ["small", "quick"],
            }))
            .await?;
        runtimes
            .expect("", &alone, move |o| {
                o.is_some_and(|o| {
                    text(o, "/status/imageHash").is_some_and(|new| new != old)
                        && o.data["status"]["available"] == true
                })
            })
            .within(PATIENCE)
            .await
            .context("it was not validated again after its change")?;

        chosen_by_their_fields(&scene, &alone).await?;
        deleted_in_use(&scene, &used).await
    });
}

/// `kubectl get` shows and selects.
async fn chosen_by_their_fields(scene: &Scene, alone: &str) -> Result<()> {
    let selector = format!("spec.language=python,spec.version={}", scene.namespace);
    let found = scene
        .kubectl(&["get", "rte", "--field-selector", &selector, "-o", "name"])
        .await?
        .out;
    ensure!(
        found.lines().count() == 1 && found.contains(alone),
        "{selector} selects {found}"
    );
    let table = scene
        .kubectl(&["get", "rte", alone, "-o", "wide"])
        .await?
        .out;
    let image = &scene.environment.installation.python_image;
    for word in [
        "python",
        &scene.namespace,
        "true",
        "PodBecameReady",
        "quick",
        image,
    ] {
        ensure!(table.contains(word), "no {word} in\n{table}");
    }
    Ok(())
}

/// Deleting is never blocked, but whoever does it is warned; what runs goes on.
async fn deleted_in_use(scene: &Scene, used: &str) -> Result<()> {
    let said = scene.kubectl(&["delete", "rte", used]).await?;
    ensure!(
        said.err.contains("Warning") && said.err.contains("is used by"),
        "kubectl says {}",
        said.err
    );
    scene.warned("user", "RuntimeDeleted").await?;
    ensure!(
        objects::is_running(&scene.seen("user")?),
        "the sandbox does not run on"
    );
    scene.ask("late", json!({ "runtime": used })).await?;
    scene.refused("late", "RuntimeNotFound").await
}

#[test]
fn an_image_that_cannot_be_had_is_said_of_its_runtime_and_its_sandboxes_and_harms_no_other() {
    scene("no-image", |scene| async move {
        scene.filled_pool(2, 0).await?;
        let runtimes = Hub::open(scene.runtime_api()).await?;
        let missing = scene
            .runtime("missing", json!({ "image": "127.0.0.1:1/no-such-image:1" }))
            .await?;
        scene.ask("waiting", json!({ "runtime": missing })).await?;
        scene.waits_for("waiting", "ImagePullFailed").await?;
        scene.others_are_served("other").await?;
        let shown = says(&runtimes, &missing, "Available", "False", "ImagePullFailed").await?;
        ensure!(
            shown.data["status"]["available"] == false,
            "{}",
            shown.data["status"]
        );
        let table = scene.kubectl(&["get", "sb", "waiting"]).await?.out;
        ensure!(table.contains("ImagePullFailed"), "{table}");
        scene.others_are_served("another").await
    });
}
