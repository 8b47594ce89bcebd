//! How objects and agents change the index. Called by [`Index::handle`] only.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::kinds::SandboxPhase;

use super::health::Health;
use super::network_policies::PolicyState;
use super::{ColdStart, Index, Kind, Observation, SandboxEntry, Standing, Timer, WarmPodEntry};
use crate::action::{CreateWarmPod, EventNote};
use crate::input::Change;
use crate::view::{Claim, Identity, Key, PodView, SandboxView, View, WarmPodView};

/// How long a WarmPod may be known without its pod before the pod counts as missing: the two come by
/// different watches.
pub(crate) const POD_LAG: SignedDuration = SignedDuration::from_secs(5);
/// How long a sandbox waits in silence before its conditions say so (the design's one second).
pub(crate) const WAITING_AFTER: SignedDuration = SignedDuration::from_secs(1);

/// Splits a change into what is there now and what is gone, given what was known before.
pub(super) fn split<V: View>(
    change: Change<V>,
    known: impl FnOnce() -> Vec<(Key, String)>,
) -> (Vec<V>, Vec<(Key, String)>, bool) {
    match change {
        Change::Upsert(view) => (vec![view], vec![], false),
        Change::Remove(key, uid) => (vec![], vec![(key, uid)], false),
        Change::Replace(views) => {
            let listed: HashSet<(&Key, &str)> = views.iter().map(|v| (v.key(), v.uid())).collect();
            let gone = known()
                .into_iter()
                .filter(|(k, u)| !listed.contains(&(k, u.as_str())))
                .collect();
            (views, gone, true)
        }
    }
}

impl Index {
    pub(super) fn observe_sandboxes(&mut self, change: Change<SandboxView>, now: Timestamp) {
        let (here, gone, listed) = split(change, || {
            self.sandboxes
                .values()
                .map(|e| (e.view.identity.key.clone(), e.view.identity.uid.clone()))
                .collect()
        });
        for (_, uid) in gone {
            self.forget_sandbox(&uid, now);
        }
        for view in here {
            let uid = view.identity.uid.clone();
            let known = self.sandboxes.get(&uid);
            let news = known.is_none_or(|entry| entry.view.pod_name.is_none());
            self.upsert_sandbox(view, now);
            if listed && news {
                self.not_watched(&uid);
            }
        }
        if listed {
            self.mark_synced(Kind::Sandbox);
        }
    }

    fn upsert_sandbox(&mut self, view: SandboxView, now: Timestamp) {
        let uid = view.identity.uid.clone();
        // A successor of the same name: the deletion of the first was not seen.
        if let Some(old) = self
            .sandbox_uids
            .get(&view.identity.key)
            .filter(|old| **old != uid)
            .cloned()
        {
            self.forget_sandbox(&old, now);
        }
        // What it means follows from its spec; changes of runtimes and profiles resolve it again themselves.
        let resolved = self
            .sandboxes
            .get(&uid)
            .is_none_or(|entry| entry.view.spec != view.spec)
            .then(|| (self.resolve_sandbox(&view), self.resolve_network(&view)));
        let new_key = view.identity.key.clone();
        if let Some(entry) = self.sandboxes.get_mut(&uid) {
            if view.identity.revision < entry.view.identity.revision {
                return;
            }
            let published = entry.view.phase != Some(SandboxPhase::Running)
                && view.phase == Some(SandboxPhase::Running);
            entry.view = view;
            if let Some((resolved, network)) = resolved {
                entry.resolved = resolved;
                if let Ok(network) = network {
                    entry.network = network;
                }
            }
            if published {
                self.note_published(&uid, now);
            }
        } else if let Some((resolved, network)) = resolved {
            self.timer(
                now.saturating_add(WAITING_AFTER).unwrap_or(now),
                Timer::Sandbox(uid.clone()),
            );
            let standing = Standing::new(view.pod_name.is_some());
            self.sandboxes.insert(
                uid.clone(),
                SandboxEntry {
                    view,
                    standing,
                    resolved,
                    network: network.unwrap_or_default(),
                    network_told: None,
                    network_policy: PolicyState::default(),
                    first_seen: now,
                    in_flight: None,
                    busy: false,
                    not_before: Timestamp::MIN,
                    failures: 0,
                    waiting_as: None,
                    counted: false,
                    cold: ColdStart::default(),
                    uses_runtime: None,
                    health: Health::default(),
                },
            );
            self.note_all_given(&uid);
        }
        if let Some(pod) = self.pod_of_sandbox(&uid) {
            // Whoever was given the pod keeps it, whatever others are said to run on it.
            let holder = self.published.get(&pod);
            if holder.is_none_or(|holder| *holder == uid) || self.is_given(&uid, &pod) {
                self.published.insert(pod, uid.clone());
            }
        }
        self.note_health(&uid, now);
        self.sandbox_uids.insert(new_key, uid.clone());
        self.touch_sandbox(&uid);
    }

