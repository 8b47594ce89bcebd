//! Making the pod of one sandbox, with its persistent volume where it has one, and growing that volume.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use kube::api::{Api, Patch};
use pilotlight_common::kinds::{GROUP, VERSION};
use pilotlight_common::names::{
    MANAGED_BY, MANAGED_BY_LABEL, OwnerKind, SANDBOX_ANNOTATION, volume_claim,
};
use pilotlight_common::quantity::Bytes;
use pilotlight_common::stream::ObjectId;
use serde_json::json;

use super::warm_pods::post_params;
use super::{Applier, WriteError, patch_params};
use crate::action::{ColdOutcome, CreateColdPod, EventNote, GrowVolume, Outcome};
use crate::pod::{PodPlan, pod};
use crate::view::{PodView, Trouble};

/// Where persistent volumes come from, and what becomes of them.
#[derive(Clone, Debug, Default)]
pub struct StorageSettings {
    /// StorageClass of the claims; the cluster's default where there is none.
    pub class: Option<String>,
    /// Whether a claim stays when its sandbox is deleted. A sandbox of the same name finds it again.
    pub retain: bool,
}

/// Why a sandbox's pod was not made.
enum Obstacle {
    /// Somebody has to do something about it.
    Trouble(Trouble),
    /// Worth another try.
    Write(WriteError),
}

impl From<WriteError> for Obstacle {
    fn from(error: WriteError) -> Self {
        // A quota, a policy, an admission: the API server says what is wrong.
        match error.code() {
            Some(400 | 403 | 422) => {
                let message = format!("the API server refused it: {error}");
                Self::Trouble(Trouble::new("PodCreationFailed", &message))
            }
            _ => Self::Write(error),
        }
    }
}

impl Applier {
    /// Creates the volume's claim, then the pod, both owned by the sandbox.
    pub(super) async fn create_cold_pod(&self, create: &CreateColdPod) -> ColdOutcome {
        let result = self.try_cold_pod(create).await;
        let (word, outcome) = match result {
            Ok(pod) => ("done", ColdOutcome::Created(Box::new(pod))),
            Err(Obstacle::Trouble(trouble)) => {
                tracing::warn!(
                    sandbox = create.sandbox.name,
                    reason = trouble.reason,
                    message = trouble.message,
                    "the pod of a sandbox was not made"
                );
                ("refused", ColdOutcome::Refused(trouble))
            }
            Err(Obstacle::Write(error)) => {
                tracing::warn!(%error, sandbox = create.sandbox.name, "the pod of a sandbox was not made; trying again");
                ("failed", ColdOutcome::Failed)
            }
        };
        self.metrics.count_write("create_cold_pod", word);
        outcome
    }

    async fn try_cold_pod(&self, create: &CreateColdPod) -> Result<PodView, Obstacle> {
        let namespace = &create.key.namespace;
        self.prepare_namespace(namespace).await?;
        if let Some(size) = create.volume {
            self.ensure_claim(&create.sandbox, size).await?;
        }
        let plan = PodPlan {
            key: &create.key,
            owner_kind: OwnerKind::Sandbox,
            owner: &create.sandbox,
            pool: None,
            template: &create.template,
            shape: &create.shape,
            preload: None,
            nodes: &create.nodes,
        };
        let api: Api<Pod> = Api::namespaced(self.hot.clone(), namespace);
        let wanted = pod(&plan, self.settings.overcommit);
        let made = self.write(api.create(&post_params(), &wanted)).await?;
        Ok(PodView::from(made))
    }

