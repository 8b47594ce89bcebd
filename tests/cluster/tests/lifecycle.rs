//! Runs real clusters through their whole life and looks at what is left of them. Needs root; with warm caches about a minute.
//! One instance, and so one test at a time.

// The workspace allows this in tests; clippy does not count the functions tests share.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pilotlight_cluster::image::program_image;
use pilotlight_cluster::{Cluster, MAX_INSTANCE, UpOptions, down};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A state folder of its own, on the instance nobody uses by hand.
struct Place {
    _turn: MutexGuard<'static, ()>,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            _turn: turn,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    fn options(&self, nodes: usize) -> UpOptions {
        UpOptions {
            nodes,
            dir: Some(self.dir()),
            instance: MAX_INSTANCE,
        }
    }

    fn down(&self) {
        down(&self.dir(), MAX_INSTANCE).unwrap();
    }

    /// Starts the program's `up`, to be killed.
    fn up_in_the_background(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_pilotlight-cluster"))
            .arg("--state-dir")
            .arg(self.dir())
            .args([
                "--instance",
                &MAX_INSTANCE.to_string(),
                "up",
                "--nodes",
                "1",
            ])
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Everything on this machine that has this cluster's name on it.
    fn traces(&self) -> Vec<String> {
        let dir = self.dir().display().to_string();
        let names = [
            format!("plbr{MAX_INSTANCE}"),
            format!("plc{MAX_INSTANCE}"),
            format!("172.30.{MAX_INSTANCE}."),
            dir.clone(),
        ];
        let mut lines = Vec::new();
        for args in [["-o", "link"], ["-o", "addr"], ["route", "show"]] {
            lines.extend(output("ip", &args).lines().map(str::to_owned));
        }
        lines.extend(
            output("nft", &["list", "ruleset"])
                .lines()
                .map(str::to_owned),
        );
        lines.extend(
            std::fs::read_to_string("/proc/self/mountinfo")
                .unwrap()
                .lines()
                .map(str::to_owned),
        );
        lines.extend(paths_below(Path::new("/sys/fs/cgroup"), 2));
        for pid in std::fs::read_dir("/proc").unwrap().flatten() {
            // Command lines and environments: what was started for the cluster names its folder in one of them.
            for file in ["cmdline", "cgroup"] {
                let text = std::fs::read(pid.path().join(file)).unwrap_or_default();
                lines.push(String::from_utf8_lossy(&text).replace('\0', " "));
            }
        }
        if self.dir().exists() {
            lines.push(dir);
        }
        lines.retain(|line| names.iter().any(|name| line.contains(name.as_str())));
        lines
    }

    fn assert_clean(&self) {
        // The dead keep their cgroup's name until they are collected.
        wait(5, || self.traces().is_empty());
        assert_eq!(self.traces(), Vec::<String>::new());
        assert_eq!(zombies(), Vec::<String>::new());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A failed test must not leave its cluster to the next.
        let _already_gone = down(&self.dir(), MAX_INSTANCE);
    }
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn paths_below(folder: &Path, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path().display().to_string());
            if depth > 1 {
                found.extend(paths_below(&entry.path(), depth - 1));
            }
        }
    }
    found
}

/// Dead children of this test that nobody collected.
fn zombies() -> Vec<String> {
    let own = format!(" Z {} ", std::process::id());
    let all = || {
        let stats = std::fs::read_dir("/proc").unwrap().flatten();
        let stats =
            stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
        stats.filter(|stat| stat.contains(&own)).collect::<Vec<_>>()
    };
    // They are collected by threads, which may need a moment.
    wait(5, || all().is_empty());
    all()
}

