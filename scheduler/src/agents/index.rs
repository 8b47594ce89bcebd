//! Everything the controller knows. Owned by [`super::engine`]; [`super::decide`] is asked for each Sandbox that something changed for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use pilotlight_common::agents::names::name_hash;
use pilotlight_common::agents::v1beta1::SandboxStatus;

use super::children::{Children, Touched, take};
use super::decide::{Known, decide};
use super::pod::claim_name;
use super::timers::Timers;
use super::view::{ClaimView, PodView, SandboxView, ServiceView};
use super::write::{Found, Kind, Outcome, Slot, Write};
use crate::input::Change;
use crate::view::Key;

/// How long an object that the watches do not show is believed to be as it was found: one without our label, which stands in the way.
const STRANGER: SignedDuration = SignedDuration::from_secs(5);
/// First pause after a write that failed; it doubles.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// The same after one that came too late.
const STALE_PAUSE: SignedDuration = SignedDuration::from_millis(100);
/// Longest pause.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(60);

/// One change of the world.
#[derive(Debug)]
pub enum Input {
    /// Sandboxes.
    Sandbox(Change<SandboxView>),
    /// Pods with our label.
    Pod(Change<PodView>),
    /// Services with our label.
    Service(Change<ServiceView>),
    /// Claims with our label.
    Claim(Change<ClaimView>),
    /// This replica began or ceased to lead.
    Leading(bool),
    /// What came of the writes for one Sandbox.
    Done(Key, Vec<(Write, Outcome)>),
}

/// The writes for one Sandbox.
#[derive(Debug, PartialEq)]
pub struct Work {
    /// The Sandbox.
    pub key: Key,
    /// What to do, all at once.
    pub writes: Vec<Write>,
}

#[derive(Debug)]
struct Entry {
    view: SandboxView,
    /// What was written last and not seen yet.
    written: Option<SandboxStatus>,
    last: Timestamp,
    failures: BTreeMap<Slot, Failure>,
}

#[derive(Debug)]
struct Failure {
    message: String,
    pause: SignedDuration,
    again: Timestamp,
}

/// The index.
#[derive(Debug)]
pub struct Index {
    domain: String,
    sandboxes: BTreeMap<Key, Entry>,
    /// Names by what stands in labels.
    names: BTreeMap<(String, String), BTreeSet<Key>>,
    pods: Children<super::view::PodFacts>,
    services: Children<super::view::ServiceFacts>,
    claims: Children<()>,
    /// Sandboxes that are gone, with the UIDs of those whose pods go with them at once.
    ended: BTreeMap<Key, BTreeSet<String>>,
    gone: VecDeque<String>,
    dirty: BTreeSet<Key>,
    busy: BTreeSet<Key>,
    timers: Timers,
    leading: bool,
    /// Kinds that were not listed yet.
    unlisted: BTreeSet<&'static str>,
}

impl Index {
    /// One that knows nothing.
    pub fn new(domain: String) -> Self {
        Self {
            domain,
            sandboxes: BTreeMap::new(),
            names: BTreeMap::new(),
            pods: Children::default(),
            services: Children::default(),
            claims: Children::default(),
            ended: BTreeMap::new(),
            gone: VecDeque::new(),
            dirty: BTreeSet::new(),
            busy: BTreeSet::new(),
            timers: Timers::default(),
            leading: false,
            unlisted: BTreeSet::from(["Sandbox", "Pod", "Service", "Claim"]),
        }
    }

    /// Whether every kind was listed.
    pub fn is_synced(&self) -> bool {
        self.unlisted.is_empty()
    }

    /// The Sandboxes, each with the status said last.
    pub fn sandboxes(&self) -> impl Iterator<Item = (&SandboxView, &SandboxStatus)> {
        self.sandboxes.values().map(|entry| {
            let status = entry.written.as_ref().unwrap_or(&entry.view.status);
            (&entry.view, status)
        })
    }

