//! A profile: a name, a default and rules. Made by `builtin` and `user`, rendered by `render`.

use sha2::{Digest, Sha256};

use crate::arch::Arch;
use crate::error::ProfileError;
use crate::render::render;
use crate::rule::{Action, Rule, verdict};

/// Hex digits of the hash in a file's name: enough that two profiles of one name never meet by chance.
const HASH_DIGITS: usize = 12;

/// Where a profile comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Built in, for sandboxes.
    BuiltIn,
    /// Built in, for a process of the node agent.
    Agent,
    /// Given by a user.
    User,
}

/// A profile. Never changes; one with other content has another file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    name: String,
    source: Source,
    default: Action,
    rules: Vec<Rule>,
    file_name: String,
}

impl Profile {
    pub(crate) fn new(name: String, source: Source, default: Action, rules: Vec<Rule>) -> Self {
        let mut hash = Sha256::new();
        for arch in Arch::ALL {
            hash.update(render(default, &rules, arch));
        }
        let mut digits = hex::encode(hash.finalize());
        digits.truncate(HASH_DIGITS);
        let file_name = format!("{name}-{digits}.json");
        Self {
            name,
            source,
            default,
            rules,
            file_name,
        }
    }

    /// Reads the OCI JSON that a user gives under a name of their own.
    ///
    /// `architectures` may be absent or name only those of [`Arch`]; the profile is rendered for the native one alone
    /// either way. An `ioctl` that is let through without conditions becomes all of `ioctl` but `TIOCSTI` and
    /// `TIOCLINUX`, since nobody should have to spell out that exclusion, which takes 34 rules.
    ///
    /// # Errors
    /// On anything that a container runtime would ignore, take for something else or not load, and on a profile that
    /// lets a call through that no sandbox may make.
    pub fn from_user(name: &str, json: &[u8]) -> Result<Self, ProfileError> {
        crate::user::read(name, json)
    }

    /// Its logical name: what a Sandbox or a SandboxProfile says.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it comes from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// What happens to a call that no rule speaks of.
    #[must_use]
    pub const fn default_action(&self) -> Action {
        self.default
    }

    /// Its rules, for both architectures.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What it says of a call.
    #[must_use]
    pub fn verdict(&self, arch: Arch, name: &str, args: &[u64; 6]) -> Action {
        verdict(&self.rules, self.default, arch, name, args)
    }

    /// The OCI JSON for one architecture: always the same bytes for the same content.
    #[must_use]
    pub fn render(&self, arch: Arch) -> Vec<u8> {
        render(self.default, &self.rules, arch)
    }

    /// `<name>-<hash>.json`, the hash being over the renderings for both architectures, so that a pod may carry it
    /// before anybody knows on which node it will run.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.file_name.clone()
    }
}
