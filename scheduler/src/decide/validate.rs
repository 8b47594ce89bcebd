//! Whether a runtime works: by evidence where there is any, else by a pod made to show it.
//!
//! A ready pod of the runtime's image is the evidence, whoever it was made for. Only where none is there is a
//! validation pod made, two at a time for all runtimes together, and never in the middle of a burst of assignments.

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::reasons::{Reason, Refusal};

use crate::action::{Action, Validate};
use crate::index::{Index, Observation, RuntimeEntry, Timer, Verdict};
use crate::view::{Key, PodOwner, Trouble};

/// A pod of the runtime became ready.
pub(super) const POD_BECAME_READY: &str = "PodBecameReady";
/// Nothing is known of the present image yet.
pub(super) const VALIDATING: &str = "Validating";
/// The validation pod did not become ready in time, and the cluster does not say why.
pub(super) const TIMED_OUT: &str = "ValidationTimedOut";
/// No node has room for the validation pod, which says nothing about the image.
const UNSCHEDULABLE: &str = "PodUnschedulable";

/// What says for certain that an image does not work, once it lasts: the words of [`Trouble`].
const DEFINITE: [&str; 3] = [
    "ImagePullFailed",
    "ContainerCrashing",
    "ContainerNotCreated",
];
/// How long a definite trouble must last: a registry may fail once.
const LASTING: SignedDuration = SignedDuration::from_secs(10);
/// How long a runtime is known before a pod is made for it: those of pools and sandboxes come first, and show as much.
const PATIENCE_FOR_OTHERS: SignedDuration = SignedDuration::from_secs(5);
/// How long evidence is good for.
pub(super) const REVALIDATE: SignedDuration = SignedDuration::from_hours(24);
/// Validation pods at a time.
const AT_ONCE: usize = 2;
/// Quiet time after an assignment before a validation pod is made.
const QUIET: SignedDuration = SignedDuration::from_secs(1);
/// Under constant assignments one is made all the same once it is wanted for this long.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// All that a judgement rests on.
#[derive(Clone, Debug)]
struct Facts<'a> {
    /// Why no pod of the runtime can ever be made.
    refusal: Option<&'a Refusal>,
    /// Whether a pod of its image is ready.
    ready: bool,
    /// When such a pod was last seen, as far as that is known of the present image.
    available_at: Option<Timestamp>,
    /// Since when the present image is known.
    since: Timestamp,
    /// Its validation pod.
    pod: Pod<'a>,
    /// How long that may take.
    timeout: SignedDuration,
    /// No new one before this time.
    retry_at: Timestamp,
}

/// A runtime's validation pod.
#[derive(Clone, Debug)]
enum Pod<'a> {
    /// There is none.
    None,
    /// It was asked for and not seen yet, or is being deleted.
    Between,
    /// It can no longer run.
    Over,
    /// It is there.
    Starting {
        /// Since when.
        since: Timestamp,
        /// What keeps it from running now, and since when that is so.
        trouble: Option<(&'a Trouble, Timestamp)>,
    },
}

/// What is to be done about a runtime's validation pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// Nothing.
    Keep,
    /// One is wanted.
    Start,
    /// It has shown what it can; no attempt failed.
    Remove,
    /// It came to nothing: it goes, and the next attempt waits.
    GiveUp,
}

/// What follows from the facts.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Judgement {
    /// What is found out; nothing where what is known stands.
    verdict: Option<Verdict>,
    step: Step,
    /// When to look again if nothing happens.
    next: Option<Timestamp>,
}