    /// When to ask for [`Index::work`] though nothing changes.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.order.first().map(|(at, _)| *at)
    }

    /// Takes a change in.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Sandbox(change) => self.sandbox(change, now),
            Input::Pod(change) => {
                if matches!(change, Change::Replace(_)) {
                    self.unlisted.remove("Pod");
                }
                let touched = take(&mut self.pods, change, &mut self.gone);
                self.touch(touched);
            }
            Input::Service(change) => {
                if matches!(change, Change::Replace(_)) {
                    self.unlisted.remove("Service");
                }
                let touched = take(&mut self.services, change, &mut self.gone);
                self.touch(touched);
            }
            Input::Claim(change) => {
                if matches!(change, Change::Replace(_)) {
                    self.unlisted.remove("Claim");
                }
                let touched = take(&mut self.claims, change, &mut self.gone);
                self.touch(touched);
            }
            Input::Leading(leading) => {
                self.leading = leading;
                self.dirty.extend(self.sandboxes.keys().cloned());
            }
            Input::Done(key, results) => self.done(&key, results, now),
        }
    }

    /// What to do now.
    pub fn work(&mut self, now: Timestamp) -> Vec<Work> {
        if !self.leading || !self.is_synced() {
            return Vec::new();
        }
        self.dirty.extend(self.timers.take_due(now));
        self.pods.forget_strangers(now);
        self.services.forget_strangers(now);
        self.claims.forget_strangers(now);
        let ready: Vec<Key> = self.dirty.difference(&self.busy).cloned().collect();
        let mut work = Vec::new();
        for key in ready {
            self.dirty.remove(&key);
            self.timers.clear(&key);
            let mut writes = self.leftovers(&key);
            writes.extend(self.decided(&key, now));
            if !writes.is_empty() {
                self.busy.insert(key.clone());
                work.push(Work { key, writes });
            }
        }
        work
    }

    fn decided(&mut self, key: &Key, now: Timestamp) -> Vec<Write> {
        let Some(entry) = self.sandboxes.get(key) else {
            return Vec::new();
        };
        let mut view = entry.view.clone();
        if let Some(written) = &entry.written {
            view.status = written.clone();
        }
        let mut pods: Vec<&PodView> = self.pods.of(&view.identity.uid).collect();
        if let Some(named) = self.pods.all.get(key)
            && !pods
                .iter()
                .any(|pod| pod.identity.key == named.identity.key)
        {
            pods.push(named);
        }
        let templates = view.spec.volume_claim_templates.iter().flatten();
        let claims: Vec<Key> = templates
            .map(|template| Key {
                namespace: key.namespace.clone(),
                name: claim_name(&view, template),
            })
            .collect();
        let known = Known {
            sandbox: &view,
            pods,
            service: self.services.all.get(key),
            claims: claims
                .iter()
                .filter_map(|claim| self.claims.all.get(claim))
                .collect(),
            failures: entry
                .failures
                .iter()
                .map(|(slot, failure)| (slot, failure.message.as_str(), failure.again))
                .collect(),
            last: entry.last,
            domain: &self.domain,
        };
        let decision = decide(&known, now);
        let strangers = [
            self.pods.strangers.get(key),
            self.services.strangers.get(key),
        ];
        let strangers = strangers.into_iter().flatten();
        let strangers = strangers.chain(claims.iter().filter_map(|c| self.claims.strangers.get(c)));
        if let Some(at) = strangers.copied().chain(decision.at).min() {
            self.timers.set(key, at);
        }
        if let Some(entry) = self.sandboxes.get_mut(key) {
            let wanted = &decision.wanted;
            entry.failures.retain(|slot, _| wanted.contains(slot));
        }
        decision.writes
    }

    /// Pods of Sandboxes that are gone: the garbage collector would take them too, in its own time.
    fn leftovers(&mut self, key: &Key) -> Vec<Write> {
        let Some(uids) = self.ended.get(key) else {
            return Vec::new();
        };
        let left: Vec<&PodView> = uids.iter().flat_map(|uid| self.pods.of(uid)).collect();
        let writes = left
            .iter()
            .filter(|pod| !pod.identity.deleting)
            .map(|pod| Write::Delete {
                kind: Kind::Pod,
                object: pod.identity.object_id(),
                // Its owner may have let go of it.
                revision: Some(pod.identity.revision),
            })
            .collect();
        if left.is_empty() {
            self.ended.remove(key);
        }
        writes
    }

    fn sandbox(&mut self, change: Change<SandboxView>, now: Timestamp) {
        match change {
            Change::Upsert(view) => self.upsert(view, now),
            Change::Remove(key, uid) => self.remove(&key, &uid),
            Change::Replace(views) => {
                self.unlisted.remove("Sandbox");
                let listed: BTreeSet<Key> = views.iter().map(|v| v.identity.key.clone()).collect();
                let missing: Vec<(Key, String)> = self
                    .sandboxes
                    .iter()
                    .filter(|(key, _)| !listed.contains(*key))
                    .map(|(key, entry)| (key.clone(), entry.view.identity.uid.clone()))
                    .collect();
                for (key, uid) in missing {
                    self.remove(&key, &uid);
                }
                for view in views {
                    self.upsert(view, now);
                }
            }
        }
    }

    fn upsert(&mut self, view: SandboxView, now: Timestamp) {
        let key = view.identity.key.clone();
        self.dirty.insert(key.clone());
        if let Some(entry) = self.sandboxes.get_mut(&key)
            && entry.view.identity.uid == view.identity.uid
        {
            // Late news.
            if view.identity.revision < entry.view.identity.revision {
                return;
            }
            if entry.view.generation != view.generation {
                // What could not be done may be possible now.
                entry.failures.clear();
            }
            // Seen: from here on, what stands there counts.
            if entry.written.as_ref() == Some(&view.status) {
                entry.written = None;
            }
            entry.view = view;
            return;
        }
        if let Some(before) = self.sandboxes.get(&key) {
            let uid = before.view.identity.uid.clone();
            self.remove(&key, &uid);
        }
        let hashed = (key.namespace.clone(), name_hash(&key.name));
        self.names.entry(hashed).or_default().insert(key.clone());
        let entry = Entry {
            view,
            written: None,
            last: now,
            failures: BTreeMap::new(),
        };
        self.sandboxes.insert(key, entry);
    }

    fn remove(&mut self, key: &Key, uid: &str) {
        let is_it = self
            .sandboxes
            .get(key)
            .is_some_and(|entry| entry.view.identity.uid == uid);
        if !is_it {
            return;
        }
        self.sandboxes.remove(key);
        self.timers.clear(key);
        let hashed = (key.namespace.clone(), name_hash(&key.name));
        if let Some(keys) = self.names.get_mut(&hashed) {
            keys.remove(key);
            if keys.is_empty() {
                self.names.remove(&hashed);
            }
        }
        self.ended
            .entry(key.clone())
            .or_default()
            .insert(uid.to_owned());
        self.dirty.insert(key.clone());
    }

    /// Something of these names changed.
    fn touch(&mut self, touched: BTreeSet<Touched>) {
        for Touched { key, hash, owner } in touched {
            let hashed = (key.namespace.clone(), hash);
            if let Some(keys) = self.names.get(&hashed) {
                self.dirty.extend(keys.iter().cloned());
            }
            if let Some(name) = owner {
                let namespace = key.namespace.clone();
                self.dirty.insert(Key { namespace, name });
            }
            if self.sandboxes.contains_key(&key) {
                self.dirty.insert(key);
            }
        }
    }

    fn done(&mut self, key: &Key, results: Vec<(Write, Outcome)>, now: Timestamp) {
        self.busy.remove(key);
        self.dirty.insert(key.clone());
        for (write, outcome) in results {
            let slot = write.slot();
            if let Outcome::Is(found) | Outcome::Was(found) = &outcome {
                self.found((**found).clone(), now);
            }
            if let (Write::Delete { kind, object, .. }, Outcome::Done) = (&write, &outcome) {
                self.is_going(*kind, &Key::from(object), &object.uid);
            }
            let Some(entry) = self.sandboxes.get_mut(key) else {
                // The garbage collector does what is left.
                if outcome != Outcome::Done {
                    self.ended.remove(key);
                }
                continue;
            };
            let (message, first) = match outcome {
                Outcome::Failed(message) => (message, FIRST_PAUSE),
                // The watch is about to tell. If it does not, the same is tried again.
                Outcome::Stale => (String::new(), STALE_PAUSE),
                Outcome::Done if slot == Slot::Status => {
                    entry.failures.remove(&slot);
                    entry.last = now;
                    if let Write::Status { patch, sandbox } = write
                        && sandbox.uid == entry.view.identity.uid
                    {
                        entry.written = serde_json::from_value(patch).ok();
                    }
                    continue;
                }
                _ => {
                    entry.failures.remove(&slot);
                    continue;
                }
            };
            let pause = entry.failures.get(&slot).map_or(first, |before| {
                before.pause.saturating_mul(2).min(LONGEST_PAUSE)
            });
            let again = now.saturating_add(pause).unwrap_or(now);
            let failure = Failure {
                message,
                pause,
                again,
            };
            entry.failures.insert(slot, failure);
        }
    }

    /// An object as the API server told of it in answer to a write: newer than the watches, or unknown to them.
    fn found(&mut self, found: Found, now: Timestamp) {
        let until = now.saturating_add(STRANGER).unwrap_or(now);
        match found {
            Found::Claim(claim) => self.claims.put(claim, until, &self.gone),
            Found::Pod(pod) => self.pods.put(pod, until, &self.gone),
            Found::Service(service) => self.services.put(service, until, &self.gone),
        }
    }

    fn is_going(&mut self, kind: Kind, key: &Key, uid: &str) {
        let identity = match kind {
            Kind::Claim => self.claims.all.get_mut(key).map(|c| &mut c.identity),
            Kind::Pod => self.pods.all.get_mut(key).map(|c| &mut c.identity),
            Kind::Service => self.services.all.get_mut(key).map(|c| &mut c.identity),
        };
        if let Some(identity) = identity.filter(|identity| identity.uid == uid) {
            identity.deleting = true;
        }
    }
}
