//! Which nodes have whole CPUs for sandboxes that want them for their own. Called by the rest of the index, and by
//! [`crate::decide`].
//!
//! An agent reports how many it can give. What was assigned since is a promise, and counts as given until the agent
//! reports the pod as pinned, or refuses it: the agent has the last word, and this only keeps refusals rare.

use std::collections::{BTreeMap, BTreeSet};

use super::{Index, NodeEntry};
use crate::view::{Key, PodOwner};

/// Nodes that a pod of its own may choose from: each is a term of its specification.
const MAX_CHOICE: usize = 32;

/// What a node can give, as far as it is known here.
#[derive(Debug, Default)]
pub struct NodePins {
    /// CPUs asked for by pods that were assigned and are not reported as pinned yet.
    pub promised: BTreeMap<Key, u32>,
    /// The most that one sandbox can get now.
    pub free: u32,
}

/// The nodes by what they can give, and the pods that are to get some and have no node yet.
#[derive(Debug, Default)]
pub struct Pinning {
    free: BTreeSet<(u32, String)>,
    /// UIDs of sandboxes whose own pod is being made or placed.
    unplaced: BTreeSet<String>,
}

impl NodeEntry {
    fn free_cpus(&self) -> u32 {
        let Some(report) = self.report.as_ref().filter(|_| self.is_up()) else {
            return 0;
        };
        let promised = self.pins.promised.values();
        let promised = promised.fold(0u32, |sum, cpus| {
            sum.saturating_add(report.cpus.cost(*cpus))
        });
        report.cpus.free.saturating_sub(promised)
    }

    fn has_pinned(&self, pod_uid: &str) -> bool {
        self.report
            .as_ref()
            .is_some_and(|report| report.cpus.pinned.iter().any(|uid| uid == pod_uid))
    }
}

impl Index {
    /// Whole CPUs that a sandbox is to have for its own; `None` where it wants some and how many is not known now.
    pub(crate) fn pinned_cpus(&self, uid: &str) -> Option<u32> {
        let entry = self.sandboxes.get(uid)?;
        if let Ok((resolved, _)) = &entry.resolved {
            return Some(resolved.pinned_cpus);
        }
        let resources = entry.view.spec.resources.as_ref();
        let wants = resources.and_then(|r| r.cpu_pinning) == Some(true);
        // What is published has its CPUs already.
        (!wants || entry.view.pod_name.is_some()).then_some(0)
    }

    /// Brings what a warm pod is promised up to date.
    pub(super) fn note_promise(&mut self, key: &Key) {
        let Some(entry) = self.warm_pods.get(key) else {
            return;
        };
        let Some(node) = entry.view.node.clone() else {
            return;
        };
        let sandbox = entry.in_flight.as_deref().or(entry.sandbox());
        let cpus = sandbox
            .filter(|_| entry.refused.is_none() && !entry.view.identity.deleting)
            .and_then(|uid| self.pinned_cpus(uid))
            .unwrap_or(0);
        let pod = self.pod_of(key).map(|pod| pod.identity.uid.clone());
        self.promise(key, &node, cpus, pod.as_deref());
    }

    /// The same of the pods that were made for one sandbox.
    pub(super) fn note_cold_promise(&mut self, uid: &str) {
        let cpus = self.pinned_cpus(uid).unwrap_or(0);
        let keys: Vec<Key> = self
            .cold_pods
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let mut placed = false;
        for key in keys {
            let Some(pod) = self.pods.get(&key) else {
                continue;
            };
            let Some(node) = pod.node.clone() else {
                continue;
            };
            placed = true;
            let cpus = if pod.lives() && self.cold_refusal(&key).is_none() {
                cpus
            } else {
                0
            };
            let pod = pod.identity.uid.clone();
            self.promise(&key, &node, cpus, Some(&pod));
        }
        let making = self
            .sandboxes
            .get(uid)
            .is_some_and(|entry| entry.cold.busy || (self.cold_pods.contains_key(uid) && !placed));
        if cpus > 0 && making {
            self.pinning.unplaced.insert(uid.to_owned());
        } else if self.pinning.unplaced.remove(uid) {
            self.pinned_shapes_are_dirty();
        }
    }

