//! `WarmPool`: how many pods of which shape are kept warm.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, ProfileRef, SecurityLevel};

/// A number of running pods kept ready for the sandboxes of its namespace.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "llmsafespace.dev",
    version = "v1",
    kind = "WarmPool",
    plural = "warmpools",
    singular = "warmpool",
    shortname = "wp",
    namespaced,
    derive = "PartialEq",
    status = "WarmPoolStatus",
    scale(
        spec_replicas_path = ".spec.minSize",
        status_replicas_path = ".status.availablePods",
        label_selector_path = ".status.selector"
    ),
    doc = "A number of running pods kept ready for the sandboxes of its namespace.",
    printcolumn(name = "Runtime", type_ = "string", json_path = ".spec.runtime"),
    printcolumn(name = "Min", type_ = "integer", json_path = ".spec.minSize"),
    printcolumn(
        name = "Available",
        type_ = "integer",
        json_path = ".status.availablePods"
    ),
    printcolumn(
        name = "Assigned",
        type_ = "integer",
        json_path = ".status.assignedPods"
    ),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.pendingPods"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct WarmPoolSpec {
    /// Name of the RuntimeEnvironment, as in a Sandbox.
    pub runtime: String,
    /// Pods kept available for assignment, those being made included.
    #[schemars(range(min = 0))]
    pub min_size: i64,
    /// Most pods of this pool, the assigned ones included; 0 means no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_size: Option<i64>,
    /// Security level of the pods; a Sandbox takes a pod only of its own level.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "standard"))]
    pub security_level: Option<SecurityLevel>,
    /// Seconds after becoming ready in which an idle pod is replaced; 0 means never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 3600))]
    pub ttl: Option<i64>,
    /// Limits of the pods; a Sandbox takes a pod only of its own limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<PoolResources>,
    /// The SandboxProfile that supplies what is not said here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile_ref: Option<ProfileRef>,
    /// Packages installed into each pod before it is ready, by the runtime's package manager, below `/opt/preload`:
    /// a name and, if wanted, a version, such as `numpy==2.1.0` or `lodash@4.17.21`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preload_packages: Option<Vec<String>>,
    /// Scripts run in each pod before it is ready, after the packages, in the order of their names. Their output is
    /// in the log of the pod's container `preload-N`, where N counts from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preload_scripts: Option<Vec<PreloadScript>>,
    /// How the number of pods follows the use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_scaling: Option<AutoScaling>,
}

/// Limits of a pool's pods.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolResources {
    /// CPU limit, in millicores (`500m`) or with a decimal point (`1.0`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+m|[0-9]+\.[0-9]+)$"), extend("default" = "500m"))]
    pub cpu: Option<String>,
    /// Memory limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+(Ki|Mi|Gi)$"), extend("default" = "512Mi"))]
    pub memory: Option<String>,
}

/// A script run in each pod before it is ready.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PreloadScript {
    /// Name of the script; decides the order, and must be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Text of the script. It is run itself where it begins with `#!`, else by `/bin/sh`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// How the number of pods follows the use.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoScaling {
    /// Whether the number of pods follows the use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub enabled: Option<bool>,
    /// Share of the pods that is to be assigned, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100), extend("default" = 80))]
    pub target_utilization: Option<i64>,
    /// Seconds to wait before scaling down.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 300))]
    pub scale_down_delay: Option<i64>,
}

/// What a pool holds now.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WarmPoolStatus {
    /// Pods that a Sandbox could be given at once; those of the pool's former shape, kept until they are replaced,
    /// among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_pods: Option<i64>,
    /// Pods that serve a Sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned_pods: Option<i64>,
    /// Pods that are being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_pods: Option<i64>,
    /// When a pod was last added or removed to change the size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
    /// Added: label selector of the pool's pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Observations: Ready, ScalingUp, ScalingDown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Option<Vec<Condition>>,
}
