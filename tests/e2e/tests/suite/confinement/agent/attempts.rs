//! What the token of an agent is tried for.

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::ApiResource;
use pilotlight_bench::objects::{pods, profiles, runtimes, sandboxes, warm_pods, warm_pools};
use pilotlight_e2e::attempt::{Attempt, How, attempt};
use pilotlight_e2e::token;
use serde_json::{Value, json};

use super::super::nodes;

/// A condition of a pod.
pub fn condition_patch(type_: &str, status: &str) -> Value {
    json!({ "status": { "conditions": [{ "type": type_, "status": status, "reason": "Stolen" }] } })
}

/// What an agent writes once a pod is ready.
fn ready(pod: &str, namespace: &str, node: &str) -> Value {
    json!({ "status": {
        "phase": "Ready", "podName": pod, "podNamespace": namespace, "nodeName": node,
        "readyAt": "2036-01-01T00:00:00.000000Z",
    }})
}

/// A publication.
pub fn publication(pod: &str, namespace: &str, node: &str) -> Value {
    let yes = |type_: &str| json!({ "type": type_, "status": "True", "reason": "Stolen", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let conditions = ["Accepted", "Assigned", "Prepared", "Ready"].map(yes);
    json!({ "status": {
        "phase": "Running", "podName": pod, "podNamespace": namespace, "nodeName": node,
        "startTime": "2026-01-01T00:00:00.000000Z", "endpoint": "stolen",
        "conditions": conditions,
    }})
}

/// The same with something else in it.
fn but(mut patch: Value, field: &str, value: Value) -> Value {
    patch["status"][field] = value;
    patch
}

/// Where things are: the agent's own node, and another.
pub struct Places<'a> {
    /// Namespace of the Sandboxes.
    pub namespace: &'a str,
    /// Namespace of the installation.
    pub system: &'a str,
    /// Pod of the agent.
    pub agent_pod: &'a str,
    /// The agent's node, an idle WarmPod, a running Sandbox and its pod there.
    pub own: [&'a str; 4],
    /// The same of another node.
    pub other: [&'a str; 4],
}

/// Everything of other nodes, and everything of the own one that is not the agent's to write.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn forbidden(places: &Places<'_>) -> Vec<Attempt> {
    let Places {
        namespace: ns,
        system,
        agent_pod,
        own: [node, idle, sandbox, pod],
        other: [other, other_idle, other_sandbox, other_pod],
    } = *places;
    let prepared = || condition_patch("llmsafespace.dev/prepared", "False");
    let beat = || json!({ "spec": { "lastHeartbeat": "2026-01-01T00:00:00Z" } });
    let label = || json!({ "metadata": { "labels": { "stolen": "yes" } } });
    let usage = || json!({ "status": { "resources": { "cpuUsage": "1m" } } });
    let owner = || json!({ "metadata": { "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "x" }] } });
    let strategic = |body| How::Strategic("status", body);
    let merge = |body| How::Merge("status", body);
    let of = |kind: ApiResource, what: &str, name: &str, how| attempt(what, &kind, (ns, name), how);
    let lease = ApiResource::erase::<Lease>(&());
    let secret = ApiResource::erase::<Secret>(&());
    let config_map = ApiResource::erase::<ConfigMap>(&());
    let account = ApiResource::erase::<ServiceAccount>(&());
    let role = ApiResource::erase::<ClusterRole>(&());
    vec![
        // Pods.
        of(
            pods(),
            "another node's pod: our condition",
            other_pod,
            strategic(prepared()),
        ),
        attempt(
            "a pod that is no sandbox's",
            &pods(),
            (system, agent_pod),
            strategic(prepared()),
        ),
        of(
            pods(),
            "pod: Ready",
            pod,
            strategic(condition_patch("Ready", "False")),
        ),
        of(
            pods(),
            "pod: ContainersReady",
            pod,
            strategic(condition_patch("ContainersReady", "False")),
        ),
        of(
            pods(),
            "pod: a condition of its own",
            pod,
            strategic(condition_patch("example.org/x", "True")),
        ),
        of(
            pods(),
            "pod: all conditions away",
            pod,
            merge(json!({ "status": { "conditions": null } })),
        ),
        of(
            pods(),
            "pod: phase",
            pod,
            strategic(json!({ "status": { "phase": "Failed" } })),
        ),
        of(
            pods(),
            "pod: address",
            pod,
            strategic(
                json!({ "status": { "podIP": "10.9.9.9", "podIPs": [{ "ip": "10.9.9.9" }] } }),
            ),
        ),
        of(
            pods(),
            "pod: containers' states",
            pod,
            merge(json!({ "status": { "containerStatuses": null } })),
        ),
        of(pods(), "pod: label by the status", pod, strategic(label())),
        of(
            pods(),
            "pod: annotation by the status",
            pod,
            strategic(json!({ "metadata": { "annotations": { "stolen": "yes" } } })),
        ),
        of(
            pods(),
            "pod: finalizer by the status",
            pod,
            strategic(json!({ "metadata": { "finalizers": ["example.org/x"] } })),
        ),
        of(pods(), "pod: label", pod, How::Merge("", label())),
        of(
            pods(),
            "pod: image",
            pod,
            How::Strategic(
                "",
                json!({ "spec": { "containers": [{ "name": "sandbox", "image": "stolen" }] } }),
            ),
        ),
        of(pods(), "pod: owner", pod, How::Merge("", owner())),
        of(pods(), "pod: delete", pod, How::Delete),
        of(
            pods(),
            "pod: create",
            "stolen",
            How::Create(
                json!({ "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }] } }),
            ),
        ),
        of(pods(), "pod: exec", pod, How::Call("exec", json!({}))),
        of(
            pods(),
            "pod: eviction",
            pod,
            How::Call(
                "eviction",
                json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod } }),
            ),
        ),
        of(
            pods(),
            "pod: ephemeral container",
            pod,
            How::Strategic(
                "ephemeralcontainers",
                json!({ "spec": { "ephemeralContainers": [{ "name": "d", "image": "i" }] } }),
            ),
        ),
        // WarmPods.
        of(
            warm_pods(),
            "another node's WarmPod: heartbeat",
            other_idle,
            How::Merge("", beat()),
        ),
        of(
            warm_pods(),
            "another node's WarmPod: as its own",
            other_idle,
            merge(ready(other_idle, ns, node)),
        ),
        of(
            warm_pods(),
            "WarmPod: onto another node",
            idle,
            merge(ready(idle, ns, other)),
        ),
        of(
            warm_pods(),
            "WarmPod: assignedTo",
            idle,
            merge(json!({ "status": { "assignedTo": "stolen" } })),
        ),
        of(
            warm_pods(),
            "WarmPod: retired",
            idle,
            merge(json!({ "status": { "assignedTo": "retired:Stolen" } })),
        ),
        of(
            warm_pods(),
            "WarmPod: sandboxName",
            idle,
            merge(json!({ "status": { "sandboxName": "waiting" } })),
        ),
        of(
            warm_pods(),
            "WarmPod: Assigned",
            idle,
            merge(json!({ "status": { "phase": "Assigned" } })),
        ),
        of(
            warm_pods(),
            "WarmPod: Terminating",
            idle,
            merge(json!({ "status": { "phase": "Terminating" } })),
        ),
        of(
            warm_pods(),
            "WarmPod: Ready once more",
            pod,
            merge(json!({ "status": { "phase": "Ready" } })),
        ),
        of(
            warm_pods(),
            "WarmPod: another pod's name",
            idle,
            merge(json!({ "status": { "podName": other_idle } })),
        ),
        of(
            warm_pods(),
            "WarmPod: shape",
            idle,
            How::Merge("", json!({ "spec": { "shape": "stolen" } })),
        ),
        of(
            warm_pods(),
            "WarmPod: preload",
            idle,
            How::Merge("", json!({ "spec": { "preload": "stolen" } })),
        ),
        of(warm_pods(), "WarmPod: label", idle, How::Merge("", label())),
        of(
            warm_pods(),
            "WarmPod: finalizer",
            idle,
            How::Merge(
                "",
                json!({ "metadata": { "finalizers": ["example.org/x"] } }),
            ),
        ),
        of(warm_pods(), "WarmPod: owner", idle, How::Merge("", owner())),
        of(
            warm_pods(),
            "WarmPod: create",
            "stolen",
            How::Create(json!({ "spec": { "poolRef": { "name": "pool" } } })),
        ),
        of(warm_pods(), "WarmPod: delete", idle, How::Delete),
        // Sandboxes.
        of(
            sandboxes(),
            "Sandbox: publication on another node",
            "waiting",
            merge(publication(other_idle, ns, other)),
        ),
        of(
            sandboxes(),
            "Sandbox: publication in another namespace",
            "waiting",
            merge(publication(idle, system, node)),
        ),
        of(
            sandboxes(),
            "Sandbox: publication as Terminated",
            "waiting",
            merge(but(
                publication(idle, ns, node),
                "phase",
                json!("Terminated"),
            )),
        ),
        of(
            sandboxes(),
            "Sandbox: publication without a pod",
            "waiting",
            merge(but(publication(idle, ns, node), "podName", Value::Null)),
        ),
        of(
            sandboxes(),
            "Sandbox: publication with a finishedTime",
            "waiting",
            merge(but(
                publication(idle, ns, node),
                "finishedTime",
                json!("2026-01-01T00:00:00Z"),
            )),
        ),
        of(
            sandboxes(),
            "another node's Sandbox: as its own",
            other_sandbox,
            merge(publication(other_pod, ns, node)),
        ),
        of(
            sandboxes(),
            "another node's Sandbox: usage",
            other_sandbox,
            merge(usage()),
        ),
        of(
            sandboxes(),
            "Sandbox: Failed",
            sandbox,
            merge(json!({ "status": { "phase": "Failed" } })),
        ),
        of(
            sandboxes(),
            "Sandbox: Terminating",
            sandbox,
            merge(json!({ "status": { "phase": "Terminating" } })),
        ),
        of(
            sandboxes(),
            "Sandbox: endpoint after the publication",
            sandbox,
            merge(json!({ "status": { "endpoint": "stolen" } })),
        ),
        of(
            sandboxes(),
            "Sandbox: conditions after the publication",
            sandbox,
            merge(json!({ "status": { "conditions": [] } })),
        ),
        of(
            sandboxes(),
            "Sandbox: start time after the publication",
            sandbox,
            merge(json!({ "status": { "startTime": "2036-01-01T00:00:00.000000Z" } })),
        ),
        of(
            sandboxes(),
            "Sandbox: specification",
            sandbox,
            How::Merge("", json!({ "spec": { "timeout": 86400 } })),
        ),
        of(
            sandboxes(),
            "Sandbox: label",
            sandbox,
            How::Merge("", label()),
        ),
        of(
            sandboxes(),
            "Sandbox: create",
            "stolen",
            How::Create(json!({ "spec": { "runtime": "x" } })),
        ),
        of(sandboxes(), "Sandbox: delete", sandbox, How::Delete),
        // Everything else.
        of(
            warm_pools(),
            "WarmPool: size",
            "pool",
            How::Merge("", json!({ "spec": { "minSize": 100 } })),
        ),
        of(
            profiles(),
            "SandboxProfile: create",
            "stolen",
            How::Create(json!({ "spec": { "language": "python" } })),
        ),
        attempt(
            "RuntimeEnvironment: create",
            &runtimes(),
            ("", "stolen"),
            How::Create(json!({ "spec": { "language": "python", "image": "i" } })),
        ),
        attempt("node: label", &nodes(), ("", node), How::Merge("", label())),
        attempt(
            "another node: label",
            &nodes(),
            ("", other),
            How::Merge("", label()),
        ),
        attempt(
            "secret: the CA's key",
            &secret,
            (system, "pilotlight-ca"),
            How::Get,
        ),
        of(
            secret.clone(),
            "secret: create",
            "stolen",
            How::Create(json!({})),
        ),
        attempt(
            "what agents trust",
            &config_map,
            (system, "pilotlight-ca"),
            How::Merge("", json!({ "data": { "ca.crt": "stolen" } })),
        ),
        attempt(
            "the scheduler's lease",
            &lease,
            (system, "pilotlight-scheduler"),
            How::Merge("", json!({ "spec": { "holderIdentity": "stolen" } })),
        ),
        attempt(
            "a token of its own account",
            &account,
            (system, token::AGENT),
            How::Call("token", json!(TokenRequest::default())),
        ),
        attempt(
            "a token of the scheduler",
            &account,
            (system, token::SCHEDULER),
            How::Call("token", json!(TokenRequest::default())),
        ),
        attempt(
            "a role",
            &role,
            ("", "stolen"),
            How::Create(json!({ "rules": [] })),
        ),
    ]
}

/// What the agent itself writes, once more.
pub fn allowed(places: &Places<'_>, prepared: &Value) -> Vec<Attempt> {
    let ns = places.namespace;
    let [node, idle, sandbox, pod] = places.own;
    let of = |kind: ApiResource, what: &str, name: &str, how| attempt(what, &kind, (ns, name), how);
    let condition = json!({ "status": { "conditions": [prepared] } });
    let beat = json!({ "spec": { "lastHeartbeat": "2036-01-01T00:00:00Z" } });
    let usage = json!({ "status": { "resources": { "cpuUsage": "1m", "memoryUsage": "1Mi" } } });
    vec![
        of(
            pods(),
            "own pod: our condition",
            pod,
            How::Strategic("status", condition),
        ),
        of(
            warm_pods(),
            "own idle WarmPod: heartbeat",
            idle,
            How::Merge("", beat.clone()),
        ),
        of(
            warm_pods(),
            "own assigned WarmPod: heartbeat",
            pod,
            How::Merge("", beat),
        ),
        of(
            warm_pods(),
            "own idle WarmPod: Ready",
            idle,
            How::Merge("status", ready(idle, ns, node)),
        ),
        of(
            sandboxes(),
            "own Sandbox: usage",
            sandbox,
            How::Merge("status", usage),
        ),
        of(sandboxes(), "a Sandbox: read", sandbox, How::Get),
        of(warm_pods(), "a WarmPod: read", idle, How::Get),
    ]
}
