//! Reads OCI seccomp profiles, refusing whatever a container runtime would ignore or take for something else.
//! Called by `user`, and for files that were rendered here.

use std::collections::BTreeSet;

use crate::arch::Arch;
use crate::error::ProfileError;
use crate::floor;
use crate::json::{self, Json, shortened};
use crate::render::render;
use crate::rule::{Action, Condition, EPERM, Rule, Test};
use crate::user::MAX_BYTES;

/// Tests in all rules together, counted for each call: the kernel takes filters of 4,096 instructions, and a test
/// takes up to six.
const MAX_TESTS: usize = 384;
/// The kernel cuts larger error numbers down.
const MAX_ERRNO: u64 = 4095;
/// Arguments of a call.
const ARGS: u64 = 6;

/// A profile as it was read.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) default: Action,
    /// With the number of the entry each comes from.
    pub(crate) rules: Vec<(usize, Rule)>,
}

/// Whether these bytes are what rendering their content for this architecture gives: for reading a file back.
///
/// # Errors
/// Says how they differ from a profile that may be installed.
pub fn verify(bytes: &[u8], arch: Arch) -> Result<(), ProfileError> {
    let parsed = parse(bytes)?;
    for (place, rule) in &parsed.rules {
        check_floor(*place, rule)?;
    }
    let rules: Vec<Rule> = parsed.rules.into_iter().map(|(_, rule)| rule).collect();
    if render(parsed.default, &rules, arch) == bytes {
        Ok(())
    } else {
        Err(ProfileError::Altered { arch: arch.oci() })
    }
}

/// Refuses a rule that lets through what nothing may.
pub(crate) fn check_floor(place: usize, rule: &Rule) -> Result<(), ProfileError> {
    if !rule.action.permits() {
        return Ok(());
    }
    for call in &rule.names {
        if let Some(why) = floor::objection(call, &rule.conditions) {
            return Err(ProfileError::Forbidden {
                place: entry_place(place),
                call: call.clone(),
                why,
            });
        }
    }
    Ok(())
}

/// How messages name an entry.
pub(crate) fn entry_place(place: usize) -> String {
    format!("syscalls[{place}]")
}

/// Reads the bytes. Every name resolves, every entry is sound in itself.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, ProfileError> {
    if bytes.len() > MAX_BYTES {
        return Err(ProfileError::Size {
            found: bytes.len(),
            most: MAX_BYTES,
        });
    }
    let mut default = None;
    let mut default_errno = Json::Null;
    let mut entries = None;
    for (key, value) in json::read(bytes)?.object("the profile")? {
        match key.as_str() {
            "defaultAction" => default = Some(value.text("defaultAction")?),
            "defaultErrnoRet" => default_errno = value,
            "architectures" => architectures(value)?,
            "flags" => flags(value)?,
            "syscalls" => entries = Some(value.list("syscalls")?),
            _ => return Err(unknown_key("the profile", &key)),
        }
    }
    // Without both, runc takes the profile for none at all and starts the container unconfined.
    let Some(default) = default else {
        return Err(ProfileError::form(
            "defaultAction",
            "is missing; write \"SCMP_ACT_ERRNO\" (a profile without it would not confine anything)",
        ));
    };
    let default = default_action(&default, &default_errno)?;
    let entries = entries.unwrap_or_default();
    if entries.is_empty() {
        return Err(ProfileError::form(
            "syscalls",
            "names no call; no container could start",
        ));
    }
    let mut rules = Vec::with_capacity(entries.len());
    let mut tests = 0;
    for (place, value) in entries.into_iter().enumerate() {
        let rule = entry(&entry_place(place), value)?;
        tests += rule.conditions.len() * rule.names.len();
        if tests > MAX_TESTS {
            return Err(ProfileError::form(
                entry_place(place),
                format!(
                    "is the one with which the profile has more than {MAX_TESTS} tests of arguments; the kernel would not load it"
                ),
            ));
        }
        rules.push((place, rule));
    }
    Ok(Parsed { default, rules })
}

