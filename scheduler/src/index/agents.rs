//! How nodes and their agents change the index: where pods can be assigned. Called by [`Index::handle`] only.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::stream::NodeReport;

use super::observe::split;
use super::{Index, Kind, NodeEntry, Timer};
use crate::input::Change;
use crate::view::{Key, NodeView};

/// How long a node keeps its label while nothing was heard of its agent since this replica started: the streams are on their way.
pub(crate) const NODE_GRACE: SignedDuration = SignedDuration::from_secs(15);
/// The same after its agent's last stream ended. An agent that is alive connects again within it; while it is dead nobody
/// holds the node's seccomp profiles to what they must be.
pub(crate) const STREAM_GRACE: SignedDuration = SignedDuration::from_millis(500);

impl Index {
    pub(super) fn observe_nodes(&mut self, change: Change<NodeView>, now: Timestamp) {
        let (here, gone, listed) = split(change, || {
            self.nodes
                .values()
                .filter_map(|n| n.view.as_ref())
                .map(|v| (v.identity.key.clone(), v.identity.uid.clone()))
                .collect()
        });
        for (key, _) in gone {
            if let Some(node) = self.nodes.get_mut(&key.name) {
                node.view = None;
                if node.streams.is_empty() && node.warm_pods.is_empty() && node.cold.is_empty() {
                    self.nodes.remove(&key.name);
                }
            }
        }
        for view in here {
            self.upsert_node(view, now);
        }
        self.settle_profiles(now);
        if listed {
            self.mark_synced(Kind::Node);
        }
    }

    pub(super) fn upsert_node(&mut self, view: NodeView, now: Timestamp) {
        let name = view.identity.key.name.clone();
        let entry = self.nodes.entry(name.clone()).or_default();
        let known = entry.view.as_ref().map(|v| &v.identity);
        if known.is_some_and(|known| {
            known.uid == view.identity.uid && known.revision > view.identity.revision
        }) {
            return;
        }
        let was_distrusted = entry.is_distrusted();
        entry.view = Some(view);
        let is_distrusted = entry.is_distrusted();
        self.dirty.nodes.insert(name.clone());
        if was_distrusted != is_distrusted {
            // Those that are not ready yet are known to be there by their pods alone.
            let pods = self.pods.values();
            let there = pods.filter(|pod| pod.node.as_ref() == Some(&name));
            let there: Vec<Key> = there.map(|pod| pod.identity.key.clone()).collect();
            for key in there {
                self.touch_warm_pod(&key, now);
            }
            self.node_changed(&name, now);
        }
    }

    pub(super) fn stream_opened(&mut self, node: &str, id: u64, now: Timestamp) {
        let entry = self.nodes.entry(node.to_owned()).or_default();
        entry.streams.insert(id);
        entry.was_heard = true;
        entry.silent_since = None;
        self.announce_all(node, id);
        self.node_changed(node, now);
    }

    pub(super) fn stream_closed(&mut self, node: &str, id: u64, now: Timestamp) {
        let Some(entry) = self.nodes.get_mut(node) else {
            return;
        };
        if entry.streams.remove(&id) && entry.streams.is_empty() {
            entry.silent_since = Some(now);
            self.timer(
                now.saturating_add(STREAM_GRACE).unwrap_or(now),
                Timer::Node(node.to_owned()),
            );
        }
        self.node_changed(node, now);
        self.settle_profiles(now);
    }

    fn node_changed(&mut self, node: &str, now: Timestamp) {
        self.refresh_free(node);
        self.dirty.nodes.insert(node.to_owned());
        let members: Vec<Key> = self
            .nodes
            .get(node)
            .into_iter()
            .flat_map(|n: &NodeEntry| n.warm_pods.iter().cloned())
            .collect();
        for key in members {
            self.touch_warm_pod(&key, now);
        }
        // Whether the node can be reached is part of why a sandbox is not Ready.
        self.dirty.sandboxes.extend(self.unready.iter().cloned());
    }

    pub(super) fn reported(&mut self, node: &str, report: NodeReport, now: Timestamp) {
        let entry = self.nodes.entry(node.to_owned()).or_default();
        let was_up = entry.is_up();
        let had = entry.report.as_ref().map(|report| report.profiles.clone());
        let refused: HashMap<_, _> = report
            .refused
            .iter()
            .map(|r| {
                (
                    (r.owner_uid.clone(), r.sandbox_uid.clone()),
                    r.reason.as_str(),
                )
            })
            .collect();
        let news = refused.keys().any(|key| !entry.refused.contains_key(key));
        entry.refused = refused
            .into_iter()
            .map(|(key, reason)| (key, reason.to_owned()))
            .collect();
        let profiles_changed = had.as_ref() != Some(&report.profiles);
        entry.report = Some(report);
        let changed = was_up != entry.is_up() || news;
        if news {
            // Of pods that were made for one sandbox the owner is the sandbox.
            let cold = entry.cold.iter().filter_map(|uid| self.cold_pods.get(uid));
            self.dirty.pods.extend(cold.flatten().cloned());
        }
        self.pins_reported(node);
        if changed {
            self.node_changed(node, now);
        }
        if profiles_changed {
            self.dirty.nodes.insert(node.to_owned());
            self.settle_profiles(now);
        }
    }
}
