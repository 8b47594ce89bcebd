//! The stored version.

// The lint takes equal `type_`s of different printer columns for a repetition.
#![allow(clippy::duplicated_attributes)]

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::template::{PodTemplate, ShutdownPolicy, VolumeClaimTemplate};

/// One pod of a known name, with storage and a DNS name that outlive it.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "agents.x-k8s.io",
    version = "v1beta1",
    kind = "Sandbox",
    plural = "sandboxes",
    singular = "sandbox",
    shortname = "sandbox",
    namespaced,
    derive = "PartialEq",
    status = "SandboxStatus",
    doc = "One pod of a known name, with storage and a DNS name that outlive it.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.operatingMode", priority = 1),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    validation = Rule::new("has(self.spec.volumeClaimTemplates) == has(oldSelf.spec.volumeClaimTemplates) && (!has(self.spec.volumeClaimTemplates) || self.spec.volumeClaimTemplates == oldSelf.spec.volumeClaimTemplates)").message("volumeClaimTemplates is immutable").field_path(".spec.volumeClaimTemplates").reason(Reason::FieldValueForbidden),
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
    /// Whether it is to have a pod. Volumes, Service and the object itself stay while it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Running"))]
    pub operating_mode: Option<OperatingMode>,
}

/// Whether a Sandbox is to have a pod.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OperatingMode {
    /// It is.
    Running,
    /// It is not, for now.
    Suspended,
}

/// What became of it. The scheduler alone writes it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStatus {
    /// DNS name of its Service.
    #[serde(
        default,
        rename = "serviceFQDN",
        skip_serializing_if = "Option::is_none"
    )]
    pub service_fqdn: Option<String>,
    /// Name of its Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Observations: Ready, Suspended, PodScheduled, Finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// Label selector of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Addresses of its pod.
    #[serde(default, rename = "podIPs", skip_serializing_if = "Option::is_none")]
    pub pod_ips: Option<Vec<String>>,
    /// Node of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Its pods: 0 or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
}
