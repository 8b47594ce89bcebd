//! The only module of the controller that writes to the API server. [`super::engine`] hands it work and gets the outcomes back.
//!
//! Every write is bounded in time, checks leadership right before it goes out, and carries only what it means to change.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use pilotlight_common::agents::v1beta1::Sandbox;
use pilotlight_common::agents::{GROUP, KIND};
use pilotlight_common::names::AGENTS_MANAGER;
use pilotlight_common::stream::ObjectId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use super::index::{Input, Work};
use super::metrics::Metrics;
use super::write::{Found, Kind, Outcome, Write};
use crate::lease::Leadership;

/// Longest a single write may take before its outcome counts as unknown.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Sandboxes written for at once. More connections than this only queue up inside the API server.
const AT_ONCE: usize = 64;
/// Longest reason of a refusal that is told: it stands in a condition.
const LONGEST: usize = 1024;

/// Carries work out.
pub struct Applier {
    client: Client,
    leadership: Arc<Leadership>,
    metrics: Arc<Metrics>,
    recorder: Recorder,
    results: mpsc::Sender<Input>,
    permits: Semaphore,
}

impl Applier {
    /// One whose writes carry `instance` as their author's name.
    pub fn new(
        client: Client,
        leadership: Arc<Leadership>,
        metrics: Arc<Metrics>,
        instance: String,
        results: mpsc::Sender<Input>,
    ) -> Arc<Self> {
        let reporter = Reporter {
            controller: "agents.x-k8s.io/pilotlight".into(),
            instance: Some(instance),
        };
        Arc::new(Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            leadership,
            metrics,
            results,
            permits: Semaphore::new(AT_ONCE),
        })
    }

    /// Starts carrying work out; what came of it comes back as an input.
    /// `heard` is when the news came that ask for it; none where it is time that does.
    pub fn start(self: &Arc<Self>, work: Work, heard: Option<Instant>) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let Work { key, writes } = work;
            let outcomes = match this.permits.acquire().await {
                Ok(_permit) => {
                    if let Some(heard) = heard {
                        let after = heard.elapsed();
                        for write in &writes {
                            this.metrics.reacted(write, after);
                        }
                    }
                    join_all(writes.iter().map(|write| this.write(write))).await
                }
                Err(_) => return,
            };
            let mut refusals = Vec::new();
            for (write, outcome) in writes.iter().zip(&outcomes) {
                this.metrics.count(write, outcome);
                if let (Write::Create { object, .. }, Outcome::Failed(message)) = (write, outcome) {
                    refusals.push((object.clone(), message.clone()));
                }
            }
            let results = writes.into_iter().zip(outcomes).collect();
            // The engine is gone only when the process ends.
            let _ = this.results.send(Input::Done(key, results)).await;
            for (object, message) in refusals {
                this.tell(&object, message).await;
            }
        });
    }

    async fn write(&self, write: &Write) -> Outcome {
        if !self.leadership.is_valid() {
            return Outcome::Stale;
        }
        let result = tokio::time::timeout(WRITE_TIMEOUT, self.carry_out(write)).await;
        match result {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(kube::Error::Api(status))) => match (status.code, write) {
                (404, Write::Delete { .. } | Write::DeleteSandbox(_)) => Outcome::Done,
                (404 | 409, _) => Outcome::Stale,
                _ => Outcome::Failed(shortened(&status.message)),
            },
            Ok(Err(error)) => Outcome::Failed(shortened(&error.to_string())),
            Err(_) => Outcome::Failed(format!(
                "the API server did not answer within {WRITE_TIMEOUT:?}"
            )),
        }
    }

    async fn carry_out(&self, write: &Write) -> kube::Result<Outcome> {
        match write {
            Write::Create {
                kind: Kind::Claim, ..
            }
            | Write::Patch {
                kind: Kind::Claim, ..
            }
            | Write::Delete {
                kind: Kind::Claim, ..
            } => self.child::<PersistentVolumeClaim>(write).await,
            Write::Create {
                kind: Kind::Pod, ..
            }
            | Write::Patch {
                kind: Kind::Pod, ..
            }
            | Write::Delete {
                kind: Kind::Pod, ..
            } => self.child::<Pod>(write).await,
            Write::Create {
                kind: Kind::Service,
                ..
            }
            | Write::Patch {
                kind: Kind::Service,
                ..
            }
            | Write::Delete {
                kind: Kind::Service,
                ..
            } => self.child::<Service>(write).await,
            Write::Status { sandbox, patch } => {
                let api: Api<SandboxMeta> = self.sandboxes(sandbox);
                let patch = json!({ "metadata": { "uid": sandbox.uid }, "status": patch });
                api.patch_status(&sandbox.name, &patch_params(), &Patch::Merge(patch))
                    .await?;
                Ok(Outcome::Done)
            }
            Write::DeleteSandbox(sandbox) => {
                let api: Api<SandboxMeta> = self.sandboxes(sandbox);
                api.delete(&sandbox.name, &delete_params(sandbox, None))
                    .await?;
                Ok(Outcome::Done)
            }
        }
    }

    async fn child<K>(&self, write: &Write) -> kube::Result<Outcome>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize
            + Into<Found>,
    {
        match write {
            Write::Create {
                namespace,
                name,
                object,
                ..
            } => {
                // As it was written: a quantity that is a number, or a field that this program does not know, stays what it is.
                let path = K::url_path(&(), Some(namespace));
                let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
                let request = kube::core::Request::new(path).create(&post_params(), body);
                let request = request.map_err(kube::Error::BuildRequest)?;
                match self.client.request::<K>(request).await {
                    Ok(made) => Ok(Outcome::Is(Box::new(made.into()))),
                    Err(kube::Error::Api(status)) if status.code == 409 => {
                        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
                        let found = api.get_opt(name).await?;
                        Ok(found
                            .map_or(Outcome::Stale, |found| Outcome::Was(Box::new(found.into()))))
                    }
                    Err(error) => Err(error),
                }
            }
            Write::Patch { object, patch, .. } => {
                let api: Api<K> = Api::namespaced(self.client.clone(), &object.namespace);
                let patched = api
                    .patch(&object.name, &patch_params(), &Patch::Merge(patch))
                    .await?;
                Ok(Outcome::Is(Box::new(patched.into())))
            }
            Write::Delete {
                object, revision, ..
            } => {
                let api: Api<K> = Api::namespaced(self.client.clone(), &object.namespace);
                api.delete(&object.name, &delete_params(object, *revision))
                    .await?;
                Ok(Outcome::Done)
            }
            Write::Status { .. } | Write::DeleteSandbox(_) => Ok(Outcome::Stale),
        }
    }

    fn sandboxes(&self, sandbox: &ObjectId) -> Api<SandboxMeta> {
        Api::namespaced(self.client.clone(), &sandbox.namespace)
    }

    /// An event about something that could not be made, on the Sandbox it is for.
    async fn tell(&self, object: &Value, message: String) {
        let owner = &object["metadata"]["ownerReferences"][0];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let reference = ObjectReference {
            api_version: Some(format!("{GROUP}/v1beta1")),
            kind: Some(KIND.to_owned()),
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&owner["name"]),
            uid: text(&owner["uid"]),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: EventType::Warning,
            reason: "FailedCreate".into(),
            note: Some(format!(
                "{} {}: {message}",
                object["kind"].as_str().unwrap_or_default(),
                object["metadata"]["name"].as_str().unwrap_or_default()
            )),
            action: "Reconciling".into(),
            secondary: None,
        };
        let published = self.recorder.publish(&event, &reference);
        match tokio::time::timeout(WRITE_TIMEOUT, published).await {
            Ok(Ok(())) => {}
            other => tracing::warn!(?other, "event was not recorded"),
        }
    }
}

/// A Sandbox of which nothing but its metadata is read: that of an answer.
type SandboxMeta = kube::core::PartialObjectMeta<Sandbox>;

fn shortened(message: &str) -> String {
    message.chars().take(LONGEST).collect()
}

fn post_params() -> PostParams {
    PostParams {
        field_manager: Some(AGENTS_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(AGENTS_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

fn delete_params(object: &ObjectId, revision: Option<u64>) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(object.uid.clone()),
            resource_version: revision.map(|revision| revision.to_string()),
        }),
        ..DeleteParams::default()
    }
}
