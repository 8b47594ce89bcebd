//! One node: an init process in network, mount and pid namespaces of its own, its folders mounted where Kubernetes expects them, a
//! link to the bridge, and containerd, kubelet and kube-proxy below it. Killing the init ends everything of the node.
//! Called by `up` and by the start of a killed node or daemon.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::{command, find, run, succeeds};
use crate::component::NodeDaemon;
use crate::error::{Error, Result};
use crate::pki::kubeconfig_path;
use crate::plan::{NodePlan, Plan};
use crate::process::wait_until;
use crate::tools::Tools;
use crate::{files, node_config};

/// The node's folder and where it is mounted inside the node; hostPath volumes of a DaemonSet see each its own node's.
const MOUNTS: &[(&str, &str)] = &[
    ("kubelet", "/var/lib/kubelet"),
    ("cni", "/var/lib/cni"),
    ("log-pods", "/var/log/pods"),
    ("log-containers", "/var/log/containers"),
];

/// The mount points of the host; the nodes' own folders cover them inside the nodes.
pub(crate) fn mount_points() -> impl Iterator<Item = PathBuf> {
    MOUNTS.iter().map(|(_, target)| PathBuf::from(target))
}

/// Makes the node's folders and configuration.
pub(crate) fn prepare(plan: &Plan, node: &NodePlan, tools: &Tools) -> Result<()> {
    for (folder, _) in MOUNTS {
        files::create_dir(&node.folder(folder))?;
    }
    for folder in ["containerd", "containerd-opt", "nri/plugins", "nri/conf.d"] {
        files::create_dir(&node.folder(folder))?;
    }
    let runc = find("runc").ok_or_else(|| Error::Unsupported {
        what: "no runc".into(),
        remedy: "install the Debian package runc".into(),
    })?;
    node_config::write(plan, node, tools, &runc)
}

/// The command that makes the namespaces and the node's first process in them.
pub(crate) fn init_command() -> Vec<String> {
    [
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        // The namespaces' only way out: with the launcher the init goes, with the init everything.
        "--kill-child",
        "--mount-proc",
        "--propagation",
        "private",
        "tini",
        "--",
        "sleep",
        "infinity",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A command inside the node's mount namespace.
fn mount(init: i32, args: &[&str]) -> Command {
    let mut enter = command(
        "nsenter",
        ["--target", &init.to_string(), "--mount", "mount"],
    );
    enter.args(args);
    enter
}

/// Waits until `unshare` has mounted /proc, then mounts the node's folders. A fresh /run per node gives containerd, NRI and CNI
/// their usual paths and is empty after every start.
pub(crate) fn mount_folders(node: &NodePlan, init: i32) -> Result<()> {
    let ready = wait_until(Duration::from_secs(10), || {
        // `tini` is there only after unshare has finished its mounts.
        std::fs::read_to_string(format!("/proc/{init}/comm"))
            .is_ok_and(|name| name.trim() == "tini")
    });
    if !ready {
        return Err(Error::Unsupported {
            what: format!(
                "the first process of {} does not start in its namespaces",
                node.name
            ),
            remedy: "allow network, mount and pid namespaces (unshare) for root".into(),
        });
    }
    run(&mut mount(
        init,
        &["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"],
    ))?;
    for (folder, target) in MOUNTS {
        let source = node.folder(folder).display().to_string();
        run(&mut mount(init, &["--bind", &source, target]))?;
    }
    // Volumes with mount propagation need a shared mount below them.
    run(&mut mount(init, &["--make-rshared", "/var/lib/kubelet"]))?;
    Ok(())
}

/// The command line of one of the node's daemons, entering the node's namespaces.
pub(crate) fn daemon_command(
    daemon: NodeDaemon,
    plan: &Plan,
    node: &NodePlan,
    tools: &Tools,
    init: i32,
) -> Result<Vec<String>> {
    let config = |file: &str| node.folder("config").join(file).display().to_string();
    let mut line: Vec<String> = [
        "nsenter",
        "--target",
        &init.to_string(),
        "--net",
        "--mount",
        "--pid",
    ]
    .map(str::to_owned)
    .to_vec();
    match daemon {
        NodeDaemon::Containerd => {
            line.push(tools.path("containerd")?.display().to_string());
            line.extend(["--config".into(), config("containerd.toml")]);
        }
        NodeDaemon::Kubelet => {
            line.push(tools.path("kubelet")?.display().to_string());
            line.extend([
                format!("--config={}", config("kubelet.json")),
                format!(
                    "--kubeconfig={}",
                    kubeconfig_path(plan, &node.name).display()
                ),
                format!("--hostname-override={}", node.name),
                format!("--node-ip={}", node.address),
                "--root-dir=/var/lib/kubelet".into(),
                "--v=2".into(),
            ]);
        }
        NodeDaemon::KubeProxy => {
            line.push(tools.path("kube-proxy")?.display().to_string());
            line.push(format!("--config={}", config("kube-proxy.json")));
        }
    }
    Ok(line)
}

/// The containerd socket of a running node, as the host sees it.
pub(crate) fn socket(init: i32) -> PathBuf {
    let inside = NodePlan::containerd_socket();
    Path::new("/proc")
        .join(init.to_string())
        .join("root")
        .join(inside.strip_prefix("/").unwrap_or(inside))
}

fn ctr(tools: &Tools, init: i32) -> Result<Command> {
    let mut ctr = Command::new(tools.path("ctr")?);
    ctr.arg("--address")
        .arg(socket(init))
        .args(["--namespace", "k8s.io"]);
    Ok(ctr)
}

/// Waits until containerd answers.
pub(crate) fn wait_containerd(node: &NodePlan, tools: &Tools, init: i32, log: &Path) -> Result<()> {
    let mut version = ctr(tools, init)?;
    version.arg("version");
    let limit = 30;
    if wait_until(Duration::from_secs(limit), || {
        socket(init).exists() && succeeds(&mut version)
    }) {
        return Ok(());
    }
    Err(Error::Timeout {
        what: format!("containerd of {}", node.name),
        seconds: limit,
        hint: format!("see {}", log.display()),
    })
}

/// Imports an image archive into a node's containerd.
pub(crate) fn import(tools: &Tools, init: i32, archive: &Path) -> Result<()> {
    let mut import = ctr(tools, init)?;
    run(import.args(["images", "import"]).arg(archive))?;
    Ok(())
}
