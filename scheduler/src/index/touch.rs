//! What follows when an object changed: class, place in the ready queue, place among the waiting.
//!
//! These are recomputed from the state as a whole, never from what the change was, so they can be called any
//! number of times.

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::kinds::{
    ProfileRef, RuntimeEnvironment, SandboxPhase, SandboxProfile, WarmPodPhase,
};
use pilotlight_common::network::NetworkRules;
use pilotlight_common::reasons::Refusal;
use pilotlight_common::resolve::{
    ResolvedPool, ResolvedSandbox, find_runtime, profile_name, profile_not_found, resolve_network,
    resolve_pool, resolve_sandbox,
};

use super::observe::POD_LAG;
use super::ready::Place;
use super::{Class, Index, Observation, PoolEntry};
use crate::view::{Claim, Key, PodOwner, PodView, PoolView, SandboxView, WarmPodView};

impl Index {
    /// Brings everything that depends on a warm pod up to date.
    pub(crate) fn touch_warm_pod(&mut self, key: &Key, now: Timestamp) {
        self.note_refusal(key, now);
        self.note_promise(key);
        let Some(entry) = self.warm_pods.get(key) else {
            return;
        };
        let created = entry.view.identity.created;
        let pool_key = Key {
            namespace: key.namespace.clone(),
            name: entry.view.pool.clone(),
        };
        let (old_class, old_place) = (entry.class, entry.place.clone());
        let class = self.classify(key, now);
        let place = matches!(class, Class::Available | Class::Outdated)
            .then(|| self.place(key))
            .flatten();

        if old_place != place {
            if let Some(old) = &old_place {
                self.ready.remove(old, key);
            }
            if let Some(new) = &place {
                self.ready.insert(new, key.clone());
                self.dirty.shapes.insert(new.shape.clone());
            }
        }
        self.leave_class(&pool_key, key, old_class, created);
        let pool = self
            .pools
            .entry(pool_key.clone())
            .or_insert_with(PoolEntry::empty);
        pool.members[class as usize].insert((created, key.clone()));
        if (old_class, class) == (Class::Pending, Class::Available) {
            pool.preloading.succeeded();
        }
        if let Some(entry) = self.warm_pods.get_mut(key) {
            entry.class = class;
            entry.place = place;
        }
        self.announce(key);
        self.dirty.warm_pods.insert(key.clone());
        self.dirty.pools.insert(pool_key);
    }

    /// Takes over what the node's agent said about the assignment of this pod.
    fn note_refusal(&mut self, key: &Key, now: Timestamp) {
        let Some(entry) = self.warm_pods.get(key) else {
            return;
        };
        let Some(sandbox) = entry.sandbox().map(str::to_owned) else {
            return;
        };
        if entry.refused.is_some() {
            return;
        }
        let said = entry
            .view
            .node
            .as_ref()
            .and_then(|n| self.nodes.get(n))
            .and_then(|n| {
                n.refused
                    .get(&(entry.view.identity.uid.clone(), sandbox.clone()))
            });
        let observation = said.map(|reason| Observation::AgentRefused(refusal_word(reason)));
        let reason = match said {
            Some(reason) => Some(reason.clone()),
            None => self
                .is_overdue(key, &sandbox, now)
                .then(|| "AgentSilent".to_owned()),
        };
        let Some(reason) = reason else {
            return;
        };
        self.observations
            .push(observation.unwrap_or(Observation::AgentSilent));
        if let Some(entry) = self.warm_pods.get_mut(key) {
            entry.refused = Some(reason);
        }
        self.touch_sandbox(&sandbox);
    }

    /// Whether the agent had its time and the sandbox is still not published.
    fn is_overdue(&self, key: &Key, sandbox: &str, now: Timestamp) -> bool {
        let unpublished = self
            .sandboxes
            .get(sandbox)
            .is_some_and(|s| s.view.pod_name.is_none());
        let since = self.warm_pods.get(key).and_then(|e| e.claim_seen);
        unpublished
            && since
                .and_then(|s| s.saturating_add(self.settings.agent_deadline).ok())
                .is_some_and(|due| due <= now)
    }

