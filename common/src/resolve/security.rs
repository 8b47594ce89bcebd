//! Level and identity: only ever the stricter.

use crate::kinds::{RuntimeEnvironment, SecurityContext, SecurityLevel};
use crate::reasons::{Reason, Refusal};

use super::DEFAULT_USER;

/// The stricter of two levels; `custom` says what to do differently and is no stricter than `standard`.
pub(super) fn stricter(own: SecurityLevel, profile: SecurityLevel) -> SecurityLevel {
    match (own, profile) {
        (SecurityLevel::High, _) | (_, SecurityLevel::High) => SecurityLevel::High,
        (own, _) => own,
    }
}

/// User and group; only `custom` may choose them, and never root.
pub(super) fn identity(
    context: Option<&SecurityContext>,
    level: SecurityLevel,
) -> Result<(i64, i64), Refusal> {
    let user = context.and_then(|c| c.run_as_user).unwrap_or(DEFAULT_USER);
    let group = context.and_then(|c| c.run_as_group).unwrap_or(DEFAULT_USER);
    let refused = |message: String| Err(Refusal::new(Reason::InvalidSecurityContext, message));
    // The kernel's ids are 32 bits wide and the largest means "none".
    let valid = 1..i64::from(u32::MAX);
    if !valid.contains(&user) || !valid.contains(&group) {
        return refused(format!(
            "securityContext.runAsUser {user} and runAsGroup {group} must be from 1 to 4294967294: a sandbox never runs as root"
        ));
    }
    if level != SecurityLevel::Custom && (user, group) != (DEFAULT_USER, DEFAULT_USER) {
        return refused(format!(
            "securityContext.runAsUser {user} and runAsGroup {group} differ from {DEFAULT_USER}; that needs securityLevel: custom"
        ));
    }
    Ok((user, group))
}

/// Feature by which a runtime's list says that its image runs in a kernel of its own.
const GVISOR: &str = "gvisor";

/// Whether a runtime can be used at level `high`. One that lists its features must list gVisor; one without a list
/// has made no statement.
pub(super) fn suits(runtime: &RuntimeEnvironment) -> Result<(), Refusal> {
    match runtime.spec.security_features.as_deref() {
        None | Some([]) => Ok(()),
        Some(features) if features.iter().any(|f| f.eq_ignore_ascii_case(GVISOR)) => Ok(()),
        Some(_) => Err(Refusal::new(
            Reason::RuntimeIncompatible,
            "securityLevel is high, and the runtime's securityFeatures do not list gvisor; choose another runtime, or add it where the image runs there",
        )),
    }
}
