//! Who may open a node's stream: that node's agent, with a living token made for it, and nobody else.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use pilotlight_bench::hub::Hub;
use pilotlight_bench::objects;
use pilotlight_common::names::STREAM_AUDIENCE;
use pilotlight_common::stream::assignments_path;
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::scene::{Scene, scene};
use serde_json::json;

const ACCOUNT: &str = "pilotlight-node-agent";
const SERVER: &str = "pilotlight-scheduler";

/// A connection to one scheduler replica, ended with this.
struct Door {
    forward: Child,
    /// Kept open: kubectl writes a line for each connection, and ends when nobody can read it.
    _output: BufReader<ChildStdout>,
    client: reqwest::Client,
    port: u16,
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.forward.kill();
        let _ = self.forward.wait();
    }
}

impl Door {
    async fn open(scene: &Scene) -> Result<Self> {
        let installation = &scene.environment.installation;
        let namespace = installation.namespace.clone();
        let maps: Api<ConfigMap> = Api::namespaced(scene.client().clone(), &namespace);
        let ca = maps.get("pilotlight-ca").await?.data.unwrap_or_default();
        let ca = ca
            .get("ca.crt")
            .context("the ConfigMap has no ca.crt")?
            .clone();
        let pods: Api<Pod> = Api::namespaced(scene.client().clone(), &namespace);
        let schedulers = ListParams::default().labels("app.kubernetes.io/component=scheduler");
        let scheduler = pods.list(&schedulers).await?.items.into_iter().next();
        let name = scheduler.and_then(|p| p.metadata.name);
        let name = name.context("no scheduler pod")?;
        let mut command = installation.kubectl();
        command.args([
            "-n",
            &namespace,
            "port-forward",
            &format!("pod/{name}"),
            ":8443",
        ]);
        let mut forward = command.stdout(Stdio::piped()).spawn()?;
        let output = forward.stdout.take().context("no output")?;
        // "Forwarding from 127.0.0.1:34567 -> 8443"
        let (line, output) = tokio::task::spawn_blocking(move || {
            let (mut line, mut output) = (String::new(), BufReader::new(output));
            output.read_line(&mut line).map(|_| (line, output))
        })
        .await??;
        let port = line
            .split(['>', ' '])
            .find_map(|word| word.rsplit_once(':')?.1.parse().ok())
            .with_context(|| format!("kubectl says {line:?}"))?;
        let client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(ca.as_bytes())?])
            .resolve(SERVER, SocketAddr::from(([127, 0, 0, 1], port)))
            .build()?;
        Ok(Self {
            forward,
            _output: output,
            client,
            port,
        })
    }

    /// Status of the answer, and its first bytes where it is a stream.
    async fn knock(&self, node: &str, token: Option<&str>) -> Result<(u16, String)> {
        let url = format!("https://{SERVER}:{}{}", self.port, assignments_path(node));
        let mut request = self.client.get(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = tokio::time::timeout(Duration::from_secs(20), async {
            let mut response = request.send().await?;
            let status = response.status().as_u16();
            let first = response.chunk().await?.unwrap_or_default();
            anyhow::Ok((status, String::from_utf8_lossy(&first).into_owned()))
        });
        answer.await.context("no answer from the scheduler")?
    }
}

/// A token of `account`, bound to `pod`.
async fn token(
    client: &Client,
    namespace: &str,
    account: &str,
    audience: &str,
    pod: Option<&Pod>,
) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![audience.to_owned()]),
            bound_object_ref: pod.map(|pod| BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            expiration_seconds: Some(600),
        }),
        ..TokenRequest::default()
    };
    let made = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await?;
    made.status.and_then(|s| s.token).context("no token")
}

