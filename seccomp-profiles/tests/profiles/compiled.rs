//! What becomes of the profiles in a container runtime, tried with every number and at every edge of the arguments.

use pilotlight_seccomp::{
    Action, Arch, ENOSYS, Process, Profile, agent_profile, built_in, in_process,
};
use proptest::prelude::*;

use crate::bpf::{Call, Instruction, run};
use crate::edges::{LAST, arguments, names, numbered};
use crate::runc::{Filter, Numbers, filter};
use crate::system::resolve;

/// All profiles of the project.
pub fn all() -> impl Iterator<Item = &'static Profile> {
    let agents = [Process::Api, Process::Host, Process::Network]
        .into_iter()
        .filter_map(agent_profile);
    built_in().iter().chain(agents)
}

/// What a filter returns for an action.
pub const fn returned(action: Action) -> u32 {
    match action {
        Action::Allow => 0x7fff_0000,
        Action::Log => 0x7ffc_0000,
        Action::Errno(number) => 0x0005_0000 | number as u32,
        Action::Trap => 0x0003_0000,
        Action::KillProcess => 0x8000_0000,
    }
}

/// Every number with every edge. A name the library does not know is left to the default, and one beyond its largest
/// to the answer that runc puts before.
fn assert_as_written(
    profile: &Profile,
    arch: Arch,
    compiled: &Filter,
    known: impl Fn(&str) -> bool,
) {
    let names = numbered(arch);
    for number in 0..=LAST {
        let name = names.get(&number).copied();
        for args in arguments(name.unwrap_or("")) {
            let expected = match name {
                _ if number > compiled.last => Action::Errno(ENOSYS),
                Some(name) if known(name) => profile.verdict(arch, name, &args),
                _ => profile.default_action(),
            };
            let call = Call {
                number,
                arch: arch.audit(),
                args,
            };
            let found = run(&compiled.instructions, &call);
            assert_eq!(
                found,
                returned(expected),
                "{} on {arch:?}: {name:?} ({number}) with {args:x?} gives {found:#x}, not {expected:?}",
                profile.name()
            );
        }
    }
}

#[test]
fn compiled_as_runc_does_every_profile_says_what_is_written_on_both_architectures() {
    for profile in all() {
        for arch in Arch::ALL {
            let compiled = filter(&profile.render(arch), arch, Numbers::Library, ENOSYS.into());
            assert!(
                compiled.last >= 424,
                "{}: {}",
                profile.name(),
                compiled.last
            );
            assert!(
                compiled.instructions.len() <= 4096,
                "the kernel takes no more than 4096 instructions"
            );
            assert_as_written(profile, arch, &compiled, |name| {
                resolve(name, Some(arch.audit())) >= 0
            });
        }
    }
}

#[test]
fn with_a_library_that_knows_every_call_every_profile_says_what_is_written() {
    let arch = Arch::native().unwrap();
    for profile in all() {
        let compiled = filter(&profile.render(arch), arch, Numbers::Ours, ENOSYS.into());
        assert_as_written(profile, arch, &compiled, |_| true);
    }
}

#[test]
fn loaded_one_after_the_other_our_own_filters_say_what_is_written() {
    for profile in all() {
        for arch in Arch::ALL {
            let filters: Vec<Vec<Instruction>> = in_process(profile, arch)
                .unwrap()
                .iter()
                .map(|filter| {
                    let instruction = |found: &seccompiler::sock_filter| Instruction {
                        code: found.code,
                        jt: found.jt,
                        jf: found.jf,
                        k: found.k,
                    };
                    filter.iter().map(instruction).collect()
                })
                .collect();
            assert!(filters.len() >= 2 && filters.iter().all(|filter| filter.len() <= 4096));
            let names = numbered(arch);
            for number in 0..=LAST {
                let name = names.get(&number).copied().unwrap_or("");
                for args in arguments(name) {
                    let call = Call {
                        number,
                        arch: arch.audit(),
                        args,
                    };
                    let expected = returned(profile.verdict(arch, name, &args));
                    assert_eq!(
                        stacked(&filters, &call),
                        expected,
                        "{}: {name} with {args:x?}",
                        profile.name()
                    );
                    let elsewhere = Call {
                        arch: 0x4000_0003,
                        ..call
                    };
                    assert_eq!(stacked(&filters, &elsewhere), returned(Action::KillProcess));
                }
            }
        }
    }
}

/// As the kernel does: from the one loaded last to the first, a stricter answer replaces the one before.
fn stacked(filters: &[Vec<Instruction>], call: &Call) -> u32 {
    // Actions are ordered as signed numbers, ending the process being the least.
    let strictness = |answer: u32| (answer & 0xffff_0000).cast_signed();
    let mut taken = returned(Action::Allow);
    for filter in filters.iter().rev() {
        let answer = run(filter, call);
        if strictness(answer) < strictness(taken) {
            taken = answer;
        }
    }
    taken
}

#[test]
fn calls_of_any_other_table_end_the_program() {
    const X32: u32 = 1 << 30;
    // 32-bit x86, 32-bit ARM, and each the other.
    let others = [0x4000_0003, 0x4000_0028, 0, u32::MAX];
    for profile in all() {
        for arch in Arch::ALL {
            let compiled = filter(&profile.render(arch), arch, Numbers::Library, ENOSYS.into());
            let permitted = |arch, number| {
                let call = Call {
                    number,
                    arch,
                    args: [0; 6],
                };
                run(&compiled.instructions, &call) >= 0x7ffc_0000
                    && run(&compiled.instructions, &call) < 0x8000_0000
            };
            let twin = Arch::ALL.into_iter().find(|other| *other != arch).unwrap();
            for number in 0..=LAST {
                for other in others.into_iter().chain([twin.audit()]) {
                    assert!(
                        !permitted(other, number),
                        "{} {other:#x} {number}",
                        profile.name()
                    );
                }
                assert!(
                    !permitted(arch.audit(), X32 | number),
                    "{} x32 {number}",
                    profile.name()
                );
            }
            assert!(!permitted(arch.audit(), u32::MAX));
        }
    }
}

