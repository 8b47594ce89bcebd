//! Every write to the API server. The only holder of a client that writes; called by [`super::engine`].
//!
//! Each request has a timeout and no hidden retry, writes only the agent's own fields, and reads of the answer
//! only what it needs, so that an object with fields of another version is no obstacle.

mod blocked;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{GetParams, Patch, PatchParams};
use kube::core::Request;
use kube::{Client, Resource};
use pilotlight_common::kinds::{
    Condition, ConditionStatus, Sandbox, SandboxPhase, WarmPod, WarmPodPhase,
};
use pilotlight_common::names::{AGENT_MANAGER, PREPARED_CONDITION, conditions};
use pilotlight_common::stream::{AgentRefusal, Assignment, ObjectId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::decide::{Attempt, Outcome, Usage, Write};
use crate::cpu::CpuSet;
use crate::metrics::Metrics;

/// A request that takes longer counts as failed, whether it arrived or not.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Times a WarmPod is read again after somebody else wrote it in between.
const CONFLICTS: usize = 4;

/// Carries out writes.
#[derive(Clone)]
pub struct Apply {
    client: Client,
    node: String,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Apply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Apply")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    /// 404.
    #[error("not found")]
    NotFound,
    /// 409: another UID or resource version.
    #[error("conflict: {0}")]
    Conflict(String),
    /// 422: a rule of the kind forbids it.
    #[error("invalid: {0}")]
    Invalid(String),
    /// 401 or 403.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// 429 or 5xx.
    #[error("the server is overloaded or broken: {0}")]
    Server(String),
    /// No answer in time.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl ApplyError {
    fn category(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Conflict(_) => "conflict",
            Self::Invalid(_) => "invalid",
            Self::Forbidden(_) => "forbidden",
            Self::Server(_) => "server",
            Self::Timeout => "timeout",
            Self::Other(_) => "other",
        }
    }
}

impl From<kube::Error> for ApplyError {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::Other(error.to_string());
        };
        let message = status.message.chars().take(300).collect();
        match status.code {
            404 => Self::NotFound,
            409 => Self::Conflict(message),
            422 => Self::Invalid(message),
            401 | 403 => Self::Forbidden(message),
            429 | 500.. => Self::Server(message),
            _ => Self::Other(message),
        }
    }
}

/// An answer of which nothing is needed.
#[derive(Debug, Deserialize)]
struct Ignored {}

/// What is needed of an object's metadata.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: String,
    resource_version: String,
}

/// What is needed of a Sandbox.
#[derive(Debug, Deserialize)]
struct SandboxView {
    metadata: Metadata,
    #[serde(default)]
    status: SandboxStatusView,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SandboxStatusView {
    phase: Option<SandboxPhase>,
    pod_name: Option<String>,
    cpus: Option<String>,
}

/// What is needed of a WarmPod.
#[derive(Debug, Deserialize)]
struct WarmPodView {
    metadata: Metadata,
    #[serde(default)]
    status: WarmPodStatusView,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WarmPodStatusView {
    phase: Option<WarmPodPhase>,
    assigned_to: Option<String>,
}

impl Apply {
    /// Writes as the agent of `node`.
    pub fn new(client: Client, node: String, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            node,
            metrics,
        }
    }

    /// Publishes a Sandbox on its pod: the second write of an assignment.
    ///
    /// Without a resource version: that the pod's name is set once is a rule of the kind, so a race has one winner, and a
    /// repetition changes nothing.
    pub async fn publish(&self, assignment: &Assignment, cpus: Option<&CpuSet>) -> Attempt {
        let patch = publication(assignment, cpus, &self.node, Timestamp::now());
        let result = self
            .patch::<Sandbox>(&assignment.sandbox, Some("status"), &Patch::Merge(patch))
            .await;
        self.count("sandbox", &result);
        match result {
            Ok(()) => Attempt::Published,
            Err(ApplyError::NotFound) => gone("the Sandbox no longer exists"),
            // A lost race, or a successor of the same name: what the Sandbox says now decides.
            Err(error @ (ApplyError::Conflict(_) | ApplyError::Invalid(_))) => {
                match self.look(assignment).await {
                    Attempt::Unpublished => {
                        tracing::warn!(%error, sandbox = assignment.sandbox.name, "publication refused for no reason that the Sandbox shows");
                        Attempt::Failed
                    }
                    other => other,
                }
            }
            Err(error) => {
                tracing::warn!(%error, sandbox = assignment.sandbox.name, "publication failed; trying again");
                Attempt::Failed
            }
        }
    }

    /// Reads a Sandbox: is it published, and on which pod?
    pub async fn look(&self, assignment: &Assignment) -> Attempt {
        let result: Result<SandboxView, _> = self.get::<Sandbox, _>(&assignment.sandbox).await;
        self.count("look", &result);
        match result {
            Ok(sandbox) => standing(assignment, &sandbox),
            Err(ApplyError::NotFound) => gone("the Sandbox no longer exists"),
            Err(error) => {
                tracing::warn!(%error, sandbox = assignment.sandbox.name, "reading the Sandbox failed; trying again");
                Attempt::Failed
            }
        }
    }

