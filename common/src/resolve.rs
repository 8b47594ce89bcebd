//! The one place where a Sandbox (or a WarmPool), its profile, its runtime and the defaults meet.
//!
//! The scheduler's index calls [`resolve_sandbox`] and [`resolve_pool`]; whatever is equal in their
//! [`PodTemplate`]s has the same [`PodTemplate::shape`], and a Sandbox takes a warm pod only of its own shape.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::kinds::{
    Filesystem, ProfileRef, RuntimeEnvironment, SandboxProfile, SandboxProfileSpec,
    SandboxResources, SandboxSpec, SeccompProfile, SeccompType, SecurityContext, SecurityLevel,
    WarmPoolSpec,
};
use crate::quantity::{Bytes, MilliCpu, QuantityError};
use crate::reasons::{Reason, Refusal};

/// CPU limit of a sandbox that says none (the seed's default).
pub const DEFAULT_CPU: &str = "500m";
/// Memory limit of a sandbox that says none (the seed's default).
pub const DEFAULT_MEMORY: &str = "512Mi";
/// Ephemeral storage limit of a sandbox that says none (the seed's default).
pub const DEFAULT_EPHEMERAL_STORAGE: &str = "1Gi";
/// Lifetime of a sandbox that says none, in seconds (the seed's default).
pub const DEFAULT_TIMEOUT_SECONDS: i64 = 300;
/// User and group of a sandbox that says none (the seed's default).
pub const DEFAULT_USER: i64 = 1000;
/// Writable paths of a sandbox that says none (the seed's default).
pub const DEFAULT_WRITABLE_PATHS: [&str; 2] = ["/tmp", "/workspace"];
/// More writable paths than this are refused: each is a volume of the pod.
pub const MAX_WRITABLE_PATHS: usize = 32;

/// What the installation, not the user, decides.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// RuntimeClass of `securityLevel: high`; none means that level is refused.
    pub high_runtime_class: Option<String>,
}

/// Everything about a pod that is fixed once it exists.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
pub struct PodTemplate {
    /// Namespace of the pod: the Sandbox's own.
    pub namespace: String,
    /// Container image.
    pub image: String,
    /// Command, where the runtime gives one.
    pub command: Vec<String>,
    /// CPU limit.
    pub cpu: MilliCpu,
    /// Memory limit.
    pub memory: Bytes,
    /// Ephemeral storage limit.
    pub ephemeral_storage: Bytes,
    /// Security level after the profile was taken in.
    pub security_level: SecurityLevel,
    /// RuntimeClass of the pod.
    pub runtime_class: Option<String>,
    /// User of the processes.
    pub run_as_user: i64,
    /// Group of the processes.
    pub run_as_group: i64,
    /// Whether the image's files are read-only.
    pub read_only_root: bool,
    /// Paths that can be written, sorted, without repetition.
    pub writable_paths: Vec<String>,
    /// Paths that cannot be written, sorted, without repetition.
    pub read_only_paths: Vec<String>,
}

impl PodTemplate {
    /// Canonical hash of the template: 16 hexadecimal digits, fit for a label value.
    ///
    /// Equal exactly where every field is equal; a collision within the 64 bits kept would need some
    /// four thousand million shapes in one cluster.
    pub fn shape(&self) -> String {
        let mut hash = Sha256::new();
        // Field by field with lengths, so that no two templates can share one text.
        let mut put = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        let Self {
            namespace,
            image,
            command,
            cpu,
            memory,
            ephemeral_storage,
            security_level,
            runtime_class,
            run_as_user,
            run_as_group,
            read_only_root,
            writable_paths,
            read_only_paths,
        } = self;
        put(namespace);
        put(image);
        for list in [command, writable_paths, read_only_paths] {
            put(&list.len().to_string());
            for item in list {
                put(item);
            }
        }
        for number in [cpu.0, memory.0, ephemeral_storage.0] {
            put(&number.to_string());
        }
        put(&format!("{security_level:?}"));
        put(if runtime_class.is_some() {
            "class"
        } else {
            "none"
        });
        put(runtime_class.as_deref().unwrap_or(""));
        put(&run_as_user.to_string());
        put(&run_as_group.to_string());
        put(&read_only_root.to_string());
        hex::encode(&hash.finalize()[..8])
    }
}

