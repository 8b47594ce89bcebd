//! How pools and profiles change the index: what pods can be had. Called by [`Index::handle`] only.

use std::collections::BTreeSet;

use jiff::Timestamp;
use pilotlight_common::network::NetworkRules;
use pilotlight_common::reasons::{Reason, Refusal};
use pilotlight_common::resolve::{ResolvedPool, check_profile};

use super::observe::split;
use super::{Class, Index, Kind, Pace, PoolEntry};
use crate::decide::Preloading;
use crate::input::Change;
use crate::view::{Key, PoolView, ProfileView};

/// What is found where a pool is gone.
fn pool_gone() -> Refusal {
    Refusal::new(Reason::PoolGone, "the pool is gone")
}

impl Index {
    pub(super) fn observe_pools(&mut self, change: Change<PoolView>, now: Timestamp) {
        let (here, gone, listed) = split(change, || {
            self.pools
                .values()
                .filter_map(|p| p.view.as_ref())
                .map(|v| (v.identity.key.clone(), v.identity.uid.clone()))
                .collect()
        });
        for (key, uid) in gone {
            let Some(pool) = self.pools.get_mut(&key) else {
                continue;
            };
            if pool.view.as_ref().is_none_or(|v| v.identity.uid != uid) {
                continue;
            }
            pool.view = None;
            self.set_resolved(&key, Err(pool_gone()));
            self.pool_changed(&key, now);
            if self
                .pools
                .get(&key)
                .is_some_and(|p| p.members.iter().all(BTreeSet::is_empty))
            {
                self.pools.remove(&key);
            }
        }
        for view in here {
            let key = view.identity.key.clone();
            let resolved = self.resolve_pool(&view);
            let pool = self
                .pools
                .entry(key.clone())
                .or_insert_with(PoolEntry::empty);
            let respecified = pool
                .view
                .as_ref()
                .is_none_or(|old| old.spec != view.spec || old.identity.uid != view.identity.uid);
            pool.view = Some(view);
            if self.set_resolved(&key, resolved) || respecified {
                self.pool_changed(&key, now);
            }
            self.dirty.pools.insert(key);
        }
        self.usage.stale = true;
        if listed {
            self.mark_synced(Kind::Pool);
        }
    }

    /// After a change of what a pool wants: every pod of it may have changed class, and the sandboxes of its
    /// shape their reason for waiting.
    fn pool_changed(&mut self, key: &Key, now: Timestamp) {
        let members: Vec<Key> = self
            .pools
            .get(key)
            .into_iter()
            .flat_map(|p| p.members.iter().flatten())
            .map(|(_, k)| k.clone())
            .collect();
        for member in members {
            self.touch_warm_pod(&member, now);
        }
        let waiting: Vec<String> = self
            .waiting
            .values()
            .flatten()
            .map(|(_, uid)| uid.clone())
            .collect();
        self.dirty.sandboxes.extend(waiting);
        self.dirty.pools.insert(key.clone());
    }

    pub(super) fn observe_profiles(&mut self, change: Change<ProfileView>, now: Timestamp) {
        let (here, gone, listed) = split(change, || {
            self.profiles
                .values()
                .map(|r| (r.identity.key.clone(), r.identity.uid.clone()))
                .collect()
        });
        let mut changed = listed;
        for (key, _) in gone {
            self.invalid_profiles.remove(&key);
            changed |= self.profiles.remove(&key).is_some();
        }
        for view in here {
            let key = view.identity.key.clone();
            let old = self.profiles.insert(key.clone(), view.clone());
            let respecified = old.is_none_or(|old| {
                old.object.spec != view.object.spec || old.identity.uid != view.identity.uid
            });
            if respecified {
                // Once for each spec: whoever leads says it.
                match check_profile(&view.object.spec) {
                    Ok(()) => self.invalid_profiles.remove(&key),
                    Err(refusal) => self
                        .invalid_profiles
                        .insert(key, (view.identity.object_id(), refusal)),
                };
            }
            changed |= respecified;
        }
        if changed {
            self.resolve_everything(now);
        }
        if listed {
            self.mark_synced(Kind::Profile);
        }
    }

    /// After a change of a runtime or profile. They change rarely, so every user is resolved again.
    pub(super) fn resolve_everything(&mut self, now: Timestamp) {
        self.resolve_networks();
        let unpublished: Vec<String> = self
            .sandboxes
            .iter()
            .filter(|(_, e)| e.view.pod_name.is_none() && !e.view.is_final())
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in unpublished {
            let Some(view) = self.sandboxes.get(&uid).map(|e| e.view.clone()) else {
                continue;
            };
            let resolved = self.resolve_sandbox(&view);
            if let Some(entry) = self.sandboxes.get_mut(&uid) {
                entry.resolved = resolved;
            }
            self.touch_sandbox(&uid);
        }
        let views: Vec<PoolView> = self.pools.values().filter_map(|p| p.view.clone()).collect();
        for view in views {
            let resolved = self.resolve_pool(&view);
            let key = view.identity.key;
            if self.set_resolved(&key, resolved) {
                self.pool_changed(&key, now);
            }
        }
    }

    /// What sandboxes may reach changes with their profile while they run.
    fn resolve_networks(&mut self) {
        let changed: Vec<(String, NetworkRules)> = self
            .sandboxes
            .iter()
            .filter(|(_, entry)| entry.view.spec.profile_ref.is_some() && !entry.view.is_final())
            .filter_map(|(uid, entry)| Some((uid, entry, self.resolve_network(&entry.view).ok()?)))
            .filter(|(_, entry, network)| entry.network != *network)
            .map(|(uid, _, network)| (uid.clone(), network))
            .collect();
        for (uid, network) in changed {
            if let Some(entry) = self.sandboxes.get_mut(&uid) {
                entry.network = network;
            }
            self.touch_sandbox(&uid);
        }
    }

    /// Sets what a pool's pods must be; returns whether that changed.
    fn set_resolved(
        &mut self,
        key: &Key,
        resolved: Result<(ResolvedPool, String), Refusal>,
    ) -> bool {
        let Some(pool) = self.pools.get_mut(key) else {
            return false;
        };
        if pool.resolved == resolved {
            return false;
        }
        let old = std::mem::replace(&mut pool.resolved, resolved);
        // Whoever corrects a preload does not wait for the old one's pause to end.
        pool.preloading = Preloading::default();
        if let Ok((_, shape)) = old
            && let Some(keys) = self.pools_of_shape.get_mut(&shape)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.pools_of_shape.remove(&shape);
            }
        }
        if let Some(shape) = self
            .pools
            .get(key)
            .and_then(PoolEntry::shape)
            .map(str::to_owned)
        {
            self.pools_of_shape
                .entry(shape)
                .or_default()
                .insert(key.clone());
        }
        true
    }
}

impl PoolEntry {
    pub(crate) fn empty() -> Self {
        Self {
            view: None,
            resolved: Err(pool_gone()),
            members: std::array::from_fn(|_| BTreeSet::new()),
            busy: false,
            not_before: Timestamp::MIN,
            starving_since: None,
            wanted: 0,
            needs: None,
            scaled_at: None,
            preloading: Preloading::default(),
            refilled_at: Timestamp::MIN,
            pace: Pace::default(),
        }
    }

    pub(crate) fn idle(&self) -> usize {
        self.count(Class::Pending) + self.count(Class::Available)
    }
}
