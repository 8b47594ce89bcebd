//! Growth of persistent volumes: a claim asks for what its sandbox asks for, and never for less than before.

use jiff::Timestamp;
use pilotlight_common::names::volume_claim;

use crate::action::{Action, GrowVolume};
use crate::index::{Index, Timer};
use crate::view::Key;

/// The growth that a sandbox's volume needs now, if any.
pub(super) fn grow(index: &mut Index, uid: &str, now: Timestamp) -> Option<Action> {
    let entry = index.sandboxes.get(uid)?;
    let size = entry.resolved.as_ref().ok()?.0.volume?;
    if entry.view.is_final() || entry.view.identity.deleting {
        return None;
    }
    let sandbox = entry.view.identity.object_id();
    let key = Key {
        namespace: sandbox.namespace.clone(),
        name: volume_claim(&sandbox.name),
    };
    let volume = index.volumes.get_mut(&key)?;
    if volume.view.requested >= size || volume.busy || volume.view.identity.deleting {
        return None;
    }
    if volume.not_before > now {
        let at = volume.not_before;
        index.timer(at, Timer::Sandbox(uid.to_owned()));
        return None;
    }
    volume.busy = true;
    Some(Action::GrowVolume(GrowVolume {
        claim: volume.view.identity.object_id(),
        size,
        sandbox,
    }))
}
