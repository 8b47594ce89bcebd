//! A running sandbox: until its timeout or the end of its pod, with what can be seen and edited meanwhile.

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::fates::{end, trouble};
use pilotlight_common::kinds::{Condition, ConditionStatus, SandboxPhase};
use pilotlight_common::names::conditions::{ACCEPTED, PREPARED, READY};
use pilotlight_common::resolve::{DEFAULT_TIMEOUT_SECONDS, check_edit};

use super::ending::over;
use super::{Wanted, current, news, not_ready, note};
use crate::index::{Index, NodeEntry, SandboxEntry};
use crate::view::{Key, PodView, Trouble};

/// How long a pod may be not Ready before its sandbox says so: a restarted container takes less.
const UNREADY_AFTER: SignedDuration = SignedDuration::from_secs(2);
/// The same for a pod that was never seen Ready: the agent publishes before the kubelet says Ready, which takes a
/// busy kubelet seconds, and a write here would be a third one for an assignment that went well.
const NEVER_READY_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// When something about a running sandbox changes by the mere passing of time.
pub(super) fn next_look(entry: &SandboxEntry, now: Timestamp) -> Option<Timestamp> {
    [expires(entry), unready_at(entry)]
        .into_iter()
        .flatten()
        .filter(|due| *due > now)
        .min()
}

fn expires(entry: &SandboxEntry) -> Option<Timestamp> {
    let seconds = entry.view.spec.timeout.unwrap_or(DEFAULT_TIMEOUT_SECONDS);
    let lifetime = SignedDuration::from_secs(seconds);
    entry.view.started?.saturating_add(lifetime).ok()
}

/// When a pod that is not Ready is to be spoken of.
fn unready_at(entry: &SandboxEntry) -> Option<Timestamp> {
    let patience = if entry.health.was_ready {
        UNREADY_AFTER
    } else {
        NEVER_READY_AFTER
    };
    entry.health.unready_since?.saturating_add(patience).ok()
}

pub(super) fn running(index: &Index, entry: &SandboxEntry, now: Timestamp) -> Option<Wanted> {
    if expires(entry).is_some_and(|at| at <= now) {
        let message = "the sandbox reached its timeout; its pod is being deleted";
        return Some(Wanted {
            phase: SandboxPhase::Terminating,
            conditions: vec![not_ready(end::TIMED_OUT, message, now)],
            event: Some(note(false, end::TIMED_OUT, message)),
            unless_pod_lives: None,
        });
    }
    let key = Key {
        namespace: entry.view.identity.key.namespace.clone(),
        name: entry.view.pod_name.clone()?,
    };
    let gone = || Trouble::new(end::POD_DELETED, "is gone");
    let (pod, ended) = match index.pods.get(&key) {
        Some(pod) => (Some(pod), pod.end()),
        None => (None, Some(entry.health.end.clone().unwrap_or_else(gone))),
    };
    if let Some(ended) = ended {
        let message = format!("pod {}: {}", key.name, ended.message);
        return Some(Wanted {
            phase: SandboxPhase::Failed,
            conditions: over(&ended.reason, &message, now),
            event: Some(note(true, &ended.reason, &message)),
            unless_pod_lives: Some(key),
        });
    }
    let mut conditions = readiness(index, entry, pod?, now);
    conditions.extend(acceptance(index, entry, now));
    let event = conditions
        .iter()
        .filter(|c| c.status == ConditionStatus::False && c.type_ != PREPARED)
        .find_map(|c| news(entry, c));
    (!conditions.is_empty()).then_some(Wanted {
        phase: SandboxPhase::Running,
        conditions,
        event,
        unless_pod_lives: None,
    })
}

/// What to say of the pod's state. Nothing on the way that every sandbox takes: published, Ready, and so to the end.
fn readiness(index: &Index, entry: &SandboxEntry, pod: &PodView, now: Timestamp) -> Vec<Condition> {
    let denied = |type_| current(entry, type_).is_some_and(|c| c.status != ConditionStatus::True);
    let yes = |type_, reason, message: &str| {
        Condition::new(type_, ConditionStatus::True, reason, message, now)
    };
    let mut conditions = Vec::new();
    if entry.health.unready_since.is_none() {
        if denied(READY) {
            conditions.push(yes(READY, "Running", "The sandbox runs."));
        }
        if denied(PREPARED) && pod.prepared {
            let message = "The node enforces what the sandbox asks for.";
            conditions.push(yes(PREPARED, "Prepared", message));
        }
        return conditions;
    }
    if unready_at(entry).is_none_or(|at| at > now) {
        return conditions;
    }
    let found = why_unready(index, pod);
    conditions.push(not_ready(&found.reason, &found.message, now));
    if !pod.prepared {
        conditions.push(Condition::new(
            PREPARED,
            ConditionStatus::False,
            &found.reason,
            &found.message,
            now,
        ));
    }
    conditions
}

fn why_unready(index: &Index, pod: &PodView) -> Trouble {
    let node = pod.node.as_deref().unwrap_or_default();
    if !index.nodes.get(node).is_some_and(NodeEntry::is_up) {
        return Trouble::new(
            trouble::NODE_UNREACHABLE,
            &format!(
                "nothing is heard of node {node}; the sandbox goes on when it comes back, and fails when the cluster gives it up"
            ),
        );
    }
    let unknown = || Trouble::new(trouble::POD_NOT_READY, "the pod is not Ready");
    pod.unready.clone().unwrap_or_else(unknown)
}

/// Whether an edit of a running sandbox can be fulfilled. Only what may be edited counts: that its runtime or profile
/// is gone meanwhile is nothing to a sandbox that runs.
fn acceptance(index: &Index, entry: &SandboxEntry, now: Timestamp) -> Option<Condition> {
    let profile = index.profile_of(&entry.view);
    match check_edit(&entry.view.spec, profile, &index.settings.defaults) {
        Err(refusal) => Some(Condition::new(
            ACCEPTED,
            ConditionStatus::False,
            refusal.reason.as_str(),
            format!("{}; the sandbox runs on as it was", refusal.message),
            now,
        )),
        Ok(()) => current(entry, ACCEPTED)
            .filter(|c| c.status == ConditionStatus::False)
            .map(|_| {
                let message = "The request can be fulfilled.";
                Condition::new(ACCEPTED, ConditionStatus::True, "Resolved", message, now)
            }),
    }
}
