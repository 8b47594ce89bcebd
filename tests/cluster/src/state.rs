//! The state file: which processes belong to the cluster, written before anything goes on, so that a kill at any moment leaves
//! enough to clean up by. Read and written by `up`, `down` and component operations, always under the state lock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;
use crate::plan::Plan;
use crate::process::Daemon;
use crate::tools::Tools;

/// The format; another number is another program's file.
const VERSION: u32 = 1;

/// Everything that must survive the program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    /// Random; in the environment of every process of this cluster, which finds those that a killed `up` could not write down.
    pub(crate) id: String,
    /// Names and addresses.
    pub(crate) plan: Plan,
    /// How many nodes there are to be.
    pub(crate) nodes: usize,
    /// Where the programs lie.
    pub(crate) tools: Tools,
    /// Whether `up` came to its end.
    pub(crate) complete: bool,
    /// Folders made outside the state folder, to be removed if empty.
    pub(crate) mount_points: Vec<PathBuf>,
    /// Kernel settings as they were before.
    #[serde(default)]
    pub(crate) sysctls: BTreeMap<String, String>,
    /// Running processes by component name.
    pub(crate) daemons: BTreeMap<String, Daemon>,
}

impl State {
    /// The state of a cluster that is about to be made.
    pub(crate) fn new(plan: Plan, nodes: usize, tools: Tools, id: String) -> Self {
        Self {
            version: VERSION,
            id,
            plan,
            nodes,
            tools,
            complete: false,
            mount_points: Vec::new(),
            sysctls: BTreeMap::new(),
            daemons: BTreeMap::new(),
        }
    }

    /// Where the state of a folder's cluster is written.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("state.json")
    }

    /// Reads the state of a folder; `None` where there is none.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>> {
        let path = Self::path(dir);
        if !path.exists() {
            return Ok(None);
        }
        let text = files::read(&path)?;
        let reason = match serde_json::from_str::<Self>(&text) {
            Ok(state) if state.version == VERSION => return Ok(Some(state)),
            Ok(state) => format!("format {} instead of {VERSION}", state.version),
            Err(error) => error.to_string(),
        };
        Err(Error::State { path, reason })
    }

    /// Writes the state in one step.
    pub(crate) fn save(&self) -> Result<()> {
        let path = Self::path(&self.plan.dir);
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::State {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        files::replace(&path, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Identity;

    fn state(dir: &Path) -> State {
        let tools = serde_json::json!({
            "kubernetes": "/a", "etcd": "/b", "containerd": "/c", "cni": "/d", "coredns": "/e", "helm": "/f"
        });
        let plan = Plan {
            instance: 0,
            dir: dir.to_path_buf(),
        };
        State::new(plan, 2, serde_json::from_value(tools).unwrap(), "id".into())
    }

    #[test]
    fn what_is_saved_is_what_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        assert!(State::load(dir.path()).unwrap().is_none());
        let mut state = state(dir.path());
        let main = Identity { pid: 7, start: 9 };
        state.daemons.insert(
            "etcd".into(),
            Daemon {
                main,
                launcher: None,
            },
        );
        state.save().unwrap();
        assert_eq!(State::load(dir.path()).unwrap().unwrap(), state);
    }

    #[test]
    fn a_damaged_or_foreign_file_is_refused_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = State::path(dir.path());
        for content in ["", "{", "[]", r#"{"version":1}"#] {
            std::fs::write(&path, content).unwrap();
            let error = State::load(dir.path()).unwrap_err().to_string();
            assert!(error.contains("state.json"), "{error}");
        }
        let mut value = serde_json::to_value(state(dir.path())).unwrap();
        value["version"] = 2.into();
        std::fs::write(&path, value.to_string()).unwrap();
        assert!(
            State::load(dir.path())
                .unwrap_err()
                .to_string()
                .contains("format 2")
        );
    }
}
