//! What a test puts onto its scene, and what it waits to see there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use pilotlight_bench::hub::Hub;
use pilotlight_bench::objects::{self, text};
use serde_json::{Map, Value, json};

use crate::environment::{PATIENCE, RUNTIME};
use crate::scene::Scene;
use crate::state::{condition, not_ready_reason};

/// Label of a RuntimeEnvironment with the namespace of its scene: it is cluster-wide, and goes with the scene.
const SCENE_LABEL: &str = "e2e.llmsafespace.dev/scene";

/// Far above what an assignment takes, far below any retry or resync.
const SOON: Duration = Duration::from_secs(3);

/// What a command said.
#[derive(Clone, Debug)]
pub struct Said {
    /// On its output.
    pub out: String,
    /// On its error output, where warnings are.
    pub err: String,
}

/// Puts each of `fields` into the object's spec, in the place of what is there; null takes a field out.
fn overlay(object: &mut DynamicObject, fields: Value) {
    let spec = object.data["spec"].as_object_mut();
    let (Some(spec), Value::Object(fields)) = (spec, fields) else {
        return;
    };
    for (name, value) in fields {
        if value.is_null() {
            spec.remove(&name);
        } else {
            spec.insert(name, value);
        }
    }
}

/// Whether the Ready condition is False for this reason.
pub fn refused_for(object: Option<&DynamicObject>, reason: &str) -> bool {
    object.is_some_and(|o| not_ready_reason(o) == Some(reason))
}

impl Scene {
    /// From now on the API server refuses every pod of this namespace that Pod Security `restricted` does not let
    /// through, so that a test that sees its pods run shows as much of each of them.
    pub async fn restricted(&self) -> Result<()> {
        let kind = ApiResource::erase::<Namespace>(&());
        let api: Api<DynamicObject> = Api::all_with(self.client().clone(), &kind);
        let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
        let patch = json!({ "metadata": { "labels": labels } });
        api.patch(
            &self.namespace,
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await?;
        Ok(())
    }

    /// A Sandbox of the tests' runtime and the scene's limits, with these fields of its spec instead; null takes one out.
    pub fn sandbox(&self, name: &str, fields: Value) -> DynamicObject {
        let mut sandbox = objects::sandbox(name, RUNTIME, self.cpu);
        overlay(&mut sandbox, fields);
        sandbox
    }

    /// Creates such a Sandbox.
    pub async fn ask(&self, name: &str, fields: Value) -> Result<DynamicObject> {
        self.create_with(self.client(), &self.sandbox(name, fields))
            .await
    }

    /// Creates or changes a WarmPool of the tests' runtime and the scene's limits, with these fields of its spec instead.
    pub async fn keep(&self, name: &str, fields: Value) -> Result<()> {
        let mut pool = objects::warm_pool(name, RUNTIME, 1, 0, self.cpu);
        overlay(&mut pool, fields);
        objects::apply(&self.pool_api(), &pool).await
    }

    /// Creates or changes a SandboxProfile for python, with these fields of its spec.
    pub async fn profile(&self, name: &str, fields: Value) -> Result<()> {
        let kind = objects::profiles();
        let mut profile = objects::object(&kind, name, json!({ "spec": { "language": "python" } }));
        overlay(&mut profile, fields);
        let api = objects::api(self.client(), &self.namespace, &kind);
        objects::apply(&api, &profile).await
    }

    /// RuntimeEnvironments of the cluster.
    pub fn runtime_api(&self) -> Api<DynamicObject> {
        Api::all_with(self.client().clone(), &objects::runtimes())
    }

    /// A RuntimeEnvironment `<namespace>-<name>` of the tests' image, with these fields of its spec instead. It goes
    /// with the scene.
    pub fn runtime_object(&self, name: &str, fields: Value) -> DynamicObject {
        let name = format!("{}-{name}", self.namespace);
        let image = &self.environment.installation.python_image;
        let mut runtime = objects::runtime(&name, image);
        overlay(&mut runtime, fields);
        runtime.metadata.labels = Some(BTreeMap::from([(
            SCENE_LABEL.to_owned(),
            self.namespace.clone(),
        )]));
        runtime
    }

    /// Creates or changes such a RuntimeEnvironment. Returns its name.
    pub async fn runtime(&self, name: &str, fields: Value) -> Result<String> {
        let runtime = self.runtime_object(name, fields);
        objects::apply(&self.runtime_api(), &runtime).await?;
        Ok(runtime.metadata.name.unwrap_or_default())
    }

    /// Removes the RuntimeEnvironments of this scene.
    pub(crate) async fn clear_runtimes(&self) -> Result<()> {
        let own = ListParams::default().labels(&format!("{SCENE_LABEL}={}", self.namespace));
        self.runtime_api()
            .delete_collection(&DeleteParams::default(), &own)
            .await?;
        Ok(())
    }

    /// A watch of another kind of this namespace.
    pub async fn watch(&self, kind: &ApiResource) -> Result<Hub> {
        Hub::open(objects::api(self.client(), &self.namespace, kind)).await
    }

    /// A Sandbox as the watch last showed it.
    pub fn seen(&self, name: &str) -> Result<DynamicObject> {
        let all = self.sandboxes.objects();
        let found = all.get(&(self.namespace.clone(), name.to_owned()));
        found.cloned().with_context(|| format!("no Sandbox {name}"))
    }

    /// A pod as the watch last showed it.
    pub fn pod(&self, name: &str) -> Result<DynamicObject> {
        let all = self.pods.objects();
        let found = all.get(&(self.namespace.clone(), name.to_owned()));
        found.cloned().with_context(|| format!("no pod {name}"))
    }

    /// Edits a Sandbox, as `kubectl patch` does.
    pub async fn edit(&self, name: &str, spec: Value) -> Result<DynamicObject, kube::Error> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.sandbox_api()
            .patch(name, &PatchParams::default(), &patch)
            .await
    }