fn wait(seconds: u64, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        if condition() {
            return true;
        }
        sleep(Duration::from_millis(50));
    }
    false
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// A program of this machine, dynamically linked, finds its loader and libraries in its image.
fn a_packed_program(cluster: &Cluster, folder: &Path) {
    let archive = folder.join("sleep.tar");
    let mut image = program_image("pilotlight.local/sleep:1", Path::new("/bin/sleep")).unwrap();
    for program in ["dmesg", "touch"] {
        let target = format!("/usr/local/bin/{program}");
        let program = Path::new("/bin").join(program);
        image.add_program(&program, &target).unwrap();
    }
    image.entrypoint.push("infinity".into());
    image.user = "1000:1000".into();
    image.write(&archive).unwrap();
    cluster.load_image(&archive).unwrap();
    cluster
        .kubectl([
            "run",
            "packed",
            "--image=pilotlight.local/sleep:1",
            "--image-pull-policy=Never",
            "--restart=Never",
        ])
        .unwrap();
    cluster
        .kubectl([
            "wait",
            "pod/packed",
            "--for=condition=Ready",
            "--timeout=60s",
        ])
        .unwrap();
    cluster
        .kubectl(["exec", "packed", "--", "/usr/local/bin/sleep", "0"])
        .unwrap();
}

/// Hardened as a sandbox is, in gVisor, on a volume of the cluster's class.
const GVISOR_POD: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: pilotlight-local, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: guarded}
spec:
  runtimeClassName: gvisor
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: main
      image: "pilotlight.local/sleep:1"
      imagePullPolicy: Never
      resources: {limits: {cpu: 500m, memory: 128Mi}}
      securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: data, mountPath: /data}, {name: tmp, mountPath: /tmp}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}, {name: tmp, emptyDir: {}}]
"#;

/// It runs in gVisor, writes to its volume, which grows, and ends; then nothing is left of pod and volume.
fn a_gvisor_pod_with_a_volume(cluster: &Cluster, folder: &Path) {
    let manifest = folder.join("guarded.yaml");
    std::fs::write(&manifest, GVISOR_POD).unwrap();
    let kubectl = |line: &str| cluster.kubectl(line.split(' ')).unwrap();
    kubectl(&format!("apply -f {}", manifest.display()));
    kubectl("wait pod/guarded --for=condition=Ready --timeout=60s");
    let said = kubectl("exec guarded -- /usr/local/bin/dmesg");
    assert!(said.contains("Starting gVisor"), "{said}");
    kubectl("exec guarded -- /usr/local/bin/touch /data/kept");
    let volumes = cluster.dir().join("nodes/node-1/volumes");
    let written = |volume: &str| Path::new(volume).join("kept").exists();
    assert!(
        paths_below(&volumes, 1)
            .iter()
            .any(|volume| written(volume))
    );

    let storage = cluster.component("storage").unwrap();
    storage.restart().unwrap();
    let grown = r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#;
    kubectl(&format!("patch pvc data --type=merge --patch={grown}"));
    kubectl("wait pvc/data --for=jsonpath={.status.capacity.storage}=2Gi --timeout=30s");
    kubectl("delete pod guarded --timeout=30s");
    kubectl("delete pvc data --timeout=30s");
    assert!(wait(30, || paths_below(&volumes, 1).is_empty()));
    assert!(wait(30, || kubectl("get pv --output=name").is_empty()));
}

