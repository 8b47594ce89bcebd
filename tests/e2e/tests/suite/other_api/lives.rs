//! What becomes of a Sandbox over time: pods that go, end, fail or are stuck, edits, and its end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use pilotlight_bench::objects;
use pilotlight_common::agents::names::RECREATE_FAILED_POD;
use pilotlight_e2e::agents::{Agents, beta, said, services, status};
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::scene::scene;
use serde_json::{Value, json};

#[test]
fn a_pod_that_goes_is_made_again_and_one_that_is_stuck_is_waited_for() {
    scene("agents-pods", |scene| async move {
        let agents = Agents::of(&scene).await?;
        let spec = json!({ "podTemplate": { "spec": agents.idle() } });
        agents.create("a", spec).await?;
        agents.ready("a").await?;
        let sandbox = agents.seen("a")?;
        let pod = agents.seen_pod("a")?;
        let ip = pod.data.pointer("/status/podIP");
        ensure!(
            sandbox.data.pointer("/status/podIPs/0") == ip,
            "{:?}",
            sandbox.data
        );
        ensure!(
            status(&sandbox, "nodeName")
                == pod.data.pointer("/spec/nodeName").and_then(Value::as_str)
        );
        ensure!(said(&sandbox, "PodScheduled") == "True PodScheduled ");
        used(&agents).await?;
        // Deleted by somebody.
        let uid = agents.pod_uid("a")?;
        scene
            .kubectl(&["delete", "pod", "a", "--wait=false"])
            .await?;
        agents.another_pod("a", &uid).await?;
        agents.ready("a").await?;
        // Stuck in its end: something holds it.
        let pods: Api<Pod> = Api::namespaced(scene.client().clone(), &scene.namespace);
        let hold = |finalizers: Value| {
            let patch = Patch::Merge(json!({ "metadata": { "finalizers": finalizers } }));
            let pods = pods.clone();
            async move { pods.patch("a", &PatchParams::default(), &patch).await }
        };
        hold(json!(["e2e.llmsafespace.dev/held"])).await?;
        agents
            .edit(
                &beta(),
                "a",
                json!({ "spec": { "operatingMode": "Suspended" } }),
            )
            .await?;
        agents
            .says(
                "a",
                "Suspended",
                "False PodTerminating Pod is terminating. Sandbox is suspending",
            )
            .await?;
        agents
            .says("a", "Ready", "False SandboxSuspended Sandbox is suspending")
            .await?;
        let uid = agents.pod_uid("a")?;
        // Wanted again while the old one is still there.
        agents
            .edit(
                &beta(),
                "a",
                json!({ "spec": { "operatingMode": "Running" } }),
            )
            .await?;
        agents.says("a", "Suspended", "False NotSuspended").await?;
        hold(json!([])).await?;
        agents.another_pod("a", &uid).await?;
        agents.ready("a").await?;
        agents.end().await
    });
}

