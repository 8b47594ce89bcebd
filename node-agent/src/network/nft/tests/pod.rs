//! The table in the pod's own network namespace.

use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::time::{TimeVal, TimeValLike};
use pilotlight_common::network::{NetworkRules, Protocol, RulesDigest};

use super::scene::{
    AT_ONCE, Namespace, answers, arming, change, element, opening, range, socket_address, uid,
};
use crate::network::nft::batch::Batch;
use crate::network::nft::pod_table;
use crate::network::table::{Arming, PodTable, TableError};
use crate::network_protocol::{Close, Opening};

const FRESH: RulesDigest = RulesDigest::FRESH;

/// A pod and what is outside of it. The node is 192.0.2.1 and 2001:db8::1; others are ...2 and ...3.
struct Scene {
    pod: Namespace,
    outside: Namespace,
    table: Box<dyn PodTable>,
}

fn scene() -> Scene {
    let (pod, outside) = (Namespace::new(), Namespace::new());
    outside.link("peer", &pod, "eth0");
    pod.address("eth0", "192.0.2.10/24");
    pod.address("eth0", "2001:db8::10/64");
    for n in 1..=3 {
        outside.address("peer", &format!("192.0.2.{n}/24"));
        outside.address("peer", &format!("2001:db8::{n}/64"));
    }
    for port in [80, 443] {
        for n in 2..=3 {
            outside.echo(&format!("192.0.2.{n}:{port}"));
            outside.echo(&format!("[2001:db8::{n}]:{port}"));
        }
    }
    let table = pod_table(pod.netfilter(), &uid());
    Scene {
        pod,
        outside,
        table,
    }
}

fn node() -> Arming {
    arming(&["192.0.2.1", "2001:db8::1"])
}

fn armed() -> Scene {
    let mut scene = scene();
    scene.pod.may_connect("192.0.2.2:80");
    scene.pod.may_connect("[2001:db8::2]:80");
    assert_eq!(scene.table.arm(&node()).unwrap(), FRESH);
    scene
}

/// A listener of the pod that answers, and a way to reach it from an address of the outside.
fn from(scene: &Scene, source: &str, to: &str) -> std::io::Result<()> {
    let source = socket_address(&format!("{source}:0"));
    let to = socket_address(to);
    scene.outside.run(move || {
        let socket = UdpSocket::bind(source)?;
        socket.set_read_timeout(Some(super::scene::LOST))?;
        socket.connect(to)?;
        socket.send(b"x")?;
        socket.recv(&mut [0; 8]).map(|_| ())
    })
}

#[test]
fn a_fresh_table_lets_nothing_out_and_says_so_at_once() {
    let mut scene = armed();
    scene.outside.echo_udp("192.0.2.2:123");
    scene.outside.echo_udp("[2001:db8::2]:123");
    for to in ["192.0.2.2:80", "192.0.2.1:80", "[2001:db8::2]:80"] {
        scene.pod.is_refused(to);
    }
    scene.pod.udp_is_refused("192.0.2.2:123");
    scene.pod.udp_is_refused("[2001:db8::2]:123");
    let state = scene.table.check().unwrap();
    assert!(state.intact);
    assert!(state.refused_out >= 5, "{state:?}");
}

/// Whether somebody outside answers an ICMP echo.
fn is_echoed(scene: &Scene) -> bool {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto,
        setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd;
    const ANSWER: u8 = 0;
    const BEHIND_THE_HEADER: usize = 20;
    scene.pod.run(|| {
        let raw = socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::empty(),
            SockProtocol::Icmp,
        )
        .unwrap();
        setsockopt(&raw, sockopt::ReceiveTimeout, &TimeVal::milliseconds(300)).unwrap();
        // An echo of nothing, with its checksum.
        let echo = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
        let to = SockaddrIn::new(192, 0, 2, 2, 0);
        // Whether the sender is told by this call or the next is the kernel's.
        let _ = sendto(raw.as_raw_fd(), &echo, &to, MsgFlags::empty());
        let mut buffer = [0; 128];
        while let Ok(length) = recv(raw.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            if length > BEHIND_THE_HEADER && buffer[BEHIND_THE_HEADER] == ANSWER {
                return true;
            }
        }
        false
    })
}

