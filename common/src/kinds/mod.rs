//! The kinds of `llmsafespace.dev/v1`, as Rust types from which the CRDs are generated.
//!
//! Both binaries, the generator (`src/bin/crds.rs`) and the tests read these. A field is changed here and
//! nowhere else; `make generate` then rewrites the chart's CRDs.
//!
//! Defaults stand in the schema only (`extend("default" = ...)`), never in the Rust types: the API server
//! applies a nested default only where the parent object was given, so every reader would otherwise see two
//! kinds of absence. [`crate::resolve`] is the one place that fills them in.

// The lint takes equal `type_`s of different printer columns for a repetition.
#![allow(clippy::duplicated_attributes)]

mod condition;
mod pool;
mod profile;
mod runtime;
mod sandbox;
mod warm_pod;

pub use condition::{Condition, ConditionStatus, merge_conditions};
pub use pool::{AutoScaling, PoolResources, PreloadScript, WarmPool, WarmPoolSpec, WarmPoolStatus};
pub use profile::{
    FilesystemConfig, NetworkPolicy, NetworkPolicyRule, NetworkPolicyType, ProfilePort,
    ResourceDefaults, SandboxProfile, SandboxProfileSpec,
};
pub use runtime::{
    ResourceRequirements, RuntimeEnvironment, RuntimeEnvironmentSpec, RuntimeEnvironmentStatus,
};
pub use sandbox::{
    EgressRule, Filesystem, NetworkAccess, Port, ProfileRef, Protocol, Sandbox, SandboxPhase,
    SandboxResources, SandboxSpec, SandboxStatus, SeccompProfile, SeccompType, SecurityContext,
    SecurityLevel, Storage, UsageStatus,
};
pub use warm_pod::{PoolRef, RETIRED_PREFIX, WarmPod, WarmPodPhase, WarmPodSpec, WarmPodStatus};

/// The API group of the five kinds.
pub const GROUP: &str = "llmsafespace.dev";
/// The only version of the group.
pub const VERSION: &str = "v1";
