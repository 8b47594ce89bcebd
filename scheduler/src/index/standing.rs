//! Whether the publication of a sandbox is borne out: what this replica saw itself of the pods that were given to it.
//! Called by [`Index::handle`], and by [`crate::decide`].

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::kinds::SandboxPhase;

use super::{Index, Timer};
use crate::action::{ExpelOutcome, Publication};
use crate::view::Key;

/// First pause before a look that failed is taken again; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: SignedDuration = SignedDuration::from_millis(100);
/// Longest pause before a look that failed is taken again.
const MAX_PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// What is known of one sandbox's publication.
#[derive(Debug)]
pub struct Standing {
    /// Whether it is settled: a pod is given once, and a sandbox published once, so it stays settled.
    pub cleared: bool,
    /// Whether this replica saw the sandbox before it was published, and the publication by its watch.
    pub watched: bool,
    /// Names of the pods that were seen given to it, whatever became of them.
    pub given: BTreeSet<String>,
    /// Whether a look is under way.
    pub busy: bool,
    /// No look before this time.
    pub not_before: Timestamp,
    /// Looks in a row that failed.
    pub failures: u32,
}

impl Standing {
    /// Of a sandbox that is seen for the first time.
    pub(crate) fn new(published: bool) -> Self {
        Self {
            cleared: false,
            watched: !published,
            given: BTreeSet::new(),
            busy: false,
            not_before: Timestamp::MIN,
            failures: 0,
        }
    }
}

impl Index {
    /// A pod was seen given to a sandbox: assigned to it, or made for it.
    pub(super) fn note_given(&mut self, uid: &str, key: &Key) {
        if let Some(entry) = self.sandboxes.get_mut(uid) {
            entry.standing.given.insert(key.name.clone());
        }
    }

    /// A sandbox is new here: the pods that were given to it may have been shown before it was.
    pub(super) fn note_all_given(&mut self, uid: &str) {
        let warm = self.claims.get(uid).into_iter().flatten();
        let own = self.cold_pods.get(uid).into_iter().flatten();
        let keys: Vec<Key> = warm.chain(own).cloned().collect();
        for key in keys {
            self.note_given(uid, &key);
        }
    }

    /// Whether a pod was seen given to a sandbox.
    pub(super) fn is_given(&self, uid: &str, pod: &Key) -> bool {
        let entry = self.sandboxes.get(uid);
        entry.is_some_and(|entry| entry.standing.given.contains(&pod.name))
    }

    /// The publication of a sandbox was in a list, not in a watch: what came before it may never have been shown.
    pub(super) fn not_watched(&mut self, uid: &str) {
        if let Some(entry) = self.sandboxes.get_mut(uid)
            && entry.view.pod_name.is_some()
        {
            entry.standing.watched = false;
        }
    }

    /// This replica begins to lead: what was published until now, another one gave away.
    pub(super) fn watched_by_another(&mut self) {
        for entry in self.sandboxes.values_mut() {
            if entry.view.pod_name.is_some() {
                entry.standing.watched = false;
            }
        }
    }

    /// The publication of a running sandbox.
    pub(crate) fn publication(&self, uid: &str) -> Option<Publication> {
        let entry = self.sandboxes.get(uid)?;
        if entry.view.phase != Some(SandboxPhase::Running) {
            return None;
        }
        let pod = self.pod_of_sandbox(uid)?;
        let standing = &entry.standing;
        Some(Publication {
            sandbox: uid.to_owned(),
            watched: standing.watched && !standing.given.contains(&pod.name),
            node: entry.view.node.clone().filter(|node| !node.is_empty()),
            pod,
        })
    }

    pub(super) fn expelled(&mut self, uid: &str, outcome: ExpelOutcome, now: Timestamp) {
        let failed = matches!(outcome, ExpelOutcome::Failed);
        let cleared = matches!(outcome, ExpelOutcome::Cleared);
        if let ExpelOutcome::Ended(Some(node)) = outcome {
            self.upsert_node(*node, now);
        }
        let Some(entry) = self.sandboxes.get_mut(uid) else {
            return;
        };
        let standing = &mut entry.standing;
        standing.busy = false;
        standing.cleared = cleared;
        // Where it was ended, the watch shows that; or it is looked at once more.
        standing.failures = if failed {
            standing.failures.saturating_add(1)
        } else {
            0
        };
        let pause = MIN_PAUSE
            .saturating_mul(1 << standing.failures.min(10))
            .min(MAX_PAUSE);
        if !standing.cleared {
            standing.not_before = now.saturating_add(pause).unwrap_or(now);
            let at = standing.not_before;
            self.timer(at, Timer::Sandbox(uid.to_owned()));
        }
        self.touch_sandbox(uid);
    }
}