#[test]
fn no_message_of_icmp_gets_out() {
    let mut scene = scene();
    assert!(is_echoed(&scene));
    scene.table.arm(&node()).unwrap();
    assert!(!is_echoed(&scene));
    assert!(scene.table.check().unwrap().refused_out >= 1);
}

#[test]
fn the_pods_own_loopback_is_its_own() {
    let scene = armed();
    scene.pod.echo("127.0.0.1:7000");
    scene.pod.echo("192.0.2.10:7001");
    scene.pod.echo("[::1]:7000");
    for to in ["127.0.0.1:7000", "192.0.2.10:7001", "[::1]:7000"] {
        scene.pod.may_connect(to);
    }
}

#[test]
fn what_was_opened_is_reached_and_nothing_beside_it() {
    let mut scene = armed();
    let openings = [
        opening("192.0.2.2:443", 60),
        opening("[2001:db8::3]:80", 60),
    ];
    scene.table.open(FRESH, &openings).unwrap();
    scene.pod.may_connect("192.0.2.2:443");
    scene.pod.may_connect("[2001:db8::3]:80");
    for to in [
        "192.0.2.2:80",
        "192.0.2.3:443",
        "[2001:db8::3]:443",
        "[2001:db8::2]:80",
    ] {
        scene.pod.is_refused(to);
    }
    // The port is open for TCP alone.
    scene.outside.echo_udp("192.0.2.2:443");
    scene.pod.udp_is_refused("192.0.2.2:443");
    let udp = Opening {
        element: element("192.0.2.2:443", Protocol::Udp),
        seconds: 60,
    };
    scene.table.open(FRESH, &[udp]).unwrap();
    scene.pod.ask_udp("192.0.2.2:443").unwrap();
}

#[test]
fn after_its_time_no_connection_begins_and_the_open_one_goes_on() {
    let mut scene = armed();
    scene
        .table
        .open(FRESH, &[opening("192.0.2.2:80", 1)])
        .unwrap();
    let open = scene.pod.connect("192.0.2.2:80", AT_ONCE).unwrap();
    assert!(answers(&open));
    let start = Instant::now();
    // Every attempt is an answer of the kernel; the time is the element's.
    while scene.pod.connect("192.0.2.2:80", AT_ONCE).is_ok() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "it never expires"
        );
    }
    scene.pod.is_refused("192.0.2.2:80");
    assert!(answers(&open), "the open connection was cut");
}

#[test]
fn an_opening_said_again_lasts_for_the_new_time() {
    let mut scene = armed();
    scene
        .table
        .open(FRESH, &[opening("192.0.2.2:80", 1)])
        .unwrap();
    scene
        .table
        .open(FRESH, &[opening("192.0.2.2:80", 3600)])
        .unwrap();
    scene
        .table
        .open(FRESH, &[opening("192.0.2.3:80", 1)])
        .unwrap();
    // What was opened later for as long as the first time of the other has expired by then.
    while scene.pod.connect("192.0.2.3:80", AT_ONCE).is_ok() {}
    scene.pod.may_connect("192.0.2.2:80");
}

#[test]
fn what_is_closed_is_cut_off_open_connections_too() {
    let mut scene = armed();
    let openings = [opening("192.0.2.2:80", 60), opening("192.0.2.3:80", 60)];
    scene.table.open(FRESH, &openings).unwrap();
    let cut = scene.pod.connect("192.0.2.2:80", AT_ONCE).unwrap();
    let kept = scene.pod.connect("192.0.2.3:80", AT_ONCE).unwrap();
    assert!(answers(&cut) && answers(&kept));
    let rules = NetworkRules {
        egress: [range("203.0.113.0/24", &[443])].into(),
        ..NetworkRules::default()
    };
    let mut configure = change(FRESH, &rules);
    configure.close = Close::Only(
        [
            element("192.0.2.2:80", Protocol::Tcp),
            // One that was never opened.
            element("192.0.2.99:80", Protocol::Tcp),
        ]
        .into(),
    );
    scene.table.configure(&configure).unwrap();
    assert!(!answers(&cut), "the connection goes on");
    scene.pod.is_refused("192.0.2.2:80");
    assert!(answers(&kept), "another connection was cut");
    scene.pod.may_connect("192.0.2.3:80");
}

