//! The conversion webhook: turns Sandboxes of one version into the other for the API server. Started by [`super::run()`] on every replica, leader
//! or not.
//!
//! Whoever reaches it may ask: an answer tells nothing but what was asked. So what it costs is bounded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use pilotlight_common::agents::convert;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::metrics::Metrics;

/// One review for each connection. The API server would send all that follow down one that it has, to a replica that hangs or is on a node that
/// is gone, for most of a minute; a new one goes to a replica that is ready.
pub const PROTOCOLS: &[&[u8]] = &[b"http/1.1"];
/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// Reviews at once.
const MAX_REVIEWS: usize = 4;
/// Largest review, in bytes: 500 objects, a page of a list, of the average size of 64 KiB.
const MAX_REVIEW: usize = 32 << 20;
/// Time for a handshake and for a review to come in; the API server waits ten seconds for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The webhook.
pub struct Webhook {
    metrics: Arc<Metrics>,
    reviews: Semaphore,
}

#[derive(Deserialize)]
struct Review {
    request: Asked,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    uid: String,
    #[serde(rename = "desiredAPIVersion")]
    desired_api_version: String,
    #[serde(default)]
    objects: Vec<Value>,
}

impl Webhook {
    /// One that nobody asked yet.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            reviews: Semaphore::new(MAX_REVIEWS),
        })
    }

    /// Serves for ever.
    pub async fn run(self: Arc<Self>, listener: TcpListener, acceptor: TlsAcceptor) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely: others must end first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (this, acceptor) = (Arc::clone(&self), acceptor.clone());
            tokio::spawn(async move {
                this.connection(stream, acceptor).await;
                drop(slot);
            });
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, acceptor: TlsAcceptor) {
        let Ok(Ok(tls)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await else {
            return;
        };
        let service = hyper::service::service_fn(move |request| {
            let this = Arc::clone(&self);
            async move { Ok::<_, Infallible>(this.respond(request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .keep_alive(false)
            .serve_connection(TokioIo::new(tls), service);
        if let Err(error) = served.await {
            tracing::debug!(%error, "connection ended");
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/convert" {
            return plain(StatusCode::NOT_FOUND, "POST /convert");
        }
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "POST /convert");
        }
        let Ok(_turn) = self.reviews.acquire().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "stopping");
        };
        let body = Limited::new(request.into_body(), MAX_REVIEW).collect();
        let Ok(Ok(body)) = tokio::time::timeout(PATIENCE, body).await else {
            self.metrics.not_converted.inc();
            return plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the review is too large, or came too slowly",
            );
        };
        let body = body.to_bytes();
        // A list of many takes longer than what else this thread has to do should wait.
        let answered = tokio::task::spawn_blocking(move || answer(&body)).await;
        match answered {
            Ok(Ok((bytes, converted))) => {
                match converted {
                    Some(count) => self.metrics.converted.inc_by(count),
                    None => self.metrics.not_converted.inc(),
                };
                let mut response = Response::new(Full::new(bytes));
                response.headers_mut().insert(
                    http::header::CONTENT_TYPE,
                    http::HeaderValue::from_static("application/json"),
                );
                response
            }
            Ok(Err(error)) => {
                self.metrics.not_converted.inc();
                plain(
                    StatusCode::BAD_REQUEST,
                    &format!("the review cannot be read: {error}"),
                )
            }
            Err(error) => {
                tracing::error!(%error, "a review was not answered");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the review failed")
            }
        }
    }
}

/// The answer to a review, and how many objects are in it; none where it says why there are not.
fn answer(body: &[u8]) -> Result<(Bytes, Option<u64>), serde_json::Error> {
    let Review { request } = serde_json::from_slice(body)?;
    let to = &request.desired_api_version;
    let count = u64::try_from(request.objects.len()).unwrap_or(u64::MAX);
    let converted: Result<Vec<Value>, _> = request
        .objects
        .into_iter()
        .map(|object| convert(object, to))
        .collect();
    let (response, count) = match converted {
        Ok(objects) => (
            json!({
                "uid": request.uid,
                "result": { "status": "Success" },
                "convertedObjects": objects,
            }),
            Some(count),
        ),
        Err(error) => (
            json!({
                "uid": request.uid,
                "result": { "status": "Failure", "message": error.to_string() },
            }),
            None,
        ),
    };
    let review = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "ConversionReview",
        "response": response,
    });
    Ok((serde_json::to_vec(&review)?.into(), count))
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(objects: &Value) -> Vec<u8> {
        let review = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "ConversionReview",
            "request": { "uid": "u", "desiredAPIVersion": "agents.x-k8s.io/v1beta1", "objects": objects },
        });
        serde_json::to_vec(&review).unwrap()
    }

    #[test]
    fn every_object_of_a_review_is_converted_or_none() {
        let good = json!({ "apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox", "spec": { "replicas": 0 } });
        let (bytes, count) = answer(&review(&json!([good, good]))).unwrap();
        let said: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(said["response"]["uid"], "u");
        let converted = &said["response"]["convertedObjects"];
        assert_eq!(converted[1]["spec"]["operatingMode"], "Suspended");
        assert_eq!(count, Some(2));
        let bad = json!({ "apiVersion": "v1", "kind": "Pod" });
        let (bytes, count) = answer(&review(&json!([good, bad]))).unwrap();
        let said: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(said["response"]["result"]["status"], "Failure");
        assert!(said["response"].get("convertedObjects").is_none());
        assert_eq!(count, None);
        assert!(answer(b"{}").is_err() && answer(b"[1").is_err());
    }
}
