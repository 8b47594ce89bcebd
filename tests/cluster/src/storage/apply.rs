//! Does what was decided: folders on the nodes, volumes and claims through `kubectl`. Called by [`super::serve_storage`].

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::decide::{Action, Claim, PROVISIONED_BY, PROVISIONER};
use crate::command::{command, feed, run};
use crate::error::{Error, Result};
use crate::files;
use crate::objects::STORAGE_CLASS;
use crate::pki::kubeconfig_path;
use crate::plan::Plan;
use crate::state::State;

/// `kubectl` as this component.
#[derive(Debug, Clone)]
pub(super) struct Api {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    /// What it remembers of the API; it must not lie in the home folder of whoever runs the cluster.
    cache: PathBuf,
}

impl Api {
    fn kubectl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        self.own(command(&self.kubectl, args))
    }

    /// The stream of a watch. It goes with the thread that started it: an orphan would hold its connection for an hour.
    pub(super) fn watch(&self, path: &str) -> Command {
        let mut watch = command("setpriv", ["--pdeathsig", "KILL", "--"]);
        watch.arg(&self.kubectl).args(["get", "--raw", path]);
        self.own(watch)
    }

    fn own(&self, mut command: Command) -> Command {
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", &self.cache);
        command
    }
}

/// Holds what acting needs.
#[derive(Debug)]
pub(super) struct Applier {
    pub(super) api: Api,
    plan: Plan,
    nodes: usize,
}

impl Applier {
    pub(super) fn new(state: &State) -> Result<Self> {
        let plan = state.plan.clone();
        let api = Api {
            kubectl: state.tools.path("kubectl")?,
            kubeconfig: kubeconfig_path(&plan, super::CLIENT),
            cache: plan.dir.join("storage-cache"),
        };
        Ok(Self {
            api,
            plan,
            nodes: state.nodes,
        })
    }

    /// Does it and returns the objects it wrote, as they are now.
    pub(super) fn apply(&self, action: &Action) -> Result<Vec<Value>> {
        match action {
            Action::Provision {
                claim,
                volume,
                node,
            } => {
                let folder = self.folder(node, volume)?;
                // As a new file system is: root's. Pods get in by their fsGroup, which the kubelet hands the folder to.
                files::create_dir(&folder)?;
                self.create(&volume_object(claim, volume, node, &folder))
            }
            Action::Grow { claim, volume } => {
                let size = json!({ "storage": claim.request });
                let spec = json!({ "spec": { "capacity": size } }).to_string();
                let status = json!({ "status": { "capacity": size } }).to_string();
                let grown = self.patch(&["persistentvolume", volume], &spec)?;
                let claim = [
                    "persistentvolumeclaim",
                    &claim.name,
                    "--namespace",
                    &claim.namespace,
                    "--subresource=status",
                ];
                // Nobody else does this for a volume that no pod has mounted.
                let shown = self.patch(&claim, &status)?;
                Ok(vec![grown, shown])
            }
            Action::Remove { volume, node } => {
                let folder = self.folder(node, volume)?;
                match fs::remove_dir_all(&folder) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(Error::io("remove", &folder)(error));
                    }
                    _ => {}
                }
                let path = format!("/api/v1/persistentvolumes/{volume}");
                written(run(&mut self.api.kubectl(["delete", "--raw", &path])))
            }
        }
    }

    /// Where a volume's data lies, on the host as in the node. Both names come from objects, so they must be what they should.
    fn folder(&self, node: &str, volume: &str) -> Result<PathBuf> {
        let known = self
            .plan
            .nodes(self.nodes)
            .into_iter()
            .find(|known| known.name == node);
        let plain = volume
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        match known {
            Some(node) if plain && volume.starts_with("pvc-") => {
                Ok(node.folder("volumes").join(volume))
            }
            _ => Err(Error::Answer {
                program: "kubectl".into(),
                reason: format!("no volume `{volume}` can lie on a node `{node}`"),
            }),
        }
    }

    fn create(&self, object: &Value) -> Result<Vec<Value>> {
        let mut create =
            self.api
                .kubectl(["create", "--raw", "/api/v1/persistentvolumes", "-f", "-"]);
        written(feed(&mut create, &object.to_string()))
    }

    fn patch(&self, what: &[&str], patch: &str) -> Result<Value> {
        let mut command = self.api.kubectl(["patch"]);
        command
            .args(what)
            .args(["--type=merge", "--output=json", "--patch", patch]);
        parse(&run(&mut command)?)
    }
}

/// What a write returned; nothing where it was done before, by a process that ended since: the watch tells of that.
fn written(answer: Result<String>) -> Result<Vec<Value>> {
    match answer {
        Err(Error::Command { stderr, .. })
            if stderr.contains("(AlreadyExists)") || stderr.contains("(NotFound)") =>
        {
            Ok(vec![])
        }
        answer => Ok(vec![parse(&answer?)?]),
    }
}

fn parse(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| Error::Answer {
        program: "kubectl".into(),
        reason: error.to_string(),
    })
}

/// The volume for a claim. Of the kind `local`, since of those the kubelet hands over the folder to a pod's fsGroup.
pub(super) fn volume_object(claim: &Claim, name: &str, node: &str, folder: &Path) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": { "name": name, "annotations": { PROVISIONED_BY: PROVISIONER } },
        "spec": {
            "capacity": { "storage": claim.request },
            "accessModes": claim.access_modes,
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
            "volumeMode": "Filesystem",
            "local": { "path": folder.display().to_string() },
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim.namespace, "name": claim.name, "uid": claim.uid,
            },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{
                "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }],
            }] } },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_lies_below_its_node_or_nowhere() {
        let applier = Applier {
            api: Api {
                kubectl: "/k".into(),
                kubeconfig: "/c".into(),
                cache: "/d".into(),
            },
            plan: Plan {
                instance: 0,
                dir: "/state".into(),
            },
            nodes: 1,
        };
        assert_eq!(
            applier.folder("node-1", "pvc-0a-1").unwrap(),
            Path::new("/state/nodes/node-1/volumes/pvc-0a-1")
        );
        for (node, volume) in [
            ("node-2", "pvc-1"),
            ("", "pvc-1"),
            ("../..", "pvc-1"),
            ("node-1", "pvc-/../.."),
            ("node-1", ".."),
            ("node-1", ""),
        ] {
            assert!(applier.folder(node, volume).is_err(), "{node} {volume}");
        }
    }
}
