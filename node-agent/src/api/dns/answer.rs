//! From what a server answered to what the pod is told, and to the addresses that it may reach then. Called by [`super::exchange`] with bytes
//! that whoever owns a domain may have made up.
//!
//! Nothing is passed on as it came: the answer consists of the records that were understood and that the question leads to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::svcb::{IpHint, SvcParamValue};
use hickory_proto::rr::rdata::{HTTPS, SVCB};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use ipnet::IpNet;
use pilotlight_common::network::PortRule;

use super::addresses::may_be_named;
use super::query::Question;
use crate::network_protocol::{Element, Opening};

/// Longest time that an answer is good for, in seconds: so long at most goes on what a domain does not mean any more.
pub const MAX_TTL: u32 = 3600;
/// Longest time that "there is nothing" is good for, in seconds: a name that is being set up is soon there.
const MAX_NOTHING: u32 = 30;
/// How much longer than the answer is good for its addresses may be reached, in seconds: between the look and the connection.
const GRACE: u32 = 30;
/// Most addresses of one answer; what else it names is left out.
pub const MAX_ADDRESSES: usize = 64;
/// Most records of other kinds in one answer.
const MAX_RECORDS: usize = 32;
/// Longest chain of names that stand for another.
const MAX_CHAIN: usize = 16;

/// What the pod is told.
#[derive(Debug)]
pub struct Told {
    /// The answer.
    pub message: Message,
    /// What must be opened before it goes out.
    pub openings: Vec<Opening>,
    /// Addresses that were left out because they are not public.
    pub withheld: usize,
    /// Seconds that it may be given again for; none where nobody said.
    pub good_for: u32,
}

/// Why an answer of a server is worth nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadAnswer {
    /// It cannot be read.
    #[error("it cannot be read")]
    Malformed,
    /// It is to another question.
    #[error("it is to another question")]
    Mismatch,
    /// It did not fit; over TCP it will.
    #[error("it did not fit")]
    Truncated,
    /// The server failed.
    #[error("the server failed")]
    Failed,
}

/// Reads a server's answer to `question`, which it was asked under number `id`. Addresses that are not public count within `ranges` only.
pub fn read(
    bytes: &[u8],
    id: u16,
    question: &Question,
    ports: &BTreeSet<PortRule>,
    ranges: &[IpNet],
) -> Result<Told, BadAnswer> {
    let message = Message::from_vec(bytes).map_err(|_| BadAnswer::Malformed)?;
    let [query] = message.queries.as_slice() else {
        return Err(BadAnswer::Mismatch);
    };
    if message.metadata.message_type != MessageType::Response
        || message.metadata.id != id
        || *query.name() != question.name
        || query.query_type() != question.kind
        || query.query_class() != DNSClass::IN
    {
        return Err(BadAnswer::Mismatch);
    }
    if message.metadata.truncation {
        return Err(BadAnswer::Truncated);
    }
    let code = message.metadata.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Err(BadAnswer::Failed);
    }
    let mut told = Told {
        message: question.answer(code),
        openings: Vec::new(),
        withheld: 0,
        good_for: 0,
    };
    let (chain, owner) = chain(&message.answers, question);
    for (at, record) in chain.into_iter().enumerate() {
        // The first name is said as it was asked, in whatever case the server said it.
        let name = if at == 0 {
            question.name.clone()
        } else {
            record.name.clone()
        };
        let ttl = record.ttl.min(MAX_TTL);
        told.message
            .add_answer(Record::from_rdata(name, ttl, record.data.clone()));
    }
    let first = told.message.answers.is_empty();
    let mut found = question.kind == RecordType::CNAME && !first;
    let mut opened = BTreeSet::new();
    let mut records = 0;
    for record in &message.answers {
        if record.name != owner
            || record.dns_class != DNSClass::IN
            || record.record_type() != question.kind
            || question.kind == RecordType::CNAME
        {
            continue;
        }
        let room = MAX_ADDRESSES.saturating_sub(opened.len());
        let Some((data, addresses)) = admitted(&record.data, ranges, room, &mut told.withheld)
        else {
            continue;
        };
        if addresses.is_empty() {
            records += 1;
            if records > MAX_RECORDS {
                continue;
            }
        }
        let ttl = record.ttl.min(MAX_TTL);
        for address in addresses {
            if opened.insert(address) {
                told.openings.extend(ports.iter().map(|port| Opening {
                    element: Element {
                        address,
                        port: *port,
                    },
                    seconds: ttl + GRACE,
                }));
            }
        }
        let name = if first {
            question.name.clone()
        } else {
            owner.clone()
        };
        told.message.add_answer(Record::from_rdata(name, ttl, data));
        found = true;
    }
    told.good_for = good_for(&told.message.answers, found, &message.authorities);
    Ok(told)
}

