//! What the index keeps of each object: only the fields that a decision reads.
//!
//! The watches turn every object into its view before they hand it on, so that 100,000 warm pods fit into
//! memory and no decision can come to depend on a field that is not here.

mod pod;
mod seccomp_map;
mod trouble;
mod volume;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt};
use pilotlight_common::kinds::{
    Condition, RETIRED_PREFIX, RuntimeEnvironment, Sandbox, SandboxPhase, SandboxProfile,
    SandboxSpec, WarmPod, WarmPodPhase, WarmPool, WarmPoolSpec, WarmPoolStatus,
};
use pilotlight_common::names::{AGENT_DISTRUSTED, AGENT_READY, AGENT_READY_LABEL};
use pilotlight_common::stream::ObjectId;

pub use pod::{InitState, PodOwner, PodView};
pub use seccomp_map::SeccompMapView;
pub use trouble::Trouble;
pub use volume::VolumeView;

/// Namespace and name of an object; the namespace is empty for cluster-wide kinds.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of any object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self {
            namespace: object.meta().namespace.clone().unwrap_or_default(),
            name: object.meta().name.clone().unwrap_or_default(),
        }
    }

    /// The identity of the object of this key that has `uid`.
    pub fn with_uid(&self, uid: &str) -> ObjectId {
        ObjectId {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: uid.to_owned(),
        }
    }
}

impl From<&ObjectId> for Key {
    fn from(id: &ObjectId) -> Self {
        Self {
            namespace: id.namespace.clone(),
            name: id.name.clone(),
        }
    }
}

/// An object the index keeps a view of.
pub trait View: Sized {
    /// Namespace and name.
    fn key(&self) -> &Key;
    /// UID.
    fn uid(&self) -> &str;
    /// Revision of the cluster's store at which this was the object; 0 where it cannot be read as a number.
    fn revision(&self) -> u64;
}

/// Metadata common to all views.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// Namespace and name.
    pub key: Key,
    /// UID.
    pub uid: String,
    /// See [`View::revision`].
    pub revision: u64,
    /// When the object was created.
    pub created: Timestamp,
    /// Whether it is being deleted.
    pub deleting: bool,
}

impl Identity {
    pub(crate) fn of<K: Resource>(object: &K) -> Self {
        Self {
            key: Key::of(object),
            uid: object.uid().unwrap_or_default(),
            revision: object
                .meta()
                .resource_version
                .as_deref()
                .and_then(|v| v.parse().ok())
                .unwrap_or(0),
            created: object
                .meta()
                .creation_timestamp
                .as_ref()
                .map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            deleting: object.meta().deletion_timestamp.is_some(),
        }
    }

    /// Identity for messages and writes.
    pub fn object_id(&self) -> ObjectId {
        self.key.with_uid(&self.uid)
    }
}

macro_rules! views {
    ($($view:ty),*) => {$(
        impl View for $view {
            fn key(&self) -> &Key { &self.identity.key }
            fn uid(&self) -> &str { &self.identity.uid }
            fn revision(&self) -> u64 { self.identity.revision }
        }
    )*};
}
views!(
    SandboxView,
    WarmPodView,
    PoolView,
    PodView,
    RuntimeView,
    ProfileView,
    NodeView,
    VolumeView,
    RuntimeClassView,
    SeccompMapView
);

/// A Sandbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SandboxView {
    /// Metadata.
    pub identity: Identity,
    /// What is asked for.
    pub spec: SandboxSpec,
    /// Phase, where one was written.
    pub phase: Option<SandboxPhase>,
    /// Pod it is published on.
    pub pod_name: Option<String>,
    /// Node whose agent published it.
    pub node: Option<String>,
    /// When it became Running.
    pub started: Option<Timestamp>,
    /// When it reached its final phase.
    pub finished: Option<Timestamp>,
    /// Conditions as written.
    pub conditions: Vec<Condition>,
}

impl From<Sandbox> for SandboxView {
    fn from(sandbox: Sandbox) -> Self {
        let identity = Identity::of(&sandbox);
        let started = sandbox.started_at();
        let status = sandbox.status.unwrap_or_default();
        Self {
            identity,
            spec: sandbox.spec,
            phase: status.phase,
            pod_name: status.pod_name,
            node: status.node_name,
            started,
            finished: status.finished_time.map(|t| t.0),
            conditions: status.conditions.unwrap_or_default(),
        }
    }
}

