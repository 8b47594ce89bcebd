//! The rules of a pod's table, for both places where it can be. Used by [`super::table`].
//!
//! Seen from the pod: what goes out must be to a destination that is allowed; what comes in must be from one, or from a source that is.
//! Connections are judged by every packet, in both directions, so that taking an element away cuts them off.

use std::net::IpAddr;

use super::batch::{Hook, hook};
use super::elements::{ALLOWED, ALWAYS, EGRESS, INGRESS, LIVE, name};
use super::expression::{Family, Interface, Rule, Side, loopback, protocol, state};
use crate::network::table::ProxyPorts;

/// Counter of packets out that were refused.
pub const REFUSED_OUT: &str = "refused_out";
/// Counter of packets in that were dropped.
pub const DROPPED_IN: &str = "dropped_in";

/// A connection may be silent for so long after its name's time: two hours, as the keep-alive of Linux.
const LIVE_MILLISECONDS: u64 = 2 * 3600 * 1000;
/// Port of DNS.
const DNS: u16 = 53;
/// Messages of ICMP for IPv6 that find routers and neighbours: a router's question and answer, a neighbour's.
const DISCOVERY: [u8; 4] = [133, 134, 135, 136];
/// Protocols with ports.
const WITH_PORTS: [u8; 2] = [protocol::TCP, protocol::UDP];

/// Where a table is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// In the pod's network namespace.
    Pod,
    /// In the node's.
    Node {
        /// The node's end of the pod's link.
        link: String,
        /// The pod's addresses.
        addresses: Vec<IpAddr>,
        /// Addresses of the node where the proxy listens, one of a family.
        proxy: Vec<IpAddr>,
    },
}

/// A chain and its rules.
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where it hooks in.
    pub hook: Hook,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Name of the chain that sends DNS to the proxy: the only one that depends on the proxy's ports alone.
pub const DNS_CHAIN: &str = "dns";
/// Name of the chain that keeps others from the proxy's ports on the node.
pub const GUARD_CHAIN: &str = "guard";

/// All chains, those of the proxy's ports left out.
pub fn chains(place: &Place) -> Vec<Chain> {
    let filter = |kind, hook, priority, drops| Hook {
        kind,
        hook,
        priority,
        drops,
    };
    match place {
        Place::Pod => vec![
            Chain {
                name: "out",
                hook: filter("filter", hook::OUTPUT, 0, true),
                rules: outgoing(place),
            },
            Chain {
                name: "in",
                hook: filter("filter", hook::INPUT, 0, true),
                rules: incoming(place),
            },
        ],
        // Behind the tracking of connections (-200) and before Services become endpoints (-100): as the pod sees addresses.
        // On the way in behind the rewriting of sources (100), which is when a Service's endpoint is the Service again.
        Place::Node { .. } => vec![
            Chain {
                name: "out",
                hook: filter("filter", hook::PREROUTING, -150, false),
                rules: outgoing(place),
            },
            Chain {
                name: "in",
                hook: filter("filter", hook::POSTROUTING, 150, false),
                rules: incoming(place),
            },
        ],
    }
}

/// The chains that depend on the proxy's ports.
pub fn proxy_chains(place: &Place, ports: ProxyPorts) -> Vec<Chain> {
    let by_protocol = [(protocol::UDP, ports.udp), (protocol::TCP, ports.tcp)];
    match place {
        Place::Pod => vec![Chain {
            name: DNS_CHAIN,
            hook: Hook {
                kind: "nat",
                hook: hook::OUTPUT,
                priority: -100,
                drops: false,
            },
            rules: by_protocol
                .map(|(number, port)| {
                    Rule::new()
                        .protocol(number)
                        .port(Side::Destination, DNS)
                        .redirect(port)
                })
                .to_vec(),
        }],
        Place::Node { link, proxy, .. } => {
            let mut dns = Vec::new();
            let mut guard = Vec::new();
            for address in proxy {
                for (number, port) in by_protocol {
                    dns.push(
                        Rule::new()
                            .interface(Interface::In, link, false)
                            .family(Family::of(address))
                            .protocol(number)
                            .port(Side::Destination, DNS)
                            .send_to(*address, port),
                    );
                    let to_proxy = || {
                        Rule::new()
                            .address(Side::Destination, *address, false)
                            .protocol(number)
                            .port(Side::Destination, port)
                    };
                    guard.push(to_proxy().interface(Interface::In, link, true).drop());
                }
            }
            let chain = |name, kind, hook, priority, rules| Chain {
                name,
                hook: Hook {
                    kind,
                    hook,
                    priority,
                    drops: false,
                },
                rules,
            };
            vec![
                chain(DNS_CHAIN, "nat", hook::PREROUTING, -101, dns),
                chain(GUARD_CHAIN, "filter", hook::INPUT, 0, guard),
            ]
        }
    }
}

