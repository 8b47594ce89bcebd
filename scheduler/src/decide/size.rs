//! How many pods a pool makes or removes now.
//!
//! Available and pending pods together are kept at what the pool wants: its `minSize`, or what its use asks for where
//! it follows that. All its pods together stay at or below `maxSize`. Pods of an old shape, of old preloads or past
//! their time are replaced by degrees. Making pods yields to assignments.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::autoscale::{Needs, need};
use super::sweep::pod_uid;
use crate::action::{Action, CreateWarmPod};
use crate::index::{Class, Index, PoolEntry, Timer, replaced_for};
use crate::view::Key;

/// Quiet time after an assignment before pods are made: starting one costs the node and the API server more
/// than ten assignments do, and bursts come in quick succession.
const QUIET: SignedDuration = SignedDuration::from_millis(500);
/// Under constant assignments pods are made all the same once they are missing for this long.
const PATIENCE: SignedDuration = SignedDuration::from_secs(3);
/// Pods made in one go at most; the rest of the second's share follows.
const BATCH: usize = 10;

pub(super) fn size(index: &mut Index, key: &Key, now: Timestamp, actions: &mut Vec<Action>) {
    let Some(pool) = index.pools.get_mut(key) else {
        return;
    };
    let due = want(pool, now);
    let plan = plan(pool);
    if let Some(at) = due {
        index.timer(at, Timer::Pool(key.clone()));
    }
    let Some(plan) = plan else {
        return;
    };
    retire(index, key, &plan, now, actions);
    let Some(pool) = index.pools.get_mut(key) else {
        return;
    };
    if plan.create == 0 {
        pool.starving_since = None;
        return;
    }
    let pause = pool
        .preloading
        .pause(now)
        .map(|until| until.duration_since(now));
    if let Some(wait) = pause.or_else(|| gate(index, key, now)) {
        let at = now.saturating_add(wait).unwrap_or(now);
        index.timer(at, Timer::Pool(key.clone()));
        return;
    }
    create(index, key, plan.create, now, actions);
}

/// Settles how many idle pods the pool wants; returns when that can change by the mere passing of time.
fn want(pool: &mut PoolEntry, now: Timestamp) -> Option<Timestamp> {
    let Ok((resolved, _)) = &pool.resolved else {
        return None;
    };
    let assigned = pool.count(Class::Assigned);
    let need = need(resolved, assigned);
    let mut due = None;
    let wanted = if let Some(scaling) = resolved.scaling {
        let delay = SignedDuration::from_secs(scaling.scale_down_delay);
        let idle = pool.idle();
        let needs = pool
            .needs
            .get_or_insert_with(|| Needs::beginning_with(idle, now));
        let highest = needs.highest(need, delay, now);
        due = needs.next_change(delay);
        highest
    } else {
        pool.needs = None;
        need
    };
    pool.wanted = resolved
        .max_size
        .map_or(wanted, |max| wanted.min(max.saturating_sub(assigned)));
    due
}

/// Numbers of pods to make and to remove.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Plan {
    pub create: usize,
    /// Idle pods of the right kind that are too many.
    pub surplus: usize,
    /// Outdated pods to remove now.
    pub outdated: usize,
    /// Pods in the making that will not be what is wanted: nobody can use them.
    pub stale: usize,
    /// Pods that `maxSize` has no room for.
    pub no_room: usize,
}

/// What a pool needs; nothing where its template cannot be had.
pub(super) fn plan(pool: &PoolEntry) -> Option<Plan> {
    let (resolved, _) = pool.resolved.as_ref().ok()?;
    let wanted = pool.wanted;
    let (idle, available, outdated, stale) = (
        pool.idle(),
        pool.count(Class::Available),
        pool.count(Class::Outdated),
        pool.count(Class::Stale),
    );
    let batch = (resolved.min_size / 4).max(1);
    let there = idle + outdated + stale + pool.count(Class::Assigned);
    let room = resolved
        .max_size
        .map_or(usize::MAX, |max| max.saturating_sub(there));
    // While old pods are there, new ones come a batch at a time.
    let step = if outdated == 0 {
        usize::MAX
    } else {
        (wanted + batch).saturating_sub(idle + outdated)
    };
    let missing = wanted.saturating_sub(idle);
    // Pods on their way out have no successor before they are gone, but room will be there.
    let create = missing
        .min(step)
        .min(room.saturating_sub(pool.count(Class::Leaving)));
    // An old pod goes once a new one is there in its place; where maxSize leaves no room for the new one, a batch of
    // old ones goes first, and no more than that.
    let assignable = available + outdated;
    let mut retire = assignable.saturating_sub(wanted);
    let no_room = missing.min(step).saturating_sub(room);
    if no_room > 0 {
        let spare = assignable.saturating_sub(wanted.saturating_sub(batch));
        retire = retire.max(no_room.min(batch).min(spare));
    }
    Some(Plan {
        create,
        surplus: idle.saturating_sub(wanted),
        outdated: retire.min(outdated),
        stale,
        no_room,
    })
}