fn default_action(name: &str, errno: &Json) -> Result<Action, ProfileError> {
    match action("defaultAction", "defaultErrnoRet", name, errno)? {
        action @ (Action::Errno(_) | Action::KillProcess) => Ok(action),
        _ => Err(ProfileError::form(
            "defaultAction",
            format!(
                "is {name}; what no rule names must be refused: SCMP_ACT_ERRNO or SCMP_ACT_KILL_PROCESS"
            ),
        )),
    }
}

fn action(
    place: &str,
    errno_place: &str,
    name: &str,
    errno: &Json,
) -> Result<Action, ProfileError> {
    let action = match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_ERRNO" => {
            if *errno == Json::Null {
                return Ok(Action::Errno(EPERM));
            }
            let number = errno.number(errno_place)?;
            return match u16::try_from(number) {
                Ok(short) if (1..=MAX_ERRNO).contains(&number) => Ok(Action::Errno(short)),
                _ => Err(ProfileError::form(
                    errno_place,
                    format!(
                        "is {number}; error numbers go from 1 to {MAX_ERRNO}, and 0 would pretend that the call worked"
                    ),
                )),
            };
        }
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => {
            return Err(ProfileError::form(
                place,
                format!(
                    "is {name}, which ends one thread and leaves the others waiting for it; write SCMP_ACT_KILL_PROCESS"
                ),
            ));
        }
        "SCMP_ACT_NOTIFY" | "SCMP_ACT_TRACE" => {
            return Err(ProfileError::form(
                place,
                format!(
                    "is {name}, which leaves the decision to a program; nothing here answers it"
                ),
            ));
        }
        _ => {
            return Err(ProfileError::form(
                place,
                format!(
                    "is `{}`, which is no action; there are SCMP_ACT_ALLOW, _LOG, _ERRNO, _TRAP and _KILL_PROCESS",
                    shortened(name)
                ),
            ));
        }
    };
    if *errno == Json::Null {
        Ok(action)
    } else {
        Err(ProfileError::form(
            errno_place,
            format!("has no meaning with {name}; leave it out"),
        ))
    }
}

/// Only the native one is rendered, so any list of those we have will do, and so will none.
fn architectures(value: Json) -> Result<(), ProfileError> {
    for (place, item) in value.list("architectures")?.into_iter().enumerate() {
        let place = format!("architectures[{place}]");
        let name = item.text(&place)?;
        if !Arch::ALL.iter().any(|arch| arch.oci() == name) {
            return Err(ProfileError::form(
                place,
                format!(
                    "is `{}`; only SCMP_ARCH_X86_64 and SCMP_ARCH_AARCH64 can stand here (a profile applies to the node's own; others would open their tables of calls too)",
                    shortened(&name)
                ),
            ));
        }
    }
    Ok(())
}

fn flags(value: Json) -> Result<(), ProfileError> {
    if value.list("flags")?.is_empty() {
        Ok(())
    } else {
        Err(ProfileError::form(
            "flags",
            "must be empty or absent; the flags are the node's to choose",
        ))
    }
}

fn entry(place: &str, value: Json) -> Result<Rule, ProfileError> {
    let mut names = None;
    let mut verb = None;
    let mut errno = Json::Null;
    let mut conditions = Vec::new();
    for (key, value) in value.object(place)? {
        let inner = format!("{place}.{key}");
        match key.as_str() {
            "names" => names = Some(calls(&inner, value)?),
            "action" => verb = Some(value.text(&inner)?),
            "errnoRet" => errno = value,
            "args" => {
                for (number, item) in value.list(&inner)?.into_iter().enumerate() {
                    conditions.push(condition(&format!("{inner}[{number}]"), item)?);
                }
            }
            _ => return Err(unknown_key(place, &key)),
        }
    }
    let names = names.unwrap_or_default();
    if names.is_empty() {
        return Err(ProfileError::form(place, "has no `names`"));
    }
    let Some(verb) = verb else {
        return Err(ProfileError::form(place, "has no `action`"));
    };
    let mut args: Vec<u8> = conditions.iter().map(|condition| condition.arg).collect();
    args.sort_unstable();
    args.dedup();
    if args.len() != conditions.len() {
        return Err(ProfileError::form(
            format!("{place}.args"),
            "tests an argument twice, and container runtimes would take either test for enough; write an entry for each way the call may be made",
        ));
    }
    conditions.sort_unstable();
    Ok(Rule {
        names,
        action: action(
            &format!("{place}.action"),
            &format!("{place}.errnoRet"),
            &verb,
            &errno,
        )?,
        conditions,
        only: None,
    })
}

