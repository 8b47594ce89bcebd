//! A client for the installation's cluster.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pilotlight_demo::{Installation, Source};

/// A client that does not repeat requests by itself: a measured create is sent once.
pub async fn connect(installation: &Installation) -> Result<Client> {
    // An error says that a provider is installed already, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = match installation.source {
        // Possibly a list of files.
        Source::Given => Kubeconfig::from_env()?.context("KUBECONFIG names no file")?,
        Source::Kind | Source::Local => Kubeconfig::read_from(&installation.kubeconfig)?,
    };
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    // The API server ends each watch by itself after five to ten minutes; a shorter limit here would cut quiet ones.
    config.read_timeout = Some(Duration::from_mins(10));
    Ok(Client::try_from(config)?)
}
