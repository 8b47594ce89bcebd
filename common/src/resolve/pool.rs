//! What a WarmPool asks for, made explicit.

use std::sync::Arc;

use crate::kinds::{
    AutoScaling, PoolResources, RuntimeEnvironment, SandboxProfile, SandboxResources, WarmPoolSpec,
};
use crate::reasons::{Reason, Refusal};

use super::merge::{Asked, template};
use super::preload::{Preload, preload};
use super::{Defaults, PodTemplate};

/// Seconds an idle pod is kept where its pool says nothing (the seed's default).
const DEFAULT_TTL_SECONDS: i64 = 3600;
/// Share of the pods that is to be assigned, in percent, where autoScaling says nothing (the seed's default).
const DEFAULT_TARGET_UTILIZATION: i64 = 80;
/// Seconds a lower need must hold where autoScaling says nothing (the seed's default).
const DEFAULT_SCALE_DOWN_DELAY: i64 = 300;

/// A WarmPool with everything it asks for made explicit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResolvedPool {
    /// What its pods must be.
    pub template: PodTemplate,
    /// Idle pods it holds at least, those being made included.
    pub min_size: usize,
    /// Pods it has at most, the assigned ones included; none means no bound.
    pub max_size: Option<usize>,
    /// Seconds after becoming ready in which an idle pod is replaced; none means never.
    pub ttl_seconds: Option<i64>,
    /// How its size follows the use, where it does.
    pub scaling: Option<Scaling>,
    /// What is put into its pods before they are ready.
    pub preload: Option<Arc<Preload>>,
}

/// How the size of a pool follows its use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Scaling {
    /// Share of the pods that is to be assigned, in percent; 1 to 100.
    pub target_utilization: usize,
    /// Seconds for which a lower need must hold before pods are removed.
    pub scale_down_delay: i64,
}

/// What a pool's pods are: the pods of a Sandbox that says the same and nothing more.
pub fn resolve_pool(
    namespace: &str,
    spec: &WarmPoolSpec,
    profile: Option<&SandboxProfile>,
    runtime: &RuntimeEnvironment,
    defaults: &Defaults,
) -> Result<ResolvedPool, Refusal> {
    let WarmPoolSpec {
        runtime: _,
        min_size,
        max_size,
        security_level,
        ttl,
        resources,
        profile_ref: _,
        preload_packages,
        preload_scripts,
        auto_scaling,
    } = spec;
    let max_size = max_size.filter(|max| *max != 0);
    if let Some(max) = max_size.filter(|max| max < min_size) {
        return Err(Refusal::new(
            Reason::InvalidPoolSize,
            format!(
                "maxSize {max} is below minSize {min_size}; raise maxSize, or set it to 0 for no bound"
            ),
        ));
    }
    let resources = resources
        .as_ref()
        .map(|PoolResources { cpu, memory }| SandboxResources {
            cpu: cpu.clone(),
            memory: memory.clone(),
            ephemeral_storage: None,
            cpu_pinning: None,
        });
    let asked = Asked {
        level: *security_level,
        resources: resources.as_ref(),
        filesystem: None,
        security_context: None,
        has_volume: false,
        pinned: false,
    };
    let template = template(namespace, &asked, profile, runtime, defaults)?;
    let preload = preload(
        preload_packages.as_deref(),
        preload_scripts.as_deref(),
        &runtime.spec,
        &template,
    )?
    .map(Arc::new);
    Ok(ResolvedPool {
        template,
        min_size: count(*min_size),
        max_size: max_size.map(count),
        ttl_seconds: Some(ttl.unwrap_or(DEFAULT_TTL_SECONDS)).filter(|ttl| *ttl > 0),
        scaling: auto_scaling.as_ref().and_then(scaling),
        preload,
    })
}

/// A number of pods; the schema has no negative ones.
fn count(number: i64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

fn scaling(
    AutoScaling {
        enabled,
        target_utilization,
        scale_down_delay,
    }: &AutoScaling,
) -> Option<Scaling> {
    (*enabled == Some(true)).then(|| Scaling {
        // An object from before the schema's bounds could say 0, which nobody can divide by.
        target_utilization: count(target_utilization.unwrap_or(DEFAULT_TARGET_UTILIZATION))
            .clamp(1, 100),
        scale_down_delay: scale_down_delay.unwrap_or(DEFAULT_SCALE_DOWN_DELAY),
    })
}
