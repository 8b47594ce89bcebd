//! Which waiting sandboxes get a pod of their own instead of a warm one.

use jiff::{SignedDuration, Timestamp};

use super::assign::queues;
use crate::action::{Action, CreateColdPod};
use crate::index::{Index, Timer};
use crate::view::Key;

/// How often it is asked again whether what a sandbox waits for is still on its way.
const RECHECK: SignedDuration = SignedDuration::from_secs(1);

/// Starts pods for the sandboxes of a shape that no warm pod is ready or, sooner than a new one, in the making for.
/// Called when the ready pods of the shape are given away.
pub(super) fn start(index: &mut Index, shape: &str, now: Timestamp, actions: &mut Vec<Action>) {
    // Oldest first: who waits longest gets the next warm pod.
    let waiting: Vec<(u32, Vec<String>)> = queues(index, shape)
        .map(|(cpus, queue)| (cpus, queue.iter().map(|(_, uid)| uid.clone()).collect()))
        .collect();
    if waiting.is_empty() {
        return;
    }
    let mut look_again = None;
    for (cpus, waiting) in waiting {
        // Where a pod in the making will be, and whether it will have CPUs to give, is not known: those who want some do not
        // wait for it.
        let coming = if cpus == 0 {
            index.in_the_making(shape, now)
        } else {
            0
        };
        if coming > 0 {
            look_again = Some(now.saturating_add(RECHECK).unwrap_or(now));
        }
        for uid in waiting.into_iter().skip(coming) {
            let nodes = if cpus == 0 {
                Vec::new()
            } else {
                index.nodes_with_cpus(cpus)
            };
            if cpus > 0 && nodes.is_empty() {
                // Looked at again when a node has some.
                break;
            }
            if let Some(create) = create(index, &uid, nodes, now, &mut look_again) {
                actions.push(Action::CreateColdPod(Box::new(create)));
                index.touch_sandbox(&uid);
            }
        }
    }
    if let Some(at) = look_again {
        index.timer(at, Timer::Shape(shape.to_owned()));
    }
    // All that is left was looked at just now.
    index.dirty.shapes.remove(shape);
}

fn create(
    index: &mut Index,
    uid: &str,
    nodes: Vec<String>,
    now: Timestamp,
    look_again: &mut Option<Timestamp>,
) -> Option<CreateColdPod> {
    // The one it has is on its way out, or finds no room.
    if index.cold_pods.contains_key(uid) {
        return None;
    }
    let entry = index.sandboxes.get(uid)?;
    if entry.cold.not_before > now {
        let at = entry.cold.not_before;
        *look_again = Some(look_again.map_or(at, |other| other.min(at)));
        return None;
    }
    let (resolved, shape) = entry.resolved.clone().ok()?;
    let sandbox = entry.view.identity.object_id();
    let name = index.new_name(&sandbox.name);
    let entry = index.sandboxes.get_mut(uid)?;
    entry.cold.busy = true;
    Some(CreateColdPod {
        key: Key {
            namespace: sandbox.namespace.clone(),
            name,
        },
        sandbox,
        template: resolved.template,
        shape,
        volume: resolved.volume,
        nodes,
    })
}
