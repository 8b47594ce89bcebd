//! Everything that can change the index, as one type: the engine takes these one at a time.

use pilotlight_common::stream::{NodeReport, StreamMessage};
use tokio::sync::mpsc;

use crate::action::Done;
use crate::view::{
    Key, NodeView, PodView, PoolView, ProfileView, RuntimeClassView, RuntimeView, SandboxView,
    SeccompMapView, VolumeView, WarmPodView,
};

/// A change of the objects of one kind.
#[derive(Debug)]
pub enum Change<V> {
    /// This object is new or changed.
    Upsert(V),
    /// The object of this name and UID is gone.
    Remove(Key, String),
    /// These are all objects of the kind: the answer of a list.
    Replace(Vec<V>),
}

/// One change of the world.
#[derive(Debug)]
pub enum Input {
    /// Sandboxes.
    Sandbox(Change<SandboxView>),
    /// WarmPods.
    WarmPod(Change<WarmPodView>),
    /// WarmPools.
    Pool(Change<PoolView>),
    /// Pods this project created.
    Pod(Change<PodView>),
    /// RuntimeEnvironments.
    Runtime(Change<RuntimeView>),
    /// SandboxProfiles.
    Profile(Change<ProfileView>),
    /// Claims of persistent volumes that this project created.
    Volume(Change<VolumeView>),
    /// Nodes.
    Node(Change<NodeView>),
    /// RuntimeClasses.
    RuntimeClass(Change<RuntimeClassView>),
    /// ConfigMaps with seccomp profiles.
    SeccompMap(Change<SeccompMapView>),
    /// An agent opened a stream to this replica.
    StreamOpened {
        /// Name of the agent's node, proven by its token.
        node: String,
        /// Number of the stream, unique in this process.
        id: u64,
        /// Where the stream's messages go.
        sender: mpsc::Sender<StreamMessage>,
    },
    /// A stream ended.
    StreamClosed {
        /// Name of the node.
        node: String,
        /// Number of the stream.
        id: u64,
    },
    /// An agent reported.
    Report {
        /// Name of the agent's node, proven by its token.
        node: String,
        /// What it said.
        report: NodeReport,
    },
    /// This replica began or ceased to lead.
    Leading(bool),
    /// An action was carried out, or could not be.
    Done(Done),
}
