//! How RuntimeEnvironments and RuntimeClasses change the index: which images work, who uses them, and whether level
//! `high` can be had. Called by [`Index::handle`] only.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::reasons::Refusal;
use pilotlight_common::resolve::{PodTemplate, find_runtime, image_hash, resolve_runtime};
use pilotlight_common::stream::ObjectId;
use sha2::{Digest, Sha256};

use super::done::pause;
use super::observe::split;
use super::{Index, Kind, Timer};
use crate::action::{EventNote, Outcome};
use crate::input::Change;
use crate::view::{Key, PodOwner, PodView, RuntimeClassView, RuntimeView};

/// First pause after an attempt at validation that failed; it doubles up to [`MAX_RETRY`].
const MIN_RETRY: SignedDuration = SignedDuration::from_mins(1);
/// Longest pause between two attempts.
const MAX_RETRY: SignedDuration = SignedDuration::from_hours(1);
/// How long a validation pod that was asked for counts although it was not seen: no watch lags further behind.
const UNSEEN: SignedDuration = SignedDuration::from_secs(30);
/// Users of a deleted runtime that are told so by an Event; a pool of ten thousand needs no ten thousand Events.
const TOLD: usize = 20;

/// A RuntimeEnvironment.
#[derive(Debug)]
pub struct RuntimeEntry {
    /// The object.
    pub view: RuntimeView,
    /// What a pod must be that shows whether it works, with the shape; or why none ever can.
    pub template: Result<(PodTemplate, String), Refusal>,
    /// Hash of its image and command.
    pub image: String,
    /// Name of its validation pod.
    pub pod: Key,
    /// Since when this replica knows the present image.
    pub since: Timestamp,
    /// Its validation pod, where there is one.
    pub trial: Option<Trial>,
    /// UID of a validation pod whose removal is under way.
    pub removing: Option<String>,
    /// Since when a validation pod is wanted and not made.
    pub wanted_since: Option<Timestamp>,
    /// What was found out about the present spec.
    pub verdict: Option<Verdict>,
    /// Attempts in a row that did not end with a ready pod.
    pub failures: u32,
    /// No attempt before this time.
    pub retry_at: Timestamp,
    /// Who uses it.
    pub uses: Uses,
    /// When the users were last written down.
    pub uses_written: Timestamp,
    /// Whether a status write is under way.
    pub busy: bool,
    /// No status write before this time.
    pub not_before: Timestamp,
    /// Failed status writes in a row.
    pub write_failures: u32,
}

/// What was found out about a runtime.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// A pod of it became ready.
    Available {
        /// When that was seen, in whole seconds.
        at: Timestamp,
    },
    /// It does not work, or can never.
    Unavailable {
        /// Stable word.
        reason: String,
        /// Sentence for people.
        message: String,
    },
    /// Not known yet.
    Undecided {
        /// Stable word.
        reason: &'static str,
        /// Sentence for people.
        message: String,
    },
}

/// A validation pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trial {
    /// UID of the pod.
    pub uid: String,
    /// When this replica first saw it.
    pub since: Timestamp,
    /// What last kept it from running, and since when. It stays while the pod tries again.
    pub trouble: Option<(String, Timestamp)>,
}

/// Who uses a runtime.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Uses {
    /// WarmPools.
    pub pools: usize,
    /// Sandboxes that are not over.
    pub sandboxes: usize,
}

/// What the pods say about images.
#[derive(Debug, Default)]
pub(crate) struct Trials {
    /// Validation pods that are there, of whatever runtime.
    pub pods: BTreeSet<Key>,
    /// Validation pods that were asked for and not seen yet; with the time until which they may still appear, once the
    /// write was answered.
    pub coming: BTreeMap<Key, Option<Timestamp>>,
    /// Ready pods by the hash of their image.
    ready: HashMap<String, usize>,
}

impl Trials {
    /// Whether a pod of this image is ready.
    pub(crate) fn is_ready(&self, image: &str) -> bool {
        self.ready.get(image).is_some_and(|count| *count > 0)
    }

    /// Validation pods there are, or may be.
    pub(crate) fn count(&self) -> usize {
        let unseen = self.coming.keys().filter(|key| !self.pods.contains(key));
        self.pods.len() + unseen.count()
    }
}

/// Sandboxes by the name of their runtime as they spell it, so that a count needs no look at every sandbox.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    names: HashMap<String, usize>,
    /// Whether anything changed since the last count.
    pub stale: bool,
    /// When the last count was.
    pub counted_at: Option<Timestamp>,
}

