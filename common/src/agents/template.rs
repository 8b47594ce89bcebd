//! What both versions of the Sandbox have in common.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The pod of a Sandbox.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels and annotations of the pod. Edits of them reach the running pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PodMetadata>,
    /// A PodSpec. Edits take effect with the next pod: the running one is not touched.
    // Kept as it was written: what this version of the API does not know yet, and a number where a quantity may be one, goes to the pod
    // unchanged.
    #[schemars(schema_with = "pod_spec")]
    pub spec: Map<String, Value>,
}

/// Labels and annotations of the pod.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    /// Labels. Those of the prefixes agents.x-k8s.io and extensions.agents.x-k8s.io are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations. Those of the prefixes agents.x-k8s.io and extensions.agents.x-k8s.io are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A volume that outlives the pod.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaimTemplate {
    /// Name of the volume in the pod, with labels and annotations of the claim. The claim is called `<name>-<sandbox>`.
    pub metadata: VolumeClaimMetadata,
    /// A PersistentVolumeClaimSpec.
    #[schemars(schema_with = "claim_spec")]
    pub spec: Map<String, Value>,
}

/// Name, labels and annotations of a claim.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaimMetadata {
    /// Name of the volume in the pod.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What becomes of a Sandbox at its `shutdownTime`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ShutdownPolicy {
    /// It is deleted, with everything that is its own.
    Delete,
    /// It stays, and says that it has expired; its pod and Service are deleted.
    Retain,
}

fn pod_spec(generator: &mut SchemaGenerator) -> Schema {
    k8s_openapi::api::core::v1::PodSpec::json_schema(generator)
}

fn claim_spec(generator: &mut SchemaGenerator) -> Schema {
    k8s_openapi::api::core::v1::PersistentVolumeClaimSpec::json_schema(generator)
}
