//! The only module that writes to the API server. The engine hands it [`Action`]s and gets [`Done`]s back.
//!
//! Two lanes with a connection pool of their own: what a sandbox waits for, and everything else, so that a refill or a
//! deletion never stands in front of an assignment or a start. Every write is bounded in time, checks leadership right
//! before it goes out, and carries only the fields it means to change.

mod assign;
mod cold;
mod events;
mod expel;
mod network_policies;
mod removal;
mod status;
mod validate;
mod warm_pods;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::{DeleteParams, PatchParams, Preconditions};
use pilotlight_common::names::SCHEDULER_MANAGER;
use tokio::sync::{Mutex, Semaphore, mpsc};

pub use cold::StorageSettings;
pub use events::EventRecorder;

use crate::action::{Action, Done, Outcome};
use crate::input::Input;
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::pod::Overcommit;
use crate::view::Key;

/// Longest a single write may take before its outcome counts as unknown: fifty times the slowest seen on a
/// small, loaded API server.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Assignments under way at once. More connections than this only queue up inside the API server.
const HOT_WRITES: usize = 16;
/// Other writes under way at once.
const COLD_WRITES: usize = 8;
/// Pods of waiting sandboxes made at once: apart from the refill, whose queue they must not stand in.
const STARTS: usize = 8;

/// Why a write did not go through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The API server's answer, or none.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// No answer in time: whether it happened is not known.
    #[error("no answer in {WRITE_TIMEOUT:?}")]
    Timeout,
    /// Another replica leads now.
    #[error("leadership ended")]
    NotLeading,
}

impl WriteError {
    /// Status code of the API server's answer.
    fn code(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// The kind of error, for metrics; none where it is no error that the object is gone.
    fn category(&self) -> Option<&'static str> {
        let code = match self {
            Self::Timeout => return Some("api_timeout"),
            Self::NotLeading => return Some("not_leading"),
            Self::Api(kube::Error::Api(status)) => status.code,
            Self::Api(_) => return Some("api_unreachable"),
        };
        match code {
            404 => None,
            401 | 403 => Some("api_forbidden"),
            409 => Some("api_conflict"),
            429 => Some("api_throttled"),
            500.. => Some("api_server"),
            _ => Some("api_invalid"),
        }
    }

    /// What it means for whoever asked for the write.
    fn outcome(&self) -> Outcome {
        match self.code() {
            // What it was about is gone: that is what the decision will find, too.
            Some(404) => Outcome::Done,
            // Changed meanwhile, or a rule of the CRD forbids it.
            Some(409 | 422) => Outcome::Stale,
            _ => Outcome::Failed,
        }
    }
}

/// What pods are made by, beyond what is said of each.
#[derive(Clone, Debug)]
pub struct PodSettings {
    /// Limits over requests.
    pub overcommit: Overcommit,
    /// Where persistent volumes come from.
    pub storage: StorageSettings,
    /// Whether NetworkPolicies keep sandboxes to their rules.
    pub networks_by_policy: bool,
}

/// Carries actions out.
pub struct Applier {
    hot: Client,
    cold: Client,
    leadership: Arc<Leadership>,
    metrics: Arc<Metrics>,
    settings: PodSettings,
    events: EventRecorder,
    results: mpsc::Sender<Input>,
    hot_permits: Semaphore,
    cold_permits: Semaphore,
    start_permits: Semaphore,
    /// Namespaces that were seen to have what they need, and when.
    services: Mutex<HashMap<String, Instant>>,
}

impl Applier {
    /// An applier whose lanes use these two clients.
    pub fn new(
        hot: Client,
        cold: Client,
        leadership: Arc<Leadership>,
        metrics: Arc<Metrics>,
        settings: PodSettings,
        events: EventRecorder,
        results: mpsc::Sender<Input>,
    ) -> Arc<Self> {
        Arc::new(Self {
            hot,
            cold,
            leadership,
            metrics,
            settings,
            events,
            results,
            hot_permits: Semaphore::new(HOT_WRITES),
            cold_permits: Semaphore::new(COLD_WRITES),
            start_permits: Semaphore::new(STARTS),
            services: Mutex::new(HashMap::new()),
        })
    }

