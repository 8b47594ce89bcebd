//! The stable words of what keeps a sandbox's pod from running, and of how a sandbox ends.
//!
//! They stand in conditions, Events and metric labels. Programs match on them, so a word is never changed, only added;
//! docs/operations.md explains each (a test holds the two together). Those of a refused request are in
//! [`crate::reasons`].

/// What keeps a pod from running, or a running sandbox from answering. None of these is an end: the cluster goes on
/// trying.
pub mod trouble {
    /// No node has room for the pod, or none is allowed to run it.
    pub const POD_UNSCHEDULABLE: &str = "PodUnschedulable";
    /// The image cannot be had.
    pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    /// The node could not make or start the container.
    pub const CONTAINER_NOT_CREATED: &str = "ContainerNotCreated";
    /// The container ended and is started again.
    pub const CONTAINER_CRASHING: &str = "ContainerCrashing";
    /// The node's agent does not, or no longer, vouch for what the sandbox asks for.
    pub const POD_NOT_PREPARED: &str = "PodNotPrepared";
    /// The pod is not Ready for another reason.
    pub const POD_NOT_READY: &str = "PodNotReady";
    /// Nothing is heard of the pod's node.
    pub const NODE_UNREACHABLE: &str = "NodeUnreachable";

    /// All of them.
    pub const ALL: [&str; 7] = [
        POD_UNSCHEDULABLE,
        IMAGE_PULL_FAILED,
        CONTAINER_NOT_CREATED,
        CONTAINER_CRASHING,
        POD_NOT_PREPARED,
        POD_NOT_READY,
        NODE_UNREACHABLE,
    ];
}

/// How a sandbox ends.
pub mod end {
    /// It reached its timeout.
    pub const TIMED_OUT: &str = "TimedOut";
    /// It used more memory than its limit.
    pub const OOM_KILLED: &str = "OOMKilled";
    /// Its pod was evicted: by its node, which ran short of something or was shut down, or by a drain.
    pub const EVICTED: &str = "Evicted";
    /// Its node is gone, or was not heard of for too long.
    pub const NODE_LOST: &str = "NodeLost";
    /// Its pod had to make way for one of a higher priority.
    pub const PREEMPTED: &str = "Preempted";
    /// Its containers have ended for good.
    pub const CONTAINERS_ENDED: &str = "ContainersEnded";
    /// Somebody deleted its pod.
    pub const POD_DELETED: &str = "PodDeleted";
    /// A node published it on a pod that was never given to it.
    pub const NOT_ASSIGNED: &str = "NotAssigned";
    /// It ended for a reason that was not written down.
    pub const TERMINATED: &str = "Terminated";

    /// All of them. A pod can end for reasons of the kubelet that are not here; those keep the kubelet's word.
    pub const ALL: [&str; 9] = [
        TIMED_OUT,
        OOM_KILLED,
        EVICTED,
        NODE_LOST,
        PREEMPTED,
        CONTAINERS_ENDED,
        POD_DELETED,
        NOT_ASSIGNED,
        TERMINATED,
    ];

    /// `word`, where it is one of these: for metric labels, whose number must be bounded.
    pub fn bounded(word: &str) -> &'static str {
        ALL.into_iter()
            .find(|known| *known == word)
            .unwrap_or("Other")
    }
}

/// Longest word taken over from outside.
const MAX_WORD: usize = 64;

/// `word`, where it has the form of a stable reason (CamelCase, short); else `otherwise`.
pub fn well_formed<'a>(word: &'a str, otherwise: &'a str) -> &'a str {
    let formed = word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.len() <= MAX_WORD
        && word.chars().all(|c| c.is_ascii_alphanumeric());
    if formed { word } else { otherwise }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_camel_case_is_taken_over() {
        assert_eq!(well_formed("OutOfcpu", "X"), "OutOfcpu");
        let long = "A".repeat(65);
        for bad in ["", "lower", "With Space", "Line\nBreak", "Ä", long.as_str()] {
            assert_eq!(well_formed(bad, "X"), "X", "{bad}");
        }
        for word in trouble::ALL.into_iter().chain(end::ALL) {
            assert_eq!(well_formed(word, "X"), word);
        }
    }
}
