//! What `host` reads of pods, on either version of cgroups: any content of the kernel's files, and any name of a
//! container's directory, give an answer that fits into a frame.
//!
//! Input: the contents of the files, one after the other, see [`Input`].
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pilotlight_node_agent::args::HostArgs;
use pilotlight_node_agent::host::cgroup::container_id;
use pilotlight_node_agent::host::kernel::{Kernel, NodeKernel};
use pilotlight_node_agent::protocol::{MAX_CONTAINERS, MAX_FRAME_BYTES, PodUid, Response};

const UID: &str = "0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11";
/// Separates the contents of the files; a byte of no valid text.
const SEPARATOR: u8 = 0xff;
/// The process that has a status; the corpus names it.
const PID: &str = "proc/7/status";
/// The pod's directory below its hierarchy, as cgroupfs and as systemd name it.
const V1: &str = "kubepods/burstable/pod0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11";
const V2: &str = "kubepods.slice/kubepods-pod0f7c1b52_3c6e_4f8e_9a53_1f0a3f1a9d11.slice";
/// Characters of a directory's name that are used: four bytes each stay below the kernel's 255.
const NAME_CHARACTERS: usize = 60;

/// What the input says.
struct Input<'a> {
    own_cgroups: &'a [u8],
    container: String,
    processes: &'a [u8],
    status: &'a [u8],
    cpu: &'a [u8],
    memory: &'a [u8],
    stat: &'a [u8],
}

impl<'a> Input<'a> {
    fn read(data: &'a [u8]) -> Self {
        let mut parts = data.split(|byte| *byte == SEPARATOR);
        let mut next = || parts.next().unwrap_or_default();
        Self {
            own_cgroups: next(),
            container: String::from_utf8_lossy(next()).into_owned(),
            processes: next(),
            status: next(),
            cpu: next(),
            memory: next(),
            stat: next(),
        }
    }

    /// The container's name where a directory beside the pod's files can have it.
    fn directory(&self) -> Option<String> {
        let possible = |c: &char| *c != '/' && *c != '\0';
        let name = self.container.chars().filter(possible);
        let name: String = name.take(NAME_CHARACTERS).collect();
        let taken = ["", ".", ".."].contains(&name.as_str())
            || ["cpuacct.", "memory.", "cpu.", "cgroup."]
                .iter()
                .any(|start| name.starts_with(start));
        (!taken).then_some(name)
    }
}

fuzz_target!(|data: &[u8]| {
    let input = Input::read(data);
    if let Some(id) = container_id(&input.container) {
        assert!(input.container.contains(id));
    }
    let root = root();
    write(&root.join(PID), input.status);
    write(&root.join("proc/self/cgroup"), input.own_cgroups);
    let v1 = ["cpuacct.usage", "memory.usage_in_bytes", "memory.stat"];
    let v2 = ["cpu.stat", "memory.current", "memory.stat"];
    for (tree, hierarchies, pod, files) in [
        ("v1", ["cpuacct", "memory", "memory"], V1, v1),
        ("v2", ["", "", ""], V2, v2),
    ] {
        let tree = root.join(tree);
        let contents = [input.cpu, input.memory, input.stat];
        for ((hierarchy, file), content) in hierarchies.iter().zip(files).zip(contents) {
            write(&tree.join(hierarchy).join(pod).join(file), content);
        }
        let pod = tree.join(hierarchies[1]).join(pod);
        let container = input.directory().map(|name| pod.join(name));
        if let Some(container) = &container {
            make(container);
            write(&container.join("cgroup.procs"), input.processes);
        }
        look(&tree, &root.join("proc"));
        if let Some(container) = &container {
            assert!(fs::remove_dir_all(container).is_ok());
        }
    }
});

fn look(tree: &Path, proc_root: &Path) {
    let Ok(uid) = PodUid::try_from(UID.to_owned()) else {
        return;
    };
    let pods = [uid];
    let Ok(mut kernel) = NodeKernel::new(&arguments(tree, proc_root)) else {
        return;
    };
    let inspected = kernel.inspect(&pods);
    assert_eq!(inspected.len(), 1);
    assert!(
        inspected
            .iter()
            .all(|pod| pod.containers.len() <= MAX_CONTAINERS)
    );
    let used = kernel.usage(&pods);
    assert!(used.len() <= 1);
    for answer in [Response::Inspected(inspected), Response::Usage(used)] {
        assert!(serde_json::to_vec(&answer).is_ok_and(|sent| sent.len() < MAX_FRAME_BYTES));
    }
}

/// Nothing but these two is looked at: where the kubelet's state is not given no CPUs are, and no seccomp profile is written
/// before somebody asks for it.
fn arguments(tree: &Path, proc_root: &Path) -> HostArgs {
    HostArgs {
        socket: PathBuf::new(),
        api_uid: 0,
        api_gid: 0,
        cgroup_root: tree.to_owned(),
        seccomp_root: PathBuf::new(),
        proc_root: proc_root.to_owned(),
        system_root: PathBuf::new(),
        kubelet_cpu_state: None,
        state_dir: PathBuf::new(),
        reserved_cpus: String::new(),
        shared_cpu_floor: 1,
    }
}

/// One folder for all inputs: making it takes longer than reading it.
fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = std::env::temp_dir().join(format!("pilotlight-cgroup-{}", std::process::id()));
        for folder in [
            "proc/7".to_owned(),
            "proc/self".to_owned(),
            format!("v1/cpuacct/{V1}"),
            format!("v1/memory/{V1}"),
            format!("v2/{V2}"),
        ] {
            make(&root.join(folder));
        }
        write(&root.join("v2/cgroup.controllers"), b"cpu memory\n");
        root
    })
}

fn make(folder: &Path) {
    assert!(fs::create_dir_all(folder).is_ok(), "{}", folder.display());
}

fn write(path: &Path, content: &[u8]) {
    assert!(fs::write(path, content).is_ok(), "{}", path.display());
}
