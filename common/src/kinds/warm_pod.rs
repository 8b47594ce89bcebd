//! `WarmPod`: one warm pod, and the arbiter of who gets it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One pod of a pool. `status.assignedTo` is set once, which makes the API server the arbiter of every race.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "llmsafespace.dev",
    version = "v1",
    kind = "WarmPod",
    plural = "warmpods",
    singular = "warmpod",
    shortname = "wpod",
    namespaced,
    derive = "PartialEq",
    status = "WarmPodStatus",
    doc = "One pod of a pool. status.assignedTo is set once, which makes the API server the arbiter of every race.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.poolRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Pod", type_ = "string", json_path = ".status.podName"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName", priority = 1),
    printcolumn(name = "Sandbox", type_ = "string", json_path = ".status.sandboxName"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.assignedTo) || (has(self.status) && has(self.status.assignedTo) && self.status.assignedTo == oldSelf.status.assignedTo)").message("status.assignedTo is set once: a warm pod serves one sandbox only").reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.spec.poolRef == oldSelf.spec.poolRef").message("spec.poolRef cannot be changed: a pod belongs to the pool that made it").field_path(".spec.poolRef").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(oldSelf.spec.shape) || (has(self.spec.shape) && self.spec.shape == oldSelf.spec.shape)").message("spec.shape cannot be changed: it says what the pod is").field_path(".spec.shape").reason(Reason::FieldValueForbidden),
)]
#[serde(rename_all = "camelCase")]
pub struct WarmPodSpec {
    /// The pool this pod belongs to.
    pub pool_ref: PoolRef,
    /// Added: hash of all that is fixed in the pod; a Sandbox takes a pod only of its own shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// Added: hash of what its pool put into the pod before it was ready; none where that was nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preload: Option<String>,
    /// When this object was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Time>,
    /// When the node's agent last saw the pod healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<Time>,
}

/// Reference to a pool.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRef {
    /// Name of the WarmPool.
    pub name: String,
    /// Namespace of the WarmPool; always the WarmPod's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Where a warm pod stands.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WarmPodStatus {
    /// Where the warm pod is in its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<WarmPodPhase>,
    /// Name of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// Namespace of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// Added: node of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Added: when the pod became ready; its time to live counts from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<MicroTime>,
    /// UID of the Sandbox this pod serves, or `retired:<reason>` for one that will serve none; set once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned_to: Option<String>,
    /// When the pod was assigned. Microseconds, for timelines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned_at: Option<MicroTime>,
    /// Added: name of the Sandbox this pod serves, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_name: Option<String>,
}

/// Where a warm pod is in its life.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum WarmPodPhase {
    /// Its pod is being made.
    Pending,
    /// Armed by its node's agent and assignable.
    Ready,
    /// Serves a Sandbox.
    Assigned,
    /// Being removed.
    Terminating,
}

/// Prefix of an `assignedTo` that takes a pod out of service: no Kubernetes UID contains a colon, so it can
/// never be mistaken for a Sandbox, and by the set-once rule no Sandbox can get the pod afterwards.
pub const RETIRED_PREFIX: &str = "retired:";
