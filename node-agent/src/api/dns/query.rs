//! Reads what a pod asks. Called by [`super::serve`] with bytes that anybody may have made up.

use std::collections::BTreeSet;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use pilotlight_common::network::{NetworkRules, PortRule};

use super::judge::{Judgement, judge};

/// Longest query that is read, in bytes. An ordinary one is below 300; padding (RFC 8467) makes it 512 at most.
pub const MAX_QUERY: usize = 1232;
/// Bytes of a message's header.
const HEADER: usize = 12;
/// Largest answer over UDP to one who does not say what it takes (RFC 1035).
pub const PLAIN: u16 = 512;
/// Largest answer over UDP: what gets through without fragments (DNS flag day 2020).
const MOST: u16 = 1232;

/// A question that can be judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// Number that the answer bears.
    pub id: u16,
    /// As it was asked, in whatever case.
    pub name: Name,
    /// What is asked of the name.
    pub kind: RecordType,
    /// Whether a server should look further, which is said again in the answer.
    pub recursion: bool,
    /// Largest answer that is taken over UDP, and whether that was said by EDNS.
    pub payload: (u16, bool),
}

/// What becomes of a query.
#[derive(Debug)]
pub enum Read {
    /// Nothing: it is no query, or too broken to be answered.
    Ignored,
    /// This answer.
    Answered(Box<Message>, Why),
    /// The servers are asked; what they answer is allowed on these ports.
    Asked(Question, BTreeSet<PortRule>),
}

/// Why a query is answered without a look further.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Why {
    /// The name may not be reached. It is in lower case and has no trailing dot.
    Refused(String),
    /// It is the name of something allowed with a search domain behind it.
    SearchDomain,
    /// Of an allowed name something is asked that is not told.
    Empty,
    /// It makes no sense, or is something else than a question for an address of the internet.
    Unsupported,
}

/// Reads a query and judges it.
pub fn read(bytes: &[u8], rules: &NetworkRules) -> Read {
    if bytes.len() < HEADER || bytes.len() > MAX_QUERY || bytes[2] & 0x80 != 0 {
        return Read::Ignored;
    }
    let id = u16::from_be_bytes([bytes[0], bytes[1]]);
    let failure = |code| {
        let message = Message::error_msg(id, OpCode::Query, code);
        Read::Answered(Box::new(message), Why::Unsupported)
    };
    let Ok(message) = Message::from_vec(bytes) else {
        return failure(ResponseCode::FormErr);
    };
    if message.metadata.message_type != MessageType::Query {
        return Read::Ignored;
    }
    if message.metadata.op_code != OpCode::Query {
        return failure(ResponseCode::NotImp);
    }
    let [query] = message.queries.as_slice() else {
        return failure(ResponseCode::FormErr);
    };
    let payload = message.edns.as_ref().map(Edns::max_payload);
    let question = Question {
        id,
        name: query.name().clone(),
        kind: query.query_type(),
        recursion: message.metadata.recursion_desired,
        payload: (
            payload.unwrap_or(PLAIN).clamp(PLAIN, MOST),
            payload.is_some(),
        ),
    };
    if query.query_class() != DNSClass::IN {
        return answered(&question, ResponseCode::Refused, Why::Unsupported);
    }
    match judge(&question.name, question.kind, rules) {
        Judgement::Refused(name) => answered(&question, ResponseCode::Refused, Why::Refused(name)),
        // "There is no such name" sends every resolver on to the next form of it. Refused, those of glibc would stop.
        Judgement::SearchDomain => answered(&question, ResponseCode::NXDomain, Why::SearchDomain),
        Judgement::Empty => answered(&question, ResponseCode::NoError, Why::Empty),
        Judgement::Asked(ports) => Read::Asked(question, ports),
    }
}

fn answered(question: &Question, code: ResponseCode, why: Why) -> Read {
    Read::Answered(Box::new(question.answer(code)), why)
}

impl Question {
    /// An answer with nothing in it yet.
    pub fn answer(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.response_code = code;
        message.metadata.recursion_desired = self.recursion;
        message.metadata.recursion_available = true;
        message.add_query(Query::query(self.name.clone(), self.kind));
        if self.payload.1 {
            let mut edns = Edns::new();
            edns.set_max_payload(MOST);
            message.set_edns(edns);
        }
        message
    }
}

