//! The `Sandbox` of `agents.x-k8s.io`: a long-lived pod of a name that its user knows, as kubernetes-sigs/agent-sandbox defines it.
//!
//! Both versions are served. [`v1beta1`] is stored; [`convert()`] turns one into the other and is called by the scheduler's webhook;
//! [`manifest`] writes the Sandbox that a client of the first version creates, and is called by `pilotlight-sandbox-manifest`.
//! The controller is in the scheduler.

mod convert;
mod crd;
pub mod manifest;
pub mod names;
mod template;
pub mod v1alpha1;
pub mod v1beta1;

pub use convert::{ConvertError, convert};
pub use crd::crd;
pub use template::{
    PodMetadata, PodTemplate, ShutdownPolicy, VolumeClaimMetadata, VolumeClaimTemplate,
};

/// The API group.
pub const GROUP: &str = "agents.x-k8s.io";
/// The kind.
pub const KIND: &str = "Sandbox";
/// Name of the CRD.
pub const CRD_NAME: &str = "sandboxes.agents.x-k8s.io";
