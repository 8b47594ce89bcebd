//! What no profile of a user may let through.

use pilotlight_seccomp::Arch;

use crate::reading::{accepted, refused, with};

#[test]
fn what_no_sandbox_may_do_is_refused_with_what_to_write_instead() {
    let one = |name: &str, args: &str| {
        with(&format!(
            r#"{{"names":["{name}"],"action":"SCMP_ACT_ALLOW","args":[{args}]}}"#
        ))
    };
    for name in [
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "move_mount",
        "open_tree",
        "unshare",
        "setns",
        "clone3",
        "init_module",
        "finit_module",
        "delete_module",
        "kexec_load",
        "kexec_file_load",
        "reboot",
        "bpf",
        "perf_event_open",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "keyctl",
        "add_key",
        "request_key",
        "userfaultfd",
        "io_uring_setup",
        "swapon",
        "swapoff",
        "open_by_handle_at",
        "settimeofday",
        "iopl",
    ] {
        for args in ["", r#"{"index":0,"value":1,"op":"SCMP_CMP_EQ"}"#] {
            let error = refused(&one(name, args));
            assert_eq!(error.category(), "forbidden", "{error}");
            assert!(
                error
                    .to_string()
                    .contains(&format!("syscalls[1]: `{name}`")),
                "{error}"
            );
        }
        let logged = one(name, "").replace("\"SCMP_ACT_ALLOW\",\"args", "\"SCMP_ACT_LOG\",\"args");
        assert_eq!(refused(&logged).category(), "forbidden");
        // Naming it to refuse it is fine.
        accepted(&with(&format!(
            r#"{{"names":["{name}"],"action":"SCMP_ACT_ERRNO","errnoRet":38}}"#
        )));
        accepted(&with(&format!(
            r#"{{"names":["{name}"],"action":"SCMP_ACT_KILL_PROCESS"}}"#
        )));
    }
    for (name, args) in [
        ("clone", ""),
        (
            "clone",
            r#"{"index":0,"value":2114060288,"op":"SCMP_CMP_MASKED_EQ"}"#,
        ),
        (
            "clone",
            r#"{"index":0,"value":268435456,"op":"SCMP_CMP_EQ"}"#,
        ),
        (
            "clone",
            r#"{"index":0,"value":268435456,"op":"SCMP_CMP_NE"}"#,
        ),
        ("clone", r#"{"index":1,"value":0,"op":"SCMP_CMP_EQ"}"#),
        ("socket", ""),
        ("socket", r#"{"index":0,"value":38,"op":"SCMP_CMP_NE"}"#),
        ("socket", r#"{"index":0,"value":38,"op":"SCMP_CMP_LT"}"#),
        ("socket", r#"{"index":0,"value":40,"op":"SCMP_CMP_EQ"}"#),
        (
            "socket",
            r#"{"index":0,"value":3,"valueTwo":2,"op":"SCMP_CMP_MASKED_EQ"}"#,
        ),
        ("socket", r#"{"index":1,"value":2,"op":"SCMP_CMP_EQ"}"#),
        ("socketpair", ""),
        ("ioctl", r#"{"index":1,"value":21522,"op":"SCMP_CMP_EQ"}"#),
        ("ioctl", r#"{"index":1,"value":21522,"op":"SCMP_CMP_NE"}"#),
        (
            "ioctl",
            r#"{"index":1,"value":4294988818,"op":"SCMP_CMP_EQ"}"#,
        ),
        (
            "ioctl",
            r#"{"index":1,"value":65280,"valueTwo":21504,"op":"SCMP_CMP_MASKED_EQ"}"#,
        ),
        ("ioctl", r#"{"index":1,"value":30000,"op":"SCMP_CMP_LT"}"#),
        ("ioctl", r#"{"index":0,"value":0,"op":"SCMP_CMP_EQ"}"#),
    ] {
        assert_eq!(
            refused(&one(name, args)).category(),
            "forbidden",
            "{name} {args}"
        );
    }
    // What the messages tell to write is accepted.
    for (name, args) in [
        (
            "clone",
            r#"{"index":0,"value":2114060416,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}"#,
        ),
        ("socket", r#"{"index":0,"value":2,"op":"SCMP_CMP_EQ"}"#),
        ("socketpair", r#"{"index":0,"value":1,"op":"SCMP_CMP_EQ"}"#),
        ("ioctl", r#"{"index":1,"value":21505,"op":"SCMP_CMP_EQ"}"#),
        ("ioctl", r#"{"index":1,"value":21522,"op":"SCMP_CMP_LT"}"#),
    ] {
        accepted(&one(name, args));
    }
    assert!(
        refused(&one("clone", ""))
            .to_string()
            .contains(r#""value":2114060416,"valueTwo":0"#)
    );
}

#[test]
fn an_ioctl_without_conditions_loses_the_two_requests_that_type_into_terminals() {
    let profile = accepted(&with(
        r#"{"names":["ioctl","read"],"action":"SCMP_ACT_ALLOW"}"#,
    ));
    for arch in Arch::ALL {
        let permits = |request: u64| {
            profile
                .verdict(arch, "ioctl", &[0, request, 0, 0, 0, 0])
                .permits()
        };
        assert!(permits(0x5401) && permits(0x5421) && permits(u64::MAX));
        for high in [0, 1 << 32, u64::MAX << 32] {
            assert!(!permits(high | 0x5412) && !permits(high | 0x541c));
        }
        assert!(profile.verdict(arch, "read", &[0; 6]).permits());
    }
}
