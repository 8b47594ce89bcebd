//! The form of the files in `data/`. Read by the build script, which turns them into tables, and by the tests.

use serde::Deserialize;

/// One profile.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Its name, which is also the file's.
    pub name: String,
    /// Who runs under it.
    pub about: String,
    /// The profile that holds for all calls that this one does not name.
    #[serde(default)]
    pub extends: Option<String>,
    /// What it says beyond that. Whatever no rule names is refused with EPERM.
    pub rules: Vec<Entry>,
}

/// One rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Why it is there.
    pub reason: String,
    /// What happens to these calls.
    #[serde(default)]
    pub action: Verb,
    /// Which calls.
    pub names: Vec<String>,
    /// The only architecture that has these calls.
    #[serde(default)]
    pub arch: Option<Only>,
    /// All of these must hold.
    #[serde(default)]
    pub when: Vec<Test>,
}

/// What a rule can say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Let it through.
    #[default]
    Allow,
    /// As a kernel without that call would answer.
    Enosys,
    /// As a kernel would answer that has the call, but not for such descriptors.
    Einval,
}

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Only {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

/// A condition on one argument: one of `in` (with or without `mask`), `not_in` and `clear`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// Which argument, from 0.
    pub arg: u8,
    /// The whole 64 bits are one of these.
    #[serde(default, rename = "in")]
    pub one_of: Vec<u64>,
    /// The lower 32 bits are none of these; the kernel looks at no more of such an argument.
    #[serde(default)]
    pub not_in: Vec<u32>,
    /// None of these bits is set.
    #[serde(default)]
    pub clear: Option<u64>,
    /// Of these bits, exactly those of one of `in` are set.
    #[serde(default)]
    pub mask: Option<u64>,
}
