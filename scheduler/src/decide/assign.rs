//! Which sandbox gets which warm pod: THE decision of this project.
//!
//! For each shape with news: the sandbox that waits longest gets the longest-ready pod of the node with the most
//! ready pods, and so on while there are both. The choice is one look at the front of two ordered sets.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::cold;
use crate::action::{Action, Assign};
use crate::index::{Index, Observation};

pub(super) fn assign(index: &mut Index, now: Timestamp, actions: &mut Vec<Action>) {
    for shape in std::mem::take(&mut index.dirty.shapes) {
        while let Some(assign) = next(index, &shape, now) {
            actions.push(Action::Assign(assign));
        }
        count_misses(index, &shape);
        cold::start(index, &shape, now, actions);
    }
}

fn next(index: &mut Index, shape: &str, now: Timestamp) -> Option<Assign> {
    let (_, uid, key) = queues(index, shape)
        .filter_map(|(cpus, queue)| {
            let (since, uid) = queue.first()?;
            let key = index.ready.first_with(shape, cpus)?;
            Some((*since, uid.clone(), key.clone()))
        })
        .min()?;
    let warm_pod = index.warm_pods.get_mut(&key)?;
    warm_pod.in_flight = Some(uid.clone());
    let warm_pod_id = warm_pod.view.identity.object_id();
    let sandbox = index.sandboxes.get_mut(&uid)?;
    sandbox.in_flight = Some(key.clone());
    if !std::mem::replace(&mut sandbox.counted, true) {
        index.observations.push(Observation::Hit);
    }
    let assign = Assign {
        warm_pod: warm_pod_id,
        sandbox: sandbox.view.identity.object_id(),
        assigned_at: now,
    };
    index.assigns_in_flight += 1;
    index.last_assign = Some(now);
    index.touch_warm_pod(&key, now);
    index.touch_sandbox(&uid);
    // Both left their queues by that; the shape needs no second look for it.
    index.dirty.shapes.remove(shape);
    Some(assign)
}

/// The waiting sandboxes of a shape, by the CPUs they want for their own: those that want some do not hold up those that want
/// none.
pub(super) fn queues<'a>(
    index: &'a Index,
    shape: &str,
) -> impl Iterator<Item = (u32, &'a BTreeSet<(Timestamp, String)>)> {
    index
        .waiting
        .range((shape.to_owned(), 0)..=(shape.to_owned(), u32::MAX))
        .map(|((_, cpus), queue)| (*cpus, queue))
}

/// Sandboxes that are left over found no ready pod.
fn count_misses(index: &mut Index, shape: &str) {
    // Newest first: whoever was counted already, and all who came before, need no second look.
    let uncounted = |uid: &String| index.sandboxes.get(uid).is_some_and(|s| !s.counted);
    let left: Vec<String> = queues(index, shape)
        .flat_map(|(_, queue)| {
            let newest = queue.iter().rev().map(|(_, uid)| uid.clone());
            newest.take_while(uncounted)
        })
        .collect();
    for uid in left {
        if let Some(sandbox) = index.sandboxes.get_mut(&uid) {
            sandbox.counted = true;
            index.observations.push(Observation::Miss);
        }
    }
}
