//! How the outcome of an action changes the index.

use jiff::{SignedDuration, Timestamp};

use super::{Index, Timer};
use crate::action::{AssignOutcome, Done, Outcome};
use crate::view::Key;

/// Pause after a write that went through, for the watch to show it before the object is looked at again.
const SETTLE: SignedDuration = SignedDuration::from_secs(2);
/// First pause after a write that failed; it doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: SignedDuration = SignedDuration::from_millis(200);
/// Longest pause after a write that failed.
const MAX_BACKOFF: SignedDuration = SignedDuration::from_secs(30);

/// The pause before an object is looked at again, after `failures` failed writes in a row.
fn pause(outcome: Outcome, failures: u32) -> SignedDuration {
    match outcome {
        Outcome::Done => SETTLE,
        Outcome::Stale => MIN_BACKOFF,
        Outcome::Failed => MIN_BACKOFF
            .saturating_mul(1 << failures.min(10))
            .min(MAX_BACKOFF),
    }
}

impl Index {
    pub(super) fn done(&mut self, done: Done, now: Timestamp) {
        match done {
            Done::Assign { assign, outcome } => {
                self.assigns_in_flight = self.assigns_in_flight.saturating_sub(1);
                let key = Key::from(&assign.warm_pod);
                if let Some(entry) = self.warm_pods.get_mut(&key) {
                    entry.in_flight = None;
                }
                if let Some(entry) = self.sandboxes.get_mut(&assign.sandbox.uid) {
                    entry.in_flight = None;
                }
                match outcome {
                    AssignOutcome::Won(view) => {
                        // The watch may have shown a later state, or the deletion, before this answer came.
                        if self.warm_pods.contains_key(&key) {
                            self.upsert_warm_pod(*view, now);
                        }
                    }
                    AssignOutcome::Lost | AssignOutcome::Abandoned => {
                        if let Some(entry) = self.warm_pods.get_mut(&key) {
                            entry.lost_at = Some(entry.view.identity.revision);
                        }
                    }
                }
                self.touch_warm_pod(&key, now);
                self.touch_sandbox(&assign.sandbox.uid);
            }
            Done::WarmPod { key, outcome } => {
                let Some(entry) = self.warm_pods.get_mut(&key) else {
                    return;
                };
                entry.busy = false;
                // Removed objects leave by their watch; what was not removed is there again.
                entry.leaving &= outcome == Outcome::Done;
                if entry.placeholder && outcome != Outcome::Done {
                    // It was never created; the pool's size is decided anew.
                    self.forget_warm_pod(&key);
                    return;
                }
                entry.failures = if outcome == Outcome::Failed {
                    entry.failures.saturating_add(1)
                } else {
                    0
                };
                let at = now
                    .saturating_add(pause(outcome, entry.failures))
                    .unwrap_or(now);
                entry.not_before = at;
                self.timer(at, Timer::WarmPod(key.clone()));
                self.touch_warm_pod(&key, now);
            }
            Done::Pod { key, outcome } => {
                if outcome != Outcome::Done && self.pods.contains_key(&key) {
                    self.timer(
                        now.saturating_add(SETTLE).unwrap_or(now),
                        Timer::Orphan(key),
                    );
                }
            }
            Done::Sandbox { uid, outcome } => {
                let Some(entry) = self.sandboxes.get_mut(&uid) else {
                    return;
                };
                entry.busy = false;
                entry.failures = if outcome == Outcome::Failed {
                    entry.failures.saturating_add(1)
                } else {
                    0
                };
                let at = now
                    .saturating_add(pause(outcome, entry.failures))
                    .unwrap_or(now);
                entry.not_before = at;
                self.timer(at, Timer::Sandbox(uid));
            }
            Done::Pool { key, outcome } => {
                let Some(pool) = self.pools.get_mut(&key) else {
                    return;
                };
                pool.busy = false;
                // At most one write a second, whatever came of the last.
                let wait = pause(outcome, 0).max(SignedDuration::from_secs(1));
                let at = now.saturating_add(wait).unwrap_or(now);
                pool.not_before = at;
                self.timer(at, Timer::Pool(key));
            }
            Done::Node { node, outcome } => {
                let Some(entry) = self.nodes.get_mut(&node) else {
                    return;
                };
                entry.busy = false;
                let at = now.saturating_add(pause(outcome, 2)).unwrap_or(now);
                entry.not_before = at;
                self.timer(at, Timer::Node(node));
            }
        }
    }
}
