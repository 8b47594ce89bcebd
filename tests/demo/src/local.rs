//! The two clusters that are made here, and the programs to speak to any.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use pilotlight_cluster::{Cluster, Plan, UpOptions};

use crate::progress::say;
use crate::run;

/// Name of the cluster among kind's.
const KIND_NAME: &str = "pilotlight";

/// The state folder and number of the local cluster; the variables are those of the `pilotlight-cluster` program.
fn identity() -> (PathBuf, u8) {
    let instance = std::env::var("PILOTLIGHT_CLUSTER_INSTANCE")
        .ok()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0);
    let folder = std::env::var_os("PILOTLIGHT_CLUSTER_DIR")
        .map_or_else(|| Plan::default_dir(instance), PathBuf::from);
    (folder, instance)
}

/// Brings the local cluster up, or finds it running.
pub(crate) fn up(nodes: usize) -> Result<Cluster> {
    let (dir, instance) = identity();
    let options = UpOptions {
        nodes,
        dir: Some(dir),
        instance,
    };
    Cluster::up(&options).context("the local cluster did not come up")
}

/// The local cluster, where one runs.
pub(crate) fn running() -> Option<Cluster> {
    Cluster::attach(&identity().0).ok()
}

/// Removes the local cluster; nothing happens where there is none.
pub(crate) fn down() -> Result<()> {
    let (dir, instance) = identity();
    pilotlight_cluster::down(&dir, instance).context("the local cluster could not be removed")
}

fn kind() -> Command {
    Command::new("kind")
}

fn kind_runs() -> bool {
    run::read(kind().args(["get", "clusters"]))
        .is_ok_and(|names| names.lines().any(|name| name == KIND_NAME))
}

/// Brings kind's cluster up, or finds it running, and writes its kubeconfig.
pub(crate) fn kind_up(nodes: usize, kubeconfig: &Path) -> Result<()> {
    if kind_runs() {
        return run::show(
            kind()
                .args(["export", "kubeconfig", "--name", KIND_NAME, "--kubeconfig"])
                .arg(kubeconfig),
        );
    }
    say(format_args!("making a kind cluster with {nodes} nodes"));
    let mut config = String::from(
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane\n",
    );
    config.push_str(&"- role: worker\n".repeat(nodes));
    run::feed(
        kind()
            .args([
                "create",
                "cluster",
                "--name",
                KIND_NAME,
                "--wait",
                "180s",
                "--config",
                "-",
                "--kubeconfig",
            ])
            .arg(kubeconfig),
        &config,
    )
    .map(drop)
}

/// Loads an image archive into all nodes of kind's cluster.
pub(crate) fn kind_load(archive: &Path) -> Result<()> {
    run::show(
        kind()
            .args(["load", "image-archive", "--name", KIND_NAME])
            .arg(archive),
    )
}

/// Removes kind's cluster, where there is one.
pub(crate) fn kind_down() -> Result<()> {
    if kind_runs() {
        run::show(kind().args(["delete", "cluster", "--name", KIND_NAME]))?;
    }
    Ok(())
}
