//! Where the kubelet keeps pods: cgroup v1 and v2, cgroupfs and systemd drivers. Used by [`super::inspect`],
//! [`super::usage`] and [`super::cpuset`].
//!
//! The kubelet's root is told by the agent's own `/proc/self/cgroup` where that shows it (cgroup v1, or v2 in the
//! node's namespace). A private cgroup namespace hides it; then the tree is searched, to a small depth.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::protocol::PodUid;

/// How deep below a hierarchy the kubelet's root is searched: `system.slice/kubelet.slice/kubelet-kubepods.slice` and one more.
const SEARCH_DEPTH: usize = 4;
/// Most directories looked at in a search; a node has a few hundred.
const SEARCH_LIMIT: usize = 4000;
/// A search that found nothing is not repeated sooner.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// A resource whose files live in a hierarchy of their own on cgroup v1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resource {
    /// CPU time.
    Cpu,
    /// Memory, and on v1 the list of processes.
    Memory,
    /// The CPUs that processes may run on.
    Cpuset,
}

/// Which files a hierarchy has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// The node's cgroup tree.
#[derive(Debug)]
pub struct Tree {
    version: Version,
    cpu: Hierarchy,
    memory: Hierarchy,
    cpuset: Hierarchy,
}

/// One mounted hierarchy and the kubelet's roots in it.
#[derive(Debug)]
struct Hierarchy {
    mount: PathBuf,
    own: Vec<PathBuf>,
    roots: Vec<PathBuf>,
    searched: Option<Instant>,
}

impl Tree {
    /// The tree mounted at `root`; `own_cgroups` is the text of the agent's `/proc/self/cgroup`.
    pub fn new(root: &Path, own_cgroups: &str) -> Self {
        let own = own_kubepods(own_cgroups);
        let hierarchy = |mount: PathBuf| Hierarchy {
            mount,
            own: own.clone(),
            roots: Vec::new(),
            searched: None,
        };
        if root.join("cgroup.controllers").exists() {
            return Self {
                version: Version::V2,
                cpu: hierarchy(root.to_owned()),
                memory: hierarchy(root.to_owned()),
                cpuset: hierarchy(root.to_owned()),
            };
        }
        // The usual mount points; `cpuacct` is a link to the joint one where both exist.
        let cpu = ["cpuacct", "cpu,cpuacct", "cpuacct,cpu"]
            .into_iter()
            .map(|name| root.join(name))
            .find(|path| path.is_dir())
            .unwrap_or_else(|| root.join("cpuacct"));
        Self {
            version: Version::V1,
            cpu: hierarchy(cpu),
            memory: hierarchy(root.join("memory")),
            cpuset: hierarchy(root.join("cpuset")),
        }
    }

    /// Which files the tree has.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The pod's directory, where it has one.
    pub fn pod(&mut self, uid: &PodUid, resource: Resource, now: Instant) -> Option<PathBuf> {
        self.hierarchy(resource).pod(uid, now)
    }

    /// The directories below which the kubelet keeps all pods; none where there are none yet.
    pub fn roots(&mut self, resource: Resource, now: Instant) -> Vec<PathBuf> {
        let hierarchy = self.hierarchy(resource);
        hierarchy.roots.retain(|root| root.is_dir());
        if hierarchy.roots.is_empty() {
            hierarchy.search(now);
        }
        hierarchy.roots.clone()
    }

    fn hierarchy(&mut self, resource: Resource) -> &mut Hierarchy {
        match resource {
            Resource::Cpu => &mut self.cpu,
            Resource::Memory => &mut self.memory,
            Resource::Cpuset => &mut self.cpuset,
        }
    }
}

impl Hierarchy {
    fn pod(&mut self, uid: &PodUid, now: Instant) -> Option<PathBuf> {
        if let Some(found) = find_pod(&self.roots, uid) {
            return Some(found);
        }
        self.search(now)
            .then(|| find_pod(&self.roots, uid))
            .flatten()
    }

    /// Looks for the roots, where it is time to: the kubelet may have started after this process, and on some nodes the
    /// roots differ by pod class.
    fn search(&mut self, now: Instant) -> bool {
        if self
            .searched
            .is_some_and(|at| now.duration_since(at) < SEARCH_PAUSE)
        {
            return false;
        }
        self.searched = Some(now);
        let own: Vec<PathBuf> = self
            .own
            .iter()
            .map(|path| self.mount.join(path))
            .filter(|path| path.is_dir())
            .collect();
        self.roots = if own.is_empty() {
            search(&self.mount)
        } else {
            own
        };
        true
    }
}

