//! From rules and destinations to the elements of sets. Used by [`super::table`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use pilotlight_common::network::{PortRule, Protocol, RangeRule};

use super::batch::{Field, Key, Set, SetKind};
use super::expression::{Family, protocol};
use crate::network_protocol::Element;

/// Destinations whose names were answered and have not expired.
pub const ALLOWED: &str = "allowed";
/// Destinations that connections were made to.
pub const LIVE: &str = "live";
/// Ranges that may be reached on some ports, and on every port.
pub const EGRESS: [&str; 2] = ["egress_ports", "egress"];
/// Ranges that may connect to some ports, and to every port.
pub const INGRESS: [&str; 2] = ["ingress_ports", "ingress"];
/// Who may connect whatever the rules, by every protocol.
pub const ALWAYS: &str = "always";

/// Most destinations open at a time; what is beyond is not opened, and its name is not answered.
const MAX_ALLOWED: u32 = 16_384;
/// Most destinations with open connections; connections to what is beyond end with the time of their names.
const MAX_LIVE: u32 = 65_536;

/// Name of a set of one family.
pub fn name(set: &str, family: Family) -> String {
    match family {
        Family::V4 => format!("{set}4"),
        Family::V6 => format!("{set}6"),
    }
}

/// Every set of a table.
pub fn all() -> Vec<Set> {
    let mut sets = Vec::new();
    for family in Family::BOTH {
        let address = Field::address(family.width());
        let mut set = |stem, kind, fields, size| {
            sets.push(Set {
                name: name(stem, family),
                kind,
                fields,
                size,
            });
        };
        let single = vec![address, Field::PROTOCOL, Field::PORT];
        set(ALLOWED, SetKind::Timed, single.clone(), Some(MAX_ALLOWED));
        set(LIVE, SetKind::Timed, single.clone(), Some(MAX_LIVE));
        for [ports, wide] in [EGRESS, INGRESS] {
            set(ports, SetKind::Ranges, single.clone(), None);
            set(wide, SetKind::Ranges, vec![address, Field::PROTOCOL], None);
        }
        set(
            ALWAYS,
            SetKind::Ranges,
            vec![address, Field::PROTOCOL],
            None,
        );
    }
    sets
}

/// The key of one destination, with the family of its set.
pub fn destination(element: &Element) -> (Family, Key) {
    let mut first = octets(element.address);
    first.extend(field(number(element.port.protocol)));
    first.extend(port(element.port.port));
    let key = Key { first, last: None };
    (Family::of(&element.address), key)
}

/// The elements that allow some ranges, sorted, by the name of the set. No two of one set overlap.
pub fn ranges(sets: [&str; 2], rules: &BTreeSet<RangeRule>) -> BTreeMap<String, Vec<Key>> {
    let [some_ports, every_port] = sets;
    let mut by_port: BTreeMap<Option<PortRule>, Vec<IpNet>> = BTreeMap::new();
    for rule in rules {
        if rule.ports.is_empty() {
            by_port.entry(None).or_default().push(rule.range);
        }
        for port in &rule.ports {
            by_port.entry(Some(*port)).or_default().push(rule.range);
        }
    }
    let mut elements: BTreeMap<String, Vec<Key>> = BTreeMap::new();
    for (port_rule, nets) in by_port {
        for net in IpNet::aggregate(&nets) {
            let family = Family::of(&net.network());
            let set = port_rule.map_or(every_port, |_| some_ports);
            let keys = elements.entry(name(set, family)).or_default();
            match port_rule {
                Some(rule) => {
                    let mut behind = field(number(rule.protocol)).to_vec();
                    behind.extend(port(rule.port));
                    keys.push(range(net, &behind, &behind));
                }
                None => {
                    for number in [protocol::TCP, protocol::UDP] {
                        keys.push(range(net, &field(number), &field(number)));
                    }
                }
            }
        }
    }
    sorted(elements)
}

