//! Seccomp profiles are on a node before its pods, whatever becomes of the files, the agent and the node.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use pilotlight_bench::hub::{Hub, Objects};
use pilotlight_bench::objects::{self, text};
use pilotlight_common::names::{AGENT_READY, AGENT_READY_LABEL};
use pilotlight_e2e::environment::{PATIENCE, output};
use pilotlight_e2e::faults::Faults;
use pilotlight_e2e::scene::{Scene, alone};
use pilotlight_seccomp::{Profile, built_in};
use serde_json::json;

/// Joins of a node; each takes some six seconds.
const JOINS: u32 = 3;
/// The folder of profiles as `host` sees it.
const FOLDER: &str = "/host/seccomp";
/// Sets another number of joins.
const JOINS_VARIABLE: &str = "PILOTLIGHT_E2E_JOINS";

/// Folders of the installed profiles of all nodes, as they are on this machine.
fn folders(faults: &Faults) -> Result<Vec<PathBuf>> {
    faults
        .agents()?
        .iter()
        .filter(|agent| agent.arguments.iter().any(|a| a == "host"))
        .map(|host| Ok(host.file(FOLDER)))
        .collect()
}

/// The project's own profiles in a folder. Beside them may lie one of a user, which stays for a while when it is no longer wanted.
fn own(folder: &Path) -> Vec<PathBuf> {
    let files = built_in().iter().map(Profile::file_name);
    files.map(|file| folder.join(file)).collect()
}

/// Removes every profile of a folder.
fn empty(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        std::fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// Pods of this scene that ever failed to start a container for want of their profile.
async fn missed(scene: &Scene) -> Result<Vec<String>> {
    let events = objects::api(scene.client(), &scene.namespace, &objects::events());
    let all = events.list(&ListParams::default()).await?.items;
    let of_seccomp = |e: &&DynamicObject| {
        text(e, "/message").is_some_and(|message| message.contains("seccomp"))
            && text(e, "/type") == Some("Warning")
            && text(e, "/involvedObject/kind") == Some("Pod")
    };
    Ok(all
        .iter()
        .filter(of_seccomp)
        .map(|e| format!("{:?}", text(e, "/message")))
        .collect())
}

#[test]
fn profiles_that_somebody_deletes_or_changes_are_back_before_a_pod_lands() {
    alone("seccomp-drift", |scene| async move {
        let Some(faults) = Faults::of(scene.environment) else {
            return Ok(());
        };
        let healthy = folders(&faults)?;
        let before: Vec<Vec<PathBuf>> = healthy.iter().map(|folder| own(folder)).collect();
        let wanted: usize = before.iter().map(Vec::len).sum();
        // While the agents live.
        for files in &before {
            std::fs::remove_file(&files[0])?;
            std::fs::write(&files[1], "{}")?;
        }
        let start = Instant::now();
        back(&faults, wanted).await?;
        ensure!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
        eprintln!("profiles were back after {:?}", start.elapsed());
        // While they are dead, with pods on their way.
        let agents: Vec<i32> = faults.agents()?.iter().map(|a| a.pid).collect();
        let folders = folders(&faults)?;
        for folder in &folders {
            empty(folder)?;
        }
        let nodes = Hub::open(Api::all_with(
            scene.client().clone(),
            &ApiResource::erase::<Node>(&()),
        ))
        .await?;
        let unlabelled = nodes.expect_all(|all| !all.values().any(takes_pods));
        faults.kill(agents)?;
        unlabelled
            .within(PATIENCE)
            .await
            .context("nodes keep their label while their agents are dead")?;
        scene.filled_pool(4, 0).await?;
        ensure!(
            missed(&scene).await?.is_empty(),
            "{:?}",
            missed(&scene).await?
        );
        back(&faults, wanted).await?;
        faults.healed().await
    });
}

/// Whether sandbox pods may land on a node.
fn takes_pods(node: &DynamicObject) -> bool {
    let labels = node.metadata.labels.as_ref();
    labels.is_some_and(|l| l.get(AGENT_READY_LABEL).is_some_and(|v| v == AGENT_READY))
}

/// Waits until so many profiles are what their names say, on all nodes together.
async fn back(faults: &Faults, wanted: usize) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let whole = folders(faults).and_then(|folders| {
            let mut whole = 0;
            for folder in folders {
                for file in own(&folder) {
                    whole += usize::from(std::fs::metadata(file)?.len() > 100);
                }
            }
            Ok(whole)
        });
        if whole.as_ref().is_ok_and(|whole| *whole == wanted) {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{whole:?} of {wanted} profiles are there"
        );
        // Files of another mount namespace: nothing tells when they change.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_node_that_joins_gets_its_profiles_before_its_first_pod() {
    alone("seccomp-join", |scene| async move {
        let Some(faults) = Faults::of(scene.environment) else {
            return Ok(());
        };
        let joins = std::env::var(JOINS_VARIABLE)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(JOINS);
        let nodes: Api<Node> = Api::all(scene.client().clone());
        let names: Vec<String> = nodes
            .list_metadata(&ListParams::default())
            .await?
            .items
            .into_iter()
            .filter_map(|n| n.metadata.name)
            .collect();
        let joining = names.last().context("no nodes")?.clone();
        // All other nodes take no pods, so that the whole pool waits for the one that joins.
        for name in names.iter().filter(|name| **name != joining) {
            cordon(&nodes, name, true).await?;
        }
        let mut result = Ok(());
        for number in 0..joins {
            result = join(&scene, &faults, &nodes, &joining, number).await;
            if result.is_err() {
                break;
            }
        }
        for name in &names {
            cordon(&nodes, name, false).await?;
        }
        result?;
        faults.healed().await
    });
}

