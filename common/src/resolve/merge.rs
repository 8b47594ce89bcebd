//! Where what an object says itself meets its profile, its runtime and the defaults.

use crate::kinds::{
    Filesystem, FilesystemConfig, RuntimeEnvironment, SandboxProfile, SandboxResources,
    SecurityContext, SecurityLevel,
};
use crate::reasons::{Reason, Refusal};

use super::filesystem::{apart, paths, stay_read_only};
use super::profile::{check_profile, fits_runtime};
use super::resources::resources;
use super::seccomp::seccomp;
use super::security::{identity, stricter, suits};
use super::{DEFAULT_WRITABLE_PATHS, Defaults, PodTemplate, shortened};

/// Longest image reference: a name of 255 characters, a tag of 128 and a digest of 71, with their separators.
const MAX_IMAGE: usize = 512;

/// The pod-fixed part of what a Sandbox or WarmPool says itself.
pub(super) struct Asked<'a> {
    pub(super) level: Option<SecurityLevel>,
    pub(super) resources: Option<&'a SandboxResources>,
    pub(super) filesystem: Option<&'a Filesystem>,
    pub(super) security_context: Option<&'a SecurityContext>,
    /// Whether a persistent volume is mounted: such a pod is one sandbox's from the beginning.
    pub(super) has_volume: bool,
    /// Whether its CPUs are to be its own.
    pub(super) pinned: bool,
}

/// The pod that all of them together ask for.
pub(super) fn template(
    namespace: &str,
    asked: &Asked<'_>,
    profile: Option<&SandboxProfile>,
    runtime: &RuntimeEnvironment,
    defaults: &Defaults,
) -> Result<PodTemplate, Refusal> {
    let profile = profile.map(|p| &p.spec);
    if let Some(profile) = profile {
        check_profile(profile)?;
        fits_runtime(profile, runtime)?;
    }
    image(runtime)?;
    let level = stricter(
        asked.level.unwrap_or_default(),
        profile.and_then(|p| p.security_level).unwrap_or_default(),
    );
    let runtime_class = match level {
        SecurityLevel::High => {
            suits(runtime)?;
            Some(defaults.high_runtime_class.clone().ok_or_else(|| {
                Refusal::new(
                    Reason::RuntimeClassNotFound,
                    "securityLevel is high, and there is no RuntimeClass for it: the chart's runtimeClasses.high names none, or one that does not exist",
                )
            })?)
        }
        SecurityLevel::Standard | SecurityLevel::Custom => None,
    };
    let (cpu, memory, ephemeral_storage) = resources(
        asked.resources,
        asked.pinned,
        profile.and_then(|p| p.resource_defaults.as_ref()),
        runtime,
        &defaults.maximum,
    )?;
    let (run_as_user, run_as_group) = identity(asked.security_context, level)?;
    let seccomp = seccomp(
        asked
            .security_context
            .and_then(|s| s.seccomp_profile.as_ref()),
        profile.and_then(|p| p.seccomp_profile.as_deref()),
        level,
        &runtime.spec.language,
        &defaults.seccomp,
    )?;
    let (own_paths, read_only_root) = match asked.filesystem {
        Some(Filesystem {
            read_only_root,
            writable_paths,
        }) => (writable_paths.clone(), read_only_root.unwrap_or(true)),
        None => (None, true),
    };
    let FilesystemConfig {
        read_only_paths,
        writable_paths: more_paths,
    } = profile
        .and_then(|p| p.filesystem_config.clone())
        .unwrap_or_default();
    let mut writable =
        own_paths.unwrap_or_else(|| DEFAULT_WRITABLE_PATHS.map(str::to_owned).to_vec());
    writable.extend(more_paths.unwrap_or_default());
    let writable_paths = paths(writable, "writablePaths")?;
    let read_only_paths = paths(read_only_paths.unwrap_or_default(), "readOnlyPaths")?;
    apart(&writable_paths, asked.has_volume)?;
    stay_read_only(&read_only_paths, &writable_paths, read_only_root)?;
    Ok(PodTemplate {
        namespace: namespace.to_owned(),
        image: runtime.spec.image.clone(),
        command: runtime.spec.command.clone().unwrap_or_default(),
        cpu,
        memory,
        ephemeral_storage,
        security_level: level,
        runtime_class,
        seccomp,
        run_as_user,
        run_as_group,
        read_only_root,
        writable_paths,
        read_only_paths,
        has_volume: asked.has_volume,
        requests_limits: asked.pinned && defaults.overcommitted,
    })
}

/// The schema takes any text for an image; what no registry could mean is refused here, not by every pod.
pub(super) fn image(runtime: &RuntimeEnvironment) -> Result<(), Refusal> {
    let image = &runtime.spec.image;
    let plain = !image.is_empty()
        && image.len() <= MAX_IMAGE
        && image.chars().all(|c| c.is_ascii_graphic());
    let command = runtime.spec.command.as_deref().unwrap_or_default();
    if !plain || command.iter().any(|word| word.contains('\0')) {
        return Err(Refusal::new(
            Reason::RuntimeInvalid,
            format!(
                "the RuntimeEnvironment's image \"{}\" or its command cannot be run; correct spec.image and spec.command",
                shortened(image)
            ),
        ));
    }
    Ok(())
}
