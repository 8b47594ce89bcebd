//! The CRD with both versions. Called by the generator of the chart's files and by tests.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, ServiceReference, WebhookClientConfig,
    WebhookConversion,
};
use kube::CustomResourceExt;
use kube::core::crd::{MergeError, merge_crds};
use serde_json::{Map, Value, json};

use super::{v1alpha1, v1beta1};

/// The CRD, converted by the Service `service` in `namespace`. Whoever serves it puts its certificate authority in.
pub fn crd(namespace: &str, service: &str) -> Result<CustomResourceDefinition, CrdError> {
    let both = vec![v1beta1::Sandbox::crd(), v1alpha1::Sandbox::crd()];
    let crd = merge_crds(both, "v1beta1")?;
    let mut value = serde_json::to_value(crd)?;
    if let Some(versions) = value
        .pointer_mut("/spec/versions")
        .and_then(Value::as_array_mut)
    {
        for version in versions {
            for path in ["podTemplate", "volumeClaimTemplates/items"] {
                let path = format!(
                    "/schema/openAPIV3Schema/properties/spec/properties/{path}/properties/spec"
                );
                if let Some(Value::Object(schema)) = version.pointer_mut(&path) {
                    slim(schema);
                }
            }
        }
    }
    let mut crd: CustomResourceDefinition = serde_json::from_value(value)?;
    crd.spec.conversion = Some(CustomResourceConversion {
        strategy: "Webhook".to_owned(),
        webhook: Some(WebhookConversion {
            conversion_review_versions: vec!["v1".to_owned()],
            client_config: Some(WebhookClientConfig {
                service: Some(ServiceReference {
                    namespace: namespace.to_owned(),
                    name: service.to_owned(),
                    path: Some("/convert".to_owned()),
                    port: Some(443),
                }),
                ..WebhookClientConfig::default()
            }),
        }),
    });
    Ok(crd)
}

/// Why there is no CRD: a mistake in the types.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// The versions do not fit.
    #[error("the versions do not fit: {0}")]
    Merge(#[from] MergeError),
    /// What was generated is no CRD.
    #[error("what was generated is no CRD: {0}")]
    Shape(#[from] serde_json::Error),
}

/// Kubernetes' own types without their texts, which would make the CRD larger than an annotation may be, and with the numbers that the API
/// server takes for quantities and ports.
fn slim(schema: &mut Map<String, Value>) {
    let text = schema.remove("description");
    let text = text.as_ref().and_then(Value::as_str).unwrap_or_default();
    if text.starts_with("Quantity is a fixed-point") || text.starts_with("IntOrString is a type") {
        schema.remove("type");
        schema.remove("format");
        schema.insert(
            "anyOf".to_owned(),
            json!([{ "type": "integer" }, { "type": "string" }]),
        );
        schema.insert("x-kubernetes-int-or-string".to_owned(), true.into());
    }
    if let Some(Value::Object(fields)) = schema.get_mut("properties") {
        for field in fields.values_mut().filter_map(Value::as_object_mut) {
            slim(field);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(Value::Object(inner)) = schema.get_mut(key) {
            slim(inner);
        }
    }
}
