//! What each profile must refuse and must let through, by hand and not from the data.

use std::collections::BTreeSet;

use pilotlight_seccomp::{
    Action, Arch, BASELINE, EINVAL, ENOSYS, EPERM, GO, NODEJS, PYTHON, Process, Profile, STRICT,
    agent_profile, built_in, for_language,
};

use crate::compiled::all;
use crate::edges::{arguments, names};
use crate::lists::{ABSENT, NEEDED, REFUSED, RUNTIME_DEFAULT};

fn profile(name: &str) -> &'static Profile {
    built_in()
        .iter()
        .find(|profile| profile.name() == name)
        .unwrap()
}

/// Whether any arguments worth trying get a call through.
fn permits_some(profile: &Profile, arch: Arch, name: &str) -> bool {
    arguments(name)
        .iter()
        .any(|args| profile.verdict(arch, name, args).permits())
}

fn permitted(profile: &Profile, arch: Arch) -> BTreeSet<&'static str> {
    names()
        .into_iter()
        .filter(|name| permits_some(profile, arch, name))
        .collect()
}

#[test]
fn the_five_profiles_are_there_and_their_default_is_eperm() {
    let names: Vec<&str> = built_in().iter().map(Profile::name).collect();
    assert_eq!(names, [BASELINE, PYTHON, NODEJS, GO, STRICT]);
    for profile in built_in() {
        assert_eq!(profile.default_action(), Action::Errno(EPERM));
    }
    for process in [Process::Api, Process::Host, Process::Network] {
        assert!(agent_profile(process).is_some(), "{process:?}");
    }
}

#[test]
fn every_profile_refuses_every_family_whatever_the_arguments() {
    for profile in built_in() {
        for arch in Arch::ALL {
            for (family, names) in REFUSED {
                for name in names {
                    assert!(
                        !permits_some(profile, arch, name),
                        "{}: {family}: {name}",
                        profile.name()
                    );
                }
            }
        }
    }
}

#[test]
fn what_only_newer_kernels_have_is_answered_as_by_an_older_one() {
    for profile in built_in() {
        for arch in Arch::ALL {
            for name in ABSENT {
                assert_eq!(
                    profile.verdict(arch, name, &[0; 6]),
                    Action::Errno(ENOSYS),
                    "{}: {name}",
                    profile.name()
                );
            }
        }
    }
}

#[test]
fn every_call_since_io_uring_is_let_through_or_answered_as_absent_or_belongs_to_a_refused_family() {
    let families: BTreeSet<&str> = REFUSED
        .iter()
        .flat_map(|(_, names)| *names)
        .copied()
        .collect();
    for profile in all() {
        for arch in Arch::ALL {
            for name in names() {
                if arch.number(name).is_none_or(|number| number < 425) {
                    continue;
                }
                let verdict = profile.verdict(arch, name, &[0; 6]);
                assert!(
                    verdict.permits()
                        || verdict == Action::Errno(ENOSYS)
                        || families.contains(name),
                    "{}: {name} gives {verdict:?}",
                    profile.name()
                );
            }
        }
    }
}

#[test]
fn every_profile_lets_through_what_every_program_needs() {
    for profile in built_in() {
        for arch in Arch::ALL {
            for name in NEEDED {
                let args = [2, 1, 0, 0, 0, 0];
                assert!(
                    profile.verdict(arch, name, &args).permits(),
                    "{}: {name} on {arch:?}",
                    profile.name()
                );
            }
        }
        for name in [
            "open",
            "stat",
            "fork",
            "vfork",
            "arch_prctl",
            "epoll_wait",
            "poll",
        ] {
            assert!(
                profile.verdict(Arch::X86_64, name, &[0; 6]).permits(),
                "{}: {name}",
                profile.name()
            );
        }
    }
}

