//! Cluster, images and chart: everything but a user's objects.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use pilotlight_cluster::{Choice, Cluster, GVISOR_RUNTIME_CLASS, STORAGE_CLASS, Target, down_kind};

use crate::images::{self, ImageNames};
use crate::progress::say;
use crate::{Source, local, run, source, target_dir, wait, workspace};

/// Namespace of the installation; the chart's names follow from the release's, which is `pilotlight`.
pub const NAMESPACE: &str = "pilotlight-system";
const RELEASE: &str = "pilotlight";

/// Values of the chart for what every local cluster has and others need not have; the caller's own come after them.
const LOCAL_VALUES: &[(&str, &str)] = &[
    ("runtimeClasses.high", GVISOR_RUNTIME_CLASS),
    ("storage.className", STORAGE_CLASS),
];

/// The node agent uses hostPID and a hostPath volume, which no stricter level allows.
const NAMESPACE_MANIFEST: &str = "apiVersion: v1
kind: Namespace
metadata:
  name: pilotlight-system
  labels:
    pod-security.kubernetes.io/enforce: privileged
    pod-security.kubernetes.io/audit: privileged
    pod-security.kubernetes.io/warn: privileged
";

/// What is to be installed.
#[derive(Clone, Debug)]
pub struct InstallOptions {
    /// Nodes of a cluster that is made here.
    pub nodes: usize,
    /// More values of the chart, as `key=value`.
    pub values: Vec<String>,
}

impl Default for InstallOptions {
    fn default() -> Self {
        Self {
            nodes: 2,
            values: Vec::new(),
        }
    }
}

/// A cluster with Pilotlight on it.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The kubeconfig; `target/kubeconfig`, unless the cluster was given.
    pub kubeconfig: PathBuf,
    /// Namespace of scheduler and agents.
    pub namespace: String,
    /// An image with python3 that the nodes have or can pull; `sleep infinity` keeps it up.
    pub python_image: String,
    /// Where the cluster comes from.
    pub source: Source,
    kubectl: PathBuf,
    helm: PathBuf,
}

impl Installation {
    /// `kubectl` for this cluster.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// `helm` for this cluster.
    pub fn helm(&self) -> Command {
        let mut command = Command::new(&self.helm);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Applies objects on the server's side.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let mut command = self.kubectl();
        command.args([
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=pilotlight-demo",
            "-f",
            "-",
        ]);
        run::feed(&mut command, yaml).map(drop)
    }

    /// The local cluster, whose parts can be stopped and killed; none for the others.
    pub fn local(&self) -> Option<Cluster> {
        (self.source == Source::Local)
            .then(local::running)
            .flatten()
    }
}

/// Brings a cluster up, loads the images, installs the chart and waits until every node takes sandboxes. What is
/// there already is used: a second call brings only what changed.
pub fn install(options: &InstallOptions) -> Result<Installation> {
    let own = own_kubeconfig();
    let cluster = local::options(options.nodes);
    let (installation, names) = match source::choose(&own) {
        given @ Choice::Given(_) => match Target::open_as(given, &cluster)? {
            target @ Target::Given(_) => given_cluster(&target)?,
            // The local cluster under its own name.
            target => made_here(|| Ok(target), own)?,
        },
        Choice::Local if !nix::unistd::geteuid().is_root() => bail!(
            "the local cluster needs root (namespaces, mounts, cgroups); be root, or name another cluster by KUBECONFIG"
        ),
        choice => {
            let open =
                || Target::open_as(choice, &cluster).context("there is no cluster to install into");
            made_here(open, own)?
        }
    };
    wait::reachable(&mut installation.kubectl())?;
    chart(&installation, &names, &options.values)?;
    wait::until_ready(&installation)?;
    Ok(installation)
}

/// Takes it all away again: a cluster that was made here as a whole, of a given one only what was installed.
pub fn down() -> Result<()> {
    let own = own_kubeconfig();
    match source::choose(&own) {
        given @ Choice::Given(_) => match Target::open_as(given, &local::options(0))? {
            Target::Local(cluster) => pilotlight_cluster::down(cluster.dir(), 0)?,
            target => uninstall(&of_target(&target, target.kubeconfig().to_path_buf(), "")?)?,
        },
        Choice::Kind => down_kind()?,
        Choice::Local => local::down()?,
    }
    match std::fs::remove_file(&own) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", own.display()))
        }
        _ => Ok(()),
    }
}

fn uninstall(installation: &Installation) -> Result<()> {
    say("uninstalling; the CRDs stay, and with them your objects");
    run::show(installation.helm().args([
        "uninstall",
        RELEASE,
        "-n",
        NAMESPACE,
        "--ignore-not-found",
        "--wait",
    ]))?;
    run::show(
        installation
            .kubectl()
            .args(["delete", "namespace", NAMESPACE, "--ignore-not-found"]),
    )
}

fn own_kubeconfig() -> PathBuf {
    target_dir().join("kubeconfig")
}

fn of_target(target: &Target, kubeconfig: PathBuf, python_image: &str) -> Result<Installation> {
    Ok(Installation {
        kubeconfig,
        namespace: NAMESPACE.to_owned(),
        python_image: python_image.to_owned(),
        source: Source::of(target),
        kubectl: target.tool("kubectl")?,
        helm: target.tool("helm")?,
    })
}

fn given_cluster(target: &Target) -> Result<(Installation, ImageNames)> {
    let names = ImageNames::from_environment()?;
    say("using the cluster that KUBECONFIG names");
    let kubeconfig = target.kubeconfig().to_path_buf();
    Ok((of_target(target, kubeconfig, &names.python)?, names))
}

