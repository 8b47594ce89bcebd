//! The talk with one scheduler replica: its stream one way, our reports the other. Started by [`super::Streams`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pilotlight_common::stream::{
    BOOKMARK_INTERVAL_SECONDS, MAX_MESSAGE_BYTES, NodeReport, StreamMessage, assignments_path,
    report_path,
};
use rand::RngExt;
use reqwest::{Certificate, Client, StatusCode};
use tokio::sync::{Notify, mpsc, watch};

use super::lines::{LineTooLong, Lines};
use crate::api::decide::Event;
use crate::metrics::Metrics;

/// First pause before a stream is made again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A replica that does not take a connection for so long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A replica that does not begin its answer for so long is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent stream is dead after this: three bookmarks are missing.
const SILENCE: Duration = Duration::from_secs(3 * BOOKMARK_INTERVAL_SECONDS);
/// A report is repeated this often, since its silence is how a scheduler learns that a node is gone.
const REPORT_INTERVAL: Duration = Duration::from_secs(BOOKMARK_INTERVAL_SECONDS);
/// A failed report is repeated after this.
const REPORT_PAUSE: Duration = Duration::from_secs(1);
/// A connection is asked for a sign of life this often, so that a dead node is noticed before bookmarks are missed.
const PING: Duration = Duration::from_secs(5);
/// Longest token or CA file, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// What is the same for all replicas.
#[derive(Debug)]
pub struct Endpoint {
    /// Our node.
    pub node: String,
    /// Name in the schedulers' certificate.
    pub server_name: String,
    /// The CA that signed it.
    pub ca_file: PathBuf,
    /// Our token.
    pub token_file: PathBuf,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("cannot read {path}: {error}")]
    File { path: PathBuf, error: String },
    #[error("cannot set up TLS: {}", chain(.0))]
    Tls(reqwest::Error),
    #[error("the connection failed: {}", chain(.0))]
    Connection(reqwest::Error),
    #[error("the scheduler answered {0}")]
    Status(StatusCode),
    #[error("the scheduler was silent for too long")]
    Silence,
    #[error(transparent)]
    Line(#[from] LineTooLong),
    #[error("the scheduler ended the stream")]
    Ended,
    #[error("the agent is stopping")]
    Stopping,
}

impl StreamError {
    fn category(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Tls(_) => "tls",
            Self::Connection(_) => "connection",
            Self::Status(_) => "status",
            Self::Silence => "silence",
            Self::Line(_) => "line_too_long",
            Self::Ended => "ended",
            Self::Stopping => "stopping",
        }
    }
}

/// reqwest's message leaves the causes out, and they are what one needs to know.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// One replica.
#[derive(Debug)]
pub struct Replica {
    /// Its address.
    pub address: SocketAddr,
    /// What is the same for all.
    pub endpoint: Arc<Endpoint>,
    /// Where its messages go.
    pub events: mpsc::Sender<Event>,
    /// What it is told.
    pub reports: watch::Receiver<NodeReport>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Whether its stream is up.
    pub connected: Arc<AtomicBool>,
    /// Rung when the stream ended.
    pub ended: Arc<Notify>,
}

impl Replica {
    /// Talks until aborted.
    pub async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = self.session().await;
            if self.connected.swap(false, Ordering::Relaxed) {
                pause = FIRST_PAUSE;
                let _ = self.events.send(Event::Disconnected(self.address)).await;
            }
            if matches!(error, StreamError::Stopping) {
                return;
            }
            self.ended.notify_one();
            self.metrics.stream_ended(error.category());
            tracing::info!(%error, replica = %self.address, "no node stream; trying again");
            tokio::time::sleep(jittered(pause, 0.5)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection, from its beginning to its end.
    async fn session(&self) -> StreamError {
        let client = match self.client().await {
            Ok(client) => client,
            Err(error) => return error,
        };
        tokio::select! {
            error = self.listen(&client) => error,
            () = self.tell(&client) => StreamError::Stopping,
        }
    }

    /// Made anew for each connection, since the CA may have come late or changed.
    async fn client(&self) -> Result<Client, StreamError> {
        let pem = read(&self.endpoint.ca_file).await?;
        let roots = Certificate::from_pem_bundle(pem.as_bytes()).map_err(StreamError::Tls)?;
        if roots.is_empty() {
            return Err(StreamError::File {
                path: self.endpoint.ca_file.clone(),
                error: "it has no certificate".to_owned(),
            });
        }
        Client::builder()
            .tls_certs_only(roots)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Every replica has the same name in its certificate; which one it is, the address decides.
            .resolve(&self.endpoint.server_name, self.address)
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PING)
            .http2_keep_alive_while_idle(true)
            .build()
            .map_err(StreamError::Tls)
    }

