//! `Sandbox`: what a user asks for, and what became of it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;

/// An isolated, single-use environment for running code.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "llmsafespace.dev",
    version = "v1",
    kind = "Sandbox",
    plural = "sandboxes",
    singular = "sandbox",
    shortname = "sb",
    namespaced,
    derive = "PartialEq",
    status = "SandboxStatus",
    doc = "An isolated, single-use environment for running code.",
    printcolumn(name = "Runtime", type_ = "string", json_path = ".spec.runtime"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Pod", type_ = "string", json_path = ".status.podName"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName", priority = 1),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.podName) || (has(self.status) && has(self.status.podName) && self.status.podName == oldSelf.status.podName)").message("status.podName is set once: a sandbox runs on one pod only").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.phase) || !(oldSelf.status.phase in ['Terminated', 'Failed']) || (has(self.status) && has(self.status.phase) && self.status.phase == oldSelf.status.phase)").message("status.phase Terminated or Failed is final: create a new Sandbox").reason(Reason::FieldValueForbidden),
    validation = Rule::new("self.spec.runtime == oldSelf.spec.runtime").message("spec.runtime cannot be changed: create a new Sandbox").field_path(".spec.runtime").reason(Reason::FieldValueForbidden),
    validation = Rule::new("has(self.spec.securityLevel) == has(oldSelf.spec.securityLevel) && (!has(self.spec.securityLevel) || self.spec.securityLevel == oldSelf.spec.securityLevel)").message("spec.securityLevel cannot be changed: create a new Sandbox").field_path(".spec.securityLevel").reason(Reason::FieldValueForbidden),
    validation = Rule::new("has(self.spec.resources) == has(oldSelf.spec.resources) && (!has(self.spec.resources) || self.spec.resources == oldSelf.spec.resources)").message("spec.resources cannot be changed: create a new Sandbox").field_path(".spec.resources").reason(Reason::FieldValueForbidden),
    validation = Rule::new("has(self.spec.filesystem) == has(oldSelf.spec.filesystem) && (!has(self.spec.filesystem) || self.spec.filesystem == oldSelf.spec.filesystem)").message("spec.filesystem cannot be changed: create a new Sandbox").field_path(".spec.filesystem").reason(Reason::FieldValueForbidden),
    validation = Rule::new("has(self.spec.securityContext) == has(oldSelf.spec.securityContext) && (!has(self.spec.securityContext) || self.spec.securityContext == oldSelf.spec.securityContext)").message("spec.securityContext cannot be changed: create a new Sandbox").field_path(".spec.securityContext").reason(Reason::FieldValueForbidden),
    validation = Rule::new("has(self.spec.profileRef) == has(oldSelf.spec.profileRef) && (!has(self.spec.profileRef) || self.spec.profileRef == oldSelf.spec.profileRef)").message("spec.profileRef cannot be changed: create a new Sandbox").field_path(".spec.profileRef").reason(Reason::FieldValueForbidden),
    validation = Rule::new("(has(self.spec.storage) && has(self.spec.storage.persistent) && self.spec.storage.persistent) == (has(oldSelf.spec.storage) && has(oldSelf.spec.storage.persistent) && oldSelf.spec.storage.persistent)").message("spec.storage.persistent cannot be changed: create a new Sandbox").field_path(".spec.storage").reason(Reason::FieldValueForbidden),
    validation = Rule::new("!(has(oldSelf.spec.storage) && has(oldSelf.spec.storage.volumeSize)) || (has(self.spec.storage) && has(self.spec.storage.volumeSize) && (self.spec.storage.volumeSize == oldSelf.spec.storage.volumeSize || quantity(self.spec.storage.volumeSize).compareTo(quantity(oldSelf.spec.storage.volumeSize)) >= 0))").message("spec.storage.volumeSize can only grow: for a smaller one create a new Sandbox").field_path(".spec.storage").reason(Reason::FieldValueForbidden),
)]
#[serde(rename_all = "camelCase")]
pub struct SandboxSpec {
    /// Name of the RuntimeEnvironment: its object name, that name with `:` for `-`, or `language:version`.
    pub runtime: String,
    /// How strictly the sandbox is isolated. A profile can only make it stricter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "standard"))]
    pub security_level: Option<SecurityLevel>,
    /// Lifetime in seconds, counted from `status.startTime`; the sandbox is ended when it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600), extend("default" = 300))]
    pub timeout: Option<i64>,
    /// What the sandbox may use of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<SandboxResources>,
    /// What the sandbox may reach, and who may reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_access: Option<NetworkAccess>,
    /// Which parts of the file system can be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
    /// Storage that outlives the container, mounted at `/data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// User, group and seccomp profile of the processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
    /// The SandboxProfile that supplies what is not said here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile_ref: Option<ProfileRef>,
}