    /// The claim of a sandbox's volume: made, or found where the sandbox itself or a predecessor of its name left it.
    async fn ensure_claim(&self, sandbox: &ObjectId, size: Bytes) -> Result<(), Obstacle> {
        let name = volume_claim(&sandbox.name);
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.hot.clone(), &sandbox.namespace);
        if let Some(found) = self.write(api.get_opt(&name)).await? {
            return usable(&found, sandbox, self.settings.storage.retain)
                .map_err(Obstacle::Trouble);
        }
        let owner = OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: OwnerKind::Sandbox.as_str().into(),
            name: sandbox.name.clone(),
            uid: sandbox.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(false),
        };
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(sandbox.namespace.clone()),
                labels: Some(BTreeMap::from([(
                    MANAGED_BY_LABEL.to_owned(),
                    MANAGED_BY.to_owned(),
                )])),
                // An annotation, since a name can be longer than a label's value.
                annotations: Some(BTreeMap::from([(
                    SANDBOX_ANNOTATION.to_owned(),
                    sandbox.name.clone(),
                )])),
                owner_references: (!self.settings.storage.retain).then(|| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(PersistentVolumeClaimSpec {
                access_modes: Some(vec!["ReadWriteOnce".into()]),
                storage_class_name: self.settings.storage.class.clone(),
                resources: Some(VolumeResourceRequirements {
                    limits: None,
                    requests: Some(BTreeMap::from([(
                        "storage".to_owned(),
                        Quantity(size.to_string()),
                    )])),
                }),
                ..PersistentVolumeClaimSpec::default()
            }),
            status: None,
        };
        match self.write(api.create(&post_params(), &claim)).await {
            // Made by another leader in this moment, for this sandbox; the pod shows if it was not.
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(409) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a claim ask for more.
    pub(super) async fn grow_volume(&self, grow: &GrowVolume) -> Result<Outcome, WriteError> {
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.cold.clone(), &grow.claim.namespace);
        let patch = Patch::Merge(json!({
            "metadata": { "uid": grow.claim.uid },
            "spec": { "resources": { "requests": { "storage": grow.size.to_string() } } },
        }));
        let written = self
            .write(api.patch(&grow.claim.name, &patch_params(), &patch))
            .await;
        if let Err(error) = &written
            && matches!(error.code(), Some(403 | 422))
        {
            let event = EventNote {
                kind: "Sandbox",
                warning: true,
                reason: "VolumeNotGrown".into(),
                message: format!(
                    "the volume stays as it is: {error}; a StorageClass with allowVolumeExpansion can grow volumes"
                )
                .chars()
                .take(1000)
                .collect(),
            };
            self.events.record(grow.sandbox.clone(), event);
        }
        written.map(|_| Outcome::Done)
    }
}

/// Whether a claim of the right name is this sandbox's to use.
fn usable(found: &PersistentVolumeClaim, sandbox: &ObjectId, retain: bool) -> Result<(), Trouble> {
    let name = found.name_any();
    if found.metadata.deletion_timestamp.is_some() {
        let message = format!(
            "PersistentVolumeClaim {name} of an earlier sandbox is still being deleted; the sandbox gets its own after that"
        );
        return Err(Trouble::new("VolumeTerminating", &message));
    }
    let own = found
        .owner_references()
        .iter()
        .any(|o| o.uid == sandbox.uid);
    let kept = found.owner_references().is_empty()
        && found
            .labels()
            .get(MANAGED_BY_LABEL)
            .is_some_and(|v| v == MANAGED_BY)
        && found.annotations().get(SANDBOX_ANNOTATION) == Some(&sandbox.name);
    if own || (retain && kept) {
        return Ok(());
    }
    let message = format!(
        "PersistentVolumeClaim {name} exists and is not this sandbox's; delete it, or give the sandbox another name"
    );
    Err(Trouble::new("VolumeConflict", &message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(owner: Option<&str>, sandbox: &str) -> PersistentVolumeClaim {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.name = Some(format!("data-{sandbox}"));
        claim.metadata.labels = Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into());
        claim.metadata.annotations =
            Some([(SANDBOX_ANNOTATION.to_owned(), sandbox.to_owned())].into());
        claim.metadata.owner_references = owner.map(|uid| {
            vec![OwnerReference {
                uid: uid.into(),
                ..OwnerReference::default()
            }]
        });
        claim
    }

    #[test]
    fn a_claim_is_used_by_its_sandbox_and_by_a_successor_only_where_volumes_are_kept() {
        let sandbox = ObjectId {
            namespace: "ns".into(),
            name: "one".into(),
            uid: "u".into(),
        };
        let verdict = |claim: &PersistentVolumeClaim, retain| {
            usable(claim, &sandbox, retain).map_err(|t| t.reason)
        };
        let conflict = || Err("VolumeConflict".to_owned());
        assert_eq!(verdict(&claim(Some("u"), "one"), false), Ok(()));
        assert_eq!(verdict(&claim(None, "one"), true), Ok(()));
        assert_eq!(verdict(&claim(None, "one"), false), conflict());
        assert_eq!(verdict(&claim(Some("another"), "one"), true), conflict());
        assert_eq!(verdict(&claim(None, "other"), true), conflict());
        let mut foreign = claim(None, "one");
        foreign.metadata.labels = None;
        assert_eq!(verdict(&foreign, true), conflict());
    }
}
