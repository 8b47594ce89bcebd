//! What a pool's status must say: at most one write a second, and none where nothing changed.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pilotlight_common::kinds::{Condition, ConditionStatus, WarmPoolStatus, merge_conditions};
use pilotlight_common::names::conditions::{READY, SCALING_DOWN, SCALING_UP};

use super::size::plan;
use crate::action::{Action, EventNote};
use crate::index::{Class, Index, PoolEntry, Timer};
use crate::view::Key;

pub(super) fn pool_status(index: &mut Index, key: &Key, now: Timestamp) -> Option<Action> {
    let pool = index.pools.get_mut(key)?;
    let view = pool.view.as_ref()?;
    if pool.busy {
        return None;
    }
    if pool.not_before > now {
        let at = pool.not_before;
        index.timer(at, Timer::Pool(key.clone()));
        return None;
    }
    let count = |class| i64::try_from(pool.count(class)).ok();
    let current = view.status.conditions.clone().unwrap_or_default();
    let merged = merge_conditions(&current, conditions(pool, view.spec.min_size, now));
    let scaled =
        count(Class::Pending) != view.status.pending_pods && count(Class::Pending) > Some(0);
    let status = WarmPoolStatus {
        available_pods: count(Class::Available),
        assigned_pods: count(Class::Assigned),
        pending_pods: count(Class::Pending),
        last_scale_time: if scaled {
            Some(Time(now))
        } else {
            view.status.last_scale_time.clone()
        },
        conditions: Some(merged.clone().unwrap_or(current)),
    };
    let counts = |s: &WarmPoolStatus| (s.available_pods, s.assigned_pods, s.pending_pods);
    if merged.is_none() && counts(&status) == counts(&view.status) {
        return None;
    }
    let event = refusal_event(pool, merged.as_deref());
    let pool_id = view.identity.object_id();
    pool.busy = true;
    Some(Action::PoolStatus {
        pool: pool_id,
        status: Box::new(status),
        event,
    })
}

fn conditions(pool: &PoolEntry, min_size: i64, now: Timestamp) -> Vec<Condition> {
    let truth = |holds: bool| {
        if holds {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        }
    };
    let available = pool.count(Class::Available);
    let ready = match &pool.resolved {
        Err(refusal) => Condition::new(
            READY,
            ConditionStatus::False,
            refusal.reason.as_str(),
            &refusal.message,
            now,
        ),
        Ok(_) if i64::try_from(available).is_ok_and(|n| n >= min_size) => Condition::new(
            READY,
            ConditionStatus::True,
            "PoolReady",
            "the pool holds its minimum",
            now,
        ),
        Ok(_) => Condition::new(
            READY,
            ConditionStatus::False,
            "Filling",
            "fewer pods than minSize are available",
            now,
        ),
    };
    let plan = plan(pool, 0).unwrap_or_default();
    let growing = plan.create > 0 || pool.count(Class::Pending) > 0;
    let shrinking = plan.surplus > 0 || plan.stale > 0 || pool.count(Class::Leaving) > 0;
    vec![
        ready,
        Condition::new(
            SCALING_UP,
            truth(growing),
            if growing { "PodsPending" } else { "Steady" },
            if growing { "pods are being made" } else { "" },
            now,
        ),
        Condition::new(
            SCALING_DOWN,
            truth(shrinking),
            if shrinking { "PodsLeaving" } else { "Steady" },
            if shrinking {
                "pods are being removed"
            } else {
                ""
            },
            now,
        ),
    ]
}

/// A Warning where the pool has come to be refused.
fn refusal_event(pool: &PoolEntry, changed: Option<&[Condition]>) -> Option<EventNote> {
    let refusal = pool.resolved.as_ref().err()?;
    changed?;
    Some(EventNote {
        kind: "WarmPool",
        warning: true,
        reason: refusal.reason.as_str().to_owned(),
        message: refusal.message.clone(),
    })
}
