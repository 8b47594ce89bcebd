//! Taking warm pods out of service and away.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, Patch};
use pilotlight_common::kinds::{
    RETIRED_PREFIX, RuntimeEnvironment, Sandbox, WarmPod, WarmPodPhase,
};
use pilotlight_common::names::OwnerKind;
use pilotlight_common::stream::ObjectId;
use serde_json::json;

use super::{Applier, WriteError, delete_params, patch_params};
use crate::action::Outcome;

impl Applier {
    /// Takes an idle warm pod by the same set-once claim as an assignment would, then removes it: assignment
    /// and deletion cannot both happen.
    pub(super) async fn retire(
        &self,
        warm_pod: &ObjectId,
        pod_uid: Option<&str>,
        reason: &str,
    ) -> Result<Outcome, WriteError> {
        let api: Api<WarmPod> = Api::namespaced(self.cold.clone(), &warm_pod.namespace);
        let patch = Patch::Merge(json!({
            "metadata": { "uid": warm_pod.uid },
            "status": { "phase": WarmPodPhase::Terminating, "assignedTo": format!("{RETIRED_PREFIX}{reason}") },
        }));
        match self
            .write(api.patch_status(&warm_pod.name, &patch_params(), &patch))
            .await
        {
            Ok(_) => self.remove(warm_pod, pod_uid, None).await,
            // Retired before, for another reason; or a sandbox's meanwhile, as the watch will show.
            Err(error) => Err(error),
        }
    }

    /// Removes a warm pod and its pod, unless the sandbox it was given to turns out to exist.
    pub(super) async fn remove(
        &self,
        warm_pod: &ObjectId,
        pod_uid: Option<&str>,
        unless_exists: Option<&ObjectId>,
    ) -> Result<Outcome, WriteError> {
        if let Some(sandbox) = unless_exists
            && self.exists(OwnerKind::Sandbox, sandbox).await?
        {
            return Ok(Outcome::Stale);
        }
        if let Some(uid) = pod_uid {
            let api: Api<Pod> = Api::namespaced(self.cold.clone(), &warm_pod.namespace);
            gone_is_fine(
                self.write(api.delete(&warm_pod.name, &delete_params(uid)))
                    .await
                    .map(|_| ()),
            )?;
        }
        let api: Api<WarmPod> = Api::namespaced(self.cold.clone(), &warm_pod.namespace);
        gone_is_fine(
            self.write(api.delete(&warm_pod.name, &delete_params(&warm_pod.uid)))
                .await
                .map(|_| ()),
        )?;
        Ok(Outcome::Done)
    }

    /// Deletes a pod, unless the owner that is to be gone turns out to exist.
    pub(super) async fn remove_pod(
        &self,
        pod: &ObjectId,
        unless_exists: Option<&(OwnerKind, ObjectId)>,
    ) -> Result<Outcome, WriteError> {
        if let Some((kind, owner)) = unless_exists
            && self.exists(*kind, owner).await?
        {
            return Ok(Outcome::Stale);
        }
        let pods: Api<Pod> = Api::namespaced(self.cold.clone(), &pod.namespace);
        gone_is_fine(
            self.write(pods.delete(&pod.name, &delete_params(&pod.uid)))
                .await
                .map(|_| ()),
        )?;
        Ok(Outcome::Done)
    }

    /// Whether the object of this UID exists. Metadata only: one that cannot be read as its kind exists all the same.
    async fn exists(&self, kind: OwnerKind, object: &ObjectId) -> Result<bool, WriteError> {
        let (namespace, name) = (&object.namespace, &object.name);
        let found = match kind {
            OwnerKind::WarmPod => {
                let api: Api<WarmPod> = Api::namespaced(self.cold.clone(), namespace);
                self.write(api.get_metadata_opt(name))
                    .await?
                    .map(|o| o.uid())
            }
            OwnerKind::Sandbox => {
                let api: Api<Sandbox> = Api::namespaced(self.cold.clone(), namespace);
                self.write(api.get_metadata_opt(name))
                    .await?
                    .map(|o| o.uid())
            }
            OwnerKind::RuntimeEnvironment => {
                let api: Api<RuntimeEnvironment> = Api::all(self.cold.clone());
                self.write(api.get_metadata_opt(name))
                    .await?
                    .map(|o| o.uid())
            }
        };
        Ok(found.flatten().as_ref() == Some(&object.uid))
    }
}

impl Applier {
    /// Deletes a sandbox that is over. (A final phase is never left, so the UID alone says that it is the right one.)
    pub(super) async fn delete_sandbox(&self, sandbox: &ObjectId) -> Result<Outcome, WriteError> {
        let api: Api<Sandbox> = Api::namespaced(self.cold.clone(), &sandbox.namespace);
        let deleted = self
            .write(api.delete(&sandbox.name, &delete_params(&sandbox.uid)))
            .await;
        gone_is_fine(deleted.map(|_| ()))?;
        Ok(Outcome::Done)
    }
}

/// Not found, or a successor of the same name: what was to be deleted is gone.
pub(super) fn gone_is_fine(result: Result<(), WriteError>) -> Result<(), WriteError> {
    match result {
        Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
        other => other,
    }
}
