//! Status writes of sandboxes and pools, and the label of nodes.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch};
use pilotlight_common::kinds::{Sandbox, WarmPool, WarmPoolStatus};
use pilotlight_common::names::conditions::READY;
use pilotlight_common::names::{AGENT_READY, AGENT_READY_LABEL};
use pilotlight_common::stream::ObjectId;
use serde_json::json;

use super::{Applier, WriteError, patch_params};
use crate::action::{EventNote, Outcome, SandboxStatusWrite};
use crate::view::PodView;

impl Applier {
    /// Writes at the revision it was computed from, so that the agent's publication is never overwritten.
    pub(super) async fn sandbox_status(
        &self,
        write: &SandboxStatusWrite,
    ) -> Result<Outcome, WriteError> {
        if let Some(key) = &write.unless_pod_lives {
            let pods: Api<Pod> = Api::namespaced(self.cold.clone(), &key.namespace);
            let pod = self
                .write(pods.get_opt(&key.name))
                .await?
                .map(PodView::from);
            if pod.is_some_and(|p| p.lives()) {
                return Ok(Outcome::Stale);
            }
        }
        let mut status = json!({ "phase": write.phase, "conditions": write.conditions });
        if write.phase.is_final() {
            status["finishedTime"] = json!(Time(Timestamp::now()));
        }
        let patch = Patch::Merge(json!({
            "metadata": { "uid": write.sandbox.uid, "resourceVersion": write.revision.to_string() },
            "status": status,
        }));
        let api: Api<Sandbox> = Api::namespaced(self.cold.clone(), &write.sandbox.namespace);
        self.write(api.patch_status(&write.sandbox.name, &patch_params(), &patch))
            .await?;
        if let Some(event) = &write.event {
            self.metrics.count_refusal(&event.reason);
            self.events.record(write.sandbox.clone(), event.clone());
        }
        if write.phase.is_final() {
            let ready = write.conditions.iter().find(|c| c.type_ == READY);
            let reason = ready.and_then(|c| c.reason.as_deref());
            self.metrics.count_end(reason.unwrap_or_default());
        }
        Ok(Outcome::Done)
    }

    pub(super) async fn pool_status(
        &self,
        pool: &ObjectId,
        status: &WarmPoolStatus,
        event: Option<EventNote>,
    ) -> Result<Outcome, WriteError> {
        let patch = Patch::Merge(json!({ "metadata": { "uid": pool.uid }, "status": status }));
        let api: Api<WarmPool> = Api::namespaced(self.cold.clone(), &pool.namespace);
        self.write(api.patch_status(&pool.name, &patch_params(), &patch))
            .await?;
        if let Some(event) = event {
            self.metrics.count_refusal(&event.reason);
            self.events.record(pool.clone(), event);
        }
        Ok(Outcome::Done)
    }

    pub(super) async fn label_node(&self, node: &str, ready: bool) -> Result<Outcome, WriteError> {
        let patch = Patch::Merge(
            json!({ "metadata": { "labels": { AGENT_READY_LABEL: ready.then_some(AGENT_READY) } } }),
        );
        let api: Api<Node> = Api::all(self.cold.clone());
        self.write(api.patch_metadata(node, &patch_params(), &patch))
            .await?;
        tracing::info!(node, ready, "node labelled");
        Ok(Outcome::Done)
    }
}
