use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{OpCode, Query};
use hickory_proto::rr::rdata::svcb::SvcParamKey;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA, TXT};
use proptest::prelude::*;

use super::*;
use crate::api::dns::fixtures::tcp;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn question(kind: RecordType) -> Question {
    Question {
        id: 1,
        name: name("A.example.org."),
        kind,
        recursion: true,
        payload: (512, false),
    }
}

fn record(owner: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name(owner), ttl, data)
}

fn v4(address: [u8; 4]) -> RData {
    RData::A(A(Ipv4Addr::from(address)))
}

fn response(kind: RecordType, answers: Vec<Record>) -> Message {
    let mut message = Message::response(9, OpCode::Query);
    message.add_query(Query::query(name("a.example.org."), kind));
    message.add_answers(answers);
    message
}

fn told_within(message: &Message, kind: RecordType, ranges: &[IpNet]) -> Result<Told, BadAnswer> {
    let bytes = message.to_vec().unwrap_or_default();
    read(
        &bytes,
        9,
        &question(kind),
        &BTreeSet::from([tcp(443)]),
        ranges,
    )
}

fn told(kind: RecordType, answers: Vec<Record>) -> Told {
    told_within(&response(kind, answers), kind, &[]).unwrap()
}

fn addresses(told: &Told) -> Vec<String> {
    let openings = told.openings.iter();
    openings.map(|o| o.element.address.to_string()).collect()
}

#[test]
fn an_address_is_told_and_opened_for_as_long_as_it_is_good() {
    let told = told(
        RecordType::A,
        vec![record("a.example.org.", 60, v4([1, 2, 3, 4]))],
    );
    assert_eq!(told.openings.len(), 1);
    assert_eq!(told.openings[0].element.port, tcp(443));
    assert_eq!(told.openings[0].seconds, 60 + GRACE);
    assert_eq!(told.message.answers[0].name.to_ascii(), "A.example.org.");
    assert_eq!(told.message.answers[0].ttl, 60);
}

#[test]
fn no_answer_is_good_for_longer_than_the_most() {
    let told = told(
        RecordType::A,
        vec![record("a.example.org.", u32::MAX, v4([1, 2, 3, 4]))],
    );
    assert_eq!(told.message.answers[0].ttl, MAX_TTL);
    assert_eq!(told.openings[0].seconds, MAX_TTL + GRACE);
}

#[test]
fn a_chain_is_followed_and_what_is_beside_it_left_out() {
    let told = told(
        RecordType::A,
        vec![
            record("cdn.example.net.", 20, v4([1, 2, 3, 4])),
            record(
                "a.example.org.",
                300,
                RData::CNAME(CNAME(name("b.example.net."))),
            ),
            record(
                "b.example.net.",
                300,
                RData::CNAME(CNAME(name("cdn.example.net."))),
            ),
            record("other.example.net.", 20, v4([5, 6, 7, 8])),
            record(
                "cdn.example.net.",
                20,
                RData::TXT(TXT::new(vec!["x".into()])),
            ),
        ],
    );
    assert_eq!(addresses(&told), ["1.2.3.4"]);
    assert_eq!(told.message.answers.len(), 3);
}

#[test]
fn a_chain_without_an_end_ends() {
    let told = told(
        RecordType::A,
        vec![
            record("a.example.org.", 1, RData::CNAME(CNAME(name("b.org.")))),
            record("b.org.", 1, RData::CNAME(CNAME(name("a.example.org.")))),
        ],
    );
    assert_eq!(told.message.answers.len(), MAX_CHAIN);
    assert!(told.openings.is_empty());
}

#[test]
fn what_is_not_public_is_withheld_but_for_ranges() {
    let answers = vec![
        record("a.example.org.", 60, v4([10, 0, 0, 1])),
        record("a.example.org.", 60, v4([1, 2, 3, 4])),
        record("a.example.org.", 60, v4([169, 254, 169, 254])),
    ];
    let message = response(RecordType::A, answers);
    let told = told_within(&message, RecordType::A, &[]).unwrap();
    assert_eq!(
        (addresses(&told), told.withheld),
        (vec!["1.2.3.4".to_owned()], 2)
    );
    assert_eq!(told.message.answers.len(), 1);
    let ranges = ["10.0.0.0/8".parse().unwrap()];
    let told = told_within(&message, RecordType::A, &ranges).unwrap();
    assert_eq!(addresses(&told), ["10.0.0.1", "1.2.3.4"]);
}

