//! What a WarmPool says: how many pods it keeps, for how long, of what, and what is put into them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::DynamicObject;
use pilotlight_bench::hub::Objects;
use pilotlight_bench::objects::{self, is_ready, text};
use pilotlight_common::names::{PRELOAD_PACKAGES, PRELOAD_SCRIPT};
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::scene::{Scene, scene};
use pilotlight_e2e::stage::refused_for;
use pilotlight_e2e::state::{condition, not_ready_reason};
use serde_json::{Value, json};

/// Limits with which a package manager runs in seconds.
fn able() -> Value {
    json!({ "cpu": "500m", "memory": "128Mi" })
}

fn of_pool(warm_pod: &DynamicObject, pool: &str) -> bool {
    text(warm_pod, "/spec/poolRef/name") == Some(pool)
}

fn ready_of(all: &Objects, pool: &str) -> usize {
    let ready = all.values().filter(|o| of_pool(o, pool) && is_ready(o));
    ready.count()
}

/// Waits until a pool has exactly this many pods that can be assigned.
async fn holds(scene: &Scene, pool: &'static str, wanted: usize) -> Result<()> {
    scene
        .warm_pods
        .expect_all(move |all| ready_of(all, pool) == wanted)
        .within(PATIENCE)
        .await
        .with_context(|| format!("pool {pool} does not get to {wanted} pods"))?;
    Ok(())
}

/// Names of the WarmPods of a pool that can be assigned.
fn idle(scene: &Scene, pool: &str) -> BTreeSet<String> {
    let all = scene.warm_pods.objects().into_iter();
    all.filter(|(_, o)| of_pool(o, pool) && is_ready(o))
        .map(|((_, name), _)| name)
        .collect()
}

/// Waits until each of these WarmPods was taken out of service for this reason, or is gone after that.
async fn retired(scene: &Scene, names: &BTreeSet<String>, reason: &'static str) -> Result<()> {
    for name in names {
        let word = format!("retired:{reason}");
        scene
            .warm_pods
            .expect(&scene.namespace, name, move |o| {
                o.is_none_or(|o| text(o, "/status/assignedTo") == Some(&word))
            })
            .within(PATIENCE)
            .await
            .with_context(|| format!("{name} is not retired: {reason}"))?;
    }
    Ok(())
}

/// The fewest assignable pods that the watch shows from now on.
fn fewest(scene: &Scene) -> Arc<AtomicUsize> {
    let all = scene.warm_pods.objects().into_iter();
    let mut ready: BTreeSet<_> = all.filter(|(_, o)| is_ready(o)).map(|(k, _)| k).collect();
    let fewest = Arc::new(AtomicUsize::new(ready.len()));
    let least = Arc::clone(&fewest);
    scene.warm_pods.observe(move |key, object| {
        if object.is_some_and(is_ready) {
            ready.insert(key.clone());
        } else {
            ready.remove(key);
        }
        least.fetch_min(ready.len(), Ordering::Relaxed);
    });
    fewest
}

fn number(object: &DynamicObject, path: &str) -> Option<u64> {
    object.data.pointer(path).and_then(Value::as_u64)
}

