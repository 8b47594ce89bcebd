//! What the controller can have done, and what comes of it. Decided by [`super::decide`], carried out by [`super::apply`].

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use pilotlight_common::stream::ObjectId;
use serde_json::Value;

use super::view::{ClaimView, PodView, ServiceView};

/// The kinds of what belongs to a Sandbox.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Its volumes.
    Claim,
    /// Its pod.
    Pod,
    /// Its Service.
    Service,
}

/// Something to do for one Sandbox.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Make this.
    Create {
        /// Its kind.
        kind: Kind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// All of it.
        object: Value,
    },
    /// Change this by a merge patch.
    Patch {
        /// Its kind.
        kind: Kind,
        /// Which one.
        object: ObjectId,
        /// What changes. It says at which revision, where it must be that one.
        patch: Value,
    },
    /// Delete this.
    Delete {
        /// Its kind.
        kind: Kind,
        /// Which one.
        object: ObjectId,
        /// The revision it must have, where its owner may have changed: that of the object whose owner was looked at.
        revision: Option<u64>,
    },
    /// Say this of the Sandbox, by a merge patch of its status.
    Status {
        /// Which one.
        sandbox: ObjectId,
        /// What changes.
        patch: Value,
    },
    /// Delete the Sandbox.
    DeleteSandbox(ObjectId),
}

/// What a write is about, within one Sandbox.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Slot {
    /// One of what belongs to it.
    Child(Kind, String),
    /// Its status.
    Status,
    /// Itself.
    Sandbox,
}

impl Write {
    /// What it is about.
    pub fn slot(&self) -> Slot {
        match self {
            Self::Create { kind, name, .. } => Slot::Child(*kind, name.clone()),
            Self::Patch { kind, object, .. } | Self::Delete { kind, object, .. } => {
                Slot::Child(*kind, object.name.clone())
            }
            Self::Status { .. } => Slot::Status,
            Self::DeleteSandbox(_) => Slot::Sandbox,
        }
    }
}

/// What belongs to a Sandbox, or stands where something of it should.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// A volume.
    Claim(ClaimView),
    /// A pod.
    Pod(PodView),
    /// A Service.
    Service(ServiceView),
}

impl From<PersistentVolumeClaim> for Found {
    fn from(claim: PersistentVolumeClaim) -> Self {
        Self::Claim(claim.into())
    }
}

impl From<Pod> for Found {
    fn from(pod: Pod) -> Self {
        Self::Pod(pod.into())
    }
}

impl From<Service> for Found {
    fn from(service: Service) -> Self {
        Self::Service(service.into())
    }
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was done, and the object is this now.
    Is(Box<Found>),
    /// An object of that name was there before: this one.
    Was(Box<Found>),
    /// It was done.
    Done,
    /// The object changed meanwhile, or is gone: the watch tells.
    Stale,
    /// It was refused, or could not be asked for.
    Failed(String),
}