#[test]
fn a_stream_is_for_the_agent_of_its_node_alone() {
    scene("stream", |scene| async move {
        let door = Door::open(&scene).await?;
        let client = scene.client();
        let system = &scene.environment.installation.namespace;
        let pods: Api<Pod> = Api::namespaced(client.clone(), system);
        let agents = ListParams::default().labels("app.kubernetes.io/component=node-agent");
        let agents = pods.list(&agents).await?.items;
        let node = |i: usize| {
            agents
                .get(i)
                .and_then(|a| a.spec.as_ref()?.node_name.clone())
        };
        let (first, second) = (
            node(0).context("no agent")?,
            node(1).context("one agent only")?,
        );
        let agent = agents.first();

        let own = token(client, system, ACCOUNT, STREAM_AUDIENCE, agent).await?;
        let (status, answer) = door.knock(&first, Some(&own)).await?;
        ensure!(
            status == 200 && answer.contains("SNAPSHOT"),
            "own node: {status} {answer}"
        );

        let answer = door.knock(&second, Some(&own)).await?;
        ensure!(answer.0 == 403, "another node's stream: {answer:?}");
        let answer = door.knock(&first, None).await?;
        ensure!(answer.0 == 401, "no token: {answer:?}");
        let answer = door.knock(&first, Some("nonsense")).await?;
        ensure!(answer.0 == 401, "nonsense: {answer:?}");
        let wrong = token(
            client,
            system,
            ACCOUNT,
            "https://kubernetes.default.svc",
            agent,
        )
        .await?;
        let answer = door.knock(&first, Some(&wrong)).await?;
        ensure!(answer.0 == 401, "a token for another audience: {answer:?}");
        let unbound = token(client, system, ACCOUNT, STREAM_AUDIENCE, None).await?;
        let answer = door.knock(&first, Some(&unbound)).await?;
        ensure!(answer.0 == 403, "a token of no pod: {answer:?}");
        let other = token(client, system, "default", STREAM_AUDIENCE, None).await?;
        let answer = door.knock(&first, Some(&other)).await?;
        ensure!(answer.0 == 403, "another account's token: {answer:?}");
        Ok(())
    });
}

#[test]
fn a_token_dies_with_its_pod() {
    scene("dead-token", |scene| async move {
        let door = Door::open(&scene).await?;
        let client = scene.client();
        let system = &scene.environment.installation.namespace;
        let name = "e2e-short-lived-agent";
        // Bound to a node by name, so that the token names that node.
        let pods: Api<DynamicObject> = objects::api(client, system, &objects::pods());
        let hub = Hub::open(pods.clone()).await?;
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client.clone());
        let node = nodes
            .list(&ListParams::default())
            .await?
            .items
            .into_iter()
            .next();
        let node = node.and_then(|n| n.metadata.name).context("no node")?;
        let image = &scene.environment.installation.python_image;
        let container =
            json!({ "name": "sleep", "image": image, "command": ["sleep", "infinity"] });
        let spec = json!({ "spec": {
            "serviceAccountName": ACCOUNT, "nodeName": node, "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0, "containers": [container],
        }});
        let pod = objects::create(&pods, &objects::object(&objects::pods(), name, spec)).await?;
        let pod: Pod = pod.try_parse()?;
        let result = async {
            // One to show that such a token works while its pod lives; another that the scheduler has not seen before.
            let living = token(client, system, ACCOUNT, STREAM_AUDIENCE, Some(&pod)).await?;
            let answer = door.knock(&node, Some(&living)).await?;
            ensure!(answer.0 == 200, "while the pod lives: {answer:?}");
            token(client, system, ACCOUNT, STREAM_AUDIENCE, Some(&pod)).await
        };
        let result = result.await;
        pods.delete(name, &DeleteParams::default().grace_period(0))
            .await?;
        hub.expect(system, name, |o| o.is_none())
            .within(PATIENCE)
            .await?;
        let dead = result?;
        let answer = door.knock(&node, Some(&dead)).await?;
        ensure!(answer.0 == 401, "after the pod's end: {answer:?}");
        Ok(())
    });
}
