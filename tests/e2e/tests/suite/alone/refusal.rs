//! An agent that refuses costs one more try, not its deadline.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use pilotlight_bench::connect::{Account, connect_as};
use pilotlight_bench::objects;
use pilotlight_e2e::faults::Faults;
use pilotlight_e2e::scene::alone;
use serde_json::json;

/// A sixth of the agent's deadline: nothing but the refusal itself can be so quick.
const QUICK: Duration = Duration::from_secs(5);

/// The schedulers are halted; meanwhile a pod begins to end and is assigned all the same, as another leader would
/// have done a moment before it saw that. When they go on, the agent refuses.
#[test]
fn an_agent_that_refuses_costs_one_more_try() {
    alone("refusal", |scene| async move {
        let Some(faults) = Faults::of(scene.environment) else {
            return Ok(());
        };
        scene.filled_pool(2, 2).await?;
        let ending = scene.warm_pods.objects().into_keys().next();
        let (_, ending) = ending.context("a filled pool has a WarmPod")?;
        let schedulers = faults.schedulers()?.iter().map(|f| f.pid).collect();
        let halted = faults.halt(schedulers)?;
        let sandbox = scene.create("one").await?;
        let uid = sandbox.metadata.uid.context("a created object has a UID")?;
        let pods: Api<DynamicObject> =
            objects::api(scene.client(), &scene.namespace, &objects::pods());
        // `sleep` as process 1 ignores the signal: it ends with its grace period.
        pods.delete(&ending, &DeleteParams::default().grace_period(6))
            .await?;
        let w1 = json!({ "status": {
            "phase": "Assigned", "assignedTo": uid, "sandboxName": "one", "assignedAt": "2026-01-01T00:00:00.000000Z",
        }});
        let installation = &scene.environment.installation;
        let scheduler = connect_as(installation, Account::Scheduler).await?;
        let warm_pods: Api<DynamicObject> =
            objects::api(&scheduler, &scene.namespace, &objects::warm_pods());
        warm_pods
            .patch_status(&ending, &PatchParams::default(), &Patch::Merge(&w1))
            .await?;
        let start = Instant::now();
        drop(halted);
        let pod = scene.running("one").await?;
        let took = start.elapsed();
        println!(
            "refused, and Running elsewhere after {} ms",
            took.as_millis()
        );
        ensure!(pod != ending, "published on the pod that was ending");
        ensure!(took < QUICK, "it took {took:?}");
        // The refused WarmPod goes; its successor is not part of this.
        scene.one_to_one().await
    });
}
