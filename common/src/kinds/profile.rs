//! `SandboxProfile`: what many sandboxes share.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Protocol, SecurityLevel};

/// Settings that many sandboxes share; a Sandbox or WarmPool names it by `profileRef`.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "llmsafespace.dev",
    version = "v1",
    kind = "SandboxProfile",
    plural = "sandboxprofiles",
    singular = "sandboxprofile",
    shortname = "sbp",
    namespaced,
    derive = "PartialEq",
    doc = "Settings that many sandboxes share; a Sandbox or WarmPool names it by profileRef.",
    printcolumn(name = "Language", type_ = "string", json_path = ".spec.language"),
    printcolumn(
        name = "SecurityLevel",
        type_ = "string",
        json_path = ".spec.securityLevel"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct SandboxProfileSpec {
    /// Language this profile is for; it must be the runtime's.
    pub language: String,
    /// The least strict level that a user of this profile gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "standard"))]
    pub security_level: Option<SecurityLevel>,
    /// Name of an installed seccomp profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp_profile: Option<String>,
    /// Network rules added to those of the sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_policies: Option<Vec<NetworkPolicy>>,
    /// Packages that the runtime's image must carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_installed_packages: Option<Vec<String>>,
    /// Limits for sandboxes that say none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_defaults: Option<ResourceDefaults>,
    /// Paths added to those of the sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem_config: Option<FilesystemConfig>,
}

/// Network rules of one direction.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// Direction of the traffic.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<NetworkPolicyType>,
    /// What is allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<NetworkPolicyRule>>,
}

/// Direction of a network policy.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkPolicyType {
    /// From the sandbox.
    Egress,
    /// To the sandbox.
    Ingress,
}

/// One thing a network policy allows.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicyRule {
    /// Domain name, of an egress rule; a leading `*.` stands for any name below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Address range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr: Option<String>,
    /// Ports of the destination; none means 443 and 80 of TCP for egress, every port for ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<ProfilePort>>,
}

/// One port of a network policy; unlike a Sandbox's it has neither bounds nor a default in the schema.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfilePort {
    /// Port number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// Transport protocol; TCP where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

/// Limits for sandboxes that say none. Any Kubernetes quantity is taken, such as `1`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceDefaults {
    /// CPU limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Memory limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Ephemeral storage limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<String>,
}

/// Paths of a profile.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FilesystemConfig {
    /// Absolute paths that no sandbox of this profile can write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only_paths: Option<Vec<String>>,
    /// Absolute paths that can be written besides the sandbox's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writable_paths: Option<Vec<String>>,
}