/// How strictly a sandbox is isolated.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SecurityLevel {
    /// The baseline: non-root, no capabilities, seccomp, read-only root.
    #[default]
    Standard,
    /// The baseline inside a kernel of its own (gVisor), with the strictest seccomp profile.
    High,
    /// The baseline, with the security context that the sandbox brings.
    Custom,
}

/// Limits of a sandbox.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxResources {
    /// CPU limit, in millicores (`500m`) or with a decimal point (`1.0`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+m|[0-9]+\.[0-9]+)$"), extend("default" = "500m"))]
    pub cpu: Option<String>,
    /// Memory limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+(Ki|Mi|Gi)$"), extend("default" = "512Mi"))]
    pub memory: Option<String>,
    /// Limit of everything written to the container and its writable paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+(Ki|Mi|Gi)$"), extend("default" = "1Gi"))]
    pub ephemeral_storage: Option<String>,
    /// Whether the sandbox gets whole CPUs that no other pod runs on: its CPU limit, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub cpu_pinning: Option<bool>,
}

/// What a sandbox may reach, and who may reach it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkAccess {
    /// Names the sandbox may reach; nothing else is reachable, but for what its profile adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<EgressRule>>,
    /// Whether everybody may connect to it, and not its own node alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub ingress: Option<bool>,
}

/// One name a sandbox may reach.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressRule {
    /// Domain name; a leading `*.` stands for any name below.
    pub domain: String,
    /// Ports of that name; none means 443 and 80 of TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<Port>>,
}

/// One port of an egress rule.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Port number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i64>,
    /// Transport protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "TCP"))]
    pub protocol: Option<Protocol>,
}

/// Transport protocol of a port.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// Transmission Control Protocol.
    #[default]
    Tcp,
    /// User Datagram Protocol.
    Udp,
}

/// Which parts of the file system can be written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filesystem {
    /// Whether the image's own files are mounted read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = true))]
    pub read_only_root: Option<bool>,
    /// Absolute paths that can be written; each is an empty volume of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = ["/tmp", "/workspace"]))]
    pub writable_paths: Option<Vec<String>>,
}

/// Storage that outlives the container.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Whether the sandbox gets a persistent volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub persistent: Option<bool>,
    /// Size of the persistent volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+(Ki|Mi|Gi)$"), extend("default" = "5Gi"))]
    pub volume_size: Option<String>,
}

/// User, group and seccomp profile of the processes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityContext {
    /// Numeric user of the processes; 0 is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 1000))]
    pub run_as_user: Option<i64>,
    /// Numeric group of the processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 1000))]
    pub run_as_group: Option<i64>,
    /// The seccomp profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp_profile: Option<SeccompProfile>,
}

/// A seccomp profile.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompProfile {
    /// Where the profile comes from.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "RuntimeDefault"))]
    pub type_: Option<SeccompType>,
    /// Name of an installed profile, with `type: Localhost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub localhost_profile: Option<String>,
}

/// Where a seccomp profile comes from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub enum SeccompType {
    /// The container runtime's own profile.
    #[default]
    RuntimeDefault,
    /// A profile installed on the node by the agent.
    Localhost,
}

/// Reference to a SandboxProfile.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileRef {
    /// Name of the profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace of the profile; the referring object's own where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What became of a sandbox.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStatus {
    /// Where the sandbox is in its life; Terminated and Failed are final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<SandboxPhase>,
    /// Observations: Accepted, Assigned, Prepared, Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Option<Vec<Condition>>,
    /// The pod that runs the sandbox; set once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// Namespace of that pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// Added: the node of that pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// When the sandbox became Running; its lifetime counts from here. Microseconds, for timelines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,
    /// Name under which the pod is reachable in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What the sandbox uses now; written when it changes by a tenth, at most every 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<UsageStatus>,
    /// Added: the CPUs of its node that are its own, as a list (`2-3,8`); with `resources.cpuPinning`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// Added: when the sandbox reached its final phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_time: Option<Time>,
}

/// What a sandbox uses now.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageStatus {
    /// CPU use of the whole pod, in millicores (`250m`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_usage: Option<String>,
    /// Working set of the whole pod (`120Mi`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_usage: Option<String>,
}

/// Where a sandbox is in its life.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum SandboxPhase {
    /// Waiting for a pod; the Ready condition says for what.
    Pending,
    /// A pod of its own is being made.
    Creating,
    /// On its pod, armed and published.
    Running,
    /// Over; its pod is being deleted.
    Terminating,
    /// Over; its pod is gone.
    Terminated,
    /// It can no longer run; the Ready condition says why.
    Failed,
}

impl SandboxPhase {
    /// Whether the sandbox has reached a phase that it never leaves.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Terminated | Self::Failed)
    }
}

impl Sandbox {
    /// The phase, where one was written yet.
    pub fn phase(&self) -> Option<SandboxPhase> {
        self.status.as_ref().and_then(|s| s.phase)
    }

    /// When the sandbox became Running.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.status.as_ref()?.start_time.as_ref().map(|t| t.0)
    }
}