/// What the pods use is told by the agents of their nodes, soon.
async fn used(agents: &Agents) -> Result<()> {
    let system = &agents.scene.environment.installation.namespace;
    let pods: Api<Pod> = Api::namespaced(agents.scene.client().clone(), system);
    let of_agents = ListParams::default().labels("app.kubernetes.io/component=node-agent");
    let until = Instant::now() + PATIENCE;
    loop {
        let mut bytes = 0;
        for pod in pods.list(&of_agents).await?.items {
            let name = pod.metadata.name.unwrap_or_default();
            let path = format!("/api/v1/namespaces/{system}/pods/{name}:9090/proxy/metrics");
            let request = http::Request::get(path).body(Vec::new())?;
            let metrics = agents.scene.client().request_text(request).await?;
            let told = metrics.lines().find_map(|line| {
                line.strip_prefix("pilotlight_agent_agents_memory_working_set_bytes ")
            });
            bytes += told.context("no such metric")?.parse::<u64>()?;
        }
        if bytes > 1 << 20 {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the agents tell of {bytes} bytes");
        // A metric is there to be asked for again; samples are taken every ten seconds.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[test]
fn a_pod_that_ends_is_reported_and_a_failed_one_replaced_where_that_is_asked_for() {
    scene("agents-ends", |scene| async move {
        let agents = Agents::of(&scene).await?;
        let once = |program: &str| {
            let mut pod = agents.pod(program);
            pod["restartPolicy"] = "Never".into();
            json!({ "podTemplate": { "spec": pod } })
        };
        agents.create("good", once("pass")).await?;
        agents.create("bad", once("raise SystemExit(3)")).await?;
        agents
            .says(
                "good",
                "Finished",
                "True PodSucceeded Pod completed successfully",
            )
            .await?;
        agents
            .says(
                "good",
                "Ready",
                "False PodSucceeded Pod completed successfully",
            )
            .await?;
        agents
            .says("bad", "Finished", "True PodFailed Pod failed")
            .await?;
        agents
            .says("bad", "Ready", "False PodFailed Pod failed")
            .await?;
        let (good, bad) = (agents.pod_uid("good")?, agents.pod_uid("bad")?);
        let annotation = json!({ "metadata": { "annotations": { RECREATE_FAILED_POD: "true" } } });
        for name in ["good", "bad"] {
            agents.edit(&beta(), name, annotation.clone()).await?;
        }
        agents.another_pod("bad", &bad).await?;
        agents.says("bad", "Finished", "True PodFailed").await?;
        ensure!(
            agents.pod_uid("good")? == good,
            "one that succeeded is done"
        );
        agents.end().await
    });
}

#[test]
fn edits_reach_the_pod_and_its_service_as_far_as_they_can() {
    scene("agents-edits", |scene| async move {
        let agents = Agents::of(&scene).await?;
        let mut pod = agents.idle();
        pod["containers"][0]["ports"] = json!([{ "containerPort": 8080 }]);
        let metadata =
            json!({ "labels": { "keep": "1", "go": "1" }, "annotations": { "note": "1" } });
        let spec = json!({ "podTemplate": { "metadata": metadata, "spec": pod }, "service": true });
        agents.create("a", spec).await?;
        agents
            .says(
                "a",
                "Ready",
                "True DependenciesReady Pod is Ready; Service Exists",
            )
            .await?;
        let sandbox = agents.seen("a")?;
        let domain = format!("a.{}.svc.cluster.local", scene.namespace);
        ensure!(status(&sandbox, "serviceFQDN") == Some(domain.as_str()));
        ensure!(status(&sandbox, "service") == Some("a"));
        let service = agents.api(&services()).get("a").await?;
        let port = &service.data["spec"]["ports"][0];
        ensure!(
            port["name"] == "p-8080-tcp" && port["port"] == 8080,
            "{port}"
        );
        ensure!(service.data["spec"]["clusterIP"] == "None");
        let uid = agents.pod_uid("a")?;
        let patch = json!({ "spec": { "podTemplate": {
            "metadata": { "labels": { "keep": "2", "go": null, "new": "1" } },
            "spec": { "containers": [{ "name": "main", "image": "of.the/next:pod", "ports": [{ "containerPort": 9090 }] }] },
        } } });
        agents.edit(&beta(), "a", patch).await?;
        agents
            .pods
            .expect(&scene.namespace, "a", |pod| {
                pod.is_some_and(|pod| {
                    let labels = pod.metadata.labels.clone().unwrap_or_default();
                    labels.get("keep").is_some_and(|v| v == "2")
                        && labels.contains_key("new")
                        && !labels.contains_key("go")
                })
            })
            .within(PATIENCE)
            .await
            .context("labels of the template do not reach the pod")?;
        ensure!(agents.pod_uid("a")? == uid, "the pod is the same one");
        let watch = scene.watch(&services()).await?;
        watch
            .expect(&scene.namespace, "a", |service| {
                service.is_some_and(|s| s.data["spec"]["ports"][0]["port"] == 9090)
            })
            .within(PATIENCE)
            .await
            .context("the Service does not follow")?;
        // Somebody leads its traffic elsewhere; it is led back.
        let astray = json!({ "spec": { "selector": { "app": "other" } } });
        agents.edit(&services(), "a", astray).await?;
        watch
            .expect(&scene.namespace, "a", |service| {
                service.is_some_and(|s| s.data["spec"]["selector"].get("app").is_none())
            })
            .within(PATIENCE)
            .await
            .context("the Service's traffic is led elsewhere")?;
        agents
            .edit(&beta(), "a", json!({ "spec": { "service": false } }))
            .await?;
        watch
            .expect(&scene.namespace, "a", |service| service.is_none())
            .within(PATIENCE)
            .await
            .context("the Service stays")?;
        agents
            .says("a", "Ready", "True DependenciesReady Pod is Ready")
            .await?;
        agents.end().await
    });
}

fn in_seconds(seconds: i64) -> String {
    let at = Timestamp::now() + SignedDuration::from_secs(seconds);
    // Whole seconds: that is what the API keeps.
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[test]
fn at_its_shutdown_time_it_goes_or_says_so() {
    scene("agents-expiry", |scene| async move {
        let agents = Agents::of(&scene).await?;
        let cases = [
            ("past-retain", "Retain", -60),
            ("past-delete", "Delete", -60),
            ("retain", "Retain", 8),
            ("delete", "Delete", 8),
        ];
        try_join_all(cases.map(|case| expires(&agents, case))).await?;
        // More time than it had brings it back.
        let later = json!({ "spec": { "shutdownTime": in_seconds(3600) } });
        agents.edit(&beta(), "retain", later).await?;
        agents.ready("retain").await?;
        agents.end().await
    });
}

async fn expires(agents: &Agents, (name, policy, at): (&str, &str, i64)) -> Result<()> {
    let spec = json!({
        "podTemplate": { "spec": agents.idle() }, "service": true,
        "shutdownTime": in_seconds(at), "shutdownPolicy": policy,
    });
    agents.create(name, spec).await?;
    if at > 0 {
        agents
            .pods
            .expect(&agents.scene.namespace, name, |pod| pod.is_some())
            .within(PATIENCE)
            .await?;
    }
    if policy == "Delete" {
        agents
            .hub
            .expect(&agents.scene.namespace, name, |sandbox| sandbox.is_none())
            .within(PATIENCE)
            .await
            .with_context(|| format!("{name} stays"))?;
    } else {
        agents
            .says(name, "Ready", "False SandboxExpired Sandbox has expired")
            .await?;
        let sandbox = agents.seen(name)?;
        ensure!(
            status(&sandbox, "serviceFQDN").is_none(),
            "{:?}",
            sandbox.data
        );
    }
    agents.no_pod(name).await?;
    if policy == "Retain" {
        let service = agents.api(&services()).get_opt(name).await?;
        let going = service.is_none_or(|s| s.metadata.deletion_timestamp.is_some());
        ensure!(going, "{name}: its Service stays");
    }
    Ok(())
}

#[test]
fn a_deleted_sandbox_lets_go_of_its_pod_where_it_is_told_to() {
    scene("agents-orphan", |scene| async move {
        let agents = Agents::of(&scene).await?;
        let spec = json!({ "podTemplate": { "spec": agents.idle() } });
        agents.create("a", spec.clone()).await?;
        agents.ready("a").await?;
        let uid = agents.pod_uid("a")?;
        agents
            .api(&beta())
            .delete("a", &DeleteParams::orphan())
            .await?;
        agents
            .hub
            .expect(&scene.namespace, "a", |sandbox| sandbox.is_none())
            .within(PATIENCE)
            .await?;
        // Its successor finds the pod, which has the label of its name, and takes it.
        agents.create("a", spec).await?;
        agents.ready("a").await?;
        ensure!(agents.pod_uid("a")? == uid, "the pod was not kept");
        let owners = agents.seen_pod("a")?.metadata.owner_references;
        let owner = owners.and_then(|owners| Some(owners.first()?.uid.clone()));
        ensure!(owner == agents.seen("a")?.metadata.uid, "{owner:?}");
        objects::delete(&agents.api(&beta()), "a").await?;
        agents.no_pod("a").await
    });
}