/// The elements that let ranges in by every protocol, sorted, by the name of the set.
pub fn always(nets: impl IntoIterator<Item = IpNet>) -> BTreeMap<String, Vec<Key>> {
    let nets: Vec<IpNet> = nets.into_iter().collect();
    let mut elements: BTreeMap<String, Vec<Key>> = BTreeMap::new();
    for net in IpNet::aggregate(&nets) {
        let set = name(ALWAYS, Family::of(&net.network()));
        let key = range(net, &field(0), &field(u8::MAX));
        elements.entry(set).or_default().push(key);
    }
    sorted(elements)
}

/// In the order in which the kernel's answers are brought.
fn sorted(mut elements: BTreeMap<String, Vec<Key>>) -> BTreeMap<String, Vec<Key>> {
    for keys in elements.values_mut() {
        keys.sort();
    }
    elements
}

fn range(net: IpNet, first_behind: &[u8], last_behind: &[u8]) -> Key {
    let mut first = octets(net.network());
    let mut last = octets(net.broadcast());
    first.extend(first_behind);
    last.extend(last_behind);
    Key {
        first,
        last: Some(last),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A byte, padded to the width of a register.
fn field(byte: u8) -> [u8; 4] {
    [byte, 0, 0, 0]
}

fn port(number: u16) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [high, low, 0, 0]
}

fn number(of: Protocol) -> u8 {
    match of {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(range: &str, ports: &[u16]) -> RangeRule {
        let tcp = |port: &u16| PortRule {
            protocol: Protocol::Tcp,
            port: *port,
        };
        RangeRule {
            range: range.parse().unwrap(),
            ports: ports.iter().map(tcp).collect(),
        }
    }

    #[test]
    fn a_destination_is_address_protocol_and_port() {
        let element = Element {
            address: "192.0.2.1".parse().unwrap(),
            port: PortRule {
                protocol: Protocol::Udp,
                port: 0x0102,
            },
        };
        let (family, key) = destination(&element);
        assert_eq!(family, Family::V4);
        assert_eq!(key.first, [192, 0, 2, 1, 17, 0, 0, 0, 1, 2, 0, 0]);
        assert_eq!(key.last, None);
    }

    #[test]
    fn ranges_within_ranges_are_said_once_for_each_port() {
        let rules = BTreeSet::from([
            rule("10.0.0.0/8", &[443]),
            rule("10.1.0.0/16", &[443, 80]),
            rule("10.1.2.0/24", &[]),
        ]);
        let elements = ranges(EGRESS, &rules);
        assert_eq!(elements["egress_ports4"].len(), 2);
        assert_eq!(elements["egress4"].len(), 2, "one for TCP, one for UDP");
        assert_eq!(elements.len(), 2);
    }

    fn overlap(a: &Key, b: &Key) -> bool {
        let fields = |key: &Key| {
            let last = key.last.clone().unwrap_or_else(|| key.first.clone());
            let split = key.first.len()
                - if key.first.len().is_multiple_of(12) {
                    8
                } else {
                    4
                };
            [(0, split), (split, key.first.len())]
                .map(|(from, to)| (key.first[from..to].to_vec(), last[from..to].to_vec()))
        };
        fields(a)
            .iter()
            .zip(&fields(b))
            .all(|((a0, a1), (b0, b1))| a0 <= b1 && b0 <= a1)
    }

    proptest! {
        #[test]
        fn no_two_elements_of_a_set_overlap(nets in prop::collection::vec((any::<u32>(), 0u8..=32, prop::collection::btree_set(1u16..4, 0..3)), 0..20)) {
            let rules = nets.into_iter().map(|(address, length, ports)| {
                let address = std::net::Ipv4Addr::from(address & 0x0303_0303);
                let net = ipnet::Ipv4Net::new(address, length).unwrap().trunc();
                rule(&net.to_string(), &ports.into_iter().collect::<Vec<_>>())
            }).collect();
            for keys in ranges(INGRESS, &rules).values() {
                for (at, key) in keys.iter().enumerate() {
                    prop_assert!(keys[at + 1..].iter().all(|other| !overlap(key, other)));
                }
            }
        }
    }
}
