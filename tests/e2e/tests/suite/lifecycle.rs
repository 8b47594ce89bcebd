//! Ends: of sandboxes, in the middle of their assignment too, and of pools.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Api, DynamicObject};
use pilotlight_bench::objects::{self, is_running, text};
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::scene::{Scene, scene};
use serde_json::json;

async fn gone(scene: &Scene, pod: &str) -> Result<()> {
    for (hub, what) in [(&scene.warm_pods, "WarmPod"), (&scene.pods, "pod")] {
        hub.expect(&scene.namespace, pod, |o| o.is_none())
            .within(PATIENCE)
            .await
            .with_context(|| format!("the {what} of the deleted sandbox is still there"))?;
    }
    Ok(())
}

#[test]
fn deletion_frees_pod_and_warm_pod_and_the_pool_refills() {
    scene("deletion", |scene| async move {
        scene.filled_pool(3, 3).await?;
        scene.create("one").await?;
        let pod = scene.running("one").await?;
        objects::delete(&scene.sandbox_api(), "one").await?;
        gone(&scene, &pod).await?;
        scene.ready(3).await
    });
}

#[test]
fn a_sandbox_deleted_in_the_middle_of_its_assignment_leaves_nothing_behind() {
    const N: u32 = 24;
    scene("midway", |scene| async move {
        scene.filled_pool(8, 0).await?;
        for round in 0..N {
            let name = format!("midway-{round}");
            scene.create(&name).await?;
            match round % 3 {
                // As soon as a WarmPod is seen assigned to it, and the agent is arming it; or, where the pool is
                // empty by now, as soon as its own pod is there.
                0 => {
                    let (assigned, owned) = (name.clone(), name.clone());
                    let warm = scene.warm_pods.expect_all(move |all| {
                        let of = |o: &DynamicObject| {
                            text(o, "/status/sandboxName") == Some(assigned.as_str())
                        };
                        all.values().any(of)
                    });
                    let cold = scene.pods.expect_all(move |all| {
                        let owners = |o: &DynamicObject| {
                            let owners = o.metadata.owner_references.clone().unwrap_or_default();
                            owners.iter().any(|owner| owner.name == owned)
                        };
                        all.values().any(owners)
                    });
                    tokio::select! {
                        seen = warm.within(PATIENCE) => seen?,
                        seen = cold.within(PATIENCE) => seen?,
                    };
                }
                // At once: mostly before W1.
                1 => {}
                // Somewhere in between, at another moment each time.
                _ => tokio::time::sleep(Duration::from_millis(u64::from(round))).await,
            }
            objects::delete(&scene.sandbox_api(), &name).await?;
        }
        scene
            .warm_pods
            .expect_all(|all| {
                !all.values()
                    .any(|o| text(o, "/status/assignedTo").is_some())
            })
            .within(PATIENCE)
            .await
            .context("assigned WarmPods without a sandbox are left")?;
        scene.ready(8).await?;
        // The pool works on.
        scene.create("after").await?;
        scene.running("after").await?;
        scene.one_to_one().await
    });
}

#[test]
fn a_pool_deleted_while_sandboxes_run_on_its_pods_ends_none_of_them() {
    scene("pool-deleted", |scene| async move {
        scene.filled_pool(4, 4).await?;
        let mut pods = Vec::new();
        for name in ["one", "two"] {
            scene.create(name).await?;
            pods.push(scene.running(name).await?);
        }
        objects::delete(&scene.pool_api(), "pool").await?;
        scene
            .warm_pods
            .expect_all(|all| {
                all.values().all(|o| {
                    text(o, "/status/assignedTo").is_some_and(|to| !to.starts_with("retired:"))
                }) && all.len() == 2
            })
            .within(PATIENCE)
            .await
            .context(
                "the idle WarmPods of the deleted pool are still there, or the assigned are not",
            )?;
        for (name, pod) in ["one", "two"].into_iter().zip(&pods) {
            let objects = scene.sandboxes.objects();
            let sandbox = objects.get(&(scene.namespace.clone(), name.to_owned()));
            ensure!(sandbox.is_some_and(is_running), "{name} is {sandbox:?}");
            ensure!(scene.python(pod, "print('here')").await?.trim() == "here");
        }
        scene.one_to_one().await
    });
}

#[test]
fn a_sandbox_that_finds_no_warm_pod_gets_one_of_its_own() {
    scene("waiting", |scene| async move {
        scene.create("early").await?;
        let early = scene.running("early").await?;
        scene.filled_pool(1, 1).await?;
        scene.create("warm").await?;
        let warm = scene.running("warm").await?;
        // The pool is at its bound.
        scene.create("late").await?;
        let late = scene.running("late").await?;
        let cold: Vec<String> = scene.cold_pods().into_values().collect();
        ensure!(
            cold.contains(&early) && cold.contains(&late) && !cold.contains(&warm),
            "made for one sandbox: {cold:?}; early {early}, warm {warm}, late {late}"
        );
        scene.one_to_one().await
    });
}

#[test]
fn a_sandbox_ends_at_its_timeout_and_its_pod_with_it() {
    scene("timeout", |scene| async move {
        scene.filled_pool(1, 1).await?;
        scene.ask("short", json!({ "timeout": 2 })).await?;
        let pod = scene.running("short").await?;
        scene
            .sandboxes
            .expect(&scene.namespace, "short", |o| {
                o.is_some_and(|o| text(o, "/status/phase") == Some("Terminated"))
            })
            .within(PATIENCE)
            .await?;
        gone(&scene, &pod).await
    });
}

/// A pod that is deleted under a running sandbox: the sandbox fails and says why.
#[test]
fn a_sandbox_whose_pod_is_taken_away_fails_with_a_reason() {
    scene("pod-lost", |scene| async move {
        scene.filled_pool(1, 1).await?;
        scene.create("one").await?;
        let pod = scene.running("one").await?;
        let pods: Api<DynamicObject> =
            objects::api(scene.client(), &scene.namespace, &objects::pods());
        objects::delete(&pods, &pod).await?;
        scene
            .sandboxes
            .expect(&scene.namespace, "one", |o| {
                o.is_some_and(|o| text(o, "/status/phase") == Some("Failed"))
            })
            .within(PATIENCE)
            .await?;
        scene.waits_for("one", "PodDeleted").await
    });
}
