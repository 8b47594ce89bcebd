//! The Sandbox that a client of the first version writes, as that client uses it: commands, one after the other, in one pod.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use pilotlight_bench::objects;
use pilotlight_common::agents::manifest::{
    ManifestAmounts, ManifestInput, ManifestResources, manifest,
};
use pilotlight_e2e::agents::{Agents, beta};
use pilotlight_e2e::scene::scene;
use serde_json::{Value, json};

/// How long everything of a Sandbox may take to be gone: ten times what a pod's containers need to end.
const SECONDS: Duration = Duration::from_secs(15);

fn amounts(cpu: &str, memory: &str) -> ManifestAmounts {
    ManifestAmounts {
        cpu: Some(cpu.to_owned()),
        memory: Some(memory.to_owned()),
    }
}

/// Five inputs: all defaults, and each of what can be said.
fn inputs(agents: &Agents) -> [ManifestInput; 5] {
    let base = |name: &str| ManifestInput {
        namespace: agents.scene.namespace.clone(),
        sandbox_name: name.to_owned(),
        adapter_type: "any".to_owned(),
        image: agents.scene.environment.installation.python_image.clone(),
        env_secret_name: "run-env".to_owned(),
        service_account_name: "default".to_owned(),
        labels: BTreeMap::from([("run".to_owned(), name.to_owned())]),
        resources: ManifestResources {
            requests: Some(amounts("50m", "32Mi")),
            limits: Some(amounts("500m", "128Mi")),
        },
        ..ManifestInput::default()
    };
    [
        ManifestInput {
            resources: ManifestResources::default(),
            labels: BTreeMap::new(),
            ..base("defaults")
        },
        ManifestInput {
            resources: ManifestResources {
                requests: None,
                limits: Some(amounts("300m", "640Mi")),
            },
            ..base("limits")
        },
        ManifestInput {
            image_pull_secrets: Some(vec!["one".to_owned(), "two".to_owned()]),
            ..base("pulls")
        },
        ManifestInput {
            runtime_class_name: Some("gvisor".to_owned()),
            ..base("gvisor")
        },
        ManifestInput {
            service_account_name: "agent".to_owned(),
            ..base("account")
        },
    ]
}

#[test]
fn five_manifests_run_commands_in_a_pod_that_keeps_its_files() {
    scene("manifests", |scene| async move {
        scene.restricted().await?;
        let agents = Agents::of(&scene).await?;
        scene
            .kubectl(&["create", "serviceaccount", "agent"])
            .await?;
        scene
            .kubectl(&[
                "create",
                "secret",
                "generic",
                "run-env",
                "--from-literal=TOKEN=s3cret",
            ])
            .await?;
        let inputs = inputs(&agents);
        try_join_all(inputs.map(|input| one(&agents, input))).await?;
        agents.end().await
    });
}

async fn one(agents: &Agents, input: ManifestInput) -> Result<()> {
    let name = input.sandbox_name.clone();
    let gvisor = input.runtime_class_name.is_some();
    let document = manifest(input.clone())?;
    let object = serde_json::from_value(document)?;
    objects::apply(&agents.api(&pilotlight_e2e::agents::alpha()), &object).await?;
    agents
        .ready(&name)
        .await
        .with_context(|| format!("pod: {:?}", agents.seen_pod(&name).map(|p| p.data)))?;
    let uid = agents.pod_uid(&name)?;
    let sh = |line: &'static str| {
        let name = name.clone();
        async move { agents.exec(&name, &["/bin/sh", "-c", line]).await }
    };
    ensure!(
        sh("echo $TOKEN").await?.trim() == "s3cret",
        "{name}: its environment"
    );
    sh("echo kept > /workspace/a && mkdir -p /home/paperclip/.cache/b && touch /tmp/c").await?;
    let found = sh(
        "cat /workspace/a; id -u; id -g; test -f /tmp/c && touch /etc/x 2>/dev/null || echo denied",
    )
    .await?;
    ensure!(
        found.split_whitespace().collect::<Vec<_>>() == ["kept", "1000", "1000", "denied"],
        "{name}: {found:?}"
    );
    let status = sh("grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status").await?;
    let status: Vec<&str> = status.split_whitespace().collect();
    if gvisor {
        // Its own kernel tells of no seccomp, and filters the programs of the host itself.
        ensure!(status.contains(&"0000000000000000"), "{name}: {status:?}");
    } else {
        ensure!(
            status
                == [
                    "CapEff:",
                    "0000000000000000",
                    "NoNewPrivs:",
                    "1",
                    "Seccomp:",
                    "2"
                ],
            "{name}: {status:?}"
        );
    }
    let pod = agents.seen_pod(&name)?;
    ensure!(
        pod.metadata.uid.as_ref() == Some(&uid),
        "{name}: another pod"
    );
    let volumes = pod.data.pointer("/spec/volumes").and_then(Value::as_array);
    let sizes: BTreeMap<&str, &Value> = volumes
        .into_iter()
        .flatten()
        .filter_map(|v| Some((v["name"].as_str()?, v.pointer("/emptyDir/sizeLimit")?)))
        .collect();
    let expected = json!({ "workspace": "8Gi", "home": "1Gi", "cache": "1Gi", "tmp": "2Gi" });
    ensure!(json!(sizes) == expected, "{name}: {sizes:?}");
    let start = Instant::now();
    objects::delete(&agents.api(&beta()), &name).await?;
    agents.no_pod(&name).await?;
    let took = start.elapsed();
    println!("manifest {name}: gone after {} ms", took.as_millis());
    ensure!(took < SECONDS, "{name}: it took {took:?} to be gone");
    Ok(())
}