/// The paths of `/proc/self/cgroup` down to the kubelet's root, relative to the mount, without repetition.
fn own_kubepods(own_cgroups: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in own_cgroups.lines() {
        // hierarchy-id:controllers:path
        let Some(path) = line.splitn(3, ':').nth(2) else {
            continue;
        };
        let mut root = PathBuf::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if part == ".." {
                break;
            }
            root.push(part);
            if is_kubepods(part) {
                if !found.contains(&root) {
                    found.push(root);
                }
                break;
            }
        }
    }
    found
}

/// `kubepods` (cgroupfs), `kubepods.slice` (systemd), or `<root>-kubepods.slice` (systemd, with a cgroup root).
fn is_kubepods(name: &str) -> bool {
    name == "kubepods" || name == "kubepods.slice" || name.ends_with("-kubepods.slice")
}

/// Breadth first, so that the roots nearest to the top win; what is below a root is not searched.
fn search(mount: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue = VecDeque::from([(mount.to_owned(), 0)]);
    let mut seen = 0;
    while let Some((directory, depth)) = queue.pop_front() {
        for (name, path) in directories(&directory) {
            seen += 1;
            if seen > SEARCH_LIMIT {
                return found;
            }
            if is_kubepods(&name) {
                found.push(path);
            } else if depth + 1 < SEARCH_DEPTH {
                queue.push_back((path, depth + 1));
            }
        }
    }
    found
}

/// The directories directly below `path`; none where it cannot be read. Links are not followed.
pub fn directories(path: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}

/// The pod's directory below one of the kubelet's roots.
fn find_pod(roots: &[PathBuf], uid: &PodUid) -> Option<PathBuf> {
    roots.iter().find_map(|root| {
        let name = root.file_name().and_then(OsStr::to_str)?;
        let candidates = match name.strip_suffix(".slice") {
            None => [
                root.join(format!("pod{uid}")),
                root.join(format!("burstable/pod{uid}")),
                root.join(format!("besteffort/pod{uid}")),
            ],
            // systemd reads a dash as a level, so the UID's are underscores.
            Some(prefix) => {
                let uid = uid.as_str().replace('-', "_");
                [
                    root.join(format!("{prefix}-pod{uid}.slice")),
                    root.join(format!(
                        "{prefix}-burstable.slice/{prefix}-burstable-pod{uid}.slice"
                    )),
                    root.join(format!(
                        "{prefix}-besteffort.slice/{prefix}-besteffort-pod{uid}.slice"
                    )),
                ]
            }
        };
        candidates.into_iter().find(|path| path.is_dir())
    })
}

/// The UID of a pod, out of the name of its cgroup; `None` for a class of pods and for a container. Of a static pod it is no
/// UUID.
pub fn pod_uid(directory: &str) -> Option<String> {
    let uid = match directory.strip_suffix(".slice") {
        None => directory.strip_prefix("pod")?.to_owned(),
        Some(name) => name.rsplit_once("-pod")?.1.replace('_', "-"),
    };
    (!uid.is_empty()).then_some(uid)
}

