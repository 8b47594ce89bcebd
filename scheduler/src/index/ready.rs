//! Ready queues: the assignable warm pods of each shape, by node.
//!
//! The choice is the node with the most ready pods of the shape, and there the pod that has been ready
//! longest. Every operation is O(log n) in the number of ready pods.

use std::collections::{BTreeSet, HashMap};

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
}

#[derive(Debug, Default)]
struct ShapeQueue {
    nodes: HashMap<String, BTreeSet<(Timestamp, Key)>>,
    /// The nodes by number of ready pods; among equals, the name decides, so that replicas agree.
    ranking: BTreeSet<(usize, String)>,
}

impl ReadyQueues {
    /// Adds a ready pod.
    pub fn insert(&mut self, place: &Place, key: Key) {
        let queue = self.shapes.entry(place.shape.clone()).or_default();
        queue.change(&place.node, |pods| {
            pods.insert((place.ready_at, key));
        });
    }

    /// Takes a pod out again.
    pub fn remove(&mut self, place: &Place, key: &Key) {
        let Some(queue) = self.shapes.get_mut(&place.shape) else {
            return;
        };
        queue.change(&place.node, |pods| {
            pods.remove(&(place.ready_at, key.clone()));
        });
        if queue.ranking.is_empty() {
            self.shapes.remove(&place.shape);
        }
    }

    /// The pod to assign next, left in its queue.
    pub fn first(&self, shape: &str) -> Option<&Key> {
        let queue = self.shapes.get(shape)?;
        let (_, node) = queue.ranking.last()?;
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
    fn change(&mut self, node: &str, change: impl FnOnce(&mut BTreeSet<(Timestamp, Key)>)) {
        let pods = self.nodes.entry(node.to_owned()).or_default();
        self.ranking.remove(&(pods.len(), node.to_owned()));
        change(pods);
        if pods.is_empty() {
            self.nodes.remove(node);
        } else {
            self.ranking.insert((pods.len(), node.to_owned()));
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
        fn the_first_is_the_oldest_of_the_fullest_node(ops in prop::collection::vec((0u8..2, 0u8..3, 0i64..5, 0u8..12, any::<bool>()), 0..60)) {
            let mut queues = ReadyQueues::default();
            let mut model: HashMap<u8, Place> = HashMap::new();
            let key = |n: u8| Key { namespace: String::new(), name: n.to_string() };
            for (shape, node, at, name, add) in ops {
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
                    let want = of_shape()
                        .map(|(n, p)| (std::cmp::Reverse(count(&p.node)), std::cmp::Reverse(p.node.clone()), p.ready_at, key(*n)))
                        .min().map(|(_, _, _, k)| k);
                    prop_assert_eq!(queues.first(shape).cloned(), want);
                }
            }
        }
    }
}
