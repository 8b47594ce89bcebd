//! Network namespaces: which one a pod is in, and going there and back. Called by [`super::evidence`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use crate::host::cgroup::{container_id, directories};
use crate::host::inspect::processes;

/// Most processes of one container that are looked at. Those of the runtime are among the first.
const MAX_PROCESSES: usize = 64;

/// A network namespace, held open.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    identity: Identity,
}

/// What tells one namespace from every other there is at the same time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Namespace {
    /// The namespace that a process is in.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            identity: Identity {
                device: metadata.dev(),
                inode: metadata.ino(),
            },
            file,
        })
    }

    /// Which one it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// For questions to the kernel about it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Does something in this namespace and comes back to `home`. A process that cannot come back ends: whatever it did next, it
    /// would do to a pod.
    pub fn visit<T>(&self, home: &Self, job: impl FnOnce() -> T) -> io::Result<T> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)?;
        let result = job();
        if let Err(error) = setns(&home.file, CloneFlags::CLONE_NEWNET) {
            tracing::error!(%error, "cannot come back from a pod's network namespace; ending");
            std::process::abort();
        }
        Ok(result)
    }
}

/// The network namespaces that the processes of a pod are in, `directory` being its cgroup.
///
/// A process is asked for its namespace first and for its cgroup again afterwards: its number may have passed to a process of
/// somebody else in between.
pub fn of_pod(directory: &Path, proc_root: &Path) -> Vec<Namespace> {
    let mut found = BTreeMap::new();
    for cgroup in cgroups(directory) {
        let (pids, _) = processes(&cgroup);
        for pid in pids.into_iter().take(MAX_PROCESSES) {
            let Ok(namespace) = Namespace::open(&proc_root.join(pid.to_string()).join("ns/net"))
            else {
                continue;
            };
            let identity = namespace.identity();
            if found.contains_key(&identity) || !processes(&cgroup).0.contains(&pid) {
                continue;
            }
            found.insert(identity, namespace);
        }
    }
    found.into_values().collect()
}

/// The pod's own cgroup and those of its containers.
fn cgroups(directory: &Path) -> Vec<PathBuf> {
    let containers = directories(directory)
        .into_iter()
        .filter(|(name, _)| container_id(name).is_some())
        .map(|(_, path)| path);
    std::iter::once(directory.to_owned())
        .chain(containers)
        .collect()
}
