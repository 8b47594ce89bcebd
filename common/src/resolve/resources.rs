//! CPU, memory and ephemeral storage: who decides them, and between which bounds.

use std::fmt::Display;

use crate::kinds::{ResourceDefaults, ResourceRequirements, RuntimeEnvironment, SandboxResources};
use crate::quantity::{Bytes, MilliCpu, QuantityError};
use crate::reasons::{Reason, Refusal};

use super::{
    DEFAULT_CPU, DEFAULT_EPHEMERAL_STORAGE, DEFAULT_MEMORY, DEFAULT_VOLUME_SIZE, Defaults, Maximum,
};

/// What a runtime says about its resources, read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    pub(super) min_cpu: Option<MilliCpu>,
    pub(super) min_memory: Option<Bytes>,
    pub(super) recommended_cpu: Option<MilliCpu>,
    pub(super) recommended_memory: Option<Bytes>,
}

/// Reads what a runtime needs. What cannot be read, contradicts itself or asks for more than the installation allows
/// is the runtime's fault: whoever wants a sandbox of it cannot mend that by asking for something else.
pub(super) fn needs(runtime: &RuntimeEnvironment, maximum: &Maximum) -> Result<Needs, Refusal> {
    let Some(ResourceRequirements {
        min_cpu,
        min_memory,
        recommended_cpu,
        recommended_memory,
    }) = runtime.spec.resource_requirements.as_ref()
    else {
        return Ok(Needs::default());
    };
    let needs = Needs {
        min_cpu: read("minCpu", min_cpu.as_deref(), MilliCpu::parse)?,
        min_memory: read("minMemory", min_memory.as_deref(), Bytes::parse)?,
        recommended_cpu: read(
            "recommendedCpu",
            recommended_cpu.as_deref(),
            MilliCpu::parse,
        )?,
        recommended_memory: read(
            "recommendedMemory",
            recommended_memory.as_deref(),
            Bytes::parse,
        )?,
    };
    consistent("Cpu", needs.min_cpu, needs.recommended_cpu, maximum.cpu)?;
    consistent(
        "Memory",
        needs.min_memory,
        needs.recommended_memory,
        maximum.memory,
    )?;
    Ok(needs)
}

fn read<T>(
    field: &str,
    text: Option<&str>,
    parse: fn(&str) -> Result<T, QuantityError>,
) -> Result<Option<T>, Refusal> {
    text.map(parse)
        .transpose()
        .map_err(|error| runtime_invalid(&format!("resourceRequirements.{field}: {error}")))
}

fn consistent<T: Copy + Display + PartialOrd>(
    what: &str,
    min: Option<T>,
    recommended: Option<T>,
    maximum: Option<T>,
) -> Result<(), Refusal> {
    if let (Some(min), Some(maximum)) = (min, maximum)
        && min > maximum
    {
        return Err(runtime_invalid(&format!(
            "resourceRequirements.min{what} is {min}, and this installation allows {maximum} at most"
        )));
    }
    if let (Some(min), Some(recommended)) = (min, recommended)
        && recommended < min
    {
        return Err(runtime_invalid(&format!(
            "resourceRequirements.recommended{what} {recommended} is below min{what} {min}"
        )));
    }
    Ok(())
}

fn runtime_invalid(message: &str) -> Refusal {
    Refusal::new(
        Reason::RuntimeInvalid,
        format!("the RuntimeEnvironment is invalid: {message}; an administrator has to correct it"),
    )
}

