//! Which seccomp profiles the node must have, and which it has. Called by [`super::State`].
//!
//! `host` brings the project's own itself. What users brought comes by the node streams: a replica's list is whole, and the
//! lists of all replicas count together, since one may be a moment behind. A profile is sent to `host` once; a check every
//! few seconds repairs what somebody changed on the node, and finds out where a new `host` process does not know a profile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Replica;
use super::backoff::Time;
use crate::protocol::{CheckedProfiles, MAX_PROFILES, ProfileFile, UserProfile};

/// Time between two checks; the issue of a changed file is settled within it.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// A profile that `host` refused is offered again after this: an update of the agent may have made it acceptable.
const REFUSED_INTERVAL: Duration = Duration::from_mins(5);

/// What became of a user's profile.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Fate {
    Installed(ProfileFile),
    Refused { why: String, since: Time },
}

/// What is to be asked of `host`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ask {
    /// To install this profile.
    Install(UserProfile),
    /// To check all of them.
    Check {
        /// The users' that somebody may name.
        wanted: BTreeSet<ProfileFile>,
        /// Those that pods of the node name.
        named: BTreeSet<ProfileFile>,
    },
}

/// The profiles of the node.
#[derive(Debug, Default)]
pub struct Profiles {
    lists: BTreeMap<Replica, BTreeSet<UserProfile>>,
    fates: BTreeMap<UserProfile, Fate>,
    installed: BTreeSet<ProfileFile>,
    problem: Option<String>,
    checked: bool,
    asking: bool,
    check_at: Time,
}

impl Profiles {
    /// A replica lists exactly these.
    pub fn heard(&mut self, replica: Replica, profiles: Vec<UserProfile>) {
        let list = profiles.into_iter().take(MAX_PROFILES).collect();
        self.lists.insert(replica, list);
        self.forget_unlisted();
    }

    /// A replica is gone for good. The last list stays: better a profile too many than one too few.
    pub fn forget(&mut self, replica: Replica) {
        if self.lists.len() > 1 {
            self.lists.remove(&replica);
            self.forget_unlisted();
        }
    }

    fn forget_unlisted(&mut self) {
        let lists = &self.lists;
        self.fates
            .retain(|profile, _| lists.values().any(|list| list.contains(profile)));
    }

    /// What to ask of `host` now, at most one thing at a time; else when to ask next.
    pub fn due(
        &mut self,
        not_before: Time,
        named: impl FnOnce() -> BTreeSet<ProfileFile>,
        now: Time,
    ) -> Result<Ask, Time> {
        if self.asking {
            return Err(Time::MAX);
        }
        if not_before > now {
            return Err(not_before);
        }
        let fates = &self.fates;
        let next = self
            .lists
            .values()
            .flatten()
            .find(|profile| match fates.get(*profile) {
                None => true,
                Some(Fate::Installed(_)) => false,
                Some(Fate::Refused { since, .. }) => *since + REFUSED_INTERVAL <= now,
            });
        if let Some(profile) = next {
            self.asking = true;
            return Ok(Ask::Install(profile.clone()));
        }
        if self.check_at > now {
            return Err(self.check_at);
        }
        self.asking = true;
        self.check_at = now + CHECK_INTERVAL;
        let wanted = self
            .fates
            .values()
            .filter_map(|fate| match fate {
                Fate::Installed(file) => Some(file.clone()),
                Fate::Refused { .. } => None,
            })
            .take(MAX_PROFILES)
            .collect();
        let mut named = named();
        while named.len() > MAX_PROFILES {
            named.pop_last();
        }
        Ok(Ask::Check { wanted, named })
    }

    /// `host` did not answer.
    pub fn unanswered(&mut self) {
        self.asking = false;
    }

    /// `host` answered [`Ask::Install`].
    pub fn installed(
        &mut self,
        profile: UserProfile,
        result: Result<ProfileFile, String>,
        now: Time,
    ) {
        self.asking = false;
        // Known as installed to the schedulers after the next check, which is due at once.
        self.check_at = now;
        let fate = match result {
            Ok(file) => Fate::Installed(file),
            Err(why) => Fate::Refused { why, since: now },
        };
        self.fates.insert(profile, fate);
        self.forget_unlisted();
    }

    /// `host` answered [`Ask::Check`].
    pub fn checked(&mut self, seen: CheckedProfiles) {
        let CheckedProfiles {
            installed,
            unknown,
            problem,
            repaired: _,
        } = seen;
        self.asking = false;
        self.checked = true;
        self.installed = installed.into_iter().collect();
        self.problem = problem;
        self.fates.retain(|_, fate| match fate {
            Fate::Installed(file) => !unknown.contains(file),
            Fate::Refused { .. } => true,
        });
    }

    /// File names of what is installed.
    pub fn names(&self) -> Vec<String> {
        self.installed
            .iter()
            .map(|file| file.as_str().to_owned())
            .collect()
    }

