//! The profiles in the kernel itself: each refused call is made, and must fail with an error number that no kernel
//! has, so that it is seen who refused it.

use pilotlight_seccomp::Arch;

use crate::bpf::{Call, run};
use crate::compiled::all;
use crate::edges::{LAST, arguments, numbered};
use crate::runc::{Numbers, filter, made_up};
use crate::system::errors;

/// Calls that may be made in a child without doing anything.
const HARMLESS: [&str; 6] = [
    "getpid",
    "getuid",
    "sched_yield",
    "clock_gettime",
    "getrandom",
    "close",
];

/// The kernel lets these past every filter since 6.14, and ends whoever calls them without being probed.
const PAST_FILTERS: [&str; 2] = ["uretprobe", "uprobe"];

#[test]
fn the_kernel_refuses_every_call_that_a_profile_refuses() {
    let arch = Arch::native().unwrap();
    let names = numbered(arch);
    let mut refused = 0;
    for profile in all() {
        for numbers in [Numbers::Library, Numbers::Ours] {
            let compiled = filter(&made_up(&profile.render(arch)), arch, numbers, 1338);
            let calls: Vec<(u32, [u64; 6], i32)> = (0..=LAST)
                .flat_map(|number| {
                    let name = names.get(&number).copied().unwrap_or("");
                    arguments(name).into_iter().map(move |args| (number, args))
                })
                .filter_map(|(number, args)| {
                    let call = Call {
                        number,
                        arch: arch.audit(),
                        args,
                    };
                    let answer = run(&compiled.instructions, &call);
                    let errno = i32::try_from(answer & 0xffff).unwrap();
                    let name = names.get(&number).copied().unwrap_or("");
                    match answer >> 16 {
                        _ if PAST_FILTERS.contains(&name) => None,
                        0x0005 => Some((number, args, errno)),
                        0x7fff if HARMLESS.contains(&name) => Some((number, args, 0)),
                        _ => None,
                    }
                })
                .collect();
            // One pipe holds the answers of so many.
            for some in calls.chunks(8000) {
                let made: Vec<(u32, [u64; 6])> = some
                    .iter()
                    .map(|(number, args, _)| (*number, *args))
                    .collect();
                let found = errors(&compiled.instructions, &made);
                assert_eq!(found.len(), some.len());
                for ((number, args, expected), found) in some.iter().zip(found) {
                    let what = format!(
                        "{}: {:?} ({number}) with {args:x?}",
                        profile.name(),
                        names.get(number)
                    );
                    if *expected == 0 {
                        assert!(found < 1337, "{what} was refused with {found}");
                    } else {
                        assert_eq!(found, *expected, "{what}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 5000, "only {refused} calls were made");
}
