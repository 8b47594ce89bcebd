//! The promised API as data: every property of the five kinds, with its constraints.
//!
//! Written by hand and not generated: it changes only where the promise itself does. A field that the project adds
//! goes into `added` of its kind, not into `fields`.

use serde_json::{Value, json};

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// Once per cluster.
    Cluster,
}

/// A printer column: its name, its type, where its value is.
type Column = (&'static str, &'static str, &'static str);

/// What one kind promises.
pub struct KindPromise {
    /// The kind.
    pub kind: &'static str,
    /// Plural name, as in the URL.
    pub plural: &'static str,
    /// Singular name.
    pub singular: &'static str,
    /// Short name, as in `kubectl get`.
    pub short_name: &'static str,
    /// Whether objects live in a namespace.
    pub scope: Scope,
    /// Whether there is a status subresource.
    pub has_status: bool,
    /// Printer columns in their order; others may stand between them.
    pub columns: &'static [Column],
    /// Every node of the schema by its path, with its constraints in the notation of the schema.
    pub fields: fn() -> Vec<(String, Value)>,
    /// Paths that this project adds; always optional.
    pub added: &'static [&'static str],
    /// CEL rules on the whole object.
    pub rules: &'static [&'static str],
}

/// All five kinds.
pub const PROMISES: &[KindPromise] = &[
    SANDBOX,
    SANDBOX_PROFILE,
    WARM_POOL,
    WARM_POD,
    RUNTIME_ENVIRONMENT,
];

const AGE: Column = ("Age", "date", ".metadata.creationTimestamp");
const CPU: &str = r"^([0-9]+m|[0-9]+\.[0-9]+)$";
const BYTES: &str = "^[0-9]+(Ki|Mi|Gi)$";

const SANDBOX: KindPromise = KindPromise {
    kind: "Sandbox",
    plural: "sandboxes",
    singular: "sandbox",
    short_name: "sb",
    scope: Scope::Namespaced,
    has_status: true,
    columns: &[
        ("Runtime", "string", ".spec.runtime"),
        ("Status", "string", ".status.phase"),
        AGE,
    ],
    fields: sandbox,
    added: &["status.nodeName", "status.finishedTime", "status.cpus"],
    rules: &[
        "!has(oldSelf.status) || !has(oldSelf.status.podName) || (has(self.status) && has(self.status.podName) && self.status.podName == oldSelf.status.podName)",
        "!has(oldSelf.status) || !has(oldSelf.status.phase) || !(oldSelf.status.phase in ['Terminated', 'Failed']) || (has(self.status) && has(self.status.phase) && self.status.phase == oldSelf.status.phase)",
        "self.spec.runtime == oldSelf.spec.runtime",
        "has(self.spec.securityLevel) == has(oldSelf.spec.securityLevel) && (!has(self.spec.securityLevel) || self.spec.securityLevel == oldSelf.spec.securityLevel)",
        "has(self.spec.resources) == has(oldSelf.spec.resources) && (!has(self.spec.resources) || self.spec.resources == oldSelf.spec.resources)",
        "has(self.spec.filesystem) == has(oldSelf.spec.filesystem) && (!has(self.spec.filesystem) || self.spec.filesystem == oldSelf.spec.filesystem)",
        "has(self.spec.securityContext) == has(oldSelf.spec.securityContext) && (!has(self.spec.securityContext) || self.spec.securityContext == oldSelf.spec.securityContext)",
        "has(self.spec.profileRef) == has(oldSelf.spec.profileRef) && (!has(self.spec.profileRef) || self.spec.profileRef == oldSelf.spec.profileRef)",
        "(has(self.spec.storage) && has(self.spec.storage.persistent) && self.spec.storage.persistent) == (has(oldSelf.spec.storage) && has(oldSelf.spec.storage.persistent) && oldSelf.spec.storage.persistent)",
        "!(has(oldSelf.spec.storage) && has(oldSelf.spec.storage.volumeSize)) || (has(self.spec.storage) && has(self.spec.storage.volumeSize) && (self.spec.storage.volumeSize == oldSelf.spec.storage.volumeSize || quantity(self.spec.storage.volumeSize).compareTo(quantity(oldSelf.spec.storage.volumeSize)) >= 0))",
    ],
};

