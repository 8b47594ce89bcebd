//! Users' seccomp profiles: the ConfigMaps that hold them, and the nodes that have them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use pilotlight_common::resolve::SeccompProfiles;
use pilotlight_common::stream::{StreamMessage, UserProfile};
use pilotlight_scheduler::action::Action;
use pilotlight_scheduler::input::{Change, Input};
use pilotlight_scheduler::view::{Identity, Key, SeccompMapView};
use pilotlight_seccomp::{Arch, GO, built_in};

use super::World;

/// A profile that a user may bring: what the project's own for Go says.
pub static PROFILE: LazyLock<String> = LazyLock::new(|| {
    let go = built_in().iter().find(|profile| profile.name() == GO);
    String::from_utf8(go.unwrap().render(Arch::X86_64)).unwrap()
});

impl World {
    /// Somebody creates or edits a ConfigMap; the scheduler sees it at once.
    pub fn put_seccomp_map(&mut self, name: &str, data: &[(&str, &str)]) {
        let old = self
            .seccomp_maps
            .iter()
            .position(|map| map.identity.key.name == name)
            .map(|at| self.seccomp_maps.remove(at));
        let fresh = self.identity(name);
        let identity = Identity {
            key: Key {
                namespace: "system".into(),
                name: name.into(),
            },
            uid: old.map_or(fresh.uid, |map| map.identity.uid),
            ..fresh
        };
        let data: BTreeMap<String, String> = data
            .iter()
            .map(|(key, json)| ((*key).to_owned(), (*json).to_owned()))
            .collect();
        let view = SeccompMapView { identity, data };
        self.seccomp_maps.push(view.clone());
        self.handle(Input::SeccompMap(Change::Upsert(view)));
    }

    /// Somebody deletes it.
    pub fn delete_seccomp_map(&mut self, name: &str) {
        if let Some(at) = self
            .seccomp_maps
            .iter()
            .position(|map| map.identity.key.name == name)
        {
            let identity = self.seccomp_maps.remove(at).identity;
            self.handle(Input::SeccompMap(Change::Remove(
                identity.key,
                identity.uid,
            )));
        }
    }

    /// What a node's agent reports as installed: the project's own, and what the test says.
    pub(super) fn profiles_on(&self, node: &str) -> Vec<String> {
        let own = SeccompProfiles::default().installed.into_values();
        own.chain(self.installed.get(node).into_iter().flatten().cloned())
            .collect()
    }

    /// A node's agent installs a file and says so.
    pub fn install(&mut self, node: &str, file: &str) {
        self.installed
            .entry(node.to_owned())
            .or_default()
            .push(file.to_owned());
        self.report(node);
    }

    /// The watch of nodes shows a label as it is now.
    pub fn show_label(&mut self, node: &str, labelled: bool) {
        let view = self.change_node(node, |view| view.labelled = labelled);
        self.handle(Input::Node(Change::Upsert(view)));
    }

    /// The profiles that agents were last told of.
    pub fn profiles_told(&self) -> Option<&[UserProfile]> {
        self.told
            .iter()
            .rev()
            .find_map(|notice| match &notice.message {
                StreamMessage::Profiles { profiles } | StreamMessage::Snapshot { profiles, .. } => {
                    Some(profiles.as_slice())
                }
                _ => None,
            })
    }

    /// The labels that the scheduler asked for since the last call, in order.
    pub fn take_labels(&mut self) -> Vec<(String, bool)> {
        let (labels, rest) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|action| matches!(action, Action::LabelNode { .. }));
        self.under_way = rest;
        let labels: Vec<Action> = labels;
        labels
            .into_iter()
            .filter_map(|action| match action {
                Action::LabelNode { node, ready } => Some((node, ready)),
                _ => None,
            })
            .collect()
    }
}
