//! Faults, on the local cluster: its nodes' processes are processes of this machine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pilotlight_bench::hub::Hub;
use pilotlight_bench::objects::text;
use pilotlight_bench::process::{Found, find};
use pilotlight_cluster::Cluster;

use crate::environment::{Environment, PATIENCE};

/// Lease of the schedulers, and the name of their Deployment.
const SCHEDULER: &str = "pilotlight-scheduler";
const AGENT: &str = "pilotlight-node-agent";
/// Deployment of the controller of agents.x-k8s.io; it is the same program.
const CONTROLLER: &str = "pilotlight-agents";

/// Where faults can be made.
pub struct Faults {
    environment: &'static Environment,
    cluster: Cluster,
}

/// Processes that a test halted; they go on when it is dropped, whatever became of the test.
pub struct Halted(Vec<i32>);

impl Drop for Halted {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
        }
    }
}

/// The scheduler's program in the pods of one of its Deployments.
fn replicas(deployment: &str) -> Result<Vec<Found>> {
    let mut found = find(SCHEDULER)?;
    found.retain(|found| found.host_name.starts_with(deployment));
    ensure!(
        !found.is_empty(),
        "no process of {deployment} is on this machine"
    );
    Ok(found)
}

impl Faults {
    /// Faults on the local cluster; none on a cluster whose processes are elsewhere.
    pub fn of(environment: &'static Environment) -> Option<Self> {
        let cluster = environment.installation.local();
        if cluster.is_none() {
            eprintln!("left out: faults can be made on the local cluster only");
        }
        cluster.map(|cluster| Self {
            environment,
            cluster,
        })
    }

    /// The replica that leads.
    pub async fn leader(&self) -> Result<String> {
        let namespace = &self.environment.installation.namespace;
        let leases: Api<Lease> = Api::namespaced(self.environment.client.clone(), namespace);
        let lease = leases.get(SCHEDULER).await?;
        let holder = lease.spec.and_then(|s| s.holder_identity);
        holder.filter(|h| !h.is_empty()).context("nobody leads")
    }

    /// A watch of the Lease.
    pub async fn leases(&self) -> Result<Hub> {
        let kind = kube::api::ApiResource::erase::<Lease>(&());
        let namespace = &self.environment.installation.namespace;
        Hub::open(Api::namespaced_with(
            self.environment.client.clone(),
            namespace,
            &kind,
        ))
        .await
    }

    /// Waits until another replica than `before` leads; how long after `since`.
    pub async fn next_leader(
        &self,
        leases: &Hub,
        before: &str,
        since: Instant,
    ) -> Result<Duration> {
        let namespace = &self.environment.installation.namespace;
        let before = before.to_owned();
        let changed = leases.expect(namespace, SCHEDULER, move |lease| {
            let holder = lease.and_then(|l| text(l, "/spec/holderIdentity"));
            holder.is_some_and(|h| !h.is_empty() && h != before)
        });
        let at = changed
            .within(PATIENCE)
            .await
            .context("no other replica leads")?;
        Ok(at.saturating_duration_since(since))
    }

    /// Processes of all scheduler replicas.
    pub fn schedulers(&self) -> Result<Vec<Found>> {
        replicas(SCHEDULER)
    }

    /// Processes of all replicas of the controller of agents.x-k8s.io.
    pub fn controllers(&self) -> Result<Vec<Found>> {
        replicas(CONTROLLER)
    }

    /// The process of one scheduler replica.
    pub fn scheduler(&self, replica: &str) -> Result<i32> {
        let found = self.schedulers()?;
        let own = found.iter().find(|f| f.host_name == replica);
        Ok(own
            .with_context(|| format!("no process of {replica} in {found:?}"))?
            .pid)
    }

    /// Processes of all node agents, both halves.
    pub fn agents(&self) -> Result<Vec<Found>> {
        let found = find(AGENT)?;
        ensure!(
            !found.is_empty(),
            "no process of a node agent is on this machine"
        );
        Ok(found)
    }

    /// Ends processes without a chance to clean up.
    pub fn kill(&self, pids: impl IntoIterator<Item = i32>) -> Result<()> {
        for pid in pids {
            kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("kill {pid}"))?;
        }
        Ok(())
    }

    /// Halts processes.
    pub fn halt(&self, pids: Vec<i32>) -> Result<Halted> {
        let halted = Halted(pids);
        for pid in &halted.0 {
            kill(Pid::from_raw(*pid), Signal::SIGSTOP).with_context(|| format!("halt {pid}"))?;
        }
        Ok(halted)
    }

    /// Stops a part of the cluster, such as `node-1/kubelet`, or a whole node with its pods.
    pub async fn stop(&self, component: &str) -> Result<()> {
        let (cluster, component) = (self.cluster.clone(), component.to_owned());
        tokio::task::spawn_blocking(move || cluster.component(&component)?.stop()).await??;
        Ok(())
    }

    /// Starts it again.
    pub async fn start(&self, component: &str) -> Result<()> {
        let (cluster, component) = (self.cluster.clone(), component.to_owned());
        tokio::task::spawn_blocking(move || cluster.component(&component)?.start()).await??;
        Ok(())
    }

    /// Waits until every part of the installation is well again, so that the next test begins like the first.
    pub async fn healed(&self) -> Result<()> {
        let installation = &self.environment.installation;
        let mut commands = Vec::new();
        for object in [
            "deployment/pilotlight-scheduler",
            "deployment/pilotlight-agents",
            "daemonset/pilotlight-node-agent",
        ] {
            let mut command = installation.kubectl();
            command.args(["-n", &installation.namespace, "rollout", "status", object]);
            command.arg("--timeout=120s");
            commands.push(command);
        }
        let mut nodes = installation.kubectl();
        nodes.args([
            "wait",
            "nodes",
            "--all",
            "--timeout=120s",
            "--for=condition=Ready",
        ]);
        commands.push(nodes);
        tokio::task::spawn_blocking(move || {
            for mut command in commands {
                crate::environment::output(&mut command)?;
            }
            anyhow::Ok(())
        })
        .await?
    }
}