fn after(at: Timestamp, wait: SignedDuration) -> Timestamp {
    at.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

/// A pod that nobody needs goes.
fn remove_step(facts: &Facts<'_>) -> Step {
    match facts.pod {
        Pod::None | Pod::Between => Step::Keep,
        Pod::Over | Pod::Starting { .. } => Step::Remove,
    }
}

fn judge(facts: &Facts<'_>, now: Timestamp) -> Judgement {
    let remove = remove_step(facts);
    if let Some(refusal) = facts.refusal {
        return Judgement {
            verdict: Some(Verdict::Unavailable {
                reason: refusal.reason.as_str().to_owned(),
                message: refusal.message.clone(),
            }),
            step: remove,
            next: None,
        };
    }
    let good_until = facts.available_at.map(|at| after(at, REVALIDATE));
    if let Some(until) = good_until.filter(|until| *until > now) {
        return Judgement {
            verdict: None,
            step: remove,
            next: Some(until),
        };
    }
    if facts.ready {
        let at = Timestamp::from_second(now.as_second()).unwrap_or(now);
        return Judgement {
            verdict: Some(Verdict::Available { at }),
            step: remove,
            next: Some(after(at, REVALIDATE)),
        };
    }
    match facts.pod {
        Pod::Between => undecided(Step::Keep, None),
        Pod::Over => Judgement {
            step: Step::GiveUp,
            ..undecided(Step::Keep, None)
        },
        Pod::Starting { since, trouble } => starting(facts, since, trouble, now),
        Pod::None => {
            let due = after(facts.since, PATIENCE_FOR_OTHERS).max(facts.retry_at);
            if due > now {
                undecided(Step::Keep, Some(due))
            } else {
                undecided(Step::Start, None)
            }
        }
    }
}

fn undecided(step: Step, next: Option<Timestamp>) -> Judgement {
    Judgement {
        verdict: Some(Verdict::Undecided {
            reason: VALIDATING,
            message: "no pod of this image became ready yet; one is made to find out".to_owned(),
        }),
        step,
        next,
    }
}

/// A validation pod that is there and not ready.
fn starting(
    facts: &Facts<'_>,
    since: Timestamp,
    trouble: Option<(&Trouble, Timestamp)>,
    now: Timestamp,
) -> Judgement {
    let deadline = after(since, facts.timeout);
    let lasting_at = trouble.map(|(_, since)| after(since, LASTING));
    let lasts = lasting_at.is_some_and(|at| at <= now);
    let failed = |reason: &str, message: String| Judgement {
        verdict: Some(Verdict::Unavailable {
            reason: reason.to_owned(),
            message,
        }),
        step: Step::GiveUp,
        next: None,
    };
    match trouble {
        Some((trouble, _)) if lasts && DEFINITE.contains(&trouble.reason.as_str()) => failed(
            &trouble.reason,
            format!(
                "its validation pod does not run: {}; correct spec.image or spec.command",
                trouble.message
            ),
        ),
        // No node has room: the image may be fine.
        Some((trouble, _)) if lasts && trouble.reason == UNSCHEDULABLE => Judgement {
            verdict: Some(Verdict::Undecided {
                reason: UNSCHEDULABLE,
                message: format!("its validation pod has no node: {}", trouble.message),
            }),
            step: if deadline <= now {
                Step::GiveUp
            } else {
                Step::Keep
            },
            next: Some(deadline).filter(|at| *at > now),
        },
        _ if deadline <= now => failed(
            TIMED_OUT,
            match trouble {
                Some((trouble, _)) => format!(
                    "its validation pod did not become ready in time: {}",
                    trouble.message
                ),
                None => format!(
                    "its validation pod did not become ready in {} seconds; does its command stay up?",
                    facts.timeout.as_secs()
                ),
            },
        ),
        _ => undecided(
            Step::Keep,
            Some(
                lasting_at
                    .filter(|at| *at > now)
                    .map_or(deadline, |at| at.min(deadline)),
            ),
        ),
    }
}

/// The word for the metric.
fn result(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Available { .. } => POD_BECAME_READY,
        Verdict::Undecided { reason, .. } => reason,
        Verdict::Unavailable { reason, .. } => DEFINITE
            .into_iter()
            .chain([TIMED_OUT, Reason::RuntimeInvalid.as_str()])
            .find(|word| word == reason)
            .unwrap_or("Other"),
    }
}

/// Looks at a runtime: what is known of it, and whether a validation pod must come or go.
pub(super) fn runtime(index: &mut Index, key: &Key, now: Timestamp, actions: &mut Vec<Action>) {
    index
        .trials
        .coming
        .retain(|_, until| until.is_none_or(|until| until > now));
    let Some(entry) = index.runtimes.get(key) else {
        return;
    };
    let facts = facts(index, entry);
    let judgement = if entry.view.identity.deleting {
        Judgement {
            verdict: None,
            step: remove_step(&facts),
            next: None,
        }
    } else {
        judge(&facts, now)
    };
    if let Some(at) = judgement.next {
        index.timer(at, Timer::Runtime(key.clone()));
    }
    if let Some(verdict) = judgement.verdict {
        take(index, key, verdict);
    }
    let step = judgement.step;
    if step != Step::Start
        && let Some(entry) = index.runtimes.get_mut(key)
    {
        entry.wanted_since = None;
    }
    match step {
        Step::Keep => {}
        Step::Start => actions.extend(start(index, key, now)),
        Step::Remove => actions.extend(remove(index, key)),
        Step::GiveUp => {
            if let Some(entry) = index.runtimes.get_mut(key) {
                entry.put_off(now);
                let at = entry.retry_at;
                index.timer(at, Timer::Runtime(key.clone()));
            }
            actions.extend(remove(index, key));
        }
    }
}

fn facts<'a>(index: &'a Index, entry: &'a RuntimeEntry) -> Facts<'a> {
    let pod = index
        .pods
        .get(&entry.pod)
        .filter(|p| p.owner == PodOwner::Runtime(entry.view.identity.uid.clone()));
    let pod = match (pod, &entry.trial) {
        (Some(pod), _)
            if pod.identity.deleting || entry.removing.as_ref() == Some(&pod.identity.uid) =>
        {
            Pod::Between
        }
        (Some(pod), _) if pod.ended.is_some() => Pod::Over,
        (Some(pod), Some(trial)) => Pod::Starting {
            since: trial.since,
            trouble: pod.hold_up.as_ref().map(|now| {
                let known = trial.trouble.as_ref();
                let known = known.filter(|(word, _)| *word == now.reason);
                (now, known.map_or(trial.since, |(_, since)| *since))
            }),
        },
        (Some(_), None) => Pod::Between,
        (None, _) if index.trials.coming.contains_key(&entry.pod) => Pod::Between,
        (None, _) => Pod::None,
    };
    Facts {
        refusal: entry.template.as_ref().err(),
        ready: index.trials.is_ready(&entry.image),
        available_at: entry.available_at(),
        since: entry.since,
        pod,
        timeout: index.settings.validation_timeout,
        retry_at: entry.retry_at,
    }
}

