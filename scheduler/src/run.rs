//! Puts the parts together and runs them; called by `main`. Any part that ends ends the process.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::SignedDuration;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::{Client, Config};
use pilotlight_common::kinds::WarmPod;
use pilotlight_common::resolve::{Defaults, SeccompProfiles};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::apply::{Applier, EventRecorder, PodSettings, StorageSettings};
use crate::args::{Args, NetworkMode, ReclaimPolicy};
use crate::engine::Engine;
use crate::index::{Index, Settings};
use crate::input::{Change, Input};
use crate::lease::{Elector, Leadership};
use crate::metrics::Metrics;
use crate::pod::Overcommit;
use crate::stream::{Authenticator, ServerIdentity, StreamServer};
use crate::{http, watches};

/// Inputs that may wait for the engine; a full queue slows the watches down.
const INPUTS: usize = 4096;
/// Most time to give the lease up at the end.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut config = Config::incluster().context("not running in a pod: no service account")?;
    // It re-sends creations that may have happened; every write here decides that itself.
    config.default_retry = false;
    // A connection pool each, so that nothing waits behind a list or a refill.
    let client = || Client::try_from(config.clone()).context("API server");
    let (hot, cold, watches_client, lease_client) = (client()?, client()?, client()?, client()?);

    let metrics = Arc::new(Metrics::default());
    let leadership = Arc::new(Leadership::default());
    let (inputs, received) = mpsc::channel(INPUTS);
    let (synced, synced_seen) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let (leading, leading_seen) = watch::channel(false);

    let http_listener = TcpListener::bind(args.http_address)
        .await
        .context("http address")?;
    let http = tokio::spawn(http::run(
        http_listener,
        Arc::clone(&metrics),
        synced_seen.clone(),
    ));

    let identity = ServerIdentity {
        client: cold.clone(),
        namespace: args.namespace.clone(),
        secret: args.ca_secret.clone(),
        config_map: Some(args.ca_config_map.clone()),
        authority_name: "pilotlight node stream CA",
        server_name: args.stream_server_name.clone(),
        protocols: &[b"h2", b"http/1.1"],
    };
    let (acceptor, _) = identity.acceptor().await?;
    let stream_listener = TcpListener::bind(args.stream_address)
        .await
        .context("stream address")?;
    let authenticator =
        Authenticator::new(cold.clone(), &args.namespace, &args.agent_service_account);
    let stream = tokio::spawn(
        StreamServer::new(authenticator, inputs.clone()).run(stream_listener, acceptor),
    );

    let (events, recording) = EventRecorder::new(cold.clone(), args.identity.clone());
    let events_task = tokio::spawn(recording);
    let applier = Applier::new(
        hot,
        cold,
        Arc::clone(&leadership),
        Arc::clone(&metrics),
        pod_settings(&args),
        events,
        inputs.clone(),
    );
    let engine = Engine::new(
        Index::new(settings(&args)),
        applier,
        metrics,
        received,
        synced,
    );
    let engine = tokio::spawn(engine.run());
    let watches = watches::run(
        watches_client.clone(),
        args.namespace.clone(),
        inputs.clone(),
    );
    let watches = tokio::spawn(watches);

    let api = Api::namespaced(lease_client, &args.namespace);
    let duration = Duration::from_secs(args.lease_duration_seconds.into());
    let elector = Elector::new(
        api,
        args.lease_name.clone(),
        args.identity.clone(),
        duration,
        leadership,
    );
    let mut lease = tokio::spawn(wait_then_elect(elector, synced_seen, leading, stopped));
    let leaders = tokio::spawn(follow_leadership(leading_seen, watches_client, inputs));

    let mut term = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let ended = tokio::select! {
        _ = term.recv() => None,
        _ = interrupt.recv() => None,
        _ = http => Some("http server"),
        _ = stream => Some("node stream"),
        _ = engine => Some("engine"),
        _ = watches => Some("watches"),
        _ = leaders => Some("leadership"),
        _ = events_task => Some("events"),
        result = &mut lease => { tracing::error!(?result, "lease"); Some("lease") }
    };
    if let Some(part) = ended {
        bail!("{part} ended; the process ends with it");
    }
    give_up(&stop, lease).await;
    Ok(())
}

