//! The two architectures that nodes have here, and their system calls by name. Read by everything in this crate.

use std::str::FromStr;

use serde::Deserialize;

/// An architecture that profiles are rendered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 64-bit x86. Its 32-bit and x32 tables are never allowed: they would bring `socketcall` and `ipc` back.
    X86_64,
    /// 64-bit ARM, for the same reason without 32-bit ARM.
    Aarch64,
}

impl Arch {
    /// Both, in the order in which their renderings are hashed.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The one this program was compiled for; none where no profile can be rendered for it.
    #[must_use]
    pub const fn native() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// As OCI profiles write it.
    #[must_use]
    pub const fn oci(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
        }
    }

    /// What the kernel puts into the `arch` field that a filter sees (`AUDIT_ARCH_*`).
    #[must_use]
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The number of a system call, where this architecture has it.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        match self {
            Self::X86_64 => syscalls::x86_64::Sysno::from_str(name)
                .ok()
                .and_then(|call| u32::try_from(call.id()).ok()),
            // The table of the crate calls number 79 by a name nobody else uses, and lists the calls with 64-bit
            // times that only 32-bit architectures have; container runtimes know neither.
            Self::Aarch64 => match name {
                "newfstatat" => Some(79),
                "fstatat" => None,
                _ if name.ends_with("64") && name.contains("time") => None,
                _ => syscalls::aarch64::Sysno::from_str(name)
                    .ok()
                    .and_then(|call| u32::try_from(call.id()).ok()),
            },
        }
    }
}
