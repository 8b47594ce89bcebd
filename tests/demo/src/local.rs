//! The identity of the local cluster: which of several on this machine is meant.

use std::path::PathBuf;

use anyhow::{Context, Result};
use pilotlight_cluster::{Cluster, Plan, UpOptions};

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

/// What `up` is to make.
pub(crate) fn options(nodes: usize) -> UpOptions {
    let (dir, instance) = identity();
    UpOptions {
        nodes,
        dir: Some(dir),
        instance,
    }
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