#[test]
fn nothing_more_comes_in_on_a_connection_that_was_cut_off() {
    let mut scene = armed();
    let listener = scene
        .outside
        .run(|| TcpListener::bind("192.0.2.2:9000").unwrap());
    scene
        .table
        .open(FRESH, &[opening("192.0.2.2:9000", 60)])
        .unwrap();
    let inside = scene.pod.connect("192.0.2.2:9000", AT_ONCE).unwrap();
    let (mut outside, _) = listener.accept().unwrap();
    let mut configure = change(FRESH, &NetworkRules::default());
    configure.close = Close::All;
    scene.table.configure(&configure).unwrap();
    outside.write_all(b"late").unwrap();
    inside.set_read_timeout(Some(super::scene::LOST)).unwrap();
    let read = std::io::Read::read(&mut &inside, &mut [0; 8]);
    assert!(read.is_err(), "{read:?}");
}

#[test]
fn rules_that_do_not_follow_from_those_of_the_table_close_everything() {
    let mut scene = armed();
    let rules = |n: u8| NetworkRules {
        egress: [range(&format!("203.0.113.{n}/32"), &[])].into(),
        ..NetworkRules::default()
    };
    scene.table.configure(&change(FRESH, &rules(1))).unwrap();
    let digest = rules(1).digest();
    scene
        .table
        .open(digest, &[opening("192.0.2.2:80", 60)])
        .unwrap();
    // Said again, nothing is closed.
    scene.table.configure(&change(FRESH, &rules(1))).unwrap();
    scene.pod.may_connect("192.0.2.2:80");
    scene
        .table
        .configure(&change(rules(3).digest(), &rules(2)))
        .unwrap();
    scene.pod.is_refused("192.0.2.2:80");
    let late = scene.table.open(digest, &[opening("192.0.2.2:80", 60)]);
    assert!(matches!(late, Err(TableError::Stale(_))), "{late:?}");
    scene.pod.is_refused("192.0.2.2:80");
}

#[test]
fn ranges_are_reached_on_their_ports_and_replaced_as_a_whole() {
    let mut scene = armed();
    let first = NetworkRules {
        egress: [
            range("192.0.2.0/31", &[]),
            range("192.0.2.2/31", &[443]),
            range("192.0.2.0/24", &[443]),
            range("2001:db8::2/128", &[]),
        ]
        .into(),
        ..NetworkRules::default()
    };
    scene.table.configure(&change(FRESH, &first)).unwrap();
    scene.outside.echo_udp("[2001:db8::2]:123");
    for to in ["192.0.2.2:443", "192.0.2.3:443", "[2001:db8::2]:80"] {
        scene.pod.may_connect(to);
    }
    scene.pod.ask_udp("[2001:db8::2]:123").unwrap();
    for to in ["192.0.2.2:80", "[2001:db8::3]:80"] {
        scene.pod.is_refused(to);
    }
    let open = scene.pod.connect("192.0.2.2:443", AT_ONCE).unwrap();
    let second = NetworkRules {
        egress: [range("192.0.2.3/32", &[80, 443])].into(),
        ..NetworkRules::default()
    };
    scene
        .table
        .configure(&change(first.digest(), &second))
        .unwrap();
    assert!(!answers(&open), "a connection outlives its range");
    scene.pod.may_connect("192.0.2.3:80");
    scene.pod.is_refused("192.0.2.2:443");
    assert!(scene.table.check().unwrap().intact);
}

