//! What a sandbox's status must say, apart from its publication, which is the node agent's.

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::kinds::{Condition, ConditionStatus, SandboxPhase, merge_conditions};
use pilotlight_common::names::conditions::{ACCEPTED, ASSIGNED, READY};
use pilotlight_common::reasons::{Reason, Refusal};

use crate::action::{Action, EventNote, SandboxStatusWrite};
use crate::index::{Index, SandboxEntry, Timer, WAITING_AFTER};
use crate::view::Key;

/// A status to be written.
struct Wanted {
    phase: SandboxPhase,
    conditions: Vec<Condition>,
    event: Option<EventNote>,
    unless_pod_lives: Option<Key>,
}

/// The write that a sandbox needs now, if any.
pub(super) fn lifecycle(index: &mut Index, uid: &str, now: Timestamp) -> Option<Action> {
    let entry = index.sandboxes.get(uid)?;
    if entry.busy || entry.not_before > now || entry.view.is_final() || entry.view.identity.deleting
    {
        return None;
    }
    let wanted = match entry.view.phase {
        Some(SandboxPhase::Running) => running(index, entry, now),
        Some(SandboxPhase::Terminating) => terminating(index, entry, uid, now),
        _ if entry.view.pod_name.is_some() => None,
        _ => unpublished(index, entry, now),
    };
    if let Some(due) = next_look(entry)
        && due > now
    {
        index.timer(due, Timer::Sandbox(uid.to_owned()));
    }
    let wanted = wanted?;
    let entry = index.sandboxes.get_mut(uid)?;
    let conditions = merge_conditions(&entry.view.conditions, wanted.conditions);
    if conditions.is_none() && entry.view.phase == Some(wanted.phase) {
        return None;
    }
    entry.busy = true;
    Some(Action::SandboxStatus(Box::new(SandboxStatusWrite {
        sandbox: entry.view.identity.object_id(),
        revision: entry.view.identity.revision,
        phase: wanted.phase,
        conditions: conditions.unwrap_or_else(|| entry.view.conditions.clone()),
        unless_pod_lives: wanted.unless_pod_lives,
        event: wanted.event,
    })))
}

/// When something about this sandbox changes by the mere passing of time.
fn next_look(entry: &SandboxEntry) -> Option<Timestamp> {
    match entry.view.phase {
        Some(SandboxPhase::Running) => expires(entry),
        _ => None,
    }
}

fn expires(entry: &SandboxEntry) -> Option<Timestamp> {
    let seconds = entry
        .view
        .spec
        .timeout
        .unwrap_or(pilotlight_common::resolve::DEFAULT_TIMEOUT_SECONDS);
    entry
        .view
        .started?
        .saturating_add(SignedDuration::from_secs(seconds))
        .ok()
}

fn running(index: &Index, entry: &SandboxEntry, now: Timestamp) -> Option<Wanted> {
    if expires(entry).is_some_and(|at| at <= now) {
        let message = "the sandbox reached its timeout; its pod is being deleted";
        return Some(Wanted {
            phase: SandboxPhase::Terminating,
            conditions: vec![not_ready("TimedOut", message, now)],
            event: Some(note(false, "TimedOut", message)),
            unless_pod_lives: None,
        });
    }
    let name = entry.view.pod_name.clone()?;
    let key = Key {
        namespace: entry.view.identity.key.namespace.clone(),
        name,
    };
    let ended = index
        .pods
        .get(&key)
        .map(|pod| (pod.ended.clone(), pod.identity.deleting));
    let (reason, message) = match ended {
        Some((None, false)) => return None,
        Some((Some(end), _)) => (
            end.reason,
            format!("pod {} ended: {}", key.name, end.message),
        ),
        Some((None, true)) => (
            "PodDeleted".to_owned(),
            format!("pod {} is being deleted", key.name),
        ),
        None => ("PodDeleted".to_owned(), format!("pod {} is gone", key.name)),
    };
    Some(Wanted {
        phase: SandboxPhase::Failed,
        conditions: vec![not_ready(&reason, &message, now)],
        event: Some(note(true, &reason, &message)),
        unless_pod_lives: Some(key),
    })
}

