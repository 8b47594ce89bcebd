//! What must go, and what an interrupted creation left undone. Runs over everything after a start or a
//! failover, so nothing needs a finalizer.

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::fates::trouble::POD_UNSCHEDULABLE;
use pilotlight_common::kinds::SandboxPhase;
use pilotlight_common::names::{NODE_DISTRUSTED, OwnerKind};
use pilotlight_common::stream::{AgentRefusal, ObjectId};

use super::preloading::{self, is_overdue};
use crate::action::Action;
use crate::index::{Class, Index, POD_LAG, Timer, WarmPodEntry, expires, replaced_for};
use crate::view::{Claim, Key, PodOwner, PodView};

/// How long a pod that is kept to some nodes may find no room there.
const STUCK: SignedDuration = SignedDuration::from_secs(30);

/// What a warm pod needs now, if anything.
pub(super) fn warm_pod(index: &mut Index, key: &Key, now: Timestamp) -> Option<Action> {
    let entry = index.warm_pods.get(key)?;
    if entry.placeholder
        || entry.busy
        || entry.in_flight.is_some()
        || entry.not_before > now
        || entry.view.identity.deleting
    {
        return None;
    }
    let action = match entry.view.claim.clone() {
        Claim::Retired => Some(Action::Remove {
            warm_pod: entry.view.identity.object_id(),
            pod_uid: pod_uid(index, key),
            unless_exists: None,
        }),
        Claim::Sandbox(uid) => owned(index, key, &uid, now),
        Claim::Free => idle(index, key, now),
    }?;
    if let Some(entry) = index.warm_pods.get_mut(key) {
        entry.busy = true;
        entry.leaving = matches!(action, Action::Retire { .. } | Action::Remove { .. });
    }
    index.touch_warm_pod(key, now);
    index.dirty.warm_pods.remove(key);
    Some(action)
}

/// A warm pod that belongs to a sandbox goes when the sandbox is gone, over, or published elsewhere, or when
/// its agent said that it will not publish it.
fn owned(index: &mut Index, key: &Key, uid: &str, now: Timestamp) -> Option<Action> {
    let entry = index.warm_pods.get(key)?;
    let warm_pod = entry.view.identity.object_id();
    let Some(sandbox) = index.sandboxes.get(uid) else {
        // Not seen is not the same as gone: unless its deletion was seen, it is looked up once more.
        let unless_exists = (!index.gone_sandboxes.contains(uid)).then(|| ObjectId {
            namespace: key.namespace.clone(),
            name: entry.view.sandbox_name.clone().unwrap_or_default(),
            uid: uid.to_owned(),
        });
        return Some(Action::Remove {
            warm_pod,
            pod_uid: pod_uid(index, key),
            unless_exists,
        });
    };
    let over = sandbox.view.is_final()
        || sandbox.view.phase == Some(SandboxPhase::Terminating)
        || sandbox.view.identity.deleting;
    let published_here = sandbox.view.pod_name.as_ref().map(|pod| *pod == key.name);
    // Only an agent that can never publish any more is believed at once. One that is silent, or found the pod
    // unprepared, may have a publication on its way: its pod goes once the sandbox runs elsewhere. (The model
    // in tests/model loses a running sandbox's pod without this.)
    let given_up = published_here.is_none() && entry.refused.as_deref().is_some_and(is_definite);
    if over || published_here == Some(false) || given_up {
        return Some(Action::Remove {
            warm_pod,
            pod_uid: pod_uid(index, key),
            unless_exists: None,
        });
    }
    if published_here.is_none()
        && let Some(due) = entry
            .claim_seen
            .and_then(|at| at.saturating_add(index.settings.agent_deadline).ok())
        && due > now
    {
        index.timer(due, Timer::WarmPod(key.clone()));
    }
    None
}

/// Whether an agent that refused for this reason can never publish the assignment again.
fn is_definite(reason: &str) -> bool {
    [
        AgentRefusal::PodGone,
        AgentRefusal::PublishedElsewhere,
        AgentRefusal::SandboxGone,
    ]
    .iter()
    .any(|r| r.as_str() == reason)
}

