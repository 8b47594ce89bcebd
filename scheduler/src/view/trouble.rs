//! What a pod's status says about why it does not run: the cluster's many words for it, brought to the few of
//! [`pilotlight_common::fates`].

use k8s_openapi::api::core::v1::{
    ContainerStateTerminated, ContainerStatus, PodCondition, PodStatus,
};
use pilotlight_common::fates::{end, trouble, well_formed};
use pilotlight_common::names::{CONTAINER, PREPARED_CONDITION};

/// Why a pod does not run: a stable word and a sentence for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trouble {
    /// Stable word, fit for a condition's reason.
    pub reason: String,
    /// What happened, as the cluster says it.
    pub message: String,
}

impl Trouble {
    /// A trouble of this reason. The message is cut: part of it comes from outside.
    pub fn new(reason: &str, message: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.trim().chars().take(MAX_MESSAGE).collect(),
        }
    }
}

/// Longest message of a [`Trouble`]: a scheduler's on a large cluster can be much longer, and says no more.
const MAX_MESSAGE: usize = 500;

/// A condition of the pod.
fn condition<'a>(status: &'a PodStatus, name: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == name)
}

/// Whether a condition holds.
pub(super) fn holds(status: &PodStatus, name: &str) -> bool {
    condition(status, name).is_some_and(|c| c.status == "True")
}

/// What a condition that does not hold says, as `word: message` as far as it says anything.
fn denial(condition: &PodCondition) -> Option<String> {
    if condition.status == "True" {
        return None;
    }
    let said = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    Some(
        [said(&condition.reason), said(&condition.message)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(": "),
    )
}

/// All containers, those that run before the others included.
fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten()
}

/// What keeps a pod from running: no node for it, an image that cannot be had, a container that ends again and again.
pub(super) fn hold_up(status: &PodStatus) -> Option<Trouble> {
    if let Some(scheduled) = condition(status, "PodScheduled").filter(|c| c.status == "False") {
        let message = scheduled.message.as_deref().unwrap_or_default();
        return Some(Trouble::new(trouble::POD_UNSCHEDULABLE, message));
    }
    containers(status).find_map(waiting)
}

/// What a waiting container waits for, where that is no part of an ordinary start.
fn waiting(container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let word = match waiting.reason.as_deref()? {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => trouble::IMAGE_PULL_FAILED,
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError" => trouble::CONTAINER_NOT_CREATED,
        "CrashLoopBackOff" => trouble::CONTAINER_CRASHING,
        _ => return None,
    };
    let last = container
        .last_state
        .as_ref()
        .and_then(|s| s.terminated.as_ref())
        .filter(|_| word == trouble::CONTAINER_CRASHING)
        .map(|ended| format!("it {}; ", exit(ended)))
        .unwrap_or_default();
    let said = waiting.message.as_deref().unwrap_or_default();
    Some(Trouble::new(
        word,
        &format!("container {}: {last}{said}", container.name),
    ))
}

/// How a container ended.
fn exit(ended: &ContainerStateTerminated) -> String {
    let why = ended.reason.as_deref().unwrap_or("Error");
    format!("ended with exit code {} ({why})", ended.exit_code)
}

/// Why a pod that has a node is not Ready, whatever the reason; nothing where it is.
pub(super) fn unready(status: &PodStatus) -> Option<Trouble> {
    if holds(status, "Ready") {
        return None;
    }
    if let Some(found) = hold_up(status) {
        return Some(found);
    }
    let ended = containers(status).find_map(|container| {
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        // Those that run before the others end by design.
        (ended.exit_code != 0 || container.name == CONTAINER).then(|| {
            let message = format!("container {} {}", container.name, exit(ended));
            Trouble::new(trouble::CONTAINER_CRASHING, &message)
        })
    });
    if ended.is_some() {
        return ended;
    }
    let prepared = condition(status, PREPARED_CONDITION).and_then(denial);
    if let Some(message) = prepared {
        return Some(Trouble::new(trouble::POD_NOT_PREPARED, &message));
    }
    let message = condition(status, "Ready").and_then(denial);
    Some(Trouble::new(
        trouble::POD_NOT_READY,
        &message.unwrap_or_else(|| "its node has not said that it is Ready".to_owned()),
    ))
}

/// Why the cluster takes a pod away, where it says so.
pub(super) fn disruption(status: &PodStatus) -> Option<Trouble> {
    let said = status.message.as_deref().unwrap_or_default();
    let by_kubelet = match status.reason.as_deref() {
        Some("Evicted") => Some((end::EVICTED, "was evicted by its node")),
        Some("NodeLost") => Some((end::NODE_LOST, "was lost with its node")),
        Some("Preempting") => Some((end::PREEMPTED, "made way for a more important one")),
        _ => None,
    };
    if let Some((word, what)) = by_kubelet {
        return Some(Trouble::new(word, &sentence(what, said)));
    }
    let target = condition(status, "DisruptionTarget").filter(|c| c.status == "True")?;
    let word = target.reason.as_deref().unwrap_or_default();
    let (word, what) = match word {
        "PreemptionByScheduler" => (end::PREEMPTED, "made way for a more important one"),
        "DeletionByTaintManager" | "DeletionByPodGC" => (end::NODE_LOST, "was lost with its node"),
        "EvictionByEvictionAPI" => (end::EVICTED, "was evicted"),
        "TerminationByKubelet" => (end::EVICTED, "was ended by its node"),
        other => (
            well_formed(other, end::POD_DELETED),
            "was taken away by the cluster",
        ),
    };
    let said = target
        .message
        .as_deref()
        .filter(|m| !m.is_empty())
        .unwrap_or(said);
    Some(Trouble::new(word, &sentence(what, said)))
}

/// Why a pod can no longer run, or serve a sandbox: its containers have ended for good, or the sandbox's own was
/// killed for its memory. (The kubelet starts that one again, but what it held is lost; and a warm pod that needs more
/// than its limit while nobody uses it is no pod to give away.)
pub(super) fn ended(status: &PodStatus) -> Option<Trouble> {
    if !matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return out_of_memory(status);
    }
    if let Some(found) = disruption(status).or_else(|| out_of_memory(status)) {
        return Some(found);
    }
    let word = status.reason.as_deref().unwrap_or_default();
    let message = status
        .message
        .as_deref()
        .unwrap_or("its containers have ended");
    Some(Trouble::new(
        well_formed(word, end::CONTAINERS_ENDED),
        message,
    ))
}

fn out_of_memory(status: &PodStatus) -> Option<Trouble> {
    let container = status
        .container_statuses
        .iter()
        .flatten()
        .find(|c| c.name == CONTAINER)?;
    let killed = [&container.state, &container.last_state]
        .into_iter()
        .flatten()
        .filter_map(|state| state.terminated.as_ref())
        .any(|ended| ended.reason.as_deref() == Some("OOMKilled"));
    killed.then(|| {
        Trouble::new(
            end::OOM_KILLED,
            "exceeded its memory limit and was killed; ask for more with resources.memory in a new Sandbox",
        )
    })
}

fn sentence(what: &str, said: &str) -> String {
    if said.is_empty() {
        what.to_owned()
    } else {
        format!("{what}: {said}")
    }
}

#[cfg(test)]
mod tests;
