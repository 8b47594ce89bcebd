//! What became of written NetworkPolicies. Called by [`Index::handle`] only.

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::network::RulesDigest;

use super::Index;
use crate::action::Outcome;

/// Pause after a write that failed.
const PAUSE: SignedDuration = SignedDuration::from_secs(2);

/// The policy of one sandbox's pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct PolicyState {
    /// The rules that this leader wrote last.
    pub written: Option<RulesDigest>,
    /// Whether a write is under way.
    pub busy: bool,
    /// No write before this time.
    pub not_before: Timestamp,
}

impl Index {
    pub(super) fn network_policy_written(
        &mut self,
        uid: &str,
        digest: RulesDigest,
        outcome: Outcome,
        now: Timestamp,
    ) {
        let Some(entry) = self.sandboxes.get_mut(uid) else {
            return;
        };
        let policy = &mut entry.network_policy;
        policy.busy = false;
        if outcome == Outcome::Done {
            policy.written = Some(digest);
        } else {
            policy.not_before = now.saturating_add(PAUSE).unwrap_or(now);
        }
        // The rules may have changed while it was written.
        self.dirty.sandboxes.insert(uid.to_owned());
    }
}
