//! Sandboxes of `agents.x-k8s.io` on a scene: made, edited, and waited for.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use pilotlight_bench::hub::Hub;
use pilotlight_bench::objects::{self, text};
use pilotlight_common::agents::{v1alpha1, v1beta1};
use serde_json::{Value, json};

use crate::environment::PATIENCE;
use crate::scene::Scene;
use crate::state::condition;

/// The stored version.
pub fn beta() -> ApiResource {
    ApiResource::erase::<v1beta1::Sandbox>(&())
}

/// The deprecated version.
pub fn alpha() -> ApiResource {
    ApiResource::erase::<v1alpha1::Sandbox>(&())
}

/// Claims of volumes.
pub fn claims() -> ApiResource {
    ApiResource::erase::<PersistentVolumeClaim>(&())
}

/// Services.
pub fn services() -> ApiResource {
    ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&())
}

/// The Sandboxes of a scene.
pub struct Agents {
    /// The scene.
    pub scene: Arc<Scene>,
    /// Their watch.
    pub hub: Hub,
    /// The watch of everything's pods.
    pub pods: Hub,
}

impl Agents {
    /// Begins to watch.
    pub async fn of(scene: &Arc<Scene>) -> Result<Self> {
        Ok(Self {
            hub: scene.watch(&beta()).await?,
            pods: scene.watch(&objects::pods()).await?,
            scene: Arc::clone(scene),
        })
    }

    /// One version's objects.
    pub fn api(&self, version: &ApiResource) -> Api<DynamicObject> {
        objects::api(self.scene.client(), &self.scene.namespace, version)
    }

    /// A pod that the tests' image can run, confined; `command` is python.
    pub fn pod(&self, program: &str) -> Value {
        json!({
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "main",
                "image": self.scene.environment.installation.python_image,
                "command": ["/usr/bin/tini", "--", "python3", "-c", program],
                "resources": { "limits": { "cpu": "100m", "memory": "64Mi" } },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        })
    }

    /// One that stays.
    pub fn idle(&self) -> Value {
        self.pod("import signal; signal.pause()")
    }

    /// Creates a Sandbox of the stored version with this spec.
    pub async fn create(&self, name: &str, spec: Value) -> Result<DynamicObject> {
        let object = objects::object(&beta(), name, json!({ "spec": spec }));
        objects::create(&self.api(&beta()), &object).await
    }

    /// Changes it by a merge patch, through one version.
    pub async fn edit(
        &self,
        version: &ApiResource,
        name: &str,
        patch: Value,
    ) -> Result<DynamicObject, kube::Error> {
        let api = self.api(version);
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
    }

    /// As it was seen last.
    pub fn seen(&self, name: &str) -> Result<DynamicObject> {
        let key = (self.scene.namespace.clone(), name.to_owned());
        let seen = self.hub.objects().get(&key).cloned();
        seen.with_context(|| format!("no Sandbox {name}"))
    }

    /// Its pod as it was seen last.
    pub fn seen_pod(&self, name: &str) -> Result<DynamicObject> {
        let key = (self.scene.namespace.clone(), name.to_owned());
        let seen = self.pods.objects().get(&key).cloned();
        seen.with_context(|| format!("no pod {name}"))
    }

    /// Waits until a condition says this: its status, reason and message, or the beginning of them.
    pub async fn says(&self, name: &str, type_: &'static str, words: &str) -> Result<()> {
        let wanted = words.to_owned();
        let result = self
            .hub
            .expect(&self.scene.namespace, name, move |sandbox| {
                sandbox.is_some_and(|sandbox| said(sandbox, type_).starts_with(&wanted))
            })
            .within(PATIENCE)
            .await;
        let now = || match self.seen(name) {
            Ok(sandbox) => said(&sandbox, type_),
            Err(error) => error.to_string(),
        };
        result.with_context(|| format!("{name}: {type_} is not {words:?} but {:?}", now()))?;
        Ok(())
    }

    /// Waits until it can be used.
    pub async fn ready(&self, name: &str) -> Result<()> {
        self.says(name, "Ready", "True DependenciesReady").await
    }

    /// Waits until its pod is another than this one, and there.
    pub async fn another_pod(&self, name: &str, than: &str) -> Result<()> {
        let than = than.to_owned();
        self.pods
            .expect(&self.scene.namespace, name, move |pod| {
                pod.is_some_and(|pod| pod.metadata.uid.as_ref() != Some(&than))
            })
            .within(PATIENCE)
            .await
            .with_context(|| format!("{name} got no other pod"))?;
        Ok(())
    }

    /// Waits until there is no pod of this name.
    pub async fn no_pod(&self, name: &str) -> Result<()> {
        self.pods
            .expect(&self.scene.namespace, name, |pod| pod.is_none())
            .within(PATIENCE)
            .await
            .with_context(|| format!("pod {name} stays"))?;
        Ok(())
    }

    /// UID of its pod.
    pub fn pod_uid(&self, name: &str) -> Result<String> {
        let pod = self.seen_pod(name)?;
        pod.metadata.uid.context("a pod has a UID")
    }

    /// Runs a command in its pod.
    pub async fn exec(&self, name: &str, command: &[&str]) -> Result<String> {
        let mut arguments = vec!["exec", name, "--"];
        arguments.extend(command);
        Ok(self.scene.kubectl(&arguments).await?.out)
    }

    /// Deletes it, and waits until its pod is gone with it.
    pub async fn delete(&self, name: &str) -> Result<()> {
        objects::delete(&self.api(&beta()), name).await?;
        self.no_pod(name).await
    }

    /// Deletes all, and waits until their pods are gone.
    pub async fn end(&self) -> Result<()> {
        let names: Vec<String> = self
            .hub
            .objects()
            .into_keys()
            .map(|(_, name)| name)
            .collect();
        for name in &names {
            self.api(&beta())
                .delete(name, &kube::api::DeleteParams::default())
                .await?;
        }
        for name in &names {
            self.no_pod(name).await?;
        }
        let left = self.pods.objects().len();
        ensure!(left == 0, "{left} pods are left behind");
        Ok(())
    }
}

/// Status, reason and message of a condition; nothing where there is none.
pub fn said(sandbox: &DynamicObject, type_: &str) -> String {
    condition(sandbox, type_).map_or(String::new(), |condition| {
        let word = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", word("status"), word("reason"), word("message"))
    })
}

/// A text of the status.
pub fn status<'a>(sandbox: &'a DynamicObject, field: &str) -> Option<&'a str> {
    text(sandbox, &format!("/status/{field}"))
}
