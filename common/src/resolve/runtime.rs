//! What a pod must be that only shows whether a RuntimeEnvironment works.

use crate::kinds::{RuntimeEnvironment, SecurityLevel};
use crate::reasons::Refusal;

use super::merge::image;
use super::resources::trial_resources;
use super::seccomp::seccomp;
use super::{DEFAULT_USER, DEFAULT_WRITABLE_PATHS, Defaults, PodTemplate};

/// The pod of a sandbox that says nothing but this runtime: the same baseline, so that what becomes ready here becomes
/// ready there. Refused where no sandbox of the runtime could ever run.
pub fn resolve_runtime(
    namespace: &str,
    runtime: &RuntimeEnvironment,
    defaults: &Defaults,
) -> Result<PodTemplate, Refusal> {
    image(runtime)?;
    let (cpu, memory, ephemeral_storage) = trial_resources(runtime, &defaults.maximum)?;
    Ok(PodTemplate {
        namespace: namespace.to_owned(),
        image: runtime.spec.image.clone(),
        command: runtime.spec.command.clone().unwrap_or_default(),
        cpu,
        memory,
        ephemeral_storage,
        security_level: SecurityLevel::Standard,
        runtime_class: None,
        seccomp: seccomp(
            None,
            None,
            SecurityLevel::Standard,
            &runtime.spec.language,
            &defaults.seccomp,
        )?,
        run_as_user: DEFAULT_USER,
        run_as_group: DEFAULT_USER,
        read_only_root: true,
        writable_paths: DEFAULT_WRITABLE_PATHS.map(str::to_owned).to_vec(),
        read_only_paths: Vec::new(),
        has_volume: false,
        requests_limits: false,
    })
}
