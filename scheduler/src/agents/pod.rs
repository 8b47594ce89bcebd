//! The pod and the volume claims of a Sandbox, as they are made. Called by [`super::decide`].

use pilotlight_common::agents::VolumeClaimTemplate;
use pilotlight_common::agents::names::{NAME_HASH_LABEL, name_hash};
use serde_json::{Map, Value, json};

use super::metadata;
use super::view::SandboxView;

/// Name of the claim of a template.
pub fn claim_name(sandbox: &SandboxView, template: &VolumeClaimTemplate) -> String {
    format!("{}-{}", template.metadata.name, sandbox.identity.key.name)
}

/// The pod: the template's spec, with the Sandbox's volumes in the place of those of the same names.
pub fn pod(sandbox: &SandboxView) -> Value {
    let (labels, annotations) = metadata::wanted(sandbox);
    let mut spec = sandbox.spec.pod_template.spec.clone();
    let templates = sandbox.spec.volume_claim_templates.iter().flatten();
    let claims: Vec<Value> = templates
        .map(|template| {
            json!({
                "name": template.metadata.name,
                "persistentVolumeClaim": { "claimName": claim_name(sandbox, template) },
            })
        })
        .collect();
    if !claims.is_empty() {
        let mut volumes = match spec.remove("volumes") {
            Some(Value::Array(volumes)) => volumes,
            _ => Vec::new(),
        };
        volumes.retain(|volume| claims.iter().all(|claim| claim["name"] != volume["name"]));
        volumes.extend(claims);
        spec.insert("volumes".to_owned(), Value::Array(volumes));
    }
    let mut metadata = json!({
        "name": sandbox.identity.key.name,
        "namespace": sandbox.identity.key.namespace,
        "labels": labels,
        "ownerReferences": [sandbox.owner_reference()],
    });
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
}

/// The claim of a template.
pub fn claim(sandbox: &SandboxView, template: &VolumeClaimTemplate) -> Value {
    let mut labels = template.metadata.labels.clone().unwrap_or_default();
    labels.insert(
        NAME_HASH_LABEL.to_owned(),
        name_hash(&sandbox.identity.key.name),
    );
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), claim_name(sandbox, template).into());
    metadata.insert(
        "namespace".to_owned(),
        sandbox.identity.key.namespace.clone().into(),
    );
    metadata.insert("labels".to_owned(), json!(labels));
    if let Some(annotations) = &template.metadata.annotations {
        metadata.insert("annotations".to_owned(), json!(annotations));
    }
    metadata.insert(
        "ownerReferences".to_owned(),
        json!([sandbox.owner_reference()]),
    );
    json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template.spec })
}
