//! The node streams: one to every scheduler replica. Started by [`super::run`]; feeds [`super::engine`].
//!
//! Every replica tells what it knows and hears the same report, so a failover needs no reconnect. A failed DNS query changes
//! nothing, and a replica whose name is gone is kept as long as its stream is up.

mod lines;
mod replica;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pilotlight_common::stream::NodeReport;
use rand::RngExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use super::decide::Event;
use crate::args::ApiArgs;
use crate::metrics::Metrics;
use replica::{Endpoint, Replica};

/// Time between two DNS queries while replicas are known.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(4);
/// The same while none is.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two queries, however many streams end.
const RESOLVE_PAUSE: Duration = Duration::from_millis(200);
/// A DNS server that takes longer is asked again.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// More addresses than any installation has replicas; the rest is left out.
const MAX_REPLICAS: usize = 16;

/// All streams of this node.
#[derive(Debug)]
pub struct Streams {
    host: String,
    port: u16,
    endpoint: Arc<Endpoint>,
    events: mpsc::Sender<Event>,
    reports: watch::Receiver<NodeReport>,
    metrics: Arc<Metrics>,
}

/// A replica that is being talked to. Dropping it ends the talk.
#[derive(Debug)]
struct Running {
    task: AbortHandle,
    connected: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Streams {
    /// The streams that the arguments describe.
    pub fn new(
        args: &ApiArgs,
        events: mpsc::Sender<Event>,
        reports: watch::Receiver<NodeReport>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            host: args.scheduler_host.clone(),
            port: args.scheduler_port,
            endpoint: Arc::new(Endpoint {
                node: args.node_name.clone(),
                server_name: args.scheduler_server_name.clone(),
                ca_file: args.ca_file.clone(),
                token_file: args.stream_token_file.clone(),
            }),
            events,
            reports,
            metrics,
        }
    }

    /// Keeps a stream to every replica until the process ends.
    pub async fn run(self) {
        let mut running: HashMap<SocketAddr, Running> = HashMap::new();
        let ended = Arc::new(Notify::new());
        loop {
            if let Some(addresses) = self.resolve().await {
                self.follow(&addresses, &mut running, &ended).await;
            }
            tokio::time::sleep(RESOLVE_PAUSE).await;
            let interval = if running.is_empty() {
                SEARCH_INTERVAL
            } else {
                RESOLVE_INTERVAL
            };
            let pause = interval.mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = ended.notified() => {}
            }
        }
    }

    async fn resolve(&self) -> Option<HashSet<SocketAddr>> {
        let query = tokio::net::lookup_host((self.host.as_str(), self.port));
        match tokio::time::timeout(RESOLVE_TIMEOUT, query).await {
            Ok(Ok(addresses)) => Some(addresses.take(MAX_REPLICAS).collect()),
            Ok(Err(error)) => {
                tracing::debug!(%error, host = self.host, "the schedulers' name does not resolve");
                None
            }
            Err(_) => {
                tracing::debug!(
                    host = self.host,
                    "the schedulers' name does not resolve in time"
                );
                None
            }
        }
    }

    async fn follow(
        &self,
        addresses: &HashSet<SocketAddr>,
        running: &mut HashMap<SocketAddr, Running>,
        ended: &Arc<Notify>,
    ) {
        let gone: Vec<SocketAddr> = running
            .iter()
            .filter(|(address, replica)| {
                !addresses.contains(address) && !replica.connected.load(Ordering::Relaxed)
            })
            .map(|(address, _)| *address)
            .collect();
        for address in gone {
            running.remove(&address);
            let _ = self.events.send(Event::Forgotten(address)).await;
        }
        for address in addresses {
            running.entry(*address).or_insert_with(|| {
                let connected = Arc::new(AtomicBool::new(false));
                let replica = Replica {
                    address: *address,
                    endpoint: Arc::clone(&self.endpoint),
                    events: self.events.clone(),
                    reports: self.reports.clone(),
                    metrics: Arc::clone(&self.metrics),
                    connected: Arc::clone(&connected),
                    ended: Arc::clone(ended),
                };
                let task = tokio::spawn(replica.run()).abort_handle();
                Running { task, connected }
            });
        }
    }
}