impl RuntimeEntry {
    fn new(view: RuntimeView, index: &Index, now: Timestamp) -> Self {
        let mut this = Self {
            template: Err(Refusal::new(
                pilotlight_common::reasons::Reason::RuntimeInvalid,
                "",
            )),
            image: String::new(),
            pod: Key::default(),
            view,
            since: now,
            trial: None,
            removing: None,
            wanted_since: None,
            verdict: None,
            failures: 0,
            retry_at: Timestamp::MIN,
            uses: Uses::default(),
            uses_written: Timestamp::MIN,
            busy: false,
            not_before: Timestamp::MIN,
            write_failures: 0,
        };
        this.specify(index);
        this
    }

    /// What follows from the spec.
    fn specify(&mut self, index: &Index) {
        let spec = &self.view.object.spec;
        let namespace = &index.settings.namespace;
        self.image = image_hash(&spec.image, spec.command.as_deref().unwrap_or_default());
        self.template = resolve_runtime(namespace, &self.view.object, &index.settings.defaults)
            .map(|template| {
                let shape = template.shape();
                (template, shape)
            });
        let identity = &self.view.identity;
        let shape = self.template.as_ref().map_or("", |(_, shape)| shape);
        self.pod = Key {
            namespace: namespace.clone(),
            name: pod_name(&identity.key.name, &identity.uid, shape),
        };
    }

    /// An attempt came to nothing: the next one waits longer.
    pub(crate) fn put_off(&mut self, now: Timestamp) {
        let pause = MIN_RETRY
            .saturating_mul(1 << self.failures.min(10))
            .min(MAX_RETRY);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now.saturating_add(pause).unwrap_or(now);
    }
}

/// `validate-<runtime>-<8 characters>`: the same for the same runtime and spec, so that two leaders cannot make two;
/// cut so that it is a valid host name (63 characters).
fn pod_name(runtime: &str, uid: &str, shape: &str) -> String {
    let digest = Sha256::digest(format!("{runtime}/{uid}/{shape}"));
    let stem: String = runtime
        .chars()
        .map(|c| if c == '.' { '-' } else { c })
        .take(45)
        .collect();
    format!(
        "validate-{}-{}",
        stem.trim_end_matches('-'),
        hex::encode(&digest[..4])
    )
}

/// Hash of the image that a pod shows to work, where it does.
fn evidence(pod: &PodView) -> Option<&str> {
    let works = pod.managed && pod.ready && pod.ended.is_none() && pod.owner != PodOwner::Nobody;
    works.then_some(pod.image_hash.as_deref()).flatten()
}

impl Index {
    pub(super) fn observe_runtimes(&mut self, change: Change<RuntimeView>, now: Timestamp) {
        let (here, gone, listed) = split(change, || {
            self.runtimes
                .values()
                .map(|r| {
                    let identity = &r.view.identity;
                    (identity.key.clone(), identity.uid.clone())
                })
                .collect()
        });
        let mut changed = listed;
        for (key, uid) in gone {
            if self
                .runtimes
                .get(&key)
                .is_some_and(|r| r.view.identity.uid == uid)
            {
                self.tell_of_deletion(&key);
                self.runtimes.remove(&key);
                // Its validation pod is nobody's now.
                self.dirty.pods.extend(self.trials.pods.iter().cloned());
                changed = true;
            }
        }
        for view in here {
            changed |= self.upsert_runtime(view, now);
        }
        if changed {
            self.usage.stale = true;
            self.resolve_everything(now);
        }
        if listed {
            self.mark_synced(Kind::Runtime);
        }
    }

    /// Takes a runtime in; returns whether its spec is new.
    fn upsert_runtime(&mut self, view: RuntimeView, now: Timestamp) -> bool {
        let key = view.identity.key.clone();
        self.dirty.runtimes.insert(key.clone());
        let known = self
            .runtimes
            .remove(&key)
            .filter(|old| old.view.identity.uid == view.identity.uid);
        let Some(mut entry) = known else {
            let entry = RuntimeEntry::new(view, self, now);
            let pod = entry.pod.clone();
            self.runtimes.insert(key, entry);
            // A former leader may have made it.
            self.note_trial(&pod, now);
            return true;
        };
        let respecified = entry.view.object.spec != view.object.spec;
        entry.view = view;
        let mut renamed = None;
        if respecified {
            let (old_image, old_pod) = (entry.image.clone(), entry.pod.clone());
            entry.specify(self);
            if entry.image != old_image {
                entry.since = now;
            }
            if entry.pod != old_pod {
                entry.trial = None;
                entry.removing = None;
                renamed = Some(entry.pod.clone());
            }
            entry.verdict = None;
            entry.failures = 0;
            entry.retry_at = Timestamp::MIN;
            // A validation pod of the old spec says nothing about the new one.
            self.dirty.pods.extend(self.trials.pods.iter().cloned());
        }
        self.runtimes.insert(key, entry);
        if let Some(pod) = renamed {
            // The spec may be one that it had before, whose validation pod is still there.
            self.note_trial(&pod, now);
        }
        respecified
    }