    fn url(&self, path: &str) -> String {
        let port = self.address.port();
        format!("https://{}:{port}{path}", self.endpoint.server_name)
    }

    async fn listen(&self, client: &Client) -> StreamError {
        match self.try_listen(client).await {
            Ok(()) => StreamError::Ended,
            Err(error) => error,
        }
    }

    async fn try_listen(&self, client: &Client) -> Result<(), StreamError> {
        let token = read(&self.endpoint.token_file).await?;
        let request = client
            .get(self.url(&assignments_path(&self.endpoint.node)))
            .bearer_auth(token.trim())
            .send();
        let mut response = tokio::time::timeout(ANSWER_TIMEOUT, request)
            .await
            .map_err(|_| StreamError::Silence)?
            .map_err(StreamError::Connection)?;
        if response.status() != StatusCode::OK {
            return Err(StreamError::Status(response.status()));
        }
        let mut lines = Lines::new(MAX_MESSAGE_BYTES);
        let mut messages = Vec::new();
        loop {
            let chunk = tokio::time::timeout(SILENCE, response.chunk())
                .await
                .map_err(|_| StreamError::Silence)?
                .map_err(StreamError::Connection)?;
            let Some(chunk) = chunk else {
                return Ok(());
            };
            lines.push(&chunk, |line| messages.extend(message(line)))?;
            for message in messages.drain(..) {
                if matches!(message, StreamMessage::Snapshot { .. })
                    && !self.connected.swap(true, Ordering::Relaxed)
                {
                    tracing::info!(replica = %self.address, "node stream is up");
                }
                let event = Event::Stream(self.address, message);
                if self.events.send(event).await.is_err() {
                    return Err(StreamError::Stopping);
                }
            }
        }
    }

    /// Sends the report at once when it changes, and as often as a bookmark. Ends only with the engine.
    async fn tell(&self, client: &Client) {
        let mut reports = self.reports.clone();
        loop {
            let report = reports.borrow_and_update().clone();
            let result = self.send(client, &report).await;
            self.metrics.reported(match &result {
                Ok(()) => "ok",
                Err(error) => error.category(),
            });
            let pause = match result {
                Ok(()) => jittered(REPORT_INTERVAL, 0.8),
                Err(error) => {
                    tracing::debug!(%error, replica = %self.address, "report not taken; trying again");
                    // Whatever changes meanwhile goes with the next try.
                    tokio::time::sleep(REPORT_PAUSE).await;
                    continue;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = reports.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn send(&self, client: &Client, report: &NodeReport) -> Result<(), StreamError> {
        let token = read(&self.endpoint.token_file).await?;
        let response = client
            .put(self.url(&report_path(&self.endpoint.node)))
            .bearer_auth(token.trim())
            .json(report)
            .timeout(ANSWER_TIMEOUT)
            .send()
            .await
            .map_err(StreamError::Connection)?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(StreamError::Status(response.status()))
        }
    }
}

/// From `least` times the pause to the whole of it.
fn jittered(pause: Duration, least: f64) -> Duration {
    pause.mul_f64(rand::rng().random_range(least..1.0))
}

/// A line that cannot be read is left out: a newer scheduler may say more than this agent knows.
fn message(line: &[u8]) -> Option<StreamMessage> {
    if line.is_empty() {
        return None;
    }
    serde_json::from_slice(line)
        .inspect_err(|error| tracing::warn!(%error, "a message of the scheduler cannot be read"))
        .ok()
}

async fn read(path: &PathBuf) -> Result<String, StreamError> {
    use tokio::io::AsyncReadExt;
    let read = async {
        let mut text = String::new();
        let file = tokio::fs::File::open(path).await?;
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).await?;
        Ok(text)
    };
    read.await
        .map_err(|error: std::io::Error| StreamError::File {
            path: path.clone(),
            error: error.to_string(),
        })
}