    pub(super) fn leave_class(&mut self, pool: &Key, key: &Key, class: Class, created: Timestamp) {
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.members[class as usize].remove(&(created, key.clone()));
        }
        if self.pools.get(pool).is_some_and(|p| {
            p.view.is_none() && p.members.iter().all(std::collections::BTreeSet::is_empty)
        }) {
            self.pools.remove(pool);
        }
    }

    /// The pod of a WarmPod: of the same name, and owned by it.
    pub(crate) fn pod_of(&self, key: &Key) -> Option<&PodView> {
        let uid = &self.warm_pods.get(key)?.view.identity.uid;
        self.pods
            .get(key)
            .filter(|p| p.owner == PodOwner::WarmPod(uid.clone()))
    }

    fn classify(&self, key: &Key, now: Timestamp) -> Class {
        let Some(entry) = self.warm_pods.get(key) else {
            return Class::Leaving;
        };
        if entry.leaving
            || entry.view.identity.deleting
            || entry.view.claim == Claim::Retired
            || (entry.view.phase == Some(WarmPodPhase::Terminating)
                && entry.view.claim == Claim::Free)
        {
            return Class::Leaving;
        }
        if entry.in_flight.is_some() || matches!(entry.view.claim, Claim::Sandbox(_)) {
            return Class::Assigned;
        }
        if entry.placeholder {
            return Class::Pending;
        }
        let pod = self.pod_of(key);
        let pod_lost = match pod {
            Some(pod) => !pod.lives(),
            None => {
                entry.had_pod
                    || (entry.view.phase == Some(WarmPodPhase::Ready)
                        && self.is_synced()
                        && entry
                            .first_seen
                            .saturating_add(POD_LAG)
                            .is_ok_and(|t| t <= now))
            }
        };
        let pool = self.pools.get(&Key {
            namespace: key.namespace.clone(),
            name: entry.view.pool.clone(),
        });
        // A pool that was not listed yet is not a pool that is gone.
        let pool_gone = self.is_synced() && pool.is_none_or(|p| p.view.is_none());
        if pod_lost || pool_gone {
            return Class::Broken;
        }
        let was_ready = entry.view.phase == Some(WarmPodPhase::Ready);
        // Where the pool's template cannot be had (its runtime is gone), what is there stays.
        if pool.is_some_and(|pool| replaced_for(pool, &entry.view, now).is_some()) {
            return if was_ready {
                Class::Outdated
            } else {
                Class::Stale
            };
        }
        if was_ready && self.is_usable(key) {
            Class::Available
        } else {
            Class::Pending
        }
    }

    /// Whether a warm pod that became ready could be assigned now.
    fn is_usable(&self, key: &Key) -> bool {
        let Some(entry) = self.warm_pods.get(key) else {
            return false;
        };
        let node = entry.view.node.as_ref();
        let node_up = node
            .and_then(|n| self.nodes.get(n))
            .is_some_and(super::NodeEntry::is_assignable);
        let lost = entry
            .lost_at
            .is_some_and(|at| entry.view.identity.revision <= at);
        // An agent says of its own node alone that a pod is ready; whether the pod is there, the cluster knows.
        let there = self
            .pod_of(key)
            .is_some_and(|pod| pod.node.as_ref() == node);
        node_up && !lost && !entry.busy && there
    }

    fn place(&self, key: &Key) -> Option<Place> {
        let entry = self.warm_pods.get(key).filter(|_| self.is_usable(key))?;
        Some(Place {
            shape: entry.view.shape.clone(),
            node: entry.view.node.clone()?,
            ready_at: entry.view.ready_at.unwrap_or(entry.view.identity.created),
        })
    }

    /// Brings everything that depends on a sandbox up to date.
    pub(crate) fn touch_sandbox(&mut self, uid: &str) {
        self.count_use(uid);
        self.note_cold_promise(uid);
        let Some(entry) = self.sandboxes.get(uid) else {
            return;
        };
        let waits_for = self
            .waits(uid)
            .then(|| entry.resolved.as_ref().ok())
            .flatten()
            .map(|(resolved, shape)| (shape.clone(), resolved.pinned_cpus));
        let place = (entry.view.identity.created, uid.to_owned());
        let old = entry.waiting_as.clone();
        if old != waits_for {
            if let Some(old) = &old
                && let Some(queue) = self.waiting.get_mut(old)
            {
                queue.remove(&place);
                if queue.is_empty() {
                    self.waiting.remove(old);
                }
            }
            if let Some(new) = &waits_for {
                self.waiting.entry(new.clone()).or_default().insert(place);
            }
            if let Some(entry) = self.sandboxes.get_mut(uid) {
                entry.waiting_as.clone_from(&waits_for);
            }
        }
        if let Some((shape, _)) = waits_for {
            self.dirty.shapes.insert(shape);
        }
        self.dirty.sandboxes.insert(uid.to_owned());
        let claimed: Vec<Key> = self
            .claims
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        for key in claimed {
            self.announce(&key);
            self.dirty.warm_pods.insert(key);
        }
        self.announce_cold(uid);
        let own = self.cold_pods.get(uid).into_iter().flatten();
        self.dirty.pods.extend(own.cloned());
    }

    /// Whether a sandbox has no pod, and none that is about to be its own.
    fn waits(&self, uid: &str) -> bool {
        let Some(entry) = self.sandboxes.get(uid) else {
            return false;
        };
        let over = matches!(
            entry.view.phase,
            Some(
                SandboxPhase::Running
                    | SandboxPhase::Terminating
                    | SandboxPhase::Terminated
                    | SandboxPhase::Failed
            )
        );
        if over
            || entry.view.identity.deleting
            || entry.view.pod_name.is_some()
            || entry.in_flight.is_some()
            || self.starts_cold(uid, entry)
        {
            return false;
        }
        // A pod whose agent refused, or keeps silent, no longer counts: another is tried, and the set-once
        // podName decides which of the two publishes.
        !self.claims.get(uid).into_iter().flatten().any(|key| {
            self.warm_pods
                .get(key)
                .is_some_and(|p| p.refused.is_none() && !p.view.identity.deleting)
        })
    }

    pub(super) fn resolve_sandbox(
        &self,
        view: &SandboxView,
    ) -> Result<(ResolvedSandbox, String), Refusal> {
        let namespace = &view.identity.key.namespace;
        let (profile, runtime) = self.named(
            namespace,
            view.spec.profile_ref.as_ref(),
            &view.spec.runtime,
        )?;
        let resolved = resolve_sandbox(
            namespace,
            &view.spec,
            profile,
            runtime,
            &self.settings.defaults,
        )?;
        let shape = resolved.template.shape();
        Ok((resolved, shape))
    }

    /// What a sandbox may reach, whatever else about it cannot be fulfilled: it may have run before that was so. Of a profile that is
    /// gone nothing is left.
    pub(super) fn resolve_network(&self, view: &SandboxView) -> Result<NetworkRules, Refusal> {
        resolve_network(
            view.spec.network_access.as_ref(),
            self.profile_of(view).map(|profile| &profile.spec),
            !self.settings.defaults.networks_by_policy,
        )
    }

    /// The profile of a sandbox, where it names one that exists.
    pub(crate) fn profile_of(&self, view: &SandboxView) -> Option<&SandboxProfile> {
        let namespace = &view.identity.key.namespace;
        let name = profile_name(view.spec.profile_ref.as_ref(), namespace).ok()??;
        let key = Key {
            namespace: namespace.clone(),
            name: name.to_owned(),
        };
        self.profiles.get(&key).map(|profile| &profile.object)
    }

    pub(super) fn resolve_pool(&self, view: &PoolView) -> Result<(ResolvedPool, String), Refusal> {
        let namespace = &view.identity.key.namespace;
        let (profile, runtime) = self.named(
            namespace,
            view.spec.profile_ref.as_ref(),
            &view.spec.runtime,
        )?;
        let resolved = resolve_pool(
            namespace,
            &view.spec,
            profile,
            runtime,
            &self.settings.defaults,
        )?;
        let shape = resolved.template.shape();
        Ok((resolved, shape))
    }

    /// The profile and the runtime that a Sandbox or WarmPool names.
    fn named(
        &self,
        namespace: &str,
        profile: Option<&ProfileRef>,
        runtime: &str,
    ) -> Result<(Option<&SandboxProfile>, &RuntimeEnvironment), Refusal> {
        let profile = profile_name(profile, namespace)?
            .map(|name| self.profile(namespace, name))
            .transpose()?;
        let runtime = find_runtime(self.runtimes.values().map(|r| &r.view.object), runtime)?;
        Ok((profile, runtime))
    }

    fn profile(&self, namespace: &str, name: &str) -> Result<&SandboxProfile, Refusal> {
        let key = Key {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        self.profiles
            .get(&key)
            .map(|p| &p.object)
            .ok_or_else(|| profile_not_found(name))
    }
}