/// The bytes of an answer that fit into so many; where not all do, none of its records, and the mark that says so.
pub fn encode(message: &Message, most: usize) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= most {
        return Some(bytes);
    }
    let mut short = message.clone();
    short.answers.clear();
    short.metadata.truncation = true;
    short.to_vec().ok().filter(|bytes| bytes.len() <= most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules() -> NetworkRules {
        super::super::fixtures::rules(&[("pypi.org", 443), ("*.pythonhosted.org", 443)])
    }

    fn bytes(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = 7;
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn code(read: &Read) -> ResponseCode {
        match read {
            Read::Answered(message, _) => message.metadata.response_code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_allowed_name_is_asked_for_in_whatever_case() {
        for name in ["pypi.org.", "PyPI.oRg.", "files.PythonHosted.org."] {
            let Read::Asked(question, _) = read(&bytes(name, RecordType::A), &rules()) else {
                panic!("{name}");
            };
            assert_eq!(question.id, 7);
            let back = question.answer(ResponseCode::NoError);
            assert_eq!(
                back.queries[0].name().to_ascii(),
                name,
                "the case is told back"
            );
        }
    }

    #[test]
    fn what_is_not_allowed_is_refused_and_its_name_told_of() {
        let read = read(&bytes("Secret.evil.example.", RecordType::TXT), &rules());
        assert_eq!(code(&read), ResponseCode::Refused);
        let Read::Answered(_, Why::Refused(name)) = read else {
            panic!();
        };
        assert_eq!(name, "secret.evil.example");
    }

    #[test]
    fn a_search_domain_behind_an_allowed_name_is_no_end() {
        let name = "pypi.org.default.svc.cluster.local.";
        assert_eq!(
            code(&read(&bytes(name, RecordType::A), &rules())),
            ResponseCode::NXDomain
        );
        let name = "evil.org.default.svc.cluster.local.";
        assert_eq!(
            code(&read(&bytes(name, RecordType::A), &rules())),
            ResponseCode::Refused
        );
    }

    #[test]
    fn what_is_no_question_is_not_asked_further() {
        let query = bytes("pypi.org.", RecordType::A);
        let mut response = query.clone();
        response[2] |= 0x80;
        assert!(matches!(read(&response, &rules()), Read::Ignored));
        assert!(matches!(read(&query[..11], &rules()), Read::Ignored));
        assert!(matches!(read(&[0; MAX_QUERY + 1], &rules()), Read::Ignored));
        assert_eq!(code(&read(&query[..20], &rules())), ResponseCode::FormErr);
        let mut update = query.clone();
        update[2] = (update[2] & !0x78) | (5 << 3);
        assert_ne!(code(&read(&update, &rules())), ResponseCode::NoError);
        let mut chaos = query.clone();
        let last = chaos.len() - 1;
        chaos[last] = 3;
        assert_eq!(code(&read(&chaos, &rules())), ResponseCode::Refused);
        let mut two = Message::from_vec(&query).unwrap();
        two.add_query(two.queries[0].clone());
        let two = two.to_vec().unwrap();
        assert_eq!(code(&read(&two, &rules())), ResponseCode::FormErr);
    }

    #[test]
    fn an_answer_that_does_not_fit_says_so() {
        let Read::Asked(question, _) = read(&bytes("pypi.org.", RecordType::A), &rules()) else {
            panic!();
        };
        let mut message = question.answer(ResponseCode::NoError);
        for n in 0..100 {
            let address = std::net::Ipv4Addr::new(192, 0, 2, n);
            let data = hickory_proto::rr::RData::A(address.into());
            let name = question.name.clone();
            message.add_answer(hickory_proto::rr::Record::from_rdata(name, 60, data));
        }
        let short = encode(&message, 512).unwrap();
        let short = Message::from_vec(&short).unwrap();
        assert!(short.metadata.truncation && short.answers.is_empty());
        let whole = encode(&message, 65535).unwrap();
        assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 100);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, &rules());
        }
    }
}
