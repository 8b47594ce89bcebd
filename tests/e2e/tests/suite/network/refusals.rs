//! Everything a sandbox could try, in one go, under each of the runtimes.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use pilotlight_bench::outside::{Meaning, Outside};
use pilotlight_cluster::{API_SERVICE, DNS_SERVICE, OUTSIDE_DOMAIN};
use pilotlight_common::names::conditions::NETWORK_BLOCKED;
use pilotlight_e2e::environment::PATIENCE;
use pilotlight_e2e::reach::{Tries, egress, ended, refused};
use pilotlight_e2e::scene::Scene;
use pilotlight_e2e::state::condition;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{A, ANY, SERVER, TXT, address, in_background, levels, name_of, sandbox, with_internet};

/// Where the cloud tells a machine its secrets.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

#[test]
fn a_sandbox_reaches_an_allowed_name_and_nothing_else_under_runc() {
    let [(_, fields), _] = levels();
    with_internet("reach-runc", |scene, outside| async move {
        nothing_else(&scene, outside, fields).await
    });
}

#[test]
fn a_sandbox_reaches_an_allowed_name_and_nothing_else_under_gvisor() {
    let [_, (_, fields)] = levels();
    with_internet("reach-gvisor", |scene, outside| async move {
        nothing_else(&scene, outside, fields).await
    });
}

/// The addresses of the nodes.
async fn nodes(scene: &Scene) -> Result<Vec<IpAddr>> {
    let nodes: Api<Node> = Api::all(scene.client().clone());
    let mut addresses = Vec::new();
    for node in nodes.list(&ListParams::default()).await? {
        let all = node.status.and_then(|status| status.addresses);
        let own = all.into_iter().flatten();
        let internal = own.filter(|address| address.type_ == "InternalIP");
        for address in internal {
            addresses.push(address.address.parse()?);
        }
    }
    ensure!(!addresses.is_empty(), "no node has an address");
    Ok(addresses)
}

/// A sandbox that may reach three names, another that lets everybody in, and what there is beside.
struct Stage<'a> {
    scene: &'a Scene,
    outside: &'a Outside,
    /// Allowed on 443, on the usual ports, and by a wildcard on 8443.
    api: String,
    web: String,
    below: String,
    /// Not allowed: at the address of `api`, and at another.
    beside: String,
    other: String,
    /// The pod that tries, and the address of the one that lets everybody in.
    pod: String,
    peer: IpAddr,
}

async fn nothing_else(scene: &Scene, outside: &Outside, fields: Value) -> Result<()> {
    let servers = outside.addresses();
    let mean =
        |label: &str, at: usize| name_of(scene, outside, label, Meaning::addresses([servers[at]]));
    let (api, web, below) = (mean("api", 0), mean("web", 1), mean("a.wild", 2));
    let wildcard = below.replacen('a', "*", 1);
    let peer = sandbox(scene, "peer", json!({}), json!({ "ingress": true })).await?;
    in_background(scene, &peer, SERVER).await?;
    let access =
        json!({ "egress": [egress(&api, &[443]), egress(&web, &[]), egress(&wildcard, &[8443])] });
    let stage = Stage {
        scene,
        outside,
        beside: mean("beside", 0),
        other: mean("other", 3),
        pod: sandbox(scene, "tries", fields, access).await?,
        peer: address(&scene.pod(&peer)?)?,
        api,
        web,
        below,
    };
    stage.reaches_what_it_may().await?;
    stage.is_refused_packets().await?;
    stage.is_refused_queries().await?;
    stage.tells_its_user().await?;
    stage.lets_nobody_in().await
}

