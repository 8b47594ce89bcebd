//! The messages of the node stream.
//!
//! Scheduler to agent, `GET /v1/nodes/{node}/assignments`: JSON lines, first one [`StreamMessage::Snapshot`], then
//! changes, with a bookmark at least every [`BOOKMARK_INTERVAL_SECONDS`]. Agent to scheduler,
//! `PUT /v1/nodes/{node}/report`: one [`NodeReport`], whenever it changed and as often as a bookmark.
//!
//! Every scheduler replica sends what its own index knows, and an agent listens to all of them, so a message
//! can come twice or late: assignments are idempotent by (owner of the pod, sandbox UID).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::network::NetworkRules;

/// Longest silence of a healthy stream, in seconds. An agent that hears nothing for three of them reconnects.
pub const BOOKMARK_INTERVAL_SECONDS: u64 = 10;
/// Longest line either side accepts, in bytes: a snapshot of 250 assignments is about 150 KiB, their network rules at most 32 KiB each
/// ([`crate::network::MAX_RULES_BYTES`]), and 32 seccomp profiles of 128 KiB are 8 MiB where every character is escaped.
pub const MAX_MESSAGE_BYTES: usize = 20 << 20;

/// Identity of a namespaced object. The UID tells a successor of the same name apart.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ObjectId {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// UID of the object.
    pub uid: String,
}

/// One pod given to one sandbox, with all that the agent needs to arm and publish it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// What owns the pod: its WarmPod, which bears the same name; or, of a pod made for it alone, the sandbox itself.
    pub owner: ObjectId,
    /// Name of the pod.
    pub pod_name: String,
    /// The sandbox.
    pub sandbox: ObjectId,
    /// Name under which the pod is reachable.
    pub endpoint: String,
    /// When the assignment was decided, by the scheduler's clock.
    pub assigned_at: Timestamp,
    /// Whole CPUs that the pod must have for its own before it is published; 0 where it asks for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cpus: u32,
    /// What the sandbox may reach, and who may reach it.
    #[serde(default, skip_serializing_if = "NetworkRules::is_empty")]
    pub network: NetworkRules,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference over"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Assignment {
    /// Whether the pod was made for the sandbox alone: it may take as long to start as an image takes to pull.
    pub fn is_cold(&self) -> bool {
        self.owner.uid == self.sandbox.uid
    }
}

/// A seccomp profile that is not the project's own, as it was brought: agents validate it once more before they install it.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct UserProfile {
    /// Its name.
    pub name: String,
    /// The profile in the OCI runtime's format.
    pub json: String,
}

/// What the scheduler tells an agent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StreamMessage {
    /// All that this replica knows; the first message of a stream.
    Snapshot {
        /// All assignments of the node.
        assignments: Vec<Assignment>,
        /// The seccomp profiles that the installation's users brought, all of them.
        #[serde(default)]
        profiles: Vec<UserProfile>,
    },
    /// The profiles that users brought changed; these are all of them.
    Profiles {
        /// The profiles.
        profiles: Vec<UserProfile>,
    },
    /// One more assignment.
    Assign {
        /// The assignment.
        assignment: Assignment,
    },
    /// What the sandbox of an assignment may reach was edited.
    Network {
        /// What owns the pod.
        owner: ObjectId,
        /// UID of the sandbox.
        sandbox_uid: String,
        /// The rules from now on.
        rules: NetworkRules,
    },
    /// The assignment's sandbox or its pod's owner is gone, or the sandbox ended.
    Release {
        /// What owns the pod.
        owner: ObjectId,
        /// UID of the sandbox.
        sandbox_uid: String,
    },
    /// Nothing new; the stream is alive.
    Bookmark,
}

/// What an agent knows and the API server need not.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Version of the agent.
    pub agent_version: String,
    /// Whether the agent can arm pods: its `host` process answers and its watch is up.
    pub ready: bool,
    /// Why not, for people; empty where `ready`.
    #[serde(default)]
    pub message: String,
    /// File names of the seccomp profiles that are installed on the node.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// Assignments this agent refuses; each stays until the assignment is released.
    #[serde(default)]
    pub refused: Vec<RefusedAssignment>,
    /// Whole CPUs that this node can give to sandboxes.
    #[serde(default)]
    pub cpus: CpuReport,
}

/// Whole CPUs that a node can give to sandboxes.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CpuReport {
    /// Why none can be given, for people; empty where some can.
    pub message: String,
    /// The most that one sandbox can get now.
    pub free: u32,
    /// The most that one sandbox could get if no other had any.
    pub capacity: u32,
    /// Threads of the largest core: a sandbox takes whole cores, so it can cost up to one core more than it asks for.
    pub core: u32,
    /// UIDs of the pods that have CPUs of their own: what they have is not in `free` any more.
    pub pinned: Vec<String>,
}

impl CpuReport {
    /// What a sandbox that asks for so many CPUs takes away from [`CpuReport::free`], at most.
    pub fn cost(&self, cpus: u32) -> u32 {
        cpus.checked_next_multiple_of(self.core.max(1))
            .unwrap_or(u32::MAX)
    }
}

/// An assignment that an agent could not carry out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedAssignment {
    /// UID of what owns the pod.
    pub owner_uid: String,
    /// UID of the sandbox.
    pub sandbox_uid: String,
    /// Why.
    pub reason: AgentRefusal,
    /// What happened, for people.
    pub message: String,
}

/// Why an agent refused an assignment.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum AgentRefusal {
    /// The pod is gone, terminating or of another owner.
    PodGone,
    /// The pod is there and no longer fit: not running, or its seccomp state is not what it must be.
    PodNotPrepared,
    /// Another pod was published for the sandbox first.
    PublishedElsewhere,
    /// The sandbox no longer exists, or is over.
    SandboxGone,
    /// The pod cannot have the CPUs that the sandbox asks for: others were quicker, or the node gives none.
    CpusUnavailable,
}

impl AgentRefusal {
    /// The stable word, for events and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PodGone => "PodGone",
            Self::PodNotPrepared => "PodNotPrepared",
            Self::PublishedElsewhere => "PublishedElsewhere",
            Self::SandboxGone => "SandboxGone",
            Self::CpusUnavailable => "CpusUnavailable",
        }
    }
}

/// Path of a node's assignments on the scheduler.
pub fn assignments_path(node: &str) -> String {
    format!("/v1/nodes/{node}/assignments")
}

/// Path of a node's report on the scheduler.
pub fn report_path(node: &str) -> String {
    format!("/v1/nodes/{node}/report")
}
