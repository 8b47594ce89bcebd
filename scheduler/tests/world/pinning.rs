//! Agents that give out whole CPUs: each has the last word on its node, whatever the scheduler believes.

use std::collections::BTreeMap;

use pilotlight_common::stream::{AgentRefusal, CpuReport, RefusedAssignment};
use pilotlight_scheduler::view::{Claim, Key, PodOwner};

use super::{NODES, World};

/// CPUs of the nodes, which are cores of one thread each.
#[derive(Debug, Default)]
pub struct Cpus {
    /// CPUs that each node can give; nodes that are not here give none.
    pub capacity: BTreeMap<String, u32>,
    /// CPUs by UID of the pod.
    pub pins: BTreeMap<String, u32>,
    /// What was refused for want of CPUs: owner and sandbox, by node.
    pub refused: BTreeMap<String, Vec<(String, String)>>,
    /// How often that happened.
    pub refusals: usize,
    /// Pods that find no room on the nodes they are kept to.
    pub kept: Vec<Key>,
}

impl World {
    /// From now on a node can give so many CPUs.
    pub fn give_cpus(&mut self, node: &str, cpus: u32) {
        self.cpus.capacity.insert(node.to_owned(), cpus);
        self.report(node);
    }

    /// A sandbox that asks for whole CPUs of its own.
    pub fn create_pinned(&mut self, cpus: u32) -> String {
        let uid = self.create_sandbox();
        self.undelivered.pop_back();
        self.edit(&uid, |spec| {
            if let Some(resources) = &mut spec.resources {
                resources.cpu = Some(format!("{cpus}.0"));
                resources.cpu_pinning = Some(true);
            }
        });
        uid
    }

    fn wants(&self, sandbox: &str) -> u32 {
        let resources = self
            .sandboxes
            .get(sandbox)
            .and_then(|s| s.spec.resources.clone());
        let resources = resources.unwrap_or_default();
        if resources.cpu_pinning != Some(true) {
            return 0;
        }
        let cpu = resources.cpu.unwrap_or_default();
        cpu.split('.')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    }

    fn node_of_pod(&self, key: &Key) -> Option<String> {
        let warm = self.warm_pods.get(key).and_then(|pod| pod.node.clone());
        warm.or_else(|| self.pods.get(key)?.node.clone())
    }

    fn free(&self, node: &str) -> u32 {
        let there = |uid: &str| {
            self.pods.iter().any(|(key, pod)| {
                pod.identity.uid == uid && self.node_of_pod(key).as_deref() == Some(node)
            })
        };
        let taken = self.cpus.pins.iter().filter(|(uid, _)| there(uid));
        let taken: u32 = taken.map(|(_, cpus)| cpus).sum();
        self.cpus
            .capacity
            .get(node)
            .copied()
            .unwrap_or(0)
            .saturating_sub(taken)
    }

    /// Gives the pod of an assignment the CPUs that its sandbox wants, or refuses the assignment. Whether it can be published.
    pub(super) fn arm(&mut self, key: &Key) -> bool {
        let Some(pod) = self.pods.get(key) else {
            return false;
        };
        let pod_uid = pod.identity.uid.clone();
        let (owner, sandbox) = match (&pod.owner, self.warm_pods.get(key)) {
            (PodOwner::Sandbox(uid), _) => (uid.clone(), uid.clone()),
            (_, Some(view)) => match &view.claim {
                Claim::Sandbox(uid) => (view.identity.uid.clone(), uid.clone()),
                _ => return false,
            },
            _ => return false,
        };
        let wanted = self.wants(&sandbox);
        let published = self
            .sandboxes
            .get(&sandbox)
            .is_none_or(|s| s.pod_name.is_some());
        let Some(node) = self.node_of_pod(key) else {
            return false;
        };
        if wanted == 0 || published || self.cpus.pins.contains_key(&pod_uid) {
            return true;
        }
        if wanted > self.free(&node) {
            let refused = self.cpus.refused.entry(node.clone()).or_default();
            if !refused.contains(&(owner.clone(), sandbox.clone())) {
                refused.push((owner, sandbox));
                self.cpus.refusals += 1;
                self.report(&node);
            }
            return false;
        }
        self.cpus.pins.insert(pod_uid, wanted);
        self.report(&node);
        true
    }

    /// CPUs of pods that are gone are free again, and the schedulers hear of it.
    pub(super) fn release_cpus(&mut self) {
        let there: Vec<String> = self
            .pods
            .values()
            .map(|pod| pod.identity.uid.clone())
            .collect();
        let before = self.cpus.pins.len();
        self.cpus.pins.retain(|uid, _| there.contains(uid));
        let (pods, sandboxes) = (&self.warm_pods, &self.sandboxes);
        let live = |owner: &str, sandbox: &str| {
            pods.values().any(|pod| pod.identity.uid == owner)
                || (owner == sandbox && sandboxes.contains_key(sandbox))
        };
        for refused in self.cpus.refused.values_mut() {
            refused.retain(|(owner, sandbox)| live(owner, sandbox));
        }
        // A pod that was made for one sandbox and refused is released when it is gone.
        let cold: Vec<String> = self
            .pods
            .values()
            .filter_map(|pod| match &pod.owner {
                PodOwner::Sandbox(uid) => Some(uid.clone()),
                _ => None,
            })
            .collect();
        for refused in self.cpus.refused.values_mut() {
            refused.retain(|(owner, sandbox)| owner != sandbox || cold.contains(sandbox));
        }
        if self.cpus.pins.len() != before {
            for node in NODES {
                self.report(node);
            }
        }
    }

    /// A pod that is kept to nodes without room stays without a node, whatever room there is elsewhere.
    pub fn lose_room(&mut self, key: &Key) {
        self.cpus.kept.push(key.clone());
    }

    /// What an agent says of its CPUs.
    pub(super) fn cpu_report(&self, node: &str) -> CpuReport {
        let pinned = self.pods.iter().filter(|(key, pod)| {
            self.cpus.pins.contains_key(&pod.identity.uid)
                && self.node_of_pod(key).as_deref() == Some(node)
        });
        CpuReport {
            message: String::new(),
            free: self.free(node),
            capacity: self.cpus.capacity.get(node).copied().unwrap_or(0),
            core: 1,
            pinned: pinned.map(|(_, pod)| pod.identity.uid.clone()).collect(),
        }
    }

    /// What an agent refuses for want of CPUs.
    pub(super) fn cpu_refusals(&self, node: &str) -> Vec<RefusedAssignment> {
        let refused = self.cpus.refused.get(node).into_iter().flatten();
        refused
            .map(|(owner_uid, sandbox_uid)| RefusedAssignment {
                owner_uid: owner_uid.clone(),
                sandbox_uid: sandbox_uid.clone(),
                reason: AgentRefusal::CpusUnavailable,
                message: String::new(),
            })
            .collect()
    }

    /// The node of the pod that a sandbox is published on.
    pub fn node_of(&self, sandbox: &str) -> Option<String> {
        let name = self.sandboxes.get(sandbox)?.pod_name.clone()?;
        let key = self.pods.keys().find(|key| key.name == name)?;
        self.node_of_pod(key)
    }
}
