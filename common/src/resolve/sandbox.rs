//! What a Sandbox asks for, made explicit.

use crate::kinds::{RuntimeEnvironment, SandboxProfile, SandboxSpec, Storage};
use crate::network::NetworkRules;
use crate::quantity::Bytes;
use crate::reasons::Refusal;

use super::merge::{Asked, template};
use super::network::resolve_network;
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
    /// Whole CPUs that it has for its own; 0 where it asks for none.
    pub pinned_cpus: u32,
    /// What it may reach, and who may reach it. No part of its pod: every pod can be given to it.
    pub network: NetworkRules,
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
    let pinned = resources.as_ref().and_then(|r| r.cpu_pinning) == Some(true);
    let network = resolve_network(
        network_access.as_ref(),
        profile.map(|profile| &profile.spec),
        !defaults.networks_by_policy,
    )?;
    let volume = volume(storage.as_ref(), defaults)?;
    let template = template(
        namespace,
        &Asked {
            level: *security_level,
            resources: resources.as_ref(),
            filesystem: filesystem.as_ref(),
            security_context: security_context.as_ref(),
            has_volume: volume.is_some(),
            pinned,
        },
        profile,
        runtime,
        defaults,
    )?;
    // The template's CPUs are whole ones then.
    let whole = u32::try_from(template.cpu.whole()).unwrap_or(u32::MAX);
    Ok(ResolvedSandbox {
        pinned_cpus: if pinned { whole } else { 0 },
        template,
        timeout_seconds: timeout.unwrap_or(DEFAULT_TIMEOUT_SECONDS),
        volume,
        network,
    })
}

/// Whether what may be edited of a Sandbox that runs can be fulfilled. The rest of its spec is fixed, so nothing else
/// about it can be refused any more.
pub fn check_edit(
    spec: &SandboxSpec,
    profile: Option<&SandboxProfile>,
    defaults: &Defaults,
) -> Result<(), Refusal> {
    resolve_network(
        spec.network_access.as_ref(),
        profile.map(|profile| &profile.spec),
        !defaults.networks_by_policy,
    )?;
    volume(spec.storage.as_ref(), defaults).map(|_| ())
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