/// What the pod sends.
fn outgoing(place: &Place) -> Vec<Rule> {
    let mut rules = Vec::new();
    match place {
        Place::Pod => {
            rules.push(Rule::new().interface(Interface::Out, "lo", false).accept());
            // Redirected queries still bear the interface that they were to leave by.
            for family in Family::BOTH {
                rules.push(
                    Rule::new()
                        .address(Side::Destination, loopback(family), false)
                        .rewritten()
                        .accept(),
                );
            }
        }
        Place::Node {
            link, addresses, ..
        } => {
            rules.push(Rule::new().interface(Interface::In, link, true).accept());
            rules.extend(discovery());
            rules.extend(spoofed(addresses));
            for number in WITH_PORTS {
                rules.push(
                    Rule::new()
                        .protocol(number)
                        .port(Side::Destination, DNS)
                        .direction(false)
                        .accept(),
                );
            }
        }
    }
    if *place == Place::Pod {
        rules.extend(discovery());
    }
    rules.extend(errors());
    // Answers to those who may connect.
    rules.extend(sources(Side::Destination, true));
    for family in Family::BOTH {
        for number in WITH_PORTS {
            let found = |set: &str| {
                Rule::new().direction(false).protocol(number).found(
                    &name(set, family),
                    family,
                    Side::Destination,
                    Some(Side::Destination),
                )
            };
            let live = name(LIVE, family);
            rules.push(found(ALLOWED).remember(&live, LIVE_MILLISECONDS).accept());
            rules.push(
                Rule::new()
                    .direction(false)
                    .state(state::ESTABLISHED)
                    .protocol(number)
                    .found(&live, family, Side::Destination, Some(Side::Destination))
                    .remember(&live, LIVE_MILLISECONDS)
                    .accept(),
            );
            rules.push(found(EGRESS[0]).accept());
        }
        rules.push(
            Rule::new()
                .direction(false)
                .found(&name(EGRESS[1], family), family, Side::Destination, None)
                .accept(),
        );
    }
    rules.push(
        Rule::new()
            .protocol(protocol::TCP)
            .count(REFUSED_OUT)
            .reset(),
    );
    rules.push(Rule::new().count(REFUSED_OUT).refuse());
    rules
}

/// What comes to the pod.
fn incoming(place: &Place) -> Vec<Rule> {
    let mut rules = Vec::new();
    match place {
        Place::Pod => {
            rules.push(Rule::new().interface(Interface::In, "lo", false).accept());
        }
        Place::Node { link, .. } => {
            rules.push(Rule::new().interface(Interface::Out, link, true).accept());
            // The kernel's own answers to what is refused: nothing else is both.
            rules.push(
                Rule::new()
                    .direction(true)
                    .state(state::RELATED)
                    .protocol(protocol::TCP)
                    .accept(),
            );
            // Answers of the proxy.
            for number in WITH_PORTS {
                rules.push(
                    Rule::new()
                        .direction(true)
                        .rewritten()
                        .protocol(number)
                        .port(Side::Source, DNS)
                        .accept(),
                );
            }
        }
    }
    rules.extend(discovery());
    rules.extend(errors());
    rules.extend(sources(Side::Source, false));
    for family in Family::BOTH {
        for number in WITH_PORTS {
            for set in [ALLOWED, LIVE, EGRESS[0]] {
                rules.push(
                    Rule::new()
                        .direction(true)
                        .protocol(number)
                        .found(&name(set, family), family, Side::Source, Some(Side::Source))
                        .accept(),
                );
            }
        }
        rules.push(
            Rule::new()
                .direction(true)
                .found(&name(EGRESS[1], family), family, Side::Source, None)
                .accept(),
        );
    }
    rules.push(Rule::new().count(DROPPED_IN).drop());
    rules
}

/// Packets of connections that sources may make: theirs, or the pod's answers. The port is always the pod's, which is at the other side
/// than the source.
fn sources(source: Side, answers: bool) -> Vec<Rule> {
    let pods_side = match source {
        Side::Source => Side::Destination,
        Side::Destination => Side::Source,
    };
    let mut rules = Vec::new();
    for family in Family::BOTH {
        let found = |set: &str, port| {
            Rule::new()
                .direction(answers)
                .found(&name(set, family), family, source, port)
        };
        rules.push(found(ALWAYS, None).accept());
        for number in WITH_PORTS {
            rules.push(
                Rule::new()
                    .direction(answers)
                    .protocol(number)
                    .found(&name(INGRESS[0], family), family, source, Some(pods_side))
                    .accept(),
            );
        }
        rules.push(found(INGRESS[1], None).accept());
    }
    rules
}

/// Finding neighbours and routers, which IPv6 does by ICMP and IPv4 does not.
fn discovery() -> Vec<Rule> {
    DISCOVERY
        .map(|number| {
            Rule::new()
                .protocol(protocol::ICMPV6)
                .icmp_type(number)
                .never_forwarded()
                .accept()
        })
        .to_vec()
}

/// Errors about packets of known connections.
fn errors() -> Vec<Rule> {
    [protocol::ICMP, protocol::ICMPV6]
        .map(|number| Rule::new().protocol(number).state(state::RELATED).accept())
        .to_vec()
}

/// Packets that say they come from somebody else. Of a family in which the pod has no address, all do.
fn spoofed(addresses: &[IpAddr]) -> Vec<Rule> {
    Family::BOTH
        .into_iter()
        .map(|family| {
            let mut own = addresses.iter().filter(|a| Family::of(a) == family);
            let rule = match own.next() {
                Some(address) => Rule::new().address(Side::Source, *address, true),
                None => Rule::new().family(family),
            };
            rule.count(REFUSED_OUT).drop()
        })
        .collect()
}
