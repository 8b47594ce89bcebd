//! What a decision can ask for, and what came of it. [`crate::apply`] carries actions out; nothing else writes.

use std::sync::Arc;

use jiff::Timestamp;
use pilotlight_common::kinds::{Condition, RuntimeEnvironmentStatus, SandboxPhase, WarmPoolStatus};
use pilotlight_common::names::OwnerKind;
use pilotlight_common::network::{NetworkRules, RulesDigest};
use pilotlight_common::quantity::Bytes;
use pilotlight_common::resolve::{PodTemplate, Preload};
use pilotlight_common::stream::ObjectId;

use crate::view::{Key, NodeView, PodView, Trouble, WarmPodView};

/// One write, or a few that belong together.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// W1: gives a warm pod to a sandbox.
    Assign(Assign),
    /// Takes an idle warm pod out of service by the same set-once claim, then removes it.
    Retire {
        /// The warm pod.
        warm_pod: ObjectId,
        /// UID of its pod, where there is one.
        pod_uid: Option<String>,
        /// Stable word that goes behind `retired:`.
        reason: &'static str,
    },
    /// Removes a warm pod that no live sandbox needs, with its pod.
    Remove {
        /// The warm pod.
        warm_pod: ObjectId,
        /// UID of its pod, where there is one.
        pod_uid: Option<String>,
        /// The sandbox that must be found gone first; none where that is known.
        unless_exists: Option<ObjectId>,
    },
    /// Deletes a pod that nobody needs.
    RemovePod {
        /// The pod.
        pod: ObjectId,
        /// The owner that must be found gone first; none where the pod is known to be of no more use.
        unless_exists: Option<(OwnerKind, ObjectId)>,
    },
    /// Creates the pod of one sandbox, with its volume.
    CreateColdPod(Box<CreateColdPod>),
    /// Lets the claim of a volume ask for more.
    GrowVolume(GrowVolume),
    /// Allow a sandbox's pod what its rules say, where NetworkPolicies keep it to them.
    WriteNetworkPolicy(WriteNetworkPolicy),
    /// Creates a WarmPod and its pod.
    CreateWarmPod(Box<CreateWarmPod>),
    /// Creates the pod of a WarmPod that has none: a creation was interrupted.
    CreatePod {
        /// The WarmPod.
        warm_pod: ObjectId,
        /// Its pool's name.
        pool: String,
        /// What the pod must be.
        template: Box<PodTemplate>,
        /// What is put into it before it is ready.
        preload: Option<Arc<Preload>>,
        /// Hash of the template.
        shape: String,
    },
    /// Writes a sandbox's phase and conditions, at the revision they were computed from.
    SandboxStatus(Box<SandboxStatusWrite>),
    /// Looks once more at a publication that nothing bears out, and if that is so ends the sandbox and distrusts the node.
    Expel(Box<Expel>),
    /// Deletes a sandbox that is over.
    DeleteSandbox {
        /// The sandbox.
        sandbox: ObjectId,
    },
    /// Writes a pool's status.
    PoolStatus {
        /// The pool.
        pool: ObjectId,
        /// The whole status.
        status: Box<WarmPoolStatus>,
        /// An Event to record with it.
        event: Option<EventNote>,
    },
    /// Creates a pod that shows whether a runtime works.
    Validate(Box<Validate>),
    /// Deletes such a pod: it has shown what it can, or nobody asks any more.
    RemoveTrial {
        /// The pod.
        pod: ObjectId,
    },
    /// Writes a runtime's status.
    RuntimeStatus {
        /// The runtime.
        runtime: ObjectId,
        /// The whole status.
        status: Box<RuntimeEnvironmentStatus>,
        /// An Event to record with it.
        event: Option<EventNote>,
    },
    /// Sets or removes the label that sandbox pods select nodes by.
    LabelNode {
        /// The node.
        node: String,
        /// Whether it is to carry the label.
        ready: bool,
    },
    /// Records an Event, after the fact.
    Record {
        /// What it is about.
        about: ObjectId,
        /// What it says.
        event: EventNote,
    },
}

/// The first write of an assignment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Assign {
    /// The warm pod.
    pub warm_pod: ObjectId,
    /// The sandbox.
    pub sandbox: ObjectId,
    /// When it was decided.
    pub assigned_at: Timestamp,
}

/// A WarmPod to create, with its pod.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateWarmPod {
    /// Name of both.
    pub key: Key,
    /// The pool.
    pub pool: String,
    /// What the pod must be.
    pub template: PodTemplate,
    /// What is put into it before it is ready.
    pub preload: Option<Arc<Preload>>,
    /// Hash of the template.
    pub shape: String,
}

/// A validation pod to create.
#[derive(Clone, Debug, PartialEq)]
pub struct Validate {
    /// The runtime, which owns the pod.
    pub runtime: ObjectId,
    /// Name and namespace of the pod.
    pub pod: Key,
    /// What the pod must be.
    pub template: PodTemplate,
    /// Hash of the template.
    pub shape: String,
}

/// The pod of one sandbox to create.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateColdPod {
    /// Name and namespace of the pod.
    pub key: Key,
    /// The sandbox.
    pub sandbox: ObjectId,
    /// What the pod must be.
    pub template: PodTemplate,
    /// Hash of the template.
    pub shape: String,
    /// Size of the persistent volume, where there is one.
    pub volume: Option<Bytes>,
    /// The nodes it may be placed on: those with CPUs for it, where it is to have some of its own. None means any.
    pub nodes: Vec<String>,
}

