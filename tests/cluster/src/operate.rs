//! Faults and repairs: stop, kill, pause, resume and start single components or whole nodes of a running cluster, as fault tests do.

use std::time::Duration;

use crate::cgroup;
use crate::cluster::Cluster;
use crate::component::Component;
use crate::error::{Error, Result};
use crate::lock;
use crate::process::{Daemon, wait_until};
use crate::start;
use crate::state::State;

/// How long a component may take to end by itself.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// One component of a cluster, for operations on it.
#[derive(Debug)]
pub struct ComponentHandle<'a> {
    cluster: &'a Cluster,
    component: Component,
}

impl Cluster {
    /// A component by name: `apiserver`, `etcd`, `controller-manager`, `kube-scheduler`, `coredns`, `storage`, `node-1`, `node-1/kubelet`...
    pub fn component(&self, name: &str) -> Result<ComponentHandle<'_>> {
        let known = Component::all(self.state()?.nodes);
        match name.parse::<Component>() {
            Ok(component) if known.contains(&component) => Ok(ComponentHandle {
                cluster: self,
                component,
            }),
            _ => Err(Error::UnknownComponent {
                name: name.to_owned(),
                known: known
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    /// The process numbers of a component as the host counts them; of a node, all its processes with those of its pods.
    pub fn pids(&self, component: &str) -> Result<Vec<i32>> {
        self.component(component)?.pids()
    }

    /// Every component's name and whether it is `running`, `paused` or `stopped`.
    pub fn status(&self) -> Result<Vec<(String, &'static str)>> {
        let state = self.state()?;
        let describe = |component: &Component| {
            let name = component.to_string();
            let word = match (state.daemons.get(&name), component) {
                (Some(daemon), _) if !daemon.alive() => "stopped",
                (None, _) => "stopped",
                (Some(_), Component::Node(number) | Component::NodeDaemon(number, _))
                    if cgroup::frozen(&self.plan.node(*number).cgroup) =>
                {
                    "paused"
                }
                (Some(daemon), _) if daemon.main.stopped() => "paused",
                (Some(_), _) => "running",
            };
            (name, word)
        };
        Ok(Component::all(state.nodes).iter().map(describe).collect())
    }
}

impl ComponentHandle<'_> {
    /// Ends it at once, without a chance to clean up. A node goes with all its pods.
    pub fn kill(&self) -> Result<()> {
        self.with_state(|state| {
            self.thaw()?;
            self.ended(self.daemon(state)?.kill())?;
            self.settle()
        })
    }

    /// Asks it to end. After ten seconds it is killed.
    pub fn stop(&self) -> Result<()> {
        self.with_state(|state| {
            self.thaw()?;
            let daemon = self.daemon(state)?;
            if let Component::Node(_) = self.component {
                // The init of a node does nothing else than hold it.
                self.ended(daemon.kill())?;
            } else {
                self.ended(daemon.stop(STOP_LIMIT))?;
            }
            self.settle()
        })
    }

    /// A signal acts when the kernel gets to it, on a busy machine later than the call that sends it returns.
    fn until(&self, reached: impl FnMut() -> bool, what: &str) -> Result<()> {
        if wait_until(STOP_LIMIT, reached) {
            return Ok(());
        }
        Err(Error::Timeout {
            what: format!("{} {what}", self.component),
            seconds: STOP_LIMIT.as_secs(),
            hint: "it may have ended".into(),
        })
    }

    /// Halts it (SIGSTOP; a node by the cgroup freezer, with all its pods), as a hanging process or machine would.
    pub fn pause(&self) -> Result<()> {
        self.with_state(|state| {
            let daemon = self.daemon(state)?;
            if let Component::Node(number) = self.component {
                return cgroup::freeze(&state.plan.node(number).cgroup, true);
            }
            daemon.pause();
            self.until(|| daemon.main.stopped(), "to stop")
        })
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.with_state(|state| {
            let daemon = self.daemon(state)?;
            self.thaw()?;
            daemon.resume();
            self.until(|| !daemon.main.stopped(), "to go on")
        })
    }

    /// Starts it if it does not run. A node starts as a machine does after a power cut: with its data and without its processes.
    /// Returns when it runs, not when it is ready; `Cluster::wait_ready` waits for that.
    pub fn start(&self) -> Result<()> {
        self.with_state(|state| {
            start::start(state, self.component)?;
            match self.component {
                Component::Node(number) => start::join_cluster(state, number),
                _ => Ok(()),
            }
        })
    }

    /// Stops and starts it.
    pub fn restart(&self) -> Result<()> {
        if self.running()? {
            self.stop()?;
        }
        self.start()
    }

    /// Whether it runs (a paused one does).
    pub fn running(&self) -> Result<bool> {
        let state = self.cluster.state()?;
        Ok(state
            .daemons
            .get(&self.component.to_string())
            .is_some_and(Daemon::alive))
    }

    /// Its process numbers as the host counts them.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let state = self.cluster.state()?;
        if let Component::Node(number) = self.component {
            let group = state.plan.node(number).cgroup;
            return Ok(cgroup::members(&group)?
                .into_iter()
                .map(|process| process.pid)
                .collect());
        }
        Ok(self
            .daemon(&state)
            .map(|daemon| vec![daemon.main.pid])
            .unwrap_or_default())
    }

    fn with_state(&self, change: impl FnOnce(&mut State) -> Result<()>) -> Result<()> {
        let _lock = lock::acquire(&self.cluster.plan.lock())?;
        change(&mut self.cluster.state()?)
    }

    fn daemon(&self, state: &State) -> Result<Daemon> {
        let component = self.component.to_string();
        match state.daemons.get(&component) {
            Some(daemon) if daemon.alive() => Ok(daemon.clone()),
            _ => Err(Error::NotRunning { component }),
        }
    }

    /// A frozen node can neither be killed nor end.
    fn thaw(&self) -> Result<()> {
        match self.component {
            Component::Node(number) => {
                cgroup::freeze(&self.cluster.plan.node(number).cgroup, false)
            }
            _ => Ok(()),
        }
    }

    /// Waits until the last process of a dead node is gone.
    fn settle(&self) -> Result<()> {
        let Component::Node(number) = self.component else {
            return Ok(());
        };
        let group = self.cluster.plan.node(number).cgroup;
        let empty = crate::process::wait_until(STOP_LIMIT, || {
            cgroup::members(&group).is_ok_and(|left| left.is_empty())
        });
        self.ended(empty)
    }

    fn ended(&self, gone: bool) -> Result<()> {
        if gone {
            return Ok(());
        }
        Err(Error::Timeout {
            what: format!("{} to end", self.component),
            seconds: STOP_LIMIT.as_secs(),
            hint: "a process hangs in the kernel".into(),
        })
    }
}

impl Cluster {
    /// Waits until the API server answers and every node is Ready, after faults.
    pub fn wait_ready(&self) -> Result<()> {
        let state = self.state()?;
        self.wait_for_api(&state)?;
        self.wait_for_nodes(&state)
    }
}
