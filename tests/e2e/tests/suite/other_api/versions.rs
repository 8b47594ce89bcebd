//! Both versions of the API, side by side: what one client writes in one, another reads in the other.

use anyhow::{Context, Result, ensure};
use kube::api::{Api, Patch, PatchParams, PostParams};
use pilotlight_bench::objects;
use pilotlight_cluster::STORAGE_CLASS;
use pilotlight_common::agents::v1beta1::OperatingMode;
use pilotlight_common::agents::{PodMetadata, PodTemplate, v1alpha1, v1beta1};
use pilotlight_e2e::agents::{Agents, alpha, beta, claims, said};
use pilotlight_e2e::scene::scene;
use serde_json::{Value, json};

/// A Sandbox with every field of the first version.
fn whole(agents: &Agents) -> Result<v1alpha1::Sandbox> {
    let Value::Object(spec) = agents.idle() else {
        anyhow::bail!("a pod is an object");
    };
    let volume = json!({
        "metadata": { "name": "data", "labels": { "l": "1" } },
        "spec": { "storageClassName": STORAGE_CLASS, "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": 67_108_864 } } },
    });
    let mut sandbox = v1alpha1::Sandbox::new(
        "whole",
        v1alpha1::SandboxSpec {
            pod_template: PodTemplate {
                metadata: Some(PodMetadata {
                    labels: Some([("app".to_owned(), "x".to_owned())].into()),
                    annotations: Some([("note".to_owned(), "y".to_owned())].into()),
                }),
                spec,
            },
            volume_claim_templates: Some(vec![serde_json::from_value(volume)?]),
            service: Some(true),
            shutdown_time: Some("2100-01-01T00:00:00Z".parse()?),
            shutdown_policy: Some(pilotlight_common::agents::ShutdownPolicy::Retain),
            replicas: Some(1),
        },
    );
    let container = &mut sandbox.spec.pod_template.spec["containers"][0];
    // A quantity that is a number, as many manifests have it.
    container["resources"]["limits"]["cpu"] = 1.into();
    container["resources"]["requests"] = json!({ "cpu": "50m" });
    container["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    container["ports"] = json!([{ "containerPort": 8080, "name": "web" }]);
    Ok(sandbox)
}

#[test]
fn what_is_written_in_one_version_is_read_in_the_other_and_acted_on_alike() {
    scene("versions", |scene| async move {
        if scene.environment.installation.local().is_none() {
            eprintln!("left out: the class of its volume is the local cluster's");
            return Ok(());
        }
        let agents = Agents::of(&scene).await?;
        let (client, ns) = (scene.client().clone(), scene.namespace.clone());
        let first: Api<v1alpha1::Sandbox> = Api::namespaced(client.clone(), &ns);
        let second: Api<v1beta1::Sandbox> = Api::namespaced(client, &ns);
        let written = whole(&agents)?;
        first.create(&PostParams::default(), &written).await?;
        let read = second.get("whole").await?;
        ensure!(read.spec.operating_mode == Some(OperatingMode::Running));
        ensure!(
            read.spec.pod_template == written.spec.pod_template,
            "{:?}",
            read.spec
        );
        ensure!(read.spec.volume_claim_templates == written.spec.volume_claim_templates);
        ensure!(
            first.get("whole").await?.spec == written.spec,
            "there and back"
        );
        agents.ready("whole").await?;
        agents
            .exec("whole", &["sh", "-c", "echo kept > /data/a"])
            .await?;
        let (one, other) = (first.get("whole").await?, second.get("whole").await?);
        ensure!(one.status == other.status, "{:?}", one.status);
        ensure!(one.metadata == other.metadata);
        for version in ["v1alpha1", "v1beta1"] {
            let kind = format!("sandboxes.{version}.agents.x-k8s.io");
            let shown = scene.kubectl(&["get", &kind, "whole"]).await?;
            ensure!(
                shown.out.contains("True") && shown.out.contains("DependenciesReady"),
                "{}",
                shown.out
            );
        }
        suspend_and_resume(&agents).await?;
        at_the_same_time(&agents, &second).await?;
        agents.end().await
    });
}

