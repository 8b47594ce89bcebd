//! What a profile consists of, and what it says of a call. Pure; everything else in this crate reads it.

use std::collections::BTreeSet;

use crate::arch::Arch;

/// The call is not permitted.
pub const EPERM: u16 = 1;
/// The call cannot be made so; programs then do it in another way.
pub const EINVAL: u16 = 22;
/// The kernel does not have this call; programs then do without it.
pub const ENOSYS: u16 = 38;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It is let through.
    Allow,
    /// It is let through and written to the node's log.
    Log,
    /// It fails with this error number.
    Errno(u16),
    /// The process gets a SIGSYS that it can handle.
    Trap,
    /// The process ends.
    KillProcess,
}

impl Action {
    /// Whether the call happens.
    #[must_use]
    pub const fn permits(self) -> bool {
        matches!(self, Self::Allow | Self::Log)
    }
}

/// A test of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// Which argument, from 0 to 5.
    pub arg: u8,
    /// What is asked of it.
    pub test: Test,
}

/// What is asked of an argument, taken as 64 unsigned bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    /// It is not this.
    NotEqual(u64),
    /// It is less.
    Less(u64),
    /// It is less, or this.
    LessOrEqual(u64),
    /// It is this.
    Equal(u64),
    /// It is more, or this.
    GreaterOrEqual(u64),
    /// It is more.
    Greater(u64),
    /// Of the bits of `mask`, exactly those of `value` are set.
    Masked {
        /// The bits that are looked at.
        mask: u64,
        /// What they must be.
        value: u64,
    },
}

impl Condition {
    /// Whether a call with these arguments passes the test.
    #[must_use]
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        let Some(&found) = args.get(usize::from(self.arg)) else {
            return false;
        };
        match self.test {
            Test::NotEqual(value) => found != value,
            Test::Less(value) => found < value,
            Test::LessOrEqual(value) => found <= value,
            Test::Equal(value) => found == value,
            Test::GreaterOrEqual(value) => found >= value,
            Test::Greater(value) => found > value,
            Test::Masked { mask, value } => found & mask == value,
        }
    }
}

/// What happens to some calls, all conditions holding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The calls, by name.
    pub names: BTreeSet<String>,
    /// What happens to them.
    pub action: Action,
    /// Tests of different arguments.
    pub conditions: Vec<Condition>,
    /// The only architecture this rule is for.
    pub only: Option<Arch>,
}

impl Rule {
    /// Whether it speaks of this call on this architecture.
    #[must_use]
    pub fn covers(&self, arch: Arch, name: &str) -> bool {
        self.only.is_none_or(|only| only == arch) && self.names.contains(name)
    }
}

/// What these rules say of a call. Rules of one profile never disagree about one, so their order means nothing.
#[must_use]
pub fn verdict<'a>(
    rules: impl IntoIterator<Item = &'a Rule>,
    otherwise: Action,
    arch: Arch,
    name: &str,
    args: &[u64; 6],
) -> Action {
    rules
        .into_iter()
        .find(|rule| {
            rule.covers(arch, name)
                && rule
                    .conditions
                    .iter()
                    .all(|condition| condition.holds(args))
        })
        .map_or(otherwise, |rule| rule.action)
}
