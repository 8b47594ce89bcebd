//! Whether a profile makes sense by itself, and whether it fits a runtime.

use crate::kinds::{FilesystemConfig, ResourceDefaults, RuntimeEnvironment, SandboxProfileSpec};
use crate::quantity::{Bytes, MilliCpu, QuantityError};
use crate::reasons::{Reason, Refusal};

use super::filesystem::{apart, paths};
use super::network::check_policies;
use super::shortened;

fn invalid(message: &str) -> Refusal {
    Refusal::new(
        Reason::ProfileInvalid,
        format!("the SandboxProfile is invalid: {message}"),
    )
}

/// Whether a profile makes sense by itself, whoever uses it. What is refused here is refused to every user.
pub fn check_profile(profile: &SandboxProfileSpec) -> Result<(), Refusal> {
    let SandboxProfileSpec {
        language,
        security_level: _,
        seccomp_profile: _,
        network_policies,
        pre_installed_packages: _,
        resource_defaults,
        filesystem_config,
    } = profile;
    if language.is_empty() {
        return Err(invalid("spec.language is empty"));
    }
    if let Some(ResourceDefaults {
        cpu,
        memory,
        ephemeral_storage,
    }) = resource_defaults
    {
        let quantity = |field: &'static str| {
            move |error: QuantityError| invalid(&format!("resourceDefaults.{field}: {error}"))
        };
        if let Some(cpu) = cpu {
            MilliCpu::parse(cpu).map_err(quantity("cpu"))?;
        }
        if let Some(memory) = memory {
            Bytes::parse(memory).map_err(quantity("memory"))?;
        }
        if let Some(storage) = ephemeral_storage {
            Bytes::parse(storage).map_err(quantity("ephemeralStorage"))?;
        }
    }
    if let Some(FilesystemConfig {
        read_only_paths,
        writable_paths,
    }) = filesystem_config
    {
        let list = |list: &Option<Vec<String>>, field| {
            paths(list.clone().unwrap_or_default(), field).map_err(|e| invalid(&e.message))
        };
        list(read_only_paths, "readOnlyPaths")?;
        apart(&list(writable_paths, "writablePaths")?, false).map_err(|e| invalid(&e.message))?;
    }
    check_policies(network_policies.as_deref().unwrap_or_default())
        .map_err(|message| invalid(&message))
}

/// A profile is for one language, and the packages it counts on must be in the image.
pub(super) fn fits_runtime(
    profile: &SandboxProfileSpec,
    runtime: &RuntimeEnvironment,
) -> Result<(), Refusal> {
    if profile.language != runtime.spec.language {
        return Err(Refusal::new(
            Reason::ProfileInvalid,
            format!(
                "the SandboxProfile is for {}, and the runtime for {}",
                shortened(&profile.language),
                shortened(&runtime.spec.language)
            ),
        ));
    }
    let there = runtime
        .spec
        .pre_installed_packages
        .as_deref()
        .unwrap_or_default();
    match profile
        .pre_installed_packages
        .iter()
        .flatten()
        .find(|p| !there.contains(p))
    {
        None => Ok(()),
        Some(missing) => Err(Refusal::new(
            Reason::ProfileInvalid,
            format!(
                "the SandboxProfile counts on package \"{}\", which the runtime does not list in preInstalledPackages",
                shortened(missing)
            ),
        )),
    }
}