#[test]
fn kubectl_scale_moves_a_pool_and_its_status_says_so() {
    scene("scale", |scene| async move {
        let pools = scene.watch(&objects::warm_pools()).await?;
        let says = |available: u64, assigned: u64| {
            let told = pools.expect(&scene.namespace, "pool", move |pool| {
                pool.is_some_and(|pool| {
                    let steady =
                        |type_| condition(pool, type_).is_some_and(|c| c["reason"] == "Steady");
                    number(pool, "/status/availablePods") == Some(available)
                        && number(pool, "/status/assignedPods") == Some(assigned)
                        && number(pool, "/status/pendingPods") == Some(0)
                        && condition(pool, "Ready").is_some_and(|c| c["reason"] == "PoolReady")
                        && steady("ScalingUp")
                        && steady("ScalingDown")
                })
            });
            async move {
                let told = told.within(PATIENCE).await;
                told.with_context(|| {
                    format!("the status is not {available} available, {assigned} assigned")
                })
            }
        };
        let grows = pools.expect(&scene.namespace, "pool", |pool| {
            pool.and_then(|p| condition(p, "ScalingUp"))
                .is_some_and(|c| c["status"] == "True")
        });
        scene.keep("pool", json!({ "minSize": 1 })).await?;
        says(1, 0).await?;
        grows
            .within(PATIENCE)
            .await
            .context("ScalingUp was never True")?;

        scene
            .kubectl(&["scale", "warmpool", "pool", "--replicas=3"])
            .await?;
        says(3, 0).await?;
        let key = (scene.namespace.clone(), "pool".to_owned());
        let pool = pools.objects().remove(&key).context("the pool is gone")?;
        ensure!(
            text(&pool, "/status/lastScaleTime").is_some(),
            "no lastScaleTime"
        );
        let selector = text(&pool, "/status/selector")
            .context("no selector")?
            .to_owned();
        let pods = scene
            .kubectl(&["get", "pods", "-l", &selector, "-o", "name"])
            .await?
            .out;
        ensure!(pods.lines().count() == 3, "{selector} selects {pods}");
        let scale = scene
            .kubectl(&[
                "get",
                "warmpool",
                "pool",
                "--subresource=scale",
                "-o",
                "json",
            ])
            .await?
            .out;
        let scale: Value = serde_json::from_str(&scale)?;
        ensure!(
            scale["spec"]["replicas"] == 3 && scale["status"]["replicas"] == 3,
            "{scale}"
        );

        scene.create("one").await?;
        scene.running("one").await?;
        says(3, 1).await?;
        let before = idle(&scene, "pool");
        scene
            .kubectl(&["scale", "warmpool", "pool", "--replicas=1"])
            .await?;
        says(1, 1).await?;
        let left = idle(&scene, "pool");
        let went: BTreeSet<String> = before.difference(&left).cloned().collect();
        ensure!(
            left.is_subset(&before),
            "{left:?} was made to scale down from {before:?}"
        );
        retired(&scene, &went, "ScaleDown").await?;

        let table = scene.kubectl(&["get", "warmpools"]).await?.out;
        for word in ["MIN", "AVAILABLE", "ASSIGNED", "PENDING", "PoolReady"] {
            ensure!(table.contains(word), "no {word} in\n{table}");
        }
        Ok(())
    });
}

#[test]
fn an_idle_pod_is_replaced_when_its_time_to_live_is_over_and_never_where_that_is_zero() {
    /// Seconds. Longer than the agents and watches take, so that what is measured is this.
    const TTL: u64 = 5;
    scene("ttl", |scene| async move {
        scene.keep("short", json!({ "ttl": TTL })).await?;
        scene.keep("never", json!({ "ttl": 0 })).await?;
        holds(&scene, "never", 1).await?;
        holds(&scene, "short", 1).await?;
        let start = Instant::now();
        let (short, never) = (idle(&scene, "short"), idle(&scene, "never"));
        let first = short.first().context("no WarmPod")?;
        let expired = scene.warm_pods.expect(&scene.namespace, first, |o| {
            o.is_some_and(|o| text(o, "/status/assignedTo") == Some("retired:Expired"))
        });
        let at = expired
            .within(PATIENCE)
            .await
            .context("it did not expire")?;
        let lived = at.saturating_duration_since(start);
        println!(
            "a ttl of {TTL} s: retired {} ms after it was seen ready",
            lived.as_millis()
        );
        ensure!(lived > Duration::from_secs(TTL - 1), "it lived {lived:?}");
        holds(&scene, "short", 1).await?;
        ensure!(
            idle(&scene, "never") == never,
            "a pod with a ttl of 0 was replaced"
        );
        Ok(())
    });
}

#[test]
fn a_pool_that_follows_its_use_grows_at_once_and_shrinks_when_the_use_is_over() {
    scene("autoscale", |scene| async move {
        let scaling = json!({ "enabled": true, "targetUtilization": 50, "scaleDownDelay": 0 });
        scene
            .keep(
                "pool",
                json!({ "minSize": 1, "maxSize": 5, "autoScaling": scaling }),
            )
            .await?;
        holds(&scene, "pool", 1).await?;
        for (sandboxes, idle) in [(1, 1), (2, 2)] {
            let name = format!("use-{sandboxes}");
            scene.create(&name).await?;
            scene.running(&name).await?;
            holds(&scene, "pool", idle).await?;
        }
        // Three of six pods in use would be half of them, but there are to be five at most.
        scene.create("use-3").await?;
        scene.running("use-3").await?;
        holds(&scene, "pool", 2).await?;
        let before = idle(&scene, "pool");
        for name in ["use-1", "use-2", "use-3"] {
            objects::delete(&scene.sandbox_api(), name).await?;
        }
        holds(&scene, "pool", 1).await?;
        let left = idle(&scene, "pool");
        ensure!(left.is_subset(&before), "{left:?} is none of {before:?}");
        retired(
            &scene,
            &before.difference(&left).cloned().collect(),
            "ScaleDown",
        )
        .await
    });
}

