//! The seccomp profiles that can be named: the project's own, and those of labelled ConfigMaps in the system namespace. Called by
//! [`Index::handle`] only.
//!
//! A user's profile can be named once every node that takes sandboxes has installed it; what this replica finds at
//! its start was usable before, and is so at once. A node gets its label only while it has every profile that can be named, so
//! no pod lands where its profile is missing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pilotlight_common::resolve::SeccompProfiles;
use pilotlight_common::stream::{StreamMessage, UserProfile};
use pilotlight_seccomp::Profile;

use super::observe::split;
use super::{Index, Kind, Notice};
use crate::action::EventNote;
use crate::input::Change;
use crate::view::{Key, SeccompMapView};

/// Most profiles that users may bring: all of them go to every node in one message.
pub const MAX_USER_PROFILES: usize = 32;
/// What a ConfigMap's key ends with; what is before it is the profile's name.
const SUFFIX: &str = ".json";

/// What users brought.
#[derive(Debug, Default)]
pub(crate) struct Seccomp {
    maps: BTreeMap<Key, SeccompMapView>,
    valid: BTreeMap<String, Valid>,
    /// Why a profile is refused, by its name.
    refused: BTreeMap<String, String>,
    /// Refusals that an Event was asked for: UID of the ConfigMap, its key, why.
    told: BTreeSet<(String, String, String)>,
}

/// A valid profile.
#[derive(Clone, Debug)]
struct Valid {
    file: String,
    json: String,
    usable: bool,
}

impl Index {
    pub(super) fn observe_seccomp_maps(&mut self, change: Change<SeccompMapView>, now: Timestamp) {
        let (here, gone, listed) = split(change, || {
            let maps = self.seccomp.maps.values();
            maps.map(|map| (map.identity.key.clone(), map.identity.uid.clone()))
                .collect()
        });
        for (key, uid) in gone {
            if self
                .seccomp
                .maps
                .get(&key)
                .is_some_and(|map| map.identity.uid == uid)
            {
                self.seccomp.maps.remove(&key);
            }
        }
        for view in here {
            self.seccomp.maps.insert(view.identity.key.clone(), view);
        }
        let first = listed && !self.has_listed(Kind::SeccompMap);
        let before = self.user_profiles();
        self.read_seccomp_maps(first);
        let profiles = self.user_profiles();
        if before != profiles {
            for node in self.nodes.iter().filter(|(_, n)| !n.streams.is_empty()) {
                self.notices.push(Notice {
                    node: node.0.clone(),
                    stream: None,
                    message: StreamMessage::Profiles {
                        profiles: profiles.clone(),
                    },
                });
            }
        }
        self.offer_profiles(now);
        if listed {
            self.mark_synced(Kind::SeccompMap);
        }
    }

    /// What agents are told to install.
    pub(super) fn user_profiles(&self) -> Vec<UserProfile> {
        let valid = self.seccomp.valid.iter();
        valid
            .map(|(name, profile)| UserProfile {
                name: name.clone(),
                json: profile.json.clone(),
            })
            .collect()
    }

    /// Reads all of them anew: they are few, and change rarely.
    fn read_seccomp_maps(&mut self, usable_at_once: bool) {
        let mut maps: Vec<&SeccompMapView> = self.seccomp.maps.values().collect();
        // Of two of one name the elder stands.
        maps.sort_by_key(|map| (map.identity.created, map.identity.key.clone()));
        let mut valid = BTreeMap::new();
        let mut refused = BTreeMap::new();
        let mut told = BTreeSet::new();
        for map in maps {
            for (key, json) in &map.data {
                let name = key.strip_suffix(SUFFIX).unwrap_or(key);
                let why = match Profile::from_user(name, json.as_bytes()) {
                    _ if name == key => format!("its key does not end with {SUFFIX}"),
                    _ if valid.contains_key(name) => {
                        "an older ConfigMap has a profile of that name".to_owned()
                    }
                    _ if valid.len() >= MAX_USER_PROFILES => {
                        format!(
                            "there are {MAX_USER_PROFILES} profiles already, and no more are taken"
                        )
                    }
                    Err(error) => error.to_string(),
                    Ok(profile) => {
                        let file = profile.file_name();
                        let old = self.seccomp.valid.get(name);
                        let usable =
                            usable_at_once || old.is_some_and(|old| old.usable && old.file == file);
                        let json = json.clone();
                        valid.insert(name.to_owned(), Valid { file, json, usable });
                        continue;
                    }
                };
                let message = format!(
                    "seccomp profile \"{name}\" of ConfigMap {}/{} is refused: {why}",
                    map.identity.key.namespace, map.identity.key.name
                );
                let entry = (map.identity.uid.clone(), key.clone(), message.clone());
                if !self.seccomp.told.contains(&entry) {
                    let event = EventNote {
                        kind: "ConfigMap",
                        warning: true,
                        reason: "SeccompProfileInvalid".into(),
                        message: message.clone(),
                    };
                    self.records.push((map.identity.object_id(), event));
                }
                told.insert(entry);
                refused.entry(name.to_owned()).or_insert(message);
            }
        }
        self.seccomp.valid = valid;
        self.seccomp.refused = refused;
        self.seccomp.told = told;
    }

    /// After anything that may have completed, or begun, the installation of a user's profile.
    pub(super) fn settle_profiles(&mut self, now: Timestamp) {
        if self.seccomp.valid.values().any(|profile| !profile.usable) {
            self.offer_profiles(now);
        }
    }

    fn offer_profiles(&mut self, now: Timestamp) {
        let mut offered = SeccompProfiles::default();
        for (name, why) in &self.seccomp.refused {
            offered.unavailable.insert(name.clone(), why.clone());
        }
        for (name, profile) in &mut self.seccomp.valid {
            let takers = self
                .nodes
                .values()
                .filter(|n| n.labelled() || n.is_assignable());
            let (have, lack): (Vec<_>, Vec<_>) = takers.partition(|n| n.has_profile(&profile.file));
            profile.usable |= lack.is_empty();
            if profile.usable {
                offered.unavailable.remove(name);
                offered.installed.insert(name.clone(), profile.file.clone());
            } else {
                let message = format!(
                    "seccomp profile \"{name}\" is being installed: {} of {} nodes have it",
                    have.len(),
                    have.len() + lack.len()
                );
                offered.unavailable.insert(name.clone(), message);
            }
        }
        if offered != self.settings.defaults.seccomp {
            self.settings.defaults.seccomp = offered;
            self.resolve_everything(now);
            // What a node must have changed.
            self.dirty.nodes.extend(self.nodes.keys().cloned());
        }
    }
}
