//! What is accepted from users, and what is refused with which words.

use pilotlight_seccomp::{
    Arch, MAX_BYTES, Profile, ProfileError, Source, built_in, check_any, verify,
};
use proptest::prelude::*;

/// The least that is accepted, and something to put a case into.
pub fn with(entry: &str) -> String {
    format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["execve","exit_group"],"action":"SCMP_ACT_ALLOW"}}{}{entry}]}}"#,
        if entry.is_empty() { "" } else { "," }
    )
}

pub fn refused(json: &str) -> ProfileError {
    match Profile::from_user("mine", json.as_bytes()) {
        Ok(profile) => panic!("accepted: {json}\nas {profile:?}"),
        Err(error) => error,
    }
}

pub fn accepted(json: &str) -> Profile {
    Profile::from_user("mine", json.as_bytes()).unwrap_or_else(|error| panic!("{error}: {json}"))
}

#[test]
fn the_least_profile_is_accepted_and_keeps_its_file_name() {
    let profile = accepted(&with(""));
    assert_eq!(profile.source(), Source::User);
    assert_eq!(profile.name(), "mine");
    assert_eq!(
        String::from_utf8(profile.render(Arch::Aarch64)).unwrap(),
        "{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrnoRet\":1,\"architectures\":[\"SCMP_ARCH_AARCH64\"],\"flags\":[],\"syscalls\":[\n{\"names\":[\"execve\",\"exit_group\"],\"action\":\"SCMP_ACT_ALLOW\"}\n]}\n"
    );
    let name = profile.file_name();
    let hash = name
        .strip_prefix("mine-")
        .unwrap()
        .strip_suffix(".json")
        .unwrap();
    assert_eq!(hash.len(), 12);
    assert!(hash.bytes().all(|digit| digit.is_ascii_hexdigit()));
    assert_eq!(accepted(&with("")).file_name(), name);
    assert_ne!(
        accepted(&with(r#"{"names":["read"],"action":"SCMP_ACT_ALLOW"}"#)).file_name(),
        name
    );
}

#[test]
fn a_call_of_one_architecture_is_rendered_for_that_one_alone() {
    let profile = accepted(&with(
        r#"{"names":["open","read"],"action":"SCMP_ACT_ALLOW"}"#,
    ));
    let text = |arch| String::from_utf8(profile.render(arch)).unwrap();
    assert!(text(Arch::X86_64).contains("\"open\""));
    assert!(!text(Arch::Aarch64).contains("\"open\""));
    assert!(text(Arch::Aarch64).contains("\"read\""));
}

#[test]
fn every_built_in_profile_renders_to_a_file_that_passes() {
    for profile in built_in() {
        for arch in Arch::ALL {
            verify(&profile.render(arch), arch).unwrap();
            let other = if arch == Arch::X86_64 {
                Arch::Aarch64
            } else {
                Arch::X86_64
            };
            assert!(verify(&profile.render(arch), other).is_err());
        }
    }
}

#[test]
fn every_built_in_profile_could_be_brought_by_a_user() {
    for profile in built_in() {
        for arch in Arch::ALL {
            let mine = Profile::from_user("mine", &profile.render(arch)).unwrap();
            assert_eq!(
                mine.render(arch),
                profile.render(arch),
                "{}",
                profile.name()
            );
        }
    }
}

#[test]
fn whatever_a_container_runtime_would_take_for_unconfined_is_refused() {
    for (json, words) in [
        ("", "EOF"),
        ("null", "the profile: is null where an object must stand"),
        ("{}", "defaultAction: is missing"),
        ("[]", "the profile: is a list"),
        (r#"["SCMP_ACT_ERRNO"]"#, "the profile: is a list"),
        (
            r#"{"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#,
            "defaultAction: is missing",
        ),
        (
            r#"{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"}}"#,
            "the profile: has a key `seccomp`",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#,
            "syscalls: names no call",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":null}"#,
            "syscalls: names no call",
        ),
        (
            r#"{"defaultaction":"SCMP_ACT_ERRNO"}"#,
            "has a key `defaultaction`",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_ERRNO"}]}"#,
            "must be refused",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_LOG","syscalls":[]}"#,
            "must be refused",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_TRAP","syscalls":[]}"#,
            "must be refused",
        ),
    ] {
        let said = refused(json).to_string();
        assert!(said.contains(words), "{json}: {said}");
    }
}

#[test]
fn whatever_a_container_runtime_would_ignore_or_misread_is_refused_with_its_place() {
    let allow = |more: &str| {
        with(&format!(
            r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW"{more}}}"#
        ))
    };
    let top = |more: &str| with("").replacen('{', &format!("{{{more},"), 1);
    let arg = |arg: &str| allow(&format!(r#","args":[{arg}]"#));
    for (json, words) in [
        (
            allow(r#","includes":{"caps":["CAP_SYS_ADMIN"]}"#),
            "syscalls[1]: has a key `includes`, which is of Docker's form",
        ),
        (allow(r#","excludes":{}"#), "`excludes`"),
        (allow(r#","comment":"x""#), "`comment`"),
        (allow(r#","minKernel":"4.8""#), "`minKernel`"),
        (allow(r#","name":"write""#), "`name`"),
        (top(r#""archMap":[]"#), "the profile: has a key `archMap`"),
        (
            top(r#""listenerPath":"/run/x""#),
            "`listenerPath`, which hands calls to another program",
        ),
        (top(r#""listenerMetadata":"x""#), "`listenerMetadata`"),
        (
            top(r#""architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"]"#),
            "architectures[1]: is `SCMP_ARCH_X86`",
        ),
        (
            top(r#""architectures":"SCMP_ARCH_X86_64""#),
            "architectures: is a text where a list",
        ),
        (
            top(r#""flags":["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]"#),
            "flags: must be empty",
        ),
        (top(r#""defaultErrnoRet":0"#), "defaultErrnoRet: is 0"),
        (top(r#""defaultErrnoRet":4096"#), "defaultErrnoRet: is 4096"),
        (
            top(r#""defaultErrnoRet":-1"#),
            "defaultErrnoRet: is no whole number",
        ),
        (top(r#""defaultErrnoRet":1.5"#), "is no whole number"),
        (top(r#""defaultErrnoRet":"1""#), "is a text where a number"),
        (
            top(r#""defaultErrnoRet":true"#),
            "is true or false where a number",
        ),
        (with("[]"), "syscalls[1]: is a list where an object"),
        (
            with(r#"[["read"],"SCMP_ACT_ALLOW"]"#),
            "syscalls[1]: is a list where an object",
        ),
        (with("{}"), "syscalls[1]: has no `names`"),
        (
            with(r#"{"names":[],"action":"SCMP_ACT_ALLOW"}"#),
            "has no `names`",
        ),
        (with(r#"{"names":["read"]}"#), "has no `action`"),
        (
            with(r#"{"names":["raed"],"action":"SCMP_ACT_ALLOW"}"#),
            "syscalls[1].names[0]: is `raed`",
        ),
        (
            with(r#"{"names":["socketcall"],"action":"SCMP_ACT_ALLOW"}"#),
            "neither x86_64 nor aarch64 has",
        ),
        (
            with(r#"{"names":["read"],"action":"SCMP_ACT_NOTIFY"}"#),
            "leaves the decision to a program",
        ),
        (
            with(r#"{"names":["read"],"action":"SCMP_ACT_TRACE"}"#),
            "leaves the decision to a program",
        ),
        (
            with(r#"{"names":["read"],"action":"SCMP_ACT_KILL"}"#),
            "write SCMP_ACT_KILL_PROCESS",
        ),
        (
            with(r#"{"names":["read"],"action":"SCMP_ACT_KILL_THREAD"}"#),
            "write SCMP_ACT_KILL_PROCESS",
        ),
        (
            with(r#"{"names":["read"],"action":"allow"}"#),
            "syscalls[1].action: is `allow`, which is no action",
        ),
        (
            with(r#"{"names":["read"],"action":null}"#),
            "syscalls[1].action: is null where a text",
        ),
        (
            allow(r#","errnoRet":5"#),
            "syscalls[1].errnoRet: has no meaning with SCMP_ACT_ALLOW",
        ),
        (
            arg(r#"{"index":6,"value":0,"op":"SCMP_CMP_EQ"}"#),
            "syscalls[1].args[0].index: is 6",
        ),
        (
            arg(r#"{"index":0,"op":"SCMP_CMP_EQ"}"#),
            "syscalls[1].args[0]: needs",
        ),
        (
            arg(r#"{"index":0,"value":0,"op":"SCMP_CMP_GL"}"#),
            "syscalls[1].args[0].op: is `SCMP_CMP_GL`",
        ),
        (
            arg(r#"{"index":0,"value":0,"valueTwo":1,"op":"SCMP_CMP_EQ"}"#),
            "syscalls[1].args[0].valueTwo",
        ),
        (
            arg(r#"{"index":0,"value":6,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}"#),
            "bits that the mask 6 does not have",
        ),
        (
            arg(r#"{"index":0,"value":18446744073709551616,"op":"SCMP_CMP_EQ"}"#),
            "no whole number",
        ),
        (
            arg(
                r#"{"index":1,"value":5,"op":"SCMP_CMP_GE"},{"index":1,"value":9,"op":"SCMP_CMP_LE"}"#,
            ),
            "syscalls[1].args: tests an argument twice",
        ),
        (
            allow(r#","action":"SCMP_ACT_LOG""#),
            "the key `action` stands twice",
        ),
        (
            allow(r#","Action":"SCMP_ACT_LOG""#),
            "the key `Action` stands twice",
        ),
        (format!("{} {{}}", with("")), "trailing characters"),
        ("[".repeat(1000), "recursion limit"),
        ("\u{feff}{}".to_owned(), "not readable as JSON"),
    ] {
        let said = refused(&json).to_string();
        assert!(said.contains(words), "{json}: {said}");
    }
}

#[test]
fn rules_that_contradict_or_swallow_each_other_are_refused() {
    let first = r#"{"names":["read"],"action":"SCMP_ACT_ALLOW"}"#;
    let eq = r#""args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]"#;
    for (second, words) in [
        (
            r#"{"names":["read"],"action":"SCMP_ACT_LOG"}"#.to_owned(),
            "says something else of `read`",
        ),
        (
            format!(r#"{{"names":["read"],"action":"SCMP_ACT_KILL_PROCESS",{eq}}}"#),
            "says something else of `read`",
        ),
        (
            format!(r#"{{"names":["read"],"action":"SCMP_ACT_ERRNO",{eq}}}"#),
            "syscalls[2]: says of `read` what the default says",
        ),
    ] {
        let said = refused(&with(&format!("{first},{second}"))).to_string();
        assert!(said.contains(words), "{said}");
    }
    // The same twice, or once with conditions and once without, is the wider of the two.
    let wide = accepted(&with(first));
    assert_eq!(accepted(&with(&format!("{first},{first}"))), wide);
    assert_eq!(
        accepted(&with(&format!(
            r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW",{eq}}},{first}"#
        ))),
        wide
    );
    // What only repeats the default says nothing.
    assert_eq!(
        accepted(&with(&format!(
            r#"{first},{{"names":["mount"],"action":"SCMP_ACT_ERRNO"}}"#
        ))),
        wide
    );
}

#[test]
fn a_profile_that_starts_nothing_is_refused() {
    let json = r#"{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[{"names":["execve"],"action":"SCMP_ACT_ALLOW"}]}"#;
    assert!(
        refused(json)
            .to_string()
            .contains("must let `exit_group` through")
    );
}

#[test]
fn sizes_are_bounded() {
    let long = format!("{}{}", with(""), " ".repeat(MAX_BYTES));
    assert_eq!(refused(&long).category(), "size");
    let just = format!("{}{}", with(""), " ".repeat(MAX_BYTES - with("").len()));
    accepted(&just);
    let entry = r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}"#;
    let many = |count| with(&vec![entry; count].join(","));
    accepted(&many(384));
    assert!(
        refused(&many(385))
            .to_string()
            .contains("the kernel would not load it")
    );
}

#[test]
fn messages_stay_short_and_on_one_line_whatever_is_refused() {
    let long = "x".repeat(MAX_BYTES / 2);
    let keys: Vec<String> = (0..3000)
        .map(|number| format!(r#""k{number}":0"#))
        .collect();
    for json in [
        with(&format!(
            r#"{{"names":["{long}"],"action":"SCMP_ACT_ALLOW"}}"#
        )),
        with(&format!(r#"{{"names":["read"],"action":"{long}"}}"#)),
        with(&format!(r#"{{"{long}":0}}"#)),
        with(r#"{"a\nb":0}"#),
        with(&format!(r#"{{"{0}":0,"{0}":0}}"#, "y".repeat(1000))),
        format!(r#"{{"architectures":["{long}"]}}"#),
        format!(r#"{{"defaultAction":"{long}"}}"#),
        format!("{{{}}}", keys.join(",")),
        long,
    ] {
        let said = refused(&json).to_string();
        assert!(said.len() < 500 && !said.contains('\n'), "{said}");
    }
}

#[test]
fn a_name_is_a_label_and_not_one_of_ours() {
    let json = with("");
    for name in [
        "",
        "A",
        "a_b",
        "-a",
        "a-",
        "a.b",
        "a/b",
        "..",
        "ä",
        "a\n",
        &"a".repeat(41),
        "baseline",
        "python",
        "nodejs",
        "go",
        "strict",
        "agent-api",
        "agent-host",
        "agent-network",
    ] {
        let error = Profile::from_user(name, json.as_bytes()).unwrap_err();
        assert_eq!(error.category(), "name", "{name}");
        assert!(!error.to_string().contains('\n'));
    }
    for name in ["a", "my-profile-2", "0", &"a".repeat(40)] {
        let profile = Profile::from_user(name, json.as_bytes()).unwrap();
        assert!(profile.file_name().len() <= 40 + 1 + 12 + 5);
    }
}

#[test]
fn a_file_that_was_altered_in_any_way_is_found_out() {
    let arch = Arch::X86_64;
    let profile = accepted(&with(
        r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}"#,
    ));
    let good = profile.render(arch);
    verify(&good, arch).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    for altered in [
        text.trim_end().to_owned(),
        format!("{text} "),
        text.replace("\"flags\":[],", ""),
        text.replace("X86_64", "AARCH64"),
        text.replace("\"exit_group\"", "\"exit_group\",\"open_by_handle_at\""),
        text.replace("\"execve\",\"exit_group\"", "\"exit_group\",\"execve\""),
        text.replace("\"defaultErrnoRet\":1,", ""),
    ] {
        assert_ne!(altered, text);
        assert!(verify(altered.as_bytes(), arch).is_err(), "{altered}");
    }
    // Cut off anywhere, as by a full disk.
    for length in 0..good.len() {
        assert!(verify(&good[..length], arch).is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic_or_accept_what_they_then_refuse(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_any(&bytes).unwrap();
    }

    #[test]
    fn neither_do_profiles_with_a_few_bytes_changed(
        which in 0_usize..5,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = built_in()[which].render(Arch::X86_64);
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        check_any(&bytes).unwrap();
    }

    #[test]
    fn neither_does_any_json(text in "[\\[\\]{}:, \"a-zA-Z_0-9.eE+-]{0,80}") {
        check_any(text.as_bytes()).unwrap();
    }
}
