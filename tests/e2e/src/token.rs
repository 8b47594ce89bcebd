//! Tokens of the installation's programs, as somebody has them who took them.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use kube::config::AuthInfo;
use pilotlight_bench::connect;
use pilotlight_bench::process::find;

use crate::environment::Environment;

/// Service account of the agents, and the name of their program.
pub const AGENT: &str = "pilotlight-node-agent";
/// The same of the scheduler.
pub const SCHEDULER: &str = "pilotlight-scheduler";
/// The same of the controller of agents.x-k8s.io, which is the scheduler's program.
pub const CONTROLLER: &str = "pilotlight-agents";

/// Where `api` finds its token for the API server.
const TOKEN_FILE: &str = "var/run/secrets/kubernetes.io/serviceaccount/token";

/// A client that has nothing but a token.
pub async fn client(environment: &Environment, token: String) -> Result<Client> {
    let mut config = connect::config(&environment.installation).await?;
    config.auth_info = AuthInfo {
        token: Some(token.into()),
        ..AuthInfo::default()
    };
    Ok(Client::try_from(config)?)
}

/// The pod of a node's agent.
pub async fn agent_pod(environment: &Environment, node: &str) -> Result<Pod> {
    let namespace = &environment.installation.namespace;
    let pods: Api<Pod> = Api::namespaced(environment.client.clone(), namespace);
    let agents = ListParams::default()
        .labels("app.kubernetes.io/component=node-agent")
        .fields(&format!("spec.nodeName={node}"));
    let found = pods.list(&agents).await?.items.into_iter().next();
    found.with_context(|| format!("no agent on {node}"))
}

/// The token of a node's agent: where its processes are on this machine, the very one that lies in its pod; elsewhere one
/// that is bound to that pod as the kubelet would ask for it.
pub async fn of_agent(environment: &Environment, node: &str) -> Result<String> {
    let pod = agent_pod(environment, node).await?;
    if environment.installation.local().is_none() {
        return request(environment, AGENT, Some(&pod)).await;
    }
    let name = pod.metadata.name.unwrap_or_default();
    let mut processes = find(AGENT)?;
    processes.retain(|process| process.host_name == name);
    ensure!(
        !processes.is_empty(),
        "no process of {name} is on this machine"
    );
    // Of its two containers one has the token.
    let mut files = processes.iter().map(|process| process.file(TOKEN_FILE));
    let token = files.find_map(|file| std::fs::read_to_string(file).ok());
    token.with_context(|| format!("no token in {processes:?}"))
}

/// A token of an account, bound to a pod where one is named.
pub async fn request(
    environment: &Environment,
    account: &str,
    pod: Option<&Pod>,
) -> Result<String> {
    let namespace = &environment.installation.namespace;
    let accounts: Api<ServiceAccount> = Api::namespaced(environment.client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            bound_object_ref: pod.map(|pod| BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            expiration_seconds: Some(600),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let made = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await?;
    made.status.and_then(|s| s.token).context("no token")
}
