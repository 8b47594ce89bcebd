//! CPU, memory and ephemeral storage: who decides them, and between which bounds.

use std::fmt::Display;

use crate::kinds::{ResourceDefaults, RuntimeEnvironment, SandboxResources};
use crate::quantity::{Bytes, MilliCpu, QuantityError};
use crate::reasons::{Reason, Refusal};

use super::{
    DEFAULT_CPU, DEFAULT_EPHEMERAL_STORAGE, DEFAULT_MEMORY, DEFAULT_VOLUME_SIZE, Defaults, Maximum,
};

/// CPU, memory and ephemeral storage: sandbox, else profile, else the runtime's recommendation, else default.
pub(super) fn resources(
    own: Option<&SandboxResources>,
    profile: Option<&ResourceDefaults>,
    runtime: &RuntimeEnvironment,
    maximum: &Maximum,
) -> Result<(MilliCpu, Bytes, Bytes), Refusal> {
    let needs = runtime.spec.resource_requirements.as_ref();
    let cpu = own
        .and_then(|o| o.cpu.as_deref())
        .or(profile.and_then(|p| p.cpu.as_deref()))
        .or(needs.and_then(|n| n.recommended_cpu.as_deref()))
        .unwrap_or(DEFAULT_CPU);
    let memory = own
        .and_then(|o| o.memory.as_deref())
        .or(profile.and_then(|p| p.memory.as_deref()))
        .or(needs.and_then(|n| n.recommended_memory.as_deref()))
        .unwrap_or(DEFAULT_MEMORY);
    let storage = own
        .and_then(|o| o.ephemeral_storage.as_deref())
        .or(profile.and_then(|p| p.ephemeral_storage.as_deref()))
        .unwrap_or(DEFAULT_EPHEMERAL_STORAGE);
    let invalid = |field: &'static str| {
        move |e: QuantityError| Refusal::new(Reason::InvalidResources, format!("{field}: {e}"))
    };
    let cpu = MilliCpu::parse(cpu).map_err(invalid("resources.cpu"))?;
    let memory = Bytes::parse(memory).map_err(invalid("resources.memory"))?;
    let storage = Bytes::parse(storage).map_err(invalid("resources.ephemeralStorage"))?;
    if let Some(min) = needs.and_then(|n| n.min_cpu.as_deref()) {
        let min = MilliCpu::parse(min).map_err(invalid("the runtime's minCpu"))?;
        if cpu < min {
            return Err(Refusal::new(
                Reason::InsufficientResources,
                format!("resources.cpu is {cpu}, and the runtime needs {min}; raise it"),
            ));
        }
    }
    if let Some(min) = needs.and_then(|n| n.min_memory.as_deref()) {
        let min = Bytes::parse(min).map_err(invalid("the runtime's minMemory"))?;
        if memory < min {
            return Err(Refusal::new(
                Reason::InsufficientResources,
                format!("resources.memory is {memory}, and the runtime needs {min}; raise it"),
            ));
        }
    }
    at_most("resources.cpu", cpu, maximum.cpu)?;
    at_most("resources.memory", memory, maximum.memory)?;
    at_most(
        "resources.ephemeralStorage",
        storage,
        maximum.ephemeral_storage,
    )?;
    Ok((cpu, memory, storage))
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
