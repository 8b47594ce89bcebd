//! Which runtime and which profile a name means. Called by the scheduler's index.

use crate::kinds::{ProfileRef, RuntimeEnvironment};
use crate::reasons::{Reason, Refusal};

use super::shortened;

/// Whether `runtime` is what a Sandbox means by `name`: the object's name, that name with `:` for `-`, or
/// `language:version`. An earlier spelling wins over a later one, see [`find_runtime`].
fn runtime_rank(runtime: &RuntimeEnvironment, name: &str) -> Option<u8> {
    let object = runtime.metadata.name.as_deref().unwrap_or_default();
    if object == name {
        return Some(0);
    }
    if name.contains(':') && object == name.replace(':', "-") {
        return Some(1);
    }
    let (language, version) = name.split_once(':')?;
    (runtime.spec.language == language && runtime.spec.version.as_deref() == Some(version))
        .then_some(2)
}

/// The runtime that `name` means. Ties go to the name that sorts first, so that every replica agrees.
pub fn find_runtime<'a>(
    runtimes: impl IntoIterator<Item = &'a RuntimeEnvironment>,
    name: &str,
) -> Result<&'a RuntimeEnvironment, Refusal> {
    runtimes
        .into_iter()
        .filter_map(|r| runtime_rank(r, name).map(|rank| (rank, r)))
        .min_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.metadata.name.cmp(&y.metadata.name)))
        .map(|(_, r)| r)
        .ok_or_else(|| {
            Refusal::new(
                Reason::RuntimeNotFound,
                format!(
                    "no RuntimeEnvironment is named \"{}\"; see `kubectl get runtimeenvironments`, or create it",
                    shortened(name)
                ),
            )
        })
}

/// The name of the profile that a reference means, in the referring object's own namespace.
///
/// A profile of another namespace is refused: it would let one team decide about another's isolation.
pub fn profile_name<'a>(
    reference: Option<&'a ProfileRef>,
    namespace: &str,
) -> Result<Option<&'a str>, Refusal> {
    let Some(reference) = reference else {
        return Ok(None);
    };
    if let Some(other) = reference.namespace.as_deref().filter(|n| *n != namespace) {
        return Err(Refusal::new(
            Reason::ProfileInvalid,
            format!(
                "profileRef.namespace is \"{}\"; a profile must be in the same namespace as its user",
                shortened(other)
            ),
        ));
    }
    match reference.name.as_deref() {
        Some(name) if !name.is_empty() => Ok(Some(name)),
        _ => Err(Refusal::new(
            Reason::ProfileInvalid,
            "profileRef has no name; name a SandboxProfile or leave profileRef out",
        )),
    }
}

/// The refusal for a profile that does not exist.
pub fn profile_not_found(name: &str) -> Refusal {
    Refusal::new(
        Reason::ProfileNotFound,
        format!(
            "no SandboxProfile \"{}\" in this namespace; create it or change profileRef",
            shortened(name)
        ),
    )
}
