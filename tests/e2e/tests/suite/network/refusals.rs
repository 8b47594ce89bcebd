//! Everything a sandbox could try, in one go, under each of the runtimes.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use pilotlight_bench::outside::{Meaning, Outside};
use pilotlight_e2e::reach::{Tries, egress, ended, refused};
use pilotlight_e2e::scene::Scene;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{A, ANY, SERVER, TXT, address, in_background, levels, name_of, sandbox, with_internet};

/// Where the cloud tells a machine its secrets.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The API server's and the DNS's own Service in the local cluster.
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

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

async fn nothing_else(scene: &Scene, outside: &Outside, fields: Value) -> Result<()> {
    let servers = outside.addresses();
    let mean =
        |label: &str, at: usize| name_of(scene, outside, label, Meaning::addresses([servers[at]]));
    let (api, web) = (mean("api", 0), mean("web", 1));
    let below = mean("a.wild", 2);
    let (beside, other) = (mean("beside", 0), mean("other", 3));
    let wild = below.strip_prefix("a.").context("it has a label")?;

    let open = json!({ "ingress": true });
    let peer = sandbox(scene, "peer", json!({}), open).await?;
    in_background(scene, &peer, SERVER).await?;
    let peer = address(&scene.pod(&peer)?)?;
    let access = json!({ "egress": [egress(&api, &[443]), egress(&web, &[]), egress(&format!("*.{wild}"), &[8443])] });
    let pod = sandbox(scene, "tries", fields, access).await?;
    let own = scene.pod(&pod)?;
    let node = nodes(scene).await?;
    let host = scene
        .environment
        .installation
        .local()
        .context("an internet is there in the local cluster only")?
        .host_address();

    let allowed = Tries::default()
        .name("api", &api)
        .greeted("api https", &api, 443)
        .greeted("api upper case", &format!("{}.", api.to_uppercase()), 443)
        .greeted("web https", &web, 443)
        .greeted("web http", &web, 80)
        .greeted("below a wildcard", &below, 8443)
        .dns("api by query", DNS_SERVICE, &api, A)
        .dns_tcp("api by query over TCP", DNS_SERVICE, &api, A)
        .tcp("once more by address", servers[0], 443)
        .from_inside(scene, &pod)
        .await?;
    ended(
        &allowed,
        &[
            ("api", &servers[0].to_string()),
            ("api https", "open"),
            ("api upper case", "open"),
            ("web https", "open"),
            ("web http", "open"),
            ("below a wildcard", "open"),
            ("api by query", "code 0 answers 1"),
            ("api by query over TCP", "code 0 answers 1"),
            ("once more by address", "open"),
        ],
    )?;

    let tunnel = format!("c2VjcmV0.data.{other}");
    let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
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
        .tcp("another sandbox", peer, 8080)
        .udp("another sandbox by datagram", peer, 8080)
        // Past the transport protocols.
        .raw("a raw echo request", servers[0], 1)
        .raw("a raw packet of a tunnel", servers[0], 47)
        .ping("an echo request", servers[0])
        .from_inside(scene, &pod)
        .await?;
    let all: Vec<&str> = tries.keys().map(String::as_str).collect();
    ensure!(all.len() >= 25, "too little was tried: {all:?}");
    refused(&tries, &all)?;

    let queries = Tries::default()
        .name("another name", &other)
        .name("another name of an allowed address", &beside)
        .name("a name below an exact one", &format!("x.{api}"))
        .name("the name above a wildcard", wild)
        .name("a Service", "kubernetes.default.svc.cluster.local")
        .dns("another name by query", DNS_SERVICE, &other, A)
        .dns("another server", servers[5], &other, A)
        .dns_tcp("another server over TCP", servers[5], &other, A)
        .dns("a tunnel by subdomain", DNS_SERVICE, &tunnel, A)
        .dns("a tunnel back by TXT", DNS_SERVICE, &tunnel, TXT)
        .dns("TXT of an allowed name", DNS_SERVICE, &api, TXT)
        .dns("everything of an allowed name", DNS_SERVICE, &api, ANY)
        .dns(
            "the root of an allowed name",
            DNS_SERVICE,
            "internet.test",
            A,
        )
        .broadcast("broadcast", Ipv4Addr::BROADCAST, 8080)
        .broadcast("multicast", Ipv4Addr::new(224, 0, 0, 251), 5353)
        .from_inside(scene, &pod)
        .await?;
    let asked_back = |what: &str| {
        let end = queries.get(what).map_or("nothing", String::as_str);
        ensure!(end == "code 5 answers 0", "{what}: {end}");
        anyhow::Ok(())
    };
    for what in [
        "another name by query",
        "another server",
        "another server over TCP",
        "a tunnel by subdomain",
        "a tunnel back by TXT",
        "the root of an allowed name",
    ] {
        asked_back(what)?;
    }
    for what in ["TXT of an allowed name", "everything of an allowed name"] {
        ended(&queries, &[(what, "code 0 answers 0")])?;
    }
    for what in [
        "another name",
        "another name of an allowed address",
        "a name below an exact one",
        "the name above a wildcard",
        "a Service",
    ] {
        ended(&queries, &[(what, "refused")])?;
    }
    for what in ["broadcast", "multicast"] {
        let end = queries.get(what).map_or("nothing", String::as_str);
        ensure!(end != "open", "{what} was answered");
    }
    for name in [&other, &beside, &tunnel, &format!("x.{api}")] {
        ensure!(!outside.was_asked_for(name), "{name} was asked for outside");
    }

    // Nobody gets in either; the node does.
    in_background(scene, &pod, SERVER).await?;
    let way_in = address(&own)?;
    let reach = json!({ "networkPolicies": [{ "type": "egress", "rules": [
        { "cidr": "10.0.0.0/8", "ports": [{ "port": 8080 }] },
    ] }] });
    scene.profile("reaches-pods", reach).await?;
    let friend = json!({ "profileRef": { "name": "reaches-pods" } });
    let friend = sandbox(scene, "friend", friend, Value::Null).await?;
    let from_friend = Tries::default()
        .tcp("one that lets everybody in", peer, 8080)
        .tcp("one that lets nobody in", way_in, 8080)
        .from_inside(scene, &friend)
        .await?;
    ended(&from_friend, &[("one that lets everybody in", "open")])?;
    let end = &from_friend["one that lets nobody in"];
    ensure!(end != "open", "another sandbox got in");
    Ok(())
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
