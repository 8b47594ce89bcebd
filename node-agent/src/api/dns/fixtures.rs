//! Rules and questions for the tests.

use std::collections::BTreeSet;

use pilotlight_common::network::{NamePattern, NameRule, NetworkRules, PortRule, Protocol};

pub fn tcp(port: u16) -> PortRule {
    PortRule {
        protocol: Protocol::Tcp,
        port,
    }
}

pub fn rules(names: &[(&str, u16)]) -> NetworkRules {
    let rule = |(name, port): &(&str, u16)| NameRule {
        name: NamePattern::parse(name).unwrap(),
        ports: BTreeSet::from([tcp(*port)]),
    };
    NetworkRules {
        names: names.iter().map(rule).collect(),
        ..NetworkRules::default()
    }
}
