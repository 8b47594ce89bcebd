//! CPUs of their own for pods: the two ways to have them, and which one this node has. Called by [`super::kernel`].
//!
//! Where the kubelet's CPU manager gives out CPUs (policy `static`), nothing is written and only looked at ([`observe`]);
//! where it does not, the cgroups are written ([`pinning`]). Never both: two writers would undo each other's work. What is
//! written, and in what order, is decided in [`crate::cpu`].

#[cfg(test)]
mod churn_tests;
mod files;
mod observe;
mod pinning;
mod scan;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Deserialize;

use crate::cpu::adopt::held_by;
use crate::cpu::checkpoint::CheckpointError;
use crate::cpu::set::CpuListError;
use crate::cpu::topology::TopologyError;
use crate::cpu::{CpuSet, Shortage};
use crate::protocol::{CpuState, MAX_MESSAGE, Pin, PinAnswer, PinRefusal, PodUid};
pub use files::{Cpusets, Machine, NodeCpusets, Store};
pub use observe::Observe;
pub use pinning::Pinning;

use super::cgroup::Tree;

/// Largest state file of a kubelet that is read: a thousand containers are well below it.
const MAX_STATE_BYTES: u64 = 1 << 20;

/// Why CPUs could not be given, or were not looked at.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// The kubelet's cgroups were not found.
    #[error(
        "the kubelet's cgroups, or the cpuset controller in them, are not found below the cgroup mount"
    )]
    NoTree,
    /// More cgroups than could be watched.
    #[error("there are too many cgroups to keep apart, at {}", .0.display())]
    TooManyGroups(PathBuf),
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The machine cannot be read.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// There are not enough.
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// The checkpoint cannot be written.
    #[error("cannot write the checkpoint: {0}")]
    Store(#[source] io::Error),
    /// The checkpoint cannot be put into words.
    #[error("cannot write the checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The pod has no cgroup.
    #[error("pod {0} has no cgroup on this node")]
    NoPod(PodUid),
    /// Somebody else's processes stay on CPUs that are not theirs.
    #[error("{} does not leave CPUs that are kept for a sandbox", .0.display())]
    Unsettled(PathBuf),
    /// CPUs of the pod are not there any more.
    #[error("of the pod's CPUs {cpus}, {missing} went offline")]
    Offline {
        /// All of them.
        cpus: CpuSet,
        /// Those that are missing.
        missing: CpuSet,
    },
    /// The kubelet gave the pod no CPUs.
    #[error(
        "the kubelet's static CPU manager gave the pod no {wanted} CPUs of its own; it gives them to pods whose every container has equal requests and limits and whole CPUs"
    )]
    NotGiven {
        /// CPUs that were asked for.
        wanted: u32,
    },
    /// This node pins no CPUs.
    #[error("{0}")]
    Unavailable(String),
}

impl CpuError {
    fn refusal(&self) -> PinRefusal {
        match self {
            Self::Shortage(_) | Self::Offline { .. } | Self::NotGiven { .. } => PinRefusal::NoCpus,
            Self::Unavailable(_) | Self::Topology(_) => PinRefusal::Unavailable,
            Self::NoTree
            | Self::TooManyGroups(_)
            | Self::File { .. }
            | Self::Store(_)
            | Self::Checkpoint(_)
            | Self::NoPod(_)
            | Self::Unsettled(_) => PinRefusal::Failed,
        }
    }
}

/// What the installation decides.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// CPUs that no sandbox gets.
    pub reserved: CpuSet,
    /// CPUs that stay shared at least.
    pub floor: usize,
}

/// A way to give pods CPUs of their own.
pub trait CpuBackend: Send {
    /// The word for the log.
    fn name(&self) -> &'static str;
    /// Gives a pod CPUs, and returns once it runs on them alone.
    fn pin(&mut self, pod: &PodUid, wanted: u32, now: Instant) -> Result<CpuSet, CpuError>;
    /// Makes everything so again as it must be; called often, and cheap where nobody has CPUs of its own.
    fn tick(&mut self, now: Instant) -> Result<(), CpuError>;
    /// What is given and what can be.
    fn state(&mut self, now: Instant) -> Result<CpuState, CpuError>;
    /// What one pod has.
    fn pin_of(&self, pod: &PodUid) -> Option<Pin>;
}

/// Asks the backend, and puts errors into words.
pub struct Cpus {
    backend: Box<dyn CpuBackend>,
    trouble: String,
}

impl std::fmt::Debug for Cpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cpus")
            .field("backend", &self.backend.name())
            .finish_non_exhaustive()
    }
}

impl Cpus {
    /// By a backend.
    pub fn new(backend: Box<dyn CpuBackend>) -> Self {
        Self {
            backend,
            trouble: String::new(),
        }
    }

