//! Profiles as OCI JSON. Written by hand and not by a serialiser: the bytes are hashed, so no feature of a library
//! may reorder them. Called by `profile`.

use std::collections::{BTreeMap, BTreeSet};

use crate::arch::Arch;
use crate::rule::{Action, Condition, Rule, Test};

/// The JSON for one architecture, with only the calls it has and a new line at the end.
pub(crate) fn render(default: Action, rules: &[Rule], arch: Arch) -> Vec<u8> {
    // Names with the same action and conditions share an entry; sorting makes the bytes those of the content.
    let mut groups: BTreeMap<(&[Condition], Action), BTreeSet<&str>> = BTreeMap::new();
    for rule in rules
        .iter()
        .filter(|rule| rule.only.is_none_or(|only| only == arch))
    {
        for name in rule.names.iter().filter(|name| arch.number(name).is_some()) {
            groups
                .entry((&rule.conditions, rule.action))
                .or_default()
                .insert(name);
        }
    }
    let entries: Vec<String> = groups
        .into_iter()
        .map(|((conditions, action), names)| entry(conditions, action, &names))
        .collect();
    let (name, number) = action(default);
    let number = number.map_or_else(String::new, |number| {
        format!("\"defaultErrnoRet\":{number},")
    });
    // `flags` is there and empty: where it is absent, runc adds one that turns a processor mitigation off.
    format!(
        "{{\"defaultAction\":\"{name}\",{number}\"architectures\":[\"{}\"],\"flags\":[],\"syscalls\":[\n{}\n]}}\n",
        arch.oci(),
        entries.join(",\n")
    )
    .into_bytes()
}

fn entry(conditions: &[Condition], what: Action, names: &BTreeSet<&str>) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let (action, number) = action(what);
    let number = number.map_or_else(String::new, |number| format!(",\"errnoRet\":{number}"));
    let args: Vec<String> = conditions.iter().map(condition).collect();
    let args = if args.is_empty() {
        String::new()
    } else {
        format!(",\"args\":[{}]", args.join(","))
    };
    format!(
        "{{\"names\":[{}],\"action\":\"{action}\"{number}{args}}}",
        names.join(",")
    )
}

fn condition(condition: &Condition) -> String {
    let (op, value, two) = match condition.test {
        Test::NotEqual(value) => ("NE", value, None),
        Test::Less(value) => ("LT", value, None),
        Test::LessOrEqual(value) => ("LE", value, None),
        Test::Equal(value) => ("EQ", value, None),
        Test::GreaterOrEqual(value) => ("GE", value, None),
        Test::Greater(value) => ("GT", value, None),
        // `value` is the mask here, and `valueTwo` what must be left.
        Test::Masked { mask, value } => ("MASKED_EQ", mask, Some(value)),
    };
    let two = two.map_or_else(String::new, |two| format!(",\"valueTwo\":{two}"));
    format!(
        "{{\"index\":{},\"value\":{value}{two},\"op\":\"SCMP_CMP_{op}\"}}",
        condition.arg
    )
}

const fn action(action: Action) -> (&'static str, Option<u16>) {
    match action {
        Action::Allow => ("SCMP_ACT_ALLOW", None),
        Action::Log => ("SCMP_ACT_LOG", None),
        Action::Errno(number) => ("SCMP_ACT_ERRNO", Some(number)),
        Action::Trap => ("SCMP_ACT_TRAP", None),
        Action::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
    }
}