#[test]
fn a_cluster_runs_a_pod_is_found_again_survives_faults_and_leaves_nothing() {
    let place = Place::new();
    let cluster = Cluster::up(&place.options(1)).unwrap();
    assert_eq!(cluster.ready_nodes().unwrap(), ["node-1"]);

    let pids = cluster.pids("apiserver").unwrap();
    let again = Cluster::up(&place.options(1)).unwrap();
    assert_eq!(
        again.pids("apiserver").unwrap(),
        pids,
        "a healthy cluster is used as it is"
    );
    let refused = Cluster::up(&place.options(2)).unwrap_err().to_string();
    assert!(
        refused.contains("healthy cluster with 1 nodes"),
        "{refused}"
    );

    cluster
        .kubectl([
            "run",
            "idle",
            "--image=pilotlight.local/pause:1",
            "--image-pull-policy=Never",
            "--restart=Never",
        ])
        .unwrap();
    cluster
        .kubectl(["wait", "pod/idle", "--for=condition=Ready", "--timeout=60s"])
        .unwrap();

    a_packed_program(&cluster, place.folder.path());
    a_gvisor_pod_with_a_volume(&cluster, place.folder.path());

    let kubelet = cluster.component("node-1/kubelet").unwrap();
    kubelet.pause().unwrap();
    assert!(
        cluster
            .status()
            .unwrap()
            .contains(&("node-1/kubelet".into(), "paused"))
    );
    kubelet.resume().unwrap();
    assert!(
        cluster
            .status()
            .unwrap()
            .contains(&("node-1/kubelet".into(), "running"))
    );
    kubelet.kill().unwrap();
    assert!(!kubelet.running().unwrap());
    kubelet.start().unwrap();

    let node = cluster.component("node-1").unwrap();
    node.pause().unwrap();
    assert!(
        cluster
            .status()
            .unwrap()
            .contains(&("node-1".into(), "paused"))
    );
    assert!(
        node.pids().unwrap().len() >= 5,
        "a node's pids include its pods'"
    );
    // A frozen node can still be killed.
    node.kill().unwrap();
    assert!(node.pids().unwrap().is_empty());
    node.start().unwrap();

    let etcd = cluster.component("etcd").unwrap();
    etcd.kill().unwrap();
    etcd.start().unwrap();
    cluster.wait_ready().unwrap();
    // The pod starts again on the node that was cut off, with what it had.
    cluster.kubectl(["get", "pod", "idle"]).unwrap();

    let unknown = cluster.component("node-7").unwrap_err().to_string();
    assert!(unknown.contains("node-1/kubelet"), "{unknown}");
    place.down();
    place.assert_clean();
}

#[test]
fn an_up_killed_at_any_moment_can_be_cleaned_up_and_repeated() {
    let place = Place::new();
    // Moments: the state file is there; the first daemons; the node's namespaces; its kubelet.
    for moment in [
        "\"id\"",
        "\"etcd\": {",
        "\"node-1\": {",
        "\"node-1/kubelet\": {",
    ] {
        let mut up = place.up_in_the_background();
        let state = place.dir().join("state.json");
        let seen = wait(60, || {
            std::fs::read_to_string(&state).is_ok_and(|text| text.contains(moment))
        });
        assert!(seen, "never saw {moment}");
        up.kill().unwrap();
        up.wait().unwrap();
        place.down();
        place.assert_clean();
    }
    let mut up = place.up_in_the_background();
    assert!(wait(60, || place.dir().join("logs/node-1.log").exists()));
    up.kill().unwrap();
    up.wait().unwrap();
    let cluster = Cluster::up(&place.options(0)).unwrap();
    assert!(cluster.ready_nodes().unwrap().is_empty());
    place.down();
    place.assert_clean();
}

#[test]
fn a_broken_cluster_is_replaced_and_no_strangers_are_killed() {
    let place = Place::new();
    let cluster = Cluster::up(&place.options(0)).unwrap();
    let first = cluster.pids("apiserver").unwrap();
    send(cluster.pids("etcd").unwrap()[0], Signal::SIGKILL);
    send(first[0], Signal::SIGSTOP);
    let cluster = Cluster::up(&place.options(0)).unwrap();
    assert_ne!(cluster.pids("apiserver").unwrap(), first);

    // The number of a recorded process has gone to somebody else meanwhile: its start time says so.
    let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
    let path = place.dir().join("state.json");
    let mut state: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    state["daemons"]["coredns"]["main"]["pid"] = stranger.id().into();
    std::fs::write(&path, state.to_string()).unwrap();

    // Somebody else's state folder does not own this instance.
    let elsewhere = place.folder.path().join("elsewhere");
    let refused = down(&elsewhere, MAX_INSTANCE).unwrap_err().to_string();
    assert!(refused.contains("another state folder"), "{refused}");

    place.down();
    assert!(
        stranger.try_wait().unwrap().is_none(),
        "a process that is not the cluster's was killed"
    );
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    place.assert_clean();
}

#[test]
fn a_damaged_state_file_does_not_stop_the_cleaning() {
    let place = Place::new();
    Cluster::up(&place.options(0)).unwrap();
    std::fs::write(place.dir().join("state.json"), "{").unwrap();
    assert!(
        Cluster::attach(&place.dir())
            .unwrap_err()
            .to_string()
            .contains("state.json")
    );
    place.down();
    place.assert_clean();
}