    /// Edits a WarmPool.
    pub async fn edit_pool(&self, name: &str, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.pool_api()
            .patch(name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Waits until a Sandbox is refused for this reason, which both of its conditions say.
    pub async fn refused(&self, name: &str, reason: &'static str) -> Result<()> {
        self.waits_for(name, reason).await?;
        let sandbox = self.seen(name)?;
        let accepted = condition(&sandbox, "Accepted").cloned().unwrap_or_default();
        ensure!(
            accepted["status"] == "False" && accepted["reason"] == reason,
            "{name}: Accepted says {accepted}"
        );
        ensure!(
            accepted["message"].as_str().is_some_and(|m| m.len() > 20),
            "{name} does not say what to do: {accepted}"
        );
        Ok(())
    }

    /// Creates a Sandbox for each of these and waits until each is refused for its reason: name, fields of the spec,
    /// reason.
    pub async fn all_refused(&self, cases: Vec<(&str, Value, &'static str)>) -> Result<()> {
        let all = cases.into_iter().map(|(name, fields, reason)| async move {
            self.ask(name, fields).await?;
            self.refused(name, reason).await
        });
        try_join_all(all).await?;
        Ok(())
    }

    /// Waits until a Sandbox is over, in this phase and for this reason; at most `limit` from now.
    pub async fn ends(
        &self,
        name: &str,
        phase: &'static str,
        reason: &'static str,
        limit: Duration,
    ) -> Result<()> {
        self.sandboxes
            .expect(&self.namespace, name, move |o| {
                o.is_some_and(|o| text(o, "/status/phase") == Some(phase))
            })
            .within(limit)
            .await
            .with_context(|| format!("Sandbox {name} is not {phase}"))?;
        let said = self.seen(name)?;
        let said = not_ready_reason(&said).unwrap_or_default();
        ensure!(
            said == reason,
            "Sandbox {name} is {phase} for {said}, not {reason}"
        );
        Ok(())
    }

    /// Another sandbox is served from the warm pods as if nothing were wrong.
    pub async fn others_are_served(&self, name: &str) -> Result<()> {
        self.is_served(name, json!({})).await
    }

    /// The same of one with these fields.
    pub async fn is_served(&self, name: &str, fields: Value) -> Result<()> {
        let start = Instant::now();
        self.ask(name, fields).await?;
        self.running(name).await?;
        let took = start.elapsed();
        ensure!(took < SOON, "another sandbox took {took:?}");
        Ok(())
    }

    /// Waits until a Warning Event about an object of this namespace has this reason.
    pub async fn warned(&self, about: &str, reason: &'static str) -> Result<()> {
        let events = self.watch(&objects::events()).await?;
        let about = about.to_owned();
        let what = format!("no Warning {reason} about {about}");
        events
            .expect_all(move |all| {
                all.values().any(|e| {
                    text(e, "/involvedObject/name") == Some(&about)
                        && text(e, "/reason") == Some(reason)
                        && text(e, "/type") == Some("Warning")
                })
            })
            .within(PATIENCE)
            .await
            .context(what)?;
        Ok(())
    }

    /// Runs `kubectl` in this namespace; an error where it fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Said> {
        let mut command = self.environment.installation.kubectl();
        command.args(["-n", &self.namespace]).args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = Said {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        ensure!(
            output.status.success(),
            "kubectl {arguments:?}: {}",
            said.err
        );
        Ok(said)
    }

    /// What a python program in a sandbox's pod prints, read as JSON.
    pub async fn python_json(&self, pod: &str, program: &str) -> Result<Value> {
        let said = self.python(pod, program).await?;
        serde_json::from_str(&said).with_context(|| format!("python says {said:?}"))
    }

    /// UID and restarts of every container of the installation, by pod: equal as long as no program ended.
    pub async fn programs(&self) -> Result<Map<String, Value>> {
        let namespace = &self.environment.installation.namespace;
        let api = objects::api(self.client(), namespace, &objects::pods());
        let mut all = Map::new();
        for pod in api.list(&ListParams::default()).await?.items {
            let owned = pod.metadata.labels.as_ref();
            let component = owned.and_then(|l| l.get("app.kubernetes.io/component"));
            if !component.is_some_and(|c| c == "scheduler" || c == "node-agent") {
                continue;
            }
            let statuses = pod.data.pointer("/status/containerStatuses");
            let restarts: Vec<Value> = statuses
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .map(|status| status["restartCount"].clone())
                .collect();
            all.insert(pod.metadata.uid.unwrap_or_default(), restarts.into());
        }
        Ok(all)
    }
}