fn sandbox() -> Vec<(String, Value)> {
    let mut fields = root();
    fields.extend(under(
        "spec",
        [
            ("", json!({"type": "object", "required": ["runtime"]})),
            ("runtime", string()),
            ("securityLevel", level()),
            (
                "timeout",
                json!({"type": "integer", "minimum": 1, "maximum": 3600, "default": 300}),
            ),
            ("resources", object()),
            ("resources.cpu", quantity(CPU, "500m")),
            ("resources.memory", quantity(BYTES, "512Mi")),
            ("resources.ephemeralStorage", quantity(BYTES, "1Gi")),
            ("resources.cpuPinning", boolean(false)),
            ("networkAccess", object()),
            ("networkAccess.egress", array()),
            (
                "networkAccess.egress[]",
                json!({"type": "object", "required": ["domain"]}),
            ),
            ("networkAccess.egress[].domain", string()),
            ("networkAccess.egress[].ports", array()),
            ("networkAccess.egress[].ports[]", object()),
            (
                "networkAccess.egress[].ports[].port",
                json!({"type": "integer", "minimum": 1, "maximum": 65535}),
            ),
            (
                "networkAccess.egress[].ports[].protocol",
                json!({"type": "string", "enum": ["TCP", "UDP"], "default": "TCP"}),
            ),
            ("networkAccess.ingress", boolean(false)),
            ("filesystem", object()),
            ("filesystem.readOnlyRoot", boolean(true)),
            (
                "filesystem.writablePaths",
                json!({"type": "array", "default": ["/tmp", "/workspace"]}),
            ),
            ("filesystem.writablePaths[]", string()),
            ("storage", object()),
            ("storage.persistent", boolean(false)),
            ("storage.volumeSize", quantity(BYTES, "5Gi")),
            ("securityContext", object()),
            (
                "securityContext.runAsUser",
                json!({"type": "integer", "default": 1000}),
            ),
            (
                "securityContext.runAsGroup",
                json!({"type": "integer", "default": 1000}),
            ),
            ("securityContext.seccompProfile", object()),
            (
                "securityContext.seccompProfile.type",
                json!({"type": "string", "enum": ["RuntimeDefault", "Localhost"], "default": "RuntimeDefault"}),
            ),
            ("securityContext.seccompProfile.localhostProfile", string()),
            ("profileRef", object()),
            ("profileRef.name", string()),
            ("profileRef.namespace", string()),
        ],
    ));
    fields.extend(under(
        "status",
        [
            ("", object()),
            (
                "phase",
                json!({"type": "string", "enum": ["Pending", "Creating", "Running", "Terminating", "Terminated", "Failed"]}),
            ),
            ("podName", string()),
            ("podNamespace", string()),
            ("startTime", time()),
            ("endpoint", string()),
            ("resources", object()),
            ("resources.cpuUsage", string()),
            ("resources.memoryUsage", string()),
        ],
    ));
    fields.extend(conditions());
    fields
}

const SANDBOX_PROFILE: KindPromise = KindPromise {
    kind: "SandboxProfile",
    plural: "sandboxprofiles",
    singular: "sandboxprofile",
    short_name: "sbp",
    scope: Scope::Namespaced,
    has_status: false,
    columns: &[
        ("Language", "string", ".spec.language"),
        ("SecurityLevel", "string", ".spec.securityLevel"),
        AGE,
    ],
    fields: sandbox_profile,
    added: &[],
    rules: &[],
};