/// CPU, memory and ephemeral storage: sandbox, else profile, else the runtime's recommendation, else default. A
/// default that nobody asked for is never below the runtime's minimum. CPUs that are `pinned` are whole ones.
pub(super) fn resources(
    own: Option<&SandboxResources>,
    pinned: bool,
    profile: Option<&ResourceDefaults>,
    runtime: &RuntimeEnvironment,
    maximum: &Maximum,
) -> Result<(MilliCpu, Bytes, Bytes), Refusal> {
    let needs = needs(runtime, maximum)?;
    let cpu = match own
        .and_then(|o| o.cpu.as_deref())
        .or(profile.and_then(|p| p.cpu.as_deref()))
    {
        Some(asked) => MilliCpu::parse(asked).map_err(invalid("resources.cpu"))?,
        None => default_cpu(&needs)?,
    };
    let cpu = if pinned {
        MilliCpu(cpu.whole() * 1000)
    } else {
        cpu
    };
    let memory = match own
        .and_then(|o| o.memory.as_deref())
        .or(profile.and_then(|p| p.memory.as_deref()))
    {
        Some(asked) => Bytes::parse(asked).map_err(invalid("resources.memory"))?,
        None => default_memory(&needs)?,
    };
    let storage = own
        .and_then(|o| o.ephemeral_storage.as_deref())
        .or(profile.and_then(|p| p.ephemeral_storage.as_deref()))
        .unwrap_or(DEFAULT_EPHEMERAL_STORAGE);
    let storage = Bytes::parse(storage).map_err(invalid("resources.ephemeralStorage"))?;
    at_least("resources.cpu", cpu, needs.min_cpu)?;
    at_least("resources.memory", memory, needs.min_memory)?;
    at_most("resources.cpu", cpu, maximum.cpu)?;
    at_most("resources.memory", memory, maximum.memory)?;
    at_most(
        "resources.ephemeralStorage",
        storage,
        maximum.ephemeral_storage,
    )?;
    Ok((cpu, memory, storage))
}

/// Limits of a pod that only shows whether a runtime works: what its sandboxes get where nobody says anything, and
/// no more than any sandbox may have.
pub(super) fn trial_resources(
    runtime: &RuntimeEnvironment,
    maximum: &Maximum,
) -> Result<(MilliCpu, Bytes, Bytes), Refusal> {
    let needs = needs(runtime, maximum)?;
    let storage =
        Bytes::parse(DEFAULT_EPHEMERAL_STORAGE).map_err(invalid("resources.ephemeralStorage"))?;
    Ok((
        bounded(default_cpu(&needs)?, maximum.cpu),
        bounded(default_memory(&needs)?, maximum.memory),
        bounded(storage, maximum.ephemeral_storage),
    ))
}

fn default_cpu(needs: &Needs) -> Result<MilliCpu, Refusal> {
    let default = MilliCpu::parse(DEFAULT_CPU).map_err(invalid("resources.cpu"))?;
    Ok(needs
        .recommended_cpu
        .unwrap_or_else(|| needs.min_cpu.map_or(default, |min| min.max(default))))
}

fn default_memory(needs: &Needs) -> Result<Bytes, Refusal> {
    let default = Bytes::parse(DEFAULT_MEMORY).map_err(invalid("resources.memory"))?;
    Ok(needs
        .recommended_memory
        .unwrap_or_else(|| needs.min_memory.map_or(default, |min| min.max(default))))
}

fn bounded<T: Ord>(value: T, maximum: Option<T>) -> T {
    match maximum {
        Some(maximum) => value.min(maximum),
        None => value,
    }
}

fn invalid(field: &'static str) -> impl Fn(QuantityError) -> Refusal {
    move |e: QuantityError| Refusal::new(Reason::InvalidResources, format!("{field}: {e}"))
}

fn at_least<T: Copy + Display + PartialOrd>(
    field: &str,
    asked: T,
    minimum: Option<T>,
) -> Result<(), Refusal> {
    match minimum {
        Some(minimum) if asked < minimum => Err(Refusal::new(
            Reason::InsufficientResources,
            format!("{field} is {asked}, and the runtime needs {minimum}; raise it"),
        )),
        _ => Ok(()),
    }
}

/// Size of a persistent volume.
pub(super) fn volume_size(own: Option<&str>, defaults: &Defaults) -> Result<Bytes, Refusal> {
    let size = Bytes::parse(own.unwrap_or(DEFAULT_VOLUME_SIZE)).map_err(|error| {
        Refusal::new(
            Reason::InvalidResources,
            format!("storage.volumeSize: {error}"),
        )
    })?;
    at_most("storage.volumeSize", size, defaults.maximum.volume)?;
    Ok(size)
}

fn at_most<T: Copy + Display + PartialOrd>(
    field: &str,
    asked: T,
    maximum: Option<T>,
) -> Result<(), Refusal> {
    match maximum {
        Some(maximum) if asked > maximum => Err(Refusal::new(
            Reason::ResourcesAboveMaximum,
            format!("{field} is {asked}, and this installation allows {maximum} at most; lower it"),
        )),
        _ => Ok(()),
    }
}
