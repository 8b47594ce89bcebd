//! Clients for the installation's cluster: the user's, and for what only a program may write, one with its account.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pilotlight_demo::{Installation, Source};

/// What a token of a pod says of the pod's node.
pub const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";

/// A program of the installation, whose account a client borrows by impersonation: the policies that hold for it are in
/// force, as they are in what is measured.
#[derive(Clone, Copy, Debug)]
pub enum Account<'a> {
    /// The scheduler.
    Scheduler,
    /// The agent of a node.
    Agent {
        /// The node.
        node: &'a str,
    },
}

/// A client that does not repeat requests by itself: a measured create is sent once.
pub async fn connect(installation: &Installation) -> Result<Client> {
    Ok(Client::try_from(config(installation).await?)?)
}

/// The same with the account of a program.
pub async fn connect_as(installation: &Installation, account: Account<'_>) -> Result<Client> {
    let mut config = config(installation).await?;
    let (program, node) = match account {
        Account::Scheduler => ("scheduler", None),
        Account::Agent { node } => ("node-agent", Some(node)),
    };
    let namespace = &installation.namespace;
    let name = format!("system:serviceaccount:{namespace}:pilotlight-{program}");
    config.auth_info.impersonate = Some(name);
    config.auth_info.impersonate_user_extra =
        node.map(|node| HashMap::from([(NODE_CLAIM.to_owned(), vec![node.to_owned()])]));
    Ok(Client::try_from(config)?)
}

/// How to reach the cluster as its administrator.
pub async fn config(installation: &Installation) -> Result<Config> {
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
    Ok(config)
}
