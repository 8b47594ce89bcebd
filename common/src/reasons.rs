//! The stable words that stand in conditions, events, metric labels and the node stream.
//!
//! Programs match on them, so a word is never changed, only added.

use serde::{Deserialize, Serialize};

/// Why a Sandbox or WarmPool cannot be fulfilled as it stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Reason {
    /// No RuntimeEnvironment of that name.
    RuntimeNotFound,
    /// No SandboxProfile of that name.
    ProfileNotFound,
    /// A `profileRef` without a name, or into another namespace.
    ProfileInvalid,
    /// A quantity that cannot be read, or is out of bounds.
    InvalidResources,
    /// Less than the runtime's minimum.
    InsufficientResources,
    /// A path that is not absolute, climbs, or overlaps another.
    InvalidFilesystem,
    /// User 0, or a deviation without `securityLevel: custom`.
    InvalidSecurityContext,
    /// The RuntimeEnvironment names no image that could be run.
    RuntimeInvalid,
    /// The runtime does not support the security level.
    RuntimeIncompatible,
    /// More than the installation allows.
    ResourcesAboveMaximum,
    /// The seccomp profile is not installed.
    SeccompProfileUnknown,
    /// `securityLevel: high` where no sandboxed runtime class is configured.
    RuntimeClassNotFound,
    /// Whole CPUs were asked for where no node can give them.
    CpuPinningUnavailable,
    /// Nodes can give whole CPUs, and others have them now.
    WaitingForCpus,
    /// A domain, port or number of network rules that cannot be.
    InvalidNetworkAccess,
    /// Domains were asked for where NetworkPolicies, which know addresses only, keep sandboxes to their rules.
    NetworkNamesUnavailable,
    /// The pool is gone.
    PoolGone,
    /// No warm pod of this shape is left; one is being made.
    WaitingForWarmPod,
    /// A pod of its own is starting.
    PodStarting,
    /// The pool's bounds contradict each other.
    InvalidPoolSize,
    /// Packages to preload were asked for, and the runtime's package manager is not known.
    PreloadUnavailable,
    /// A package or script to preload that is no such thing, or too many or too long ones.
    PreloadInvalid,
}

impl Reason {
    /// The word itself.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RuntimeNotFound => "RuntimeNotFound",
            Self::ProfileNotFound => "ProfileNotFound",
            Self::ProfileInvalid => "ProfileInvalid",
            Self::InvalidResources => "InvalidResources",
            Self::InsufficientResources => "InsufficientResources",
            Self::InvalidFilesystem => "InvalidFilesystem",
            Self::InvalidSecurityContext => "InvalidSecurityContext",
            Self::RuntimeInvalid => "RuntimeInvalid",
            Self::RuntimeIncompatible => "RuntimeIncompatible",
            Self::ResourcesAboveMaximum => "ResourcesAboveMaximum",
            Self::SeccompProfileUnknown => "SeccompProfileUnknown",
            Self::RuntimeClassNotFound => "RuntimeClassNotFound",
            Self::CpuPinningUnavailable => "CpuPinningUnavailable",
            Self::WaitingForCpus => "WaitingForCpus",
            Self::InvalidNetworkAccess => "InvalidNetworkAccess",
            Self::NetworkNamesUnavailable => "NetworkNamesUnavailable",
            Self::PoolGone => "PoolGone",
            Self::WaitingForWarmPod => "WaitingForWarmPod",
            Self::PodStarting => "PodStarting",
            Self::InvalidPoolSize => "InvalidPoolSize",
            Self::PreloadUnavailable => "PreloadUnavailable",
            Self::PreloadInvalid => "PreloadInvalid",
        }
    }
}

/// A request that cannot be fulfilled as it stands, with a sentence that says what to do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable word.
    pub reason: Reason,
    /// What was refused, why, and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal for `reason`.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}