    /// Carries out a background write.
    pub async fn write(&self, write: &Write) -> Outcome {
        let (kind, result) = match write {
            Write::Condition {
                pod,
                status,
                reason,
                message,
            } => {
                let patch = condition(pod, *status, reason, message, Timestamp::now());
                let patch = Patch::Strategic(patch);
                let result = self.patch::<Pod>(pod, Some("status"), &patch).await;
                ("condition", result)
            }
            Write::WarmPod {
                warm_pod,
                pod,
                ready,
            } => ("warm_pod", self.warm_pod(warm_pod, pod, *ready).await),
            Write::Heartbeat { warm_pod, .. } => {
                let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                let patch =
                    json!({"metadata": {"uid": warm_pod.uid}, "spec": {"lastHeartbeat": now}});
                let result = self
                    .patch::<WarmPod>(warm_pod, None, &Patch::Merge(patch))
                    .await;
                ("heartbeat", result)
            }
            Write::Usage { sandbox, usage, .. } => {
                let patch = Patch::Merge(usage_patch(sandbox, *usage));
                let result = self.patch::<Sandbox>(sandbox, Some("status"), &patch).await;
                ("usage", result)
            }
            Write::Cpus { sandbox, cpus, .. } => ("cpus", self.cpus(sandbox, cpus).await),
            Write::Blocked {
                sandbox,
                names,
                packets,
                ..
            } => ("blocked", self.blocked(sandbox, names, *packets).await),
        };
        self.count(kind, &result);
        match result {
            Ok(()) => Outcome::Done,
            // A conflict without a resource version is one of UIDs: the object we mean is gone.
            Err(ApplyError::NotFound | ApplyError::Conflict(_)) => Outcome::Gone,
            Err(error) => {
                tracing::warn!(%error, kind, category = error.category(), "a write failed; trying again later");
                Outcome::Failed
            }
        }
    }