fn calls(place: &str, value: Json) -> Result<BTreeSet<String>, ProfileError> {
    let mut names = BTreeSet::new();
    for (number, item) in value.list(place)?.into_iter().enumerate() {
        let place = format!("{place}[{number}]");
        let name = item.text(&place)?;
        if !Arch::ALL.iter().any(|arch| arch.number(&name).is_some()) {
            return Err(ProfileError::form(
                place,
                format!(
                    "is `{}`, a call that neither x86_64 nor aarch64 has; container runtimes would ignore it",
                    shortened(&name)
                ),
            ));
        }
        names.insert(name);
    }
    Ok(names)
}

fn condition(place: &str, value: Json) -> Result<Condition, ProfileError> {
    let (mut index, mut first, mut second, mut op) = (None, None, None, None);
    for (key, value) in value.object(place)? {
        let inner = format!("{place}.{key}");
        match key.as_str() {
            "index" => index = Some(value.number(&inner)?),
            "value" => first = Some(value.number(&inner)?),
            "valueTwo" => second = Some(value.number(&inner)?),
            "op" => op = Some(value.text(&inner)?),
            _ => return Err(unknown_key(place, &key)),
        }
    }
    let (Some(index), Some(value), Some(op)) = (index, first, op) else {
        return Err(ProfileError::form(place, "needs `index`, `value` and `op`"));
    };
    let arg = match u8::try_from(index) {
        Ok(arg) if index < ARGS => arg,
        _ => {
            return Err(ProfileError::form(
                format!("{place}.index"),
                format!("is {index}; calls have arguments 0 to 5"),
            ));
        }
    };
    let two = second.unwrap_or_default();
    let test = match op.as_str() {
        "SCMP_CMP_NE" => Test::NotEqual(value),
        "SCMP_CMP_LT" => Test::Less(value),
        "SCMP_CMP_LE" => Test::LessOrEqual(value),
        "SCMP_CMP_EQ" => Test::Equal(value),
        "SCMP_CMP_GE" => Test::GreaterOrEqual(value),
        "SCMP_CMP_GT" => Test::Greater(value),
        // libseccomp cuts the bits off that the mask does not have, and the test would pass for more than it says.
        "SCMP_CMP_MASKED_EQ" if two & !value != 0 => {
            return Err(ProfileError::form(
                format!("{place}.valueTwo"),
                format!("is {two}, with bits that the mask {value} does not have"),
            ));
        }
        "SCMP_CMP_MASKED_EQ" => {
            return Ok(Condition {
                arg,
                test: Test::Masked {
                    mask: value,
                    value: two,
                },
            });
        }
        _ => {
            return Err(ProfileError::form(
                format!("{place}.op"),
                format!(
                    "is `{}`, which is no comparison; there are SCMP_CMP_NE, _LT, _LE, _EQ, _GE, _GT and _MASKED_EQ",
                    shortened(&op)
                ),
            ));
        }
    };
    if two != 0 {
        return Err(ProfileError::form(
            format!("{place}.valueTwo"),
            format!("has a meaning with SCMP_CMP_MASKED_EQ alone, not with {op}"),
        ));
    }
    Ok(Condition { arg, test })
}

fn unknown_key(place: &str, key: &str) -> ProfileError {
    let why = match key {
        "includes" | "excludes" | "archMap" | "minKernel" | "comment" | "name" => {
            "is of Docker's form; container runtimes ignore it here, which turns exceptions into rules for everybody. Write out what is to apply"
        }
        "listenerPath" | "listenerMetadata" => {
            "hands calls to another program; no such thing exists here"
        }
        _ => {
            "is no key of an OCI seccomp profile, whose keys are defaultAction, defaultErrnoRet, architectures, flags and syscalls (names, action, errnoRet, args), directly and in these letters"
        }
    };
    ProfileError::form(
        place,
        format!("has a key `{}`, which {why}", shortened(key)),
    )
}
