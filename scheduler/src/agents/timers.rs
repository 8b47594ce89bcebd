//! When to look at Sandboxes again. Used by [`super::index`].

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::view::Key;

/// When to look at Sandboxes again.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<Key, Timestamp>,
    pub(super) order: BTreeSet<(Timestamp, Key)>,
}

impl Timers {
    pub(super) fn set(&mut self, key: &Key, at: Timestamp) {
        self.clear(key);
        self.at.insert(key.clone(), at);
        self.order.insert((at, key.clone()));
    }

    pub(super) fn clear(&mut self, key: &Key) {
        if let Some(at) = self.at.remove(key) {
            self.order.remove(&(at, key.clone()));
        }
    }

    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<Key> {
        let due = self.order.iter().take_while(|(at, _)| *at <= now);
        let due: Vec<Key> = due.map(|(_, key)| key.clone()).collect();
        for key in &due {
            self.clear(key);
        }
        due
    }
}