#[test]
fn languages_get_what_they_need_and_nobody_else_does() {
    let who = |name: &str| -> Vec<&str> {
        built_in()
            .iter()
            .filter(|profile| profile.verdict(Arch::X86_64, name, &[0; 6]).permits())
            .map(Profile::name)
            .collect()
    };
    assert_eq!(who("splice"), [PYTHON, GO]);
    assert_eq!(who("pkey_alloc"), [NODEJS]);
    assert_eq!(who("pkey_mprotect"), [NODEJS]);
    for arch in Arch::ALL {
        for name in [BASELINE, STRICT, NODEJS] {
            assert_eq!(
                profile(name).verdict(arch, "splice", &[0; 6]),
                Action::Errno(EINVAL)
            );
        }
    }
}

#[test]
fn baseline_is_no_wider_than_the_runtime_default_and_strict_no_wider_than_baseline() {
    let default: BTreeSet<&str> = RUNTIME_DEFAULT.split_whitespace().collect();
    for name in &default {
        assert!(names().contains(name), "{name} is no call");
    }
    for arch in Arch::ALL {
        for profile in built_in() {
            let permitted = permitted(profile, arch);
            let wider: Vec<_> = permitted.difference(&default).collect();
            assert!(
                wider.is_empty(),
                "{} lets more through on {arch:?}: {wider:?}",
                profile.name()
            );
        }
        let (baseline, strict) = (profile(BASELINE), profile(STRICT));
        for name in names() {
            for args in arguments(name) {
                assert!(
                    !strict.verdict(arch, name, &args).permits()
                        || baseline.verdict(arch, name, &args).permits(),
                    "{name} with {args:x?}"
                );
            }
        }
        let fewer = permitted(baseline, arch).len() - permitted(strict, arch).len();
        assert!(fewer > 30, "strict has only {fewer} calls less");
    }
}

#[test]
fn the_agents_processes_start_no_program_and_reach_nothing_that_no_sandbox_may() {
    let agents = [Process::Api, Process::Host, Process::Network]
        .map(|process| agent_profile(process).unwrap());
    for profile in agents {
        for arch in Arch::ALL {
            let families = REFUSED.iter().flat_map(|(_, names)| *names);
            let more = [
                "execve",
                "execveat",
                "kill",
                "mknodat",
                "memfd_create",
                "personality",
                "setuid",
                "capset",
            ];
            for name in families.chain(&more) {
                if *name == "setns" && profile.name() == "agent-network" {
                    continue;
                }
                assert!(
                    !permits_some(profile, arch, name),
                    "{}: {name}",
                    profile.name()
                );
            }
            assert_eq!(
                profile.verdict(arch, "clone3", &[0; 6]),
                Action::Errno(ENOSYS)
            );
            // Without it the further filters could not be loaded after the first.
            assert!(profile.verdict(arch, "seccomp", &[0; 6]).permits());
        }
    }
    let [api, host, network] = agents;
    for arch in Arch::ALL {
        for name in [
            "unlinkat",
            "renameat2",
            "mkdirat",
            "fchmod",
            "linkat",
            "fsync",
            "openat2",
        ] {
            assert!(!permits_some(api, arch, name), "{name}");
            assert!(permits_some(host, arch, name), "{name}");
        }
        for args in arguments("socket") {
            let host = host.verdict(arch, "socket", &args).permits();
            assert_eq!(host, args[0] == 1, "{args:x?}");
            // A packet socket would see what others send.
            let network = network.verdict(arch, "socket", &args).permits();
            assert_eq!(network, [1, 2, 10, 16].contains(&args[0]), "{args:x?}");
            let api = api.verdict(arch, "socket", &args).permits();
            let kind = args[1] & 0xf;
            let expected = ([1, 2, 10].contains(&args[0]) && (kind == 1 || kind == 2))
                || (args[0] == 16 && args[2] == 0);
            assert_eq!(api, expected, "{args:x?}");
        }
        for args in arguments("setns") {
            // Of all namespaces only the network's: a mount namespace would be a sandbox's files.
            let entered = network.verdict(arch, "setns", &args).permits();
            assert_eq!(entered, args[1] == 0x4000_0000, "{args:x?}");
        }
        assert!(!host.verdict(arch, "connect", &[0; 6]).permits());
        assert!(!network.verdict(arch, "connect", &[0; 6]).permits());
    }
}