#[test]
fn a_pool_without_room_says_so_and_takes_room_again() {
    scene("max-size", |scene| async move {
        let pools = scene.watch(&objects::warm_pools()).await?;
        scene.filled_pool(2, 2).await?;
        scene.create("one").await?;
        scene.running("one").await?;
        pools
            .expect(&scene.namespace, "pool", |o| refused_for(o, "AtMaxSize"))
            .within(PATIENCE)
            .await
            .context("the pool does not say AtMaxSize")?;
        ensure!(
            scene.warm_pods.objects().len() == 2,
            "more pods than maxSize"
        );
        objects::delete(&scene.sandbox_api(), "one").await?;
        scene.ready(2).await
    });
}

#[test]
fn a_changed_profile_or_pool_replaces_the_idle_pods_by_degrees_and_leaves_the_assigned() {
    const MIN: usize = 3;
    scene("rolling", |scene| async move {
        scene.restricted().await?;
        let paths = |paths: &[&str]| json!({ "filesystemConfig": { "writablePaths": paths } });
        let reference = json!({ "name": "shared" });
        scene.profile("shared", paths(&["/var/one"])).await?;
        scene
            .keep("pool", json!({ "minSize": MIN, "profileRef": reference }))
            .await?;
        holds(&scene, "pool", MIN).await?;
        let asked = scene
            .ask("stays", json!({ "profileRef": reference }))
            .await?;
        let stays = scene.running("stays").await?;
        holds(&scene, "pool", MIN).await?;

        let fewest = fewest(&scene);
        let old = idle(&scene, "pool");
        scene.profile("shared", paths(&["/var/two"])).await?;
        retired(&scene, &old, "OldShape")
            .await
            .context("after the profile's change")?;
        holds(&scene, "pool", MIN).await?;

        let old = idle(&scene, "pool");
        let larger = json!({ "cpu": "101m", "memory": "49Mi" });
        scene
            .edit_pool("pool", json!({ "resources": larger }))
            .await?;
        retired(&scene, &old, "OldShape")
            .await
            .context("after the pool's change")?;
        holds(&scene, "pool", MIN).await?;
        let least = fewest.load(Ordering::Relaxed);
        println!(
            "while all idle pods were replaced twice, {least} of {MIN} at least could be assigned"
        );
        // A batch is one pod here.
        ensure!(least >= MIN - 1, "only {least} pods could be assigned");

        // New ones are what is asked for now, and the assigned one is what it was.
        scene
            .ask(
                "new",
                json!({ "profileRef": reference, "resources": larger }),
            )
            .await?;
        let new = scene.running("new").await?;
        ensure!(
            scene.cold_pods().is_empty(),
            "the pool has no pod of its own shape"
        );
        let mounts = |pod: &str| -> Result<String> {
            Ok(scene.pod(pod)?.data["spec"]["containers"][0]["volumeMounts"].to_string())
        };
        ensure!(mounts(&new)?.contains("/var/two") && mounts(&stays)?.contains("/var/one"));
        let now = scene.seen("stays")?;
        ensure!(now.metadata.uid == asked.metadata.uid && objects::is_running(&now));
        scene.one_to_one().await
    });
}

/// Prints the version of the package that the pool installed.
const VERSION: &str = "import pilotlight_sample; print(pilotlight_sample.__version__)";