/// The runtime's id of a container, out of the name of its cgroup; `None` for a runtime's own helper.
///
/// cri-o keeps its monitor in a `crio-conmon-<id>.scope` next to the container; it is no process of the pod.
pub fn container_id(directory: &str) -> Option<&str> {
    let name = directory.strip_suffix(".scope").unwrap_or(directory);
    if name.starts_with("crio-conmon-") {
        return None;
    }
    Some(
        ["cri-containerd-", "crio-", "docker-"]
            .into_iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .unwrap_or(name),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11";

    fn uid() -> PodUid {
        PodUid::try_from(UID.to_owned()).unwrap()
    }

    fn tree_with(paths: &[&str], own: &str) -> (tempfile::TempDir, Tree) {
        let root = tempfile::tempdir().unwrap();
        for path in paths {
            let path = root.path().join(path);
            if path.file_name().unwrap() == "cgroup.controllers" {
                fs::write(path, "cpu memory").unwrap();
            } else {
                fs::create_dir_all(path).unwrap();
            }
        }
        let tree = Tree::new(root.path(), own);
        (root, tree)
    }

    #[test]
    fn a_pod_is_found_under_every_layout() {
        let u = UID.replace('-', "_");
        for (paths, own, want) in [
            (
                vec![
                    "cgroup.controllers".to_owned(),
                    format!(
                        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{u}.slice"
                    ),
                ],
                "0::/",
                1,
            ),
            (
                vec![
                    "cgroup.controllers".to_owned(),
                    format!("kubepods.slice/kubepods-pod{u}.slice"),
                ],
                "0::/kubepods.slice/kubepods-burstable.slice/x",
                1,
            ),
            (
                vec![
                    "cgroup.controllers".to_owned(),
                    format!(
                        "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{u}.slice"
                    ),
                ],
                "0::/../../x",
                1,
            ),
            (
                vec![
                    "cgroup.controllers".to_owned(),
                    format!("kubepods/besteffort/pod{UID}"),
                ],
                "0::/",
                1,
            ),
            (
                vec![
                    format!("memory/kubepods/burstable/pod{UID}"),
                    format!("cpuacct/kubepods/burstable/pod{UID}"),
                ],
                "4:memory:/",
                1,
            ),
            (
                vec![
                    format!("memory/knode-1/kubepods/pod{UID}"),
                    format!("cpu,cpuacct/knode-1/kubepods/pod{UID}"),
                ],
                "4:memory:/knode-1/kubepods/burstable/podx/y\n0::/",
                1,
            ),
        ] {
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            let (_root, mut tree) = tree_with(&paths, own);
            for resource in [Resource::Cpu, Resource::Memory] {
                let found = tree.pod(&uid(), resource, Instant::now());
                assert_eq!(found.iter().count(), want, "{paths:?} {resource:?}");
            }
        }
    }

    #[test]
    fn the_own_root_keeps_an_agent_from_the_pods_of_another_node() {
        let other = format!("memory/knode-2/kubepods/pod{UID}");
        let own = "4:memory:/knode-1/kubepods/burstable/podx/y";
        let (_root, mut tree) = tree_with(&["memory/knode-1/kubepods", &other], own);
        assert_eq!(tree.pod(&uid(), Resource::Memory, Instant::now()), None);
    }

    #[test]
    fn a_kubelet_that_comes_late_is_found_after_the_pause() {
        let (root, mut tree) = tree_with(&["cgroup.controllers"], "0::/");
        let start = Instant::now();
        assert_eq!(tree.pod(&uid(), Resource::Memory, start), None);
        fs::create_dir_all(root.path().join(format!("kubepods/pod{UID}"))).unwrap();
        assert_eq!(tree.pod(&uid(), Resource::Memory, start), None);
        assert!(
            tree.pod(&uid(), Resource::Memory, start + SEARCH_PAUSE)
                .is_some()
        );
    }

    #[test]
    fn a_pod_is_known_by_its_directory_under_both_drivers() {
        let u = UID.replace('-', "_");
        for (directory, uid) in [
            (format!("pod{UID}"), Some(UID)),
            (format!("kubepods-pod{u}.slice"), Some(UID)),
            (
                format!("kubelet-kubepods-burstable-pod{u}.slice"),
                Some(UID),
            ),
            ("poda1b2".to_owned(), Some("a1b2")),
            ("pod".to_owned(), None),
            ("burstable".to_owned(), None),
            ("kubepods-burstable.slice".to_owned(), None),
            ("cri-containerd-abc.scope".to_owned(), None),
        ] {
            assert_eq!(pod_uid(&directory).as_deref(), uid, "{directory}");
        }
    }

    #[test]
    fn the_roots_are_those_of_the_own_node_and_found_again_when_they_were_made_anew() {
        let paths = ["cpuset/knode-1/kubepods", "cpuset/knode-2/kubepods"];
        let (root, mut tree) = tree_with(&paths, "4:cpuset:/knode-1/kubepods/podx/y");
        let own = root.path().join(paths[0]);
        let start = Instant::now();
        assert_eq!(
            tree.roots(Resource::Cpuset, start),
            std::slice::from_ref(&own)
        );
        fs::remove_dir(&own).unwrap();
        assert!(tree.roots(Resource::Cpuset, start).is_empty());
        fs::create_dir(&own).unwrap();
        assert_eq!(tree.roots(Resource::Cpuset, start + SEARCH_PAUSE), [own]);
    }

    #[test]
    fn a_monitor_is_no_container_and_decorations_are_removed() {
        assert_eq!(container_id("cri-containerd-abc.scope"), Some("abc"));
        assert_eq!(container_id("crio-abc.scope"), Some("abc"));
        assert_eq!(container_id("crio-conmon-abc.scope"), None);
        assert_eq!(container_id("abc"), Some("abc"));
    }
}