/// A volume to grow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GrowVolume {
    /// Its claim.
    pub claim: ObjectId,
    /// What the claim is to ask for.
    pub size: Bytes,
    /// The sandbox, for the Event where it does not grow.
    pub sandbox: ObjectId,
}

/// A NetworkPolicy to write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WriteNetworkPolicy {
    /// The sandbox.
    pub sandbox: ObjectId,
    /// Its pod, whose policy it is.
    pub pod: ObjectId,
    /// What it may reach; names are none of it.
    pub rules: NetworkRules,
}

/// A write of a sandbox's status.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxStatusWrite {
    /// The sandbox.
    pub sandbox: ObjectId,
    /// Revision this was computed from: a later writer (the agent's publication) always wins.
    pub revision: u64,
    /// Phase to write.
    pub phase: SandboxPhase,
    /// All conditions to write.
    pub conditions: Vec<Condition>,
    /// A pod that must be found gone or ended first.
    pub unless_pod_lives: Option<Key>,
    /// An Event to record with it.
    pub event: Option<EventNote>,
}

/// Where a node published a sandbox, and what is known of that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Publication {
    /// UID of the sandbox.
    pub sandbox: String,
    /// The pod it is said to run on.
    pub pod: Key,
    /// The node that said so.
    pub node: Option<String>,
    /// Whether this replica led and watched when that was said, and never saw the pod given to the sandbox.
    pub watched: bool,
}

/// A publication that nothing bears out, as far as the index knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Expel {
    /// The sandbox.
    pub sandbox: ObjectId,
    /// What was published.
    pub publication: Publication,
    /// Its conditions, as last written.
    pub conditions: Vec<Condition>,
    /// When it was decided.
    pub now: Timestamp,
}

/// The text of an Event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EventNote {
    /// Kind of the object it is about.
    pub kind: &'static str,
    /// Whether it is a Warning.
    pub warning: bool,
    /// Stable word.
    pub reason: String,
    /// Sentence for people.
    pub message: String,
}

/// What came of an action.
#[derive(Debug)]
pub enum Done {
    /// An [`Action::Assign`].
    Assign {
        /// The action.
        assign: Assign,
        /// What came of it.
        outcome: AssignOutcome,
    },
    /// An action on one WarmPod other than an assignment.
    WarmPod {
        /// The WarmPod.
        key: Key,
        /// What came of it.
        outcome: Outcome,
    },
    /// An [`Action::RemovePod`] or [`Action::RemoveTrial`].
    Pod {
        /// The pod.
        key: Key,
        /// What came of it.
        outcome: Outcome,
    },
    /// An [`Action::CreateColdPod`].
    ColdPod {
        /// UID of the sandbox.
        uid: String,
        /// What came of it.
        outcome: ColdOutcome,
    },
    /// An [`Action::GrowVolume`].
    Volume {
        /// The claim.
        key: Key,
        /// What came of it.
        outcome: Outcome,
    },
    /// An [`Action::WriteNetworkPolicy`].
    NetworkPolicy {
        /// UID of the sandbox.
        uid: String,
        /// The rules that it says, where it was written.
        digest: RulesDigest,
        /// What came of it.
        outcome: Outcome,
    },
    /// An [`Action::SandboxStatus`] or [`Action::DeleteSandbox`].
    Sandbox {
        /// UID of the sandbox.
        uid: String,
        /// What came of it.
        outcome: Outcome,
    },
    /// An [`Action::Expel`].
    Expelled {
        /// UID of the sandbox.
        uid: String,
        /// What came of it.
        outcome: ExpelOutcome,
    },
    /// An [`Action::PoolStatus`].
    Pool {
        /// The pool.
        key: Key,
        /// What came of it.
        outcome: Outcome,
    },
    /// An [`Action::Validate`].
    Trial {
        /// The runtime.
        runtime: Key,
        /// The pod.
        pod: Key,
        /// What came of it.
        outcome: Outcome,
    },
    /// An [`Action::RuntimeStatus`].
    Runtime {
        /// The runtime.
        key: Key,
        /// What came of it.
        outcome: Outcome,
    },
    /// An [`Action::LabelNode`].
    Node {
        /// The node.
        node: String,
        /// What came of it.
        outcome: Outcome,
    },
}

/// What came of an assignment.
#[derive(Debug)]
pub enum AssignOutcome {
    /// The warm pod is the sandbox's.
    Won(Box<WarmPodView>),
    /// Somebody else has it, or it is gone: definite.
    Lost,
    /// Leadership ended before an answer came; whether the write happened is not known.
    Abandoned,
}

/// What came of the creation of a sandbox's own pod.
#[derive(Debug)]
pub enum ColdOutcome {
    /// The pod exists.
    Created(Box<PodView>),
    /// Somebody has to do something about it; tried again after a while.
    Refused(Trouble),
    /// To be tried again soon.
    Failed,
}

/// What came of a look at a publication that nothing seemed to bear out.
#[derive(Debug)]
pub enum ExpelOutcome {
    /// The sandbox is over, and its node distrusted; the node as it is now, where there is one.
    Ended(Option<Box<NodeView>>),
    /// It is borne out after all, or cannot be told any more.
    Cleared,
    /// Not known, or not carried out; to be tried again.
    Failed,
}

/// What came of any other action.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Carried out, or found done already.
    Done,
    /// Not carried out; to be decided anew after a pause.
    Failed,
    /// What it rests on no longer holds; to be decided anew once the watch has caught up.
    Stale,
}