    /// Sets the CPUs of a published Sandbox, where it says others.
    async fn cpus(&self, sandbox: &ObjectId, cpus: &CpuSet) -> Result<(), ApplyError> {
        let current: SandboxView = self.get::<Sandbox, _>(sandbox).await?;
        if current.metadata.uid != sandbox.uid {
            return Err(ApplyError::NotFound);
        }
        if current.status.cpus == Some(cpus.to_string()) {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"uid": sandbox.uid},
            "status": {"cpus": cpus.to_string()},
        });
        self.patch::<Sandbox>(sandbox, Some("status"), &Patch::Merge(patch))
            .await
    }

    /// Sets the phase of a WarmPod that nobody was assigned, and only as long as nobody is: with the resource version.
    async fn warm_pod(
        &self,
        warm_pod: &ObjectId,
        pod: &ObjectId,
        ready: bool,
    ) -> Result<(), ApplyError> {
        let mut conflict = String::new();
        for _ in 0..CONFLICTS {
            let current: WarmPodView = self.get::<WarmPod, _>(warm_pod).await?;
            if current.metadata.uid != warm_pod.uid {
                return Err(ApplyError::NotFound);
            }
            if !wants_phase(&current.status, ready) {
                return Ok(());
            }
            let patch = phase(&current.metadata, pod, &self.node, ready, Timestamp::now());
            match self
                .patch::<WarmPod>(warm_pod, Some("status"), &Patch::Merge(patch))
                .await
            {
                Err(ApplyError::Conflict(message)) => conflict = message,
                other => return other,
            }
        }
        // Not `Conflict`, which would be taken for another UID.
        Err(ApplyError::Server(conflict))
    }

    async fn patch<K: Resource<DynamicType = ()>>(
        &self,
        object: &ObjectId,
        subresource: Option<&str>,
        patch: &Patch<Value>,
    ) -> Result<(), ApplyError> {
        let params = PatchParams {
            field_manager: Some(AGENT_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let requests = Request::new(K::url_path(&(), Some(&object.namespace)));
        let request = match subresource {
            Some(part) => requests.patch_subresource(part, &object.name, &params, patch),
            None => requests.patch(&object.name, &params, patch),
        };
        let _: Ignored = self
            .send(request.map_err(|error| ApplyError::Other(error.to_string()))?)
            .await?;
        Ok(())
    }

    async fn get<K: Resource<DynamicType = ()>, T: DeserializeOwned>(
        &self,
        object: &ObjectId,
    ) -> Result<T, ApplyError> {
        let request = Request::new(K::url_path(&(), Some(&object.namespace)))
            .get(&object.name, &GetParams::default())
            .map_err(|error| ApplyError::Other(error.to_string()))?;
        self.send(request).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<T, ApplyError> {
        tokio::time::timeout(TIMEOUT, self.client.request(request))
            .await
            .map_err(|_| ApplyError::Timeout)?
            .map_err(ApplyError::from)
    }

    fn count<T>(&self, kind: &'static str, result: &Result<T, ApplyError>) {
        let result = result.as_ref().map_or_else(ApplyError::category, |_| "ok");
        self.metrics.wrote(kind, result);
    }
}

fn gone(message: &str) -> Attempt {
    Attempt::Refused(AgentRefusal::SandboxGone, message.to_owned())
}

/// What the Sandbox says about the assignment.
fn standing(assignment: &Assignment, sandbox: &SandboxView) -> Attempt {
    if sandbox.metadata.uid != assignment.sandbox.uid {
        return gone("another Sandbox has that name now");
    }
    let SandboxStatusView {
        phase,
        pod_name,
        cpus: _,
    } = &sandbox.status;
    if phase.is_some_and(SandboxPhase::is_final) {
        return gone("the Sandbox is over");
    }
    let here = pod_name
        .as_ref()
        .is_some_and(|name| *name == assignment.pod_name);
    match (phase, pod_name) {
        (_, Some(other)) if !here => Attempt::Refused(
            AgentRefusal::PublishedElsewhere,
            format!("the Sandbox has pod {other}"),
        ),
        // Ending counts as published: writing Running again would bring it back.
        (Some(SandboxPhase::Running | SandboxPhase::Terminating), Some(_)) => Attempt::Published,
        (Some(SandboxPhase::Terminating), None) => gone("the Sandbox is ending"),
        _ => Attempt::Unpublished,
    }
}

/// Whether the WarmPod is one whose phase is the agent's to write.
fn wants_phase(status: &WarmPodStatusView, ready: bool) -> bool {
    if status.assigned_to.is_some() {
        return false;
    }
    match status.phase {
        None | Some(WarmPodPhase::Pending) => ready,
        Some(WarmPodPhase::Ready) => !ready,
        Some(WarmPodPhase::Assigned | WarmPodPhase::Terminating) => false,
    }
}

fn publication(
    assignment: &Assignment,
    cpus: Option<&CpuSet>,
    node: &str,
    now: Timestamp,
) -> Value {
    // Conditions count in seconds everywhere in Kubernetes.
    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let yes = |type_, reason, message: &str| {
        Condition::new(type_, ConditionStatus::True, reason, message, second)
    };
    let (how, what) = if assignment.is_cold() {
        ("PodCreated", "A pod was made for the sandbox.")
    } else {
        ("WarmPodAssigned", "A warm pod was assigned.")
    };
    let mut patch = json!({
        "metadata": {"uid": assignment.sandbox.uid},
        "status": {
            "phase": SandboxPhase::Running,
            "podName": assignment.pod_name,
            "podNamespace": assignment.owner.namespace,
            "nodeName": node,
            "startTime": micro_time(now),
            "endpoint": assignment.endpoint,
            "conditions": [
                yes(conditions::ACCEPTED, "Resolved", "The request can be fulfilled."),
                yes(conditions::ASSIGNED, how, what),
                yes(conditions::PREPARED, "Prepared", "The node enforces what the sandbox asks for."),
                yes(conditions::READY, "Running", "The sandbox runs."),
            ],
        },
    });
    if let Some(cpus) = cpus {
        patch["status"]["cpus"] = json!(cpus.to_string());
    }
    patch
}

fn condition(pod: &ObjectId, status: bool, reason: &str, message: &str, now: Timestamp) -> Value {
    json!({
        "metadata": {"uid": pod.uid},
        "status": {"conditions": [{
            "type": PREPARED_CONDITION,
            "status": if status { "True" } else { "False" },
            "reason": reason,
            "message": message,
            "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }]},
    })
}

fn phase(current: &Metadata, pod: &ObjectId, node: &str, ready: bool, now: Timestamp) -> Value {
    let status = if ready {
        json!({
            "phase": WarmPodPhase::Ready,
            "podName": pod.name,
            "podNamespace": pod.namespace,
            "nodeName": node,
            "readyAt": micro_time(now),
        })
    } else {
        // Its time to live counts from being ready, so that is taken back too.
        json!({"phase": WarmPodPhase::Pending, "readyAt": null})
    };
    json!({
        "metadata": {"uid": current.uid, "resourceVersion": current.resource_version},
        "status": status,
    })
}

fn usage_patch(sandbox: &ObjectId, usage: Usage) -> Value {
    json!({
        "metadata": {"uid": sandbox.uid},
        "status": {"resources": {
            "cpuUsage": format!("{}m", usage.cpu_millis),
            "memoryUsage": format!("{}Mi", usage.memory_bytes.div_ceil(1 << 20)),
        }},
    })
}

/// As the API server writes a MicroTime: always six digits, or it would not read it.
fn micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests;