/// An idle warm pod goes when its pod or its pool is gone, when it is on the wrong node, or when its preloads take too
/// long.
fn idle(index: &mut Index, key: &Key, now: Timestamp) -> Option<Action> {
    let entry = index.warm_pods.get(key)?;
    let warm_pod = entry.view.identity.object_id();
    if entry.class == Class::Broken {
        let pool = Key {
            namespace: key.namespace.clone(),
            name: entry.view.pool.clone(),
        };
        let pool_there = index.pools.get(&pool).is_some_and(|p| p.view.is_some());
        let reason = if pool_there { "PodLost" } else { "PoolDeleted" };
        return Some(Action::Retire {
            warm_pod,
            pod_uid: pod_uid(index, key),
            reason,
        });
    }
    if let Some(reason) = misplaced(index, entry, key) {
        return Some(Action::Retire {
            warm_pod,
            pod_uid: pod_uid(index, key),
            reason,
        });
    }
    let pool_key = Key {
        namespace: key.namespace.clone(),
        name: entry.view.pool.clone(),
    };
    let pool = index.pools.get(&pool_key)?;
    if index.pod_of(key).is_none() && entry.view.phase.is_none() {
        // Its creation was interrupted, by a crash of whoever made it.
        let since = entry.first_seen.saturating_add(POD_LAG).unwrap_or(now);
        if since > now {
            index.timer(since, Timer::WarmPod(key.clone()));
            return None;
        }
        if let Some(reason) = replaced_for(pool, &entry.view, now) {
            return Some(Action::Retire {
                warm_pod,
                pod_uid: pod_uid(index, key),
                reason,
            });
        }
        let (resolved, shape) = pool.resolved.as_ref().ok()?;
        return Some(Action::CreatePod {
            warm_pod,
            pool: pool_key.name,
            template: Box::new(resolved.template.clone()),
            preload: resolved.preload.clone(),
            shape: shape.clone(),
        });
    }
    // One that became too old is replaced like one of an old shape, by its pool.
    let (resolved, _) = pool.resolved.as_ref().ok()?;
    if let Some(due) = expires(resolved, &entry.view).filter(|due| *due > now) {
        index.timer(due, Timer::WarmPod(key.clone()));
    }
    is_overdue(index, key, &pool_key, now).then(|| Action::Retire {
        warm_pod,
        pod_uid: pod_uid(index, key),
        reason: preloading::TIMED_OUT,
    })
}

/// Why an idle warm pod can never be given away where it is, if so: its node is distrusted, or the agent of another node
/// called it its own.
fn misplaced(index: &Index, entry: &WarmPodEntry, key: &Key) -> Option<&'static str> {
    let pod = index.pod_of(key)?.node.as_ref()?;
    if entry.view.node.as_ref().is_some_and(|said| said != pod) {
        return Some("WrongNode");
    }
    let node = index.nodes.get(pod)?;
    node.is_distrusted().then_some(NODE_DISTRUSTED)
}

/// When a pod that may go to some nodes only, for their CPUs, and finds no room there, is made anew for those that have some
/// by then.
fn stuck_at(index: &Index, sandbox: &str, pod: &PodView) -> Option<Timestamp> {
    let unschedulable = pod
        .hold_up
        .as_ref()
        .is_some_and(|t| t.reason == POD_UNSCHEDULABLE);
    let pinned = index.pinned_cpus(sandbox).is_some_and(|cpus| cpus > 0);
    (unschedulable && pod.node.is_none() && pinned)
        .then(|| pod.identity.created.saturating_add(STUCK).ok())
        .flatten()
}

/// UID of a warm pod's pod, so that exactly that one is deleted.
pub(super) fn pod_uid(index: &Index, key: &Key) -> Option<String> {
    index.pod_of(key).map(|pod| pod.identity.uid.clone())
}

/// A pod whose owner is gone or wants it no more goes; the garbage collector would take its time.
pub(super) fn pod(index: &mut Index, key: &Key, now: Timestamp) -> Option<Action> {
    let pod = index.pods.get(key)?;
    if !pod.managed || pod.identity.deleting {
        return None;
    }
    let id = pod.identity.object_id();
    let owned_by = |kind, uid: &str| {
        let owner = Key {
            namespace: key.namespace.clone(),
            name: pod.owner_name.clone(),
        };
        Some((kind, owner.with_uid(uid)))
    };
    match &pod.owner {
        // What becomes of a runtime's pod is decided with the runtime.
        PodOwner::Nobody | PodOwner::Runtime(_) => None,
        PodOwner::WarmPod(uid) => (!index.warm_pods.contains_key(key)).then(|| Action::RemovePod {
            pod: id,
            unless_exists: owned_by(OwnerKind::WarmPod, uid),
        }),
        PodOwner::Sandbox(uid) => {
            let Some(sandbox) = index.sandboxes.get(uid) else {
                return Some(Action::RemovePod {
                    pod: id,
                    unless_exists: owned_by(OwnerKind::Sandbox, uid),
                });
            };
            let view = &sandbox.view;
            let over = view.is_final()
                || view.phase == Some(SandboxPhase::Terminating)
                || view.identity.deleting;
            let spare = index
                .cold_pod(uid)
                .is_none_or(|own| own.identity.key != *key);
            // Its agent cannot give it the CPUs it was made for: another node may.
            let refused = view.pod_name.is_none()
                && index.cold_refusal(key) == Some(AgentRefusal::CpusUnavailable.as_str());
            let stuck_at = stuck_at(index, uid, pod);
            if let Some(due) = stuck_at.filter(|due| *due > now && !over && !spare) {
                index.timer(due, Timer::Orphan(key.clone()));
                return None;
            }
            let refused = refused || stuck_at.is_some();
            if !over && !spare && !refused {
                return None;
            }
            if !over && view.pod_name.is_none() && (pod.ended.is_some() || refused) {
                let trouble = pod.ended.clone().or_else(|| pod.hold_up.clone());
                let uid = uid.clone();
                index.cold_start_failed(&uid, trouble, now);
            }
            Some(Action::RemovePod {
                pod: id,
                unless_exists: None,
            })
        }
    }
}
