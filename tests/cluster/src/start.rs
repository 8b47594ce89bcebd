//! Starts single components and writes each to the state before anything goes on. Used by `up` for all of them and by component
//! operations for one.

use crate::command::find;
use crate::component::{Component, NodeDaemon};
use crate::error::{Error, Result};
use crate::process::{Daemon, Launch, launch};
use crate::state::State;
use crate::{cgroup, control_plane, network, node};

/// PATH of all components: their own programs, then the system's.
fn path(state: &State) -> String {
    let mut folders: Vec<String> = state
        .tools
        .folders()
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    folders.extend(
        [
            "/usr/local/sbin",
            "/usr/local/bin",
            "/usr/sbin",
            "/usr/bin",
            "/sbin",
            "/bin",
        ]
        .map(str::to_owned),
    );
    folders.join(":")
}

/// The init of a running node, as the host numbers it.
pub(crate) fn init_pid(state: &State, number: usize) -> Result<i32> {
    let component = Component::Node(number).to_string();
    match state.daemons.get(&component) {
        Some(daemon) if daemon.alive() => Ok(daemon.main.pid),
        _ => Err(Error::NotRunning { component }),
    }
}

/// Starts one component that does not run; one that does is left alone.
pub(crate) fn start(state: &mut State, component: Component) -> Result<()> {
    let name = component.to_string();
    if state.daemons.get(&name).is_some_and(Daemon::alive) {
        return Ok(());
    }
    match component {
        Component::Node(number) => start_node(state, number),
        Component::NodeDaemon(number, daemon) => start_daemon(state, number, daemon),
        _ => {
            let argv = control_plane::command_line(component, &state.plan, &state.tools)?;
            let cgroup = state.plan.control_plane_cgroup();
            run(state, &name, argv, false, &cgroup)?;
            Ok(())
        }
    }
}

/// Starts a node's namespaces and everything in them. Its containers' data and its pods' volumes are those it had before.
fn start_node(state: &mut State, number: usize) -> Result<()> {
    let node = state.plan.node(number);
    cgroup::create(&node.cgroup)?;
    node::prepare(&state.plan, &node, &state.tools)?;
    let daemon = run(state, &node.name, node::init_command(), true, &node.cgroup)?;
    let init = daemon.main.pid;
    node::mount_folders(&node, init)?;
    network::connect(&state.plan, &node, state.nodes, init)?;
    start_daemon(state, number, NodeDaemon::Containerd)
}

/// Starts kubelet and kube-proxy of a node whose containerd is up: the second half of a node's start, once the API server answers.
pub(crate) fn join_cluster(state: &mut State, number: usize) -> Result<()> {
    let node = state.plan.node(number);
    let containerd = Component::NodeDaemon(number, NodeDaemon::Containerd).to_string();
    let init = init_pid(state, number)?;
    node::wait_containerd(&node, &state.tools, init, &state.plan.log(&containerd))?;
    node::import(&state.tools, init, &crate::image::pause_archive()?)?;
    start(state, Component::NodeDaemon(number, NodeDaemon::Kubelet))?;
    start(state, Component::NodeDaemon(number, NodeDaemon::KubeProxy))
}

fn start_daemon(state: &mut State, number: usize, daemon: NodeDaemon) -> Result<()> {
    let node = state.plan.node(number);
    let init = init_pid(state, number)?;
    let argv = node::daemon_command(daemon, &state.plan, &node, &state.tools, init)?;
    let name = Component::NodeDaemon(number, daemon).to_string();
    run(state, &name, argv, true, &node.cgroup)?;
    Ok(())
}

fn run(
    state: &mut State,
    name: &str,
    argv: Vec<String>,
    nested: bool,
    cgroup: &str,
) -> Result<Daemon> {
    let daemon = launch(&Launch {
        name,
        argv: absolute(argv),
        nested,
        path: &path(state),
        id: &state.id,
        log: state.plan.log(name),
    })?;
    state.daemons.insert(name.to_owned(), daemon.clone());
    state.save()?;
    // Away from the group of whoever called: what limits or ends that must not touch the cluster.
    cgroup::adopt(cgroup, &daemon)?;
    Ok(daemon)
}

/// The first word of a command line as a path, wherever this machine keeps it.
fn absolute(mut argv: Vec<String>) -> Vec<String> {
    if let Some(program) = argv.first_mut()
        && let Some(path) = find(program)
    {
        *program = path.display().to_string();
    }
    argv
}
