//! Every privileged operation of the agent, behind one trait. [`super::serve`] calls it; tests put a recorder in its place.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use nix::time::{ClockId, clock_gettime};
use pilotlight_seccomp::Arch;

use super::cgroup::{Resource, Tree};
use super::cpuset::{self, Cpus, Places};
use super::inspect::inspect;
use super::profiles::Store;
use super::usage::Sampler;
use crate::args::HostArgs;
use crate::protocol::{
    CheckedProfiles, CpuState, PinAnswer, PodInspection, PodUid, PodUsage, ProfileFile, UserProfile,
};

/// What only `host` can do.
pub trait Kernel: Send {
    /// The processes of each pod, in the order of `pods`.
    fn inspect(&mut self, pods: &[PodUid]) -> Vec<PodInspection>;
    /// What each pod uses; pods without a cgroup are left out.
    fn usage(&mut self, pods: &[PodUid]) -> Vec<PodUsage>;
    /// Installs a user's seccomp profile; or says why it is refused.
    fn install_profile(&mut self, profile: &UserProfile) -> Result<ProfileFile, String>;
    /// Makes every seccomp profile what it must be.
    fn check_profiles(
        &mut self,
        wanted: &BTreeSet<ProfileFile>,
        named: &BTreeSet<ProfileFile>,
    ) -> CheckedProfiles;
    /// Gives a pod whole CPUs.
    fn pin(&mut self, pod: &PodUid, cpus: u32) -> PinAnswer;
    /// Which CPUs are given, and how many can be.
    fn cpus(&mut self) -> CpuState;
    /// Keeps what was given; called every second.
    fn tick(&mut self);
}

/// Why the node cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No profile is written for such a processor.
    #[error("there are no seccomp profiles for this processor; x86_64 and aarch64 are known")]
    Architecture,
}

/// The node's kernel.
#[derive(Debug)]
pub struct NodeKernel {
    proc_root: PathBuf,
    tree: Tree,
    sampler: Sampler,
    profiles: Store,
    cpus: Cpus,
}

impl NodeKernel {
    /// The kernel as it shows at the mount points.
    pub fn new(args: &HostArgs) -> Result<Self, KernelError> {
        let arch = Arch::native().ok_or(KernelError::Architecture)?;
        // Without it the tree is searched, so a failure is no error.
        let own = fs::read_to_string(args.proc_root.join("self/cgroup")).unwrap_or_default();
        let tree = || Tree::new(&args.cgroup_root, &own);
        let places = Places {
            kubelet_state: args.kubelet_cpu_state.as_deref(),
            system: &args.system_root,
            proc_root: &args.proc_root,
            state: &args.state_dir,
        };
        Ok(Self {
            proc_root: args.proc_root.clone(),
            tree: tree(),
            sampler: Sampler::default(),
            profiles: Store::new(&args.seccomp_root, arch),
            cpus: cpuset::detect(&places, tree(), &args.reserved_cpus, args.shared_cpu_floor),
        })
    }

    /// How CPUs are given on this node, for the log.
    pub fn cpu_backend(&self) -> &'static str {
        self.cpus.name()
    }

    /// Which cgroup version was found, for the log.
    pub fn cgroup_version(&self) -> super::cgroup::Version {
        self.tree.version()
    }
}

impl Kernel for NodeKernel {
    fn inspect(&mut self, pods: &[PodUid]) -> Vec<PodInspection> {
        let now = Instant::now();
        // A pod is looked at when its containers changed: new ones must be where they belong before it counts as prepared.
        self.cpus.tick(now);
        pods.iter()
            .map(|uid| {
                let directory = self.tree.pod(uid, Resource::Memory, now);
                let mut seen = inspect(uid, directory.as_deref(), &self.proc_root);
                seen.pin = self.cpus.pin_of(uid);
                seen
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

    fn install_profile(&mut self, profile: &UserProfile) -> Result<ProfileFile, String> {
        self.profiles
            .install(profile)
            .map_err(|error| error.to_string())
    }

    fn check_profiles(
        &mut self,
        wanted: &BTreeSet<ProfileFile>,
        named: &BTreeSet<ProfileFile>,
    ) -> CheckedProfiles {
        self.profiles.check(wanted, named, Instant::now())
    }

    fn pin(&mut self, pod: &PodUid, cpus: u32) -> PinAnswer {
        self.cpus.pin(pod, cpus, Instant::now())
    }

    fn cpus(&mut self) -> CpuState {
        self.cpus.state(Instant::now())
    }

    fn tick(&mut self) {
        self.cpus.tick(Instant::now());
    }
}

/// The system's clock rather than this process's: it goes on over a restart of the container.
fn monotonic_micros() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let micros = time.tv_sec() * 1_000_000 + time.tv_nsec() / 1000;
        u64::try_from(micros).unwrap_or(0)
    })
}