async fn cordon(nodes: &Api<Node>, name: &str, unschedulable: bool) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": { "unschedulable": unschedulable } }));
    nodes.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// The node leaves with everything the agent ever put there, and comes as a new one while pods wait for it.
async fn join(
    scene: &Scene,
    faults: &Faults,
    nodes: &Api<Node>,
    node: &str,
    number: u32,
) -> Result<()> {
    let namespace = &scene.environment.installation.namespace;
    let kubelet = format!("{node}/kubelet");
    let host = faults
        .agents()?
        .into_iter()
        .find(|agent| {
            agent.arguments.iter().any(|a| a == "host") && on_node(scene, &agent.host_name, node)
        })
        .context("no agent on the node that leaves")?;
    let folder = host.file(FOLDER);
    faults.stop(&kubelet).await?;
    empty(&folder)?;
    nodes.delete(node, &DeleteParams::default()).await?;
    // Its pods are gone for the cluster; the new kubelet ends what runs of them.
    let pods: Api<Pod> = Api::namespaced(scene.client().clone(), namespace);
    pods.delete(&host.host_name, &DeleteParams::default().grace_period(0))
        .await
        .ok();
    scene.pool(4, 0).await?;
    let start = Instant::now();
    faults.start(&kubelet).await?;
    scene.ready(4).await?;
    eprintln!(
        "join {number}: 4 pods were ready after {:?}",
        start.elapsed()
    );
    let missed = missed(scene).await?;
    ensure!(missed.is_empty(), "join {number}: {missed:?}");
    objects::delete(&scene.pool_api(), "pool").await?;
    // The next kubelet is to find a node that nothing runs on.
    for hub in [&scene.warm_pods, &scene.pods] {
        hub.expect_all(Objects::is_empty).within(PATIENCE).await?;
    }
    Ok(())
}

fn on_node(scene: &Scene, pod: &str, node: &str) -> bool {
    let mut command = scene.environment.installation.kubectl();
    command.args([
        "-n",
        &scene.environment.installation.namespace,
        "get",
        "pod",
        pod,
    ]);
    output(command.args(["-o", "jsonpath={.spec.nodeName}"])).is_ok_and(|name| name == node)
}
