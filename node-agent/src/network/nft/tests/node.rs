//! The table in the node's network namespace, for a pod whose runtime has a network stack of its own.
//!
//! The pod here has the kernel's stack and no table: what holds it must be on the node's side of its link.

use std::net::UdpSocket;

use pilotlight_common::network::{NetworkRules, Protocol, RulesDigest};

use super::scene::{
    AT_ONCE, LOST, Namespace, answers, arming, change, element, opening, range, uid,
};
use crate::network::nft::{Link, drift, node_table, tidy};
use crate::network::table::PodTable;
use crate::network_protocol::Close;

const FRESH: RulesDigest = RulesDigest::FRESH;

/// Two pods of a node and what is outside of it. The node is 10.0.0.1 (10.0.1.1 and 10.0.2.1 to its pods, fd00::1 to the first).
struct Scene {
    pod: Namespace,
    other: Namespace,
    node: Namespace,
    outside: Namespace,
    table: Box<dyn PodTable>,
}

fn link() -> Link {
    Link {
        name: "veth1".to_owned(),
        addresses: vec![
            "10.0.1.10".parse().unwrap(),
            "fd00:0:0:1::10".parse().unwrap(),
        ],
    }
}

fn table(node: &Namespace) -> Box<dyn PodTable> {
    let proxy = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    node_table(node.netfilter(), &uid(), &link(), proxy)
}

fn scene() -> Scene {
    let [pod, other, node, outside] = [(); 4].map(|()| Namespace::new());
    node.set("/proc/sys/net/ipv4/ip_forward", "1");
    node.set("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    let join = |near: &Namespace, name: &str, number: u8| {
        node.link(name, near, "eth0");
        node.address(name, &format!("10.0.{number}.1/24"));
        node.address(name, &format!("fd00:0:0:{number}::1/64"));
        near.address("eth0", &format!("10.0.{number}.10/24"));
        near.address("eth0", &format!("fd00:0:0:{number}::10/64"));
        near.ip(&format!("route add default via 10.0.{number}.1"));
        near.ip(&format!("-6 route add default via fd00:0:0:{number}::1"));
    };
    join(&pod, "veth1", 1);
    join(&other, "veth2", 2);
    join(&outside, "uplink", 3);
    node.address("lo", "10.0.0.1/32");
    node.address("lo", "fd00::1/128");
    for port in [80, 443] {
        outside.echo(&format!("10.0.3.10:{port}"));
        outside.echo(&format!("[fd00:0:0:3::10]:{port}"));
    }
    let mut table = table(&node);
    pod.may_connect("10.0.3.10:80");
    pod.may_connect("[fd00:0:0:3::10]:80");
    let arming = arming(&["10.0.0.1", "10.0.1.1", "fd00::1", "fd00:0:0:1::1"]);
    assert_eq!(table.arm(&arming).unwrap(), FRESH);
    Scene {
        pod,
        other,
        node,
        outside,
        table,
    }
}

#[test]
fn nothing_gets_past_the_link_but_what_was_opened() {
    let mut scene = scene();
    scene.node.echo("10.0.0.1:10250");
    scene.other.echo("10.0.2.10:80");
    let closed = [
        "10.0.3.10:80",
        "[fd00:0:0:3::10]:80",
        "10.0.0.1:10250",
        "10.0.2.10:80",
    ];
    for to in closed {
        scene.pod.is_refused(to);
    }
    scene.outside.echo_udp("10.0.3.10:123");
    scene.pod.udp_is_refused("10.0.3.10:123");
    let openings = [
        opening("10.0.3.10:443", 60),
        opening("[fd00:0:0:3::10]:443", 60),
    ];
    scene.table.open(FRESH, &openings).unwrap();
    scene.pod.may_connect("10.0.3.10:443");
    scene.pod.may_connect("[fd00:0:0:3::10]:443");
    for to in closed {
        scene.pod.is_refused(to);
    }
    let state = scene.table.check().unwrap();
    assert!(state.intact);
    assert!(state.refused_out >= 9, "{state:?}");
    // The other pods of the node are none of this table's business.
    scene.other.may_connect("10.0.3.10:80");
    scene.other.may_connect("10.0.0.1:10250");
}

