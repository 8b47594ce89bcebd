//! Labels, annotations, condition types and reasons of `agents.x-k8s.io`, as upstream's clients and tests know them; those of our own stand
//! last.

/// Label of a Sandbox's pod, Service and volume claims: [`name_hash`] of its name. It is what the Service selects by.
pub const NAME_HASH_LABEL: &str = "agents.x-k8s.io/sandbox-name-hash";
/// Label, with value `true`, of an object that any Sandbox of a matching name may take for its own.
pub const ADOPTABLE_LABEL: &str = "agents.x-k8s.io/adoptable";
/// Label that says which client created a Sandbox; its pod has it too.
pub const CREATED_BY_LABEL: &str = "agents.x-k8s.io/created-by";
/// What the values of [`CREATED_BY_LABEL`] are; whatever else somebody writes becomes the last.
pub const CREATED_BY: [&str; 4] = ["go-client", "python-client", "controller", "unknown"];
/// Annotation of a pod with the names of the labels that it has from its Sandbox's template, by commas.
pub const PROPAGATED_LABELS: &str = "agents.x-k8s.io/propagated-labels";
/// The same of annotations.
pub const PROPAGATED_ANNOTATIONS: &str = "agents.x-k8s.io/propagated-annotations";
/// Annotation that carries a trace; it is not a user's to put on a pod.
pub const TRACE_CONTEXT_ANNOTATION: &str = "opentelemetry.io/trace-context";
/// Prefixes of labels and annotations that no template can set: a Service would select the pods of somebody else by them.
pub const RESERVED_PREFIXES: [&str; 2] = ["agents.x-k8s.io/", "extensions.agents.x-k8s.io/"];

/// Condition types.
pub mod condition {
    /// Whether the Sandbox can be used.
    pub const READY: &str = "Ready";
    /// Whether it has no pod because it is not to have one.
    pub const SUSPENDED: &str = "Suspended";
    /// The pod's condition of the same name.
    pub const POD_SCHEDULED: &str = "PodScheduled";
    /// There while its pod is over.
    pub const FINISHED: &str = "Finished";
}

/// Reasons of conditions.
pub mod reason {
    /// Everything it needs is there.
    pub const DEPENDENCIES_READY: &str = "DependenciesReady";
    /// Something it needs is not there yet.
    pub const DEPENDENCIES_NOT_READY: &str = "DependenciesNotReady";
    /// It is not to have a pod.
    pub const SANDBOX_SUSPENDED: &str = "SandboxSuspended";
    /// It is past its `shutdownTime`.
    pub const SANDBOX_EXPIRED: &str = "SandboxExpired";
    /// Its pod ended with success.
    pub const POD_SUCCEEDED: &str = "PodSucceeded";
    /// Its pod failed.
    pub const POD_FAILED: &str = "PodFailed";
    /// It owns several pods.
    pub const MULTIPLE_PODS: &str = "MultiplePods";
    /// Something could not be done; the message says what.
    pub const RECONCILER_ERROR: &str = "ReconcilerError";
    /// It is to have a pod.
    pub const NOT_SUSPENDED: &str = "NotSuspended";
    /// Its pod is gone, as it should be.
    pub const POD_TERMINATED: &str = "PodTerminated";
    /// Its pod is going.
    pub const POD_TERMINATING: &str = "PodTerminating";
    /// The pod of its name is somebody else's.
    pub const POD_NOT_OWNED: &str = "PodNotOwned";
    /// Whether it has a pod is not known.
    pub const POD_STATE_UNKNOWN: &str = "PodStateUnknown";
    /// Its pod has a node; said where the pod gives no reason.
    pub const POD_SCHEDULED: &str = "PodScheduled";
    /// Whether its pod has a node is not known.
    pub const POD_SCHEDULING_UNKNOWN: &str = "PodSchedulingUnknown";
}

/// Annotation of a Sandbox, with value `true`, whose failed pod is replaced. Upstream leaves it as it is, and so does this without it.
pub const RECREATE_FAILED_POD: &str = "llmsafespace.dev/recreate-failed-pod";

/// Eight hexadecimal digits for a name, short enough for a label whatever the name: FNV-1a of 32 bits.
pub fn name_hash(name: &str) -> String {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{hash:08x}")
}

/// Whether a label or annotation is not a template's to set.
pub fn is_reserved(key: &str) -> bool {
    key == TRACE_CONTEXT_ANNOTATION || RESERVED_PREFIXES.iter().any(|p| key.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_name_is_the_known_one() {
        // Test vectors of the algorithm's authors.
        assert_eq!(name_hash(""), "811c9dc5");
        assert_eq!(name_hash("a"), "e40c292c");
        assert_eq!(name_hash("foobar"), "bf9cf968");
    }

    #[test]
    fn what_a_service_selects_by_is_not_a_templates() {
        assert!(is_reserved(NAME_HASH_LABEL));
        assert!(is_reserved("extensions.agents.x-k8s.io/x"));
        assert!(!is_reserved("app") && !is_reserved("agents.x-k8s.io"));
    }
}