impl Stage<'_> {
    async fn reaches_what_it_may(&self) -> Result<()> {
        let first = self.outside.addresses()[0];
        let api = &self.api;
        let ends = Tries::default()
            .name("api", api)
            .greeted("api https", api, 443)
            .greeted("api upper case", &format!("{}.", api.to_uppercase()), 443)
            .greeted("web https", &self.web, 443)
            .greeted("web http", &self.web, 80)
            .greeted("below a wildcard", &self.below, 8443)
            .dns("api by query", DNS_SERVICE, api, A)
            .dns_tcp("api by query over TCP", DNS_SERVICE, api, A)
            .tcp("once more by address", first, 443)
            .from_inside(self.scene, &self.pod)
            .await?;
        ended(
            &ends,
            &[
                ("api", &first.to_string()),
                ("api https", "open"),
                ("api upper case", "open"),
                ("web https", "open"),
                ("web http", "open"),
                ("below a wildcard", "open"),
                ("api by query", "code 0 answers 1"),
                ("api by query over TCP", "code 0 answers 1"),
                ("once more by address", "open"),
            ],
        )
    }

    async fn is_refused_packets(&self) -> Result<()> {
        let servers = self.outside.addresses();
        let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let node = nodes(self.scene).await?;
        let local = self.scene.environment.installation.local();
        let host = local
            .context("only the local cluster has an internet")?
            .host_address();
        let tries = Tries::default()
            // Addresses and ports.
            .tcp("another port of the address", servers[0], 8443)
            .tcp("plain http where only https is allowed", servers[0], 80)
            .tcp(
                "another port of a name with the usual ones",
                servers[1],
                8443,
            )
            .tcp("https of a wildcard's address", servers[2], 443)
            .tcp("a bare address", servers[3], 443)
            .tcp("a bare address over http", servers[4], 80)
            .udp("QUIC to an allowed address", servers[0], 443)
            .udp("QUIC to another", servers[3], 443)
            .tcp("DNS over HTTPS by address", servers[5], 443)
            .tcp("DNS over TLS", servers[5], 853)
            .udp("DNS over QUIC", servers[5], 853)
            .tcp("mapped into IPv6", servers[3].to_ipv6_mapped(), 443)
            .tcp("IPv6", documentation, 443)
            .udp("IPv6 datagrams", documentation, 443)
            // The cluster.
            .tcp("the API server's Service", API_SERVICE, 443)
            .tcp("the API server", host, 6443)
            .tcp("the metadata address", METADATA, 80)
            .tcp("the node's kubelet", node[0], 10250)
            .tcp(
                "another node's kubelet",
                *node.last().context("a node")?,
                10250,
            )
            .udp("a port of the host", host, 5300)
            .tcp("another sandbox", self.peer, 8080)
            .udp("another sandbox by datagram", self.peer, 8080)
            // Past the transport protocols.
            .raw("a raw echo request", servers[0], 1)
            .raw("a raw packet of a tunnel", servers[0], 47)
            .ping("an echo request", servers[0])
            .from_inside(self.scene, &self.pod)
            .await?;
        let echo = "an echo request";
        ensure!(tries[echo] != "open", "{echo} was answered");
        // No error is told to sockets for echo requests under gVisor.
        let aloud = tries
            .keys()
            .map(String::as_str)
            .filter(|what| *what != echo);
        let aloud: Vec<&str> = aloud.collect();
        ensure!(aloud.len() >= 24, "too little was tried: {aloud:?}");
        refused(&tries, &aloud)
    }

    async fn is_refused_queries(&self) -> Result<()> {
        let (api, other) = (&self.api, &self.other);
        let server = self.outside.addresses()[5];
        let tunnel = format!("c2VjcmV0.data.{other}");
        let below = format!("x.{api}");
        let ends = Tries::default()
            .name("another name", other)
            .name("another name of an allowed address", &self.beside)
            .name("a name below an exact one", &below)
            .name("the name above a wildcard", &self.below[2..])
            .name("a Service", "kubernetes.default.svc.cluster.local")
            .dns("another name by query", DNS_SERVICE, other, A)
            .dns("another server", server, other, A)
            .dns_tcp("another server over TCP", server, other, A)
            .dns("a tunnel by subdomain", DNS_SERVICE, &tunnel, A)
            .dns("a tunnel back by TXT", DNS_SERVICE, &tunnel, TXT)
            .dns(
                "the domain of an allowed name",
                DNS_SERVICE,
                OUTSIDE_DOMAIN,
                A,
            )
            .dns("TXT of an allowed name", DNS_SERVICE, api, TXT)
            .dns("everything of an allowed name", DNS_SERVICE, api, ANY)
            .broadcast("broadcast", Ipv4Addr::BROADCAST, 8080)
            .broadcast("multicast", Ipv4Addr::new(224, 0, 0, 251), 5353)
            .from_inside(self.scene, &self.pod)
            .await?;
        let refusal = "code 5 answers 0";
        ended(
            &ends,
            &[
                ("another name", "refused"),
                ("another name of an allowed address", "refused"),
                ("a name below an exact one", "refused"),
                ("the name above a wildcard", "refused"),
                ("a Service", "refused"),
                ("another name by query", refusal),
                ("another server", refusal),
                ("another server over TCP", refusal),
                ("a tunnel by subdomain", refusal),
                ("a tunnel back by TXT", refusal),
                ("the domain of an allowed name", refusal),
                ("TXT of an allowed name", "code 0 answers 0"),
                ("everything of an allowed name", "code 0 answers 0"),
            ],
        )?;
        for what in ["broadcast", "multicast"] {
            let end = ends.get(what).map_or("nothing", String::as_str);
            ensure!(end != "open", "{what} was answered");
        }
        for name in [other, &self.beside, &tunnel, &below] {
            let asked = self.outside.was_asked_for(name);
            ensure!(!asked, "{name} was asked for outside");
        }
        Ok(())
    }

    /// Its user sees what to allow, and its other conditions as before.
    async fn tells_its_user(&self) -> Result<()> {
        let other = self.other.clone();
        let told = self
            .scene
            .sandboxes
            .expect(&self.scene.namespace, "tries", move |sandbox| {
                sandbox
                    .and_then(|sandbox| condition(sandbox, NETWORK_BLOCKED))
                    .and_then(|condition| condition["message"].as_str())
                    .is_some_and(|message| message.contains(&other))
            });
        told.within(PATIENCE)
            .await
            .context("the Sandbox does not say what it was refused")?;
        let sandbox = self.scene.seen("tries")?;
        let ready = condition(&sandbox, "Ready").context("it runs")?;
        ensure!(ready["status"] == "True", "{ready}");
        Ok(())
    }

    async fn lets_nobody_in(&self) -> Result<()> {
        let scene = self.scene;
        in_background(scene, &self.pod, SERVER).await?;
        let own = address(&scene.pod(&self.pod)?)?;
        let reach = json!({ "networkPolicies": [{ "type": "egress", "rules": [
            { "cidr": "10.0.0.0/8", "ports": [{ "port": 8080 }] },
        ] }] });
        scene.profile("reaches-pods", reach).await?;
        let friend = json!({ "profileRef": { "name": "reaches-pods" } });
        let friend = sandbox(scene, "friend", friend, Value::Null).await?;
        let ends = Tries::default()
            .tcp("one that lets everybody in", self.peer, 8080)
            .tcp("one that lets nobody in", own, 8080)
            .from_inside(scene, &friend)
            .await?;
        ended(&ends, &[("one that lets everybody in", "open")])?;
        let end = &ends["one that lets nobody in"];
        ensure!(end != "open", "another sandbox got in");
        Ok(())
    }
}

