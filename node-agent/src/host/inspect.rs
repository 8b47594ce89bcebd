//! Which processes a pod has and whether a seccomp filter holds each. Called by [`super::kernel`].

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::cgroup::{container_id, directories};
use crate::protocol::{
    ContainerInspection, MAX_CONTAINER_NAME, MAX_CONTAINERS, MAX_PROCESSES, PodInspection, PodUid,
};

/// The `Seccomp:` of `/proc/<pid>/status` where filters hold the process.
const SECCOMP_MODE_FILTER: u32 = 2;
/// Most bytes read of one kernel file. A status is about 1.5 KiB, its list of groups can make it longer.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Cgroups below one container that are looked into: a container with a cgroup tree of its own has few.
const MAX_NESTED: usize = 64;

/// What `/proc/<pid>/status` says of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Process {
    /// A filter holds it.
    Confined,
    /// No filter holds it.
    Unconfined,
    /// It ended meanwhile, or is a zombie that runs no more code.
    Gone,
    /// The kernel did not tell.
    Unknown,
}

/// The processes of the pod whose cgroup is `directory`.
pub fn inspect(uid: &PodUid, directory: Option<&Path>, proc_root: &Path) -> PodInspection {
    let Some(directory) = directory else {
        return PodInspection {
            uid: uid.clone(),
            found: false,
            containers: Vec::new(),
            truncated: false,
            pin: None,
        };
    };
    let mut containers = Vec::new();
    let mut truncated = false;
    // Processes of the pod's own cgroup belong to no container; some runtimes keep their helpers there.
    let own = container(String::new(), &[directory], proc_root);
    if own.processes > 0 {
        containers.push(own);
    }
    for (name, path) in directories(directory) {
        let Some(id) = container_id(&name) else {
            continue;
        };
        if containers.len() == MAX_CONTAINERS {
            truncated = true;
            break;
        }
        let nested = with_nested(&path);
        let cgroups: Vec<&Path> = nested.0.iter().map(AsRef::as_ref).collect();
        let id = id.chars().take(MAX_CONTAINER_NAME).collect();
        let mut container = container(id, &cgroups, proc_root);
        container.truncated |= nested.1;
        containers.push(container);
    }
    PodInspection {
        uid: uid.clone(),
        found: true,
        containers,
        truncated,
        pin: None,
    }
}

/// `directory` and all below it, and whether there were too many.
fn with_nested(directory: &Path) -> (Vec<std::path::PathBuf>, bool) {
    let mut all = vec![directory.to_owned()];
    let mut next = 0;
    while next < all.len() {
        for (_, path) in directories(&all[next]) {
            if all.len() == MAX_NESTED {
                return (all, true);
            }
            all.push(path);
        }
        next += 1;
    }
    (all, false)
}

fn container(id: String, cgroups: &[&Path], proc_root: &Path) -> ContainerInspection {
    let mut inspection = ContainerInspection {
        id,
        processes: 0,
        unconfined: None,
        truncated: false,
    };
    for cgroup in cgroups {
        let (pids, complete) = processes(cgroup);
        inspection.truncated |= !complete;
        for pid in pids {
            if inspection.processes as usize == MAX_PROCESSES {
                inspection.truncated = true;
                return inspection;
            }
            match process(proc_root, pid) {
                Process::Confined => inspection.processes += 1,
                Process::Gone => {}
                Process::Unknown => {
                    inspection.processes += 1;
                    inspection.truncated = true;
                }
                Process::Unconfined => {
                    // The number may have passed to a process of somebody else since the list was read.
                    if processes(cgroup).0.contains(&pid) {
                        inspection.processes += 1;
                        inspection.unconfined.get_or_insert(pid);
                    }
                }
            }
        }
    }
    inspection
}

/// The processes of one cgroup, and whether these are all.
pub(crate) fn processes(cgroup: &Path) -> (Vec<u32>, bool) {
    let Some(text) = read(&cgroup.join("cgroup.procs")) else {
        return (Vec::new(), !cgroup.exists());
    };
    let complete = (text.len() as u64) < MAX_FILE_BYTES;
    // 0 stands for a process of another PID namespace, whose status cannot be read: not complete.
    let foreign = text.lines().any(|line| line == "0");
    let pids = text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid != 0)
        .collect();
    (pids, complete && !foreign)
}

fn process(proc_root: &Path, pid: u32) -> Process {
    match read(&proc_root.join(pid.to_string()).join("status")) {
        None => Process::Gone,
        Some(status) => parse_status(&status),
    }
}