    fn note_published(&mut self, uid: &str, now: Timestamp) {
        let Some(entry) = self.sandboxes.get(uid) else {
            return;
        };
        let started = entry.view.started.unwrap_or(now);
        // The creation time has whole seconds only; what this replica saw itself is finer.
        let seconds = started
            .duration_since(entry.first_seen)
            .as_secs_f64()
            .max(0.0);
        let about = entry.view.identity.object_id();
        let pod = entry.view.pod_name.clone().unwrap_or_default();
        let cold = self.cold_pod(uid).map(|pod| pod.identity.created);
        self.observations.push(Observation::Published {
            seconds,
            cold: cold.is_some(),
        });
        let how = if let Some(created) = cold {
            self.pace.observe(started.duration_since(created));
            "published on a pod of its own,"
        } else {
            "published on warm pod"
        };
        self.records.push((
            about,
            EventNote {
                kind: "Sandbox",
                warning: false,
                reason: "Running".into(),
                message: format!("{how} {pod}"),
            },
        ));
    }

    fn forget_sandbox(&mut self, uid: &str, now: Timestamp) {
        let Some(entry) = self.sandboxes.get_mut(uid) else {
            return;
        };
        // Out of the waiting queue first, while the entry can still be found.
        entry.view.identity.deleting = true;
        self.touch_sandbox(uid);
        if let Some(pod) = self.pod_of_sandbox(uid)
            && self.published.get(&pod).is_some_and(|holder| holder == uid)
        {
            self.published.remove(&pod);
        }
        let Some(entry) = self.sandboxes.remove(uid) else {
            return;
        };
        self.unready.remove(uid);
        self.note_cold_promise(uid);
        if self
            .sandbox_uids
            .get(&entry.view.identity.key)
            .is_some_and(|u| u == uid)
        {
            self.sandbox_uids.remove(&entry.view.identity.key);
        }
        let claimed: Vec<Key> = self
            .claims
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .chain(entry.in_flight)
            .collect();
        if !claimed.is_empty() {
            self.gone_sandboxes.insert(uid.to_owned());
        }
        for key in claimed {
            self.touch_warm_pod(&key, now);
        }
    }

    pub(super) fn observe_warm_pods(&mut self, change: Change<WarmPodView>, now: Timestamp) {
        let (here, gone, listed) = split(change, || {
            self.warm_pods
                .values()
                .filter(|e| !e.placeholder)
                .map(|e| (e.view.identity.key.clone(), e.view.identity.uid.clone()))
                .collect()
        });
        for (key, uid) in gone {
            if self
                .warm_pods
                .get(&key)
                .is_some_and(|e| e.placeholder || e.view.identity.uid == uid)
            {
                self.forget_warm_pod(&key);
            }
        }
        for view in here {
            self.upsert_warm_pod(view, now);
        }
        if listed {
            self.mark_synced(Kind::WarmPod);
        }
    }

