//! Has the API server trust the webhook: its certificate authority stands in the CRD, and is put back whenever somebody takes it out, such as
//! an upgrade that applies the CRD anew. Every replica does so; what they write is the same. Started by [`super::run()`].

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use pilotlight_common::agents::CRD_NAME;
use pilotlight_common::names::AGENTS_MANAGER;
use serde_json::json;

/// Longest a write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a write that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps the CRD trusting `authority`, a certificate in PEM. Never returns.
pub async fn keep(client: Client, authority: String) {
    let wanted = ByteString(authority.clone().into_bytes());
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("metadata.name={CRD_NAME}"));
    let mut events = watcher(api.clone(), config)
        .default_backoff()
        .applied_objects()
        .boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(crd) => {
                while !trusts(&crd, &authority) {
                    let name = crd.name_any();
                    let patch = json!({ "spec": { "conversion": { "webhook": { "clientConfig": { "caBundle": wanted } } } } });
                    let params = PatchParams {
                        field_manager: Some(AGENTS_MANAGER.to_owned()),
                        ..PatchParams::default()
                    };
                    let patch = Patch::Merge(patch);
                    let write = api.patch_metadata(&name, &params, &patch);
                    match tokio::time::timeout(WRITE_TIMEOUT, write).await {
                        Ok(Ok(_)) => {
                            tracing::info!(name, "the API server trusts the webhook");
                            break;
                        }
                        other => {
                            tracing::warn!(
                                name,
                                ?other,
                                "the API server could not be told to trust the webhook"
                            );
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the CRD cannot be watched"),
        }
    }
}

fn trusts(crd: &CustomResourceDefinition, authority: &str) -> bool {
    let conversion = crd.spec.conversion.as_ref();
    let webhook = conversion.and_then(|conversion| conversion.webhook.as_ref());
    let Some(config) = webhook.and_then(|webhook| webhook.client_config.as_ref()) else {
        // It is not converted by a webhook, so it is not ours.
        return true;
    };
    let bundle = config.ca_bundle.as_ref();
    bundle.is_some_and(|bundle| bundle.0 == authority.as_bytes())
}