async fn suspend_and_resume(agents: &Agents) -> Result<()> {
    let suspended = "True PodTerminated Pod has been terminated. Sandbox is suspended";
    let uid = agents.pod_uid("whole")?;
    let claims = agents.api(&claims());
    let claim = claims.get("data-whole").await?;
    // Down by the first version, up by the second, down and up by `kubectl scale`.
    agents
        .edit(&alpha(), "whole", json!({ "spec": { "replicas": 0 } }))
        .await?;
    agents.says("whole", "Suspended", suspended).await?;
    agents.no_pod("whole").await?;
    let kept = claims.get("data-whole").await?;
    ensure!(kept.metadata.uid == claim.metadata.uid, "its volume stays");
    agents
        .edit(
            &beta(),
            "whole",
            json!({ "spec": { "operatingMode": "Running" } }),
        )
        .await?;
    agents.another_pod("whole", &uid).await?;
    agents.ready("whole").await?;
    let read = agents.exec("whole", &["cat", "/data/a"]).await?;
    ensure!(read.trim() == "kept", "its file stays: {read:?}");
    let scale = |replicas: &'static str| async move {
        let kind = "sandboxes.v1alpha1.agents.x-k8s.io/whole";
        let arguments = ["scale", kind, "--replicas", replicas];
        agents.scene.kubectl(&arguments).await
    };
    scale("0").await?;
    agents.says("whole", "Suspended", suspended).await?;
    let ready = said(&agents.seen("whole")?, "Ready");
    ensure!(
        ready == "False SandboxSuspended Sandbox is suspended",
        "{ready}"
    );
    scale("1").await?;
    agents.ready("whole").await?;
    let refused = scale("2").await;
    ensure!(refused.is_err(), "a Sandbox has one pod at most");
    Ok(())
}

/// Two clients, each with its own version: fields that differ are both there, and of two that mean the same the second must look again.
async fn at_the_same_time(agents: &Agents, second: &Api<v1beta1::Sandbox>) -> Result<()> {
    let (label, note) = (
        json!({ "spec": { "podTemplate": { "metadata": { "labels": { "by": "first" } } } } }),
        json!({ "spec": { "podTemplate": { "metadata": { "annotations": { "by": "second" } } } } }),
    );
    let (first, last) = (alpha(), beta());
    let (one, other) = futures::join!(
        agents.edit(&first, "whole", label),
        agents.edit(&last, "whole", note)
    );
    one?;
    other?;
    let metadata = second.get("whole").await?.spec.pod_template.metadata;
    let metadata = json!(metadata.context("its pod has metadata")?);
    let expected = json!({ "labels": { "app": "x", "by": "first" }, "annotations": { "note": "y", "by": "second" } });
    ensure!(metadata == expected, "{metadata}");
    agents
        .pods
        .expect(&agents.scene.namespace, "whole", |pod| {
            pod.is_some_and(|pod| {
                let labels = pod.metadata.labels.clone().unwrap_or_default();
                let notes = pod.metadata.annotations.clone().unwrap_or_default();
                labels.get("by").is_some_and(|v| v == "first")
                    && notes.get("by").is_some_and(|v| v == "second")
            })
        })
        .within(pilotlight_e2e::environment::PATIENCE)
        .await
        .context("edits of both versions reach the pod")?;
    let mut stale = second.get("whole").await?;
    agents
        .edit(&alpha(), "whole", json!({ "spec": { "service": false } }))
        .await?;
    stale.spec.service = Some(true);
    let late = second
        .replace("whole", &PostParams::default(), &stale)
        .await;
    let conflict = matches!(&late, Err(kube::Error::Api(status)) if status.code == 409);
    ensure!(conflict, "{late:?}");
    Ok(())
}

#[test]
fn what_the_schema_forbids_is_refused_with_what_to_do() {
    scene("agents-schema", |scene| async move {
        let agents = Agents::of(&scene).await?;
        let pod = json!({ "spec": agents.idle() });
        let cases = [
            (json!({}), "spec.podTemplate"),
            (
                json!({ "podTemplate": pod, "operatingMode": "Paused" }),
                "operatingMode",
            ),
            (
                json!({ "podTemplate": pod, "shutdownTime": "soon" }),
                "shutdownTime",
            ),
            (
                json!({ "podTemplate": { "spec": { "containers": "none" } } }),
                "containers",
            ),
        ];
        for (spec, word) in cases {
            let error = agents.create("bad", spec).await.err();
            let error = format!("{:#}", error.context("it was taken")?);
            ensure!(error.contains(word), "{error}");
        }
        let long = "a".repeat(64);
        let spec = json!({ "podTemplate": pod, "service": true });
        let error = agents.create(&long, spec).await.err();
        let error = format!("{:#}", error.context("it was taken")?);
        ensure!(error.contains("at most 63"), "{error}");
        let volume =
            json!([{ "metadata": { "name": "v" }, "spec": { "accessModes": ["ReadWriteOnce"] } }]);
        agents
            .create(
                "fixed",
                json!({ "podTemplate": pod, "operatingMode": "Suspended" }),
            )
            .await?;
        let patch = json!({ "spec": { "volumeClaimTemplates": volume } });
        let error = agents.edit(&beta(), "fixed", patch).await.err();
        let error = error.context("it was taken")?.to_string();
        ensure!(
            error.contains("volumeClaimTemplates is immutable"),
            "{error}"
        );
        let patch = json!({ "spec": { "replicas": 2 } });
        let api = agents.api(&alpha());
        let error = api
            .patch("fixed", &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        ensure!(error.is_err(), "replicas 2 was taken");
        objects::delete(&agents.api(&beta()), "fixed").await
    });
}
