//! The one place where a Sandbox (or a WarmPool), its profile, its runtime and the defaults meet.
//!
//! The scheduler's index calls [`resolve_sandbox`] and [`resolve_pool`]; whatever is equal in their
//! [`PodTemplate`]s has the same [`PodTemplate::shape`], and a Sandbox takes a warm pod only of its own shape.
//!
//! Precedence is sandbox, then profile, then the runtime's recommendation, then default; the security level is only
//! ever the stricter. Whatever a field asks for is in the result, or the whole is refused with a reason: each
//! function here destructures what it reads, so that a new field cannot be overlooked.

mod filesystem;
mod lookup;
mod merge;
mod network;
mod pool;
mod preload;
mod profile;
mod resources;
mod runtime;
mod sandbox;
mod seccomp;
mod security;
mod template;

use crate::quantity::{Bytes, MilliCpu};

pub use filesystem::DATA_PATH;
pub use lookup::{find_runtime, profile_name, profile_not_found};
pub use network::{DEFAULT_PORTS, resolve_network};
pub use pool::{ResolvedPool, Scaling, resolve_pool};
pub use preload::{
    PRELOAD_HOME, PRELOAD_PATH, PRELOAD_SCRIPT_PATH, PackageManager, Packages, Preload, Script,
};
pub use profile::check_profile;
pub use runtime::resolve_runtime;
pub use sandbox::{ResolvedSandbox, check_edit, resolve_sandbox};
pub use seccomp::{SECCOMP_FOLDER, SeccompProfiles};
pub use template::{PodTemplate, image_hash};

/// CPU limit of a sandbox that says none (the seed's default).
pub const DEFAULT_CPU: &str = "500m";
/// Memory limit of a sandbox that says none (the seed's default).
pub const DEFAULT_MEMORY: &str = "512Mi";
/// Ephemeral storage limit of a sandbox that says none (the seed's default).
pub const DEFAULT_EPHEMERAL_STORAGE: &str = "1Gi";
/// Size of the persistent volume of a sandbox that says none (the seed's default).
pub const DEFAULT_VOLUME_SIZE: &str = "5Gi";
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
    /// The most that one sandbox may ask for.
    pub maximum: Maximum,
    /// The seccomp profiles that can be named.
    pub seccomp: SeccompProfiles,
    /// Whether pods request less than their limits: then a pod whose CPUs are to be its own differs from the others.
    pub overcommitted: bool,
    /// Whether the cluster's network plugin keeps sandboxes to their network rules, by NetworkPolicies, and not the node agent.
    pub networks_by_policy: bool,
}

/// The most that one sandbox may ask for; what asks for more is refused. None means no bound.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Maximum {
    /// CPU limit.
    pub cpu: Option<MilliCpu>,
    /// Memory limit.
    pub memory: Option<Bytes>,
    /// Ephemeral storage limit.
    pub ephemeral_storage: Option<Bytes>,
    /// Size of the persistent volume.
    pub volume: Option<Bytes>,
}

/// Hostile input goes into messages, so it is cut.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod runtime_tests;
#[cfg(test)]
mod tests;