    /// Why pods had better not come to this node, if anything. A users' profile that `host` refuses is no reason: the
    /// schedulers see that it is not installed, and refuse those who name it.
    pub fn lacking(&self) -> Option<String> {
        if !self.checked {
            return Some("the node's seccomp profiles were not looked at yet".to_owned());
        }
        if let Some(problem) = &self.problem {
            return Some(problem.clone());
        }
        let unsettled = self
            .lists
            .values()
            .flatten()
            .any(|profile| !self.fates.contains_key(profile));
        unsettled.then(|| "the users' seccomp profiles are being installed".to_owned())
    }

    /// The users' profiles that `host` refused: name and reason.
    pub fn refused(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fates.iter().filter_map(|(profile, fate)| match fate {
            Fate::Refused { why, .. } => Some((profile.name.as_str(), why.as_str())),
            Fate::Installed(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::at;
    use super::*;

    fn replica(n: u16) -> Replica {
        Replica::from(([10, 0, 0, 1], n))
    }

    fn profile(name: &str) -> UserProfile {
        UserProfile {
            name: name.into(),
            json: "{}".into(),
        }
    }

    fn file(name: &str) -> ProfileFile {
        ProfileFile::try_from(format!("{name}-0123456789ab.json")).unwrap()
    }

    fn due(profiles: &mut Profiles, now: Time) -> Result<Ask, Time> {
        profiles.due(Time::ZERO, BTreeSet::new, now)
    }

    fn checked(profiles: &mut Profiles, installed: &[&str], unknown: &[&str]) {
        profiles.checked(CheckedProfiles {
            installed: installed.iter().map(|name| file(name)).collect(),
            unknown: unknown.iter().map(|name| file(name)).collect(),
            problem: None,
            repaired: 0,
        });
    }

    #[test]
    fn a_node_is_complete_once_every_profile_was_seen_installed() {
        let mut profiles = Profiles::default();
        assert!(profiles.lacking().is_some());
        assert!(matches!(due(&mut profiles, at(0)), Ok(Ask::Check { .. })));
        assert_eq!(due(&mut profiles, at(9)), Err(Time::MAX), "one at a time");
        checked(&mut profiles, &["baseline"], &[]);
        assert_eq!(profiles.lacking(), None);

        profiles.heard(replica(1), vec![profile("mine")]);
        assert!(profiles.lacking().is_some());
        assert_eq!(
            due(&mut profiles, at(10)),
            Ok(Ask::Install(profile("mine")))
        );
        profiles.installed(profile("mine"), Ok(file("mine")), at(10));
        let check = due(&mut profiles, at(10));
        assert_eq!(
            check,
            Ok(Ask::Check {
                wanted: [file("mine")].into(),
                named: BTreeSet::new()
            })
        );
        checked(&mut profiles, &["baseline", "mine"], &[]);
        assert_eq!(profiles.lacking(), None);
        assert_eq!(profiles.names().len(), 2);
        assert_eq!(due(&mut profiles, at(10)), Err(at(12)), "and again soon");
    }

    #[test]
    fn a_new_host_process_is_told_again() {
        let mut profiles = Profiles::default();
        profiles.heard(replica(1), vec![profile("mine")]);
        due(&mut profiles, at(0)).unwrap();
        profiles.installed(profile("mine"), Ok(file("mine")), at(0));
        due(&mut profiles, at(0)).unwrap();
        checked(&mut profiles, &["baseline"], &["mine"]);
        assert!(profiles.lacking().is_some());
        assert_eq!(due(&mut profiles, at(0)), Ok(Ask::Install(profile("mine"))));
        profiles.unanswered();
        assert_eq!(due(&mut profiles, at(0)), Ok(Ask::Install(profile("mine"))));
    }

    #[test]
    fn a_refused_profile_keeps_no_pod_away_and_is_offered_again_later() {
        let mut profiles = Profiles::default();
        profiles.heard(replica(1), vec![profile("bad")]);
        due(&mut profiles, at(0)).unwrap();
        profiles.installed(profile("bad"), Err("no".into()), at(0));
        due(&mut profiles, at(0)).unwrap();
        checked(&mut profiles, &["baseline"], &[]);
        assert_eq!(profiles.lacking(), None);
        assert_eq!(profiles.refused().collect::<Vec<_>>(), [("bad", "no")]);
        assert!(matches!(due(&mut profiles, at(9)), Ok(Ask::Check { .. })));
        profiles.unanswered();
        assert_eq!(
            due(&mut profiles, at(300)),
            Ok(Ask::Install(profile("bad")))
        );
    }

    #[test]
    fn what_any_replica_lists_is_wanted_and_the_last_list_stays() {
        let mut profiles = Profiles::default();
        profiles.heard(replica(1), vec![profile("a")]);
        profiles.heard(replica(2), vec![]);
        due(&mut profiles, at(0)).unwrap();
        profiles.installed(profile("a"), Ok(file("a")), at(0));
        profiles.forget(replica(2));
        profiles.forget(replica(1));
        let Ok(Ask::Check { wanted, .. }) = due(&mut profiles, at(0)) else {
            unreachable!("a check is due")
        };
        assert_eq!(wanted, [file("a")].into());
        profiles.unanswered();
        profiles.heard(replica(1), vec![]);
        let Ok(Ask::Check { wanted, .. }) = due(&mut profiles, at(3)) else {
            unreachable!("a check is due")
        };
        assert!(wanted.is_empty());
    }
}
