//! The client of the API server. Built once by [`super::run`].
//!
//! Not kube's default: that speaks HTTP/1, so a burst of publications would open a connection, with a TLS handshake, for each.
//! This one puts all requests and the watch on one HTTP/2 connection that pings keep warm, sends small writes at once, and
//! has no retry hidden in it: every retry is decided in [`super::decide`].

use std::time::Duration;

use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use tower::util::{BoxService, ServiceExt};
use tower::{BoxError, Layer};

/// A server that does not answer the handshake for so long is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection is asked for a sign of life this often.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A connection without a sign of life for so long is dead; its requests fail and are tried on a new one.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the client could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service account or kubeconfig cannot be used.
    #[error("cannot use the cluster's configuration: {0}")]
    Config(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The client for a configuration.
pub fn build(config: &Config) -> Result<Client, ClientError> {
    let failed = |error: kube::Error| ClientError::Config(Box::new(error));
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config().map_err(failed)?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(http);
    let hyper: HyperClient<_, Body> = HyperClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build(https);
    let hyper = hyper.map_err(BoxError::from);
    let service: BoxService<_, _, BoxError> = match config.auth_layer().map_err(failed)? {
        Some(auth) => auth.layer(hyper).boxed(),
        None => hyper.boxed(),
    };
    let service = config
        .base_uri_layer()
        .layer(config.extra_headers_layer().map_err(failed)?.layer(service));
    Ok(Client::new(service, config.default_namespace.clone()))
}
