//! How the outcome of an action changes the index.

use jiff::{SignedDuration, Timestamp};

use super::{Index, Timer};
use crate::action::{AssignOutcome, ColdOutcome, Done, Outcome};
use crate::view::{Key, Trouble};

/// Pause after a write that went through, for the watch to show it before the object is looked at again.
const SETTLE: SignedDuration = SignedDuration::from_secs(2);
/// First pause after a write that failed; it doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: SignedDuration = SignedDuration::from_millis(200);
/// Longest pause after a write that failed.
const MAX_BACKOFF: SignedDuration = SignedDuration::from_secs(30);

/// Longest pause before a pod that the API server refused, or that ended, is made once more.
const MAX_REFUSED_BACKOFF: SignedDuration = SignedDuration::from_mins(5);

/// The pause before an object is looked at again, after `failures` failed writes in a row.
pub(super) fn pause(outcome: Outcome, failures: u32) -> SignedDuration {
    match outcome {
        Outcome::Done => SETTLE,
        Outcome::Stale => MIN_BACKOFF,
        Outcome::Failed => MIN_BACKOFF
            .saturating_mul(1 << failures.min(10))
            .min(MAX_BACKOFF),
    }
}

impl Index {
    fn cold_pod_made(&mut self, uid: &str, outcome: ColdOutcome, now: Timestamp) {
        let failed = match outcome {
            ColdOutcome::Created(pod) => {
                self.upsert_pod(*pod, now);
                None
            }
            ColdOutcome::Refused(trouble) => Some(Some(trouble)),
            ColdOutcome::Failed => Some(None),
        };
        if let Some(entry) = self.sandboxes.get_mut(uid) {
            entry.cold.busy = false;
        }
        if let Some(trouble) = failed {
            self.cold_start_failed(uid, trouble, now);
        }
        self.touch_sandbox(uid);
    }

    /// One more try did not lead to a pod that serves: the next comes after a pause.
    pub(crate) fn cold_start_failed(
        &mut self,
        uid: &str,
        trouble: Option<Trouble>,
        now: Timestamp,
    ) {
        if let Some(entry) = self.sandboxes.get_mut(uid) {
            entry.cold.failures = entry.cold.failures.saturating_add(1);
            // What somebody has to do something about is not done in seconds.
            let most = if trouble.is_some() {
                MAX_REFUSED_BACKOFF
            } else {
                MAX_BACKOFF
            };
            let wait = MIN_BACKOFF
                .saturating_mul(1 << entry.cold.failures.min(12))
                .min(most);
            entry.cold.not_before = now.saturating_add(wait).unwrap_or(now);
            if trouble.is_some() {
                entry.cold.trouble = trouble;
            }
        }
    }

    fn sandbox_written(&mut self, uid: &str, outcome: Outcome, now: Timestamp) {
        let Some(entry) = self.sandboxes.get_mut(uid) else {
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
        self.timer(at, Timer::Sandbox(uid.to_owned()));
    }

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
                    self.trial_kept(&key);
                    self.timer(
                        now.saturating_add(SETTLE).unwrap_or(now),
                        Timer::Orphan(key),
                    );
                }
            }
            Done::ColdPod { uid, outcome } => self.cold_pod_made(&uid, outcome, now),
            Done::NetworkPolicy {
                uid,
                digest,
                outcome,
            } => self.network_policy_written(&uid, digest, outcome, now),
            Done::Volume { key, outcome } => self.volume_grown(&key, outcome, now),
            Done::Sandbox { uid, outcome } => self.sandbox_written(&uid, outcome, now),
            Done::Expelled { uid, outcome } => self.expelled(&uid, outcome, now),
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
            Done::Trial {
                runtime,
                pod,
                outcome,
            } => self.trial_made(&runtime, &pod, outcome, now),
            Done::Runtime { key, outcome } => self.runtime_written(&key, outcome, now),
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
