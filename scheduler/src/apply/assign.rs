//! W1: the write that gives a warm pod to a sandbox.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, Patch};
use pilotlight_common::kinds::{WarmPod, WarmPodPhase};
use serde_json::json;

use super::{Applier, WriteError, patch_params};
use crate::action::{Assign, AssignOutcome};
use crate::view::{Claim, WarmPodView};

/// Pause before the first resend; it doubles up to [`MAX_RESEND`].
const MIN_RESEND: Duration = Duration::from_millis(20);
/// Longest pause between resends.
const MAX_RESEND: Duration = Duration::from_secs(1);

impl Applier {
    /// Sends the patch until there is a definite answer. The same patch to the same pod: `assignedTo` is set
    /// once, so a resend after a lost reply is idempotent, while another pod could become a second one.
    pub(super) async fn assign(&self, assign: &Assign) -> AssignOutcome {
        let api: Api<WarmPod> = Api::namespaced(self.hot.clone(), &assign.warm_pod.namespace);
        let patch = Patch::Merge(json!({
            "metadata": { "uid": assign.warm_pod.uid },
            "status": {
                "phase": WarmPodPhase::Assigned,
                "assignedTo": assign.sandbox.uid,
                "assignedAt": MicroTime(assign.assigned_at),
                "sandboxName": assign.sandbox.name,
            },
        }));
        let params = patch_params();
        let mut pause = MIN_RESEND;
        loop {
            let error = match self
                .write(api.patch_status(&assign.warm_pod.name, &params, &patch))
                .await
            {
                Ok(pod) => {
                    let view = WarmPodView::from(pod);
                    let ours = view.claim == Claim::Sandbox(assign.sandbox.uid.clone());
                    self.metrics
                        .count_write("assign", if ours { "done" } else { "stale" });
                    return if ours {
                        AssignOutcome::Won(Box::new(view))
                    } else {
                        AssignOutcome::Lost
                    };
                }
                Err(WriteError::NotLeading) => return AssignOutcome::Abandoned,
                Err(error) => error,
            };
            if let Some(code @ (400 | 402..=428 | 430..=499)) = error.code() {
                // Set by somebody else, of another UID, gone, or not allowed: definite.
                if !matches!(code, 404 | 409 | 422) {
                    tracing::error!(%error, warm_pod = assign.warm_pod.name, "assignment was refused by the API server");
                }
                self.metrics.count_write("assign", "stale");
                return AssignOutcome::Lost;
            }
            tracing::warn!(%error, warm_pod = assign.warm_pod.name, "assignment is sent again");
            self.metrics.count_write("assign", "failed");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_RESEND);
        }
    }
}