#[test]
fn ports_are_of_their_protocol() {
    with_internet("protocols", |scene, outside| async move {
        let [first, second, third, ..] = outside.addresses();
        let name = name_of(&scene, outside, "quic", Meaning::addresses([first]));
        let udp = json!([{ "port": 443, "protocol": "UDP" }]);
        let rules = json!({ "networkPolicies": [{ "type": "egress", "rules": [
            { "cidr": format!("{second}/32"), "ports": udp },
            { "cidr": format!("{third}/32"), "ports": [{ "port": 8443 }] },
        ] }] });
        scene.profile("quic", rules).await?;
        let access = json!({ "egress": [{ "domain": name, "ports": udp }] });
        let profile = json!({ "profileRef": { "name": "quic" } });
        let pod = sandbox(&scene, "quic", profile, access).await?;
        let ends = Tries::default()
            .name("name", &name)
            .udp("datagrams of the name", first, 443)
            .tcp("connections of the name", first, 443)
            .udp("datagrams of the range", second, 443)
            .tcp("connections of the range", second, 443)
            .udp("another port of the range", second, 8443)
            .tcp("connections of the other range", third, 8443)
            .udp("datagrams of the other range", third, 8443)
            .from_inside(&scene, &pod)
            .await?;
        let open = [
            "datagrams of the name",
            "datagrams of the range",
            "connections of the other range",
        ];
        ended(&ends, &open.map(|what| (what, "open")))?;
        refused(
            &ends,
            &[
                "connections of the name",
                "connections of the range",
                "another port of the range",
                "datagrams of the other range",
            ],
        )
    });
}