/// A Sandbox with everything it asks for made explicit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResolvedSandbox {
    /// What its pod must be.
    pub template: PodTemplate,
    /// Lifetime in seconds.
    pub timeout_seconds: i64,
}

/// Whether `runtime` is what a Sandbox means by `name`: the object's name, that name with `:` for `-`, or
/// `language:version`. An earlier spelling wins over a later one, see [`find_runtime`].
fn runtime_rank(runtime: &RuntimeEnvironment, name: &str) -> Option<u8> {
    let object = runtime.metadata.name.as_deref().unwrap_or_default();
    if object == name {
        return Some(0);
    }
    if name.contains(':') && object == name.replace(':', "-") {
        return Some(1);
    }
    let (language, version) = name.split_once(':')?;
    (runtime.spec.language == language && runtime.spec.version.as_deref() == Some(version))
        .then_some(2)
}

/// The runtime that `name` means. Ties go to the name that sorts first, so that every replica agrees.
pub fn find_runtime<'a>(
    runtimes: impl IntoIterator<Item = &'a RuntimeEnvironment>,
    name: &str,
) -> Result<&'a RuntimeEnvironment, Refusal> {
    runtimes
        .into_iter()
        .filter_map(|r| runtime_rank(r, name).map(|rank| (rank, r)))
        .min_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.metadata.name.cmp(&y.metadata.name)))
        .map(|(_, r)| r)
        .ok_or_else(|| {
            Refusal::new(
                Reason::RuntimeNotFound,
                format!(
                    "no RuntimeEnvironment is named \"{}\"; see `kubectl get runtimeenvironments`, or create it",
                    shortened(name)
                ),
            )
        })
}

/// The name of the profile that a reference means, in the referring object's own namespace.
///
/// A profile of another namespace is refused: it would let one team decide about another's isolation.
pub fn profile_name<'a>(
    reference: Option<&'a ProfileRef>,
    namespace: &str,
) -> Result<Option<&'a str>, Refusal> {
    let Some(reference) = reference else {
        return Ok(None);
    };
    if let Some(other) = reference.namespace.as_deref().filter(|n| *n != namespace) {
        return Err(Refusal::new(
            Reason::ProfileInvalid,
            format!(
                "profileRef.namespace is \"{}\"; a profile must be in the same namespace as its user",
                shortened(other)
            ),
        ));
    }
    match reference.name.as_deref() {
        Some(name) if !name.is_empty() => Ok(Some(name)),
        _ => Err(Refusal::new(
            Reason::ProfileInvalid,
            "profileRef has no name; name a SandboxProfile or leave profileRef out",
        )),
    }
}

/// The refusal for a profile that does not exist.
pub fn profile_not_found(name: &str) -> Refusal {
    Refusal::new(
        Reason::ProfileNotFound,
        format!(
            "no SandboxProfile \"{}\" in this namespace; create it or change profileRef",
            shortened(name)
        ),
    )
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
    if let Some(network) = network_access
        && (network.egress.as_ref().is_some_and(|e| !e.is_empty()) || network.ingress == Some(true))
    {
        return Err(Refusal::new(
            Reason::NetworkRulesUnavailable,
            "networkAccess asks for rules, and no node enforces them yet; leave it out",
        ));
    }
    if storage.as_ref().and_then(|s| s.persistent) == Some(true) {
        return Err(Refusal::new(
            Reason::StorageUnavailable,
            "storage.persistent is true, and a warm pod has no volume of its own; leave it out",
        ));
    }
    let template = template(
        namespace,
        &Asked {
            level: *security_level,
            resources: resources.as_ref(),
            filesystem: filesystem.as_ref(),
            security_context: security_context.as_ref(),
        },
        profile,
        runtime,
        defaults,
    )?;
    Ok(ResolvedSandbox {
        template,
        timeout_seconds: timeout.unwrap_or(DEFAULT_TIMEOUT_SECONDS),
    })
}

