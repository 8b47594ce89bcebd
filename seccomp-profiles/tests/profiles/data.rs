//! How the data is written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pilotlight_seccomp::{Arch, Rule, explained, verdict};

use crate::compiled::all;
use crate::edges::{arguments, names};

#[path = "../../src/source.rs"]
mod source;

use source::Document;

fn texts() -> BTreeMap<String, String> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    fs::read_dir(data)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn read(text: &str) -> Result<Document, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn every_file_is_read_and_none_is_left_out() {
    let names: Vec<String> = texts().into_keys().collect();
    assert_eq!(
        names,
        [
            "agent-api",
            "agent-host",
            "agent-network",
            "baseline",
            "go",
            "nodejs",
            "python",
            "strict"
        ]
    );
    let mut used: Vec<&str> = all().map(pilotlight_seccomp::Profile::name).collect();
    used.sort_unstable();
    assert_eq!(used, names);
    for (name, text) in texts() {
        let document = read(&text).unwrap();
        assert_eq!(document.name, name);
        assert!(
            document.about.len() > 5
                && document
                    .extends
                    .as_deref()
                    .is_none_or(|base| base == "baseline")
        );
        let rules = explained().filter(|rule| rule.profile == name);
        assert_eq!(rules.count(), document.rules.len());
        assert!(explained().all(|rule| rule.about.len() > 5));
    }
}

#[test]
fn a_key_nobody_knows_or_one_that_stands_twice_is_refused() {
    let good = "name: a\nabout: b\nrules:\n  - reason: c\n    names: [read]\n";
    let document = read(good).unwrap();
    assert_eq!(document.rules[0].action, source::Verb::Allow);
    assert!(document.rules[0].arch.is_none() && document.rules[0].when.is_empty());
    for bad in [
        format!("{good}    comment: x\n"),
        format!("{good}    names: [write]\n"),
        format!("{good}    action: log\n"),
        format!("{good}    arch: riscv64\n"),
        format!("{good}    when: [{{arg: 0, gt: 5}}]\n"),
        format!("{good}    when: [{{arg: -1, in: [5]}}]\n"),
        format!("defaultAction: allow\n{good}"),
        "name: a\nabout: b\nrules:\n  - names: [read]\n".to_owned(),
        "name: a\nrules: []\n".to_owned(),
    ] {
        assert!(read(&bad).is_err(), "{bad}");
    }
    let full = read(&format!(
        "{good}    arch: aarch64\n    action: einval\n    when: [{{arg: 1, mask: 0xf, in: [1]}}, {{arg: 2, not_in: [0x5412]}}, {{arg: 3, clear: 7}}]\n"
    ))
    .unwrap();
    let rule = &full.rules[0];
    assert_eq!(
        (rule.arch, rule.action),
        (Some(source::Only::Aarch64), source::Verb::Einval)
    );
    assert_eq!(rule.reason, "c");
    assert_eq!(rule.names, ["read"]);
    assert_eq!(
        (
            rule.when[0].arg,
            rule.when[0].mask,
            rule.when[0].one_of.as_slice()
        ),
        (1, Some(15), &[1][..])
    );
    assert_eq!(rule.when[1].not_in, [0x5412]);
    assert_eq!(rule.when[2].clear, Some(7));
}

#[test]
fn every_name_is_a_call_of_just_the_architectures_it_is_written_for() {
    for rule in explained() {
        for name in rule.names {
            for arch in Arch::ALL {
                let expected = rule.only.is_none_or(|only| only == arch);
                assert_eq!(
                    arch.number(name).is_some(),
                    expected,
                    "{}: {name} on {arch:?} (say `arch` in the data where only one has it)",
                    rule.profile
                );
            }
        }
    }
}

#[test]
fn every_rule_says_why_in_a_sentence() {
    for rule in explained() {
        assert!(
            rule.reason.len() > 20 && rule.reason.ends_with('.'),
            "{}: {}",
            rule.profile,
            rule.reason
        );
    }
}

#[test]
fn no_call_stands_twice_and_no_two_rules_disagree() {
    for profile in all() {
        for arch in Arch::ALL {
            for name in names() {
                let rules: Vec<&Rule> = profile
                    .rules()
                    .iter()
                    .filter(|rule| rule.covers(arch, name))
                    .collect();
                for args in arguments(name) {
                    let holding = rules
                        .iter()
                        .filter(|rule| {
                            rule.conditions
                                .iter()
                                .all(|condition| condition.holds(&args))
                        })
                        .count();
                    assert!(
                        holding <= 1,
                        "{}: {name} with {args:x?}: {holding} rules",
                        profile.name()
                    );
                }
            }
        }
    }
}

#[test]
fn without_any_one_of_its_rules_a_profile_would_say_something_else() {
    for profile in all() {
        for (place, rule) in profile.rules().iter().enumerate() {
            for name in &rule.names {
                let matters = Arch::ALL
                    .into_iter()
                    .filter(|arch| arch.number(name).is_some())
                    .any(|arch| {
                        let default = profile.default_action();
                        let about = |(_, rule): &(usize, &'static Rule)| rule.covers(arch, name);
                        let all: Vec<_> =
                            profile.rules().iter().enumerate().filter(about).collect();
                        arguments(name).iter().any(|args| {
                            let with = all.iter().map(|(_, rule)| *rule);
                            let without = all
                                .iter()
                                .filter(|(other, _)| *other != place)
                                .map(|(_, rule)| *rule);
                            verdict(with, default, arch, name, args)
                                != verdict(without, default, arch, name, args)
                        })
                    });
                assert!(
                    matters,
                    "{}: what is said of {name} in {rule:?} changes nothing",
                    profile.name()
                );
            }
        }
    }
}

#[test]
fn an_extension_says_nothing_that_the_profile_below_it_says_already() {
    let named = |name: &str| all().find(|profile| profile.name() == name).unwrap();
    let mut tried = 0;
    for text in texts().values() {
        let document = read(text).unwrap();
        let Some(base) = document.extends else {
            continue;
        };
        let (own, base) = (named(&document.name), named(&base));
        for name in document.rules.iter().flat_map(|rule| &rule.names) {
            let differs = Arch::ALL.into_iter().any(|arch| {
                arguments(name)
                    .iter()
                    .any(|args| own.verdict(arch, name, args) != base.verdict(arch, name, args))
            });
            assert!(differs, "{}: {name}", document.name);
            tried += 1;
        }
    }
    assert!(tried >= 5);
}
