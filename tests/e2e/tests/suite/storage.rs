//! Persistent storage: a volume of the sandbox's own that outlives its containers, grows, and goes with it.

use anyhow::{Context, Result, ensure};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use pilotlight_bench::hub::Hub;
use pilotlight_bench::objects::{self, text};
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::inside::RESTARTABLE;
use pilotlight_e2e::scene::{Scene, scene};
use serde_json::{Value, json};

async fn claims(scene: &Scene) -> Result<Hub> {
    let kind = objects::volume_claims();
    Hub::open(objects::api(scene.client(), &scene.namespace, &kind)).await
}

/// Restarts of the sandbox's container.
fn restarts(pod: &DynamicObject) -> u64 {
    let count = pod.data.pointer("/status/containerStatuses/0/restartCount");
    count.and_then(Value::as_u64).unwrap_or(0)
}

#[test]
fn what_is_written_to_data_outlives_the_container_and_grows_and_goes_with_the_sandbox() {
    scene("storage", |scene| async move {
        if scene.environment.installation.local().is_none() {
            eprintln!("left out: the class that can grow volumes is the local cluster's");
            return Ok(());
        }
        let runtimes: Api<DynamicObject> =
            Api::all_with(scene.client().clone(), &objects::runtimes());
        let mut runtime = objects::runtime(
            &scene.namespace,
            &scene.environment.installation.python_image,
        );
        runtime.data["spec"]["command"] = json!(RESTARTABLE);
        objects::apply(&runtimes, &runtime).await?;
        let result = persistent(&scene).await;
        objects::delete(&runtimes, &scene.namespace).await?;
        result
    });
}

async fn persistent(scene: &Scene) -> Result<()> {
    let claims = claims(scene).await?;
    let storage = json!({ "persistent": true, "volumeSize": "64Mi" });
    scene
        .ask(
            "keeper",
            json!({ "runtime": scene.namespace, "storage": storage }),
        )
        .await?;
    let pod = scene.running("keeper").await?;
    let write = "open('/data/kept', 'w').write('here'); import os; print(os.stat('/data').st_gid)";
    ensure!(scene.python(&pod, write).await?.trim() == "1000");

    // The container ends; the kubelet starts it again in the same pod. What told it to end may end with it, and say so.
    let _ = scene.python(&pod, "open('/tmp/stop', 'w')").await;
    scene
        .pods
        .expect(&scene.namespace, &pod, |pod| {
            pod.is_some_and(|pod| restarts(pod) == 1 && objects::is_pod_ready(pod))
        })
        .within(PATIENCE)
        .await
        .context("the container was not started again")?;
    let read = scene
        .python(&pod, "print(open('/data/kept').read())")
        .await?;
    ensure!(read.trim() == "here", "/data/kept says {read:?}");

    // It grows with the sandbox, and never shrinks.
    let api = scene.sandbox_api();
    let resize = |size: &str| {
        let patch = json!({ "spec": { "storage": { "volumeSize": size } } });
        let api = api.clone();
        async move {
            let params = PatchParams::default();
            api.patch("keeper", &params, &Patch::Merge(&patch)).await
        }
    };
    resize("96Mi").await.context("volumeSize may grow")?;
    claims
        .expect(&scene.namespace, "data-keeper", |claim| {
            claim.is_some_and(|c| text(c, "/status/capacity/storage") == Some("96Mi"))
        })
        .within(PATIENCE)
        .await
        .context("the volume did not grow")?;
    ensure!(resize("32Mi").await.is_err(), "volumeSize shrank");

    objects::delete(&api, "keeper").await?;
    claims
        .expect(&scene.namespace, "data-keeper", |claim| claim.is_none())
        .within(PATIENCE)
        .await
        .context("the claim outlives its sandbox")?;
    Ok(())
}

#[test]
fn a_claim_that_is_somebody_elses_is_left_alone_and_the_sandbox_says_so() {
    scene("claim", |scene| async move {
        let kind = objects::volume_claims();
        let api: Api<DynamicObject> = objects::api(scene.client(), &scene.namespace, &kind);
        let foreign = objects::object(
            &kind,
            "data-late",
            json!({ "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": "1Mi" } },
            }}),
        );
        objects::create(&api, &foreign).await?;
        let storage = json!({ "persistent": true, "volumeSize": "1Mi" });
        scene.ask("late", json!({ "storage": storage })).await?;
        scene.waits_for("late", "VolumeConflict").await?;
        objects::delete(&api, "data-late").await
    });
}
