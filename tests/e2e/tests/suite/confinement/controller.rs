//! The token of the controller of `agents.x-k8s.io`, in the hands of somebody who wants more than the controller does.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ApiResource;
use pilotlight_bench::objects::{self, pods, sandboxes, warm_pods};
use pilotlight_common::agents::CRD_NAME;
use pilotlight_common::agents::names::{NAME_HASH_LABEL, name_hash};
use pilotlight_e2e::agents::{Agents, beta, claims, services};
use pilotlight_e2e::attempt::{Expected, How, attempt, try_all};
use pilotlight_e2e::scene::scene;
use pilotlight_e2e::token::{self, CONTROLLER};
use serde_json::{Value, json};

#[test]
#[allow(clippy::too_many_lines, reason = "tables")]
fn the_token_of_the_controller_touches_only_what_is_a_sandboxes() {
    scene("controller-token", |scene| async move {
        let agents = Agents::of(&scene).await?;
        let token = token::request(scene.environment, CONTROLLER, None).await?;
        let client = token::client(scene.environment, token).await?;
        let ns = scene.namespace.as_str();
        let system = scene.environment.installation.namespace.as_str();
        let spec = json!({ "podTemplate": { "spec": agents.idle() }, "service": true });
        agents.create("a", spec).await?;
        agents.ready("a").await?;
        scene
            .kubectl(&["create", "service", "clusterip", "other", "--tcp=80"])
            .await?;
        let others = objects::object(&pods(), "other", json!({ "spec": agents.idle() }));
        objects::create(&agents.api(&pods()), &others).await?;
        let owner = json!([{
            "apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox", "name": "a", "uid": agents.seen("a")?.metadata.uid, "controller": true,
        }]);
        let labels = json!({ NAME_HASH_LABEL: name_hash("a") });
        let mut marked = labels.clone();
        marked["app.kubernetes.io/managed-by"] = "pilotlight".into();
        let make = |labels: &Value, owner: &Value, spec: &Value| {
            How::DryCreate(
                json!({ "metadata": { "labels": labels, "ownerReferences": owner }, "spec": spec }),
            )
        };
        let idle = agents.idle();
        let headless = json!({ "clusterIP": "None", "selector": labels });
        let astray = json!({ "clusterIP": "None", "selector": { "app": "other" } });
        let address = json!({ "selector": labels, "ports": [{ "port": 80 }] });
        let claim = json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Mi" } } });
        let (none, workload) = (
            json!([]),
            json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true }]),
        );
        let label =
            |value: Value| How::Merge("", json!({ "metadata": { "labels": { "l": value } } }));
        let image = How::Strategic(
            "",
            json!({ "spec": { "containers": [{ "name": "main", "image": "other" }] } }),
        );
        let of =
            |kind: &ApiResource, what: &str, name: &str, how| attempt(what, kind, (ns, name), how);
        let crds = ApiResource::erase::<CustomResourceDefinition>(&());
        let secrets = ApiResource::erase::<Secret>(&());
        let crd = |what: &str, patch| attempt(what, &crds, ("", CRD_NAME), How::Merge("", patch));
        let passes = [
            of(&pods(), "its pod", "b", make(&labels, &owner, &idle)),
            of(
                &services(),
                "its Service",
                "b",
                make(&labels, &owner, &headless),
            ),
            of(&claims(), "its claim", "b", make(&labels, &owner, &claim)),
            of(&pods(), "a label of its pod", "a", label("v".into())),
        ];
        try_all(&client, Expected::Passes, &passes).await?;
        let refused = [
            of(&pods(), "a pod of nobody", "b", make(&labels, &none, &idle)),
            of(
                &pods(),
                "a pod of something else",
                "b",
                make(&labels, &workload, &idle),
            ),
            of(
                &pods(),
                "a pod without the label",
                "b",
                make(&json!({}), &owner, &idle),
            ),
            of(
                &pods(),
                "a pod that poses as a warm one",
                "b",
                make(&marked, &owner, &idle),
            ),
            of(
                &services(),
                "a Service of nobody",
                "b",
                make(&labels, &none, &headless),
            ),
            of(
                &services(),
                "a Service that leads elsewhere",
                "b",
                make(&labels, &owner, &astray),
            ),
            of(
                &services(),
                "a Service with an address",
                "b",
                make(&labels, &owner, &address),
            ),
            of(
                &claims(),
                "a claim of nobody",
                "b",
                make(&labels, &none, &claim),
            ),
            of(
                &pods(),
                "a label of another pod",
                "other",
                label("v".into()),
            ),
            of(&pods(), "the image of its pod", "a", image),
            of(&pods(), "another pod's end", "other", How::Delete),
            of(&services(), "another Service's end", "other", How::Delete),
            of(
                &services(),
                "the traffic of its Service",
                "a",
                How::Merge("", json!({ "spec": { "selector": { "app": "other" } } })),
            ),
            of(
                &beta(),
                "a Sandbox",
                "b",
                How::DryCreate(json!({ "spec": { "podTemplate": { "spec": idle } } })),
            ),
            of(
                &beta(),
                "the spec of a Sandbox",
                "a",
                How::Merge("", json!({ "spec": { "service": false } })),
            ),
            of(&sandboxes(), "a sandbox of the other API", "x", How::Get),
            of(&warm_pods(), "a WarmPod", "x", How::Get),
            of(
                &pods(),
                "a command in a pod",
                "a",
                How::Call("exec", json!({})),
            ),
            attempt(
                "the scheduler's CA",
                &secrets,
                (system, "pilotlight-ca"),
                How::Get,
            ),
            crd(
                "the schema",
                json!({ "spec": { "preserveUnknownFields": null, "names": { "categories": ["all"] } } }),
            ),
            crd(
                "the webhook's place",
                json!({ "spec": { "conversion": { "webhook": { "clientConfig": { "service": { "name": "other" } } } } } }),
            ),
            crd(
                "no webhook",
                json!({ "spec": { "conversion": { "strategy": "None", "webhook": null } } }),
            ),
            crd(
                "a label of the CRD",
                json!({ "metadata": { "labels": { "l": "v" } } }),
            ),
            attempt(
                "another CRD",
                &crds,
                ("", "sandboxes.llmsafespace.dev"),
                How::Get,
            ),
        ];
        try_all(&client, Expected::Refused, &refused).await?;
        let uid = agents.seen_pod("other")?.metadata.uid;
        ensure!(uid.is_some(), "it is there");
        agents.delete("a").await?;
        objects::delete(&agents.api(&pods()), "other").await?;
        agents
            .no_pod("other")
            .await
            .context("the test's own pod stays")
    });
}
