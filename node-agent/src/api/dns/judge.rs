//! Which names may be asked for. Called by [`super::query`].

use std::collections::BTreeSet;

use hickory_proto::rr::{Name, RecordType};
use pilotlight_common::network::{NetworkRules, PortRule};

/// What is said of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Judgement {
    /// It may be reached on these ports.
    Asked(BTreeSet<PortRule>),
    /// It may not. In lower case, without the trailing dot, with everything unusual escaped.
    Refused(String),
    /// It is a name that may be reached, with more behind it.
    SearchDomain,
    /// It may be reached, and what is asked of it is not told.
    Empty,
}

/// What is told of an allowed name: what it takes to reach it. Anything else would only carry messages.
const TOLD: [RecordType; 5] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::CNAME,
    RecordType::HTTPS,
    RecordType::SVCB,
];

/// Judges a question.
pub fn judge(name: &Name, kind: RecordType, rules: &NetworkRules) -> Judgement {
    let Some(text) = plain(name) else {
        return Judgement::Refused(name.to_lowercase().to_ascii());
    };
    let ports = rules.ports_of(&text);
    if !ports.is_empty() {
        return if TOLD.contains(&kind) {
            Judgement::Asked(ports)
        } else {
            Judgement::Empty
        };
    }
    let ends = text.match_indices('.').map(|(at, _)| at);
    if ends
        .into_iter()
        .any(|end| !rules.ports_of(&text[..end]).is_empty())
    {
        return Judgement::SearchDomain;
    }
    Judgement::Refused(text)
}

/// The name as rules are compared with; none where it has what no rule can name.
fn plain(name: &Name) -> Option<String> {
    let mut text = String::new();
    for label in name {
        if !label
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str, kind: RecordType) -> Judgement {
        let rules = super::super::fixtures::rules(&[("a.org", 443), ("*.b.org", 80)]);
        judge(&Name::from_ascii(name).unwrap(), kind, &rules)
    }

    #[test]
    fn only_the_name_itself_counts() {
        assert!(matches!(
            judged("a.org.", RecordType::A),
            Judgement::Asked(_)
        ));
        assert!(matches!(
            judged("x.b.org.", RecordType::HTTPS),
            Judgement::Asked(_)
        ));
        for name in ["x.a.org.", "b.org.", "aa.org.", "org.", ".", "a-org."] {
            assert!(
                matches!(judged(name, RecordType::A), Judgement::Refused(_)),
                "{name}"
            );
        }
    }

    #[test]
    fn a_label_with_a_dot_in_it_is_no_name_of_a_rule() {
        let name = Name::from_labels(vec![b"a.org".as_slice()]).unwrap();
        let rules = super::super::fixtures::rules(&[("a.org", 443)]);
        assert!(matches!(
            judge(&name, RecordType::A, &rules),
            Judgement::Refused(_)
        ));
    }

    #[test]
    fn what_is_not_told_of_a_name_is_empty() {
        assert_eq!(judged("a.org.", RecordType::NULL), Judgement::Empty);
        assert_eq!(judged("a.org.", RecordType::ANY), Judgement::Empty);
    }

    #[test]
    fn a_search_domain_is_told_from_a_name_that_is_refused() {
        assert_eq!(
            judged("a.org.svc.cluster.local.", RecordType::A),
            Judgement::SearchDomain
        );
        assert_eq!(
            judged("x.b.org.cluster.local.", RecordType::A),
            Judgement::SearchDomain
        );
        assert!(matches!(
            judged("c.org.cluster.local.", RecordType::A),
            Judgement::Refused(_)
        ));
    }
}
