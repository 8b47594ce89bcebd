//! Whether a profile makes sense by itself, and whether it fits a runtime.

use std::net::IpAddr;

use crate::kinds::{
    FilesystemConfig, NetworkPolicy, NetworkPolicyRule, ProfilePort, ResourceDefaults,
    RuntimeEnvironment, SandboxProfileSpec,
};
use crate::quantity::{Bytes, MilliCpu, QuantityError};
use crate::reasons::{Reason, Refusal};

use super::filesystem::{apart, paths};
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
    for policy in network_policies.iter().flatten() {
        check_policy(policy)?;
    }
    Ok(())
}

fn check_policy(policy: &NetworkPolicy) -> Result<(), Refusal> {
    let NetworkPolicy { type_, rules } = policy;
    if type_.is_none() {
        return Err(invalid(
            "a network policy says neither egress nor ingress; set its type",
        ));
    }
    for NetworkPolicyRule {
        domain,
        cidr,
        ports,
    } in rules.iter().flatten()
    {
        if domain.is_some() == cidr.is_some() {
            return Err(invalid("a network rule needs either a domain or a cidr"));
        }
        if let Some(cidr) = cidr.as_deref().filter(|cidr| !is_cidr(cidr)) {
            return Err(invalid(&format!(
                "\"{}\" is not a CIDR such as 10.0.0.0/8",
                shortened(cidr)
            )));
        }
        for ProfilePort { port, protocol: _ } in ports.iter().flatten() {
            if let Some(port) = port.filter(|port| !(1..=65535).contains(port)) {
                return Err(invalid(&format!("port {port} is not from 1 to 65535")));
            }
        }
    }
    Ok(())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let (Ok(address), Ok(length)) = (address.parse::<IpAddr>(), length.parse::<u8>()) else {
        return false;
    };
    length <= if address.is_ipv4() { 32 } else { 128 }
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
