//! Profiles that users bring. Called by [`Profile::from_user`].

use std::collections::BTreeMap;

use crate::arch::Arch;
use crate::builtin;
use crate::cover::all_but;
use crate::error::ProfileError;
use crate::floor::TERMINAL_INJECTION;
use crate::json::shortened;
use crate::oci::{check_floor, entry_place, parse};
use crate::profile::{Profile, Source};
use crate::rule::{Action, Condition, Rule};

/// The largest profile in bytes: the largest built-in has less than a tenth of that.
pub const MAX_BYTES: usize = 128 * 1024;
/// With the hash it must stay a sensible file name and label value.
const MAX_NAME: usize = 40;
/// Without these no program starts or ends.
const NEEDED: [&str; 2] = ["execve", "exit_group"];

pub(crate) fn read(name: &str, json: &[u8]) -> Result<Profile, ProfileError> {
    check_name(name)?;
    let parsed = parse(json)?;
    let mut rules = Vec::with_capacity(parsed.rules.len());
    for (place, rule) in narrowed(parsed.rules) {
        check_floor(place, &rule)?;
        rules.push((place, rule));
    }
    let rules = settled(parsed.default, &rules)?;
    let profile = Profile::new(name.to_owned(), Source::User, parsed.default, rules);
    for call in NEEDED {
        let permitted = Arch::ALL
            .iter()
            .all(|arch| profile.verdict(*arch, call, &[0; 6]).permits());
        if !permitted {
            return Err(ProfileError::form(
                "syscalls",
                format!("must let `{call}` through, or no container starts"),
            ));
        }
    }
    Ok(profile)
}

fn check_name(name: &str) -> Result<(), ProfileError> {
    let refused = |why| {
        Err(ProfileError::Name {
            name: shortened(name),
            why,
        })
    };
    if name.is_empty() || name.len() > MAX_NAME {
        return refused("a name has 1 to 40 characters");
    }
    if name.starts_with('-')
        || name.ends_with('-')
        || !name
            .bytes()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-')
    {
        return refused(
            "a name has small letters, digits and `-`, the last neither first nor last",
        );
    }
    if builtin::is_taken(name) {
        return refused("a profile that comes with Pilotlight has that name");
    }
    Ok(())
}

/// Takes the two requests that type into terminals out of an `ioctl` without conditions.
fn narrowed(rules: Vec<(usize, Rule)>) -> Vec<(usize, Rule)> {
    let mut all = Vec::with_capacity(rules.len());
    for (place, mut rule) in rules {
        if rule.action.permits() && rule.conditions.is_empty() && rule.names.remove("ioctl") {
            for test in all_but(&TERMINAL_INJECTION) {
                all.push((
                    place,
                    Rule {
                        names: ["ioctl".to_owned()].into(),
                        action: rule.action,
                        conditions: vec![Condition { arg: 1, test }],
                        only: None,
                    },
                ));
            }
        }
        if !rule.names.is_empty() {
            all.push((place, rule));
        }
    }
    all
}

/// Leaves out what says nothing, and refuses rules of which one would silently lose against another.
fn settled(default: Action, rules: &[(usize, Rule)]) -> Result<Vec<Rule>, ProfileError> {
    let mut of_call: BTreeMap<&str, Vec<(usize, &Rule)>> = BTreeMap::new();
    for (place, rule) in rules {
        for name in &rule.names {
            of_call.entry(name).or_default().push((*place, rule));
        }
    }
    let mut settled = Vec::new();
    for (name, rules) in of_call {
        let Some((first, action)) = rules
            .iter()
            .find(|(_, rule)| rule.action != default)
            .map(|(place, rule)| (*place, rule.action))
        else {
            continue;
        };
        if let Some((place, _)) = rules.iter().find(|(_, rule)| rule.action == default) {
            return Err(ProfileError::form(
                entry_place(*place),
                format!(
                    "says of `{name}` what the default says, so container runtimes drop it, and {} holds alone; give that entry conditions instead",
                    entry_place(first)
                ),
            ));
        }
        if let Some((place, _)) = rules.iter().find(|(_, rule)| rule.action != action) {
            return Err(ProfileError::form(
                entry_place(*place),
                format!(
                    "says something else of `{name}` than {}; which of them holds would be left to the container runtime",
                    entry_place(first)
                ),
            ));
        }
        let unconditional = rules.iter().any(|(_, rule)| rule.conditions.is_empty());
        for (_, rule) in rules {
            if unconditional != rule.conditions.is_empty() {
                continue;
            }
            settled.push(Rule {
                names: [name.to_owned()].into(),
                action: rule.action,
                conditions: rule.conditions.clone(),
                only: rule.only,
            });
        }
    }
    settled.sort_unstable();
    settled.dedup();
    Ok(settled)
}
