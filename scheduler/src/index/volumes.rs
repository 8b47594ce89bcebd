//! The claims of persistent volumes. Called by [`Index::handle`] only.

use jiff::{SignedDuration, Timestamp};

use super::observe::split;
use super::{Index, Kind};
use crate::action::Outcome;
use crate::input::Change;
use crate::view::{Key, VolumeView};

/// Pause after a growth that was refused: a storage class that cannot grow volumes does not learn it in seconds.
const REFUSED: SignedDuration = SignedDuration::from_secs(60);
/// Pause after a growth that went through, for the watch to show it.
const SETTLE: SignedDuration = SignedDuration::from_secs(2);

/// A claim.
#[derive(Debug)]
pub struct VolumeEntry {
    /// The object.
    pub view: VolumeView,
    /// Whether a write is under way.
    pub busy: bool,
    /// No write before this time.
    pub not_before: Timestamp,
}

impl Index {
    pub(super) fn observe_volumes(&mut self, change: Change<VolumeView>) {
        let (here, gone, listed) = split(change, || {
            self.volumes
                .values()
                .map(|v| (v.view.identity.key.clone(), v.view.identity.uid.clone()))
                .collect()
        });
        for (key, uid) in gone {
            if self
                .volumes
                .get(&key)
                .is_some_and(|v| v.view.identity.uid == uid)
            {
                self.volumes.remove(&key);
            }
        }
        for view in here {
            let key = view.identity.key.clone();
            if let Some(sandbox) = &view.sandbox {
                let sandbox = Key {
                    namespace: key.namespace.clone(),
                    name: sandbox.clone(),
                };
                self.dirty
                    .sandboxes
                    .extend(self.sandbox_uids.get(&sandbox).cloned());
            }
            if let Some(entry) = self.volumes.get_mut(&key) {
                entry.view = view;
            } else {
                let entry = VolumeEntry {
                    view,
                    busy: false,
                    not_before: Timestamp::MIN,
                };
                self.volumes.insert(key, entry);
            }
        }
        if listed {
            self.mark_synced(Kind::Volume);
        }
    }

    pub(super) fn volume_grown(&mut self, key: &Key, outcome: Outcome, now: Timestamp) {
        if let Some(entry) = self.volumes.get_mut(key) {
            entry.busy = false;
            let pause = if outcome == Outcome::Done {
                SETTLE
            } else {
                REFUSED
            };
            entry.not_before = now.saturating_add(pause).unwrap_or(now);
            let sandbox = entry.view.sandbox.clone().map(|name| Key {
                namespace: key.namespace.clone(),
                name,
            });
            let uid = sandbox.and_then(|key| self.sandbox_uids.get(&key));
            self.dirty.sandboxes.extend(uid.cloned());
        }
    }
}
