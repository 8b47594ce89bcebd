//! What a pool's status must say: at most one write a second, and none where nothing changed.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pilotlight_common::kinds::{Condition, ConditionStatus, WarmPoolStatus, merge_conditions};
use pilotlight_common::names::POOL_LABEL;
use pilotlight_common::names::conditions::{READY, SCALING_DOWN, SCALING_UP};

use super::size::{Plan, plan};
use crate::action::{Action, EventNote};
use crate::index::{Class, Index, PoolEntry, Timer};
use crate::pod::MAX_LABEL;
use crate::view::{Claim, Key, Trouble};

/// Reason of a pool that holds its minimum.
const POOL_READY: &str = "PoolReady";
/// Reason of a pool whose pods are on their way, with nothing that keeps them.
const FILLING: &str = "Filling";
/// Reason of a pool that has no room for its minimum, since sandboxes have its pods.
const AT_MAX_SIZE: &str = "AtMaxSize";
/// Reason of a pool whose packages or scripts end in an error.
const PRELOAD_FAILED: &str = "PreloadFailed";
/// Reason of ScalingUp and ScalingDown where nothing is under way.
const STEADY: &str = "Steady";

pub(super) fn pool_status(index: &mut Index, key: &Key, now: Timestamp) -> Option<Action> {
    let pool = index.pools.get(key)?;
    let view = pool.view.as_ref()?;
    if pool.busy {
        return None;
    }
    if pool.not_before > now {
        let at = pool.not_before;
        index.timer(at, Timer::Pool(key.clone()));
        return None;
    }
    let count = |class| pool.count(class);
    let number = |n: usize| i64::try_from(n).ok();
    let outdated = pool.members[Class::Outdated as usize].iter();
    let assignable = count(Class::Available)
        + outdated
            .filter(|(_, k)| index.warm_pods.get(k).is_some_and(|e| e.place.is_some()))
            .count();
    let current = view.status.conditions.clone().unwrap_or_default();
    let wanted = vec![
        ready(index, pool, assignable, now),
        scaling_up(pool, now),
        scaling_down(index, pool, now),
    ];
    let event = event(pool, &current, wanted.first());
    let merged = merge_conditions(&current, wanted);
    let status = WarmPoolStatus {
        available_pods: number(assignable),
        assigned_pods: number(count(Class::Assigned)),
        pending_pods: number(count(Class::Pending)),
        last_scale_time: pool
            .scaled_at
            .map(Time)
            .max(view.status.last_scale_time.clone()),
        selector: (key.name.len() <= MAX_LABEL).then(|| format!("{POOL_LABEL}={}", key.name)),
        conditions: Some(merged.clone().unwrap_or(current)),
    };
    let said = |s: &WarmPoolStatus| {
        let counts = (s.available_pods, s.assigned_pods, s.pending_pods);
        (counts, s.last_scale_time.clone(), s.selector.clone())
    };
    if merged.is_none() && said(&status) == said(&view.status) {
        return None;
    }
    let pool_id = view.identity.object_id();
    if let Some(pool) = index.pools.get_mut(key) {
        pool.busy = true;
    }
    Some(Action::PoolStatus {
        pool: pool_id,
        status: Box::new(status),
        event,
    })
}

fn ready(index: &Index, pool: &PoolEntry, assignable: usize, now: Timestamp) -> Condition {
    let not = |reason: &str, message: &str| {
        Condition::new(READY, ConditionStatus::False, reason, message, now)
    };
    let resolved = match &pool.resolved {
        Err(refusal) => return not(refusal.reason.as_str(), &refusal.message),
        Ok((resolved, _)) => resolved,
    };
    if assignable >= resolved.min_size {
        return Condition::new(
            READY,
            ConditionStatus::True,
            POOL_READY,
            "the pool holds its minimum",
            now,
        );
    }
    if let Some(trouble) = pool.preloading.trouble() {
        return not(&trouble.reason, &trouble.message);
    }
    if let Some(trouble) = trouble(index, pool) {
        return not(&trouble.reason, &trouble.message);
    }
    if pool.wanted < resolved.min_size || plan(pool).is_some_and(|p| p.no_room > 0) {
        return not(
            AT_MAX_SIZE,
            "maxSize leaves no room for minSize while sandboxes have the other pods; raise maxSize",
        );
    }
    not(FILLING, "fewer pods than minSize are available")
}

