//! The unprivileged process. Started by `main`.
//!
//! Watches ([`watch`], [`stream`]) feed one event loop ([`engine`]) around a pure state machine ([`decide`]), whose decisions
//! [`apply`] and [`host_client`] carry out.

pub mod apply;
pub mod client;
pub mod decide;
pub mod dns;
pub mod engine;
pub mod facts;
pub mod host_client;
pub mod http;
pub mod network;
pub mod stream;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use pilotlight_common::stream::NodeReport;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::args::{ApiArgs, NetworkMode};
use crate::metrics::Metrics;
use decide::Event;

/// How long the end waits for assignments that are on their way; the kubelet gives ten seconds in all.
const FINISH: Duration = Duration::from_secs(3);
/// How long the end waits for the schedulers to hear that this node is no longer ready.
const FAREWELL: Duration = Duration::from_millis(500);

/// Works until SIGTERM; ends with an error when any part of it ends before.
pub async fn run(args: ApiArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let config = match &args.kubeconfig {
        None => Config::incluster().context("no service account; is this a pod?")?,
        Some(path) => {
            let file = Kubeconfig::read_from(path).context("cannot read the kubeconfig")?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
    };
    let client = client::build(&config)?;
    let metrics = Arc::new(Metrics::default());
    let health = Arc::new(http::Health::default());
    let (sender, events) = mpsc::channel(engine::QUEUE);
    let (report, reports) = tokio::sync::watch::channel(NodeReport::default());
    let (busy, mut busy_seen) = tokio::sync::watch::channel(false);
    let node = args.node_name.clone();
    tracing::info!(node, version = env!("CARGO_PKG_VERSION"), "starting");

    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    let network = match args.network_mode {
        NetworkMode::Policy => None,
        NetworkMode::Node => {
            let config = dns::Config {
                upstreams: network::resolv::read(&args.resolv_conf)?,
                allowed_ranges: args.allowed_ranges.clone(),
            };
            let (network, connection) =
                network::Network::new(args.network_socket.clone(), config, sender.clone());
            tasks.spawn(async move {
                connection.run().await;
                "the connection to the network process"
            });
            Some(network)
        }
    };
    let engine = engine::Engine {
        apply: Arc::new(apply::Apply::new(
            client.clone(),
            node.clone(),
            Arc::clone(&metrics),
        )),
        network: network.clone(),
        host: Arc::new(host_client::HostSocket::new(&args.host_socket)),
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        sender: sender.clone(),
        report,
        busy,
    };
    tasks.spawn(async move {
        engine.run(events).await;
        "the engine"
    });
    let (agents_client, agents_node) = (client.clone(), node.clone());
    let (watch_sender, watch_metrics) = (sender.clone(), Arc::clone(&metrics));
    tasks.spawn(async move {
        watch::run(client, node, watch_sender, watch_metrics).await;
        "the pod watch"
    });
    let (watch_sender, watch_metrics) = (sender.clone(), Arc::clone(&metrics));
    tasks.spawn(async move {
        watch::run_agents(agents_client, agents_node, watch_sender, watch_metrics).await;
        "the watch of agents.x-k8s.io pods"
    });
    let stream = stream::Streams::new(&args, sender.clone(), reports, Arc::clone(&metrics));
    tasks.spawn(async move {
        stream.run().await;
        "the node streams"
    });
    let port = args.metrics_port;
    tasks.spawn(async move {
        if let Err(error) = http::run(port, metrics, health).await {
            tracing::error!(%error, port, "cannot serve metrics");
        }
        "the metrics server"
    });

    tokio::select! {
        ended = tasks.join_next() => {
            let ended = ended.context("no task")?.context("a task panicked")?;
            anyhow::bail!("{ended} ended");
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    // The schedulers hear it first, so that nothing new comes while the rest is finished.
    let _ = sender.send(Event::Stop).await;
    tokio::time::sleep(FAREWELL).await;
    let _ = tokio::time::timeout(FINISH, busy_seen.wait_for(|busy| !busy)).await;
    Ok(())
}