/// Why a pod is not what its pool wants any more, if so: the word that its retirement gives as the reason.
pub(crate) fn replaced_for(
    pool: &PoolEntry,
    warm_pod: &WarmPodView,
    now: Timestamp,
) -> Option<&'static str> {
    let (resolved, shape) = pool.resolved.as_ref().ok()?;
    if *shape != warm_pod.shape {
        return Some("OldShape");
    }
    if resolved.preload.as_ref().map(|p| p.hash()) != warm_pod.preload.as_deref() {
        return Some("OldPreload");
    }
    expires(resolved, warm_pod)
        .is_some_and(|at| at <= now)
        .then_some("Expired")
}

/// When a pod becomes too old for its pool.
pub(crate) fn expires(resolved: &ResolvedPool, warm_pod: &WarmPodView) -> Option<Timestamp> {
    let ttl = SignedDuration::from_secs(resolved.ttl_seconds?);
    warm_pod.ready_at?.saturating_add(ttl).ok()
}

/// The stable word behind what an agent said; agents of other versions may say others.
fn refusal_word(reason: &str) -> &'static str {
    use pilotlight_common::stream::AgentRefusal;
    [
        AgentRefusal::PodGone,
        AgentRefusal::PodNotPrepared,
        AgentRefusal::PublishedElsewhere,
        AgentRefusal::SandboxGone,
        AgentRefusal::CpusUnavailable,
    ]
    .into_iter()
    .map(AgentRefusal::as_str)
    .find(|word| *word == reason)
    .unwrap_or("Other")
}