#[test]
fn what_is_closed_is_cut_off() {
    let mut scene = scene();
    let openings = [opening("10.0.3.10:80", 60), opening("10.0.3.10:443", 60)];
    scene.table.open(FRESH, &openings).unwrap();
    let cut = scene.pod.connect("10.0.3.10:80", AT_ONCE).unwrap();
    let kept = scene.pod.connect("10.0.3.10:443", AT_ONCE).unwrap();
    assert!(answers(&cut) && answers(&kept));
    let mut configure = change(FRESH, &NetworkRules::default());
    configure.close = Close::Only([element("10.0.3.10:80", Protocol::Tcp)].into());
    scene.table.configure(&configure).unwrap();
    assert!(!answers(&cut));
    assert!(answers(&kept));
}

#[test]
fn another_address_than_its_own_gets_nowhere() {
    let mut scene = scene();
    scene.pod.address("eth0", "10.0.1.11/24");
    scene.outside.echo_udp("10.0.3.10:123");
    let rules = NetworkRules {
        egress: [range("0.0.0.0/0", &[])].into(),
        ..NetworkRules::default()
    };
    scene.table.configure(&change(FRESH, &rules)).unwrap();
    let ask = |source: &'static str| {
        scene.pod.run(move || {
            let socket = UdpSocket::bind((source, 0))?;
            socket.set_read_timeout(Some(LOST))?;
            socket.connect("10.0.3.10:123")?;
            socket.send(b"x")?;
            socket.recv(&mut [0; 8]).map(|_| ())
        })
    };
    ask("10.0.1.10").unwrap();
    ask("10.0.1.11").unwrap_err();
}

#[test]
fn only_the_node_comes_in_until_rules_say_who() {
    let mut scene = scene();
    scene.pod.echo("10.0.1.10:700");
    scene.pod.echo("10.0.1.10:701");
    scene.pod.echo("[fd00:0:0:1::10]:700");
    scene.node.may_connect("10.0.1.10:700");
    scene.node.may_connect("[fd00:0:0:1::10]:700");
    scene.other.is_dropped("10.0.1.10:700");
    scene.outside.is_dropped("[fd00:0:0:1::10]:700");
    let rules = NetworkRules {
        ingress: [range("10.0.2.0/24", &[700])].into(),
        ..NetworkRules::default()
    };
    scene.table.configure(&change(FRESH, &rules)).unwrap();
    scene.other.may_connect("10.0.1.10:700");
    scene.other.is_dropped("10.0.1.10:701");
    scene.outside.is_dropped("10.0.1.10:700");
}

#[test]
fn dns_arrives_at_the_nodes_proxy_which_nobody_else_reaches() {
    let scene = scene();
    for address in ["10.0.0.1", "[fd00::1]"] {
        scene.node.echo_udp(&format!("{address}:5301"));
        scene.node.echo(&format!("{address}:5302"));
    }
    for server in ["10.96.0.10:53", "10.0.3.10:53", "[fd00:0:0:3::10]:53"] {
        scene.pod.ask_udp(server).unwrap();
        scene.pod.may_connect(server);
    }
    // Not even the pod itself other than by a query.
    scene.pod.is_refused("10.0.0.1:5302");
    scene.other.is_dropped("10.0.0.1:5302");
    scene.outside.is_dropped("[fd00::1]:5302");
    scene.other.ask_udp("10.0.0.1:5301").unwrap_err();
}

#[test]
fn the_table_goes_when_its_link_is_gone_and_not_before() {
    let scene = scene();
    let mut socket = scene.node.netfilter();
    tidy(&mut socket, &["veth1".to_owned(), "veth2".to_owned()]).unwrap();
    assert_eq!(drift::tables(&mut socket).unwrap(), ["pilotlight_veth1"]);
    scene.pod.is_refused("10.0.3.10:80");
    tidy(&mut socket, &["veth2".to_owned()]).unwrap();
    assert!(drift::tables(&mut socket).unwrap().is_empty());
}

#[test]
fn what_stands_is_kept_by_the_next_life_and_not_by_another_pod_on_the_link() {
    let mut scene = scene();
    scene
        .table
        .open(FRESH, &[opening("10.0.3.10:80", 60)])
        .unwrap();
    let arming = arming(&["10.0.0.1", "10.0.1.1", "fd00::1", "fd00:0:0:1::1"]);
    let mut next = table(&scene.node);
    next.arm(&arming).unwrap();
    scene.pod.may_connect("10.0.3.10:80");
    let another = "1f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11".to_owned();
    let another = crate::protocol::PodUid::try_from(another).unwrap();
    let proxy = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    let mut other = node_table(scene.node.netfilter(), &another, &link(), proxy);
    other.arm(&arming).unwrap();
    scene.pod.is_refused("10.0.3.10:80");
}
