//! Calls to try a profile with: every number that is or may become one, and for each the arguments at which something
//! may turn.

use std::collections::{BTreeMap, BTreeSet};

use pilotlight_seccomp::{Arch, explained};

/// Beyond the largest number of any kernel so far.
pub const LAST: u32 = 600;

/// All names that either architecture has.
pub fn names() -> BTreeSet<&'static str> {
    let x86 = syscalls::x86_64::Sysno::iter().map(|call| call.name());
    let arm = syscalls::aarch64::Sysno::iter().map(|call| call.name());
    // The iterators of that crate end one short of the newest call.
    let ours = explained().flat_map(|rule| rule.names.iter().copied());
    x86.chain(arm)
        .chain(ours)
        .filter(|name| Arch::ALL.iter().any(|arch| arch.number(name).is_some()))
        .collect()
}

/// The names by number.
pub fn numbered(arch: Arch) -> BTreeMap<u32, &'static str> {
    names()
        .into_iter()
        .filter_map(|name| Some((arch.number(name)?, name)))
        .collect()
}

/// The arguments worth trying with a call.
pub fn arguments(name: &str) -> Vec<[u64; 6]> {
    let mut all = vec![[0; 6], [u64::MAX; 6], [1; 6]];
    let mut first = |value: u64| all.push([value, 1, 0, 0, 0, 0]);
    match name {
        "socket" | "socketpair" => {
            for family in 0..=46_u64 {
                for high in [0, 1 << 32, u64::MAX << 32] {
                    for kind in [0, 1, 2, 3, 4, 5, 10, 0x80801, 0x80003, 1 << 32 | 1] {
                        for protocol in [0, 1, 9, 16, 38, 1 << 32] {
                            all.push([family | high, kind, protocol, 0, 0, 0]);
                        }
                    }
                }
            }
        }
        "clone" => {
            for bit in 0..64 {
                first(1 << bit);
                first(0x11 | 1 << bit);
                first(0x003d_0f00 | 1 << bit);
            }
        }
        "personality" => {
            for bit in 0..64 {
                first(1 << bit);
            }
            first(0xffff_ffff);
            first(0x0002_0008);
        }
        "prctl" => (0..96)
            .chain([0x5356_4d41, 0x5961_6d61, 1 << 32])
            .for_each(first),
        "ioctl" => {
            for near in [0x5412_u64, 0x541c, 0x541b, 0x5401, 0x5421, 0x8004_5430] {
                for high in [0, 1 << 32, 1 << 63, u64::MAX << 32] {
                    all.push([0, near | high, 0, 0, 0, 0]);
                    for bit in 0..32 {
                        all.push([0, (near ^ 1 << bit) | high, 0, 0, 0, 0]);
                    }
                }
            }
        }
        "setns" => {
            for bit in 0..64 {
                all.push([3, 1 << bit, 0, 0, 0, 0]);
            }
            all.push([3, 0x4002_0000, 0, 0, 0, 0]);
        }
        "mknod" | "mknodat" => {
            for kind in 0..16_u64 {
                for mode in [0, 0o666, 0xffff_0000_0000_0fff] {
                    let mode = kind << 12 | mode;
                    all.push([0, mode, mode, 0, 0, 0]);
                }
            }
        }
        _ => {}
    }
    all
}
