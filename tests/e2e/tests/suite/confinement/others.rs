//! Everybody else, administrators included: nobody poses as a sandbox's pod, and nobody names the node's profiles.

use anyhow::{Context, ensure};
use kube::api::ApiResource;
use pilotlight_bench::objects::{pods, sandboxes, warm_pods};
use pilotlight_e2e::attempt::{Expected, How, attempt, try_all};
use pilotlight_e2e::scene::scene;
use pilotlight_e2e::state::condition;
use serde_json::{Value, json};

use super::{idle_on, set_up, shapes};

/// An ordinary pod of a user, with these fields of its specification besides.
fn ordinary(metadata: &Value, fields: Value) -> Value {
    let mut pod = json!({ "metadata": metadata, "spec": {
        "containers": [{ "name": "c", "image": "i" }],
    }});
    if let (Some(spec), Value::Object(fields)) = (pod["spec"].as_object_mut(), fields) {
        spec.extend(fields);
    }
    pod
}

#[test]
#[allow(clippy::too_many_lines, reason = "tables")]
fn nobody_makes_or_changes_what_assignments_rely_on() {
    scene("posing", |scene| async move {
        let (first, _) = set_up(&scene).await?;
        let ns = scene.namespace.as_str();
        let idle = idle_on(&scene, &first)?;
        let idle = idle.as_str();
        let pod = scene.pod(idle)?;
        let before = shapes(&scene, &[idle]).await?;
        let owner = json!(pod.metadata.owner_references);
        let posing = |metadata: Value| How::DryCreate(ordinary(&metadata, json!({})));
        let label = |key: &str, value: Value| {
            How::Merge("", json!({ "metadata": { "labels": { key: value } } }))
        };
        let container =
            |fields: Value| How::Strategic("", json!({ "spec": { "containers": [fields] } }));
        let prepared = condition(&pod, "llmsafespace.dev/prepared").cloned();
        let mut prepared = prepared.context("an idle pod is prepared")?;
        prepared["status"] = json!("False");
        let debug = json!({ "spec": { "ephemeralContainers": [{ "name": "d", "image": "i", "targetContainerName": "sandbox" }] } });
        let resize = json!({ "spec": { "containers": [{ "name": "sandbox", "resources": { "limits": { "cpu": "500m" } } }] } });
        let warm_pod = json!({ "spec": { "poolRef": { "name": "pool" } } });
        let of =
            |kind: &ApiResource, what: &str, name: &str, how| attempt(what, kind, (ns, name), how);
        let refused = [
            of(
                &pods(),
                "pod with all labels and an owner",
                "posing",
                posing(json!({ "labels": pod.metadata.labels, "ownerReferences": owner })),
            ),
            of(
                &pods(),
                "pod with the label that pods are found by",
                "posing",
                posing(json!({ "labels": { "app.kubernetes.io/managed-by": "pilotlight" } })),
            ),
            of(
                &pods(),
                "pod with the label of the sandboxes' names",
                "posing",
                posing(json!({ "labels": { "llmsafespace.dev/sandbox-pod": "true" } })),
            ),
            of(
                &pods(),
                "pod with an owner",
                "posing",
                posing(json!({ "ownerReferences": owner })),
            ),
            of(
                &pods(),
                "sandbox pod: label away",
                idle,
                label("app.kubernetes.io/managed-by", Value::Null),
            ),
            of(
                &pods(),
                "sandbox pod: shape",
                idle,
                label("llmsafespace.dev/shape", json!("another")),
            ),
            of(
                &pods(),
                "sandbox pod: pool",
                idle,
                label("llmsafespace.dev/pool", json!("another")),
            ),
            of(
                &pods(),
                "sandbox pod: preload script",
                idle,
                How::Merge(
                    "",
                    json!({ "metadata": { "annotations": { "llmsafespace.dev/preload-0": "x" } } }),
                ),
            ),
            of(
                &pods(),
                "sandbox pod: no owner",
                idle,
                How::Merge("", json!({ "metadata": { "ownerReferences": null } })),
            ),
            of(
                &pods(),
                "sandbox pod: image",
                idle,
                container(json!({ "name": "sandbox", "image": "another" })),
            ),
            of(
                &pods(),
                "sandbox pod: limits",
                idle,
                How::Strategic("resize", resize),
            ),
            of(
                &pods(),
                "sandbox pod: prepared",
                idle,
                How::Strategic("status", json!({ "status": { "conditions": [prepared] } })),
            ),
            of(
                &pods(),
                "sandbox pod: ephemeral container",
                idle,
                How::Strategic("ephemeralcontainers", debug),
            ),
            of(
                &warm_pods(),
                "WarmPod: create",
                "posing",
                How::Create(warm_pod),
            ),
            of(
                &warm_pods(),
                "WarmPod: Ready",
                idle,
                How::Merge("status", json!({ "status": { "phase": "Pending" } })),
            ),
            of(
                &warm_pods(),
                "WarmPod: assignedTo",
                idle,
                How::Merge("status", json!({ "status": { "assignedTo": "mine" } })),
            ),
            of(
                &warm_pods(),
                "WarmPod: heartbeat",
                idle,
                How::Merge(
                    "",
                    json!({ "spec": { "lastHeartbeat": "2036-01-01T00:00:00Z" } }),
                ),
            ),
            of(
                &warm_pods(),
                "WarmPod: shape's label",
                idle,
                label("llmsafespace.dev/shape", json!("another")),
            ),
            of(
                &sandboxes(),
                "Sandbox: Running",
                "waiting",
                How::Merge(
                    "status",
                    json!({ "status": { "phase": "Running", "podName": idle } }),
                ),
            ),
        ];
        try_all(scene.client(), Expected::Refused, &refused).await?;
        ensure!(before == shapes(&scene, &[idle]).await?, "the pod changed");

        let passes = [
            of(
                &pods(),
                "pod like any other",
                "plain",
                How::DryCreate(ordinary(&json!({}), json!({}))),
            ),
            of(
                &pods(),
                "sandbox pod: a label of one's own",
                idle,
                label("mine", json!("yes")),
            ),
            of(
                &pods(),
                "sandbox pod: an annotation of one's own",
                idle,
                How::Merge(
                    "",
                    json!({ "metadata": { "annotations": { "mine": "yes" } } }),
                ),
            ),
            of(
                &warm_pods(),
                "WarmPod: a label of one's own",
                idle,
                label("mine", json!("yes")),
            ),
            of(
                &sandboxes(),
                "Sandbox: timeout",
                "waiting",
                How::Merge("", json!({ "spec": { "timeout": 600 } })),
            ),
            of(&pods(), "sandbox pod: delete", idle, How::Delete),
        ];
        try_all(scene.client(), Expected::Passes, &passes).await?;

        let pod = scene.running("s0").await?;
        let debug = scene
            .kubectl(&["debug", &pod, "--image=i", "--target=sandbox"])
            .await;
        let said = debug.err().context("kubectl debug passed")?.to_string();
        ensure!(said.contains("kubectl exec"), "kubectl debug says {said}");
        Ok(())
    });
}

