//! What a Sandbox asks for, made explicit.

use crate::kinds::{NetworkAccess, RuntimeEnvironment, SandboxProfile, SandboxSpec, Storage};
use crate::quantity::Bytes;
use crate::reasons::{Reason, Refusal};

use super::merge::{Asked, template};
use super::resources::volume_size;
use super::{DEFAULT_TIMEOUT_SECONDS, Defaults, PodTemplate};

/// A Sandbox with everything it asks for made explicit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResolvedSandbox {
    /// What its pod must be.
    pub template: PodTemplate,
    /// Lifetime in seconds.
    pub timeout_seconds: i64,
    /// Size of its persistent volume, where it has one. A volume grows with it and never shrinks.
    pub volume: Option<Bytes>,
}

/// What a Sandbox asks of its pod.
pub fn resolve_sandbox(
    namespace: &str,
    spec: &SandboxSpec,
    profile: Option<&SandboxProfile>,
    runtime: &RuntimeEnvironment,
    defaults: &Defaults,
) -> Result<ResolvedSandbox, Refusal> {
    let SandboxSpec {
        runtime: _,
        security_level,
        timeout,
        resources,
        network_access,
        filesystem,
        storage,
        security_context,
        profile_ref: _,
    } = spec;
    if resources.as_ref().and_then(|r| r.cpu_pinning) == Some(true) {
        return Err(Refusal::new(
            Reason::CpuPinningUnavailable,
            "resources.cpuPinning is true, and no node can pin CPUs yet; leave it out",
        ));
    }
    network(network_access.as_ref())?;
    let volume = volume(storage.as_ref(), defaults)?;
    let template = template(
        namespace,
        &Asked {
            level: *security_level,
            resources: resources.as_ref(),
            filesystem: filesystem.as_ref(),
            security_context: security_context.as_ref(),
            has_volume: volume.is_some(),
        },
        profile,
        runtime,
        defaults,
    )?;
    Ok(ResolvedSandbox {
        template,
        timeout_seconds: timeout.unwrap_or(DEFAULT_TIMEOUT_SECONDS),
        volume,
    })
}

/// Whether what may be edited of a Sandbox that runs can be fulfilled. The rest of its spec is fixed, so nothing else
/// about it can be refused any more.
pub fn check_edit(spec: &SandboxSpec, defaults: &Defaults) -> Result<(), Refusal> {
    network(spec.network_access.as_ref())?;
    volume(spec.storage.as_ref(), defaults).map(|_| ())
}

fn network(access: Option<&NetworkAccess>) -> Result<(), Refusal> {
    // Even an empty list asks for something: for no egress at all.
    if access.is_some() {
        return Err(Refusal::new(
            Reason::NetworkRulesUnavailable,
            "networkAccess asks for rules, and no node enforces them yet; leave it out",
        ));
    }
    Ok(())
}

fn volume(storage: Option<&Storage>, defaults: &Defaults) -> Result<Option<Bytes>, Refusal> {
    match storage {
        Some(Storage {
            persistent: Some(true),
            volume_size: size,
        }) => Ok(Some(volume_size(size.as_deref(), defaults)?)),
        Some(Storage { .. }) | None => Ok(None),
    }
}
