//! The controller of `agents.x-k8s.io` under faults: its leader ends, and one replica is all there is.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kube::api::{Api, ApiResource, DynamicObject};
use pilotlight_bench::hub::Hub;
use pilotlight_bench::objects::text;
use pilotlight_e2e::agents::{Agents, alpha, beta};
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::faults::Faults;
use pilotlight_e2e::scene::{Scene, alone};
use serde_json::json;

const LEASE: &str = "pilotlight-agents";

/// Who leads, once it is somebody else than `before`.
async fn leader(leases: &Hub, scene: &Scene, before: &str) -> Result<String> {
    let namespace = &scene.environment.installation.namespace;
    let other = before.to_owned();
    let holder = |lease: &DynamicObject| text(lease, "/spec/holderIdentity").map(str::to_owned);
    leases
        .expect(namespace, LEASE, move |lease| {
            let holder = lease.and_then(holder);
            holder.is_some_and(|holder| !holder.is_empty() && holder != other)
        })
        .within(PATIENCE)
        .await
        .context("no other replica of the controller leads")?;
    let key = (namespace.clone(), LEASE.to_owned());
    let leases = leases.objects();
    leases.get(&key).and_then(holder).context("nobody leads")
}

#[test]
fn a_controller_that_ends_or_hangs_is_followed_by_another_and_conversion_goes_on() {
    alone("agents-failover", |scene| async move {
        let Some(faults) = Faults::of(scene.environment) else {
            return Ok(());
        };
        let agents = Agents::of(&scene).await?;
        let kind = ApiResource::erase::<k8s_openapi::api::coordination::v1::Lease>(&());
        let system = &scene.environment.installation.namespace;
        let leases = Hub::open(Api::namespaced_with(scene.client().clone(), system, &kind)).await?;
        let first = leader(&leases, &scene, "").await?;
        let controllers = faults.controllers()?;
        ensure!(controllers.len() == 2, "{controllers:?}");
        let pid_of = |name: &str| {
            let found = controllers.iter().find(|found| found.host_name == name);
            found.map(|found| found.pid).context("its process")
        };
        let spec = json!({ "podTemplate": { "spec": agents.idle() } });
        agents.create("before", spec.clone()).await?;
        agents.ready("before").await?;
        // The leader hangs with half of its work done: it holds its lease until that is over.
        let halted = faults.halt(vec![pid_of(&first)?])?;
        let since = Instant::now();
        agents.create("during", spec.clone()).await?;
        let second = leader(&leases, &scene, &first).await?;
        println!(
            "agents failover: another leads after {} ms",
            since.elapsed().as_millis()
        );
        agents.ready("during").await?;
        let uid = agents.pod_uid("during")?;
        // The other replica alone converts, though half of the API server's requests would go to the one that hangs.
        for replicas in [0, 1] {
            let patch = json!({ "spec": { "replicas": replicas } });
            convert(&agents, patch).await?;
        }
        drop(halted);
        // Back from its pause, it does nothing that the other does already.
        agents.ready("before").await?;
        ensure!(agents.pod_uid("during")? == uid, "its pod was replaced");
        faults.kill([pid_of(&second)?])?;
        agents.create("after", spec).await?;
        agents.ready("after").await?;
        ensure!(agents.pods.objects().len() == 3, "a pod for each");
        agents.end().await?;
        faults.healed().await
    });
}

/// Edits through the first version until that works: a connection to the replica that hangs has to time out first, as the API server does not
/// know of it.
async fn convert(agents: &Agents, patch: serde_json::Value) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut tries = 0;
    loop {
        tries += 1;
        match agents.edit(&alpha(), "before", patch.clone()).await {
            Ok(_) => break,
            Err(error) => ensure!(Instant::now() < until, "no conversion: {error}"),
        }
    }
    println!("agents failover: converted at try {tries}");
    let suspended = patch["spec"]["replicas"] == 0;
    let wanted = if suspended { "True" } else { "False" };
    agents.says("before", "Suspended", wanted).await?;
    if !suspended {
        let seen = agents.api(&beta()).get("before").await?;
        ensure!(text(&seen, "/spec/operatingMode") == Some("Running"));
    }
    Ok(())
}