#[test]
fn what_a_pool_preloads_is_there_before_a_sandbox_runs() {
    scene("preload", |scene| async move {
        if scene.environment.installation.local().is_none() {
            eprintln!("left out: only the local cluster's image has packages without an index");
            return Ok(());
        }
        scene.restricted().await?;
        let first = "echo first\necho a >> /workspace/order\ntouch /opt/preload/left\n";
        let second = "#!/usr/bin/python3\nimport pilotlight_sample\nprint('second saw', pilotlight_sample.__version__)\nopen('/workspace/order', 'a').write('b')\n";
        let scripts = json!([{ "name": "b-second", "content": second }, { "name": "a-first.sh", "content": first }]);
        scene
            .keep(
                "pool",
                json!({
                    "minSize": 1, "maxSize": 2, "resources": able(),
                    "preloadPackages": ["pilotlight-sample==1.0.0"], "preloadScripts": scripts,
                }),
            )
            .await?;
        // Beside it, two that cannot be: there is no such version, and a script that fails.
        let pools = scene.watch(&objects::warm_pools()).await?;
        scene
            .keep(
                "version",
                json!({ "resources": able(), "preloadPackages": ["pilotlight-sample==9.9.9"] }),
            )
            .await?;
        let fails = json!([{ "name": "fails", "content": "echo oh dear; exit 3" }]);
        scene
            .keep("script", json!({ "preloadScripts": fails }))
            .await?;

        holds(&scene, "pool", 1).await?;
        let old = idle(&scene, "pool");
        scene.ask("one", json!({ "resources": able() })).await?;
        let one = scene.running("one").await?;
        ensure!(old.contains(&one), "{one} is not the warm pod {old:?}");
        ensure!(scene.python(&one, VERSION).await?.trim() == "1.0.0");
        let order = scene
            .python(&one, "print(open('/workspace/order').read())")
            .await?;
        ensure!(order.trim() == "a\nb", "the scripts left {order:?}");
        let write = "import os
try: open('/opt/preload/more', 'w')
except OSError as error: print(os.path.exists('/opt/preload/left'), error.errno)";
        ensure!(scene.python(&one, write).await?.trim() == "True 30");
        for (number, said) in ["first", "second saw 1.0.0"].into_iter().enumerate() {
            let log = scene
                .kubectl(&["logs", &one, "-c", &format!("{PRELOAD_SCRIPT}{number}")])
                .await?
                .out;
            ensure!(log.trim() == said, "script {number} said {log:?}");
        }

        for (pool, container) in [
            ("version", PRELOAD_PACKAGES.to_owned()),
            ("script", format!("{PRELOAD_SCRIPT}0")),
        ] {
            pools
                .expect(&scene.namespace, pool, |o| refused_for(o, "PreloadFailed"))
                .within(PATIENCE)
                .await
                .with_context(|| format!("pool {pool} does not say PreloadFailed"))?;
            let objects = pools.objects();
            let broken = &objects[&(scene.namespace.clone(), pool.to_owned())];
            let said = condition(broken, "Ready")
                .map(|c| c["message"].to_string())
                .unwrap_or_default();
            ensure!(said.contains(&container), "{pool}: {said}");
            scene.warned(pool, "PreloadFailed").await?;
            objects::delete(&scene.pool_api(), pool).await?;
        }

        // Another version is for the pods to come; the sandbox keeps what it has.
        holds(&scene, "pool", 1).await?;
        let old = idle(&scene, "pool");
        scene
            .edit_pool(
                "pool",
                json!({ "preloadPackages": ["pilotlight-sample==2.0.0"], "preloadScripts": [] }),
            )
            .await?;
        retired(&scene, &old, "OldPreload").await?;
        holds(&scene, "pool", 1).await?;
        scene.ask("two", json!({ "resources": able() })).await?;
        let two = scene.running("two").await?;
        ensure!(scene.python(&two, VERSION).await?.trim() == "2.0.0");
        ensure!(scene.python(&one, VERSION).await?.trim() == "1.0.0");
        scene.one_to_one().await
    });
}

#[test]
fn the_last_pod_of_a_deleted_pool_goes_with_its_sandbox() {
    scene("pool-end", |scene| async move {
        scene.filled_pool(2, 3).await?;
        scene.create("one").await?;
        let pod = scene.running("one").await?;
        let start = Instant::now();
        objects::delete(&scene.pool_api(), "pool").await?;
        let only = pod.clone();
        scene
            .warm_pods
            .expect_all(move |all| all.len() == 1 && all.keys().all(|key| key.1 == only))
            .within(PATIENCE)
            .await
            .context("idle WarmPods outlive their pool")?;
        println!(
            "idle WarmPods gone {} ms after their pool",
            start.elapsed().as_millis()
        );
        ensure!(
            not_ready_reason(&scene.seen("one")?).is_none(),
            "the sandbox is not Ready any more"
        );
        objects::delete(&scene.sandbox_api(), "one").await?;
        for hub in [&scene.warm_pods, &scene.pods] {
            hub.expect_all(Objects::is_empty).within(PATIENCE).await?;
        }
        Ok(())
    });
}
