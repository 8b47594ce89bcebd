//! How the pod of a running sandbox fares. Called by [`Index::handle`] only.

use jiff::Timestamp;
use pilotlight_common::kinds::SandboxPhase;

use super::Index;
use crate::view::Trouble;

/// What was seen of the pod of a published sandbox.
#[derive(Debug, Default)]
pub struct Health {
    /// Since when it is not Ready, where it is not.
    pub unready_since: Option<Timestamp>,
    /// Whether it was ever seen Ready.
    pub was_ready: bool,
    /// How it ended: kept, since the pod itself may be gone before the next decision.
    pub end: Option<Trouble>,
}

impl Index {
    /// Takes over how the pod of a sandbox fares.
    pub(super) fn note_health(&mut self, uid: &str, now: Timestamp) {
        let pod = self.pod_of_sandbox(uid).and_then(|key| self.pods.get(&key));
        let Some(entry) = self.sandboxes.get_mut(uid) else {
            self.unready.remove(uid);
            return;
        };
        let health = &mut entry.health;
        if let Some(pod) = pod {
            health.was_ready |= pod.ready;
            health.end = pod.end().or(health.end.take());
        }
        let running = entry.view.phase == Some(SandboxPhase::Running);
        if running && pod.is_some_and(|pod| !pod.ready) {
            health.unready_since.get_or_insert(now);
            self.unready.insert(uid.to_owned());
        } else {
            health.unready_since = None;
            self.unready.remove(uid);
        }
    }
}