    /// The word for the log.
    pub fn name(&self) -> &'static str {
        self.backend.name()
    }

    /// [`CpuBackend::pin`].
    pub fn pin(&mut self, pod: &PodUid, wanted: u32, now: Instant) -> PinAnswer {
        match self.backend.pin(pod, wanted, now) {
            Ok(cpus) => {
                tracing::info!(%pod, %cpus, "a pod runs on CPUs of its own");
                PinAnswer::Granted(cpus)
            }
            Err(error) => {
                tracing::warn!(%pod, wanted, %error, "no CPUs for a pod");
                PinAnswer::Refused {
                    reason: error.refusal(),
                    message: short(&error),
                }
            }
        }
    }

    /// [`CpuBackend::tick`].
    pub fn tick(&mut self, now: Instant) {
        let trouble = self
            .backend
            .tick(now)
            .err()
            .map(|error| short(&error))
            .unwrap_or_default();
        // Said when it begins, not at every turn.
        if trouble != self.trouble && !trouble.is_empty() {
            tracing::warn!(error = trouble, "CPUs are not as they must be");
        }
        self.trouble = trouble;
    }

    /// [`CpuBackend::state`].
    pub fn state(&mut self, now: Instant) -> CpuState {
        self.backend.state(now).unwrap_or_else(|error| CpuState {
            message: short(&error),
            ..CpuState::default()
        })
    }

    /// [`CpuBackend::pin_of`].
    pub fn pin_of(&self, pod: &PodUid) -> Option<Pin> {
        self.backend.pin_of(pod)
    }
}

fn short(error: &CpuError) -> String {
    error.to_string().chars().take(MAX_MESSAGE).collect()
}

/// A node that gives no CPUs, and why.
#[derive(Debug)]
pub struct Nothing(pub String);

impl CpuBackend for Nothing {
    fn name(&self) -> &'static str {
        "none"
    }

    fn pin(&mut self, _pod: &PodUid, _wanted: u32, _now: Instant) -> Result<CpuSet, CpuError> {
        Err(CpuError::Unavailable(self.0.clone()))
    }

    fn tick(&mut self, _now: Instant) -> Result<(), CpuError> {
        Ok(())
    }

    fn state(&mut self, _now: Instant) -> Result<CpuState, CpuError> {
        Err(CpuError::Unavailable(self.0.clone()))
    }

    fn pin_of(&self, _pod: &PodUid) -> Option<Pin> {
        None
    }
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Places<'a> {
    /// The kubelet's `cpu_manager_state`; none where the installation pins no CPUs.
    pub kubelet_state: Option<&'a Path>,
    /// `/sys/devices/system`.
    pub system: &'a Path,
    /// `/proc`.
    pub proc_root: &'a Path,
    /// Where the checkpoint lies.
    pub state: &'a Path,
}

/// The way of this node.
pub fn detect(places: &Places<'_>, tree: Tree, reserved: &str, floor: usize) -> Cpus {
    let backend: Result<Box<dyn CpuBackend>, String> = (|| {
        let rules = Rules {
            reserved: CpuSet::parse(reserved)
                .map_err(|error: CpuListError| format!("cpuPinning.reservedCPUs: {error}"))?,
            floor,
        };
        let path = places.kubelet_state.ok_or_else(|| {
            "this installation pins no CPUs: cpuPinning.enabled of the chart is false".to_owned()
        })?;
        let machine = Machine::new(places.system, places.proc_root);
        let kubelet = KubeletState::open(path)
            .map_err(|error| format!("the kubelet's CPU policy is not known: {error}"))?;
        let cpusets = NodeCpusets::new(tree);
        match kubelet.policy.as_str() {
            "none" | "" => {
                let store = Store::new(places.state);
                let pinning = Pinning::new(cpusets, machine, store, rules, Some(kubelet));
                Ok(Box::new(pinning) as Box<dyn CpuBackend>)
            }
            "static" => Ok(Box::new(Observe::new(cpusets, machine, rules)) as _),
            other => Err(format!(
                "the kubelet's CPU manager has policy \"{other:.40}\", which is not known"
            )),
        }
    })();
    Cpus::new(backend.unwrap_or_else(|why| Box::new(Nothing(why))))
}

/// What the kubelet's CPU manager wrote down: its policy. The file is held open, since a kubelet that changes its policy
/// makes a new one in its place.
#[derive(Debug)]
pub struct KubeletState {
    file: File,
    policy: String,
}

impl KubeletState {
    fn open(path: &Path) -> io::Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct State {
            policy_name: String,
        }
        let mut file = File::open(path)?;
        let mut text = String::new();
        (&mut file)
            .take(MAX_STATE_BYTES)
            .read_to_string(&mut text)?;
        let State { policy_name } = serde_json::from_str(&text)?;
        Ok(Self {
            file,
            policy: policy_name,
        })
    }

    /// Whether the kubelet replaced or removed it since. Under the policy `none` it writes the file once and never again.
    fn was_replaced(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.nlink() == 0)
    }
}