impl RuntimeEntry {
    /// Whether the status speaks of the present image, and comes from a pod rather than from the spec alone.
    pub(super) fn status_is_current(&self) -> bool {
        let Some(status) = self.view.object.status.as_ref() else {
            return false;
        };
        let invalid = status.conditions.iter().flatten().any(|c| {
            c.type_ == pilotlight_common::names::conditions::AVAILABLE
                && c.reason.as_deref() == Some(Reason::RuntimeInvalid.as_str())
        });
        status.image_hash.as_ref() == Some(&self.image) && status.available.is_some() && !invalid
    }

    /// When a pod of the present image was last seen ready; nothing where the last attempt showed the contrary.
    fn available_at(&self) -> Option<Timestamp> {
        match &self.verdict {
            Some(Verdict::Available { at }) => Some(*at),
            Some(Verdict::Unavailable { .. }) => None,
            Some(Verdict::Undecided { .. }) | None => {
                let status = self.view.object.status.as_ref()?;
                let said = self.status_is_current() && status.available == Some(true);
                said.then(|| status.last_validated.as_ref().map(|t| t.0))
                    .flatten()
            }
        }
    }
}

/// Takes a verdict over. "Not known yet" never replaces what is known.
fn take(index: &mut Index, key: &Key, verdict: Verdict) {
    let Some(entry) = index.runtimes.get_mut(key) else {
        return;
    };
    if matches!(verdict, Verdict::Undecided { .. }) {
        let known = matches!(
            entry.verdict,
            Some(Verdict::Available { .. } | Verdict::Unavailable { .. })
        );
        if known || entry.status_is_current() {
            return;
        }
    }
    if entry.verdict.as_ref() == Some(&verdict) {
        return;
    }
    if matches!(verdict, Verdict::Available { .. }) {
        entry.failures = 0;
        entry.retry_at = Timestamp::MIN;
    }
    let word = result(&verdict);
    let counts = !matches!(verdict, Verdict::Undecided { .. });
    entry.verdict = Some(verdict);
    if counts {
        index.observations.push(Observation::Validated(word));
    }
}

/// Makes a validation pod, where there is a place for it and the time is good.
fn start(index: &mut Index, key: &Key, now: Timestamp) -> Option<Action> {
    // When a place becomes free, every runtime is looked at again.
    if index.trials.count() >= AT_ONCE {
        return None;
    }
    let entry = index.runtimes.get_mut(key)?;
    let wanted_since = *entry.wanted_since.get_or_insert(now);
    if let Some(at) = busy_until(index, now)
        && after(wanted_since, PATIENCE) > now
    {
        index.timer(at, Timer::Runtime(key.clone()));
        return None;
    }
    let entry = index.runtimes.get_mut(key)?;
    let (template, shape) = entry.template.clone().ok()?;
    entry.wanted_since = None;
    let pod = entry.pod.clone();
    let runtime = entry.view.identity.object_id();
    index.trials.coming.insert(pod.clone(), None);
    Some(Action::Validate(Box::new(Validate {
        runtime,
        pod,
        template,
        shape,
    })))
}

/// Until when assignments go first.
fn busy_until(index: &Index, now: Timestamp) -> Option<Timestamp> {
    if index.assigns_in_flight > 0 {
        return Some(after(now, QUIET));
    }
    index
        .last_assign
        .map(|at| after(at, QUIET))
        .filter(|at| *at > now)
}

fn remove(index: &mut Index, key: &Key) -> Option<Action> {
    let entry = index.runtimes.get_mut(key)?;
    let pod = index.pods.get(&entry.pod)?;
    entry.removing = Some(pod.identity.uid.clone());
    Some(Action::RemoveTrial {
        pod: pod.identity.object_id(),
    })
}

/// A validation pod that no runtime asks for any more: its runtime is gone, or says something else now.
pub(super) fn leftover(index: &Index, key: &Key) -> Option<Action> {
    let pod = index.pods.get(key)?;
    let PodOwner::Runtime(uid) = &pod.owner else {
        return None;
    };
    if !pod.managed || pod.identity.deleting {
        return None;
    }
    let wanted = index
        .runtimes
        .values()
        .any(|r| r.view.identity.uid == *uid && r.pod == *key);
    (!wanted).then(|| Action::RemoveTrial {
        pod: pod.identity.object_id(),
    })
}

#[cfg(test)]
mod tests;
