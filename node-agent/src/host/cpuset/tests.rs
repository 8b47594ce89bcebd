//! Whole lives of a node's pins, against trees of every layout in folders.

use std::fs;

use super::*;
use crate::cpu::checkpoint::{Checkpoint, Pins};

/// UID of pod `n`.
fn uid(n: usize) -> PodUid {
    PodUid::try_from(format!("00000000-0000-4000-8000-0000000000{n:02x}")).unwrap()
}

fn set(text: &str) -> CpuSet {
    CpuSet::parse(text).unwrap()
}

/// How a node keeps its pods: cgroup version and driver.
#[derive(Clone, Copy, Debug)]
struct Layout {
    v2: bool,
    systemd: bool,
}

const LAYOUTS: [Layout; 4] = [
    Layout {
        v2: false,
        systemd: false,
    },
    Layout {
        v2: false,
        systemd: true,
    },
    Layout {
        v2: true,
        systemd: false,
    },
    Layout {
        v2: true,
        systemd: true,
    },
];

impl Layout {
    fn root(self) -> &'static str {
        match (self.v2, self.systemd) {
            (false, false) => "cpuset/kubepods",
            (false, true) => "cpuset/kubepods.slice",
            (true, false) => "kubepods",
            (true, true) => "kubepods.slice",
        }
    }

    /// A class of pods below the root, or the root itself for Guaranteed ones.
    fn class(self, class: &str) -> String {
        match (class, self.systemd) {
            ("", _) => self.root().to_owned(),
            (class, false) => format!("{}/{class}", self.root()),
            (class, true) => format!("{}/kubepods-{class}.slice", self.root()),
        }
    }

    fn pod(self, class: &str, uid: &str) -> String {
        let folder = self.class(class);
        if !self.systemd {
            return format!("{folder}/pod{uid}");
        }
        let class = if class.is_empty() {
            String::new()
        } else {
            format!("-{class}")
        };
        format!(
            "{folder}/kubepods{class}-pod{}.slice",
            uid.replace('-', "_")
        )
    }

    fn container(self, class: &str, uid: &str, id: &str) -> String {
        let pod = self.pod(class, uid);
        if self.systemd {
            format!("{pod}/cri-containerd-{id}.scope")
        } else {
            format!("{pod}/{id}")
        }
    }
}

/// A node in a folder: cgroups, `/sys/devices/system`, `/proc`, the kubelet's and the agent's state.
struct Node {
    folder: tempfile::TempDir,
    layout: Layout,
    full: &'static str,
}

