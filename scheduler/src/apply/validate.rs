//! Pods that show whether a runtime works, and what is written about it.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch};
use pilotlight_common::kinds::{RuntimeEnvironment, RuntimeEnvironmentStatus};
use pilotlight_common::names::{OwnerKind, SANDBOX_POD_LABEL};
use pilotlight_common::stream::ObjectId;
use serde_json::json;

use super::removal::gone_is_fine;
use super::warm_pods::post_params;
use super::{Applier, WriteError, delete_params, patch_params};
use crate::action::{Action, Done, EventNote, Outcome, Validate};
use crate::pod::{Overcommit, PodPlan, pod};
use crate::view::Key;

/// The pod of a validation: a sandbox's, but for the Service, which is not to find it.
fn validation_pod(trial: &Validate, overcommit: Overcommit) -> Pod {
    let plan = PodPlan {
        key: &trial.pod,
        owner_kind: OwnerKind::RuntimeEnvironment,
        owner: &trial.runtime,
        pool: None,
        preload: None,
        template: &trial.template,
        shape: &trial.shape,
        nodes: &[],
    };
    let mut pod = pod(&plan, overcommit);
    if let Some(labels) = &mut pod.metadata.labels {
        labels.remove(SANDBOX_POD_LABEL);
    }
    pod
}

impl Applier {
    /// Carries out what is about a runtime; nothing else.
    pub(super) async fn carry_out_for_runtime(&self, action: Action) -> Option<Done> {
        match action {
            Action::Validate(trial) => {
                let outcome = self.validate(&trial).await;
                Some(Done::Trial {
                    runtime: Key::from(&trial.runtime),
                    pod: trial.pod,
                    outcome: self.count("validate", &outcome),
                })
            }
            Action::RemoveTrial { pod } => {
                let outcome = self.remove_trial(&pod).await;
                Some(Done::Pod {
                    key: Key::from(&pod),
                    outcome: self.count("remove_trial", &outcome),
                })
            }
            Action::RuntimeStatus {
                runtime,
                status,
                event,
            } => {
                let outcome = self.runtime_status(&runtime, &status, event).await;
                Some(Done::Runtime {
                    key: Key::from(&runtime),
                    outcome: self.count("runtime_status", &outcome),
                })
            }
            _ => None,
        }
    }

    /// Creates a validation pod; one that is there already is the same one, or on its way out.
    async fn validate(&self, trial: &Validate) -> Result<Outcome, WriteError> {
        let api: Api<Pod> = Api::namespaced(self.cold.clone(), &trial.pod.namespace);
        let wanted = validation_pod(trial, self.settings.overcommit);
        match self.write(api.create(&post_params(), &wanted)).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if error.code() == Some(409) => Ok(Outcome::Done),
            Err(error) => {
                if error
                    .code()
                    .is_some_and(|code| (400..500).contains(&code) && code != 429)
                {
                    let event = EventNote {
                        kind: "RuntimeEnvironment",
                        warning: true,
                        reason: "PodCreationFailed".into(),
                        message: format!("the validation pod was refused: {error}")
                            .chars()
                            .take(1000)
                            .collect(),
                    };
                    self.events.record(trial.runtime.clone(), event);
                    // Nothing that the same request would not meet again: it waits for the next attempt.
                    return Ok(Outcome::Stale);
                }
                Err(error)
            }
        }
    }

    /// Deletes a validation pod.
    async fn remove_trial(&self, pod: &ObjectId) -> Result<Outcome, WriteError> {
        let api: Api<Pod> = Api::namespaced(self.cold.clone(), &pod.namespace);
        gone_is_fine(
            self.write(api.delete(&pod.name, &delete_params(&pod.uid)))
                .await
                .map(|_| ()),
        )?;
        Ok(Outcome::Done)
    }

    /// Writes what is known of a runtime; what is not known is taken out.
    async fn runtime_status(
        &self,
        runtime: &ObjectId,
        status: &RuntimeEnvironmentStatus,
        event: Option<EventNote>,
    ) -> Result<Outcome, WriteError> {
        let RuntimeEnvironmentStatus {
            available,
            last_validated,
            image_hash,
            conditions,
        } = status;
        let patch = Patch::Merge(json!({
            "metadata": { "uid": runtime.uid },
            "status": {
                "available": available,
                "lastValidated": last_validated,
                "imageHash": image_hash,
                "conditions": conditions,
            },
        }));
        let api: Api<RuntimeEnvironment> = Api::all(self.cold.clone());
        self.write(api.patch_status(&runtime.name, &patch_params(), &patch))
            .await?;
        if let Some(event) = event {
            self.events.record(runtime.clone(), event);
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use pilotlight_common::kinds::{RuntimeEnvironment, RuntimeEnvironmentSpec};
    use pilotlight_common::resolve::{Defaults, image_hash, resolve_runtime};

    use super::*;
    use crate::view::{PodOwner, PodView};

    #[test]
    fn a_validation_pod_is_its_runtimes_own_and_shows_its_image() {
        let runtime = RuntimeEnvironment::new(
            "python",
            RuntimeEnvironmentSpec {
                image: "image".into(),
                command: Some(vec!["sleep".into()]),
                language: "python".into(),
                ..RuntimeEnvironmentSpec::default()
            },
        );
        let template = resolve_runtime("system", &runtime, &Defaults::default()).unwrap();
        let trial = Validate {
            runtime: ObjectId {
                namespace: String::new(),
                name: "python".into(),
                uid: "u".into(),
            },
            pod: Key {
                namespace: "system".into(),
                name: "validate-python-0".into(),
            },
            shape: template.shape(),
            template,
        };
        let overcommit = Overcommit {
            cpu: 1.0,
            memory: 1.0,
        };
        let pod = validation_pod(&trial, overcommit);
        let labels = pod.metadata.labels.as_ref().unwrap();
        assert!(!labels.contains_key(SANDBOX_POD_LABEL));
        let spec = pod.spec.as_ref().unwrap();
        assert!(spec.readiness_gates.is_some(), "ready is meant in full");
        let view = PodView::from(pod);
        assert_eq!(view.owner, PodOwner::Runtime("u".into()));
        assert_eq!(view.identity.key, trial.pod);
        assert!(view.managed);
        assert_eq!(
            view.image_hash,
            Some(image_hash("image", &["sleep".to_owned()]))
        );
    }
}
