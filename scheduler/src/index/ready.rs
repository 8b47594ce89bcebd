//! Ready queues: the assignable warm pods of each shape, by node.
//!
//! The choice is the node with the most ready pods of the shape, and there the pod that has been ready
//! longest; for a sandbox that wants CPUs of its own, of the nodes that have enough. Every operation is O(log n) in the
//! number of ready pods, times the few different numbers of CPUs that nodes have free.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use crate::view::Key;

/// Where a ready pod stands in its queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// Hash of its shape.
    pub shape: String,
    /// Its node.
    pub node: String,
    /// When it became ready.
    pub ready_at: Timestamp,
}

/// The ready pods of every shape.
#[derive(Debug, Default)]
pub struct ReadyQueues {
    shapes: HashMap<String, ShapeQueue>,
    /// CPUs that nodes can give to one sandbox; a node that is not here has none.
    free: HashMap<String, u32>,
    /// The shapes that each node has ready pods of.
    shapes_of: HashMap<String, BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct ShapeQueue {
    nodes: HashMap<String, BTreeSet<(Timestamp, Key)>>,
    /// The nodes by number of ready pods; among equals, the name decides, so that replicas agree.
    ranking: BTreeSet<(usize, String)>,
    /// The same of the nodes with free CPUs, by how many they can give.
    by_free: BTreeMap<u32, BTreeSet<(usize, String)>>,
}

impl ReadyQueues {
    /// Adds a ready pod.
    pub fn insert(&mut self, place: &Place, key: Key) {
        let queue = self.shapes.entry(place.shape.clone()).or_default();
        let free = self.free.get(&place.node).copied().unwrap_or(0);
        queue.change(&place.node, free, |pods| {
            pods.insert((place.ready_at, key));
        });
        self.shapes_of
            .entry(place.node.clone())
            .or_default()
            .insert(place.shape.clone());
    }

    /// Takes a pod out again.
    pub fn remove(&mut self, place: &Place, key: &Key) {
        let Some(queue) = self.shapes.get_mut(&place.shape) else {
            return;
        };
        let free = self.free.get(&place.node).copied().unwrap_or(0);
        queue.change(&place.node, free, |pods| {
            pods.remove(&(place.ready_at, key.clone()));
        });
        if !queue.nodes.contains_key(&place.node)
            && let Some(shapes) = self.shapes_of.get_mut(&place.node)
        {
            shapes.remove(&place.shape);
            if shapes.is_empty() {
                self.shapes_of.remove(&place.node);
            }
        }
        if queue.ranking.is_empty() {
            self.shapes.remove(&place.shape);
        }
    }

    /// A node can give so many CPUs to one sandbox now.
    pub fn set_free(&mut self, node: &str, free: u32) {
        let before = if free > 0 {
            self.free.insert(node.to_owned(), free)
        } else {
            self.free.remove(node)
        };
        for shape in self.shapes_of.get(node).into_iter().flatten() {
            if let Some(queue) = self.shapes.get_mut(shape) {
                queue.move_node(node, before.unwrap_or(0), free);
            }
        }
    }

    /// The pod to assign next, left in its queue.
    pub fn first(&self, shape: &str) -> Option<&Key> {
        let queue = self.shapes.get(shape)?;
        let (_, node) = queue.ranking.last()?;
        queue.nodes.get(node)?.first().map(|(_, key)| key)
    }

    /// The pod to assign next to a sandbox that wants so many CPUs of its own, left in its queue; 0 is none.
    pub fn first_with(&self, shape: &str, cpus: u32) -> Option<&Key> {
        if cpus == 0 {
            return self.first(shape);
        }
        let queue = self.shapes.get(shape)?;
        let best = queue.by_free.range(cpus..).filter_map(|(_, n)| n.last());
        let (_, node) = best.max()?;
        queue.nodes.get(node)?.first().map(|(_, key)| key)
    }

    /// Ready pods of a shape.
    pub fn len(&self, shape: &str) -> usize {
        self.shapes
            .get(shape)
            .map_or(0, |q| q.ranking.iter().map(|(count, _)| count).sum())
    }
}

impl ShapeQueue {
    fn change(
        &mut self,
        node: &str,
        free: u32,
        change: impl FnOnce(&mut BTreeSet<(Timestamp, Key)>),
    ) {
        let pods = self.nodes.entry(node.to_owned()).or_default();
        let before = pods.len();
        change(pods);
        let after = pods.len();
        if after == 0 {
            self.nodes.remove(node);
        }
        self.ranking.remove(&(before, node.to_owned()));
        self.leave(node, free, before);
        if after > 0 {
            self.ranking.insert((after, node.to_owned()));
            self.enter(node, free, after);
        }
    }

    fn move_node(&mut self, node: &str, before: u32, free: u32) {
        let pods = self.nodes.get(node).map_or(0, BTreeSet::len);
        self.leave(node, before, pods);
        if pods > 0 {
            self.enter(node, free, pods);
        }
    }

    fn leave(&mut self, node: &str, free: u32, pods: usize) {
        if let Some(nodes) = self.by_free.get_mut(&free) {
            nodes.remove(&(pods, node.to_owned()));
            if nodes.is_empty() {
                self.by_free.remove(&free);
            }
        }
    }

    fn enter(&mut self, node: &str, free: u32, pods: usize) {
        if free > 0 {
            self.by_free
                .entry(free)
                .or_default()
                .insert((pods, node.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(shape: u8, node: u8, at: i64) -> Place {
        Place {
            shape: shape.to_string(),
            node: node.to_string(),
            ready_at: Timestamp::from_second(at).unwrap(),
        }
    }

    proptest! {
        #[test]
        fn the_first_is_the_oldest_of_the_fullest_node_with_enough_cpus(ops in prop::collection::vec((0u8..2, 0u8..3, 0i64..5, 0u8..12, any::<bool>(), prop::option::of(0u32..4)), 0..60)) {
            let mut queues = ReadyQueues::default();
            let mut model: HashMap<u8, Place> = HashMap::new();
            let mut cpus: HashMap<String, u32> = HashMap::new();
            let key = |n: u8| Key { namespace: String::new(), name: n.to_string() };
            for (shape, node, at, name, add, free) in ops {
                if let Some(free) = free {
                    queues.set_free(&node.to_string(), free);
                    cpus.insert(node.to_string(), free);
                }
                if let Some(old) = model.remove(&name) { queues.remove(&old, &key(name)); }
                if add {
                    let new = place(shape, node, at);
                    queues.insert(&new, key(name));
                    model.insert(name, new);
                }
                for shape in ["0", "1"] {
                    let of_shape = || model.iter().filter(|(_, p)| p.shape == shape);
                    prop_assert_eq!(queues.len(shape), of_shape().count());
                    let count = |node: &str| of_shape().filter(|(_, p)| p.node == node).count();
                    for wanted in 0..4 {
                        let want = of_shape()
                            .filter(|(_, p)| cpus.get(&p.node).copied().unwrap_or(0) >= wanted)
                            .map(|(n, p)| (std::cmp::Reverse(count(&p.node)), std::cmp::Reverse(p.node.clone()), p.ready_at, key(*n)))
                            .min().map(|(_, _, _, k)| k);
                        prop_assert_eq!(queues.first_with(shape, wanted).cloned(), want);
                    }
                }
            }
        }
    }
}
