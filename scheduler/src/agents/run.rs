//! Puts the parts of the controller together and runs them; called by `main`. Any part that ends ends the process.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::api::Api;
use kube::runtime::watcher;
use kube::{Client, Config};
use pilotlight_common::agents::names::NAME_HASH_LABEL;
use pilotlight_common::agents::v1beta1::Sandbox;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::apply::Applier;
use super::authority;
use super::engine::Engine;
use super::index::{Index, Input};
use super::metrics::Metrics;
use super::webhook::{self, Webhook};
use crate::args::AgentsArgs;
use crate::http;
use crate::lease::{Elector, Leadership};
use crate::run::{give_up, wait_then_elect};
use crate::stream::ServerIdentity;
use crate::watches::watch as watch_kind;

/// Inputs that may wait for the engine; a full queue slows the watches down.
const INPUTS: usize = 4096;

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: AgentsArgs) -> anyhow::Result<()> {
    let mut config = Config::incluster().context("not running in a pod: no service account")?;
    // It re-sends creations that may have happened; every write here decides that itself.
    config.default_retry = false;
    // A connection pool each, so that nothing waits behind a list.
    let client = || Client::try_from(config.clone()).context("API server");
    let (writes, watches, lease_client, crd_client) = (client()?, client()?, client()?, client()?);

    let metrics = Arc::new(Metrics::default());
    let leadership = Arc::new(Leadership::default());
    let (inputs, received) = mpsc::channel(INPUTS);
    let (synced, synced_seen) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let (leading, leading_seen) = watch::channel(false);

    let http_listener = TcpListener::bind(args.http_address)
        .await
        .context("http address")?;
    let (serving, serving_seen) = watch::channel(false);
    let http = tokio::spawn(http::run(http_listener, Arc::clone(&metrics), serving_seen));

    let identity = ServerIdentity {
        client: crd_client.clone(),
        namespace: args.namespace.clone(),
        secret: args.ca_secret.clone(),
        config_map: None,
        authority_name: "pilotlight webhook CA",
        server_name: format!("{}.{}.svc", args.webhook_service, args.namespace),
        protocols: webhook::PROTOCOLS,
    };
    let (acceptor, authority) = identity.acceptor().await?;
    let listener = TcpListener::bind(args.webhook_address)
        .await
        .context("webhook address")?;
    let webhook = tokio::spawn(Webhook::new(Arc::clone(&metrics)).run(listener, acceptor));
    // Ready is who converts: objects that are stored in the other version can be listed only then.
    serving.send_replace(true);
    let trusted = tokio::spawn(authority::keep(crd_client, authority));

    let applier = Applier::new(
        writes,
        Arc::clone(&leadership),
        Arc::clone(&metrics),
        args.identity.clone(),
        inputs.clone(),
    );
    let index = Index::new(args.cluster_domain.clone());
    let engine = tokio::spawn(Engine::new(index, applier, metrics, received, synced).run());
    let watching = tokio::spawn(watch_all(watches, inputs.clone()));

    let duration = Duration::from_secs(args.lease_duration_seconds.into());
    let elector = Elector::new(
        Api::namespaced(lease_client, &args.namespace),
        args.lease_name.clone(),
        args.identity.clone(),
        duration,
        leadership,
    );
    let mut lease = tokio::spawn(wait_then_elect(elector, synced_seen, leading, stopped));
    let leaders = tokio::spawn(follow_leadership(leading_seen, inputs));

    let mut term = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let ended = tokio::select! {
        _ = term.recv() => None,
        _ = interrupt.recv() => None,
        _ = http => Some("http server"),
        _ = webhook => Some("webhook"),
        _ = trusted => Some("watch of the CRD"),
        _ = engine => Some("engine"),
        _ = watching => Some("watches"),
        _ = leaders => Some("leadership"),
        result = &mut lease => { tracing::error!(?result, "lease"); Some("lease") }
    };
    if let Some(part) = ended {
        bail!("{part} ended; the process ends with it");
    }
    give_up(&stop, lease).await;
    Ok(())
}

/// Runs all watches until one ends, which none should. Of pods, Services and claims only those are seen that belong to Sandboxes.
async fn watch_all(client: Client, inputs: mpsc::Sender<Input>) {
    let ours = || watcher::Config::default().labels(NAME_HASH_LABEL);
    let all = watcher::Config::default();
    tokio::select! {
        () = watch_kind::<Sandbox, _, _>(Api::all(client.clone()), all, Into::into, Input::Sandbox, inputs.clone()) => {}
        () = watch_kind::<Pod, _, _>(Api::all(client.clone()), ours(), Into::into, Input::Pod, inputs.clone()) => {}
        () = watch_kind::<Service, _, _>(Api::all(client.clone()), ours(), Into::into, Input::Service, inputs.clone()) => {}
        () = watch_kind::<PersistentVolumeClaim, _, _>(Api::all(client), ours(), Into::into, Input::Claim, inputs) => {}
    }
}

async fn follow_leadership(mut leading: watch::Receiver<bool>, inputs: mpsc::Sender<Input>) {
    while leading.changed().await.is_ok() {
        let now = *leading.borrow_and_update();
        tracing::info!(leading = now, "leadership changed");
        if inputs.send(Input::Leading(now)).await.is_err() {
            return;
        }
    }
}