    pub(super) fn upsert_warm_pod(&mut self, view: WarmPodView, now: Timestamp) {
        let key = view.identity.key.clone();
        if let Some(entry) = self.warm_pods.get(&key)
            && !entry.placeholder
        {
            if entry.view.identity.uid != view.identity.uid {
                self.forget_warm_pod(&key);
            } else if view.identity.revision < entry.view.identity.revision {
                return;
            }
        }
        self.note_start(&view);
        let old = self
            .warm_pods
            .get(&key)
            .map(|e| (e.view.claim.clone(), e.view.node.clone()));
        let (old_claim, old_node) = old.unwrap_or_default();
        let new_claim = view.claim.clone();
        let new_node = view.node.clone();
        if let Some(entry) = self.warm_pods.get_mut(&key) {
            // Its place in the pool is by the creation time, which only the API server knows.
            let pool = Key {
                namespace: key.namespace.clone(),
                name: entry.view.pool.clone(),
            };
            let (class, created) = (entry.class, entry.view.identity.created);
            entry.view = view;
            entry.placeholder = false;
            self.leave_class(&pool, &key, class, created);
        } else {
            self.warm_pods
                .insert(key.clone(), WarmPodEntry::new(view, false, now));
            self.timer(
                now.saturating_add(POD_LAG).unwrap_or(now),
                Timer::WarmPod(key.clone()),
            );
        }
        if old_node != new_node {
            if let Some(node) = &old_node {
                self.forget_promise(&key, node);
            }
            if let Some(node) = old_node.and_then(|n| self.nodes.get_mut(&n)) {
                node.warm_pods.remove(&key);
            }
            if let Some(node) = new_node {
                self.nodes
                    .entry(node)
                    .or_default()
                    .warm_pods
                    .insert(key.clone());
            }
        }
        if old_claim != new_claim {
            if let Claim::Sandbox(uid) = old_claim {
                self.unclaim(&uid, &key);
            }
            if let Claim::Sandbox(uid) = new_claim {
                self.claims
                    .entry(uid.clone())
                    .or_default()
                    .insert(key.clone());
                if let Some(entry) = self.warm_pods.get_mut(&key) {
                    entry.claim_seen = Some(now);
                }
                self.timer(
                    now.saturating_add(self.settings.agent_deadline)
                        .unwrap_or(now),
                    Timer::WarmPod(key.clone()),
                );
                self.note_given(&uid, &key);
                self.touch_sandbox(&uid);
            }
        }
        let pod_there = self.pod_of(&key).is_some();
        if let Some(entry) = self.warm_pods.get_mut(&key) {
            entry.had_pod |= pod_there;
        }
        self.touch_warm_pod(&key, now);
    }

    /// Takes in how long a pod took, when it is first seen ready.
    fn note_start(&mut self, view: &WarmPodView) {
        let known = self
            .warm_pods
            .get(&view.identity.key)
            .is_some_and(|e| !e.placeholder && e.view.ready_at.is_none());
        let pool = Key {
            namespace: view.identity.key.namespace.clone(),
            name: view.pool.clone(),
        };
        if let Some(ready_at) = view.ready_at.filter(|_| known)
            && let Some(pool) = self.pools.get_mut(&pool)
        {
            pool.pace
                .observe(ready_at.duration_since(view.identity.created));
        }
    }

    /// Counts a WarmPod that is about to be created, so that the next decision does not ask for it again.
    pub(crate) fn expect_warm_pod(&mut self, create: &CreateWarmPod, now: Timestamp) {
        let view = WarmPodView {
            identity: Identity {
                key: create.key.clone(),
                created: now,
                ..Identity::default()
            },
            pool: create.pool.clone(),
            shape: create.shape.clone(),
            preload: create.preload.as_ref().map(|p| p.hash().to_owned()),
            ..WarmPodView::default()
        };
        self.warm_pods
            .insert(create.key.clone(), WarmPodEntry::new(view, true, now));
        self.touch_warm_pod(&create.key, now);
    }