#[test]
fn no_tenant_names_a_seccomp_profile_of_the_node() {
    scene("profiles", |scene| async move {
        let ns = scene.namespace.as_str();
        let whole = |file: &str| {
            let profile = json!({ "type": "Localhost", "localhostProfile": file });
            How::DryCreate(ordinary(
                &json!({}),
                json!({ "securityContext": { "seccompProfile": profile } }),
            ))
        };
        let one = |field: &str, file: &str| {
            let profile = json!({ "type": "Localhost", "localhostProfile": file });
            let container = json!([{ "name": "x", "image": "i", "securityContext": { "seccompProfile": profile } }]);
            How::DryCreate(ordinary(&json!({}), json!({ field: container })))
        };
        let of = |what: &str, how| attempt(what, &pods(), (ns, "tenant"), how);
        let installed = "pilotlight/baseline-0123456789ab.json";
        let ours = [
            of("an installed profile", whole(installed)),
            of(
                "the same by a detour",
                whole("./pilotlight/baseline-0123456789ab.json"),
            ),
            of("the same in a container", one("containers", installed)),
            of(
                "the same in an init container",
                one("initContainers", installed),
            ),
        ];
        let others = [
            of("a profile of somebody else", whole("log.json")),
            of("the same in a container", one("containers", "log.json")),
            of(
                "the same in an init container",
                one("initContainers", "log.json"),
            ),
        ];
        // Where no sandbox is, only those of the sandboxes are reserved.
        try_all(scene.client(), Expected::Refused, &ours).await?;
        try_all(scene.client(), Expected::Passes, &others).await?;
        scene.filled_pool(1, 0).await?;
        let service = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
        let services = scene.watch(&service).await?;
        services
            .expect(ns, "sandboxes", |o| o.is_some())
            .within(pilotlight_e2e::environment::PATIENCE)
            .await?;
        try_all(scene.client(), Expected::Refused, &ours).await?;
        try_all(scene.client(), Expected::Refused, &others).await?;
        Ok(())
    });
}