    /// Events for those who use a runtime that was deleted, as far as a few will do.
    fn tell_of_deletion(&mut self, key: &Key) {
        if !self.leading {
            return;
        }
        let note = |kind| EventNote {
            kind,
            warning: true,
            reason: "RuntimeDeleted".into(),
            message: format!(
                "RuntimeEnvironment {} was deleted: what runs goes on, and no new pod of it is made until it is back",
                key.name
            ),
        };
        let uses = |name: &str| self.runtime_of(name).is_some_and(|found| found == key);
        let pools = self
            .pools
            .values()
            .filter_map(|p| p.view.as_ref())
            .filter(|v| uses(&v.spec.runtime))
            .map(|v| (v.identity.object_id(), note("WarmPool")));
        let names: BTreeSet<&String> = self.usage.names.keys().filter(|n| uses(n)).collect();
        let sandboxes = self
            .sandboxes
            .values()
            .filter(|e| e.uses_runtime.as_ref().is_some_and(|n| names.contains(n)))
            .map(|e| (e.view.identity.object_id(), note("Sandbox")));
        let told: Vec<(ObjectId, EventNote)> = pools.chain(sandboxes).take(TOLD).collect();
        self.records.extend(told);
    }

    /// The runtime that a name means.
    fn runtime_of(&self, name: &str) -> Option<&Key> {
        let found = find_runtime(self.runtimes.values().map(|r| &r.view.object), name).ok()?;
        self.runtimes
            .iter()
            .find(|(_, r)| r.view.object.metadata.name == found.metadata.name)
            .map(|(key, _)| key)
    }