/// How long an answer may be given again: as long as each of its records is good, and where it says that there is nothing, as long as the
/// zone says that this may be believed (RFC 2308).
fn good_for(told: &[Record], found: bool, authorities: &[Record]) -> u32 {
    let records = told.iter().map(|record| record.ttl).min();
    if found {
        return records.unwrap_or(0);
    }
    let nothing = authorities.iter().find_map(|record| match &record.data {
        RData::SOA(zone) => Some(record.ttl.min(zone.minimum).min(MAX_NOTHING)),
        _ => None,
    });
    nothing.map_or(0, |nothing| records.unwrap_or(nothing).min(nothing))
}

/// The names that stand for others, from the asked one on, and the last of them.
fn chain<'a>(answers: &'a [Record], question: &Question) -> (Vec<&'a Record>, Name) {
    let (mut found, mut owner) = (Vec::new(), question.name.clone());
    while found.len() < MAX_CHAIN {
        let next = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == owner && record.dns_class == DNSClass::IN => {
                Some((record, target.0.clone()))
            }
            _ => None,
        });
        let Some((record, target)) = next else {
            break;
        };
        found.push(record);
        owner = target;
    }
    (found, owner)
}

/// What of a record is told, and the addresses it names; nothing where there is no room for it, or it may not be named.
fn admitted(
    data: &RData,
    ranges: &[IpNet],
    room: usize,
    withheld: &mut usize,
) -> Option<(RData, Vec<IpAddr>)> {
    let mut single = |address: IpAddr| {
        if !may_be_named(address, ranges) {
            *withheld += 1;
            return None;
        }
        (room > 0).then(|| (data.clone(), vec![address.to_canonical()]))
    };
    match data {
        RData::A(address) => single(IpAddr::V4(address.0)),
        RData::AAAA(address) => single(IpAddr::V6(address.0)),
        RData::HTTPS(HTTPS(service)) => {
            let (service, addresses) = hints(service, ranges, room, withheld);
            Some((RData::HTTPS(HTTPS(service)), addresses))
        }
        RData::SVCB(service) => {
            let (service, addresses) = hints(service, ranges, room, withheld);
            Some((RData::SVCB(service), addresses))
        }
        RData::TXT(_) | RData::MX(_) | RData::SRV(_) => Some((data.clone(), Vec::new())),
        _ => None,
    }
}

/// A service with those of its addresses that may be named.
fn hints(
    service: &SVCB,
    ranges: &[IpNet],
    room: usize,
    withheld: &mut usize,
) -> (SVCB, Vec<IpAddr>) {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut admit = |address: IpAddr| {
        let named = may_be_named(address, ranges);
        *withheld += usize::from(!named);
        let admitted = named && addresses.len() < room;
        if admitted {
            addresses.push(address.to_canonical());
        }
        admitted
    };
    let mut service = service.clone();
    service.svc_params.retain_mut(|(_, value)| match value {
        SvcParamValue::Ipv4Hint(IpHint(hints)) => {
            hints.retain(|hint| admit(hint.0.into()));
            !hints.is_empty()
        }
        SvcParamValue::Ipv6Hint(IpHint(hints)) => {
            hints.retain(|hint| admit(hint.0.into()));
            !hints.is_empty()
        }
        _ => true,
    });
    (service, addresses)
}

#[cfg(test)]
mod tests;
