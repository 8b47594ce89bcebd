//! The objects that measurements and tests create, as the JSON a user would write.

use anyhow::{Context, Result};
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use pilotlight_common::kinds::{GROUP, VERSION};
use serde_json::{Value, json};

/// Field manager of what measurements and tests write.
pub const MANAGER: &str = "pilotlight-test";
/// CPU limit of a sandbox where there are to be many: 140 of them fit beside all else that requests CPU on two nodes of
/// two cores. The start of a container takes two seconds with so little, and ten with half of it.
pub const CPU: &str = "25m";
/// Memory limit of a sandbox here: `sleep` needs little, `python3` some 15 MiB.
pub const MEMORY: &str = "48Mi";

/// The limits of one sandbox.
pub fn limits(cpu: &str) -> Value {
    json!({ "cpu": cpu, "memory": MEMORY })
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// Sandboxes, as JSON.
pub fn sandboxes() -> ApiResource {
    resource(GROUP, VERSION, "Sandbox", "sandboxes")
}

/// WarmPods, as JSON.
pub fn warm_pods() -> ApiResource {
    resource(GROUP, VERSION, "WarmPod", "warmpods")
}

/// WarmPools, as JSON.
pub fn warm_pools() -> ApiResource {
    resource(GROUP, VERSION, "WarmPool", "warmpools")
}

/// SandboxProfiles, as JSON.
pub fn profiles() -> ApiResource {
    resource(GROUP, VERSION, "SandboxProfile", "sandboxprofiles")
}

/// RuntimeEnvironments, as JSON.
pub fn runtimes() -> ApiResource {
    resource(GROUP, VERSION, "RuntimeEnvironment", "runtimeenvironments")
}

/// Pods, as JSON.
pub fn pods() -> ApiResource {
    resource("", "v1", "Pod", "pods")
}

/// Claims of persistent volumes, as JSON.
pub fn volume_claims() -> ApiResource {
    resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
}

/// Events, as JSON.
pub fn events() -> ApiResource {
    resource("", "v1", "Event", "events")
}

/// A namespaced kind.
pub fn api(client: &Client, namespace: &str, kind: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, kind)
}

/// An object from the JSON a user would write, without apiVersion and kind.
pub fn object(kind: &ApiResource, name: &str, content: Value) -> DynamicObject {
    DynamicObject::new(name, kind).data(content)
}

/// A Sandbox of `runtime` with this CPU limit and little memory.
pub fn sandbox(name: &str, runtime: &str, cpu: &str) -> DynamicObject {
    let spec = json!({ "runtime": runtime, "timeout": 3600, "resources": limits(cpu) });
    object(&sandboxes(), name, json!({ "spec": spec }))
}

/// A WarmPool of such sandboxes; `max` 0 is no bound.
pub fn warm_pool(name: &str, runtime: &str, min: u32, max: u32, cpu: &str) -> DynamicObject {
    let spec =
        json!({ "runtime": runtime, "minSize": min, "maxSize": max, "resources": limits(cpu) });
    object(&warm_pools(), name, json!({ "spec": spec }))
}

/// A RuntimeEnvironment whose sandboxes sleep.
pub fn runtime(name: &str, image: &str) -> DynamicObject {
    let spec = json!({ "language": "python", "image": image, "command": ["sleep", "infinity"] });
    object(&runtimes(), name, json!({ "spec": spec }))
}

/// Creates or changes an object so that it says what `object` says.
pub async fn apply(api: &Api<DynamicObject>, object: &DynamicObject) -> Result<()> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    api.patch(
        name,
        &PatchParams::apply(MANAGER).force(),
        &Patch::Apply(object),
    )
    .await
    .with_context(|| format!("cannot apply {name}"))?;
    Ok(())
}

/// Creates an object, with this program's field manager.
pub async fn create(api: &Api<DynamicObject>, object: &DynamicObject) -> Result<DynamicObject> {
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    Ok(api.create(&params, object).await?)
}

/// Deletes an object; one that is not there is fine.
pub async fn delete(api: &Api<DynamicObject>, name: &str) -> Result<()> {
    match api.delete(name, &DeleteParams::default()).await {
        Err(error) if !matches!(&error, kube::Error::Api(status) if status.code == 404) => {
            Err(error).with_context(|| format!("cannot delete {name}"))
        }
        _ => Ok(()),
    }
}

/// Creates a namespace, unless it is there.
pub async fn namespace(client: &Client, name: &str) -> Result<()> {
    let kind = resource("", "v1", "Namespace", "namespaces");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    apply(&api, &DynamicObject::new(name, &kind)).await
}

/// Deletes a namespace with all in it, without waiting for the end of that.
pub async fn delete_namespace(client: &Client, name: &str) -> Result<()> {
    let kind = resource("", "v1", "Namespace", "namespaces");
    delete(&Api::all_with(client.clone(), &kind), name).await
}

/// Text at a path such as `/status/podName`.
pub fn text<'a>(object: &'a DynamicObject, path: &str) -> Option<&'a str> {
    object.data.pointer(path).and_then(Value::as_str)
}

/// Whether a Sandbox was published.
pub fn is_running(object: &DynamicObject) -> bool {
    text(object, "/status/phase") == Some("Running")
}

/// Whether a WarmPod can be assigned, as far as its object tells.
pub fn is_ready(object: &DynamicObject) -> bool {
    text(object, "/status/phase") == Some("Ready")
        && text(object, "/status/assignedTo").is_none()
        && object.metadata.deletion_timestamp.is_none()
}

/// Whether a pod is ready and stays.
pub fn is_pod_ready(pod: &DynamicObject) -> bool {
    let conditions = pod.data.pointer("/status/conditions");
    pod.metadata.deletion_timestamp.is_none()
        && conditions.and_then(Value::as_array).is_some_and(|all| {
            all.iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True")
        })
}
