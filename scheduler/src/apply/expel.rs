//! Ending a sandbox that a node published without having been given it.

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch};
use pilotlight_common::fates::end;
use pilotlight_common::kinds::{Sandbox, SandboxPhase, WarmPod, merge_conditions};
use pilotlight_common::names::{AGENT_DISTRUSTED, AGENT_READY_LABEL, NODE_DISTRUSTED};
use serde_json::json;

use super::{Applier, WriteError, patch_params};
use crate::action::{EventNote, Expel, ExpelOutcome};
use crate::decide::{Verdict, judge, over};
use crate::view::{NodeView, PodView, WarmPodView};

impl Applier {
    /// Looks at what bears the publication out, and where nothing does, distrusts the node and then ends the sandbox: in
    /// this order, so that whoever takes over in between finds the sandbox and does both again.
    pub(super) async fn expel(&self, expel: &Expel) -> ExpelOutcome {
        let result = self.try_expel(expel).await;
        let (word, outcome) = match result {
            Ok(outcome @ ExpelOutcome::Ended(_)) => ("done", outcome),
            Ok(outcome) => ("stale", outcome),
            // The sandbox is gone, which ends it too; or it is another one by now.
            Err(error) if matches!(error.code(), Some(404 | 409)) => ("gone", ExpelOutcome::Failed),
            Err(error) => {
                tracing::warn!(%error, sandbox = expel.sandbox.name, "a sandbox that was never assigned was not ended; trying again");
                ("failed", ExpelOutcome::Failed)
            }
        };
        self.metrics.count_write("expel", word);
        outcome
    }

    async fn try_expel(&self, expel: &Expel) -> Result<ExpelOutcome, WriteError> {
        let publication = &expel.publication;
        let (namespace, name) = (&publication.pod.namespace, &publication.pod.name);
        let warm_pods: Api<WarmPod> = Api::namespaced(self.hot.clone(), namespace);
        let pods: Api<Pod> = Api::namespaced(self.hot.clone(), namespace);
        let (warm_pod, pod) = tokio::join!(
            self.write(warm_pods.get_opt(name)),
            self.write(pods.get_opt(name))
        );
        let (warm_pod, pod) = (warm_pod?.map(WarmPodView::from), pod?.map(PodView::from));
        let why = match judge(publication, warm_pod.as_ref(), pod.as_ref()) {
            Verdict::Contradicted(why) => why,
            Verdict::BorneOut | Verdict::Unknown => return Ok(ExpelOutcome::Cleared),
        };
        let by = publication.node.as_deref().unwrap_or("unknown");
        tracing::error!(
            sandbox = expel.sandbox.name,
            namespace,
            pod = name,
            node = by,
            why,
            "a sandbox was published on a pod that was never assigned to it"
        );
        let node = match &publication.node {
            Some(node) => self.distrust(node).await?,
            None => None,
        };
        let message = format!(
            "node {by} published it on pod {name}, {why}; create the sandbox anew, and look into the node"
        );
        let conditions = over(end::NOT_ASSIGNED, &message, expel.now);
        // Without a revision: the node could write in between, again and again.
        let patch = Patch::Merge(json!({
            "metadata": { "uid": expel.sandbox.uid },
            "status": {
                "phase": SandboxPhase::Failed,
                "finishedTime": Time(expel.now),
                "conditions": merge_conditions(&expel.conditions, conditions)
                    .unwrap_or_else(|| expel.conditions.clone()),
            },
        }));
        let api: Api<Sandbox> = Api::namespaced(self.hot.clone(), &expel.sandbox.namespace);
        self.write(api.patch_status(&expel.sandbox.name, &patch_params(), &patch))
            .await?;
        self.metrics.count_end(end::NOT_ASSIGNED);
        self.warn(&expel.sandbox, "Sandbox", end::NOT_ASSIGNED, message);
        if let Some(node) = &node {
            let message = format!(
                "it published Sandbox {}/{} on pod {name}, {why}; it gets no sandboxes until its label {AGENT_READY_LABEL} is removed",
                expel.sandbox.namespace, expel.sandbox.name
            );
            let about = node.identity.object_id();
            self.warn(&about, "Node", NODE_DISTRUSTED, message);
        }
        Ok(ExpelOutcome::Ended(node.map(Box::new)))
    }

    fn warn(
        &self,
        about: &pilotlight_common::stream::ObjectId,
        kind: &'static str,
        reason: &str,
        message: String,
    ) {
        let event = EventNote {
            kind,
            warning: true,
            reason: reason.to_owned(),
            message,
        };
        self.events.record(about.clone(), event);
    }

    /// Labels a node as one that is not to be believed; none where it is gone.
    async fn distrust(&self, node: &str) -> Result<Option<NodeView>, WriteError> {
        let patch = Patch::Merge(
            json!({ "metadata": { "labels": { AGENT_READY_LABEL: AGENT_DISTRUSTED } } }),
        );
        let api: Api<Node> = Api::all(self.hot.clone());
        let written = self
            .write(api.patch_metadata(node, &patch_params(), &patch))
            .await;
        match written {
            Ok(node) => Ok(Some(NodeView::from(node))),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
