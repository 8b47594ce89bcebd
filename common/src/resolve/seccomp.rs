//! Which seccomp profile a pod runs under: a name becomes the file that every node has.
//!
//! What a Sandbox names comes before what its SandboxProfile names, and that before the profile of the runtime's language.
//! Level `high` always runs under [`STRICT`]: of any other profile nobody can tell that it is as strict.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use pilotlight_seccomp::{Profile, STRICT, built_in, for_language};

use crate::kinds::{SeccompProfile, SeccompType, SecurityLevel};
use crate::reasons::{Reason, Refusal};

use super::shortened;

/// Folder of the installed profiles, below the kubelet's own seccomp folder.
pub const SECCOMP_FOLDER: &str = "pilotlight";
/// The word by which a SandboxProfile asks for the container runtime's own profile.
const RUNTIME_DEFAULT: &str = "RuntimeDefault";
/// Most names that a message lists.
const LISTED: usize = 20;

/// The profiles that can be named.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SeccompProfiles {
    /// File name by name, of what every node that takes sandboxes has.
    pub installed: BTreeMap<String, String>,
    /// Why a profile of that name cannot be used, or not yet; a sentence that says what to do.
    pub unavailable: BTreeMap<String, String>,
}

/// The project's own. A file's name is a hash of all that is in it, which is not to be made at every turn.
static OWN: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let named = |profile: &Profile| (profile.name().to_owned(), profile.file_name());
    built_in().iter().map(named).collect()
});

impl Default for SeccompProfiles {
    /// The project's own.
    fn default() -> Self {
        Self {
            installed: OWN.clone(),
            unavailable: BTreeMap::new(),
        }
    }
}

impl SeccompProfiles {
    fn file(&self, name: &str) -> Result<String, Refusal> {
        if let Some(file) = self.installed.get(name) {
            return Ok(file.clone());
        }
        let unknown = || {
            let names = self.installed.keys().take(LISTED).map(String::as_str);
            format!(
                "there is no seccomp profile \"{}\"; use one of {}, or type RuntimeDefault",
                shortened(name),
                names.collect::<Vec<_>>().join(", ")
            )
        };
        let message = self.unavailable.get(name).cloned().unwrap_or_else(unknown);
        Err(Refusal::new(Reason::SeccompProfileUnknown, message))
    }
}

/// The file of the profile to run under; none is the container runtime's own profile.
pub(super) fn seccomp(
    own: Option<&SeccompProfile>,
    profile: Option<&str>,
    level: SecurityLevel,
    language: &str,
    profiles: &SeccompProfiles,
) -> Result<Option<String>, Refusal> {
    let asked = match own {
        Some(SeccompProfile {
            type_: Some(SeccompType::Localhost),
            localhost_profile: None,
        }) => {
            return Err(Refusal::new(
                Reason::SeccompProfileUnknown,
                "securityContext.seccompProfile has type Localhost and no localhostProfile; name one there",
            ));
        }
        Some(SeccompProfile {
            type_: Some(SeccompType::Localhost),
            localhost_profile: Some(name),
        }) => Some(name.as_str()),
        Some(SeccompProfile {
            type_: Some(SeccompType::RuntimeDefault),
            localhost_profile: _,
        }) => Some(RUNTIME_DEFAULT),
        Some(SeccompProfile { type_: None, .. }) | None => profile,
    };
    match (level, asked) {
        (SecurityLevel::High, None | Some(RUNTIME_DEFAULT | STRICT)) => {
            profiles.file(STRICT).map(Some)
        }
        (SecurityLevel::High, Some(name)) => Err(Refusal::new(
            Reason::InvalidSecurityContext,
            format!(
                "securityLevel high runs under seccomp profile \"{STRICT}\" and no other; leave \"{}\" out, or choose another level",
                shortened(name)
            ),
        )),
        (_, Some(RUNTIME_DEFAULT)) => Ok(None),
        (_, Some(name)) => profiles.file(name).map(Some),
        (_, None) => profiles.file(for_language(language)).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn localhost(name: Option<&str>) -> SeccompProfile {
        SeccompProfile {
            type_: Some(SeccompType::Localhost),
            localhost_profile: name.map(str::to_owned),
        }
    }

    fn choose(
        own: Option<&SeccompProfile>,
        profile: Option<&str>,
        level: SecurityLevel,
    ) -> Result<Option<String>, Refusal> {
        seccomp(own, profile, level, "python", &SeccompProfiles::default())
    }

    fn starts(chosen: Result<Option<String>, Refusal>, name: &str) -> bool {
        chosen
            .ok()
            .flatten()
            .is_some_and(|file| file.starts_with(&format!("{name}-")))
    }

    #[test]
    fn a_sandbox_that_names_none_runs_under_its_language() {
        assert!(starts(
            choose(None, None, SecurityLevel::Standard),
            "python"
        ));
        assert!(starts(choose(None, None, SecurityLevel::Custom), "python"));
        let other = seccomp(
            None,
            None,
            SecurityLevel::Standard,
            "cobol",
            &SeccompProfiles::default(),
        );
        assert!(starts(other, "baseline"));
    }

    #[test]
    fn the_sandbox_comes_before_its_profile() {
        let own = localhost(Some("go"));
        assert!(starts(
            choose(Some(&own), Some("nodejs"), SecurityLevel::Standard),
            "go"
        ));
        assert!(starts(
            choose(None, Some("nodejs"), SecurityLevel::Standard),
            "nodejs"
        ));
        let own = SeccompProfile {
            type_: Some(SeccompType::RuntimeDefault),
            localhost_profile: None,
        };
        let chosen = choose(Some(&own), Some("nodejs"), SecurityLevel::Standard);
        assert_eq!(chosen, Ok(None));
        let chosen = choose(None, Some(RUNTIME_DEFAULT), SecurityLevel::Standard);
        assert_eq!(chosen, Ok(None));
    }

    #[test]
    fn level_high_is_never_made_weaker_by_a_name() {
        assert!(starts(choose(None, None, SecurityLevel::High), STRICT));
        let own = SeccompProfile {
            type_: Some(SeccompType::RuntimeDefault),
            localhost_profile: None,
        };
        assert!(starts(
            choose(Some(&own), None, SecurityLevel::High),
            STRICT
        ));
        let refusal = choose(None, Some("python"), SecurityLevel::High).unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidSecurityContext);
    }

    #[test]
    fn a_name_that_nobody_installed_is_refused_with_those_there_are() {
        for own in [localhost(Some("mine")), localhost(None)] {
            let refusal = choose(Some(&own), None, SecurityLevel::Standard).unwrap_err();
            assert_eq!(refusal.reason, Reason::SeccompProfileUnknown);
        }
        let refusal = choose(None, Some("mine"), SecurityLevel::Standard).unwrap_err();
        assert!(refusal.message.contains("baseline"), "{refusal}");
        let mut profiles = SeccompProfiles::default();
        profiles
            .unavailable
            .insert("mine".into(), "it is being installed".into());
        let refusal = seccomp(None, Some("mine"), SecurityLevel::Custom, "go", &profiles);
        assert_eq!(refusal.unwrap_err().message, "it is being installed");
    }
}
