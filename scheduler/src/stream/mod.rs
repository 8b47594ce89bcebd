//! The node stream's server: TLS, one authenticated agent a request, messages from the engine.
//!
//! Runs on every replica. Paths and messages are those of [`pilotlight_common::stream`].

mod auth;
mod ca;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use pilotlight_common::stream::{BOOKMARK_INTERVAL_SECONDS, NodeReport, StreamMessage};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

pub use auth::{AuthError, Authenticator};
pub use ca::{CaError, ServerIdentity};

use crate::input::Input;

/// Connections at once: an agent holds one to each replica, so this is several times the largest cluster.
const MAX_CONNECTIONS: usize = 20_000;
/// Time for a client to finish the TLS handshake and send its headers.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that may wait for a slow agent before its stream is closed.
const STREAM_QUEUE: usize = 1024;
/// Largest report taken, in bytes: 250 refusals of half a kilobyte with room to spare.
const MAX_REPORT_BYTES: usize = 256 << 10;
/// A stream is closed after this time, so that a token revoked meanwhile is looked at again.
const MAX_STREAM_AGE: Duration = Duration::from_mins(30);

type Body = BoxBody<Bytes, Infallible>;

/// Serves agents.
pub struct StreamServer {
    authenticator: Authenticator,
    inputs: mpsc::Sender<Input>,
    next_id: AtomicU64,
}

impl StreamServer {
    /// A server that hands what it learns to the engine.
    pub fn new(authenticator: Authenticator, inputs: mpsc::Sender<Input>) -> Arc<Self> {
        Arc::new(Self {
            authenticator,
            inputs,
            next_id: AtomicU64::new(1),
        })
    }

    /// Accepts connections for ever.
    pub async fn run(self: Arc<Self>, listener: TcpListener, acceptor: TlsAcceptor) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (this, acceptor) = (Arc::clone(&self), acceptor.clone());
                    tokio::spawn(async move {
                        this.connection(stream, acceptor).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "connection was not accepted");
                    // Out of file descriptors, most likely: others must end first.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, acceptor: TlsAcceptor) {
        // An assignment is one small frame; it must not wait for a second one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
        let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await
        else {
            return;
        };
        let service = hyper::service::service_fn(move |request| {
            let this = Arc::clone(&self);
            async move { Ok::<_, Infallible>(this.respond(request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_TIMEOUT);
        // A node that lost its power closes no connection: pings find out within ten seconds.
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .max_concurrent_streams(16);
        if let Err(error) = builder.serve_connection(TokioIo::new(tls), service).await {
            tracing::debug!(error, "connection ended");
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let mut parts = path
            .strip_prefix("/v1/nodes/")
            .unwrap_or_default()
            .split('/');
        let (node, what) = match (parts.next(), parts.next(), parts.next()) {
            (Some(node), Some(what), None) if !node.is_empty() => (node, what),
            _ => return plain(StatusCode::NOT_FOUND, "no such path"),
        };
        let token = request
            .headers()
            .get(http::header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("Bearer "));
        match self.authenticator.node_of(token).await {
            Ok(proven) if proven == node => {}
            Ok(proven) => {
                tracing::warn!(node, proven, "an agent asked for another node");
                return plain(StatusCode::FORBIDDEN, "the token is for another node");
            }
            Err(error) => {
                tracing::warn!(node, %error, "an agent was refused");
                return plain(error.status(), &error.to_string());
            }
        }
        match (request.method(), what) {
            (&Method::GET, "assignments") => self.assignments(node.to_owned()).await,
            (&Method::PUT, "report") => self.report(node.to_owned(), request.into_body()).await,
            (_, "assignments" | "report") => plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "GET assignments, PUT report",
            ),
            _ => plain(StatusCode::NOT_FOUND, "no such path"),
        }
    }

    async fn assignments(&self, node: String) -> Response<Body> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
        if self
            .inputs
            .send(Input::StreamOpened {
                node: node.clone(),
                id,
                sender,
            })
            .await
            .is_err()
        {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the scheduler is stopping");
        }
        tracing::info!(node, id, "stream opened");
        let closing = StreamGuard {
            node,
            id,
            inputs: self.inputs.clone(),
        };
        let bookmark = tokio::time::interval_at(
            tokio::time::Instant::now() + Duration::from_secs(BOOKMARK_INTERVAL_SECONDS),
            Duration::from_secs(BOOKMARK_INTERVAL_SECONDS),
        );
        let until = tokio::time::Instant::now() + MAX_STREAM_AGE;
        let lines = futures::stream::unfold(
            (receiver, bookmark, closing),
            move |(mut receiver, mut bookmark, closing)| async move {
                let message = tokio::select! {
                    biased;
                    message = receiver.recv() => message?,
                    _ = bookmark.tick() => StreamMessage::Bookmark,
                    () = tokio::time::sleep_until(until) => return None,
                };
                let mut line = serde_json::to_vec(&message).ok()?;
                line.push(b'\n');
                Some((
                    Ok::<_, Infallible>(Frame::data(Bytes::from(line))),
                    (receiver, bookmark, closing),
                ))
            },
        );
        let mut response = Response::new(BodyExt::boxed(StreamBody::new(SyncStream::new(
            lines.boxed(),
        ))));
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/jsonlines"),
        );
        response
    }

    async fn report(&self, node: String, body: Incoming) -> Response<Body> {
        let read = tokio::time::timeout(
            HANDSHAKE_TIMEOUT,
            Limited::new(body, MAX_REPORT_BYTES).collect(),
        )
        .await;
        let Ok(Ok(body)) = read else {
            return plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the report is too large, or came too slowly",
            );
        };
        let report: NodeReport = match serde_json::from_slice(&body.to_bytes()) {
            Ok(report) => report,
            Err(error) => {
                return plain(
                    StatusCode::BAD_REQUEST,
                    &format!("the report cannot be read: {error}"),
                );
            }
        };
        if self
            .inputs
            .send(Input::Report { node, report })
            .await
            .is_err()
        {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the scheduler is stopping");
        }
        plain(StatusCode::OK, "")
    }
}

/// Tells the engine when a stream's response is dropped, however that comes about.
struct StreamGuard {
    node: String,
    id: u64,
    inputs: mpsc::Sender<Input>,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let (inputs, node, id) = (self.inputs.clone(), std::mem::take(&mut self.node), self.id);
        tracing::info!(node, id, "stream closed");
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { inputs.send(Input::StreamClosed { node, id }).await });
        }
    }
}

/// A response body must be `Sync`; a stream that only one task ever polls is, behind a lock nobody waits for.
struct SyncStream<S>(std::sync::Mutex<S>);

impl<S> SyncStream<S> {
    fn new(stream: S) -> Self {
        Self(std::sync::Mutex::new(stream))
    }
}

impl<S: futures::Stream + Unpin> futures::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        match self.get_mut().0.get_mut() {
            Ok(stream) => stream.poll_next_unpin(context),
            Err(_) => std::task::Poll::Ready(None),
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed());
    *response.status_mut() = status;
    response
}
