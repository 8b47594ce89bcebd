//! A sandbox that is over: until its pod is gone, and until it is forgotten itself.

use jiff::Timestamp;
use pilotlight_common::fates::end;
use pilotlight_common::kinds::{Condition, ConditionStatus, SandboxPhase};
use pilotlight_common::names::conditions::{PREPARED, READY};

use super::{Wanted, current, not_ready};
use crate::action::Action;
use crate::index::{Index, SandboxEntry, Timer};
use crate::view::Key;

/// The conditions of a sandbox that is over. That it was accepted and assigned stays true; nothing is enforced any more.
pub(crate) fn over(reason: &str, message: &str, now: Timestamp) -> Vec<Condition> {
    let prepared = Condition::new(PREPARED, ConditionStatus::False, reason, message, now);
    vec![prepared, not_ready(reason, message, now)]
}

pub(super) fn terminating(
    index: &Index,
    entry: &SandboxEntry,
    uid: &str,
    now: Timestamp,
) -> Option<Wanted> {
    let pod = entry.view.pod_name.as_ref().map(|name| Key {
        namespace: entry.view.identity.key.namespace.clone(),
        name: name.clone(),
    });
    let pod_there = pod.is_some_and(|key| index.pods.contains_key(&key));
    if pod_there || index.claims.contains_key(uid) || index.cold_pods.contains_key(uid) {
        return None;
    }
    // Why it ended was said when it began to end, and stays.
    let said = current(entry, READY).and_then(|c| c.reason.as_deref());
    let (reason, message) = match said {
        Some(end::TIMED_OUT) => (
            end::TIMED_OUT,
            "the sandbox reached its timeout; its pod is gone",
        ),
        Some(known) if end::ALL.contains(&known) => (known, "the sandbox is over; its pod is gone"),
        _ => (end::TERMINATED, "the sandbox is over; its pod is gone"),
    };
    Some(Wanted {
        phase: SandboxPhase::Terminated,
        conditions: over(reason, message, now),
        event: None,
        unless_pod_lives: None,
    })
}

/// The deletion of a sandbox that was over long enough, where the installation wants that.
pub(super) fn finished(index: &mut Index, uid: &str, now: Timestamp) -> Option<Action> {
    let ttl = index.settings.finished_ttl?;
    let entry = index.sandboxes.get_mut(uid)?;
    // A final phase comes with its time; where somebody wrote one without, it counts from when it was seen.
    let since = entry.view.finished.unwrap_or(entry.first_seen);
    let due = since.saturating_add(ttl).unwrap_or(Timestamp::MAX);
    if due > now {
        index.timer(due, Timer::Sandbox(uid.to_owned()));
        return None;
    }
    entry.busy = true;
    Some(Action::DeleteSandbox {
        sandbox: entry.view.identity.object_id(),
    })
}
