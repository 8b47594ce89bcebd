//! The watches: every kind's objects, turned into views and handed to the engine.
//!
//! An object that cannot be read is named in the log and left out; it stops nothing. A watch that fails is
//! begun anew after a jittered pause.

use std::fmt::Debug;
use std::future::ready;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use pilotlight_common::kinds::{RuntimeEnvironment, Sandbox, SandboxProfile, WarmPod, WarmPool};
use pilotlight_common::names::{MANAGED_BY, MANAGED_BY_LABEL, SECCOMP_LABEL};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::input::{Change, Input};
use crate::view::{Key, NodeView, PodView, RuntimeClassView, SeccompMapView, View};

/// Runs all watches until one ends, which none should.
/// ConfigMaps are read in `namespace` alone.
pub async fn run(client: Client, namespace: String, inputs: mpsc::Sender<Input>) {
    let all = watcher::Config::default;
    let ours = || watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
    let seccomp = watcher::Config::default().labels(&format!("{SECCOMP_LABEL}=true"));
    tokio::select! {
        () = watch::<Sandbox, _, _>(Api::all(client.clone()), all(), Into::into, Input::Sandbox, inputs.clone()) => {}
        () = watch::<WarmPod, _, _>(Api::all(client.clone()), all(), Into::into, Input::WarmPod, inputs.clone()) => {}
        () = watch::<WarmPool, _, _>(Api::all(client.clone()), all(), Into::into, Input::Pool, inputs.clone()) => {}
        () = watch::<SandboxProfile, _, _>(Api::all(client.clone()), all(), Into::into, Input::Profile, inputs.clone()) => {}
        () = watch::<RuntimeEnvironment, _, _>(Api::all(client.clone()), all(), Into::into, Input::Runtime, inputs.clone()) => {}
        () = watch::<Pod, PodView, _>(Api::all(client.clone()), ours(), Into::into, Input::Pod, inputs.clone()) => {}
        () = watch::<PersistentVolumeClaim, _, _>(Api::all(client.clone()), ours(), Into::into, Input::Volume, inputs.clone()) => {}
        () = watch::<PartialObjectMeta<RuntimeClass>, RuntimeClassView, _>(Api::all(client.clone()), all(), Into::into, Input::RuntimeClass, inputs.clone()) => {}
        () = watch::<ConfigMap, SeccompMapView, _>(Api::namespaced(client.clone(), &namespace), seccomp, Into::into, Input::SeccompMap, inputs.clone()) => {}
        // Nodes change every few seconds; of their metadata alone, nothing but labels matters here.
        () = watch::<PartialObjectMeta<Node>, NodeView, _>(Api::all(client), all(), Into::into, Input::Node, inputs) => {}
    }
}

/// Watches one kind; ends when nobody takes inputs any more. Also called by [`crate::agents`].
pub(crate) async fn watch<K, V, I>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    view: fn(K) -> V,
    input: fn(Change<V>) -> I,
    inputs: mpsc::Sender<I>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    V: View + Send + 'static,
{
    // A list of pages of 500; the pages come as one `Replace`, so that what is missing from it is gone.
    let mut events: BoxStream<'_, _> = watcher(api, config).default_backoff().boxed();
    let mut listed: Option<Vec<V>> = None;
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(watcher::Event::Init) => {
                listed = Some(Vec::new());
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                if let Some(object) = readable(object) {
                    listed.get_or_insert_default().push(view(object));
                }
                continue;
            }
            Ok(watcher::Event::InitDone) => Change::Replace(listed.take().unwrap_or_default()),
            Ok(watcher::Event::Apply(object)) => match readable(object) {
                Some(object) => Change::Upsert(view(object)),
                None => continue,
            },
            Ok(watcher::Event::Delete(object)) => {
                let meta = object
                    .0
                    .as_ref()
                    .map_or_else(|invalid| &invalid.metadata, Resource::meta);
                let key = Key {
                    namespace: meta.namespace.clone().unwrap_or_default(),
                    name: meta.name.clone().unwrap_or_default(),
                };
                Change::Remove(key, meta.uid.clone().unwrap_or_default())
            }
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "watch is begun anew");
                continue;
            }
        };
        if inputs.send(input(change)).await.is_err() {
            return;
        }
    }
    ready(()).await;
}

fn readable<K: Resource<DynamicType = ()>>(object: DeserializeGuard<K>) -> Option<K> {
    match object.0 {
        Ok(mut object) => {
            // Half of an object's size, and nothing here reads it.
            object.managed_fields_mut().clear();
            Some(object)
        }
        Err(invalid) => {
            tracing::error!(
                kind = %K::kind(&()),
                namespace = invalid.metadata.namespace.as_deref().unwrap_or_default(),
                name = invalid.metadata.name.as_deref().unwrap_or_default(),
                error = invalid.error,
                "object cannot be read and is ignored; correct or delete it"
            );
            None
        }
    }
}