fn made_here(
    open: impl FnOnce() -> Result<Target>,
    kubeconfig: PathBuf,
) -> Result<(Installation, ImageNames)> {
    // First what can fail without leaving anything behind.
    let [scheduler, node_agent] = images::packed()?;
    let target = open()?;
    publish(target.kubeconfig(), &kubeconfig)?;
    let python = images::python()?;
    let installation = of_target(&target, kubeconfig, &python.name)?;
    let present = present_images(&installation);
    for image in [&scheduler, &node_agent, &python] {
        if !present.contains(&image.name) {
            target.load_image(&image.archive)?;
        }
    }
    let names = ImageNames {
        scheduler: scheduler.name,
        node_agent: node_agent.name,
        python: python.name,
    };
    Ok((installation, names))
}

/// The images that every node reports. An image not reported yet is loaded again, which does no harm.
fn present_images(installation: &Installation) -> Vec<String> {
    let nodes = run::read(installation.kubectl().args([
        "get",
        "nodes",
        "-o",
        "json",
        "--request-timeout=10s",
    ]));
    let nodes: serde_json::Value = nodes
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    on_every_node(&nodes)
}

fn on_every_node(nodes: &serde_json::Value) -> Vec<String> {
    let images_of = |node: &serde_json::Value| -> Vec<String> {
        let images = node["status"]["images"].as_array().into_iter().flatten();
        images
            .flat_map(|image| image["names"].as_array().into_iter().flatten())
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    };
    let mut nodes = nodes["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(images_of);
    let first = nodes.next().unwrap_or_default();
    nodes.fold(first, |common, node| {
        common
            .into_iter()
            .filter(|name| node.contains(name))
            .collect()
    })
}

/// Puts the kubeconfig where the README says it is, readable by its owner only: it is the administrator's.
fn publish(from: &Path, to: &Path) -> Result<()> {
    let copy = || {
        let content = std::fs::read(from)?;
        std::fs::create_dir_all(to.parent().unwrap_or(to))?;
        let partial = to.with_extension("partial");
        std::fs::write(&partial, content)?;
        std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&partial, to)
    };
    copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn chart(installation: &Installation, names: &ImageNames, values: &[String]) -> Result<()> {
    say("installing the chart");
    installation.apply(NAMESPACE_MANIFEST)?;
    if installation.source != Source::Given {
        forget_unfinished(installation)?;
    }
    let mut helm = installation.helm();
    helm.args(["upgrade", "--install", RELEASE])
        .arg(workspace().join("deploy/chart"))
        .args(["-n", NAMESPACE]);
    for (key, name) in [
        ("scheduler", &names.scheduler),
        ("nodeAgent", &names.node_agent),
    ] {
        for (part, value) in image_values(name) {
            helm.arg("--set-string")
                .arg(format!("images.{key}.{part}={value}"));
        }
    }
    if installation.source == Source::Local {
        for (key, value) in LOCAL_VALUES {
            helm.arg("--set-string").arg(format!("{key}={value}"));
        }
    }
    for value in values {
        helm.arg("--set").arg(value);
    }
    run::read(&mut helm).map(drop)
}

/// Removes helm's note of an operation that was killed: it would refuse every later one. What the operation made is
/// taken over. Not on a given cluster, where somebody else may be at it.
fn forget_unfinished(installation: &Installation) -> Result<()> {
    let selector = format!(
        "owner=helm,name={RELEASE},status in (pending-install,pending-upgrade,pending-rollback)"
    );
    run::read(installation.kubectl().args([
        "-n",
        NAMESPACE,
        "delete",
        "secrets",
        "--ignore-not-found",
        "-l",
        &selector,
    ]))
    .map(drop)
}

/// `repository:tag` or `repository@digest` as the chart's values.
fn image_values(name: &str) -> Vec<(&'static str, String)> {
    if let Some((repository, digest)) = name.split_once('@') {
        return vec![
            ("repository", repository.to_owned()),
            ("digest", digest.to_owned()),
        ];
    }
    match name.rsplit_once(':') {
        // A colon before a slash is a registry's port.
        Some((repository, tag)) if !tag.contains('/') => {
            vec![
                ("repository", repository.to_owned()),
                ("tag", tag.to_owned()),
            ]
        }
        _ => vec![
            ("repository", name.to_owned()),
            ("tag", "latest".to_owned()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_name_is_split_where_the_registry_would() {
        let owned = |parts: [(&'static str, &str); 2]| {
            parts.map(|(key, value)| (key, value.to_owned())).to_vec()
        };
        assert_eq!(
            image_values("a.b/c:1"),
            owned([("repository", "a.b/c"), ("tag", "1")])
        );
        assert_eq!(
            image_values("host:5000/c"),
            owned([("repository", "host:5000/c"), ("tag", "latest")])
        );
        assert_eq!(
            image_values("a/c@sha256:0"),
            owned([("repository", "a/c"), ("digest", "sha256:0")])
        );
    }

    #[test]
    fn only_what_every_node_has_counts_as_loaded() {
        let nodes = serde_json::json!({"items": [
            {"status": {"images": [{"names": ["a:1"]}, {"names": ["b:1", "b:2"]}]}},
            {"status": {"images": [{"names": ["b:2"]}]}},
        ]});
        assert_eq!(on_every_node(&nodes), ["b:2"]);
        assert!(on_every_node(&serde_json::Value::Null).is_empty());
    }

    #[test]
    fn the_manifest_names_the_namespace() {
        assert!(NAMESPACE_MANIFEST.contains(&format!("name: {NAMESPACE}\n")));
    }
}
