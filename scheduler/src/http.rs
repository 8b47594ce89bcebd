//! `/metrics`, `/healthz` and `/readyz`, in plain HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// Time for a client to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at once: probes and a scraper or two.
const MAX_CONNECTIONS: usize = 64;

/// Serves for ever. `ready` is true once the caches are filled and the stream is served.
pub async fn run(
    listener: TcpListener,
    metrics: Arc<impl AsRef<Registry> + Send + Sync + 'static>,
    ready: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (metrics, ready) = (Arc::clone(&metrics), ready.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request: Request<Incoming>| {
                let answer = answer(request.uri().path(), (*metrics).as_ref(), *ready.borrow());
                async move { Ok::<_, Infallible>(answer) }
            });
            let result = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
            drop(slot);
        });
    }
}

fn answer(path: &str, metrics: &Registry, ready: bool) -> Response<Full<Bytes>> {
    let (status, text) = match path {
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if ready => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the caches are being filled\n".to_owned(),
        ),
        "/metrics" => {
            let mut text = String::new();
            match prometheus_client::encoding::text::encode(&mut text, metrics) {
                Ok(()) => (StatusCode::OK, text),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            }
        }
        _ => (
            StatusCode::NOT_FOUND,
            "/metrics, /healthz or /readyz\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
