//! Every privileged operation of the agent, behind one trait. [`super::serve`] calls it; tests put a recorder in its place.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::time::{ClockId, clock_gettime};

use super::cgroup::{Resource, Tree};
use super::inspect::inspect;
use super::usage::Sampler;
use crate::protocol::{PodInspection, PodUid, PodUsage};

/// What only `host` can do.
pub trait Kernel: Send {
    /// The processes of each pod, in the order of `pods`.
    fn inspect(&mut self, pods: &[PodUid]) -> Vec<PodInspection>;
    /// What each pod uses; pods without a cgroup are left out.
    fn usage(&mut self, pods: &[PodUid]) -> Vec<PodUsage>;
}

/// The node's kernel.
#[derive(Debug)]
pub struct NodeKernel {
    proc_root: PathBuf,
    tree: Tree,
    sampler: Sampler,
}

impl NodeKernel {
    /// The kernel as it shows at the two mount points.
    pub fn new(cgroup_root: &Path, proc_root: &Path) -> Self {
        // Without it the tree is searched, so a failure is no error.
        let own = fs::read_to_string(proc_root.join("self/cgroup")).unwrap_or_default();
        Self {
            proc_root: proc_root.to_owned(),
            tree: Tree::new(cgroup_root, &own),
            sampler: Sampler::default(),
        }
    }

    /// Which cgroup version was found, for the log.
    pub fn cgroup_version(&self) -> super::cgroup::Version {
        self.tree.version()
    }
}

impl Kernel for NodeKernel {
    fn inspect(&mut self, pods: &[PodUid]) -> Vec<PodInspection> {
        let now = Instant::now();
        pods.iter()
            .map(|uid| {
                let directory = self.tree.pod(uid, Resource::Memory, now);
                inspect(uid, directory.as_deref(), &self.proc_root)
            })
            .collect()
    }

    fn usage(&mut self, pods: &[PodUid]) -> Vec<PodUsage> {
        let now = Instant::now();
        self.sampler.sweep(now);
        pods.iter()
            .filter_map(|uid| {
                self.sampler
                    .sample(&mut self.tree, uid, now, monotonic_micros)
            })
            .collect()
    }
}

/// The system's clock rather than this process's: it goes on over a restart of the container.
fn monotonic_micros() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let micros = time.tv_sec() * 1_000_000 + time.tv_nsec() / 1000;
        u64::try_from(micros).unwrap_or(0)
    })
}