/// What a pool's pods are: the pods of a Sandbox that says the same and nothing more.
pub fn resolve_pool(
    namespace: &str,
    spec: &WarmPoolSpec,
    profile: Option<&SandboxProfile>,
    runtime: &RuntimeEnvironment,
    defaults: &Defaults,
) -> Result<PodTemplate, Refusal> {
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
    };
    template(namespace, &asked, profile, runtime, defaults)
}

/// The pod-fixed part of what a Sandbox or WarmPool says itself.
struct Asked<'a> {
    level: Option<SecurityLevel>,
    resources: Option<&'a SandboxResources>,
    filesystem: Option<&'a Filesystem>,
    security_context: Option<&'a SecurityContext>,
}

fn template(
    namespace: &str,
    asked: &Asked<'_>,
    profile: Option<&SandboxProfile>,
    runtime: &RuntimeEnvironment,
    defaults: &Defaults,
) -> Result<PodTemplate, Refusal> {
    let profile = profile.map(|p| &p.spec);
    if let Some(profile) = profile {
        fits_runtime(profile, runtime)?;
    }
    let level = stricter(
        asked.level.unwrap_or_default(),
        profile.and_then(|p| p.security_level).unwrap_or_default(),
    );
    let runtime_class = match level {
        SecurityLevel::High => Some(defaults.high_runtime_class.clone().ok_or_else(|| {
            Refusal::new(
                Reason::RuntimeClassNotFound,
                "securityLevel is high, and this installation names no RuntimeClass for it; set the chart's runtimeClasses.high",
            )
        })?),
        SecurityLevel::Standard | SecurityLevel::Custom => None,
    };
    let (cpu, memory, ephemeral_storage) = resources(
        asked.resources,
        profile.and_then(|p| p.resource_defaults.as_ref()),
        runtime,
    )?;
    let (run_as_user, run_as_group) = identity(asked.security_context, level)?;
    seccomp(
        asked
            .security_context
            .and_then(|s| s.seccomp_profile.as_ref()),
        profile.and_then(|p| p.seccomp_profile.as_deref()),
    )?;
    if profile
        .and_then(|p| p.network_policies.as_ref())
        .is_some_and(|p| !p.is_empty())
    {
        return Err(Refusal::new(
            Reason::NetworkRulesUnavailable,
            "the SandboxProfile has networkPolicies, and no node enforces them yet; leave them out",
        ));
    }
    let config = profile.and_then(|p| p.filesystem_config.as_ref());
    let mut writable: Vec<String> = match asked.filesystem.and_then(|f| f.writable_paths.as_ref()) {
        Some(paths) => paths.clone(),
        None => DEFAULT_WRITABLE_PATHS.map(str::to_owned).to_vec(),
    };
    writable.extend(
        config
            .and_then(|c| c.writable_paths.clone())
            .unwrap_or_default(),
    );
    let read_only = config
        .and_then(|c| c.read_only_paths.clone())
        .unwrap_or_default();
    let read_only_root = asked
        .filesystem
        .and_then(|f| f.read_only_root)
        .unwrap_or(true);
    let writable_paths = paths(writable, "writablePaths")?;
    let read_only_paths = paths(read_only, "readOnlyPaths")?;
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
        run_as_user,
        run_as_group,
        read_only_root,
        writable_paths,
        read_only_paths,
    })
}

