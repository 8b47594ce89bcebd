//! A Sandbox that no warm pod fits gets a pod of its own, by the same agents and the same publication.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::DynamicObject;
use pilotlight_bench::objects::{self, is_running, text};
use pilotlight_e2e::environment::{PATIENCE, RUNTIME};
use pilotlight_e2e::scene::{Scene, scene};
use pilotlight_e2e::state::condition;

/// Cold starts measured; the median of so many is steady on a machine that is not.
const STARTS: usize = 7;

/// One cold start: from the creation to the pod seen, and from its containers' readiness to Running, as watches show
/// it. What lies between is the cluster's scheduler, the kubelet and the container runtime.
async fn start(scene: &Scene, name: &str) -> Result<(Duration, Duration)> {
    let owned = {
        let name = name.to_owned();
        move |pod: &DynamicObject| {
            let owners = pod.metadata.owner_references.iter().flatten();
            let mut owners = owners.filter(|o| o.kind == "Sandbox" && o.name == name);
            owners.next().is_some()
        }
    };
    let is_ours = owned.clone();
    let made = scene.pods.expect_all(move |all| all.values().any(&is_ours));
    let up = scene.pods.expect_all(move |all| {
        all.values().any(|pod| {
            owned(pod) && condition(pod, "ContainersReady").is_some_and(|c| c["status"] == "True")
        })
    });
    let running = scene
        .sandboxes
        .expect(&scene.namespace, name, |o| o.is_some_and(is_running));
    scene.create(name).await?;
    let accepted = Instant::now();
    let made = made.within(PATIENCE).await.context("no pod was made")?;
    let up = up.within(PATIENCE).await.context("no pod came up")?;
    let running = running.within(PATIENCE).await.context("not Running")?;

    Ok((
        made.saturating_duration_since(accepted),
        running.saturating_duration_since(up),
    ))
}

#[test]
fn without_a_pool_every_sandbox_gets_a_pod_of_its_own_and_is_published_on_it() {
    scene("cold", |scene| async move {
        let mut shares = Vec::new();
        for i in 0..STARTS {
            let (before, after) = start(&scene, &format!("cold-{i}")).await?;
            println!(
                "cold start {i}: pod seen {} ms after the creation, Running {} ms after its containers were ready",
                before.as_millis(),
                after.as_millis()
            );
            shares.push(before + after);
        }
        shares.sort();
        let median = shares[STARTS / 2];
        // A time of a shared machine proves nothing; it is printed for people to compare with the target of 50 ms.
        println!("own share of a cold start: p50 {} ms", median.as_millis());
        ensure!(scene.cold_pods().len() == STARTS && scene.ledger().given() == 0);
        scene.one_to_one().await
    });
}

#[test]
fn a_sandbox_that_differs_from_the_pool_in_what_a_pod_fixes_gets_a_pod_of_its_own() {
    scene("differs", |scene| async move {
        scene.filled_pool(1, 1).await?;
        let mut other = objects::sandbox("other", RUNTIME);
        other.data["spec"]["securityLevel"] = "custom".into();
        other.data["spec"]["securityContext"] =
            serde_json::json!({ "runAsUser": 2000, "runAsGroup": 3000 });
        other.data["spec"]["filesystem"] =
            serde_json::json!({ "writablePaths": ["/scratch"], "readOnlyRoot": true });
        scene.create_with(scene.client(), &other).await?;
        let pod = scene.running("other").await?;
        let program = "import os
print(os.getuid(), os.getgid())
open('/scratch/a', 'w').write('x')
for path in ['/tmp/a', '/etc/a']:
    try:
        open(path, 'w')
        print('wrote', path)
    except OSError as e:
        print(path, e.errno)";
        let said = scene.python(&pod, program).await?;
        ensure!(
            said == "2000 3000\n/tmp/a 30\n/etc/a 30\n",
            "the sandbox says {said:?}"
        );
        let sandboxes = scene.sandboxes.objects();
        let sandbox = &sandboxes[&(scene.namespace.clone(), "other".to_owned())];
        let assigned = condition(sandbox, "Assigned").context("no Assigned condition")?;
        ensure!(assigned["reason"] == "PodCreated", "{assigned}");
        ensure!(text(sandbox, "/status/nodeName").is_some());
        scene.one_to_one().await
    });
}
