//! How many pods a pool makes or removes now.
//!
//! Available and pending pods together are kept at `minSize`, or at the number of sandboxes that wait where
//! that is more, and all pods together at or below `maxSize`. Making pods yields to assignments.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::sweep::pod_uid;
use crate::action::{Action, CreateWarmPod};
use crate::index::{Class, Index, PoolEntry, Timer};
use crate::view::Key;

/// Quiet time after an assignment before pods are made: starting one costs the node and the API server more
/// than ten assignments do, and bursts come in quick succession.
const QUIET: SignedDuration = SignedDuration::from_millis(500);
/// Under constant assignments pods are made all the same once they are missing for this long.
const PATIENCE: SignedDuration = SignedDuration::from_secs(3);
/// Pods made in one go at most; the rest of the second's share follows.
const BATCH: usize = 10;

pub(super) fn size(index: &mut Index, key: &Key, now: Timestamp, actions: &mut Vec<Action>) {
    let Some(pool) = index.pools.get(key) else {
        return;
    };
    let Some(plan) = plan(pool, waiting(index, key, pool)) else {
        return;
    };
    retire(index, key, &plan, now, actions);
    if plan.create == 0 {
        if let Some(pool) = index.pools.get_mut(key) {
            pool.starving_since = None;
        }
        return;
    }
    let wait = gate(index, key, now);
    if let Some(wait) = wait {
        let at = now.saturating_add(wait).unwrap_or(now);
        index.timer(at, Timer::Pool(key.clone()));
        return;
    }
    create(index, key, plan.create, now, actions);
}

/// Sandboxes that wait for pods this pool has to make: of several pools of a shape, the first one does.
fn waiting(index: &Index, key: &Key, pool: &PoolEntry) -> usize {
    let Some(shape) = pool.shape() else {
        return 0;
    };
    let first = index
        .pools_of_shape
        .get(shape)
        .and_then(|keys| keys.first());
    if first != Some(key) {
        return 0;
    }
    index
        .waiting
        .get(shape)
        .map_or(0, std::collections::BTreeSet::len)
}

/// Numbers of pods to make and to remove.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Plan {
    pub create: usize,
    /// Idle pods of the right shape that are too many.
    pub surplus: usize,
    /// Idle pods of an old shape to replace now.
    pub stale: usize,
}

/// What a pool needs; nothing where its template cannot be had.
pub(super) fn plan(pool: &PoolEntry, waiting: usize) -> Option<Plan> {
    let spec = &pool.view.as_ref()?.spec;
    pool.resolved.as_ref().ok()?;
    let count = |n: i64| usize::try_from(n).unwrap_or(0);
    let min = count(spec.min_size);
    let max = spec
        .max_size
        .filter(|max| *max > 0)
        .map_or(usize::MAX, count);
    let (idle, stale, assigned) = (
        pool.idle(),
        pool.count(Class::Stale),
        pool.count(Class::Assigned),
    );
    let room = max.saturating_sub(idle + stale + assigned);
    let missing = min.max(waiting).saturating_sub(idle);
    let create = missing.min(room);
    // An old pod goes once a new one is there in its place; where maxSize leaves no room for the new one, a
    // quarter of the minimum goes first.
    let kept = min.saturating_sub(pool.count(Class::Available));
    let mut retire_stale = stale.saturating_sub(kept);
    if create < missing {
        retire_stale = retire_stale.max((missing - create).min((min / 4).max(1)).min(stale));
    }
    Some(Plan {
        create,
        surplus: idle.saturating_sub(min.max(waiting)),
        stale: retire_stale,
    })
}

fn retire(index: &mut Index, key: &Key, plan: &Plan, now: Timestamp, actions: &mut Vec<Action>) {
    let Some(pool) = index.pools.get(key) else {
        return;
    };
    let newest = |class: Class| {
        pool.members[class as usize]
            .iter()
            .rev()
            .map(|(_, k)| k.clone())
    };
    // Pods that are still being made go first, then the newest: the oldest are the warmest.
    let surplus: Vec<Key> = newest(Class::Pending)
        .chain(newest(Class::Available))
        .filter(|k| can_retire(index, k, now))
        .take(plan.surplus)
        .collect();
    let stale: Vec<Key> = pool.members[Class::Stale as usize]
        .iter()
        .map(|(_, k)| k.clone())
        .filter(|k| can_retire(index, k, now))
        .take(plan.stale)
        .collect();
    for (members, reason) in [(surplus, "ScaleDown"), (stale, "OldShape")] {
        for member in members {
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

fn create(index: &mut Index, key: &Key, missing: usize, now: Timestamp, actions: &mut Vec<Action>) {
    for made in 0..missing {
        if index.refill_tokens < 1.0 || made >= BATCH {
            index.timer(
                now.saturating_add(SignedDuration::from_millis(100))
                    .unwrap_or(now),
                Timer::Pool(key.clone()),
            );
            return;
        }
        let Some(pool) = index.pools.get(key) else {
            return;
        };
        let Ok((resolved, shape)) = pool.resolved.clone() else {
            return;
        };
        let name = next_name(index, &key.name);
        let create = CreateWarmPod {
            key: Key {
                namespace: key.namespace.clone(),
                name,
            },
            pool: key.name.clone(),
            template: resolved.template,
            shape,
        };
        index.refill_tokens -= 1.0;
        index.expect_warm_pod(&create, now);
        actions.push(Action::CreateWarmPod(Box::new(create)));
    }
}

/// `<pool>-<8 characters>`, different for every pod, replica and start. The pool's name is cut so that the
/// result is a valid host name too (63 characters).
fn next_name(index: &mut Index, pool: &str) -> String {
    index.names_given += 1;
    let digest = Sha256::digest(format!("{}/{}", index.settings.nonce, index.names_given));
    let stem: String = pool
        .chars()
        .map(|c| if c == '.' { '-' } else { c })
        .take(54)
        .collect();
    format!(
        "{}-{}",
        stem.trim_end_matches('-'),
        hex::encode(&digest[..4])
    )
}