/// A profile is for one language, and the packages it counts on must be in the image.
fn fits_runtime(profile: &SandboxProfileSpec, runtime: &RuntimeEnvironment) -> Result<(), Refusal> {
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

/// Read-only paths are read-only because the root is; what a writable volume covers would not be.
fn stay_read_only(
    read_only: &[String],
    writable: &[String],
    read_only_root: bool,
) -> Result<(), Refusal> {
    let refused = |message: String| Err(Refusal::new(Reason::InvalidFilesystem, message));
    let Some(first) = read_only.first() else {
        return Ok(());
    };
    if !read_only_root {
        return refused(format!(
            "readOnlyPaths: {first} cannot be kept read-only with filesystem.readOnlyRoot: false"
        ));
    }
    let below =
        |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
    for path in read_only {
        if let Some(other) = writable.iter().find(|w| below(path, w) || below(w, path)) {
            return refused(format!(
                "readOnlyPaths: {path} overlaps the writable path {other}"
            ));
        }
    }
    Ok(())
}

/// The stricter of two levels; `custom` says what to do differently and is no stricter than `standard`.
fn stricter(own: SecurityLevel, profile: SecurityLevel) -> SecurityLevel {
    match (own, profile) {
        (SecurityLevel::High, _) | (_, SecurityLevel::High) => SecurityLevel::High,
        (own, _) => own,
    }
}

/// CPU, memory and ephemeral storage: sandbox, else profile, else the runtime's recommendation, else default.
fn resources(
    own: Option<&SandboxResources>,
    profile: Option<&crate::kinds::ResourceDefaults>,
    runtime: &RuntimeEnvironment,
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
    Ok((cpu, memory, storage))
}

fn identity(
    context: Option<&SecurityContext>,
    level: SecurityLevel,
) -> Result<(i64, i64), Refusal> {
    let user = context.and_then(|c| c.run_as_user).unwrap_or(DEFAULT_USER);
    let group = context.and_then(|c| c.run_as_group).unwrap_or(DEFAULT_USER);
    let refused = |message: String| Err(Refusal::new(Reason::InvalidSecurityContext, message));
    // The kernel's ids are 32 bits wide and the largest means "none".
    let valid = 1..i64::from(u32::MAX);
    if !valid.contains(&user) || !valid.contains(&group) {
        return refused(format!(
            "securityContext.runAsUser {user} and runAsGroup {group} must be from 1 to 4294967294: a sandbox never runs as root"
        ));
    }
    if level != SecurityLevel::Custom && (user, group) != (DEFAULT_USER, DEFAULT_USER) {
        return refused(format!(
            "securityContext.runAsUser {user} and runAsGroup {group} differ from {DEFAULT_USER}; that needs securityLevel: custom"
        ));
    }
    Ok((user, group))
}

/// Only the container runtime's own profile is available so far.
fn seccomp(own: Option<&SeccompProfile>, profile: Option<&str>) -> Result<(), Refusal> {
    let named = match own {
        Some(SeccompProfile {
            type_: Some(SeccompType::Localhost),
            localhost_profile,
        }) => Some(localhost_profile.as_deref().unwrap_or_default()),
        _ => profile,
    };
    match named {
        None => Ok(()),
        Some(name) => Err(Refusal::new(
            Reason::SeccompProfileUnknown,
            format!(
                "seccomp profile \"{}\" is not installed; use RuntimeDefault",
                shortened(name)
            ),
        )),
    }
}

/// `paths`, sorted and without repetition; refused where one is not absolute, climbs, or is the root itself.
fn paths(mut paths: Vec<String>, field: &str) -> Result<Vec<String>, Refusal> {
    let refused = |message: String| {
        Err(Refusal::new(
            Reason::InvalidFilesystem,
            format!("{field}: {message}"),
        ))
    };
    if paths.len() > MAX_WRITABLE_PATHS {
        return refused(format!(
            "{} paths are too many; at most {MAX_WRITABLE_PATHS} are taken",
            paths.len()
        ));
    }
    for path in &mut paths {
        let trimmed = path.trim_end_matches('/');
        let plain = trimmed.len() < 256
            && trimmed.starts_with('/')
            && trimmed[1..]
                .split('/')
                .all(|part| !matches!(part, "" | "." | ".."))
            && !trimmed.contains([':', '\0', '\n']);
        if !plain {
            return refused(format!(
                "\"{}\" is not a plain absolute path below the root",
                shortened(path)
            ));
        }
        if ["/proc", "/sys", "/dev"]
            .iter()
            .any(|own| trimmed == *own || trimmed.starts_with(&format!("{own}/")))
        {
            return refused(format!("\"{}\" belongs to the kernel", shortened(path)));
        }
        *path = trimmed.to_owned();
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// Hostile input goes into messages, so it is cut.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
