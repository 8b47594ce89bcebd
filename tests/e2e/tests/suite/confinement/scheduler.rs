//! The token of the scheduler, in the hands of somebody who wants more than the scheduler does.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use kube::api::{ApiResource, DynamicObject};
use pilotlight_bench::objects::{pods, sandboxes, warm_pods};
use pilotlight_e2e::attempt::{Attempt, Expected, How, attempt, try_all};
use pilotlight_e2e::scene::scene;
use pilotlight_e2e::token;
use serde_json::{Value, json};

use super::{idle_on, nodes, running_on, set_up};

/// A pod as the scheduler made it, to be made once more under another name.
fn as_made(pod: &DynamicObject) -> Result<Value> {
    let mut spec = pod.data["spec"].clone();
    let fields = spec.as_object_mut().context("a pod has a specification")?;
    // What the cluster put in.
    for field in [
        "nodeName",
        "priority",
        "preemptionPolicy",
        "schedulerName",
        "dnsPolicy",
    ] {
        fields.remove(field);
    }
    Ok(json!({
        "metadata": {
            "labels": pod.metadata.labels,
            "annotations": pod.metadata.annotations,
            "ownerReferences": pod.metadata.owner_references,
        },
        "spec": spec,
    }))
}

/// The same, with something else at a place of it.
fn but(pod: &Value, place: &str, value: Value) -> Result<Value> {
    let mut pod = pod.clone();
    let (parent, field) = place.rsplit_once('/').context("a place")?;
    let parent = pod
        .pointer_mut(parent)
        .with_context(|| format!("no {parent}"))?;
    match parent {
        Value::Object(fields) => drop(fields.insert(field.to_owned(), value)),
        Value::Array(items) => {
            *items
                .get_mut(field.parse::<usize>()?)
                .context("no such item")? = value;
        }
        _ => anyhow::bail!("{place} is no place"),
    }
    Ok(pod)
}

