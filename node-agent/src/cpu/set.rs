//! Sets of CPUs, and the kernel's way to write them (`0-3,8`). Used by all of [`super`].

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// CPU numbers below this are taken; the largest kernels are built for 8192 CPUs.
pub const MAX_CPUS: u32 = 8192;
/// Longest list that is read, in bytes: every second CPU of 8192 takes some 20 KiB.
pub const MAX_LIST_BYTES: usize = 64 << 10;

/// Why a list of CPUs was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CpuListError {
    /// Longer than any list of [`MAX_CPUS`].
    #[error("a list of CPUs is {0} bytes long, and {MAX_LIST_BYTES} are the most; is it one?")]
    TooLong(usize),
    /// Not a number, nor a range of two.
    #[error("\"{0}\" is neither a CPU nor a range of CPUs such as 0-3; write a list such as 0-3,8")]
    Malformed(String),
    /// A CPU that no kernel has.
    #[error("CPU {0} is out of range: the highest is {highest}", highest = MAX_CPUS - 1)]
    OutOfRange(u32),
}

/// A set of CPUs.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuSet(BTreeSet<u32>);

impl CpuSet {
    /// Reads a list as the kernel writes it; an empty one is the empty set. CPUs may come in any order.
    pub fn parse(text: &str) -> Result<Self, CpuListError> {
        if text.len() > MAX_LIST_BYTES {
            return Err(CpuListError::TooLong(text.len()));
        }
        let text = text.trim_matches([' ', '\n', '\t', '\0']);
        let mut set = BTreeSet::new();
        if text.is_empty() {
            return Ok(Self(set));
        }
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                None => {
                    let cpu = number(part, part)?;
                    (cpu, cpu)
                }
                Some((first, last)) => (number(first, part)?, number(last, part)?),
            };
            if first > last {
                return Err(malformed(part));
            }
            set.extend(first..=last);
        }
        Ok(Self(set))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a CPU is in it.
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.contains(&cpu)
    }

    /// The lowest.
    pub fn first(&self) -> Option<u32> {
        self.0.first().copied()
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    /// What is in this and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }

    /// Whether they have no CPU in common.
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.0.is_disjoint(&other.0)
    }

    /// Whether every CPU of this is in the other.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Self) {
        self.0.extend(other.iter());
    }
}

/// Digits only: `+1` and ` 1` are numbers to the standard library and not to the kernel.
fn number(text: &str, part: &str) -> Result<u32, CpuListError> {
    if text.is_empty() || text.len() > 9 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed(part));
    }
    let cpu = text.parse().map_err(|_| malformed(part))?;
    if cpu >= MAX_CPUS {
        return Err(CpuListError::OutOfRange(cpu));
    }
    Ok(cpu)
}

fn malformed(part: &str) -> CpuListError {
    // It may be anybody's text, so it is cut.
    CpuListError::Malformed(part.chars().take(40).collect())
}

impl FromIterator<u32> for CpuSet {
    /// Takes the CPUs that a kernel can have and leaves others out.
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self(cpus.into_iter().filter(|cpu| *cpu < MAX_CPUS).collect())
    }
}

impl TryFrom<String> for CpuSet {
    type Error = CpuListError;

    fn try_from(text: String) -> Result<Self, CpuListError> {
        Self::parse(&text)
    }
}

impl From<CpuSet> for String {
    fn from(set: CpuSet) -> Self {
        set.to_string()
    }
}

impl fmt::Display for CpuSet {
    /// As the kernel writes it: ascending, with ranges.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| *next == last + 1) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        for (text, written) in [
            ("", ""),
            ("\n", ""),
            ("0", "0"),
            ("0-1\n", "0-1"),
            ("0-3,8,10-11\n", "0-3,8,10-11"),
            ("8,0-3", "0-3,8"),
            ("3-3,4", "3-4"),
            ("8191", "8191"),
        ] {
            assert_eq!(
                CpuSet::parse(text).unwrap().to_string(),
                written,
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_no_kernel_writes_is_refused_and_never_expanded() {
        let long = "1,".repeat(MAX_LIST_BYTES);
        for text in [
            "3-1",
            "-",
            "-1",
            "1-",
            "1--2",
            "1-2-3",
            "a",
            "0x1",
            "+1",
            "1, 2",
            ",",
            "1,",
            "0-31:2/4",
            "8192",
            "0-4294967295",
            "99999999999",
            "0-999999999",
            "٣",
            long.as_str(),
        ] {
            assert!(CpuSet::parse(text).is_err(), "{text:.20}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,60}|[0-9,\\-]{0,60}") {
            if let Ok(set) = CpuSet::parse(&text) {
                prop_assert!(set.len() <= MAX_CPUS as usize);
            }
        }

        #[test]
        fn what_was_written_is_read_back(cpus in proptest::collection::btree_set(0..MAX_CPUS, 0..200)) {
            let set: CpuSet = cpus.into_iter().collect();
            let text = set.to_string();
            prop_assert!(text.len() <= MAX_LIST_BYTES);
            prop_assert_eq!(CpuSet::parse(&text).unwrap(), set);
        }
    }
}