fn sandbox_profile() -> Vec<(String, Value)> {
    let mut fields = root();
    fields.extend(under(
        "spec",
        [
            ("", json!({"type": "object", "required": ["language"]})),
            ("language", string()),
            ("securityLevel", level()),
            ("seccompProfile", string()),
            ("networkPolicies", array()),
            ("networkPolicies[]", object()),
            (
                "networkPolicies[].type",
                json!({"type": "string", "enum": ["egress", "ingress"]}),
            ),
            ("networkPolicies[].rules", array()),
            ("networkPolicies[].rules[]", object()),
            ("networkPolicies[].rules[].domain", string()),
            ("networkPolicies[].rules[].cidr", string()),
            ("networkPolicies[].rules[].ports", array()),
            ("networkPolicies[].rules[].ports[]", object()),
            ("networkPolicies[].rules[].ports[].port", integer()),
            (
                "networkPolicies[].rules[].ports[].protocol",
                json!({"type": "string", "enum": ["TCP", "UDP"]}),
            ),
            ("preInstalledPackages", array()),
            ("preInstalledPackages[]", string()),
            ("resourceDefaults", object()),
            ("resourceDefaults.cpu", string()),
            ("resourceDefaults.memory", string()),
            ("resourceDefaults.ephemeralStorage", string()),
            ("filesystemConfig", object()),
            ("filesystemConfig.readOnlyPaths", array()),
            ("filesystemConfig.readOnlyPaths[]", string()),
            ("filesystemConfig.writablePaths", array()),
            ("filesystemConfig.writablePaths[]", string()),
        ],
    ));
    fields
}

const WARM_POOL: KindPromise = KindPromise {
    kind: "WarmPool",
    plural: "warmpools",
    singular: "warmpool",
    short_name: "wp",
    scope: Scope::Namespaced,
    has_status: true,
    columns: &[
        ("Runtime", "string", ".spec.runtime"),
        ("Available", "integer", ".status.availablePods"),
        ("Assigned", "integer", ".status.assignedPods"),
        ("Pending", "integer", ".status.pendingPods"),
        AGE,
    ],
    fields: warm_pool,
    added: &["status.selector"],
    rules: &[],
};

fn warm_pool() -> Vec<(String, Value)> {
    let mut fields = root();
    fields.extend(under(
        "spec",
        [
            (
                "",
                json!({"type": "object", "required": ["runtime", "minSize"]}),
            ),
            ("runtime", string()),
            ("minSize", json!({"type": "integer", "minimum": 0})),
            ("maxSize", json!({"type": "integer", "minimum": 0})),
            ("securityLevel", level()),
            (
                "ttl",
                json!({"type": "integer", "minimum": 0, "default": 3600}),
            ),
            ("resources", object()),
            ("resources.cpu", quantity(CPU, "500m")),
            ("resources.memory", quantity(BYTES, "512Mi")),
            ("profileRef", object()),
            ("profileRef.name", string()),
            ("profileRef.namespace", string()),
            ("preloadPackages", array()),
            ("preloadPackages[]", string()),
            ("preloadScripts", array()),
            ("preloadScripts[]", object()),
            ("preloadScripts[].name", string()),
            ("preloadScripts[].content", string()),
            ("autoScaling", object()),
            ("autoScaling.enabled", boolean(false)),
            (
                "autoScaling.targetUtilization",
                json!({"type": "integer", "minimum": 1, "maximum": 100, "default": 80}),
            ),
            (
                "autoScaling.scaleDownDelay",
                json!({"type": "integer", "minimum": 0, "default": 300}),
            ),
        ],
    ));
    fields.extend(under(
        "status",
        [
            ("", object()),
            ("availablePods", integer()),
            ("assignedPods", integer()),
            ("pendingPods", integer()),
            ("lastScaleTime", time()),
        ],
    ));
    fields.extend(conditions());
    fields
}

const WARM_POD: KindPromise = KindPromise {
    kind: "WarmPod",
    plural: "warmpods",
    singular: "warmpod",
    short_name: "wpod",
    scope: Scope::Namespaced,
    has_status: true,
    columns: &[
        ("Pool", "string", ".spec.poolRef.name"),
        ("Phase", "string", ".status.phase"),
        ("Pod", "string", ".status.podName"),
        AGE,
    ],
    fields: warm_pod,
    added: &[
        "spec.shape",
        "spec.preload",
        "status.nodeName",
        "status.readyAt",
        "status.sandboxName",
    ],
    rules: &[
        "!has(oldSelf.status) || !has(oldSelf.status.assignedTo) || (has(self.status) && has(self.status.assignedTo) && self.status.assignedTo == oldSelf.status.assignedTo)",
        "self.spec.poolRef == oldSelf.spec.poolRef",
        "!has(oldSelf.spec.shape) || (has(self.spec.shape) && self.spec.shape == oldSelf.spec.shape)",
    ],
};