    pub(super) fn unclaim(&mut self, uid: &str, key: &Key) {
        if let Some(keys) = self.claims.get_mut(uid) {
            keys.remove(key);
            if keys.is_empty() {
                self.claims.remove(uid);
                self.gone_sandboxes.remove(uid);
            }
        }
    }

    pub(super) fn forget_warm_pod(&mut self, key: &Key) {
        self.retract(key);
        let Some(entry) = self.warm_pods.remove(key) else {
            return;
        };
        if let Some(place) = &entry.place {
            self.ready.remove(place, key);
        }
        let pool = Key {
            namespace: key.namespace.clone(),
            name: entry.view.pool.clone(),
        };
        self.leave_class(&pool, key, entry.class, entry.view.identity.created);
        if let Some(node) = &entry.view.node {
            self.forget_promise(key, node);
        }
        if let Some(node) = entry.view.node.as_ref().and_then(|n| self.nodes.get_mut(n)) {
            node.warm_pods.remove(key);
        }
        if let Claim::Sandbox(uid) = &entry.view.claim {
            self.unclaim(uid, key);
            self.touch_sandbox(uid);
        }
        if entry.in_flight.is_some() {
            // Its answer is still to come; the sandbox is freed then.
            self.dirty.pools.insert(pool);
            return;
        }
        self.dirty.pods.insert(key.clone());
        self.dirty.pools.insert(pool);
    }

    pub(super) fn observe_pods(&mut self, change: Change<PodView>, now: Timestamp) {
        let (here, gone, listed) = split(change, || {
            self.pods
                .values()
                .map(|p| (p.identity.key.clone(), p.identity.uid.clone()))
                .collect()
        });
        for (key, uid) in gone {
            if self.pods.get(&key).is_some_and(|p| p.identity.uid == uid)
                && let Some(pod) = self.pods.remove(&key)
            {
                self.file_cold_pod(&pod, false);
                self.note_evidence(&key, Some(&pod), now);
                self.pod_changed(&key, now);
            }
        }
        for view in here {
            self.upsert_pod(view, now);
        }
        if listed {
            self.mark_synced(Kind::Pod);
        }
    }

    pub(super) fn upsert_pod(&mut self, mut view: PodView, now: Timestamp) {
        let key = view.identity.key.clone();
        if let Some(old) = self.pods.get(&key)
            && old.identity.uid == view.identity.uid
        {
            view.remember(old);
        }
        if self.pods.get(&key).is_some_and(|old| {
            old.identity.uid == view.identity.uid && view.identity.revision < old.identity.revision
        }) {
            return;
        }
        let old = self.pods.insert(key.clone(), view.clone());
        self.note_evidence(&key, old.as_ref(), now);
        if let Some(old) = old
            && old.identity.uid != view.identity.uid
        {
            self.file_cold_pod(&old, false);
        }
        self.file_cold_pod(&view, true);
        let ours = self.pod_of(&key).is_some();
        if let Some(entry) = self.warm_pods.get_mut(&key) {
            entry.had_pod |= ours;
        }
        self.pod_changed(&key, now);
    }

    /// The pod that a sandbox is published on.
    pub(super) fn pod_of_sandbox(&self, uid: &str) -> Option<Key> {
        let view = &self.sandboxes.get(uid)?.view;
        Some(Key {
            namespace: view.identity.key.namespace.clone(),
            name: view.pod_name.clone()?,
        })
    }

    fn pod_changed(&mut self, key: &Key, now: Timestamp) {
        self.dirty.pods.insert(key.clone());
        self.touch_warm_pod(key, now);
        // The WarmPod may be gone before its pod is.
        if let Some(uid) = self.published.get(key).cloned() {
            self.note_health(&uid, now);
            self.dirty.sandboxes.insert(uid);
        }
    }
}
