//! A running local cluster: found by its state folder, asked for paths and names, fed with images. `up` makes one, `operate` stops
//! and starts its parts, `down` removes it.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::command::{command, run, succeeds};
use crate::component::Component;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::process::wait_until;
use crate::progress::say;
use crate::state::State;
use crate::{files, node};

/// How long a cluster whose processes all run may take to become ready before it counts as broken.
const RECOVERY: Duration = Duration::from_secs(20);

/// A handle to the local cluster; it holds no resources, any number may exist, in any number of processes.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) plan: Plan,
    kubeconfig: PathBuf,
}

impl Cluster {
    pub(crate) fn new(plan: Plan) -> Self {
        let kubeconfig = plan.kubeconfig();
        Self { plan, kubeconfig }
    }

    /// The cluster that runs in a state folder.
    pub fn attach(dir: &Path) -> Result<Self> {
        let state = State::load(dir)?.ok_or_else(|| Error::NoCluster(dir.to_path_buf()))?;
        Ok(Self::new(state.plan))
    }

    pub(crate) fn state(&self) -> Result<State> {
        State::load(&self.plan.dir)?.ok_or_else(|| Error::NoCluster(self.plan.dir.clone()))
    }

    /// The state folder.
    pub fn dir(&self) -> &Path {
        &self.plan.dir
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The log file of a component, such as `apiserver` or `node-1/kubelet`.
    pub fn log(&self, component: &str) -> PathBuf {
        self.plan.log(component)
    }

    /// The host's address on the cluster's bridge; pods reach the host there.
    pub fn host_address(&self) -> std::net::Ipv4Addr {
        self.plan.host()
    }

    /// Names and addresses of its parts.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The names of all nodes, running or not.
    pub fn node_names(&self) -> Result<Vec<String>> {
        let state = self.state()?;
        Ok(self
            .plan
            .nodes(state.nodes)
            .into_iter()
            .map(|node| node.name)
            .collect())
    }

    /// The path of `kubectl`, `helm`, `ctr`, or any other program of the cluster.
    pub fn tool(&self, name: &str) -> Result<PathBuf> {
        self.state()?.tools.path(name)
    }

    /// The folders of all these programs, for PATH.
    pub fn tool_folders(&self) -> Result<Vec<PathBuf>> {
        Ok(self
            .state()?
            .tools
            .folders()
            .map(Path::to_path_buf)
            .to_vec())
    }

    /// Runs `kubectl` as the administrator and returns what it prints.
    pub fn kubectl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
        run(command(self.tool("kubectl")?, args).env("KUBECONFIG", &self.kubeconfig))
    }

    /// Gives names addresses in the cluster's DNS, beside its own names, replacing those given before. They are seen within a second.
    pub fn set_hosts<'a>(
        &self,
        hosts: impl IntoIterator<Item = (&'a str, std::net::IpAddr)>,
    ) -> Result<()> {
        let lines: Vec<String> = hosts
            .into_iter()
            .map(|(name, address)| format!("{address} {name}\n"))
            .collect();
        files::replace(&self.plan.hosts(), lines.concat())
    }

    /// Loads an image archive into every running node, all at once.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let archive = archive.canonicalize().map_err(Error::io("find", archive))?;
        let state = self.state()?;
        let inits: Vec<i32> = (1..=state.nodes)
            .filter_map(|number| state.daemons.get(&Component::Node(number).to_string()))
            .filter(|init| init.alive())
            .map(|init| init.main.pid)
            .collect();
        say(format_args!(
            "loading {} into {} nodes",
            archive.display(),
            inits.len()
        ));
        thread::scope(|scope| {
            let imports: Vec<_> = inits
                .iter()
                .map(|init| scope.spawn(|| node::import(&state.tools, *init, &archive)))
                .collect();
            imports.into_iter().try_for_each(|import| {
                import
                    .join()
                    .unwrap_or_else(|_| Err(Error::NoCluster(self.plan.dir.clone())))
            })
        })
    }

    /// Whether the API server says it is ready.
    pub(crate) fn api_ready(&self, state: &State) -> bool {
        state.tools.path("kubectl").is_ok_and(|kubectl| {
            let mut ready = command(kubectl, ["get", "--raw", "/readyz", "--request-timeout=3s"]);
            succeeds(ready.env("KUBECONFIG", &self.kubeconfig))
        })
    }

    /// The names of the nodes that are Ready.
    pub fn ready_nodes(&self) -> Result<Vec<String>> {
        let listing = self.kubectl(["get", "nodes", "-o", "json", "--request-timeout=5s"])?;
        parse_ready(&listing)
    }

    /// Whether all processes of a finished `up` run.
    fn runs(state: &State) -> bool {
        let runs = |component: &Component| {
            let daemon = state.daemons.get(&component.to_string());
            daemon.is_some_and(|daemon| daemon.alive() && !daemon.main.stopped())
        };
        state.complete && Component::all(state.nodes).iter().all(runs)
    }

    /// Whether everything runs and every node is Ready, or soon is: a restarted component needs a moment.
    pub(crate) fn recovers(&self, state: &State) -> bool {
        let mut runs = true;
        let ready = wait_until(RECOVERY, || {
            runs = Self::runs(state);
            !runs
                || (self.api_ready(state)
                    && self
                        .ready_nodes()
                        .is_ok_and(|ready| ready.len() == state.nodes))
        });
        runs && ready
    }
}

/// The Ready nodes of a node list.
fn parse_ready(listing: &str) -> Result<Vec<String>> {
    let answer = |error: serde_json::Error| Error::Answer {
        program: "kubectl".into(),
        reason: error.to_string(),
    };
    let list: serde_json::Value = serde_json::from_str(listing).map_err(answer)?;
    let items = list["items"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let ready = items.iter().filter(|node| {
        let conditions = node["status"]["conditions"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        conditions
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    });
    Ok(ready
        .filter_map(|node| node["metadata"]["name"].as_str().map(str::to_owned))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ready_nodes_count() {
        let listing = r#"{"items":[
            {"metadata":{"name":"a"},"status":{"conditions":[{"type":"Ready","status":"True"}]}},
            {"metadata":{"name":"b"},"status":{"conditions":[{"type":"Ready","status":"Unknown"}]}},
            {"metadata":{"name":"c"},"status":{}}]}"#;
        assert_eq!(parse_ready(listing).unwrap(), ["a"]);
        assert!(parse_ready("nonsense").is_err());
    }
}
