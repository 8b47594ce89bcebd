//! What a WarmPool asks for, made explicit.

use crate::kinds::{RuntimeEnvironment, SandboxProfile, SandboxResources, WarmPoolSpec};
use crate::reasons::{Reason, Refusal};

use super::merge::{Asked, template};
use super::{Defaults, PodTemplate};

/// A WarmPool with everything it asks for made explicit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResolvedPool {
    /// What its pods must be.
    pub template: PodTemplate,
}

/// What a pool's pods are: the pods of a Sandbox that says the same and nothing more.
pub fn resolve_pool(
    namespace: &str,
    spec: &WarmPoolSpec,
    profile: Option<&SandboxProfile>,
    runtime: &RuntimeEnvironment,
    defaults: &Defaults,
) -> Result<ResolvedPool, Refusal> {
    if let Some(max) = spec
        .max_size
        .filter(|max| *max != 0 && *max < spec.min_size)
    {
        return Err(Refusal::new(
            Reason::InvalidPoolSize,
            format!(
                "maxSize {max} is below minSize {}; raise maxSize, or set it to 0 for no bound",
                spec.min_size
            ),
        ));
    }
    let packages = spec
        .preload_packages
        .as_ref()
        .is_some_and(|p| !p.is_empty());
    let scripts = spec.preload_scripts.as_ref().is_some_and(|s| !s.is_empty());
    if packages || scripts {
        return Err(Refusal::new(
            Reason::PreloadUnavailable,
            "the pool preloads packages or scripts, and nothing runs them yet; put them into the runtime's image",
        ));
    }
    if spec.auto_scaling.as_ref().and_then(|a| a.enabled) == Some(true) {
        return Err(Refusal::new(
            Reason::AutoScalingUnavailable,
            "autoScaling.enabled is true, and pools do not follow their use yet; set minSize",
        ));
    }
    let resources = spec.resources.as_ref().map(|r| SandboxResources {
        cpu: r.cpu.clone(),
        memory: r.memory.clone(),
        ephemeral_storage: None,
        cpu_pinning: None,
    });
    let asked = Asked {
        level: spec.security_level,
        resources: resources.as_ref(),
        filesystem: None,
        security_context: None,
        has_volume: false,
    };
    let template = template(namespace, &asked, profile, runtime, defaults)?;
    Ok(ResolvedPool { template })
}