impl SandboxView {
    /// Whether it reached a phase that it never leaves.
    pub fn is_final(&self) -> bool {
        self.phase.is_some_and(SandboxPhase::is_final)
    }
}

/// Whom a warm pod belongs to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Claim {
    /// Nobody yet.
    #[default]
    Free,
    /// The Sandbox of this UID.
    Sandbox(String),
    /// Nobody, ever: taken out of service before its deletion.
    Retired,
}

/// A WarmPod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WarmPodView {
    /// Metadata.
    pub identity: Identity,
    /// Name of its pool, in the same namespace.
    pub pool: String,
    /// Hash of its pod's shape.
    pub shape: String,
    /// Hash of what its pool put into the pod before it was ready.
    pub preload: Option<String>,
    /// Phase, where one was written.
    pub phase: Option<WarmPodPhase>,
    /// Node of its pod.
    pub node: Option<String>,
    /// When it became ready.
    pub ready_at: Option<Timestamp>,
    /// Whom it belongs to.
    pub claim: Claim,
    /// When it was assigned.
    pub assigned_at: Option<Timestamp>,
    /// Name of the Sandbox it belongs to.
    pub sandbox_name: Option<String>,
}

impl From<WarmPod> for WarmPodView {
    fn from(pod: WarmPod) -> Self {
        let identity = Identity::of(&pod);
        let status = pod.status.unwrap_or_default();
        let claim = match status.assigned_to {
            None => Claim::Free,
            Some(owner) if owner.starts_with(RETIRED_PREFIX) => Claim::Retired,
            Some(uid) => Claim::Sandbox(uid),
        };
        Self {
            identity,
            pool: pod.spec.pool_ref.name,
            shape: pod.spec.shape.unwrap_or_default(),
            preload: pod.spec.preload,
            phase: status.phase,
            node: status.node_name,
            ready_at: status.ready_at.map(|t| t.0),
            claim,
            assigned_at: status.assigned_at.map(|t| t.0),
            sandbox_name: status.sandbox_name,
        }
    }
}

/// A WarmPool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolView {
    /// Metadata.
    pub identity: Identity,
    /// What is asked for.
    pub spec: WarmPoolSpec,
    /// Status as written.
    pub status: WarmPoolStatus,
}

impl From<WarmPool> for PoolView {
    fn from(pool: WarmPool) -> Self {
        Self {
            identity: Identity::of(&pool),
            spec: pool.spec,
            status: pool.status.unwrap_or_default(),
        }
    }
}

/// A RuntimeEnvironment.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeView {
    /// Metadata.
    pub identity: Identity,
    /// The object, for [`pilotlight_common::resolve`].
    pub object: RuntimeEnvironment,
}

impl From<RuntimeEnvironment> for RuntimeView {
    fn from(object: RuntimeEnvironment) -> Self {
        Self {
            identity: Identity::of(&object),
            object,
        }
    }
}

/// A SandboxProfile.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileView {
    /// Metadata.
    pub identity: Identity,
    /// The object, for [`pilotlight_common::resolve`].
    pub object: SandboxProfile,
}

impl From<SandboxProfile> for ProfileView {
    fn from(object: SandboxProfile) -> Self {
        Self {
            identity: Identity::of(&object),
            object,
        }
    }
}

/// A node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeView {
    /// Metadata.
    pub identity: Identity,
    /// Whether it carries the label that sandbox pods select.
    pub labelled: bool,
    /// Whether the label says that it published what it was not given.
    pub distrusted: bool,
}

impl From<PartialObjectMeta<Node>> for NodeView {
    fn from(node: PartialObjectMeta<Node>) -> Self {
        let label = node.labels().get(AGENT_READY_LABEL).map(String::as_str);
        Self {
            identity: Identity::of(&node),
            labelled: label == Some(AGENT_READY),
            distrusted: label == Some(AGENT_DISTRUSTED),
        }
    }
}

/// A RuntimeClass; all that matters is that it is there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RuntimeClassView {
    /// Metadata.
    pub identity: Identity,
}

impl From<PartialObjectMeta<RuntimeClass>> for RuntimeClassView {
    fn from(class: PartialObjectMeta<RuntimeClass>) -> Self {
        Self {
            identity: Identity::of(&class),
        }
    }
}
