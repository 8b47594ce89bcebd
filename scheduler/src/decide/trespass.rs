//! Whether a sandbox runs on a pod that was given to it: what no policy of the API server can see.
//!
//! A policy holds an agent to its own node and to the fields it writes, but not to what it was told: the token of one
//! node is enough to publish any waiting sandbox of the cluster there. So each publication must be borne out, once:
//!
//! - by a pod that is owned by the sandbox, or
//! - by the WarmPod of the pod's name, if that is assigned to the sandbox,
//!
//! and it must name the node that this pod runs on. A sandbox whose publication is contradicted is ended
//! (`NotAssigned`), and the node that wrote it is distrusted. It is contradicted
//!
//! - by a WarmPod of the pod's name that is not assigned to the sandbox,
//! - by a pod of that name that belongs to another sandbox, to a runtime, or to nobody here,
//! - by the node, where the pod runs on another one,
//! - where there is neither, if this replica watched the publication as the leader and never saw a pod of that name
//!   given to the sandbox.
//!
//! Everything else cannot be told and is let be: a WarmPod that was deleted after the assignment, a pod whose owner
//! was taken away, a publication that another replica watched. Each of them ends by itself once its pod does.
//!
//! The index can lag: the watch of one kind runs ahead of another, another replica assigned, this one has just
//! started. So what the index does not bear out is looked up first. The assignment is written before the publication,
//! hence a read that follows the sight of the publication finds it.

use jiff::Timestamp;
use pilotlight_common::kinds::SandboxPhase;

use crate::action::{Action, Expel, Publication};
use crate::index::{Index, Timer};
use crate::view::{Claim, PodOwner, PodView, WarmPodView};

/// What two objects say about a publication.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The pod was given to the sandbox.
    BorneOut,
    /// It was not; why, as the end of a sentence about the pod.
    Contradicted(&'static str),
    /// Nothing says so or otherwise any more.
    Unknown,
}

/// What the WarmPod and the pod of the publication's name, where there are any, say about it.
pub fn judge(
    publication: &Publication,
    warm_pod: Option<&WarmPodView>,
    pod: Option<&PodView>,
) -> Verdict {
    let by_node = |node: Option<&String>| match (node, &publication.node) {
        (Some(node), Some(said)) if node != said => {
            Verdict::Contradicted("which runs on another node")
        }
        _ => Verdict::BorneOut,
    };
    let own = |uid: &String| *uid == publication.sandbox;
    if let Some(pod) = pod
        && matches!(&pod.owner, PodOwner::Sandbox(uid) if own(uid))
    {
        return by_node(pod.node.as_ref());
    }
    if let Some(warm_pod) = warm_pod {
        return match &warm_pod.claim {
            Claim::Sandbox(uid) if own(uid) => {
                // Where the pod is, the cluster knows better than whoever wrote that into the WarmPod.
                by_node(
                    pod.and_then(|pod| pod.node.as_ref())
                        .or(warm_pod.node.as_ref()),
                )
            }
            Claim::Sandbox(_) => Verdict::Contradicted("which is another sandbox's"),
            Claim::Free | Claim::Retired => Verdict::Contradicted("which was never assigned to it"),
        };
    }
    match pod {
        None if publication.watched => {
            Verdict::Contradicted("which was never made, nor assigned to it")
        }
        Some(pod) => match pod.owner {
            PodOwner::Sandbox(_) | PodOwner::Runtime(_) => {
                Verdict::Contradicted("which was made for something else")
            }
            PodOwner::Nobody if !pod.managed => {
                Verdict::Contradicted("which is no pod of a sandbox")
            }
            PodOwner::WarmPod(_) | PodOwner::Nobody => Verdict::Unknown,
        },
        None => Verdict::Unknown,
    }
}

/// Whether a sandbox is published and it is still open whether that is borne out.
pub(super) fn is_open(index: &Index, uid: &str) -> bool {
    index.sandboxes.get(uid).is_some_and(|entry| {
        !entry.standing.cleared
            && entry.view.phase == Some(SandboxPhase::Running)
            && entry.view.pod_name.is_some()
            && !entry.view.identity.deleting
    })
}

/// Settles the publication of a running sandbox by what is in the index, or asks for a look at what is in the cluster.
pub(super) fn look(index: &mut Index, uid: &str, now: Timestamp) -> Option<Action> {
    let publication = index.publication(uid)?;
    let key = &publication.pod;
    let warm_pod = index.warm_pods.get(key).filter(|entry| !entry.placeholder);
    let verdict = judge(
        &publication,
        warm_pod.map(|entry| &entry.view),
        index.pods.get(key),
    );
    let entry = index.sandboxes.get_mut(uid)?;
    if verdict == Verdict::BorneOut {
        entry.standing.cleared = true;
        return None;
    }
    // Another replica told the agent before this one has the answer to its own assignment, which comes any moment.
    if entry.standing.busy || entry.in_flight.as_ref() == Some(key) {
        return None;
    }
    if entry.standing.not_before > now {
        let at = entry.standing.not_before;
        index.timer(at, Timer::Sandbox(uid.to_owned()));
        return None;
    }
    entry.standing.busy = true;
    Some(Action::Expel(Box::new(Expel {
        sandbox: entry.view.identity.object_id(),
        conditions: entry.view.conditions.clone(),
        publication,
        now,
    })))
}
