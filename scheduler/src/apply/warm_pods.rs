//! Making warm pods.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use pilotlight_common::kinds::{PoolRef, WarmPod, WarmPodSpec};
use pilotlight_common::names::{
    MANAGED_BY, MANAGED_BY_LABEL, OwnerKind, SANDBOX_POD_LABEL, SCHEDULER_MANAGER, SUBDOMAIN,
};
use pilotlight_common::resolve::{PodTemplate, Preload};
use pilotlight_common::stream::ObjectId;

use super::{Applier, WriteError};
use crate::action::{CreateWarmPod, EventNote, Outcome};
use crate::pod::{PodPlan, labels, pod};
use crate::view::Key;

/// How long what a namespace needs is taken to exist after it was last looked up.
const SERVICE_TRUST: Duration = Duration::from_mins(10);

impl Applier {
    /// Creates the WarmPod, then its pod, which it owns. A crash in between leaves a WarmPod without a pod, which
    /// the sweep finds.
    pub(super) async fn create_warm_pod(
        &self,
        create: &CreateWarmPod,
    ) -> Result<Outcome, WriteError> {
        let namespace = &create.key.namespace;
        self.prepare_namespace(namespace).await?;
        let warm_pod = WarmPod {
            metadata: ObjectMeta {
                name: Some(create.key.name.clone()),
                namespace: Some(namespace.clone()),
                labels: Some(labels(Some(&create.pool), &create.shape)),
                ..ObjectMeta::default()
            },
            spec: WarmPodSpec {
                pool_ref: PoolRef {
                    name: create.pool.clone(),
                    namespace: Some(namespace.clone()),
                },
                shape: Some(create.shape.clone()),
                preload: create.preload.as_ref().map(|p| p.hash().to_owned()),
                creation_timestamp: Some(Time(Timestamp::now())),
                last_heartbeat: None,
            },
            status: None,
        };
        let api: Api<WarmPod> = Api::namespaced(self.cold.clone(), namespace);
        let created = self.write(api.create(&post_params(), &warm_pod)).await?;
        let id = create.key.with_uid(&created.uid().unwrap_or_default());
        let preload = create.preload.as_deref();
        self.create_pod(&id, &create.pool, &create.template, &create.shape, preload)
            .await
    }

    /// Creates the pod of a WarmPod; one that is there already is the same one.
    pub(super) async fn create_pod(
        &self,
        warm_pod: &ObjectId,
        pool: &str,
        template: &PodTemplate,
        shape: &str,
        preload: Option<&Preload>,
    ) -> Result<Outcome, WriteError> {
        let api: Api<Pod> = Api::namespaced(self.cold.clone(), &warm_pod.namespace);
        let plan = PodPlan {
            key: &Key::from(warm_pod),
            owner_kind: OwnerKind::WarmPod,
            owner: warm_pod,
            pool: Some(pool),
            template,
            shape,
            preload,
            nodes: &[],
        };
        let wanted = pod(&plan, self.settings.overcommit);
        match self.write(api.create(&post_params(), &wanted)).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if error.code() == Some(409) => Ok(Outcome::Done),
            Err(error) => {
                // A quota, a policy: somebody has to do something about it.
                if error
                    .code()
                    .is_some_and(|code| (400..500).contains(&code) && code != 429)
                {
                    let event = EventNote {
                        kind: "WarmPod",
                        warning: true,
                        reason: "PodCreationFailed".into(),
                        message: format!("the pod was refused: {error}")
                            .chars()
                            .take(1000)
                            .collect(),
                    };
                    self.events.record(warm_pod.clone(), event);
                }
                Err(error)
            }
        }
    }

    /// What a namespace needs before its first sandbox pod: the headless Service that gives its sandboxes their names, and where they are
    /// kept to their rules by NetworkPolicies, the one that denies everything.
    pub(super) async fn prepare_namespace(&self, namespace: &str) -> Result<(), WriteError> {
        if self
            .services
            .lock()
            .await
            .get(namespace)
            .is_some_and(|seen| seen.elapsed() < SERVICE_TRUST)
        {
            return Ok(());
        }
        let api: Api<Service> = Api::namespaced(self.cold.clone(), namespace);
        let service = Service {
            metadata: ObjectMeta {
                name: Some(SUBDOMAIN.into()),
                namespace: Some(namespace.to_owned()),
                labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(ServiceSpec {
                cluster_ip: Some("None".into()),
                selector: Some([(SANDBOX_POD_LABEL.to_owned(), "true".to_owned())].into()),
                ..ServiceSpec::default()
            }),
            status: None,
        };
        if self.write(api.get_metadata_opt(SUBDOMAIN)).await?.is_none() {
            match self.write(api.create(&post_params(), &service)).await {
                Ok(_) => {}
                Err(error) if error.code() == Some(409) => {}
                Err(error) => return Err(error),
            }
        }
        if self.settings.networks_by_policy {
            self.ensure_denied(namespace).await?;
        }
        self.services
            .lock()
            .await
            .insert(namespace.to_owned(), Instant::now());
        Ok(())
    }
}

pub(super) fn post_params() -> PostParams {
    PostParams {
        field_manager: Some(SCHEDULER_MANAGER.to_owned()),
        ..PostParams::default()
    }
}
