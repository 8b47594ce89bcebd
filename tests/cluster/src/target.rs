//! Which cluster a test run uses, in this order: the one `KUBECONFIG` names; a `kind` cluster where Docker answers; the local one.
//! Called by the end-to-end tests and the benchmarks, which then need not know which it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::Cluster;
use crate::command::{command, find, run, succeeds};
use crate::error::{Error, Result};
use crate::operate::ComponentHandle;
use crate::progress::say;
use crate::state::State;
use crate::tools::Tools;
use crate::up::UpOptions;
use crate::{cache, files};

/// The kind cluster's name.
const KIND_NAME: &str = "pilotlight";

/// Which cluster is to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The one of this kubeconfig, whatever it is.
    Given(PathBuf),
    /// A kind cluster, made if it is not there.
    Kind,
    /// The local cluster of this crate.
    Local,
}

/// Looks at the environment and the machine and decides.
pub fn choose() -> Choice {
    choose_with(std::env::var_os("KUBECONFIG").map(PathBuf::from))
}

/// The same for a caller that knows better than the environment whether a cluster is given.
pub fn choose_with(kubeconfig: Option<PathBuf>) -> Choice {
    decide(kubeconfig, || {
        find("kind").is_some()
            && find("docker").is_some()
            && succeeds(&mut command("docker", ["info"]))
    })
}

fn decide(kubeconfig: Option<PathBuf>, kind: impl FnOnce() -> bool) -> Choice {
    match kubeconfig.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => Choice::Given(path),
        None if kind() => Choice::Kind,
        None => Choice::Local,
    }
}

/// A cluster that is ready to be used.
#[derive(Debug)]
pub enum Target {
    /// Somebody's cluster, by its kubeconfig.
    Given(PathBuf),
    /// The kind cluster, by its kubeconfig.
    Kind(PathBuf),
    /// The local cluster.
    Local(Cluster),
}

impl Target {
    /// Opens what [`choose`] finds, making it if needed.
    pub fn open(options: &UpOptions) -> Result<Self> {
        Self::open_as(choose(), options)
    }

    /// Opens what was chosen, making it if needed.
    pub fn open_as(choice: Choice, options: &UpOptions) -> Result<Self> {
        match choice {
            // The local cluster's own kubeconfig, from `pilotlight-cluster env`: all its possibilities remain.
            Choice::Given(path) => match path.parent() {
                Some(dir) if State::path(dir).exists() => Cluster::attach(dir).map(Self::Local),
                _ => Ok(Self::Given(path)),
            },
            Choice::Kind => open_kind(options.nodes).map(Self::Kind),
            Choice::Local => Cluster::up(options).map(Self::Local),
        }
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        match self {
            Self::Given(path) | Self::Kind(path) => path,
            Self::Local(cluster) => cluster.kubeconfig(),
        }
    }

    /// Loads an image archive into all nodes. A given cluster must have the images already.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        match self {
            Self::Given(_) => Err(Error::NotHere {
                what: "loading images from archives",
                kind: self.kind(),
            }),
            Self::Kind(_) => {
                run(kind(["load", "image-archive", "--name", KIND_NAME]).arg(archive)).map(|_| ())
            }
            Self::Local(cluster) => cluster.load_image(archive),
        }
    }

    /// A component to be stopped or killed; only the local cluster has any.
    pub fn component(&self, name: &str) -> Result<ComponentHandle<'_>> {
        match self {
            Self::Local(cluster) => cluster.component(name),
            Self::Given(_) | Self::Kind(_) => Err(Error::NotHere {
                what: "stopping and killing components",
                kind: self.kind(),
            }),
        }
    }

    /// Whether [`Target::component`] works.
    pub fn has_faults(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// The path of `kubectl` or `helm`: the local cluster's, else the one in PATH, else one built now.
    pub fn tool(&self, name: &str) -> Result<PathBuf> {
        match self {
            Self::Local(cluster) => cluster.tool(name),
            Self::Given(_) | Self::Kind(_) => find(name).map_or_else(|| Tools::only(name), Ok),
        }
    }

    /// Runs `kubectl` as the administrator and returns what it prints.
    pub fn kubectl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
        run(command(self.tool("kubectl")?, args).env("KUBECONFIG", self.kubeconfig()))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Given(_) => "a cluster given by KUBECONFIG",
            Self::Kind(_) => "a kind cluster",
            Self::Local(_) => "the local cluster",
        }
    }
}

fn kind<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    command("kind", args)
}

fn kind_runs() -> Result<bool> {
    let known = run(&mut kind(["get", "clusters"]))?;
    Ok(known.lines().any(|line| line.trim() == KIND_NAME))
}

/// Removes the kind cluster, where there is one.
pub fn down_kind() -> Result<()> {
    if kind_runs()? {
        say(format_args!("removing the kind cluster {KIND_NAME}"));
        run(&mut kind(["delete", "cluster", "--name", KIND_NAME]))?;
    }
    Ok(())
}

/// Finds or makes the kind cluster and writes its kubeconfig into a file of its own, never into the user's.
fn open_kind(nodes: usize) -> Result<PathBuf> {
    let folder = cache::root().join("kind");
    files::create_dir(&folder)?;
    let kubeconfig = folder.join("kubeconfig");
    if kind_runs()? {
        run(kind(["export", "kubeconfig", "--name", KIND_NAME, "--kubeconfig"]).arg(&kubeconfig))?;
        return Ok(kubeconfig);
    }
    say(format_args!("creating the kind cluster {KIND_NAME}"));
    let config = folder.join("config.json");
    files::write(&config, kind_config(nodes))?;
    let mut create = kind([
        "create", "cluster", "--name", KIND_NAME, "--wait", "180s", "--config",
    ]);
    run(create.arg(&config).arg("--kubeconfig").arg(&kubeconfig))?;
    Ok(kubeconfig)
}

fn kind_config(nodes: usize) -> String {
    let mut list = vec![serde_json::json!({ "role": "control-plane" })];
    list.resize(nodes + 1, serde_json::json!({ "role": "worker" }));
    let config = serde_json::json!({ "kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": list });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_cluster_comes_before_kind_before_the_local_one() {
        let given = Some(PathBuf::from("/k"));
        assert_eq!(
            decide(given, || panic!("asked in vain")),
            Choice::Given("/k".into())
        );
        assert_eq!(decide(Some(PathBuf::new()), || true), Choice::Kind);
        assert_eq!(decide(None, || true), Choice::Kind);
        assert_eq!(decide(None, || false), Choice::Local);
    }

    #[test]
    fn a_kind_cluster_has_one_control_plane_and_the_nodes_asked_for() {
        let config: serde_json::Value = serde_json::from_str(&kind_config(2)).unwrap();
        let roles: Vec<_> = config["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["role"].clone())
            .collect();
        assert_eq!(roles, ["control-plane", "worker", "worker"]);
    }

    #[test]
    fn a_given_cluster_refuses_faults_and_images_with_a_reason() {
        let target = Target::Given("/k".into());
        assert!(!target.has_faults());
        assert!(
            target
                .component("etcd")
                .unwrap_err()
                .to_string()
                .contains("only possible on the local cluster")
        );
        assert!(target.load_image(Path::new("/x")).is_err());
    }
}