impl Node {
    fn new(layout: Layout, full: &'static str) -> Self {
        let node = Self {
            folder: tempfile::tempdir().unwrap(),
            layout,
            full,
        };
        node.online(full);
        node.boot("boot-1");
        node.kubelet("none");
        fs::create_dir(node.path("state")).unwrap();
        if layout.v2 {
            fs::create_dir(node.path("cgroup")).unwrap();
            fs::write(
                node.path("cgroup/cgroup.controllers"),
                "cpuset cpu memory\n",
            )
            .unwrap();
        }
        node.group(layout.root(), full);
        for class in ["burstable", "besteffort"] {
            node.group(&layout.class(class), full);
        }
        // The agent's own pod and a static one, as every node has them.
        node.pod("burstable", uid(200).as_str(), full);
        node.pod("burstable", "a1b2c3d4e5f60718293a4b5c6d7e8f90", full);
        node
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn online(&self, cpus: &str) {
        fs::create_dir_all(self.path("system/cpu")).unwrap();
        fs::write(self.path("system/cpu/online"), format!("{cpus}\n")).unwrap();
    }

    fn boot(&self, id: &str) {
        fs::create_dir_all(self.path("proc/sys/kernel/random")).unwrap();
        fs::write(self.path("proc/sys/kernel/random/boot_id"), id).unwrap();
    }

    /// As the kubelet writes it: a new file in the place of the old.
    fn kubelet(&self, policy: &str) {
        let text =
            format!(r#"{{"policyName":"{policy}","defaultCpuSet":"","checksum":1353318690}}"#);
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path("cpu_manager_state")).unwrap();
    }

    fn group(&self, path: &str, cpus: &str) {
        let folder = self.path("cgroup").join(path);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cpuset.cpus"), format!("{cpus}\n")).unwrap();
        if self.layout.v2 {
            // What is written takes effect.
            let effective = folder.join("cpuset.cpus.effective");
            if !effective.exists() {
                std::os::unix::fs::symlink("cpuset.cpus", effective).unwrap();
            }
        }
    }

    fn pod(&self, class: &str, uid: &str, cpus: &str) {
        self.group(&self.layout.pod(class, uid), cpus);
        for id in ["pause", "main"] {
            self.group(&self.layout.container(class, uid, id), cpus);
        }
    }

    fn remove(&self, class: &str, uid: &str) {
        fs::remove_dir_all(self.path("cgroup").join(self.layout.pod(class, uid))).unwrap();
    }

    fn cpus_of(&self, path: &str) -> String {
        let text = fs::read_to_string(self.path("cgroup").join(path).join("cpuset.cpus"));
        text.unwrap().trim().to_owned()
    }

    fn main(&self, class: &str, n: usize) -> String {
        self.cpus_of(&self.layout.container(class, uid(n).as_str(), "main"))
    }

    /// An agent that starts.
    fn start(&self) -> Cpus {
        let places = Places {
            kubelet_state: Some(&self.path("cpu_manager_state")),
            system: &self.path("system"),
            proc_root: &self.path("proc"),
            state: &self.path("state"),
        };
        let own = if self.layout.v2 {
            "0::/".to_owned()
        } else {
            let pod = self.layout.pod("burstable", uid(200).as_str());
            format!("4:cpuset:/{}/x\n", pod.trim_start_matches("cpuset/"))
        };
        detect(&places, Tree::new(&self.path("cgroup"), &own), "", 1)
    }
}

fn granted(answer: &PinAnswer) -> String {
    match answer {
        PinAnswer::Granted(cpus) => cpus.to_string(),
        PinAnswer::Refused { reason, message } => panic!("{reason:?}: {message}"),
    }
}

fn refused(answer: PinAnswer) -> (PinRefusal, String) {
    match answer {
        PinAnswer::Refused { reason, message } => (reason, message),
        PinAnswer::Granted(cpus) => panic!("granted {cpus}"),
    }
}

#[test]
fn under_every_layout_a_pod_gets_cpus_and_all_others_leave_them() {
    for layout in LAYOUTS {
        let node = Node::new(layout, "0-3");
        for n in [1, 2] {
            node.pod("", uid(n).as_str(), "0-3");
        }
        node.pod("burstable", uid(3).as_str(), "0-3");
        let mut cpus = node.start();
        assert_eq!(cpus.name(), "cgroup");
        assert_eq!(cpus.state(Instant::now()).free, 3);
        let now = Instant::now();
        assert_eq!(granted(&cpus.pin(&uid(1), 2, now)), "0-1", "{layout:?}");
        assert_eq!(node.main("", 1), "0-1", "{layout:?}");
        for other in [
            node.main("", 2),
            node.main("burstable", 3),
            node.main("burstable", 200),
        ] {
            assert_eq!(other, "2-3", "{layout:?}");
        }
        let pause = layout.container("", uid(1).as_str(), "pause");
        assert_eq!(node.cpus_of(&pause), "0-1");
        // Classes too, so that a container that starts there starts where it belongs.
        assert_eq!(node.cpus_of(&layout.class("burstable")), "2-3");
        assert_eq!(node.cpus_of(layout.root()), "0-3");
        let state = cpus.state(now);
        assert_eq!((state.free, state.capacity, state.pins.len()), (1, 3, 1));
        assert!(state.pins[0].intact);

        node.remove("", uid(1).as_str());
        cpus.tick(now);
        for other in [node.main("", 2), node.main("burstable", 3)] {
            assert_eq!(
                other, "0-3",
                "{layout:?}: the whole set, and not an empty one"
            );
        }
        assert_eq!(cpus.state(now).free, 3);
    }
}

#[test]
fn as_long_as_nobody_asks_nothing_is_written() {
    for layout in LAYOUTS {
        let node = Node::new(layout, "0-3");
        // Somebody else's doing, on a node where nothing was ever pinned.
        node.pod("", uid(1).as_str(), "2");
        let mut cpus = node.start();
        cpus.tick(Instant::now());
        let _ = cpus.state(Instant::now());
        assert_eq!(node.main("", 1), "2");
        assert!(!node.path("state/cpus.json").exists());
    }
}

#[test]
fn after_a_restart_of_the_agent_every_pod_keeps_what_it_has() {
    for layout in LAYOUTS {
        let node = Node::new(layout, "0-3");
        node.pod("", uid(1).as_str(), "0-3");
        node.pod("", uid(2).as_str(), "0-3");
        let now = Instant::now();
        assert_eq!(granted(&node.start().pin(&uid(1), 1, now)), "0");
        assert_eq!(granted(&node.start().pin(&uid(2), 1, now)), "1");
        node.remove("", uid(1).as_str());
        // The agent was away when the first ended; the second is not moved into its place.
        let mut again = node.start();
        again.tick(now);
        assert_eq!(granted(&again.pin(&uid(2), 1, now)), "1");
        assert_eq!(node.main("", 2), "1");
    }
}

#[test]
fn without_its_checkpoint_a_node_finds_the_pins_in_the_cgroups() {
    for layout in LAYOUTS {
        for damage in ["gone", "cut", "other boot"] {
            let node = Node::new(layout, "0-3");
            node.pod("", uid(1).as_str(), "0-3");
            node.pod("", uid(2).as_str(), "0-3");
            let now = Instant::now();
            granted(&node.start().pin(&uid(1), 1, now));
            granted(&node.start().pin(&uid(2), 2, now));
            node.remove("", uid(1).as_str());
            node.start().tick(now);
            assert_eq!(node.main("", 2), "1-2");
            let file = node.path("state/cpus.json");
            match damage {
                "gone" => fs::remove_file(&file).unwrap(),
                "cut" => fs::write(&file, "{\"checkpoint\":").unwrap(),
                _ => node.boot("boot-2"),
            }
            let mut again = node.start();
            let state = again.state(now);
            assert_eq!(state.pins.len(), 1, "{layout:?} {damage}");
            assert_eq!(state.pins[0].cpus, set("1-2"));
            assert_eq!(node.main("", 2), "1-2", "{layout:?} {damage}");
        }
    }
}

#[test]
fn after_a_boot_an_old_checkpoint_pins_nobody() {
    let node = Node::new(LAYOUTS[0], "0-3");
    node.pod("", uid(1).as_str(), "0-3");
    let pins: Pins = [(uid(1), set("2-3"))].into();
    let old = Checkpoint::new("boot-0", "", pins).write().unwrap();
    fs::write(node.path("state/cpus.json"), old).unwrap();
    let mut cpus = node.start();
    cpus.tick(Instant::now());
    assert!(cpus.state(Instant::now()).pins.is_empty());
    assert_eq!(node.main("", 1), "0-3");
}

#[test]
fn a_checkpoint_that_gives_one_core_to_two_never_makes_them_share() {
    for layout in LAYOUTS {
        let node = Node::new(layout, "0-3");
        node.pod("", uid(1).as_str(), "0-3");
        node.pod("", uid(2).as_str(), "0-3");
        let now = Instant::now();
        granted(&node.start().pin(&uid(1), 2, now));
        let lie: Pins = [(uid(1), set("2")), (uid(2), set("0-1"))].into();
        let lie = Checkpoint::new("boot-1", "", lie).write().unwrap();
        fs::write(node.path("state/cpus.json"), lie).unwrap();
        let mut again = node.start();
        again.tick(now);
        // Who runs on CPUs of its own keeps them, and the other is not let in.
        assert_eq!(node.main("", 1), "0-1");
        assert_eq!(node.main("", 2), "2-3");
        let state = again.state(now);
        assert_eq!(state.pins.len(), 1);
    }
}

#[test]
fn a_container_that_starts_anew_is_back_on_its_cpus_with_the_next_look() {
    for layout in LAYOUTS {
        let node = Node::new(layout, "0-3");
        node.pod("", uid(1).as_str(), "0-3");
        node.pod("", uid(2).as_str(), "0-3");
        let mut cpus = node.start();
        let now = Instant::now();
        granted(&cpus.pin(&uid(1), 1, now));
        let old = layout.container("", uid(1).as_str(), "main");
        fs::remove_dir_all(node.path("cgroup").join(old)).unwrap();
        let new = layout.container("", uid(1).as_str(), "again");
        let other = layout.container("", uid(2).as_str(), "again");
        let newcomer = layout.container("", uid(7).as_str(), "main");
        node.group(&new, "0-3");
        node.group(&other, "0-3");
        node.pod("", uid(7).as_str(), "0-3");
        assert!(cpus.pin_of(&uid(1)).unwrap().intact);
        cpus.tick(now);
        assert_eq!(node.cpus_of(&new), "0");
        assert_eq!(node.cpus_of(&other), "1-3");
        assert_eq!(node.cpus_of(&newcomer), "1-3");
        assert!(cpus.pin_of(&uid(1)).unwrap().intact);
    }
}

#[test]
fn cpus_that_went_offline_are_told_and_given_to_nobody_else() {
    let node = Node::new(LAYOUTS[0], "0-3");
    node.pod("", uid(1).as_str(), "0-3");
    node.pod("", uid(2).as_str(), "0-3");
    let mut cpus = node.start();
    let now = Instant::now();
    assert_eq!(granted(&cpus.pin(&uid(1), 2, now)), "0-1");
    node.online("0,2-3");
    let state = cpus.state(now);
    assert!(state.message.contains('1'), "{}", state.message);
    assert!(!state.pins[0].intact);
    assert_eq!(refused(cpus.pin(&uid(1), 2, now)).0, PinRefusal::NoCpus);
    // The one that is left is still the pod's.
    assert_eq!(granted(&cpus.pin(&uid(2), 1, now)), "2");
    assert_eq!(state.free, 1);
    node.online(node.full);
    let state = cpus.state(now);
    assert_eq!(state.message, "");
    assert!(state.pins.iter().all(|pin| pin.intact));
    assert_eq!(node.main("", 1), "0-1");
}

#[test]
fn what_cannot_be_given_is_refused_with_its_reason_and_nobody_is_moved() {
    let node = Node::new(LAYOUTS[3], "0-1");
    for n in [1, 2] {
        node.pod("", uid(n).as_str(), "0-1");
    }
    let mut cpus = node.start();
    let now = Instant::now();
    let (reason, message) = refused(cpus.pin(&uid(1), 2, now));
    assert_eq!(reason, PinRefusal::NoCpus);
    assert!(message.contains("1 to one sandbox at most"), "{message}");
    assert_eq!(refused(cpus.pin(&uid(9), 1, now)).0, PinRefusal::Failed);
    assert_eq!(node.main("", 1), "0-1");
    assert!(!node.path("state/cpus.json").exists());
    granted(&cpus.pin(&uid(1), 1, now));
    let (reason, message) = refused(cpus.pin(&uid(2), 1, now));
    assert_eq!(reason, PinRefusal::NoCpus);
    assert!(message.contains("0 are free"), "{message}");
}

#[test]
fn where_the_checkpoint_cannot_be_written_nobody_is_pinned() {
    let node = Node::new(LAYOUTS[0], "0-3");
    node.pod("", uid(1).as_str(), "0-3");
    fs::remove_dir(node.path("state")).unwrap();
    let mut cpus = node.start();
    let now = Instant::now();
    assert_eq!(refused(cpus.pin(&uid(1), 1, now)).0, PinRefusal::Failed);
    assert_eq!(node.main("", 1), "0-3");
    assert!(cpus.state(now).pins.is_empty());
}

#[test]
fn a_kubelet_that_gives_cpus_itself_is_only_looked_at() {
    for layout in LAYOUTS {
        let node = Node::new(layout, "0-3");
        node.kubelet("static");
        let group = |class, n: usize, id, cpus| {
            node.group(&layout.container(class, uid(n).as_str(), id), cpus);
        };
        for n in [1, 2] {
            node.pod("", uid(n).as_str(), "0-3");
        }
        // Pod 1 has CPU 3 of its own; all others run on the rest. Pause containers run anywhere.
        group("", 1, "main", "3");
        group("", 2, "main", "0-2");
        group("burstable", 200, "main", "0-2");
        node.group(
            &layout.container("burstable", "a1b2c3d4e5f60718293a4b5c6d7e8f90", "main"),
            "0-2",
        );
        let mut cpus = node.start();
        assert_eq!(cpus.name(), "observe");
        let now = Instant::now();
        assert_eq!(granted(&cpus.pin(&uid(1), 1, now)), "3", "{layout:?}");
        let (reason, message) = refused(cpus.pin(&uid(2), 1, now));
        assert_eq!(reason, PinRefusal::NoCpus);
        assert!(message.contains("equal requests and limits"), "{message}");
        assert!(cpus.state(now).pins[0].intact);
        // A race of that kubelet's: for up to ten seconds another may run there too.
        group("", 2, "main", "0-3");
        group("", 2, "main", "2-3");
        assert!(!cpus.state(now).pins[0].intact);
        assert_eq!(node.main("", 2), "2-3", "nothing is written");
        assert!(!node.path("state/cpus.json").exists());
    }
}

#[test]
fn a_node_that_pins_nothing_says_why() {
    let node = Node::new(LAYOUTS[0], "0-3");
    let why = |cpus: &mut Cpus| cpus.state(Instant::now()).message;
    node.kubelet("clever");
    assert!(why(&mut node.start()).contains("clever"));
    fs::write(node.path("cpu_manager_state"), "{}").unwrap();
    assert!(why(&mut node.start()).contains("not known"));
    node.kubelet("none");
    let mut cpus = node.start();
    assert_eq!(why(&mut cpus), "");
    // The kubelet was started with another policy; the agent was not.
    node.kubelet("static");
    assert!(why(&mut cpus).contains("cpu_manager_state"));
    node.pod("", uid(1).as_str(), "0-3");
    let answer = refused(cpus.pin(&uid(1), 1, Instant::now()));
    assert_eq!(answer.0, PinRefusal::Unavailable);
    let empty = tempfile::tempdir().unwrap();
    let mut disabled = detect(
        &Places {
            kubelet_state: None,
            system: empty.path(),
            proc_root: empty.path(),
            state: empty.path(),
        },
        Tree::new(empty.path(), ""),
        "",
        1,
    );
    assert!(why(&mut disabled).contains("cpuPinning.enabled"));
    let mut nothing = detect(
        &Places {
            kubelet_state: Some(&node.path("cpu_manager_state")),
            system: empty.path(),
            proc_root: empty.path(),
            state: empty.path(),
        },
        Tree::new(empty.path(), ""),
        "7-",
        1,
    );
    assert!(why(&mut nothing).contains("reservedCPUs"));
}
