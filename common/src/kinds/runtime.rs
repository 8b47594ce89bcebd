//! `RuntimeEnvironment`: an image that sandboxes can run.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;

/// An image that sandboxes can run. Only an administrator decides what images run, so it is cluster-wide.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "llmsafespace.dev",
    version = "v1",
    kind = "RuntimeEnvironment",
    plural = "runtimeenvironments",
    singular = "runtimeenvironment",
    shortname = "rte",
    derive = "PartialEq",
    status = "RuntimeEnvironmentStatus",
    doc = "An image that sandboxes can run. Only an administrator decides what images run, so it is cluster-wide.",
    printcolumn(name = "Language", type_ = "string", json_path = ".spec.language"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Available", type_ = "boolean", json_path = ".status.available"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Available")].reason"#
    ),
    printcolumn(name = "Tags", type_ = "string", json_path = ".spec.tags"),
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".spec.image",
        priority = 1
    ),
    printcolumn(
        name = "LastValidated",
        type_ = "date",
        json_path = ".status.lastValidated",
        priority = 1
    ),
    selectable = ".spec.language",
    selectable = ".spec.version",
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeEnvironmentSpec {
    /// Container image.
    pub image: String,
    /// Added: command that keeps the container up; the image's entrypoint where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Language, such as `python` or `nodejs`.
    pub language: String,
    /// Version of the language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Words to find it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Packages that the image carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_installed_packages: Option<Vec<String>>,
    /// Program that installs packages, such as `pip` or `npm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_manager: Option<String>,
    /// Security features that the image supports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_features: Option<Vec<String>>,
    /// What the image needs, and what suits it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_requirements: Option<ResourceRequirements>,
}

/// What an image needs, and what suits it. Any Kubernetes quantity is taken, such as `1`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRequirements {
    /// A sandbox with less CPU is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_cpu: Option<String>,
    /// A sandbox with less memory is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_memory: Option<String>,
    /// CPU limit of a sandbox that says none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recommended_cpu: Option<String>,
    /// Memory limit of a sandbox that says none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recommended_memory: Option<String>,
}

/// Whether a runtime can be used.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeEnvironmentStatus {
    /// Whether a pod of this runtime became ready; left out while nothing is known about the present image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<bool>,
    /// When that was last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_validated: Option<Time>,
    /// Added: hash of the image and command that `available` and `lastValidated` speak of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_hash: Option<String>,
    /// Added: observations: Available, `InUse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Option<Vec<Condition>>,
}
