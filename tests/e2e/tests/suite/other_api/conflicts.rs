//! Pods, Services and claims of a Sandbox's names that are not its own.

use anyhow::{Context, ensure};
use pilotlight_bench::objects;
use pilotlight_common::agents::names::ADOPTABLE_LABEL;
use pilotlight_e2e::agents::{Agents, beta, claims, services};
use pilotlight_e2e::scene::scene;
use serde_json::json;

#[test]
#[allow(
    clippy::too_many_lines,
    reason = "one object of each kind in the way of each"
)]
fn what_is_somebody_elses_is_left_alone_and_what_may_be_taken_is_taken() {
    scene("agents-others", |scene| async move {
        let agents = Agents::of(&scene).await?;
        let idle = agents.idle();
        let pods = objects::pods();
        let make =
            |kind, name: &'static str, labels: serde_json::Value, spec: serde_json::Value| {
                let mut object = objects::object(&kind, name, json!({ "spec": spec }));
                object.metadata.labels = serde_json::from_value(labels).ok();
                let api = agents.api(&kind);
                async move { objects::create(&api, &object).await }
            };
        let adoptable = json!({ ADOPTABLE_LABEL: "true" });
        let headless = json!({ "clusterIP": "None", "selector": { "app": "x" } });
        make(pods.clone(), "pod", json!({}), idle.clone()).await?;
        make(services(), "service", json!({}), headless.clone()).await?;
        let claim = json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "64Mi" } } });
        make(claims(), "data-claim", json!({}), claim.clone()).await?;
        make(pods.clone(), "taken", adoptable.clone(), idle.clone()).await?;
        make(services(), "taken", adoptable.clone(), headless).await?;
        make(
            services(),
            "address",
            adoptable,
            json!({ "selector": { "app": "x" }, "ports": [{ "port": 80 }] }),
        )
        .await?;
        let spec = json!({ "podTemplate": { "spec": idle }, "service": true });
        for name in ["pod", "service", "taken", "address"] {
            agents.create(name, spec.clone()).await?;
        }
        let mut with_claim = spec.clone();
        with_claim["volumeClaimTemplates"] =
            json!([{ "metadata": { "name": "data" }, "spec": claim }]);
        agents.create("claim", with_claim).await?;
        for (name, kind, full) in [
            ("pod", "pod", "pod"),
            ("service", "service", "service"),
            ("claim", "PVC", "data-claim"),
        ] {
            let words =
                format!("False ReconcilerError Error seen: cannot adopt unowned {kind} {full:?}");
            agents.says(name, "Ready", &words).await?;
        }
        agents
            .says(
                "address",
                "Ready",
                "False ReconcilerError Error seen: cannot adopt service \"address\": ClusterIP is",
            )
            .await?;
        // Taken, and what it selects by is the Sandbox's now.
        agents
            .says(
                "taken",
                "Ready",
                "True DependenciesReady Pod is Ready; Service Exists",
            )
            .await?;
        let uid = agents.seen("taken")?.metadata.uid.context("a UID")?;
        let pod = agents.seen_pod("taken")?;
        let service = agents.api(&services()).get("taken").await?;
        for object in [&pod, &service] {
            let owners = object.metadata.owner_references.clone().unwrap_or_default();
            ensure!(owners.iter().any(|owner| owner.uid == uid), "{owners:?}");
        }
        ensure!(service.data["spec"]["selector"].get("app").is_none());
        // Suspended, it does not delete the pod that is in its way; without that, it gets its own.
        agents
            .edit(
                &beta(),
                "pod",
                json!({ "spec": { "operatingMode": "Suspended" } }),
            )
            .await?;
        agents
            .says(
                "pod",
                "Suspended",
                "False PodNotOwned Refused to delete pod because it is not owned by this sandbox",
            )
            .await?;
        let foreign = agents.pod_uid("pod")?;
        agents
            .edit(
                &beta(),
                "pod",
                json!({ "spec": { "operatingMode": "Running" } }),
            )
            .await?;
        scene
            .kubectl(&["delete", "pod", "pod", "--wait=false"])
            .await?;
        agents.another_pod("pod", &foreign).await?;
        agents.ready("pod").await?;
        scene.kubectl(&["delete", "service", "service"]).await?;
        agents
            .says(
                "service",
                "Ready",
                "True DependenciesReady Pod is Ready; Service Exists",
            )
            .await?;
        agents.end().await
    });
}

#[test]
fn what_cannot_be_made_is_said_and_made_once_it_can_be() {
    scene("agents-refused", |scene| async move {
        let agents = Agents::of(&scene).await?;
        let quota = "quota";
        scene
            .kubectl(&["create", "quota", quota, "--hard=pods=0"])
            .await?;
        agents
            .create("a", json!({ "podTemplate": { "spec": agents.idle() } }))
            .await?;
        agents
            .says("a", "Ready", "False ReconcilerError Error seen: ")
            .await?;
        scene.warned("a", "FailedCreate").await?;
        // One that poses as a pod of the other API is refused, whoever makes it.
        let posing = json!({ "labels": { "app.kubernetes.io/managed-by": "pilotlight" } });
        agents
            .create(
                "posing",
                json!({ "podTemplate": { "metadata": posing, "spec": agents.idle() } }),
            )
            .await?;
        agents
            .says("posing", "Ready", "False ReconcilerError Error seen: ")
            .await?;
        scene.kubectl(&["delete", "quota", quota]).await?;
        agents.ready("a").await?;
        ensure!(agents.seen_pod("posing").is_err(), "it got its pod");
        agents.end().await
    });
}