#[test]
fn sockets_are_of_four_families() {
    for profile in built_in() {
        for arch in Arch::ALL {
            for args in arguments("socket") {
                let allowed = [1, 2, 10, 16].contains(&args[0]);
                let permitted = profile.verdict(arch, "socket", &args).permits();
                assert!(allowed || !permitted, "{} {args:x?}", profile.name());
                if profile.name() == STRICT {
                    let ordinary = args[0] != 16 && [1, 2, 5].contains(&(args[1] & 0xf));
                    let routes = args[0] == 16 && args[2] == 0;
                    assert_eq!(permitted, allowed && (ordinary || routes), "{args:x?}");
                } else {
                    assert_eq!(permitted, allowed, "{args:x?}");
                }
                let pair = profile.verdict(arch, "socketpair", &args).permits();
                assert_eq!(pair, args[0] == 1, "{args:x?}");
            }
        }
    }
}

#[test]
fn no_flag_of_clone_makes_a_namespace() {
    // NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
    let flags = [
        0x80,
        0x2_0000,
        0x200_0000,
        0x400_0000,
        0x800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000_u64,
    ];
    // What pthread_create, vfork and Go's os/exec ask for.
    let usual = [17, 0x003d_0f00, 0x4111, 0x0000_5111];
    for profile in built_in() {
        for arch in Arch::ALL {
            for base in usual {
                assert!(
                    profile
                        .verdict(arch, "clone", &[base, 0, 0, 0, 0, 0])
                        .permits(),
                    "{base:#x}"
                );
                for flag in flags {
                    for high in [0, 1 << 32] {
                        let args = [base | flag | high, 0, 0, 0, 0, 0];
                        assert_eq!(
                            profile.verdict(arch, "clone", &args),
                            Action::Errno(EPERM),
                            "{args:x?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn nobody_types_into_a_terminal_whatever_the_upper_half_of_the_request() {
    for profile in built_in() {
        for arch in Arch::ALL {
            for args in arguments("ioctl") {
                let injects = [0x5412, 0x541c].contains(&(args[1] & 0xffff_ffff));
                assert_eq!(
                    profile.verdict(arch, "ioctl", &args).permits(),
                    !injects,
                    "{args:x?}"
                );
            }
        }
    }
}

#[test]
fn named_pipes_can_be_made_and_device_nodes_cannot() {
    for arch in Arch::ALL {
        for args in arguments("mknodat") {
            let pipe = args[2] & 0xf000 == 0x1000;
            for profile in built_in() {
                let permitted = profile.verdict(arch, "mknodat", &args).permits();
                assert_eq!(permitted, pipe, "{} {args:x?}", profile.name());
            }
        }
    }
}

#[test]
fn the_personality_can_be_asked_for_and_not_weakened() {
    for profile in built_in() {
        for args in arguments("personality") {
            let permitted = profile
                .verdict(Arch::X86_64, "personality", &args)
                .permits();
            assert_eq!(
                permitted,
                profile.name() != STRICT && [0, 0xffff_ffff].contains(&args[0]),
                "{args:x?}"
            );
        }
    }
}

#[test]
fn a_language_gets_its_profile_by_any_of_its_names() {
    for (language, expected) in [
        ("python", PYTHON),
        ("Python", PYTHON),
        ("nodejs", NODEJS),
        ("node", NODEJS),
        ("javascript", NODEJS),
        ("typescript", NODEJS),
        ("go", GO),
        ("golang", GO),
        ("ruby", BASELINE),
        ("", BASELINE),
    ] {
        assert_eq!(for_language(language), expected, "{language}");
    }
}
