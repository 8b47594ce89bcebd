//! What a sandbox's status must say, apart from its publication, which is the node agent's.

mod ending;
mod running;

pub(crate) use ending::over;

use jiff::Timestamp;
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
    if entry.busy || entry.not_before > now || entry.view.identity.deleting {
        return None;
    }
    if entry.view.is_final() {
        return ending::finished(index, uid, now);
    }
    let wanted = match entry.view.phase {
        Some(SandboxPhase::Running) => running::running(index, entry, now),
        Some(SandboxPhase::Terminating) => ending::terminating(index, entry, uid, now),
        _ if entry.view.pod_name.is_some() => None,
        _ => unpublished(index, entry, now),
    };
    let next_look = match entry.view.phase {
        Some(SandboxPhase::Running) => running::next_look(entry, now),
        _ => None,
    };
    if let Some(due) = next_look {
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
    let without_cpus = match &entry.waiting_as {
        Some((_, cpus)) if *cpus > 0 && own.is_none() && !entry.cold.busy => {
            waits_for_cpus(index, *cpus)
        }
        _ => None,
    };
    if let Some(refusal) = without_cpus
        .as_ref()
        .filter(|refusal| refusal.reason == Reason::CpuPinningUnavailable)
    {
        return Some(refused(refusal, now));
    }
    let (phase, reason, message) = match (own, &entry.cold.trouble) {
        _ if without_cpus.is_some() => {
            let Refusal { reason, message } = without_cpus?;
            (SandboxPhase::Pending, reason.as_str().to_owned(), message)
        }
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
        (None, None) if matches!(entry.waiting_as, Some((_, 0))) => (
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
    let waits = not_ready(&reason, &message, now);
    let event = troubled.then(|| news(entry, &waits)).flatten();
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
            waits,
        ],
        event,
        unless_pod_lives: None,
    })
}

/// Why a sandbox that wants CPUs of its own has no pod: no node ever has so many, or others have them now. Nothing where a
/// node has some, and its pod is about to be made.
fn waits_for_cpus(index: &Index, cpus: u32) -> Option<Refusal> {
    let refusal = match index.most_cpus() {
        Some((most, message)) if most < cpus => {
            let why = if message.is_empty() {
                ""
            } else {
                "; a node says: "
            };
            Refusal::new(
                Reason::CpuPinningUnavailable,
                format!(
                    "resources.cpuPinning asks for {cpus} whole CPUs, and the most that any node can give to one sandbox is {most}{why}{message}; ask for fewer, or leave it out"
                ),
            )
        }
        Some(_) if !index.nodes_with_cpus(cpus).is_empty() => return None,
        Some(_) => Refusal::new(
            Reason::WaitingForCpus,
            format!(
                "no node has {cpus} free CPUs for one sandbox now; it gets them when another that has some ends"
            ),
        ),
        None => Refusal::new(
            Reason::WaitingForCpus,
            "no node that could give CPUs is connected now; it gets them when one is",
        ),
    };
    Some(refusal)
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

/// A condition as it was last written.
fn current<'a>(entry: &'a SandboxEntry, type_: &str) -> Option<&'a Condition> {
    entry.view.conditions.iter().find(|c| c.type_ == type_)
}

/// A Warning for a condition that no longer holds, where the last written one does not say so already.
fn news(entry: &SandboxEntry, wanted: &Condition) -> Option<EventNote> {
    let said = current(entry, &wanted.type_)
        .is_some_and(|c| (c.status, &c.reason) == (wanted.status, &wanted.reason));
    let reason = wanted.reason.as_deref()?;
    (!said).then(|| note(true, reason, wanted.message.as_deref().unwrap_or_default()))
}

fn note(warning: bool, reason: &str, message: &str) -> EventNote {
    EventNote {
        kind: "Sandbox",
        warning,
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}
