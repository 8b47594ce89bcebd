//! How nodes and their agents change the index: where pods can be assigned. Called by [`Index::handle`] only.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::stream::NodeReport;

use super::observe::split;
use super::{Index, Kind, NodeEntry, Timer};
use crate::input::Change;
use crate::view::{Key, NodeView};

/// How long a node keeps its label after its agent's last stream ended: a restart of the agent takes less.
pub(crate) const NODE_GRACE: SignedDuration = SignedDuration::from_secs(15);

impl Index {
    pub(super) fn observe_nodes(&mut self, change: Change<NodeView>, _now: Timestamp) {
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
            let name = view.identity.key.name.clone();
            self.nodes.entry(name.clone()).or_default().view = Some(view);
            self.dirty.nodes.insert(name);
        }
        if listed {
            self.mark_synced(Kind::Node);
        }
    }

    pub(super) fn stream_opened(&mut self, node: &str, id: u64, now: Timestamp) {
        let entry = self.nodes.entry(node.to_owned()).or_default();
        entry.streams.insert(id);
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
                now.saturating_add(NODE_GRACE).unwrap_or(now),
                Timer::Node(node.to_owned()),
            );
        }
        self.node_changed(node, now);
    }

    fn node_changed(&mut self, node: &str, now: Timestamp) {
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
        entry.report = Some(report);
        if was_up != entry.is_up() || news {
            self.node_changed(node, now);
        }
    }
}
