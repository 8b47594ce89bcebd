//! What goes into a decision and what comes out of it. Used by [`super`], [`crate::api::engine`] and [`crate::api::apply`].

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use pilotlight_common::stream::{AgentRefusal, Assignment, ObjectId, StreamMessage};

use super::network::{NetworkAnswer, NetworkAsk};
use super::profiles::Ask;
use super::{Key, Replica, Time, Usage};
use crate::api::dns::RefusedName;
use crate::api::facts::PodFacts;
use crate::cpu::CpuSet;
use crate::protocol::{
    CheckedProfiles, CpuState, PinAnswer, PodInspection, PodUid, PodUsage, ProfileFile, UserProfile,
};

/// The two clocks at one instant.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the process started.
    pub time: Time,
    /// The wall clock, to compare with the scheduler's.
    pub wall: Timestamp,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A pod is there or changed.
    Pod(Box<PodFacts>),
    /// A pod is gone.
    PodGone(PodUid),
    /// A list was complete: these pods are there and no other.
    PodsListed(BTreeSet<PodUid>),
    /// A pod of a Sandbox of agents.x-k8s.io is there.
    AgentsPod(PodUid),
    /// One is gone.
    AgentsPodGone(PodUid),
    /// These are there and no other.
    AgentsPodsListed(BTreeSet<PodUid>),
    /// A scheduler replica said something.
    Stream(Replica, StreamMessage),
    /// A replica's stream ended.
    Disconnected(Replica),
    /// A replica is gone for good.
    Forgotten(Replica),
    /// `host` looked at pods, or why it did not.
    Inspected(Result<Vec<PodInspection>, String>),
    /// `host` sampled usage, or why it did not.
    Sampled(Result<Vec<PodUsage>, String>),
    /// `host` installed a user's seccomp profile, or refused it; or why it did not answer.
    ProfileInstalled(UserProfile, Result<Result<ProfileFile, String>, String>),
    /// `host` checked the seccomp profiles, or why it did not.
    ProfilesChecked(Result<CheckedProfiles, String>),
    /// `host` gave the pod of an assignment CPUs or refused to, or why it did not answer.
    Pinned(Key, Result<PinAnswer, String>),
    /// `host` told of the node's CPUs, or why it did not.
    Cpus(Result<CpuState, String>),
    /// `network` answered.
    Network(NetworkAnswer),
    /// The connection of this number to `network` ended.
    NetworkLost(u64),
    /// A look at, or a publication of, an assignment ended.
    Attempted(Key, Attempt),
    /// A write ended.
    Wrote(Write, Outcome),
    /// The process was told to stop.
    Stop,
    /// Time passed.
    Wake,
}

/// How a look at a Sandbox, or its publication, ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Attempt {
    /// It is published on our pod.
    Published,
    /// It is published nowhere (only of a look).
    Unpublished,
    /// It is not ours to publish.
    Refused(AgentRefusal, String),
    /// It is not known whether anything was written.
    Failed,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The object says what it must.
    Done,
    /// The object is gone.
    Gone,
    /// Worth another try.
    Failed,
}

/// One write of the background lane.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Write {
    /// The pod's condition.
    Condition {
        /// The pod.
        pod: ObjectId,
        /// Status of the condition.
        status: bool,
        /// Its reason.
        reason: &'static str,
        /// Its message.
        message: String,
    },
    /// The WarmPod's phase: Ready or Pending.
    WarmPod {
        /// The WarmPod.
        warm_pod: ObjectId,
        /// Its pod.
        pod: ObjectId,
        /// Whether Ready.
        ready: bool,
    },
    /// The WarmPod's heartbeat.
    Heartbeat {
        /// The WarmPod.
        warm_pod: ObjectId,
        /// Its pod.
        pod: ObjectId,
    },
    /// What a sandbox uses.
    Usage {
        /// The Sandbox.
        sandbox: ObjectId,
        /// Its pod.
        pod: ObjectId,
        /// What it uses.
        usage: Usage,
    },
    /// Which CPUs a published sandbox has for its own, where that may have changed.
    Cpus {
        /// The Sandbox.
        sandbox: ObjectId,
        /// Its pod.
        pod: ObjectId,
        /// Its CPUs.
        cpus: CpuSet,
    },
    /// What a published sandbox was refused by its network rules.
    Blocked {
        /// The Sandbox.
        sandbox: ObjectId,
        /// Its pod.
        pod: ObjectId,
        /// The last names, the latest first.
        names: Vec<RefusedName>,
        /// Packets out of it, by which names or addresses ever.
        packets: u64,
    },
}

impl Write {
    /// The pod it is about.
    pub fn pod(&self) -> &ObjectId {
        match self {
            Self::Condition { pod, .. }
            | Self::WarmPod { pod, .. }
            | Self::Heartbeat { pod, .. }
            | Self::Usage { pod, .. }
            | Self::Cpus { pod, .. }
            | Self::Blocked { pod, .. } => pod,
        }
    }
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Ask `host` to look at pods.
    Inspect(Vec<PodUid>),
    /// Ask `host` what pods use.
    Sample(Vec<PodUid>),
    /// Ask `host` about seccomp profiles.
    Profiles(Ask),
    /// Read the Sandbox: is it published?
    Look(Assignment),
    /// Publish the Sandbox on its pod, with the CPUs that are its own where it asked for some.
    Publish(Assignment, Option<CpuSet>),
    /// Ask `host` for whole CPUs for the pod of an assignment.
    Pin {
        /// The assignment.
        key: Key,
        /// Its pod.
        pod: PodUid,
        /// How many.
        cpus: u32,
    },
    /// Ask `host` about the node's CPUs.
    Cpus,
    /// Ask `network`.
    Network(NetworkAsk),
    /// The pod is gone: its DNS is served no more.
    ForgetNetwork(PodUid),
    /// Write something that can wait.
    Write(Write),
    /// Log that `host` refuses a user's seccomp profile: its name and why.
    TellRefusedProfile(String, String),
    /// Count a publication that took so long since the assignment was heard of.
    CountPublished(Duration),
    /// Count a refusal.
    CountRefused(AgentRefusal),
    /// Pods used so much CPU time more, in microseconds: the sandboxes, and those of agents.x-k8s.io.
    CountCpu {
        /// Of managed pods.
        sandboxes: u64,
        /// Of pods of Sandboxes of agents.x-k8s.io.
        agents: u64,
    },
}

/// Numbers for the metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// Managed pods on the node.
    pub pods: usize,
    /// Those of them that a sandbox can be published on.
    pub prepared: usize,
    /// Live assignments.
    pub assignments: usize,
    /// Scheduler replicas whose stream is up.
    pub replicas: usize,
    /// Seccomp profiles that are installed.
    pub profiles: usize,
    /// Pods that are armed, where this agent arms them.
    pub armed: usize,
    /// Packets out of pods that were refused.
    pub network_refused_out: u64,
    /// Packets into pods that were dropped.
    pub network_dropped_in: u64,
    /// Users' seccomp profiles that `host` refuses.
    pub profiles_refused: usize,
    /// Working set of all managed pods, in bytes.
    pub memory_bytes: u64,
    /// Working set of the pods of agents.x-k8s.io.
    pub agents_memory_bytes: u64,
    /// Whether assignments are on their way.
    pub busy: bool,
}