#[test]
fn only_the_node_comes_in_until_rules_say_who() {
    let mut scene = armed();
    scene.pod.echo_udp("192.0.2.10:700");
    scene.pod.echo_udp("192.0.2.10:701");
    scene.pod.echo_udp("[2001:db8::10]:700");
    from(&scene, "192.0.2.1", "192.0.2.10:700").unwrap();
    from(&scene, "[2001:db8::1]", "[2001:db8::10]:700").unwrap();
    from(&scene, "192.0.2.2", "192.0.2.10:700").unwrap_err();
    from(&scene, "[2001:db8::2]", "[2001:db8::10]:700").unwrap_err();
    assert!(scene.table.check().unwrap().dropped_in >= 2);
    scene.outside.is_dropped("[2001:db8::10]:80");

    let mut port = range("192.0.2.2/32", &[700]);
    port.ports = [pilotlight_common::network::PortRule {
        protocol: Protocol::Udp,
        port: 700,
    }]
    .into();
    let rules = NetworkRules {
        ingress: [port, range("2001:db8::/64", &[])].into(),
        ..NetworkRules::default()
    };
    scene.table.configure(&change(FRESH, &rules)).unwrap();
    from(&scene, "192.0.2.2", "192.0.2.10:700").unwrap();
    from(&scene, "[2001:db8::2]", "[2001:db8::10]:700").unwrap();
    from(&scene, "192.0.2.2", "192.0.2.10:701").unwrap_err();
    from(&scene, "192.0.2.3", "192.0.2.10:700").unwrap_err();
    // Who may connect is answered, and not otherwise reached.
    scene.pod.udp_is_refused("192.0.2.2:700");
    scene.pod.is_refused("192.0.2.1:80");
}

#[test]
fn dns_arrives_at_the_proxy_wherever_it_was_sent() {
    let mut scene = armed();
    for address in ["127.0.0.1", "[::1]"] {
        scene.pod.echo_udp(&format!("{address}:5301"));
        scene.pod.echo(&format!("{address}:5302"));
    }
    for server in ["192.0.2.2:53", "[2001:db8::2]:53", "192.0.2.1:53"] {
        scene.pod.ask_udp(server).unwrap();
        scene.pod.may_connect(server);
    }
    assert!(scene.pod.connect("192.0.2.2:853", AT_ONCE).is_err());
    // Another life of the agent has other ports; at no moment does a query get out.
    let mut next = node();
    next.proxy.udp = 5303;
    next.proxy.tcp = 5304;
    scene.pod.echo_udp("127.0.0.1:5303");
    let mut table = pod_table(scene.pod.netfilter(), &uid());
    assert_eq!(table.arm(&next).unwrap(), FRESH);
    scene.pod.ask_udp("192.0.2.2:53").unwrap();
    scene.pod.is_refused("192.0.2.2:53");
    assert!(table.check().unwrap().intact);
    assert!(
        !scene.table.check().unwrap().intact,
        "its ports are not these"
    );
}

#[test]
fn what_stands_is_kept_by_the_next_life_and_not_by_one_with_other_arguments() {
    let mut scene = armed();
    let rules = NetworkRules {
        ingress: [range("0.0.0.0/0", &[])].into(),
        ..NetworkRules::default()
    };
    scene.table.configure(&change(FRESH, &rules)).unwrap();
    let digest = rules.digest();
    scene
        .table
        .open(digest, &[opening("192.0.2.2:80", 60)])
        .unwrap();
    let open = scene.pod.connect("192.0.2.2:80", AT_ONCE).unwrap();
    let mut next = pod_table(scene.pod.netfilter(), &uid());
    assert_eq!(next.arm(&node()).unwrap(), digest);
    assert!(answers(&open));
    scene.pod.may_connect("192.0.2.2:80");
    next.open(digest, &[opening("192.0.2.3:80", 60)]).unwrap();
    assert!(next.check().unwrap().intact);

    let mut other = pod_table(scene.pod.netfilter(), &uid());
    assert_eq!(other.arm(&arming(&["192.0.2.3"])).unwrap(), FRESH);
    assert!(!answers(&open));
    scene.pod.is_refused("192.0.2.2:80");
}

