//! What the agent of one full node takes: memory of both of its processes, and CPU time while nothing happens.
//!
//! All pods are to be on one node, so the others take none meanwhile; [`Cordon`] is that, and takes it back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use pilotlight_common::names::{AGENT_READY, AGENT_READY_LABEL};
use serde::Serialize;
use serde_json::json;

use crate::process::{self, Found};
use crate::stats::{count, rounded};

/// The program of the agent.
const AGENT: &str = "pilotlight-node-agent";
/// MiB of both processes together that it is meant to stay below.
const TARGET_MIB: f64 = 40.0;
/// Per cent of a core while idle that it is meant to stay below.
const TARGET_PERCENT: f64 = 1.0;
/// Pods of a node that this leaves free: what the cluster itself starts meanwhile.
const SPARE_PODS: u32 = 2;

/// What the agent of one node took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Footprint {
    /// Pods of the project on its node.
    pub pods: u32,
    /// Resident memory of each of its processes, in MiB, by what they are.
    pub rss_mib_by_process: BTreeMap<String, f64>,
    /// The sum of these.
    pub rss_mib: f64,
    /// Length of the measurement, in seconds.
    pub idle_s: f64,
    /// CPU time of both in that while, in per cent of a core.
    pub idle_cpu_percent: f64,
}

impl Footprint {
    /// For people, with what was aimed at.
    pub fn line(&self) -> String {
        let parts: Vec<String> = self
            .rss_mib_by_process
            .iter()
            .map(|(what, mib)| format!("{what} {mib:.1}"))
            .collect();
        format!(
            "agent at {} pods: {:.1} MiB resident ({}; aim: below {TARGET_MIB}), {:.2} % of a core over {:.0} idle s (aim: below {TARGET_PERCENT})",
            self.pods,
            self.rss_mib,
            parts.join(", "),
            self.idle_cpu_percent,
            self.idle_s
        )
    }
}

/// The node that is to be full, and how many pods it can take.
#[derive(Clone, Debug, PartialEq)]
pub struct Full {
    /// Its name.
    pub node: String,
    /// Host name of its agent's processes: the name of its agent's pod.
    pub agent: String,
    /// Pods that fit, at most as many as wanted.
    pub pods: u32,
}

/// Chooses a node with an agent on this machine; none where there is none.
pub async fn choose(client: &Client, system: &str, wanted: u32) -> Result<Option<Full>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let ready = ListParams::default().labels(&format!("{AGENT_READY_LABEL}={AGENT_READY}"));
    let nodes = nodes.list(&ready).await?.items;
    let pods: Api<Pod> = Api::all(client.clone());
    let pods = pods.list(&ListParams::default()).await?.items;
    Ok(pick(&nodes, &pods, &process::find(AGENT)?, system, wanted))
}

fn pick(nodes: &[Node], pods: &[Pod], agents: &[Found], system: &str, wanted: u32) -> Option<Full> {
    nodes.iter().find_map(|node| {
        let name = node.metadata.name.clone()?;
        let on_it = pods.iter().filter(|pod| {
            let of = pod.spec.as_ref().and_then(|s| s.node_name.as_ref());
            of == Some(&name)
        });
        let on_it: Vec<&Pod> = on_it.collect();
        let agent = on_it.iter().find_map(|pod| {
            let pod_name = pod.metadata.name.as_ref()?;
            let here = pod.metadata.namespace.as_deref() == Some(system)
                && agents.iter().any(|found| found.host_name == *pod_name);
            here.then(|| pod_name.clone())
        })?;
        let allocatable = node.status.as_ref()?.allocatable.as_ref()?.get("pods")?;
        let room = allocatable.0.parse::<u32>().ok()?;
        let taken = u32::try_from(on_it.len()).ok()?;
        Some(Full {
            node: name,
            agent,
            pods: wanted.min(room.saturating_sub(taken + SPARE_PODS)),
        })
    })
}

/// Nodes that take no new pods.
pub struct Cordon {
    nodes: Api<Node>,
    closed: Vec<String>,
}

impl Cordon {
    /// Closes every node that takes pods now, but for `open`.
    pub async fn around(client: &Client, open: &str) -> Result<Self> {
        let nodes: Api<Node> = Api::all(client.clone());
        let mut cordon = Self {
            nodes: nodes.clone(),
            closed: Vec::new(),
        };
        for node in nodes.list(&ListParams::default()).await?.items {
            let closed = node.spec.and_then(|s| s.unschedulable).unwrap_or(false);
            let name = node.metadata.name.unwrap_or_default();
            if closed || name == open {
                continue;
            }
            if let Err(error) = cordon.set(&name, true).await {
                cordon.lift().await?;
                return Err(error);
            }
            cordon.closed.push(name);
        }
        Ok(cordon)
    }

    /// Opens again what it closed.
    pub async fn lift(self) -> Result<()> {
        for name in &self.closed {
            self.set(name, false).await?;
        }
        Ok(())
    }

