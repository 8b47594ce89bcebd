//! Pods made for one sandbox alone: which a sandbox has, whether its start is hopeful, and what agents are told of it.
//! Called by the rest of the index, and by [`crate::decide`].
//!
//! Such a pod is owned by its Sandbox, so no write assigns it. Its name is new with every try: two schedulers that both
//! lead for a moment make two pods, and the set-once `podName` of the Sandbox decides between them as ever.

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::kinds::WarmPodPhase;
use pilotlight_common::names::endpoint;
use pilotlight_common::stream::{Assignment, StreamMessage};

use super::{Class, Index, Notice, SandboxEntry, WarmPodEntry};
use crate::view::{Key, PodOwner, PodView, Trouble};

/// How long a ready pod whose agent is not connected still counts as one that will be: agents connect anew within
/// two seconds of a scheduler's or their own restart.
const RECONNECT: SignedDuration = SignedDuration::from_secs(5);
/// A pod in the making that takes so much longer than its pool's pods usually do is no longer waited for.
const LATE: SignedDuration = SignedDuration::from_secs(2);

/// What is under way for a sandbox that starts cold.
#[derive(Debug)]
pub struct ColdStart {
    /// Whether the creation of its pod is under way.
    pub busy: bool,
    /// No creation before this time.
    pub not_before: Timestamp,
    /// Pods in a row that could not be made, or ended before they served.
    pub failures: u32,
    /// What became of the last of them.
    pub trouble: Option<Trouble>,
    /// The pod and the node whose agent was told of it.
    pub announced: Option<(Key, String)>,
}

impl Default for ColdStart {
    fn default() -> Self {
        Self {
            busy: false,
            not_before: Timestamp::MIN,
            failures: 0,
            trouble: None,
            announced: None,
        }
    }
}

/// Whether a pod's start can still end well by itself.
fn hopeful(pod: &PodView) -> bool {
    !pod.identity.deleting && pod.ended.is_none()
}

impl Index {
    /// The pod that was made for a sandbox alone: the one it is published on, else the oldest whose start is hopeful.
    pub(crate) fn cold_pod(&self, uid: &str) -> Option<&PodView> {
        let published = self
            .sandboxes
            .get(uid)
            .and_then(|e| e.view.pod_name.as_ref());
        let own = self.cold_pods.get(uid)?;
        let pods = own.iter().filter_map(|key| self.pods.get(key));
        match published {
            Some(name) => pods.into_iter().find(|pod| pod.identity.key.name == *name),
            None => pods
                .filter(|pod| hopeful(pod))
                .min_by_key(|pod| (pod.identity.created, &pod.identity.key)),
        }
    }

    /// Whether a pod of its own is being made for a sandbox. One that no node has room for is none: a warm pod that
    /// becomes ready meanwhile is taken.
    pub(super) fn starts_cold(&self, uid: &str, entry: &SandboxEntry) -> bool {
        entry.cold.busy
            || self.cold_pod(uid).is_some_and(|pod| {
                pod.hold_up
                    .as_ref()
                    .is_none_or(|t| t.reason != UNSCHEDULABLE)
            })
    }

