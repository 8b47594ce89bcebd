//! What belongs to Sandboxes, or stands in their way: the objects of one kind. Used by [`super::index`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use pilotlight_common::agents::names::NAME_HASH_LABEL;

use super::view::Child;
use crate::input::Change;
use crate::view::{Key, View};

/// Objects that are gone and whose creation may still be reported.
const GONE: usize = 4096;

/// Objects of one kind.
#[derive(Debug)]
pub(super) struct Children<T> {
    pub(super) all: BTreeMap<Key, Child<T>>,
    /// Their names by the UIDs of their owners.
    by_owner: BTreeMap<String, BTreeSet<Key>>,
    /// Those that the watches do not show, and until when they are believed.
    pub(super) strangers: BTreeMap<Key, Timestamp>,
}

impl<T> Default for Children<T> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            strangers: BTreeMap::new(),
        }
    }
}

/// What a change is of concern for.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Touched {
    pub(super) key: Key,
    pub(super) hash: String,
    pub(super) owner: Option<String>,
}

impl Touched {
    pub(super) fn by<T>(child: &Child<T>) -> Self {
        Self {
            key: child.identity.key.clone(),
            hash: child
                .labels
                .get(NAME_HASH_LABEL)
                .cloned()
                .unwrap_or_default(),
            owner: child.controller().map(|owner| owner.name.clone()),
        }
    }
}

impl<T> Children<T> {
    /// Those that an object owns.
    pub(super) fn of(&self, owner: &str) -> impl Iterator<Item = &Child<T>> {
        let keys = self.by_owner.get(owner).into_iter().flatten();
        keys.filter_map(|key| self.all.get(key))
    }

    pub(super) fn insert(&mut self, child: Child<T>) {
        let key = child.identity.key.clone();
        self.remove(&key);
        if let Some(owner) = child.controller() {
            let uid = owner.uid.clone();
            self.by_owner.entry(uid).or_default().insert(key.clone());
        }
        self.all.insert(key, child);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        let Some(child) = self.all.remove(key) else {
            return;
        };
        self.strangers.remove(key);
        if let Some(owner) = child.controller()
            && let Some(keys) = self.by_owner.get_mut(&owner.uid)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_owner.remove(&owner.uid);
            }
        }
    }

    pub(super) fn forget_strangers(&mut self, now: Timestamp) {
        let over = self.strangers.iter().filter(|(_, until)| **until <= now);
        let over: Vec<Key> = over.map(|(key, _)| key.clone()).collect();
        for key in over {
            self.remove(&key);
        }
    }

    pub(super) fn put(&mut self, child: Child<T>, until: Timestamp, gone: &VecDeque<String>) {
        let key = child.identity.key.clone();
        if gone.contains(&child.identity.uid) {
            return;
        }
        if let Some(known) = self.all.get(&key)
            && known.identity.uid == child.identity.uid
            && known.identity.revision >= child.identity.revision
        {
            return;
        }
        let stranger = !child.labels.contains_key(NAME_HASH_LABEL);
        self.insert(child);
        if stranger {
            self.strangers.insert(key, until);
        }
    }
}

pub(super) fn take<T>(
    children: &mut Children<T>,
    change: Change<Child<T>>,
    gone: &mut VecDeque<String>,
) -> BTreeSet<Touched> {
    let mut touched = BTreeSet::new();
    match change {
        Change::Upsert(child) => {
            let key = child.key().clone();
            touched.insert(Touched::by(&child));
            if let Some(known) = children.all.get(&key) {
                touched.insert(Touched::by(known));
                let late = known.identity.uid == child.identity.uid
                    && known.identity.revision > child.identity.revision;
                if late {
                    return touched;
                }
            }
            children.insert(child);
        }
        Change::Remove(key, uid) => {
            if let Some(known) = children.all.get(&key) {
                touched.insert(Touched::by(known));
                if known.identity.uid == uid {
                    children.remove(&key);
                }
            }
            gone.push_back(uid);
            while gone.len() > GONE {
                gone.pop_front();
            }
        }
        Change::Replace(list) => {
            let before = std::mem::take(children);
            touched.extend(before.all.values().map(Touched::by));
            touched.extend(list.iter().map(Touched::by));
            for child in list {
                children.insert(child);
            }
        }
    }
    touched
}
