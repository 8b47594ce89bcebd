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

/// Longest silence of a healthy stream, in seconds. An agent that hears nothing for three of them reconnects.
pub const BOOKMARK_INTERVAL_SECONDS: u64 = 10;
/// Longest line either side accepts, in bytes: a snapshot of 250 assignments is about 150 KiB.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

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
}

impl Assignment {
    /// Whether the pod was made for the sandbox alone: it may take as long to start as an image takes to pull.
    pub fn is_cold(&self) -> bool {
        self.owner.uid == self.sandbox.uid
    }
}

/// What the scheduler tells an agent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StreamMessage {
    /// All assignments of the node that this replica knows; the first message of a stream.
    Snapshot {
        /// The assignments.
        assignments: Vec<Assignment>,
    },
    /// One more assignment.
    Assign {
        /// The assignment.
        assignment: Assignment,
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
    /// Assignments this agent refuses; each stays until the assignment is released.
    #[serde(default)]
    pub refused: Vec<RefusedAssignment>,
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
}

impl AgentRefusal {
    /// The stable word, for events and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PodGone => "PodGone",
            Self::PodNotPrepared => "PodNotPrepared",
            Self::PublishedElsewhere => "PublishedElsewhere",
            Self::SandboxGone => "SandboxGone",
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
