//! The kubelet's cgroups as [`crate::cpu::plan`] wants them. Called by [`super::pinning`] and [`super::observe`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::CpuError;
use super::files::Cpusets;
use crate::cpu::CpuSet;
use crate::cpu::adopt::LivePod;
use crate::cpu::plan::Group;
use crate::host::cgroup::pod_uid;
use crate::protocol::PodUid;

/// Most cgroups looked at: a node of 250 pods has about a thousand. Of more nothing could be promised, so nothing is.
const MAX_GROUPS: usize = 16_384;
/// How deep below the kubelet's root cgroups are looked at: class, pod, container, and what a container made for itself.
const MAX_DEPTH: usize = 12;

/// All cgroups of the node's pods, parents before their children.
#[derive(Debug)]
pub struct Scan {
    /// What they hold.
    pub groups: Vec<Group>,
    /// Where they are.
    pub paths: Vec<PathBuf>,
}

impl Scan {
    /// Looks at all of them.
    pub fn take(files: &mut impl Cpusets, now: Instant) -> Result<Self, CpuError> {
        let mut scan = Self {
            groups: Vec::new(),
            paths: Vec::new(),
        };
        for root in files.roots(now) {
            let cpus = read(files, &root)?;
            // A hierarchy without the controller holds nobody anywhere.
            let Some(cpus) = cpus else { continue };
            scan.push(None, None, cpus, root);
        }
        if scan.groups.is_empty() {
            return Err(CpuError::NoTree);
        }
        let mut next = 0;
        let mut depths = vec![0; scan.groups.len()];
        while next < scan.groups.len() {
            let pod = scan.groups[next].pod.clone();
            for (name, path) in files.children(&scan.paths[next]) {
                if scan.groups.len() == MAX_GROUPS || depths[next] == MAX_DEPTH {
                    return Err(CpuError::TooManyGroups(path));
                }
                // One that went meanwhile, or that has no CPUs of its own and so runs on its parent's.
                let Some(cpus) = read(files, &path)? else {
                    continue;
                };
                let pod = pod.clone().or_else(|| pod_uid(&name));
                scan.push(Some(next), pod, cpus, path);
                depths.push(depths[next] + 1);
            }
            next += 1;
        }
        Ok(scan)
    }

    fn push(&mut self, parent: Option<usize>, pod: Option<String>, cpus: CpuSet, path: PathBuf) {
        self.groups.push(Group { parent, pod, cpus });
        self.paths.push(path);
    }

    /// CPUs that pods may run on at all.
    pub fn full(&self) -> CpuSet {
        let mut full = CpuSet::default();
        for root in self.groups.iter().filter(|group| group.parent.is_none()) {
            full.add(&root.cpus);
        }
        full
    }

    /// What pods without CPUs of their own run on, as the classes of pods say it.
    pub fn shared(&self) -> Option<CpuSet> {
        let is_root = |at: usize| self.groups[at].parent.is_none();
        self.groups
            .iter()
            .filter(|group| group.pod.is_none() && group.parent.is_some_and(is_root))
            .map(|class| class.cpus.clone())
            .filter(|cpus| !cpus.is_empty())
            .reduce(|one, other| one.intersection(&other))
    }

    /// Whether a pod has a cgroup.
    pub fn has(&self, pod: &PodUid) -> bool {
        let pod = Some(pod.as_str());
        self.groups.iter().any(|group| group.pod.as_deref() == pod)
    }

    /// The pods, each with the CPUs of its containers; of one that has none yet, its own.
    pub fn pods(&self) -> Vec<LivePod> {
        let mut pods: BTreeMap<&str, (CpuSet, CpuSet)> = BTreeMap::new();
        for group in &self.groups {
            let Some(pod) = &group.pod else { continue };
            let of_container = group
                .parent
                .is_some_and(|parent| self.groups[parent].pod.is_some());
            let (own, containers) = pods.entry(pod).or_default();
            let into = if of_container { containers } else { own };
            into.add(&group.cpus);
        }
        let live = |(uid, (own, containers)): (&str, (CpuSet, CpuSet))| LivePod {
            uid: PodUid::try_from(uid.to_owned()).ok(),
            cpus: if containers.is_empty() {
                own
            } else {
                containers
            },
        };
        pods.into_iter().map(live).collect()
    }
}

fn read(files: &impl Cpusets, path: &Path) -> Result<Option<CpuSet>, CpuError> {
    files.read(path).map_err(|source| CpuError::File {
        action: "read the CPUs of",
        path: path.to_owned(),
        source,
    })
}

/// Writes to cgroups, one after the other. What went meanwhile is left out; what was refused for how things stand at the
/// moment is the error that is returned in the end, and the rest is written all the same.
pub fn write(
    files: &mut impl Cpusets,
    scan: &Scan,
    writes: &[(usize, CpuSet)],
) -> Result<(), CpuError> {
    let mut first = Ok(());
    for (at, cpus) in writes {
        let path = &scan.paths[*at];
        match files.write(path, cpus) {
            Ok(()) => {}
            Err(source)
                if source.kind() == io::ErrorKind::NotFound
                    || source.raw_os_error() == Some(nix::libc::ENODEV) => {}
            Err(source) => {
                first = first.and(Err(CpuError::File {
                    action: "set the CPUs of",
                    path: path.clone(),
                    source,
                }));
            }
        }
    }
    first
}