#[test]
fn the_addresses_that_a_service_hints_at_count() {
    let hints = vec![
        (
            SvcParamKey::Ipv4Hint,
            SvcParamValue::Ipv4Hint(IpHint(vec![
                A(Ipv4Addr::new(1, 2, 3, 4)),
                A(Ipv4Addr::new(10, 0, 0, 1)),
            ])),
        ),
        (
            SvcParamKey::Ipv6Hint,
            SvcParamValue::Ipv6Hint(IpHint(vec![AAAA(Ipv6Addr::LOCALHOST)])),
        ),
    ];
    let service = HTTPS(SVCB::new(1, Name::root(), hints));
    let told = told(
        RecordType::HTTPS,
        vec![record("a.example.org.", 60, RData::HTTPS(service))],
    );
    assert_eq!(
        (addresses(&told), told.withheld),
        (vec!["1.2.3.4".to_owned()], 2)
    );
    let RData::HTTPS(HTTPS(service)) = &told.message.answers[0].data else {
        panic!();
    };
    assert_eq!(service.svc_params.len(), 1, "an empty hint is none");
}

#[test]
fn a_thousand_addresses_are_cut_to_a_few() {
    let many = (0..1000u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        record("a.example.org.", 60, v4([1, 2, high, low]))
    });
    let told = told(RecordType::A, many.collect());
    assert_eq!(told.openings.len(), MAX_ADDRESSES);
    assert_eq!(told.message.answers.len(), MAX_ADDRESSES);
}

#[test]
fn an_answer_to_something_else_is_worth_nothing() {
    let good = response(
        RecordType::A,
        vec![record("a.example.org.", 60, v4([1, 2, 3, 4]))],
    );
    let worth = |change: fn(&mut Message)| {
        let mut message = good.clone();
        change(&mut message);
        told_within(&message, RecordType::A, &[]).map(|_| ())
    };
    assert_eq!(worth(|_| {}), Ok(()));
    assert_eq!(worth(|m| m.metadata.id = 8), Err(BadAnswer::Mismatch));
    assert_eq!(
        worth(|m| m.metadata.message_type = MessageType::Query),
        Err(BadAnswer::Mismatch)
    );
    assert_eq!(
        worth(|m| m.queries[0] = Query::query(name("b.org."), RecordType::A)),
        Err(BadAnswer::Mismatch)
    );
    assert_eq!(worth(|m| m.queries.clear()), Err(BadAnswer::Mismatch));
    assert_eq!(
        worth(|m| m.metadata.truncation = true),
        Err(BadAnswer::Truncated)
    );
    assert_eq!(
        worth(|m| m.metadata.response_code = ResponseCode::ServFail),
        Err(BadAnswer::Failed)
    );
    assert_eq!(
        worth(|m| m.metadata.response_code = ResponseCode::NXDomain),
        Ok(())
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes, 9, &question(RecordType::A), &BTreeSet::from([tcp(443)]), &[]);
    }

    #[test]
    fn a_mangled_answer_opens_nothing_that_is_not_public(at in 0usize..60, byte: u8) {
        let good = response(RecordType::A, vec![record("a.example.org.", 60, v4([10, 2, 3, 4]))]);
        let mut bytes = good.to_vec().unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(told) = read(&bytes, 9, &question(RecordType::A), &BTreeSet::from([tcp(443)]), &[]) {
            prop_assert!(told.openings.iter().all(|o| may_be_named(o.element.address, &[])));
        }
    }
}

#[test]
fn an_answer_is_good_as_long_as_each_of_its_records() {
    let alias = RData::CNAME(CNAME(name("b.example.net.")));
    let answers = vec![
        record("a.example.org.", 20, alias.clone()),
        record("b.example.net.", 300, v4([1, 2, 3, 4])),
        record("b.example.net.", 90, v4([1, 2, 3, 5])),
    ];
    assert_eq!(told(RecordType::A, answers).good_for, 20);
    let alone = vec![record("a.example.org.", 20, alias)];
    assert_eq!(told(RecordType::CNAME, alone.clone()).good_for, 20);
    let nowhere = told(RecordType::A, alone).good_for;
    assert_eq!(nowhere, 0, "nobody said how long there is no address");
}

#[test]
fn nothing_is_believed_as_long_as_the_zone_says_and_not_for_long() {
    for (ttl, minimum, good_for) in [(10, 3600, 10), (3600, 5, 5), (3600, 3600, 30)] {
        let mut message = response(RecordType::AAAA, Vec::new());
        let zone = SOA::new(name("ns.org."), name("m.org."), 1, 1, 1, 1, minimum);
        message.add_authority(record("example.org.", ttl, RData::SOA(zone)));
        let told = told_within(&message, RecordType::AAAA, &[]).unwrap();
        assert_eq!(told.good_for, good_for);
        assert!(told.message.answers.is_empty() && told.message.authorities.is_empty());
    }
    assert_eq!(told(RecordType::AAAA, Vec::new()).good_for, 0);
}