#[test]
fn our_numbers_are_those_of_libseccomp() {
    let mut compared = 0;
    for name in names() {
        for arch in Arch::ALL {
            let Ok(number) = u32::try_from(resolve(name, Some(arch.audit()))) else {
                continue;
            };
            assert_eq!(arch.number(name), Some(number), "{name} on {arch:?}");
            compared += 1;
        }
        for arch in Arch::ALL {
            // What the library knows on one architecture and not on the other, we must not know there either.
            if Arch::ALL
                .iter()
                .any(|arch| resolve(name, Some(arch.audit())) >= 0)
                && resolve(name, Some(arch.audit())) < 0
            {
                assert_eq!(arch.number(name), None, "{name} on {arch:?}");
            }
        }
    }
    assert!(compared > 600, "only {compared} could be compared");
}

#[test]
fn the_largest_profile_of_a_user_that_is_accepted_is_one_that_the_kernel_loads() {
    let start = || serde_json::json!({"names": ["execve", "exit_group", "ioctl"], "action": "SCMP_ACT_ALLOW"});
    let free: Vec<&str> = names()
        .into_iter()
        .filter(|name| {
            let json = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                start(), {"names": [name], "action": "SCMP_ACT_ALLOW"},
            ]});
            Profile::from_user("mine", json.to_string().as_bytes()).is_ok()
        })
        .filter(|name| !["execve", "exit_group", "ioctl"].contains(name))
        .collect();
    let (tested, free) = free.split_at(64);
    // Both halves of each value matter, so that each test takes as many instructions as one can.
    let test = |index: u64, value: u64| serde_json::json!({"index": index, "value": value << 32 | value, "op": "SCMP_CMP_GT"});
    // On many calls all arguments, and on one call many values.
    let broad: Vec<_> = (0..64_u64)
        .zip(tested)
        .map(|(number, name)| {
            let args: Vec<_> = (0..6)
                .map(|index| test(index, 7 + number * 6 + index))
                .collect();
            serde_json::json!({"names": [name], "action": "SCMP_ACT_LOG", "args": args})
        })
        .collect();
    let deep: Vec<_> = (0..384_u64)
        .map(|number| {
            let test = serde_json::json!({"index": number % 6, "value": number << 33 | 5, "op": "SCMP_CMP_EQ"});
            serde_json::json!({"names": [tested[0]], "action": "SCMP_ACT_LOG", "args": [test]})
        })
        .collect();
    for mut syscalls in [broad, deep] {
        syscalls.push(start());
        syscalls.push(serde_json::json!({"names": free, "action": "SCMP_ACT_ALLOW"}));
        let json = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": syscalls})
            .to_string();
        let profile = Profile::from_user("mine", json.as_bytes()).unwrap();
        for arch in Arch::ALL {
            let compiled = filter(&profile.render(arch), arch, Numbers::Library, ENOSYS.into());
            let length = compiled.instructions.len();
            assert!(length > 800 && length <= 4096, "{length} instructions");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The checks of a user's profile rest on what this crate takes it to say.
    #[test]
    fn what_a_users_profile_is_taken_to_say_is_what_runc_makes_of_it(
        entries in proptest::collection::vec((0_usize..6, 0_usize..4, proptest::collection::vec((0_u8..3, 0_usize..7, 0_u64..4, 0_u64..3), 0..3)), 0..6),
        probes in proptest::collection::vec(proptest::array::uniform6(prop_oneof![0_u64..6, Just(1 << 32), Just(u64::MAX)]), 24),
    ) {
        let calls = ["read", "openat", "prctl", "open", "kill", "sendto"];
        let actions = ["ALLOW", "LOG", "KILL_PROCESS", "TRAP"];
        let ops = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
        let mut syscalls = vec![serde_json::json!({"names": ["execve", "exit_group"], "action": "SCMP_ACT_ALLOW"})];
        for (call, action, args) in entries {
            let args: Vec<_> = args.into_iter().map(|(index, op, value, two)| {
                let two = if ops[op] == "MASKED_EQ" { two & value } else { 0 };
                serde_json::json!({"index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{}", ops[op])})
            }).collect();
            syscalls.push(serde_json::json!({"names": [calls[call]], "action": format!("SCMP_ACT_{}", actions[action]), "args": args}));
        }
        let json = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 99, "syscalls": syscalls}).to_string();
        if let Ok(profile) = Profile::from_user("mine", json.as_bytes()) {
            for arch in Arch::ALL {
                let compiled = filter(&profile.render(arch), arch, Numbers::Library, ENOSYS.into());
                for call in calls {
                    let Some(number) = arch.number(call) else { continue };
                    for args in &probes {
                        let found = run(&compiled.instructions, &Call { number, arch: arch.audit(), args: *args });
                        let expected = if number > compiled.last { Action::Errno(ENOSYS) } else { profile.verdict(arch, call, args) };
                        prop_assert_eq!(found, returned(expected), "{} {:?} in {}", call, args, json);
                    }
                }
            }
        }
    }
}
