//! What a runtime's status must say: whether it works, and who uses it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pilotlight_common::kinds::{
    Condition, ConditionStatus, RuntimeEnvironmentStatus, merge_conditions,
};
use pilotlight_common::names::conditions::{AVAILABLE, IN_USE};

use super::validate::{POD_BECAME_READY, REVALIDATE};
use crate::action::{Action, EventNote};
use crate::index::{Index, RuntimeEntry, Timer, Uses, Verdict};
use crate::view::Key;

/// Pause between two counts of the users.
const COUNT_EVERY: SignedDuration = SignedDuration::from_secs(5);
/// Pause between two writes for the sake of the numbers alone.
const NUMBERS_EVERY: SignedDuration = SignedDuration::from_mins(1);

/// Counts the users of every runtime, where any changed and the last count is a while ago.
pub(super) fn count_uses(index: &mut Index, now: Timestamp) {
    if !index.usage.stale {
        return;
    }
    let due = index
        .usage
        .counted_at
        .and_then(|at| at.saturating_add(COUNT_EVERY).ok())
        .filter(|due| *due > now);
    match due {
        Some(due) => index.timer(due, Timer::Usage),
        None => index.count_uses(now),
    }
}

/// The write that a runtime needs now, if any.
pub(super) fn runtime_status(index: &mut Index, key: &Key, now: Timestamp) -> Option<Action> {
    let entry = index.runtimes.get_mut(key)?;
    if entry.busy || entry.view.identity.deleting {
        return None;
    }
    if entry.not_before > now {
        let at = entry.not_before;
        index.timer(at, Timer::Runtime(key.clone()));
        return None;
    }
    let stated = entry.view.object.status.clone().unwrap_or_default();
    let mut wanted = stated.clone();
    let available = judged(entry, &mut wanted, now);
    let in_use = in_use(entry.uses, now);
    let current = stated.conditions.clone().unwrap_or_default();
    let find = |type_: &str| current.iter().find(|c| c.type_ == type_);
    let tells = available
        .as_ref()
        .is_some_and(|new| find(AVAILABLE).is_none_or(|old| !old.says_the_same(new)));
    let turned = find(IN_USE).is_none_or(|old| old.status != in_use.status);
    let renumbered = find(IN_USE).is_none_or(|old| !old.says_the_same(&in_use));
    let fields = |s: &RuntimeEnvironmentStatus| {
        let at = s.last_validated.as_ref().map(|t| t.0.as_second());
        (s.available, at, s.image_hash.clone())
    };
    let numbers_at = entry
        .uses_written
        .saturating_add(NUMBERS_EVERY)
        .unwrap_or(Timestamp::MAX);
    if !tells && !turned && fields(&stated) == fields(&wanted) && (!renumbered || numbers_at > now)
    {
        if renumbered {
            index.timer(numbers_at, Timer::Runtime(key.clone()));
        }
        return None;
    }
    let event = warning(available.as_ref(), find(AVAILABLE));
    let conditions = available.into_iter().chain([in_use]).collect();
    wanted.conditions = Some(merge_conditions(&current, conditions).unwrap_or(current));
    entry.uses_written = now;
    entry.busy = true;
    Some(Action::RuntimeStatus {
        runtime: entry.view.identity.object_id(),
        status: Box::new(wanted),
        event,
    })
}

/// Puts what was found out into the status; returns the condition that says so.
fn judged(
    entry: &RuntimeEntry,
    status: &mut RuntimeEnvironmentStatus,
    now: Timestamp,
) -> Option<Condition> {
    let verdict = entry.verdict.as_ref()?;
    let same_image = status.image_hash.as_ref() == Some(&entry.image);
    status.image_hash = Some(entry.image.clone());
    let condition = |status, reason: &str, message: &str| {
        Some(Condition::new(AVAILABLE, status, reason, message, now))
    };
    match verdict {
        Verdict::Available { at } => {
            status.available = Some(true);
            let stated = status.last_validated.as_ref().map(|t| t.0);
            // Another leader may have seen a later one.
            if !same_image
                || stated.is_none_or(|stated| stated < *at || after_the_next(stated, *at))
            {
                status.last_validated = Some(Time(*at));
            }
            condition(
                ConditionStatus::True,
                POD_BECAME_READY,
                "a pod of this image became ready",
            )
        }
        Verdict::Unavailable { reason, message } => {
            status.available = Some(false);
            if !same_image {
                status.last_validated = None;
            }
            condition(ConditionStatus::False, reason, message)
        }
        Verdict::Undecided { reason, message } => {
            status.available = None;
            status.last_validated = None;
            condition(ConditionStatus::Unknown, reason, message)
        }
    }
}

/// Whether a stated time lies further ahead than any leader's clock can be.
fn after_the_next(stated: Timestamp, at: Timestamp) -> bool {
    at.saturating_add(REVALIDATE)
        .is_ok_and(|limit| stated > limit)
}

fn in_use(uses: Uses, now: Timestamp) -> Condition {
    let Uses { pools, sandboxes } = uses;
    let number = |count: usize, one: &str, many: &str| {
        let word = if count == 1 { one } else { many };
        format!("{count} {word}")
    };
    if pools + sandboxes == 0 {
        let message = "no WarmPool and no Sandbox uses it";
        return Condition::new(IN_USE, ConditionStatus::False, "Unused", message, now);
    }
    let message = format!(
        "{}, {}",
        number(pools, "WarmPool", "WarmPools"),
        number(sandboxes, "Sandbox", "Sandboxes")
    );
    Condition::new(IN_USE, ConditionStatus::True, "Used", message, now)
}

/// A Warning where a runtime has come to be found not to work.
fn warning(new: Option<&Condition>, old: Option<&Condition>) -> Option<EventNote> {
    let new = new.filter(|c| c.status == ConditionStatus::False)?;
    if old.is_some_and(|old| old.status == new.status && old.reason == new.reason) {
        return None;
    }
    Some(EventNote {
        kind: "RuntimeEnvironment",
        warning: true,
        reason: new.reason.clone().unwrap_or_default(),
        message: new.message.clone().unwrap_or_default(),
    })
}
