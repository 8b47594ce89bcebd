//! DNS messages: what a pod asks and what a server answers are any bytes. Whatever comes of them opens only public addresses, on the ports
//! of the rule, for a bounded time.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use pilotlight_common::network::{NamePattern, NameRule, NetworkRules, PortRule, Protocol};
use pilotlight_node_agent::api::dns::addresses::may_be_named;
use pilotlight_node_agent::api::dns::answer::{self, MAX_ADDRESSES, MAX_TTL};
use pilotlight_node_agent::api::dns::query::{self, Question, Read};

const PORT: PortRule = PortRule {
    protocol: Protocol::Tcp,
    port: 443,
};

fuzz_target!(|data: &[u8]| {
    let rules = NetworkRules {
        names: ["a.org", "*.b.org"]
            .iter()
            .filter_map(|name| NamePattern::parse(name).ok())
            .map(|name| NameRule {
                name,
                ports: BTreeSet::from([PORT]),
            })
            .collect(),
        ..NetworkRules::default()
    };
    // A query and, behind its length in one byte, an answer to it.
    let Some((length, rest)) = data.split_first() else {
        return;
    };
    let (asked, answered) = rest.split_at(usize::from(*length).min(rest.len()));
    match query::read(asked, &rules) {
        Read::Ignored => {}
        Read::Answered(message, _) => {
            assert!(message.answers.is_empty());
            assert!(query::encode(&message, 512).is_none_or(|bytes| bytes.len() <= 512));
        }
        Read::Asked(question, ports) => answer_to(&question, &ports, answered),
    }
});

fn answer_to(question: &Question, ports: &BTreeSet<PortRule>, bytes: &[u8]) {
    assert_eq!(*ports, BTreeSet::from([PORT]));
    // The number of the answer is whatever it says: a mutation need not find it.
    let id = match bytes {
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    };
    let Ok(told) = answer::read(bytes, id, question, ports, &[]) else {
        return;
    };
    assert!(told.openings.len() <= MAX_ADDRESSES);
    for opening in &told.openings {
        assert_eq!(opening.element.port, PORT);
        assert!(may_be_named(opening.element.address, &[]));
        assert!((1..=2 * MAX_TTL).contains(&opening.seconds));
    }
    assert!(
        told.message
            .answers
            .iter()
            .all(|record| record.ttl <= MAX_TTL)
    );
    let _ = query::encode(&told.message, 65535);
}
