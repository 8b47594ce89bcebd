//! Makes a cluster, or finds the one that is there. The order: what the machine lacks, the tools, the state file, and only then
//! anything that would have to be cleaned up.

use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::command::{command, succeeds};
use crate::component::{Component, NodeDaemon};
use crate::error::{Error, Result};
use crate::plan::{INSTANCE_PREFIX, MAX_INSTANCE, MAX_NODES, Plan};
use crate::process::{died, wait_until};
use crate::progress::say;
use crate::state::State;
use crate::tools::Tools;
use crate::{
    cgroup, control_plane, down, files, image, lock, network, node, own_program, packages, pki,
    start, sysctl,
};

/// What cluster is wanted.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// How many nodes; 0 is an API server with its controllers and no place for pods.
    pub nodes: usize,
    /// The state folder; none means the instance's default.
    pub dir: Option<PathBuf>,
    /// Which of several clusters of one machine; decides bridge, addresses and cgroups.
    pub instance: u8,
}

impl Default for UpOptions {
    fn default() -> Self {
        Self {
            nodes: 2,
            dir: None,
            instance: 0,
        }
    }
}

impl UpOptions {
    fn plan(&self) -> Result<Plan> {
        if self.instance > MAX_INSTANCE || self.nodes > MAX_NODES {
            return Err(Error::Unsupported {
                what: format!("instance {} with {} nodes", self.instance, self.nodes),
                remedy: format!("instances go from 0 to {MAX_INSTANCE}, nodes to {MAX_NODES}"),
            });
        }
        let dir = self
            .dir
            .clone()
            .unwrap_or_else(|| Plan::default_dir(self.instance));
        let dir = std::path::absolute(&dir).map_err(Error::io("find", &dir))?;
        Ok(Plan {
            instance: self.instance,
            dir,
        })
    }
}

impl Cluster {
    /// Brings the cluster up and waits until every node is Ready. A healthy one of the same shape is used as it is, a broken one
    /// is replaced, a healthy one of another shape is left alone and is an error.
    pub fn up(options: &UpOptions) -> Result<Self> {
        packages::require_root()?;
        let plan = options.plan()?;
        let _lock = lock::acquire(&plan.lock())?;
        let cluster = Self::new(plan.clone());
        if let Some(state) = State::load(&plan.dir).unwrap_or(None) {
            if cluster.recovers(&state) {
                if state.nodes != options.nodes {
                    return Err(Error::OtherShape {
                        dir: plan.dir,
                        running: state.nodes,
                        wanted: options.nodes,
                    });
                }
                say(format_args!(
                    "a healthy cluster with {} nodes runs in {}",
                    state.nodes,
                    plan.dir.display()
                ));
                return Ok(cluster);
            }
            say("replacing what is left of an earlier cluster");
        }
        packages::require(packages::CLUSTER)?;
        let tools = Tools::build()?;
        image::pause_archive()?;
        let program = own_program::find()?;
        down::remove(&plan)?;
        files::create_dir(&plan.dir)?;
        let mut state = State::new(plan, options.nodes, tools, new_id()?);
        state.save()?;
        files::create_dir(&state.plan.logs())?;
        own_program::install(&program, &state.plan.own_program())?;
        cluster.make(&mut state)?;
        state.complete = true;
        state.save()?;
        say(format_args!(
            "ready: {} nodes, KUBECONFIG={}",
            state.nodes,
            cluster.kubeconfig().display()
        ));
        Ok(cluster)
    }

