//! Names that several programs must agree on: labels, conditions, ports, containers and endpoints.

/// Label of every object this project creates.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "pilotlight";
/// Label of a pod or WarmPod with the name of its pool.
pub const POOL_LABEL: &str = "llmsafespace.dev/pool";
/// Label of a pod or WarmPod with the hash of its shape.
pub const SHAPE_LABEL: &str = "llmsafespace.dev/shape";
/// Label of a pod with the hash of its image and command; a ready pod with it shows that its runtime works.
pub const IMAGE_LABEL: &str = "llmsafespace.dev/image-hash";
/// Annotation of a volume claim with the name of the sandbox it was made for.
pub const SANDBOX_ANNOTATION: &str = "llmsafespace.dev/sandbox";
/// Label that the Service of a namespace selects its sandbox pods by.
pub const SANDBOX_POD_LABEL: &str = "llmsafespace.dev/sandbox-pod";
/// Label of a sandbox pod with its own name, where NetworkPolicies keep sandboxes to their rules and so have to select single pods.
pub const POD_NAME_LABEL: &str = "llmsafespace.dev/pod-name";
/// Node label that every sandbox pod selects; the scheduler sets it while the node's agent is ready.
pub const AGENT_READY_LABEL: &str = "llmsafespace.dev/agent";
/// Label, with value `true`, of ConfigMaps in the system namespace whose keys are users' seccomp profiles.
pub const SECCOMP_LABEL: &str = "llmsafespace.dev/seccomp-profiles";
/// Value of [`AGENT_READY_LABEL`].
pub const AGENT_READY: &str = "ready";
/// Value of [`AGENT_READY_LABEL`] on a node that published what it was not given. The scheduler sets it and never takes it
/// away: whoever has looked into the node does.
pub const AGENT_DISTRUSTED: &str = "distrusted";
/// Reason of the Event about such a node.
pub const NODE_DISTRUSTED: &str = "NodeDistrusted";
/// Readiness gate and pod condition that the node agent sets once a pod is armed.
pub const PREPARED_CONDITION: &str = "llmsafespace.dev/prepared";
/// Name of the headless Service of each namespace with sandboxes, and the pods' subdomain.
pub const SUBDOMAIN: &str = "sandboxes";
/// Name of a sandbox pod's container; a pool's preloads are init containers beside it.
pub const CONTAINER: &str = "sandbox";
/// Name of the init container that installs a pool's packages.
pub const PRELOAD_PACKAGES: &str = "preload-packages";
/// Prefix of the init containers that run a pool's scripts, and of the annotations that carry them: a number follows,
/// from 0.
pub const PRELOAD_SCRIPT: &str = "preload-";
/// Audience of the token an agent shows the scheduler; a token for the API server is of no use there.
pub const STREAM_AUDIENCE: &str = "pilotlight-scheduler";
/// Field manager of the scheduler's writes.
pub const SCHEDULER_MANAGER: &str = "pilotlight-scheduler";
/// Field manager of the writes of the controller of `agents.x-k8s.io`.
pub const AGENTS_MANAGER: &str = "pilotlight-agents";
/// Field manager of the node agent's writes.
pub const AGENT_MANAGER: &str = "pilotlight-node-agent";
/// Name of the volume claim of a sandbox with persistent storage: with the sandbox's own name, so that a volume that is
/// kept is found again by a sandbox of the same name.
pub fn volume_claim(sandbox: &str) -> String {
    format!("data-{sandbox}")
}

/// The kinds that own pods.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OwnerKind {
    /// A pod of a pool.
    WarmPod,
    /// A pod made for one sandbox.
    Sandbox,
    /// A pod that shows whether a runtime works.
    RuntimeEnvironment,
}

impl OwnerKind {
    /// All of them.
    const ALL: [Self; 3] = [Self::WarmPod, Self::Sandbox, Self::RuntimeEnvironment];

    /// The kind as an owner reference says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WarmPod => "WarmPod",
            Self::Sandbox => "Sandbox",
            Self::RuntimeEnvironment => "RuntimeEnvironment",
        }
    }

    /// The kind that an owner reference names.
    pub fn of(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|own| own.as_str() == kind)
    }
}

/// Condition types of a Sandbox, in the order in which they become true.
pub mod conditions {
    /// The request is understood and can be fulfilled in principle.
    pub const ACCEPTED: &str = "Accepted";
    /// A pod was assigned.
    pub const ASSIGNED: &str = "Assigned";
    /// The pod's node enforces what the sandbox asks for.
    pub const PREPARED: &str = "Prepared";
    /// The sandbox runs. (Also of a WarmPool: it holds its minimum.)
    pub const READY: &str = "Ready";
    /// Its network rules refused it something; there only once they did.
    pub const NETWORK_BLOCKED: &str = "NetworkBlocked";
    /// Of a WarmPool: pods are being added.
    pub const SCALING_UP: &str = "ScalingUp";
    /// Of a WarmPool: pods are being removed.
    pub const SCALING_DOWN: &str = "ScalingDown";
    /// Of a RuntimeEnvironment: a pod of it became ready.
    pub const AVAILABLE: &str = "Available";
    /// Of a RuntimeEnvironment: a WarmPool or a Sandbox that is not over names it.
    pub const IN_USE: &str = "InUse";
}

/// The name under which a sandbox pod is reachable: known before assignment, so that it costs no write.
pub fn endpoint(pod: &str, namespace: &str, cluster_domain: &str) -> String {
    format!("{pod}.{SUBDOMAIN}.{namespace}.svc.{cluster_domain}")
}