fn retire(index: &mut Index, key: &Key, plan: &Plan, now: Timestamp, actions: &mut Vec<Action>) {
    let Some(pool) = index.pools.get(key) else {
        return;
    };
    let oldest = |class: Class| pool.members[class as usize].iter().map(|(_, k)| k.clone());
    // Pods that are still being made go first, then the newest: the oldest are the warmest.
    let surplus: Vec<Key> = oldest(Class::Pending)
        .rev()
        .chain(oldest(Class::Available).rev())
        .filter(|k| can_retire(index, k, now))
        .take(plan.surplus)
        .collect();
    let stale = oldest(Class::Stale)
        .filter(|k| can_retire(index, k, now))
        .take(plan.stale);
    // Those that cannot be assigned just now are missed by nobody.
    let (usable, unusable): (Vec<Key>, Vec<Key>) = if plan.outdated == 0 {
        (vec![], vec![])
    } else {
        oldest(Class::Outdated)
            .filter(|k| can_retire(index, k, now))
            .partition(|k| index.warm_pods.get(k).is_some_and(|e| e.place.is_some()))
    };
    let mut leaving: Vec<(Key, &'static str)> =
        surplus.into_iter().map(|k| (k, "ScaleDown")).collect();
    let scaled = !leaving.is_empty();
    let replaced = unusable.into_iter().chain(usable).take(plan.outdated);
    leaving.extend(stale.chain(replaced).map(|k| {
        let entry = index.warm_pods.get(&k);
        let reason = entry.and_then(|e| replaced_for(pool, &e.view, now));
        (k, reason.unwrap_or("OldShape"))
    }));
    if scaled {
        scaled_now(index, key, now);
    }
    for (member, reason) in leaving {
        let pod_uid = pod_uid(index, &member);
        let Some(entry) = index.warm_pods.get_mut(&member) else {
            continue;
        };
        entry.busy = true;
        entry.leaving = true;
        let warm_pod = entry.view.identity.object_id();
        actions.push(Action::Retire {
            warm_pod,
            pod_uid,
            reason,
        });
        index.touch_warm_pod(&member, now);
        index.dirty.warm_pods.remove(&member);
    }
}

/// Notes that the number of pods is changed on purpose, in the whole seconds that a status can hold.
fn scaled_now(index: &mut Index, key: &Key, now: Timestamp) {
    if let Some(pool) = index.pools.get_mut(key) {
        pool.scaled_at = Timestamp::from_second(now.as_second()).ok();
    }
}

fn can_retire(index: &Index, key: &Key, now: Timestamp) -> bool {
    index
        .warm_pods
        .get(key)
        .is_some_and(|e| !e.placeholder && !e.busy && e.in_flight.is_none() && e.not_before <= now)
}

/// How long the making of pods has to wait for assignments and its rate, if at all.
fn gate(index: &mut Index, key: &Key, now: Timestamp) -> Option<SignedDuration> {
    let rate = f64::from(index.settings.refill_per_second.max(1));
    let passed = index
        .refill_at
        .map_or(1.0, |at| now.duration_since(at).as_secs_f64().max(0.0));
    index.refill_at = Some(now);
    index.refill_tokens = (index.refill_tokens + passed * rate).min(rate);
    let starving_since = *index.pools.get_mut(key)?.starving_since.get_or_insert(now);
    let patient = now.duration_since(starving_since) < PATIENCE;
    let quiet_at = index
        .last_assign
        .and_then(|at| at.saturating_add(QUIET).ok());
    if patient {
        if index.assigns_in_flight > 0 {
            return Some(QUIET);
        }
        if let Some(at) = quiet_at.filter(|at| *at > now) {
            return Some(at.duration_since(now));
        }
    }
    (index.refill_tokens < 1.0).then(|| {
        SignedDuration::from_secs_f64((1.0 - index.refill_tokens) / rate)
            .saturating_add(SignedDuration::from_millis(1))
    })
}

/// Pools in the order in which they are to be looked at: whichever got a pod last comes last, so that one which asks for
/// thousands takes its turn like all others.
pub(super) fn in_turn(index: &Index, pools: BTreeSet<Key>) -> Vec<Key> {
    let mut pools: Vec<Key> = pools.into_iter().collect();
    pools.sort_by_key(|key| index.pools.get(key).map(|pool| pool.refilled_at));
    pools
}

fn create(index: &mut Index, key: &Key, missing: usize, now: Timestamp, actions: &mut Vec<Action>) {
    let hungry = index
        .pools
        .values()
        .filter(|pool| pool.starving_since.is_some())
        .count();
    let batch = (BATCH / hungry.max(1)).max(1);
    for made in 0..missing {
        if index.refill_tokens < 1.0 || made >= batch {
            index.timer(
                now.saturating_add(SignedDuration::from_millis(100))
                    .unwrap_or(now),
                Timer::Pool(key.clone()),
            );
            return;
        }
        let Some(pool) = index.pools.get_mut(key) else {
            return;
        };
        let Ok((resolved, shape)) = pool.resolved.clone() else {
            return;
        };
        pool.refilled_at = now;
        let replaces = pool.count(Class::Outdated) > 0;
        let name = index.new_name(&key.name);
        let create = CreateWarmPod {
            key: Key {
                namespace: key.namespace.clone(),
                name,
            },
            pool: key.name.clone(),
            template: resolved.template,
            preload: resolved.preload,
            shape,
        };
        // What takes an outdated pod's place leaves the size as it is.
        if !replaces {
            scaled_now(index, key, now);
        }
        index.refill_tokens -= 1.0;
        index.expect_warm_pod(&create, now);
        actions.push(Action::CreateWarmPod(Box::new(create)));
    }
}