    fn make(&self, state: &mut State) -> Result<()> {
        let plan = &state.plan.clone();
        say("starting the control plane");
        pki::create(plan, state.nodes)?;
        control_plane::write_config(plan)?;
        prepare_host(state)?;
        cgroup::create(&plan.control_plane_cgroup())?;
        network::create(plan)?;
        start::start(state, Component::Etcd)?;
        start::start(state, Component::Apiserver)?;
        // Their containerd starts while the API server does.
        for number in 1..=state.nodes {
            start::start(state, Component::Node(number))?;
        }
        self.wait_for_api(state)?;
        start::start(state, Component::ControllerManager)?;
        start::start(state, Component::Scheduler)?;
        if state.nodes > 0 {
            say(format_args!("starting {} nodes", state.nodes));
        }
        for number in 1..=state.nodes {
            start::join_cluster(state, number)?;
        }
        let objects = plan.config().join(control_plane::OBJECTS);
        let objects = objects.display().to_string();
        self.kubectl(["apply", "--server-side", "-f", &objects])?;
        // After their rights, or their first attempts are refused and they back off.
        start::start(state, Component::CoreDns)?;
        start::start(state, Component::Storage)?;
        self.wait_for_nodes(state)?;
        self.wait_for_accounts(state)
    }

    /// Waits until the API server is ready; ends early when it, or its store, ended.
    pub(crate) fn wait_for_api(&self, state: &State) -> Result<()> {
        self.wait_for(
            state,
            &[Component::Etcd, Component::Apiserver],
            60,
            "the API server",
            || self.api_ready(state),
        )
    }

    /// Waits until every node is Ready.
    pub(crate) fn wait_for_nodes(&self, state: &State) -> Result<()> {
        let needed: Vec<Component> = (1..=state.nodes)
            .flat_map(|node| {
                [NodeDaemon::Containerd, NodeDaemon::Kubelet]
                    .map(|daemon| Component::NodeDaemon(node, daemon))
            })
            .collect();
        self.wait_for(state, &needed, 120, "all nodes to be Ready", || {
            self.ready_nodes()
                .is_ok_and(|ready| ready.len() >= state.nodes)
        })
    }

    /// No pod can be made before its service account, which the controller manager makes.
    fn wait_for_accounts(&self, state: &State) -> Result<()> {
        let mut get = command(self.tool("kubectl")?, ["get", "serviceaccount", "default"]);
        get.env("KUBECONFIG", self.kubeconfig());
        self.wait_for(
            state,
            &[Component::ControllerManager],
            30,
            "the default service account",
            || succeeds(&mut get),
        )
    }

    fn wait_for(
        &self,
        state: &State,
        needed: &[Component],
        seconds: u64,
        what: &str,
        mut condition: impl FnMut() -> bool,
    ) -> Result<()> {
        let mut ended = None;
        let met = wait_until(Duration::from_secs(seconds), || {
            ended = needed
                .iter()
                .map(ToString::to_string)
                .find(|name| state.daemons.get(name).is_none_or(|daemon| !daemon.alive()));
            ended.is_some() || condition()
        });
        match (ended, met) {
            (Some(name), _) => Err(died(&name, &self.plan.log(&name))),
            (None, true) => Ok(()),
            (None, false) => Err(Error::Timeout {
                what: what.to_owned(),
                seconds,
                hint: format!("see the logs in {}", self.plan.logs().display()),
            }),
        }
    }
}

/// Mount points that the host does not have, and settings that kubelets change, are noted first, so that `down` can undo both.
fn prepare_host(state: &mut State) -> Result<()> {
    if state.nodes == 0 {
        return Ok(());
    }
    state.sysctls = sysctl::read();
    // Those another instance made, empty on the host, are for the last one to remove.
    let others = cgroup::exists(INSTANCE_PREFIX)?;
    let ours = |path: &PathBuf| !path.exists() || (others && is_empty(path));
    state.mount_points = node::mount_points().filter(ours).collect();
    state.save()?;
    for path in node::mount_points() {
        files::create_dir(&path)?;
    }
    Ok(())
}

fn is_empty(folder: &std::path::Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// A random id from the kernel.
fn new_id() -> Result<String> {
    let text = files::read(std::path::Path::new("/proc/sys/kernel/random/uuid"))?;
    Ok(text.trim().to_owned())
}