/// Field names are matched at the start of a line. The kernel escapes line breaks in the only field that a process chooses itself, `Name:`.
fn parse_status(status: &str) -> Process {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    if field("State:").is_some_and(|state| state.starts_with(['Z', 'X'])) {
        return Process::Gone;
    }
    match field("Seccomp:").and_then(|mode| mode.parse().ok()) {
        Some(SECCOMP_MODE_FILTER) => Process::Confined,
        Some(_) => Process::Unconfined,
        None => Process::Unknown,
    }
}

/// The first [`MAX_FILE_BYTES`] of a kernel file. A process's name may be no UTF-8, so that is no error.
fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::with_capacity(2048);
    File::open(path)
        .ok()?
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn uid() -> PodUid {
        PodUid::try_from("0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11".to_owned()).unwrap()
    }

    struct Node {
        root: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Self {
            Self {
                root: tempfile::tempdir().unwrap(),
            }
        }

        fn cgroup(&self, path: &str, pids: &[u32]) {
            let path = self.root.path().join("pod").join(path);
            fs::create_dir_all(&path).unwrap();
            let lines: Vec<String> = pids.iter().map(|p| format!("{p}\n")).collect();
            fs::write(path.join("cgroup.procs"), lines.concat()).unwrap();
        }

        fn process(&self, pid: u32, status: &str) {
            let path = self.root.path().join("proc").join(pid.to_string());
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("status"), status).unwrap();
        }

        fn inspect(&self) -> PodInspection {
            let mut seen = inspect(
                &uid(),
                Some(&self.root.path().join("pod")),
                &self.root.path().join("proc"),
            );
            seen.containers.sort_by(|a, b| a.id.cmp(&b.id));
            seen
        }
    }

    fn status(state: &str, mode: &str) -> String {
        format!("Name:\tsh\nState:\t{state} (x)\nNoNewPrivs:\t1\nSeccomp:\t{mode}\n")
    }

    #[test]
    fn every_process_of_every_container_is_looked_at() {
        let node = Node::new();
        node.cgroup("", &[]);
        node.cgroup("cri-containerd-aaa.scope", &[10, 11]);
        node.cgroup("cri-containerd-bbb.scope", &[12]);
        node.cgroup("cri-containerd-bbb.scope/nested/deeper", &[13]);
        for (pid, mode) in [(10, "2"), (11, "2"), (12, "2"), (13, "0")] {
            node.process(pid, &status("S", mode));
        }
        let seen = node.inspect();
        assert!(seen.found && !seen.truncated);
        assert_eq!(seen.containers.len(), 2);
        assert_eq!(
            (seen.containers[0].processes, seen.containers[0].unconfined),
            (2, None)
        );
        assert_eq!(
            (seen.containers[1].processes, seen.containers[1].unconfined),
            (2, Some(13))
        );
    }

    #[test]
    fn what_ended_does_not_count_and_what_is_unreadable_is_told() {
        let node = Node::new();
        node.cgroup("aaa", &[1, 2, 3, 4]);
        node.process(1, &status("Z", "0"));
        node.process(3, "Name:\tsh\nState:\tS\n");
        node.process(4, &status("R", "2"));
        let seen = node.inspect();
        assert_eq!(seen.containers[0].processes, 2);
        assert_eq!(seen.containers[0].unconfined, None);
        assert!(seen.containers[0].truncated);
    }

    #[test]
    fn a_process_of_another_namespace_leaves_the_answer_incomplete() {
        let node = Node::new();
        node.cgroup("aaa", &[0, 4]);
        node.process(4, &status("R", "2"));
        assert!(node.inspect().containers[0].truncated);
    }

    #[test]
    fn processes_outside_every_container_are_told_under_an_empty_id() {
        let node = Node::new();
        node.cgroup("", &[7]);
        node.process(7, &status("S", "0"));
        let seen = node.inspect();
        assert_eq!(seen.containers[0].id, "");
        assert_eq!(seen.containers[0].unconfined, Some(7));
    }

    #[test]
    fn a_name_cannot_pose_as_a_field() {
        let text = "Name:\tx\\nSeccomp:\\t2\nState:\tS\nSeccomp:\t0\n";
        assert_eq!(parse_status(text), Process::Unconfined);
    }

    proptest! {
        #[test]
        fn any_status_is_read_without_a_panic(text in "\\PC{0,200}") {
            let _ = parse_status(&text);
        }
    }
}
