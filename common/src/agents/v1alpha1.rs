//! The deprecated version, for clients that are not beyond it. It says in `replicas` what [`super::v1beta1`] says in `operatingMode`.

// The lint takes equal `type_`s of different printer columns for a repetition.
#![allow(clippy::duplicated_attributes)]

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::template::{PodTemplate, ShutdownPolicy, VolumeClaimTemplate};
pub use super::v1beta1::SandboxStatus;

/// One pod of a known name, with storage and a DNS name that outlive it.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "agents.x-k8s.io",
    version = "v1alpha1",
    kind = "Sandbox",
    plural = "sandboxes",
    singular = "sandbox",
    shortname = "sandbox",
    namespaced,
    derive = "PartialEq",
    status = "SandboxStatus",
    doc = "One pod of a known name, with storage and a DNS name that outlive it.",
    deprecated = "agents.x-k8s.io/v1alpha1 Sandbox is deprecated; use agents.x-k8s.io/v1beta1",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas", label_selector_path = ".status.selector"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(self.spec.service) || !self.spec.service || (size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$'))").message("with spec.service, the name is also that of a Service: at most 63 of a-z, 0-9 and -, beginning with a letter").field_path(".spec.service").reason(Reason::FieldValueInvalid),
)]
#[serde(rename_all = "camelCase")]
pub struct SandboxSpec {
    /// The pod. It has the Sandbox's name.
    pub pod_template: PodTemplate,
    /// Volumes that outlive the pod, and go with the Sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim_templates: Option<Vec<VolumeClaimTemplate>>,
    /// Whether there is a headless Service of the Sandbox's name. Not said: none is made, and one that is there is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<bool>,
    /// When the Sandbox ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub shutdown_time: Option<Timestamp>,
    /// What becomes of it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Retain"))]
    pub shutdown_policy: Option<ShutdownPolicy>,
    /// Its pods: 1, or 0 while it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1), extend("default" = 1))]
    pub replicas: Option<i32>,
}
