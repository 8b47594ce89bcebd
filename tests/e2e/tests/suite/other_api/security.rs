//! What users bring: a pod that is not confined is warned of, or refused.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pilotlight_common::agents::manifest::{ManifestInput, manifest};
use pilotlight_e2e::environment::{PATIENCE, output};
use pilotlight_e2e::scene::{Scene, scene};
use serde_json::{Value, json};

/// A part of a message for each thing that is missing from a bare pod.
const WARNINGS: [&str; 4] = [
    "may run as root",
    "system calls are not filtered",
    "keep privileges",
    "may use all of a node",
];

fn bare(version: &str) -> Value {
    let mut sandbox = json!({
        "apiVersion": format!("agents.x-k8s.io/{version}"),
        "kind": "Sandbox",
        "metadata": { "name": format!("bare-{version}") },
        "spec": { "podTemplate": { "spec": { "containers": [{ "name": "c", "image": "i" }] } } },
    });
    // Nothing of it is to run.
    match version {
        "v1alpha1" => sandbox["spec"]["replicas"] = 0.into(),
        _ => sandbox["spec"]["operatingMode"] = "Suspended".into(),
    }
    sandbox
}

async fn apply(scene: &Scene, object: &Value, flags: &[&str]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("object.json");
    std::fs::write(&file, object.to_string())?;
    let file = file.to_str().context("a path in UTF-8")?;
    let mut arguments = vec!["apply", "-f", file];
    arguments.extend(flags);
    Ok(scene.kubectl(&arguments).await?.err)
}

#[test]
fn a_pod_that_is_not_confined_is_warned_of_or_refused() {
    scene("agents-security", |scene| async move {
        for version in ["v1alpha1", "v1beta1"] {
            let said = apply(&scene, &bare(version), &[]).await?;
            for warning in WARNINGS {
                ensure!(
                    said.contains(warning),
                    "{version}: no {warning:?} in {said}"
                );
            }
        }
        let input = ManifestInput {
            namespace: scene.namespace.clone(),
            sandbox_name: "confined".to_owned(),
            image: "i".to_owned(),
            env_secret_name: "s".to_owned(),
            service_account_name: "default".to_owned(),
            ..ManifestInput::default()
        };
        let mut confined = manifest(input)?;
        confined["spec"]["replicas"] = 0.into();
        let said = apply(&scene, &confined, &[]).await?;
        ensure!(!said.contains("Validation failed"), "{said}");
        enforced(&scene, &confined).await
    });
}

/// The same policy as the chart has it with `enforce`, for this namespace only.
async fn enforced(scene: &Scene, confined: &Value) -> Result<()> {
    let installation = &scene.environment.installation;
    let chart = pilotlight_demo::workspace().join("deploy/chart");
    let mut helm = installation.helm();
    helm.args(["template", &scene.namespace])
        .arg(&chart)
        .args(["--set", "agents.securityCheck=enforce", "--set"])
        .arg(format!("fullnameOverride={}", scene.namespace))
        .args(["--show-only", "templates/agents-security.yaml"]);
    let rendered = tokio::task::spawn_blocking(move || output(&mut helm)).await??;
    let here = format!(
        "validationActions: [Deny]\n  matchResources:\n    namespaceSelector:\n      matchLabels:\n        kubernetes.io/metadata.name: {}",
        scene.namespace
    );
    ensure!(rendered.contains("validationActions: [Deny]"), "{rendered}");
    let rendered = rendered.replace("validationActions: [Deny]", &here);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, rendered)?;
    let file = file.to_str().context("a path in UTF-8")?;
    scene.kubectl(&["apply", "-f", file]).await?;
    let result = refused(scene, confined).await;
    scene.kubectl(&["delete", "-f", file]).await?;
    result
}

async fn refused(scene: &Scene, confined: &Value) -> Result<()> {
    // Nothing announces that the API server has taken a policy up.
    let until = Instant::now() + PATIENCE;
    for version in ["v1alpha1", "v1beta1"] {
        let mut again = bare(version);
        again["metadata"]["name"] = "again".into();
        let said = loop {
            match apply(scene, &again, &["--dry-run=server"]).await {
                Err(error) => break format!("{error:#}"),
                Ok(_) => ensure!(Instant::now() < until, "{version}: it is taken"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        ensure!(
            said.contains("is forbidden") && said.contains(WARNINGS[0]),
            "{said}"
        );
    }
    let mut again = confined.clone();
    again["metadata"]["name"] = "again".into();
    apply(scene, &again, &["--dry-run=server"]).await?;
    // What is there stays editable, as long as its pod is not made worse.
    scene
        .kubectl(&[
            "label",
            "sandboxes.v1beta1.agents.x-k8s.io/bare-v1beta1",
            "a=b",
        ])
        .await?;
    Ok(())
}

#[test]
fn the_chart_does_not_take_over_a_crd_that_another_release_brought() {
    scene("agents-second", |scene| async move {
        let chart = pilotlight_demo::workspace().join("deploy/chart");
        let mut helm = scene.environment.installation.helm();
        helm.args(["install", "second"]).arg(&chart).args([
            "--namespace",
            &scene.namespace,
            "--dry-run=server",
        ]);
        let tried = tokio::task::spawn_blocking(move || helm.output()).await??;
        let said = String::from_utf8_lossy(&tried.stderr).into_owned();
        ensure!(
            !tried.status.success() && said.contains("Set agents.enabled=false"),
            "{said}"
        );
        Ok(())
    });
}