fn terminating(index: &Index, entry: &SandboxEntry, uid: &str, now: Timestamp) -> Option<Wanted> {
    let pod = entry.view.pod_name.as_ref().map(|name| Key {
        namespace: entry.view.identity.key.namespace.clone(),
        name: name.clone(),
    });
    let pod_there = pod.is_some_and(|key| index.pods.contains_key(&key));
    if pod_there || index.claims.contains_key(uid) || index.cold_pods.contains_key(uid) {
        return None;
    }
    let message = "the sandbox is over and its pod is gone";
    Some(Wanted {
        phase: SandboxPhase::Terminated,
        conditions: vec![not_ready("Terminated", message, now)],
        event: None,
        unless_pod_lives: None,
    })
}

/// A sandbox that is not published: refused at once, or waiting, said after a second.
fn unpublished(index: &Index, entry: &SandboxEntry, now: Timestamp) -> Option<Wanted> {
    if let Err(refusal) = &entry.resolved {
        return Some(refused(refusal, now));
    }
    if entry
        .first_seen
        .saturating_add(WAITING_AFTER)
        .is_ok_and(|at| at > now)
    {
        return None;
    }
    let uid = &entry.view.identity.uid;
    let own = index.cold_pod(uid);
    let (phase, reason, message) = match (own, &entry.cold.trouble) {
        (Some(pod), _) => {
            let name = &pod.identity.key.name;
            match &pod.hold_up {
                Some(trouble) => (
                    SandboxPhase::Creating,
                    trouble.reason.clone(),
                    format!("pod {name}: {}", trouble.message),
                ),
                None => (
                    SandboxPhase::Creating,
                    Reason::PodStarting.as_str().to_owned(),
                    format!("pod {name} is starting"),
                ),
            }
        }
        (None, Some(trouble)) => (
            SandboxPhase::Pending,
            trouble.reason.clone(),
            trouble.message.clone(),
        ),
        (None, None) if entry.waiting_as.is_some() => (
            SandboxPhase::Pending,
            Reason::WaitingForWarmPod.as_str().to_owned(),
            "a warm pod is being made; the sandbox gets it when it is ready".to_owned(),
        ),
        // Its assignment or the creation of its pod is on its way.
        (None, None) => return None,
    };
    let made = match own {
        Some(pod) => Condition::new(
            ASSIGNED,
            ConditionStatus::True,
            "PodCreated",
            format!("pod {} was made for the sandbox", pod.identity.key.name),
            now,
        ),
        None => Condition::new(ASSIGNED, ConditionStatus::False, &reason, &message, now),
    };
    let troubled = own.map_or(entry.cold.trouble.is_some(), |pod| pod.hold_up.is_some());
    Some(Wanted {
        phase,
        conditions: vec![
            Condition::new(
                ACCEPTED,
                ConditionStatus::True,
                "Resolved",
                "The request can be fulfilled.",
                now,
            ),
            made,
            not_ready(&reason, &message, now),
        ],
        event: troubled.then(|| note(true, &reason, &message)),
        unless_pod_lives: None,
    })
}

fn refused(refusal: &Refusal, now: Timestamp) -> Wanted {
    let (reason, message) = (refusal.reason.as_str(), &refusal.message);
    Wanted {
        phase: SandboxPhase::Pending,
        conditions: vec![
            Condition::new(ACCEPTED, ConditionStatus::False, reason, message, now),
            not_ready(reason, message, now),
        ],
        event: Some(note(true, reason, message)),
        unless_pod_lives: None,
    }
}

fn not_ready(reason: &str, message: &str, now: Timestamp) -> Condition {
    Condition::new(READY, ConditionStatus::False, reason, message, now)
}

fn note(warning: bool, reason: &str, message: &str) -> EventNote {
    EventNote {
        kind: "Sandbox",
        warning,
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}