/// What keeps the oldest of the pods that do not come up.
fn trouble(index: &Index, pool: &PoolEntry) -> Option<Trouble> {
    pool.members[Class::Pending as usize]
        .iter()
        .find_map(|(_, key)| {
            let pod = index.pod_of(key)?;
            let (name, namespace) = (&key.name, &key.namespace);
            if let Some(init) = &pod.init
                && let Some(code) = init.failed
            {
                let container = &init.container;
                return Some(Trouble::new(
                    PRELOAD_FAILED,
                    &format!(
                        "container {container} of pod {name} failed with exit code {code}; see `kubectl logs {name} -n {namespace} -c {container}` and correct the pool's preloads"
                    ),
                ));
            }
            let trouble = pod.hold_up.as_ref()?;
            let advice = match trouble.reason.as_str() {
                "PodUnschedulable" => "add nodes, or lower the pool's resources or minSize".to_owned(),
                "ImagePullFailed" => "correct the RuntimeEnvironment's image, or let the nodes pull it".to_owned(),
                "ContainerCrashing" => format!(
                    "see `kubectl logs {name} -n {namespace}`; the runtime's command must stay up"
                ),
                _ => format!("see `kubectl describe pod {name} -n {namespace}`"),
            };
            Some(Trouble::new(
                &trouble.reason,
                &format!("pod {name}: {}; {advice}", trouble.message),
            ))
        })
}

fn scaling_up(pool: &PoolEntry, now: Timestamp) -> Condition {
    let Plan { create, .. } = plan(pool).unwrap_or_default();
    let growing = create > 0 || pool.count(Class::Pending) > 0;
    movement(
        SCALING_UP,
        growing.then_some(("PodsPending", "pods are being made")),
        now,
    )
}

fn scaling_down(index: &Index, pool: &PoolEntry, now: Timestamp) -> Condition {
    let Plan {
        surplus,
        outdated,
        stale,
        ..
    } = plan(pool).unwrap_or_default();
    // The pod of a sandbox that ended goes as well, but with that the pool does not move.
    let leaving = || {
        pool.members[Class::Leaving as usize].iter().any(|(_, k)| {
            index
                .warm_pods
                .get(k)
                .is_some_and(|e| !matches!(e.view.claim, Claim::Sandbox(_)))
        })
    };
    let shrinking = surplus + outdated + stale > 0 || leaving();
    movement(
        SCALING_DOWN,
        shrinking.then_some(("PodsLeaving", "pods are being removed")),
        now,
    )
}

fn movement(type_: &str, under_way: Option<(&str, &str)>, now: Timestamp) -> Condition {
    let status = if under_way.is_some() {
        ConditionStatus::True
    } else {
        ConditionStatus::False
    };
    let (reason, message) = under_way.unwrap_or((STEADY, ""));
    Condition::new(type_, status, reason, message, now)
}

/// A Warning where the pool has come to be refused, or its pods have come to be kept from running.
fn event(pool: &PoolEntry, current: &[Condition], ready: Option<&Condition>) -> Option<EventNote> {
    let ready = ready?;
    let reason = ready.reason.clone()?;
    let before = current.iter().find(|c| c.type_ == READY);
    // The message of a trouble names a pod, and changes with every next one.
    let news = if pool.resolved.is_err() {
        before.is_none_or(|before| !before.says_the_same(ready))
    } else {
        before.and_then(|c| c.reason.as_deref()) != Some(reason.as_str())
    };
    if !news || [POOL_READY, FILLING, AT_MAX_SIZE].contains(&reason.as_str()) {
        return None;
    }
    Some(EventNote {
        kind: "WarmPool",
        warning: true,
        reason,
        message: ready.message.clone().unwrap_or_default(),
    })
}
