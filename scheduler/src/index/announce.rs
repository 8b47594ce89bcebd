//! What the agents are told: every replica tells it from its own index, so none depends on the leader's memory.

use pilotlight_common::names::endpoint;
use pilotlight_common::stream::{Assignment, ObjectId, StreamMessage};

use super::Index;
use crate::view::{Key, SandboxView};

/// A message for a node's agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The node.
    pub node: String,
    /// One stream only, where the message is its snapshot; else all streams of the node.
    pub stream: Option<u64>,
    /// The message.
    pub message: StreamMessage,
}

impl Index {
    /// Tells the node's agent of a warm pod's assignment, or takes it back, where that changed.
    pub(super) fn announce(&mut self, key: &Key) {
        let wanted = self
            .assignment(key)
            .map(|(node, a)| (node, a.sandbox.uid.clone(), a));
        let Some(entry) = self.warm_pods.get(key) else {
            return;
        };
        let told = entry.announced.as_ref();
        if told.map(|(n, u)| (n, u)) == wanted.as_ref().map(|(n, u, _)| (n, u)) {
            if let Some((node, uid, assignment)) = wanted {
                self.announce_network(&uid, node, assignment.owner);
            }
            return;
        }
        self.retract(key);
        let Some((node, sandbox_uid, assignment)) = wanted else {
            return;
        };
        self.notices.push(Notice {
            node: node.clone(),
            stream: None,
            message: StreamMessage::Assign { assignment },
        });
        self.network_was_told(&sandbox_uid);
        if let Some(entry) = self.warm_pods.get_mut(key) {
            entry.announced = Some((node, sandbox_uid));
        }
    }

    /// Tells the node's agent of an assignment that it knows what its sandbox may reach, where that changed.
    pub(super) fn announce_network(&mut self, uid: &str, node: String, owner: ObjectId) {
        let Some(entry) = self.sandboxes.get(uid) else {
            return;
        };
        if entry.network_told == Some(entry.network.digest()) {
            return;
        }
        self.notices.push(Notice {
            node,
            stream: None,
            message: StreamMessage::Network {
                owner,
                sandbox_uid: uid.to_owned(),
                rules: entry.network.clone(),
            },
        });
        self.network_was_told(uid);
    }

    /// An assignment with the sandbox's rules was told.
    pub(super) fn network_was_told(&mut self, uid: &str) {
        if let Some(entry) = self.sandboxes.get_mut(uid) {
            entry.network_told = Some(entry.network.digest());
        }
    }

    pub(super) fn retract(&mut self, key: &Key) {
        let Some(entry) = self.warm_pods.get_mut(key) else {
            return;
        };
        let Some((node, sandbox_uid)) = entry.announced.take() else {
            return;
        };
        let owner = entry.view.identity.object_id();
        self.notices.push(Notice {
            node,
            stream: None,
            message: StreamMessage::Release { owner, sandbox_uid },
        });
    }

    pub(super) fn announce_all(&mut self, node: &str, stream: u64) {
        let members: Vec<Key> = self
            .nodes
            .get(node)
            .into_iter()
            .flat_map(|n| n.warm_pods.iter().cloned())
            .collect();
        let cold = self.nodes.get(node).into_iter().flat_map(|n| n.cold.iter());
        let assignments = members
            .iter()
            .filter_map(|key| self.assignment(key))
            .chain(cold.filter_map(|uid| self.cold_assignment(uid)))
            .map(|(_, a)| a)
            .collect();
        self.notices.push(Notice {
            node: node.to_owned(),
            stream: Some(stream),
            message: StreamMessage::Snapshot {
                assignments,
                profiles: self.user_profiles(),
            },
        });
    }

    /// The assignment of a warm pod, where it has one that still holds, and its node.
    fn assignment(&self, key: &Key) -> Option<(String, Assignment)> {
        let entry = self.warm_pods.get(key)?;
        let uid = entry.sandbox()?;
        let sandbox: &SandboxView = &self.sandboxes.get(uid)?.view;
        let elsewhere = sandbox
            .pod_name
            .as_ref()
            .is_some_and(|pod| *pod != key.name);
        if sandbox.is_final()
            || sandbox.identity.deleting
            || entry.view.identity.deleting
            || elsewhere
        {
            return None;
        }
        let node = entry.view.node.clone()?;
        let cpus = self.pinned_cpus(uid)?;
        Some((
            node,
            Assignment {
                owner: entry.view.identity.object_id(),
                pod_name: key.name.clone(),
                sandbox: sandbox.identity.object_id(),
                endpoint: endpoint(&key.name, &key.namespace, &self.settings.cluster_domain),
                assigned_at: entry
                    .view
                    .assigned_at
                    .unwrap_or(entry.view.identity.created),
                cpus,
                network: self.sandboxes.get(uid)?.network.clone(),
            },
        ))
    }
}