    /// Keeps [`Index::cold_pods`] in step with a pod that came or went.
    pub(super) fn file_cold_pod(&mut self, pod: &PodView, there: bool) {
        let PodOwner::Sandbox(uid) = &pod.owner else {
            return;
        };
        let uid = uid.clone();
        let key = pod.identity.key.clone();
        if there {
            self.note_given(&uid, &key);
            self.cold_pods.entry(uid.clone()).or_default().insert(key);
        } else {
            if let Some(node) = &pod.node {
                self.forget_promise(&key, node);
            }
            if let Some(keys) = self.cold_pods.get_mut(&uid) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.cold_pods.remove(&uid);
                }
            }
        }
        self.touch_sandbox(&uid);
    }

    /// Tells the node's agent of a sandbox's own pod, or takes it back, where that changed.
    pub(super) fn announce_cold(&mut self, uid: &str) {
        let wanted = self.cold_assignment(uid);
        let place = wanted.as_ref().map(|(node, a)| {
            let key = Key {
                namespace: a.owner.namespace.clone(),
                name: a.pod_name.clone(),
            };
            (key, node.clone())
        });
        let Some(entry) = self.sandboxes.get_mut(uid) else {
            return;
        };
        if entry.cold.announced == place {
            if let Some((node, assignment)) = wanted {
                self.announce_network(uid, node, assignment.owner);
            }
            return;
        }
        let owner = entry.view.identity.object_id();
        if let Some((_, node)) = std::mem::replace(&mut entry.cold.announced, place) {
            if let Some(node) = self.nodes.get_mut(&node) {
                node.cold.remove(uid);
            }
            self.notices.push(Notice {
                node,
                stream: None,
                message: StreamMessage::Release {
                    owner,
                    sandbox_uid: uid.to_owned(),
                },
            });
        }
        if let Some((node, assignment)) = wanted {
            self.nodes
                .entry(node.clone())
                .or_default()
                .cold
                .insert(uid.to_owned());
            self.notices.push(Notice {
                node,
                stream: None,
                message: StreamMessage::Assign { assignment },
            });
            self.network_was_told(uid);
        }
    }

    /// The node of a sandbox's own pod, and what its agent is to know; nothing where the pod is not placed yet or the
    /// sandbox does not want it.
    pub(super) fn cold_assignment(&self, uid: &str) -> Option<(String, Assignment)> {
        let sandbox = &self.sandboxes.get(uid)?.view;
        if sandbox.is_final() || sandbox.identity.deleting {
            return None;
        }
        let pod = self.cold_pod(uid).filter(|pod| hopeful(pod))?;
        let cpus = self.pinned_cpus(uid)?;
        let key = &pod.identity.key;
        let owner = sandbox.identity.object_id();
        Some((
            pod.node.clone()?,
            Assignment {
                owner: owner.clone(),
                pod_name: key.name.clone(),
                sandbox: owner,
                endpoint: endpoint(&key.name, &key.namespace, &self.settings.cluster_domain),
                assigned_at: pod.identity.created,
                cpus,
                network: self.sandboxes.get(uid)?.network.clone(),
            },
        ))
    }

    /// Warm pods of a shape that are being made and will be ready before a pod made now would be.
    pub(crate) fn in_the_making(&self, shape: &str, now: Timestamp) -> usize {
        let pools = self.pools_of_shape.get(shape).into_iter().flatten();
        pools
            .filter_map(|key| self.pools.get(key))
            .map(|pool| {
                pool.members[Class::Pending as usize]
                    .iter()
                    .filter(|(_, key)| {
                        self.warm_pods
                            .get(key)
                            .is_some_and(|entry| self.is_sooner(entry, pool.pace.usual(), now))
                    })
                    .count()
            })
            .sum()
    }

    fn is_sooner(&self, entry: &WarmPodEntry, usual: SignedDuration, now: Timestamp) -> bool {
        if entry
            .lost_at
            .is_some_and(|at| entry.view.identity.revision <= at)
        {
            // Whose it became is on its way here.
            return true;
        }
        let after = |at: Timestamp, wait: SignedDuration| at.saturating_add(wait).unwrap_or(now);
        if entry.view.phase == Some(WarmPodPhase::Ready) {
            // It is ready, and only its agent's stream is missing.
            let silent = entry
                .view
                .node
                .as_ref()
                .and_then(|node| self.nodes.get(node))
                .and_then(|node| node.silent_since);
            return silent
                .max(self.leading_since)
                .is_some_and(|since| after(since, RECONNECT) > now);
        }
        let held_up = self
            .pod_of(&entry.view.identity.key)
            .is_some_and(|pod| pod.hold_up.is_some());
        let expected = after(entry.view.identity.created, usual);
        !held_up
            && expected <= after(now, self.pace.usual())
            && now < after(after(expected, usual), LATE)
    }
}

/// The hold-up of a pod that no node has room for.
const UNSCHEDULABLE: &str = "PodUnschedulable";
