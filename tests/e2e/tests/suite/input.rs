//! Bad input is refused with a reason, and hurts nobody else.

use anyhow::{Context, ensure};
use kube::api::{Api, DynamicObject};
use pilotlight_bench::hub::Hub;
use pilotlight_bench::objects;
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::scene::scene;
use pilotlight_e2e::state::{condition, not_ready_reason};
use serde_json::json;

#[test]
fn an_unknown_runtime_is_refused_aloud_and_served_once_it_exists() {
    scene("runtime", |scene| async move {
        scene.filled_pool(3, 0).await?;
        let late = format!("{}-late", scene.namespace);
        let waiting = scene.sandbox("waiting", json!({ "runtime": late }));
        scene.create_with(scene.client(), &waiting).await?;
        scene.waits_for("waiting", "RuntimeNotFound").await?;
        let all = scene.sandboxes.objects();
        let sandbox = &all[&(scene.namespace.clone(), "waiting".to_owned())];
        let accepted = condition(sandbox, "Accepted").context("no Accepted condition")?;
        ensure!(
            accepted["status"] == "False" && accepted["reason"] == "RuntimeNotFound",
            "{accepted}"
        );
        scene.warned("waiting", "RuntimeNotFound").await?;
        scene.others_are_served("other").await?;

        // Of the same image, and so of the same shape as the pool's pods.
        let runtimes: Api<DynamicObject> =
            Api::all_with(scene.client().clone(), &objects::runtimes());
        let image = scene.environment.installation.python_image.clone();
        objects::apply(&runtimes, &objects::runtime(&late, &image)).await?;
        let served = scene.running("waiting").await;
        objects::delete(&runtimes, &late).await?;
        served.map(drop)
    });
}

#[test]
fn a_malformed_quantity_is_refused_at_admission() {
    scene("quantity", |scene| async move {
        let mut bad = scene.sandbox("bad", json!({}));
        bad.data["spec"]["resources"]["cpu"] = "a lot".into();
        let refused = scene.create_with(scene.client(), &bad).await;
        let error = refused.err().context("the API server took it")?;
        ensure!(
            format!("{error:#}").contains("spec.resources.cpu"),
            "{error:#}"
        );
        Ok(())
    });
}

/// The schema's pattern lets it through; no machine has as much.
#[test]
fn an_impossible_quantity_is_refused_with_a_condition() {
    scene("impossible", |scene| async move {
        scene.filled_pool(1, 0).await?;
        let mut bad = scene.sandbox("bad", json!({}));
        bad.data["spec"]["resources"]["memory"] = "99999999999999999999Gi".into();
        scene.create_with(scene.client(), &bad).await?;
        scene.waits_for("bad", "InvalidResources").await?;
        scene.warned("bad", "InvalidResources").await?;
        scene.others_are_served("other").await
    });
}

#[test]
fn a_pool_with_min_above_max_is_refused_aloud_and_no_other_pool_suffers() {
    scene("bounds", |scene| async move {
        scene.filled_pool(2, 0).await?;
        scene
            .keep("bad", json!({ "minSize": 5, "maxSize": 2 }))
            .await?;
        let pools = Hub::open(scene.pool_api()).await?;
        pools
            .expect(&scene.namespace, "bad", |o| {
                o.is_some_and(|o| not_ready_reason(o) == Some("InvalidPoolSize"))
            })
            .within(PATIENCE)
            .await
            .context("the pool does not say InvalidPoolSize")?;
        scene.warned("bad", "InvalidPoolSize").await?;
        scene.others_are_served("other").await
    });
}