#[test]
fn whatever_somebody_changes_is_found_and_everything_is_closed() {
    type Change = fn(&mut Batch);
    let changes: [(&str, Change); 5] = [
        ("a rule away", |batch| batch.flush_chain("out")),
        ("a rule more", |batch| {
            batch.add_rules("in", &[super::super::expression::Rule::new().accept()]);
        }),
        ("an element more", |batch| {
            let rules = [range("192.0.2.0/24", &[])].into();
            let elements = super::super::elements::ranges(super::super::elements::EGRESS, &rules);
            for (set, keys) in elements {
                let keys: Vec<_> = keys.into_iter().map(|key| (key, None)).collect();
                batch.add(&set, &keys);
            }
        }),
        ("the table away", Batch::remove_table),
        ("other rules said", |batch| {
            batch.remove_chain(&format!("rules_{FRESH}"));
        }),
    ];
    for (what, change) in changes {
        let mut scene = armed();
        scene
            .table
            .open(FRESH, &[opening("192.0.2.2:80", 60)])
            .unwrap();
        assert!(scene.table.check().unwrap().intact, "{what}");
        let mut batch = Batch::new("pilotlight");
        change(&mut batch);
        scene.pod.netfilter().commit(&batch).unwrap();
        let state = scene.table.check().unwrap();
        assert!(!state.intact, "{what}");
        assert_eq!(state.digest, FRESH, "{what}");
        scene.pod.is_refused("192.0.2.2:80");
        scene.pod.is_refused("192.0.2.3:80");
        assert!(scene.table.check().unwrap().intact, "{what}");
        // And where nobody looked before the next life began:
        scene.pod.netfilter().commit(&batch).unwrap();
        let mut next = pod_table(scene.pod.netfilter(), &uid());
        next.arm(&node()).unwrap();
        scene.pod.is_refused("192.0.2.3:80");
        assert!(next.check().unwrap().intact, "{what}");
    }
}

#[test]
fn tables_of_others_are_left_alone() {
    let mut scene = armed();
    let mut batch = Batch::new("other");
    batch.make_table();
    batch.make_chain("theirs", None);
    scene.pod.netfilter().commit(&batch).unwrap();
    assert!(scene.table.check().unwrap().intact);
    let mut next = pod_table(scene.pod.netfilter(), &uid());
    next.arm(&arming(&[])).unwrap();
    let mut socket = scene.pod.netfilter();
    let chains = super::super::drift::chains(&mut socket, "other").unwrap();
    assert_eq!(chains, ["theirs"]);
    super::super::tidy(&mut socket, &[]).unwrap();
    let tables = super::super::drift::tables(&mut socket).unwrap();
    assert_eq!(tables, ["other", "pilotlight"]);
}

#[test]
fn a_thousand_destinations_are_opened_at_once_and_closed_at_once() {
    let mut scene = armed();
    let many: Vec<Opening> = (0..1000)
        .map(|n| opening(&format!("203.0.{}.{}:443", n / 250, n % 250), 60))
        .chain([opening("192.0.2.2:80", 60)])
        .collect();
    scene.table.open(FRESH, &many).unwrap();
    scene.pod.may_connect("192.0.2.2:80");
    let mut configure = change(FRESH, &NetworkRules::default());
    configure.close = Close::Only(many.iter().map(|o| o.element).collect());
    scene.table.configure(&configure).unwrap();
    scene.pod.is_refused("192.0.2.2:80");
}

#[test]
fn a_table_that_is_not_there_is_not_opened() {
    let mut scene = scene();
    let result = scene.table.open(FRESH, &[opening("192.0.2.2:80", 60)]);
    assert!(matches!(result, Err(TableError::Stale(_))), "{result:?}");
    scene.table.arm(&node()).unwrap();
    let mut batch = Batch::new("pilotlight");
    batch.remove_table();
    scene.pod.netfilter().commit(&batch).unwrap();
    let result = scene.table.open(FRESH, &[opening("192.0.2.2:80", 60)]);
    assert!(matches!(result, Err(TableError::Stale(_))), "{result:?}");
}