    /// Starts carrying an action out; its [`Done`] comes back as an input.
    pub fn start(self: &Arc<Self>, action: Action) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(done) = this.carry_out(action).await {
                // The engine is gone only when the process ends.
                let _ = this.results.send(Input::Done(done)).await;
            }
        });
    }

    #[allow(
        clippy::too_many_lines,
        reason = "one arm for each action, none of them long"
    )]
    async fn carry_out(&self, action: Action) -> Option<Done> {
        if let Action::Assign(assign) = action {
            self.events.note_assignment();
            let permit = self.hot_permits.acquire().await;
            let started = Instant::now();
            let outcome = self.assign(&assign).await;
            self.metrics
                .assign_write
                .observe(started.elapsed().as_secs_f64());
            drop(permit);
            self.events.note_assignment();
            return Some(Done::Assign { assign, outcome });
        }
        if let Action::Record { about, event } = action {
            self.events.record(about, event);
            return None;
        }
        if let Action::CreateColdPod(create) = action {
            let _permit = self.start_permits.acquire().await.ok()?;
            let outcome = self.create_cold_pod(&create).await;
            let uid = create.sandbox.uid;
            return Some(Done::ColdPod { uid, outcome });
        }
        if let Action::Expel(expel) = action {
            let _permit = self.start_permits.acquire().await.ok()?;
            let outcome = self.expel(&expel).await;
            let uid = expel.sandbox.uid;
            return Some(Done::Expelled { uid, outcome });
        }
        let _permit = self.cold_permits.acquire().await.ok()?;
        Some(match action {
            Action::Assign(_)
            | Action::Record { .. }
            | Action::CreateColdPod(_)
            | Action::Expel(_) => return None,
            Action::WriteNetworkPolicy(write) => {
                let outcome = self.write_network_policy(&write).await;
                Done::NetworkPolicy {
                    uid: write.sandbox.uid,
                    digest: write.rules.digest(),
                    outcome: self.count("network_policy", &outcome),
                }
            }
            Action::GrowVolume(grow) => {
                let outcome = self.grow_volume(&grow).await;
                Done::Volume {
                    key: Key::from(&grow.claim),
                    outcome: self.count("grow_volume", &outcome),
                }
            }
            Action::Retire {
                warm_pod,
                pod_uid,
                reason,
            } => {
                let outcome = self.retire(&warm_pod, pod_uid.as_deref(), reason).await;
                Done::WarmPod {
                    key: Key::from(&warm_pod),
                    outcome: self.count("retire", &outcome),
                }
            }
            Action::Remove {
                warm_pod,
                pod_uid,
                unless_exists,
            } => {
                let outcome = self
                    .remove(&warm_pod, pod_uid.as_deref(), unless_exists.as_ref())
                    .await;
                Done::WarmPod {
                    key: Key::from(&warm_pod),
                    outcome: self.count("remove", &outcome),
                }
            }
            Action::RemovePod { pod, unless_exists } => {
                let outcome = self.remove_pod(&pod, unless_exists.as_ref()).await;
                Done::Pod {
                    key: Key::from(&pod),
                    outcome: self.count("remove_pod", &outcome),
                }
            }
            Action::CreateWarmPod(create) => {
                let outcome = self.create_warm_pod(&create).await;
                Done::WarmPod {
                    key: create.key,
                    outcome: self.count("create_warm_pod", &outcome),
                }
            }
            Action::CreatePod {
                warm_pod,
                pool,
                template,
                preload,
                shape,
            } => {
                let outcome = self
                    .create_pod(&warm_pod, &pool, &template, &shape, preload.as_deref())
                    .await;
                Done::WarmPod {
                    key: Key::from(&warm_pod),
                    outcome: self.count("create_pod", &outcome),
                }
            }
            Action::SandboxStatus(write) => {
                let outcome = self.sandbox_status(&write).await;
                Done::Sandbox {
                    uid: write.sandbox.uid,
                    outcome: self.count("sandbox_status", &outcome),
                }
            }
            Action::DeleteSandbox { sandbox } => {
                let outcome = self.delete_sandbox(&sandbox).await;
                Done::Sandbox {
                    uid: sandbox.uid,
                    outcome: self.count("delete_sandbox", &outcome),
                }
            }
            Action::PoolStatus {
                pool,
                status,
                event,
            } => {
                let outcome = self.pool_status(&pool, &status, event).await;
                Done::Pool {
                    key: Key::from(&pool),
                    outcome: self.count("pool_status", &outcome),
                }
            }
            action @ (Action::Validate(_)
            | Action::RemoveTrial { .. }
            | Action::RuntimeStatus { .. }) => return self.carry_out_for_runtime(action).await,
            Action::LabelNode { node, ready } => {
                let outcome = self.label_node(&node, ready).await;
                Done::Node {
                    node,
                    outcome: self.count("label_node", &outcome),
                }
            }
        })
    }

    /// Counts and logs what came of a write.
    fn count(&self, action: &'static str, result: &Result<Outcome, WriteError>) -> Outcome {
        let (outcome, word) = match result {
            Ok(Outcome::Done) => (Outcome::Done, "done"),
            Ok(Outcome::Stale) => (Outcome::Stale, "stale"),
            Ok(Outcome::Failed) => (Outcome::Failed, "failed"),
            Err(error) => match error.outcome() {
                Outcome::Done => (Outcome::Done, "gone"),
                Outcome::Stale => (Outcome::Stale, "stale"),
                Outcome::Failed => (Outcome::Failed, "failed"),
            },
        };
        if let (Outcome::Failed, Err(error)) = (outcome, result) {
            tracing::warn!(action, %error, "write failed");
        }
        self.metrics.count_write(action, word);
        outcome
    }

    /// Runs one request: leadership checked right before, bounded in time.
    async fn write<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, WriteError> {
        let result = if self.leadership.is_valid() {
            match tokio::time::timeout(WRITE_TIMEOUT, request).await {
                Ok(result) => result.map_err(WriteError::from),
                Err(_) => Err(WriteError::Timeout),
            }
        } else {
            Err(WriteError::NotLeading)
        };
        if let Some(category) = result.as_ref().err().and_then(WriteError::category) {
            self.metrics.count_error(category);
        }
        result
    }
}

/// Parameters of every patch here.
fn patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(SCHEDULER_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Deletes exactly the object of this UID.
fn delete_params(uid: &str) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::background()
    }
}