/// What no pod of the scheduler has.
#[allow(clippy::too_many_lines, reason = "a table")]
fn stronger_pods(namespace: &str, pod: &Value) -> Result<Vec<Attempt>> {
    let context = "/spec/containers/0/securityContext";
    let localhost = |file: &str| json!({ "type": "Localhost", "localhostProfile": file });
    let projected = json!({ "name": "t", "projected": { "sources": [{ "serviceAccountToken": { "path": "t" } }] } });
    let cases = [
        ("privileged", format!("{context}/privileged"), json!(true)),
        (
            "privilege escalation",
            format!("{context}/allowPrivilegeEscalation"),
            json!(true),
        ),
        (
            "a capability",
            format!("{context}/capabilities"),
            json!({ "drop": ["ALL"], "add": ["NET_RAW"] }),
        ),
        (
            "all capabilities",
            format!("{context}/capabilities"),
            Value::Null,
        ),
        ("no security context", context.to_owned(), Value::Null),
        (
            "unmasked /proc",
            format!("{context}/procMount"),
            json!("Unmasked"),
        ),
        (
            "a container as root",
            format!("{context}/runAsUser"),
            json!(0),
        ),
        (
            "a container unconfined",
            format!("{context}/seccompProfile"),
            json!({ "type": "Unconfined" }),
        ),
        (
            "root",
            "/spec/securityContext/runAsUser".to_owned(),
            json!(0),
        ),
        (
            "perhaps root",
            "/spec/securityContext/runAsNonRoot".to_owned(),
            Value::Null,
        ),
        (
            "unconfined",
            "/spec/securityContext/seccompProfile".to_owned(),
            json!({ "type": "Unconfined" }),
        ),
        (
            "no seccomp profile",
            "/spec/securityContext/seccompProfile".to_owned(),
            Value::Null,
        ),
        (
            "somebody's profile",
            "/spec/securityContext/seccompProfile".to_owned(),
            localhost("log.json"),
        ),
        (
            "a profile by a detour",
            "/spec/securityContext/seccompProfile".to_owned(),
            localhost("./pilotlight/x-0123456789ab.json"),
        ),
        (
            "a sysctl",
            "/spec/securityContext/sysctls".to_owned(),
            json!([{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }]),
        ),
        (
            "the node's network",
            "/spec/hostNetwork".to_owned(),
            json!(true),
        ),
        (
            "the node's processes",
            "/spec/hostPID".to_owned(),
            json!(true),
        ),
        ("the node's IPC", "/spec/hostIPC".to_owned(), json!(true)),
        (
            "a port of the node",
            "/spec/containers/0/ports".to_owned(),
            json!([{ "containerPort": 80, "hostPort": 80 }]),
        ),
        (
            "a folder of the node",
            "/spec/volumes/0".to_owned(),
            json!({ "name": "writable-0", "hostPath": { "path": "/" } }),
        ),
        (
            "a secret",
            "/spec/volumes/0".to_owned(),
            json!({ "name": "writable-0", "secret": { "secretName": "x" } }),
        ),
        (
            "a token",
            "/spec/volumes/0".to_owned(),
            but(&projected, "/name", json!("writable-0"))?,
        ),
        (
            "an account's token",
            "/spec/automountServiceAccountToken".to_owned(),
            json!(true),
        ),
        (
            "a node of its choice",
            "/spec/nodeName".to_owned(),
            json!("node-1"),
        ),
        ("any node", "/spec/nodeSelector".to_owned(), Value::Null),
        (
            "no readiness gate",
            "/spec/readinessGates".to_owned(),
            Value::Null,
        ),
        (
            "system priority",
            "/spec/priorityClassName".to_owned(),
            json!("system-node-critical"),
        ),
        (
            "no owner",
            "/metadata/ownerReferences".to_owned(),
            Value::Null,
        ),
        ("no labels", "/metadata/labels".to_owned(), Value::Null),
        (
            "a privileged init container",
            "/spec/initContainers".to_owned(),
            json!([{ "name": "x", "image": "i", "securityContext": { "privileged": true } }]),
        ),
    ];
    cases
        .into_iter()
        .map(|(what, place, value)| {
            let pod = but(pod, &place, value)?;
            let what = format!("pod with {what}");
            Ok(attempt(
                &what,
                &pods(),
                (namespace, "stolen"),
                How::DryCreate(pod),
            ))
        })
        .collect()
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn the_token_of_the_scheduler_makes_no_stronger_pods_and_publishes_nothing() {
    scene("scheduler-token", |scene| async move {
        let (first, _) = set_up(&scene).await?;
        let environment = scene.environment;
        let stolen = token::request(environment, token::SCHEDULER, None).await?;
        let thief = token::client(environment, stolen).await?;
        let ns = scene.namespace.as_str();
        let system = environment.installation.namespace.as_str();
        let idle = idle_on(&scene, &first)?;
        let (sandbox, _) = running_on(&scene, &first)?;
        let agent = token::agent_pod(environment, &first).await?.metadata.name;
        let agent = agent.context("a pod has a name")?;

        let pod = as_made(&scene.pod(&idle)?)?;
        let installed = json!({ "type": "Localhost", "localhostProfile": "pilotlight/python-0123456789ab.json" });
        let with_profile = but(&pod, "/spec/securityContext/seccompProfile", installed)?;
        let passes = [
            attempt(
                "pod as it makes them",
                &pods(),
                (ns, "stolen"),
                How::DryCreate(pod.clone()),
            ),
            attempt(
                "pod with an installed profile",
                &pods(),
                (ns, "stolen"),
                How::DryCreate(with_profile),
            ),
        ];
        try_all(&thief, Expected::Passes, &passes).await?;

        let service = ApiResource::erase::<Service>(&());
        let claim = ApiResource::erase::<PersistentVolumeClaim>(&());
        let of =
            |kind: &ApiResource, what: &str, name: &str, how| attempt(what, kind, (ns, name), how);
        let status = |fields: Value| How::Merge("status", json!({ "status": fields }));
        let mut refused = stronger_pods(ns, &pod)?;
        refused.extend([
            attempt("pod of somebody else: delete", &pods(), (system, &agent), How::Delete),
            of(&warm_pods(), "idle WarmPod: delete", &idle, How::Delete),
            of(&warm_pods(), "WarmPod: Ready", &idle, status(json!({ "phase": "Ready" }))),
            of(&warm_pods(), "WarmPod: onto another node", &idle, status(json!({ "phase": "Assigned", "nodeName": "x" }))),
            of(&sandboxes(), "Sandbox: Running", "waiting", status(json!({ "phase": "Running" }))),
            of(&sandboxes(), "Sandbox: podName", "waiting", status(json!({ "podName": idle }))),
            of(&sandboxes(), "Sandbox: endpoint", &sandbox, status(json!({ "endpoint": "stolen" }))),
            of(&sandboxes(), "Sandbox: specification", &sandbox, How::Merge("", json!({ "spec": { "timeout": 9 } }))),
            of(&sandboxes(), "Sandbox that runs: delete", &sandbox, How::Delete),
            attempt("node: another label", &nodes(), ("", &first), How::Merge("", json!({ "metadata": { "labels": { "stolen": "yes" } } }))),
            attempt("node: taint", &nodes(), ("", &first), How::Merge("", json!({ "spec": { "unschedulable": true } }))),
            attempt("node: another value", &nodes(), ("", &first), How::Merge("", json!({ "metadata": { "labels": { "llmsafespace.dev/agent": "stolen" } } }))),
            of(&service, "Service of another name", "stolen", How::Create(json!({ "spec": { "clusterIP": "None", "selector": { "llmsafespace.dev/sandbox-pod": "true" } } }))),
            of(&claim, "volume that is nobody's", "stolen", How::Create(json!({ "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }))),
            attempt("a token of its own account", &ApiResource::erase::<k8s_openapi::api::core::v1::ServiceAccount>(&()), (system, token::SCHEDULER), How::Call("token", json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "audiences": [] } }))),
            of(&ApiResource::erase::<k8s_openapi::api::core::v1::Secret>(&()), "a secret", "x", How::Get),
            of(&pods(), "exec", &idle, How::Call("exec", json!({}))),
        ]);
        try_all(&thief, Expected::Refused, &refused).await?;
        ensure!(refused.len() >= 40, "too few");
        scene.one_to_one().await
    });
}
