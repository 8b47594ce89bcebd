//! What the index keeps of a Sandbox and of what belongs to it. Made by the watches and by [`super::apply`].

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use pilotlight_common::agents::names::{
    ADOPTABLE_LABEL, CREATED_BY_LABEL, NAME_HASH_LABEL, RECREATE_FAILED_POD, name_hash,
};
use pilotlight_common::agents::v1beta1::{OperatingMode, Sandbox, SandboxSpec, SandboxStatus};
use pilotlight_common::agents::{GROUP, KIND, ShutdownPolicy};

use crate::view::{Identity, Key, View};

/// A Sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxView {
    /// Metadata.
    pub identity: Identity,
    /// Counts the changes of the spec.
    pub generation: Option<i64>,
    /// Its label of the client that made it.
    pub created_by: Option<String>,
    /// Whether a failed pod is replaced.
    pub recreate_failed: bool,
    /// What is wanted.
    pub spec: Arc<SandboxSpec>,
    /// What was said of it last.
    pub status: SandboxStatus,
}

impl From<Sandbox> for SandboxView {
    fn from(sandbox: Sandbox) -> Self {
        let annotation = sandbox.annotations().get(RECREATE_FAILED_POD);
        Self {
            identity: Identity::of(&sandbox),
            generation: sandbox.metadata.generation,
            created_by: sandbox.labels().get(CREATED_BY_LABEL).cloned(),
            recreate_failed: annotation.is_some_and(|value| value == "true"),
            status: sandbox.status.unwrap_or_default(),
            spec: Arc::new(sandbox.spec),
        }
    }
}

impl SandboxView {
    /// Whether it is to have no pod for now.
    pub fn suspended(&self) -> bool {
        self.spec.operating_mode == Some(OperatingMode::Suspended)
    }

    /// Whether it is deleted at its end.
    pub fn is_deleted_at_its_end(&self) -> bool {
        self.spec.shutdown_policy == Some(ShutdownPolicy::Delete)
    }

    /// Whether its time is over.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.spec.shutdown_time.is_some_and(|end| end <= now)
    }

    /// What the API server is told of an object that belongs to it.
    pub fn owner_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: format!("{GROUP}/v1beta1"),
            kind: KIND.to_owned(),
            name: self.identity.key.name.clone(),
            uid: self.identity.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}

/// Something that may belong to a Sandbox, with what its kind says beyond metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Child<T> {
    /// Metadata.
    pub identity: Identity,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Owners.
    pub owners: Vec<OwnerReference>,
    /// The rest.
    pub facts: T,
}

/// Whose a child is.
#[derive(Clone, Debug, PartialEq)]
pub enum Ownership<'a> {
    /// This Sandbox's.
    Own,
    /// Nobody's, and may be taken.
    Adoptable,
    /// Nobody's, and may not be taken.
    Unowned,
    /// Somebody else's.
    Foreign(&'a OwnerReference),
}

impl<T> Child<T> {
    fn new<K: Resource>(object: &K, facts: T) -> Self {
        Self {
            identity: Identity::of(object),
            labels: object.labels().clone(),
            annotations: object.annotations().clone(),
            owners: object.owner_references().to_vec(),
            facts,
        }
    }

    /// The one of its owners that controls it.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owners
            .iter()
            .find(|owner| owner.controller == Some(true))
    }

    /// Whose it is, seen from a Sandbox.
    pub fn ownership(&self, sandbox: &SandboxView) -> Ownership<'_> {
        let label = |key: &str, value: &str| self.labels.get(key).is_some_and(|v| v == value);
        match self.controller() {
            Some(owner) if owner.uid == sandbox.identity.uid => Ownership::Own,
            Some(owner) => Ownership::Foreign(owner),
            None if label(ADOPTABLE_LABEL, "true")
                || label(NAME_HASH_LABEL, &name_hash(&sandbox.identity.key.name)) =>
            {
                Ownership::Adoptable
            }
            None => Ownership::Unowned,
        }
    }
}

impl<T> View for Child<T> {
    fn key(&self) -> &Key {
        &self.identity.key
    }

    fn uid(&self) -> &str {
        &self.identity.uid
    }

    fn revision(&self) -> u64 {
        self.identity.revision
    }
}

impl View for SandboxView {
    fn key(&self) -> &Key {
        &self.identity.key
    }

    fn uid(&self) -> &str {
        &self.identity.uid
    }

    fn revision(&self) -> u64 {
        self.identity.revision
    }
}

/// What a pod says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    /// Its phase, as it stands there.
    pub phase: String,
    /// Whether its containers are ready.
    pub ready: bool,
    /// Status, reason and message of its condition PodScheduled.
    pub scheduled: Option<(String, String, String)>,
    /// Its addresses.
    pub ips: Vec<String>,
    /// Its node.
    pub node: Option<String>,
}

/// A pod.
pub type PodView = Child<PodFacts>;

impl From<Pod> for PodView {
    fn from(pod: Pod) -> Self {
        let status = pod.status.as_ref();
        let condition = |type_: &str| {
            let mut all = status?.conditions.iter().flatten();
            all.find(|condition| condition.type_ == type_)
        };
        let facts = PodFacts {
            phase: status.and_then(|s| s.phase.clone()).unwrap_or_default(),
            ready: condition("Ready").is_some_and(|c| c.status == "True"),
            scheduled: condition("PodScheduled").map(|c| {
                (
                    c.status.clone(),
                    c.reason.clone().unwrap_or_default(),
                    c.message.clone().unwrap_or_default(),
                )
            }),
            ips: status
                .and_then(|s| s.pod_ips.as_ref())
                .map(|ips| ips.iter().map(|ip| ip.ip.clone()).collect())
                .unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        };
        Self::new(&pod, facts)
    }
}

/// What a Service says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceFacts {
    /// Its address; `None` of a headless one.
    pub cluster_ip: Option<String>,
    /// What it selects by.
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A Service.
pub type ServiceView = Child<ServiceFacts>;

impl From<Service> for ServiceView {
    fn from(service: Service) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let facts = ServiceFacts {
            cluster_ip: spec.cluster_ip,
            selector: spec.selector.unwrap_or_default(),
            ports: spec.ports.unwrap_or_default(),
        };
        Self::new(&service, facts)
    }
}

/// A claim of a volume.
pub type ClaimView = Child<()>;

impl From<PersistentVolumeClaim> for ClaimView {
    fn from(claim: PersistentVolumeClaim) -> Self {
        Self::new(&claim, ())
    }
}