/// Says that it is over, and waits until the lease is another's to take. Also called by [`crate::agents::run()`].
pub(crate) async fn give_up(
    stop: &watch::Sender<bool>,
    lease: JoinHandle<Result<(), crate::lease::LeaseError>>,
) {
    tracing::info!("stopping");
    stop.send_replace(true);
    match tokio::time::timeout(RELEASE_TIMEOUT, lease).await {
        Ok(Ok(Ok(()))) => tracing::info!("lease given up"),
        other => tracing::warn!(?other, "lease was not given up"),
    }
}

fn pod_settings(args: &Args) -> PodSettings {
    PodSettings {
        overcommit: Overcommit {
            cpu: args.cpu_overcommit,
            memory: args.memory_overcommit,
        },
        storage: StorageSettings {
            class: args.storage_class.clone().filter(|c| !c.is_empty()),
            retain: args.storage_reclaim == ReclaimPolicy::Retain,
        },
        networks_by_policy: args.network_mode == NetworkMode::Policy,
    }
}

fn settings(args: &Args) -> Settings {
    Settings {
        defaults: Defaults {
            high_runtime_class: args.high_runtime_class.clone().filter(|c| !c.is_empty()),
            maximum: args.maximum(),
            seccomp: SeccompProfiles::default(),
            overcommitted: args.cpu_overcommit > 1.0 || args.memory_overcommit > 1.0,
            networks_by_policy: args.network_mode == NetworkMode::Policy,
        },
        namespace: args.namespace.clone(),
        validation_timeout: SignedDuration::from_secs(args.validation_timeout_seconds.into()),
        cluster_domain: args.cluster_domain.clone(),
        agent_deadline: SignedDuration::from_secs(args.agent_deadline_seconds.into()),
        refill_per_second: args.refill_per_second,
        preload_timeout: SignedDuration::from_secs(args.preload_timeout_seconds.into()),
        finished_ttl: args
            .finished_ttl_seconds
            .map(|seconds| SignedDuration::from_secs(seconds.into())),
        nonce: format!("{}/{:x}", args.identity, rand::random::<u64>()),
    }
}

/// A replica stands for election only once it knows the world.
pub(crate) async fn wait_then_elect(
    elector: Elector,
    mut synced: watch::Receiver<bool>,
    leading: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), crate::lease::LeaseError> {
    tokio::select! {
        result = synced.wait_for(|synced| *synced) => if result.is_err() { return Ok(()) },
        _ = stop.changed() => return Ok(()),
    }
    elector.run(leading, stop).await
}

/// Tells the engine of every change of leadership. Before it begins to lead, the engine is given a list of the
/// WarmPods as they are now: the watch may not have shown the former leader's last assignments yet.
async fn follow_leadership(
    mut leading: watch::Receiver<bool>,
    client: Client,
    inputs: mpsc::Sender<Input>,
) {
    let api = Api::all(client);
    while leading.changed().await.is_ok() {
        let now = *leading.borrow_and_update();
        tracing::info!(leading = now, "leadership changed");
        if now {
            match current_warm_pods(&api).await {
                Ok(pods) => {
                    for pod in pods {
                        if inputs
                            .send(Input::WarmPod(Change::Upsert(pod.into())))
                            .await
                            .is_err()
                        {
                            return;
                        }
                    }
                }
                // The set-once claim keeps a stale view from doing harm; it only costs a second try.
                Err(error) => {
                    tracing::warn!(%error, "WarmPods could not be listed; going on with what the watch shows");
                }
            }
        }
        let still = *leading.borrow();
        if inputs.send(Input::Leading(now && still)).await.is_err() {
            return;
        }
    }
}

async fn current_warm_pods(api: &Api<DeserializeGuard<WarmPod>>) -> kube::Result<Vec<WarmPod>> {
    let mut pods = Vec::new();
    let mut params = ListParams::default().limit(500);
    loop {
        // Objects that cannot be read are the watch's business.
        let page = api.list(&params).await?;
        pods.extend(page.items.into_iter().filter_map(|guard| guard.0.ok()));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(pods),
        }
    }
}