    /// Counts a sandbox among the users of its runtime, or no longer.
    pub(super) fn count_use(&mut self, uid: &str) {
        let Some(entry) = self.sandboxes.get_mut(uid) else {
            return;
        };
        let uses = !entry.view.is_final() && !entry.view.identity.deleting;
        let name = uses.then_some(&entry.view.spec.runtime);
        if entry.uses_runtime.as_ref() == name {
            return;
        }
        let name = name.cloned();
        if let Some(old) = std::mem::replace(&mut entry.uses_runtime, name.clone())
            && let Some(count) = self.usage.names.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                self.usage.names.remove(&old);
            }
        }
        if let Some(name) = name {
            *self.usage.names.entry(name).or_default() += 1;
        }
        self.usage.stale = true;
    }

    /// Counts the users of every runtime; those whose users changed are looked at.
    pub(crate) fn count_uses(&mut self, now: Timestamp) {
        let mut uses: BTreeMap<Key, Uses> = BTreeMap::new();
        for pool in self.pools.values().filter_map(|p| p.view.as_ref()) {
            if let Some(key) = self.runtime_of(&pool.spec.runtime) {
                uses.entry(key.clone()).or_default().pools += 1;
            }
        }
        for (name, count) in &self.usage.names {
            if let Some(key) = self.runtime_of(name) {
                uses.entry(key.clone()).or_default().sandboxes += count;
            }
        }
        for (key, entry) in &mut self.runtimes {
            let new = uses.get(key).copied().unwrap_or_default();
            if entry.uses != new {
                entry.uses = new;
                self.dirty.runtimes.insert(key.clone());
            }
        }
        self.usage.stale = false;
        self.usage.counted_at = Some(now);
    }

    /// After a pod changed, or came or went (`old` is what it was): what it says about its image.
    pub(super) fn note_evidence(&mut self, key: &Key, old: Option<&PodView>, now: Timestamp) {
        let new = self.pods.get(key);
        let (before, after) = (old.and_then(evidence), new.and_then(evidence));
        let (before, after) = (before.map(str::to_owned), after.map(str::to_owned));
        let is_trial = |pod: Option<&PodView>| {
            pod.is_some_and(|p| p.managed && matches!(p.owner, PodOwner::Runtime(_)))
        };
        let (was_trial, is_trial) = (is_trial(old), is_trial(new));
        if before != after {
            for image in before.iter().chain(&after) {
                let count = self.trials.ready.entry(image.clone()).or_default();
                let was_ready = *count > 0;
                *count = if Some(image) == after.as_ref() {
                    *count + 1
                } else {
                    count.saturating_sub(1)
                };
                let ready = *count > 0;
                if !ready {
                    self.trials.ready.remove(image);
                }
                if was_ready != ready {
                    let of_image = self.runtimes.iter().filter(|(_, r)| r.image == *image);
                    self.dirty
                        .runtimes
                        .extend(of_image.map(|(key, _)| key.clone()));
                }
            }
        }
        if is_trial {
            self.trials.pods.insert(key.clone());
            self.trials.coming.remove(key);
        } else if was_trial {
            self.trials.pods.remove(key);
            // A place is free for any of them.
            self.dirty.runtimes.extend(self.runtimes.keys().cloned());
        }
        if is_trial || was_trial {
            self.note_trial(key, now);
        }
    }

    /// Brings up to date what is known of the validation pod of this name.
    fn note_trial(&mut self, key: &Key, now: Timestamp) {
        let pod = self.pods.get(key);
        for (runtime, entry) in self.runtimes.iter_mut().filter(|(_, r)| r.pod == *key) {
            self.dirty.runtimes.insert(runtime.clone());
            let pod = pod.filter(|p| p.owner == PodOwner::Runtime(entry.view.identity.uid.clone()));
            let Some(pod) = pod else {
                let gone = entry.trial.take();
                // One that somebody else deleted says nothing, and is not made again at once.
                if gone.is_some() && entry.removing.take().is_none() {
                    entry.put_off(now);
                }
                continue;
            };
            let trial = entry
                .trial
                .take()
                .filter(|t| t.uid == pod.identity.uid)
                .unwrap_or_else(|| Trial {
                    uid: pod.identity.uid.clone(),
                    since: now,
                    trouble: None,
                });
            let trouble = match (&pod.hold_up, trial.trouble) {
                (Some(new), Some((word, since))) if new.reason == word => Some((word, since)),
                (Some(new), _) => Some((new.reason.clone(), now)),
                (None, old) => old,
            };
            entry.trial = Some(Trial { trouble, ..trial });
        }
    }

    /// What came of a validation pod's creation.
    pub(super) fn trial_made(
        &mut self,
        runtime: &Key,
        pod: &Key,
        outcome: Outcome,
        now: Timestamp,
    ) {
        let until = now.saturating_add(UNSEEN).unwrap_or(now);
        // Even one that failed may be there: its answer was lost.
        if let Some(coming) = self.trials.coming.get_mut(pod) {
            *coming = Some(until);
        }
        if outcome != Outcome::Done
            && let Some(entry) = self.runtimes.get_mut(runtime).filter(|r| r.pod == *pod)
        {
            entry.put_off(now);
        }
        self.timer(until, Timer::Runtimes);
    }

    /// What came of a status write.
    pub(super) fn runtime_written(&mut self, key: &Key, outcome: Outcome, now: Timestamp) {
        let Some(entry) = self.runtimes.get_mut(key) else {
            return;
        };
        entry.busy = false;
        entry.write_failures = if outcome == Outcome::Failed {
            entry.write_failures.saturating_add(1)
        } else {
            0
        };
        let at = now
            .saturating_add(pause(outcome, entry.write_failures))
            .unwrap_or(now);
        entry.not_before = at;
        self.timer(at, Timer::Runtime(key.clone()));
    }

    /// A validation pod could not be deleted: it is decided anew.
    pub(super) fn trial_kept(&mut self, pod: &Key) {
        for (runtime, entry) in self.runtimes.iter_mut().filter(|(_, r)| r.pod == *pod) {
            entry.removing = None;
            self.dirty.runtimes.insert(runtime.clone());
        }
    }

    pub(super) fn observe_runtime_classes(
        &mut self,
        change: Change<RuntimeClassView>,
        now: Timestamp,
    ) {
        let (here, gone, listed) = split(change, || {
            let names = self.runtime_classes.iter();
            names.map(|(key, uid)| (key.clone(), uid.clone())).collect()
        });
        for (key, uid) in gone {
            if self.runtime_classes.get(&key) == Some(&uid) {
                self.runtime_classes.remove(&key);
            }
        }
        for view in here {
            self.runtime_classes
                .insert(view.identity.key, view.identity.uid);
        }
        let there = self
            .high_runtime_class
            .clone()
            .filter(|name| self.runtime_classes.keys().any(|key| key.name == *name));
        if self.settings.defaults.high_runtime_class != there {
            self.settings.defaults.high_runtime_class = there;
            self.resolve_everything(now);
        }
        if listed {
            self.mark_synced(Kind::RuntimeClass);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_pod_of_any_runtime_has_a_valid_name_of_its_own(name in "[a-z0-9]([-a-z0-9.]{0,100}[a-z0-9])?", uid in "[a-f0-9]{8}", shape in "[a-f0-9]{16}") {
            let pod = pod_name(&name, &uid, &shape);
            prop_assert!(pod.len() <= 63, "{pod}");
            prop_assert!(pod.starts_with("validate-") && !pod.ends_with('-'));
            prop_assert!(pod.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{pod}");
            prop_assert_eq!(&pod, &pod_name(&name, &uid, &shape));
            prop_assert_ne!(&pod, &pod_name(&name, &format!("{uid}0"), &shape));
            prop_assert_ne!(pod, pod_name(&format!("{name}0"), &uid, &shape));
        }
    }
}