fn warm_pod() -> Vec<(String, Value)> {
    let mut fields = root();
    fields.extend(under(
        "spec",
        [
            ("", json!({"type": "object", "required": ["poolRef"]})),
            ("poolRef", json!({"type": "object", "required": ["name"]})),
            ("poolRef.name", string()),
            ("poolRef.namespace", string()),
            ("creationTimestamp", time()),
            ("lastHeartbeat", time()),
        ],
    ));
    fields.extend(under(
        "status",
        [
            ("", object()),
            (
                "phase",
                json!({"type": "string", "enum": ["Pending", "Ready", "Assigned", "Terminating"]}),
            ),
            ("podName", string()),
            ("podNamespace", string()),
            ("assignedTo", string()),
            ("assignedAt", time()),
        ],
    ));
    fields
}

const RUNTIME_ENVIRONMENT: KindPromise = KindPromise {
    kind: "RuntimeEnvironment",
    plural: "runtimeenvironments",
    singular: "runtimeenvironment",
    short_name: "rte",
    scope: Scope::Cluster,
    has_status: true,
    columns: &[
        ("Language", "string", ".spec.language"),
        ("Version", "string", ".spec.version"),
        ("Available", "boolean", ".status.available"),
        AGE,
    ],
    fields: runtime_environment,
    added: &[
        "spec.command",
        "status.imageHash",
        "status.conditions",
        "status.conditions[].type",
        "status.conditions[].status",
        "status.conditions[].reason",
        "status.conditions[].message",
        "status.conditions[].lastTransitionTime",
    ],
    rules: &[],
};

fn runtime_environment() -> Vec<(String, Value)> {
    let mut fields = root();
    fields.extend(under(
        "spec",
        [
            (
                "",
                json!({"type": "object", "required": ["image", "language"]}),
            ),
            ("image", string()),
            ("language", string()),
            ("version", string()),
            ("tags", array()),
            ("tags[]", string()),
            ("preInstalledPackages", array()),
            ("preInstalledPackages[]", string()),
            ("packageManager", string()),
            ("securityFeatures", array()),
            ("securityFeatures[]", string()),
            ("resourceRequirements", object()),
            ("resourceRequirements.minCpu", string()),
            ("resourceRequirements.minMemory", string()),
            ("resourceRequirements.recommendedCpu", string()),
            ("resourceRequirements.recommendedMemory", string()),
        ],
    ));
    fields.extend(under(
        "status",
        [
            ("", object()),
            ("available", json!({"type": "boolean"})),
            ("lastValidated", time()),
        ],
    ));
    fields
}

/// The object itself: nothing but its spec is required.
fn root() -> Vec<(String, Value)> {
    vec![(
        String::new(),
        json!({"type": "object", "required": ["spec"]}),
    )]
}

/// `status.conditions`, alike in every kind that has them.
fn conditions() -> Vec<(String, Value)> {
    under(
        "status",
        [
            ("conditions", array()),
            (
                "conditions[]",
                json!({"type": "object", "required": ["type", "status"]}),
            ),
            ("conditions[].type", string()),
            (
                "conditions[].status",
                json!({"type": "string", "enum": ["True", "False", "Unknown"]}),
            ),
            ("conditions[].reason", string()),
            ("conditions[].message", string()),
            ("conditions[].lastTransitionTime", time()),
        ],
    )
}

/// `fields` with their paths below `parent`; the empty path is `parent` itself.
fn under<const N: usize>(parent: &str, fields: [(&str, Value); N]) -> Vec<(String, Value)> {
    fields
        .into_iter()
        .map(|(path, constraints)| match path {
            "" => (parent.to_owned(), constraints),
            path => (format!("{parent}.{path}"), constraints),
        })
        .collect()
}

fn object() -> Value {
    json!({"type": "object"})
}

fn array() -> Value {
    json!({"type": "array"})
}

fn string() -> Value {
    json!({"type": "string"})
}

fn integer() -> Value {
    json!({"type": "integer"})
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn boolean(default: bool) -> Value {
    json!({"type": "boolean", "default": default})
}

fn quantity(pattern: &str, default: &str) -> Value {
    json!({"type": "string", "pattern": pattern, "default": default})
}

fn level() -> Value {
    json!({"type": "string", "enum": ["standard", "high", "custom"], "default": "standard"})
}