    async fn set(&self, name: &str, closed: bool) -> Result<()> {
        let patch = json!({ "spec": { "unschedulable": closed.then_some(true) } });
        let params = PatchParams::default();
        let patched = self.nodes.patch(name, &params, &Patch::Merge(&patch)).await;
        patched.with_context(|| format!("cannot change whether node {name} takes pods"))?;
        Ok(())
    }
}

/// Measures the agent of a node that is full and idle, for `length`.
pub async fn measure(full: &Full, length: Duration) -> Result<Option<Footprint>> {
    let before = read(full)?;
    let begun = Instant::now();
    tokio::time::sleep(length).await;
    Ok(footprint(full.pods, &before, &read(full)?, begun.elapsed()))
}

/// CPU seconds and MiB of each process of the agent, by process id, with what it is.
type Processes = BTreeMap<i32, (String, f64, f64)>;

fn read(full: &Full) -> Result<Processes> {
    let reading = process::read(AGENT)?;
    let own = process::find(AGENT)?
        .into_iter()
        .filter(|found| found.host_name == full.agent);
    Ok(own
        .filter_map(|found| {
            let (_, cpu, rss) = reading.get(&found.pid)?;
            let what = found.arguments.into_iter().next().unwrap_or_default();
            Some((found.pid, (what, *cpu, *rss)))
        })
        .collect())
}

/// None where a process was not there all the while: what it used cannot be told then.
fn footprint(
    pods: u32,
    before: &Processes,
    after: &Processes,
    length: Duration,
) -> Option<Footprint> {
    if before.is_empty() || !before.keys().eq(after.keys()) {
        return None;
    }
    let mut by_process: BTreeMap<String, f64> = BTreeMap::new();
    let mut cpu_s = 0.0;
    for (pid, (what, cpu, rss)) in after {
        *by_process.entry(what.clone()).or_default() += rss;
        cpu_s += cpu - before.get(pid).map_or(0.0, |(_, cpu, _)| *cpu);
    }
    let seconds = length.as_secs_f64().max(f64::MIN_POSITIVE);
    Some(Footprint {
        pods,
        rss_mib: rounded(by_process.values().sum()),
        rss_mib_by_process: by_process
            .into_iter()
            .map(|(what, mib)| (what, rounded(mib)))
            .collect(),
        idle_s: rounded(seconds),
        idle_cpu_percent: rounded(cpu_s / seconds * count(100)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes(cpu: f64) -> Processes {
        Processes::from([
            (1, ("api".to_owned(), cpu, 20.0)),
            (2, ("host".to_owned(), cpu, 5.0)),
        ])
    }

    #[test]
    fn both_processes_are_added_and_the_idle_time_is_a_share_of_a_core() {
        let length = Duration::from_mins(1);
        let seen = footprint(110, &processes(1.0), &processes(1.3), length).unwrap();
        assert_eq!((seen.rss_mib, seen.idle_cpu_percent), (25.0, 1.0));
        let line = seen.line();
        assert!(
            line.starts_with("agent at 110 pods: 25.0 MiB resident (api 20.0, host 5.0;"),
            "{line}"
        );
    }

    #[test]
    fn nothing_is_told_of_a_process_that_came_or_went_meanwhile() {
        let length = Duration::from_mins(1);
        let (both, mut one) = (processes(1.0), processes(1.0));
        one.remove(&2);
        assert_eq!(footprint(1, &both, &one, length), None);
        assert_eq!(footprint(1, &one, &both, length), None);
        assert_eq!(
            footprint(1, &Processes::new(), &Processes::new(), length),
            None
        );
    }

    #[test]
    fn the_node_whose_agent_is_here_is_filled_as_far_as_it_has_room() {
        let object = |value| serde_json::from_value(value);
        let node = |name: &str| -> Node {
            let value = json!({ "metadata": { "name": name }, "status": { "allocatable": { "pods": "110" } } });
            serde_json::from_value(value).unwrap()
        };
        let pod = |name: &str, namespace: &str, on: &str| -> Pod {
            let value = json!({ "metadata": { "name": name, "namespace": namespace }, "spec": { "nodeName": on, "containers": [] } });
            object(value).unwrap()
        };
        let found = |host_name: &str| Found {
            pid: 1,
            host_name: host_name.to_owned(),
            pid_namespace: 1,
            arguments: Vec::new(),
        };
        let nodes = [node("far"), node("near")];
        let pods = [
            pod("agent-far", "system", "far"),
            pod("agent-near", "system", "near"),
            pod("other", "default", "near"),
        ];
        let agents = [found("agent-near"), found("other")];
        let full = pick(&nodes, &pods, &agents, "system", 200).unwrap();
        assert_eq!(
            (full.node.as_str(), full.agent.as_str()),
            ("near", "agent-near")
        );
        assert_eq!(full.pods, 110 - 2 - SPARE_PODS);
        let fewer = pick(&nodes, &pods, &agents, "system", 20).unwrap();
        assert_eq!(fewer.pods, 20);
        assert_eq!(pick(&nodes, &pods, &[], "system", 20), None);
    }
}