    /// Takes a promise back: the pod is gone.
    pub(super) fn forget_promise(&mut self, key: &Key, node: &str) {
        self.promise(key, node, 0, None);
    }

    fn promise(&mut self, key: &Key, node: &str, cpus: u32, pod_uid: Option<&str>) {
        let Some(entry) = self.nodes.get_mut(node) else {
            return;
        };
        let given = pod_uid.is_some_and(|uid| entry.has_pinned(uid));
        let before = if cpus > 0 && !given {
            entry.pins.promised.insert(key.clone(), cpus)
        } else {
            entry.pins.promised.remove(key)
        };
        if before != entry.pins.promised.get(key).copied() {
            self.refresh_free(node);
        }
    }

    /// After a report: what is pinned is no longer a promise.
    pub(super) fn pins_reported(&mut self, node: &str) {
        let promised = self.nodes.get(node).map(|entry| &entry.pins.promised);
        let keys: Vec<Key> = promised
            .into_iter()
            .flat_map(BTreeMap::keys)
            .cloned()
            .collect();
        for key in keys {
            let uid = self.pods.get(&key).map(|pod| pod.identity.uid.clone());
            let Some(entry) = self.nodes.get_mut(node) else {
                return;
            };
            if uid.is_some_and(|uid| entry.has_pinned(&uid)) {
                entry.pins.promised.remove(&key);
            }
        }
        self.refresh_free(node);
    }

    /// Brings the choice of nodes up to date, after anything about what one can give.
    pub(super) fn refresh_free(&mut self, node: &str) {
        let Some(entry) = self.nodes.get_mut(node) else {
            return;
        };
        let free = entry.free_cpus();
        let before = std::mem::replace(&mut entry.pins.free, free);
        if before == free {
            return;
        }
        self.pinning.free.remove(&(before, node.to_owned()));
        if free > 0 {
            self.pinning.free.insert((free, node.to_owned()));
        }
        self.ready.set_free(node, free);
        self.pinned_shapes_are_dirty();
    }

    /// Whoever waits for CPUs is looked at again. Distinct numbers of CPUs are few.
    fn pinned_shapes_are_dirty(&mut self) {
        let pinned = self.waiting.iter().filter(|((_, cpus), _)| *cpus > 0);
        for ((shape, _), waiting) in pinned {
            self.dirty.shapes.insert(shape.clone());
            self.dirty
                .sandboxes
                .extend(waiting.iter().map(|(_, uid)| uid.clone()));
        }
    }

    /// Nodes where a pod with so many CPUs of its own can be made now, those with the most first; none where as many pods are
    /// being placed as there is room for.
    pub(crate) fn nodes_with_cpus(&self, cpus: u32) -> Vec<String> {
        let nodes = || self.pinning.free.range((cpus, String::new())..).rev();
        // One pod for each node is certain to fit; more than are being placed need a node of their own.
        if nodes().take(self.pinning.unplaced.len() + 1).count() <= self.pinning.unplaced.len() {
            return Vec::new();
        }
        nodes()
            .take(MAX_CHOICE)
            .map(|(_, node)| node.clone())
            .collect()
    }

    /// The most CPUs that any connected node could ever give to one sandbox, with what a node says that gives none; `None`
    /// where no node is connected.
    pub(crate) fn most_cpus(&self) -> Option<(u32, &str)> {
        let reports = self
            .nodes
            .values()
            .filter(|node| node.is_up())
            .filter_map(|node| node.report.as_ref());
        reports
            .map(|report| (report.cpus.capacity, report.cpus.message.as_str()))
            .max()
    }

    /// Why the agent of its node will not publish a sandbox on the pod that was made for it.
    pub(crate) fn cold_refusal(&self, key: &Key) -> Option<&str> {
        let pod = self.pods.get(key)?;
        let PodOwner::Sandbox(uid) = &pod.owner else {
            return None;
        };
        let node = self.nodes.get(pod.node.as_ref()?)?;
        let refused = node.refused.get(&(uid.clone(), uid.clone()))?;
        Some(refused)
    }
}
