//! What a sandbox may reach over the network and who may reach it, as the scheduler resolves it and agents enforce it.
//!
//! The node agent's tables are made from them. [`crate::resolve`] does not make them yet: it refuses what it would make them from.
//! No rule at all is the strictest: nothing in, nothing out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use crate::kinds::Protocol;

/// Most name rules of one sandbox, its profile's among them.
pub const MAX_NAMES: usize = 256;
/// Most range rules of one sandbox, in each direction.
pub const MAX_RANGES: usize = 256;
/// Longest text of one sandbox's rules, as they are sent to its node, in bytes.
pub const MAX_RULES_BYTES: usize = 32 << 10;
/// Most ports of one rule.
pub const MAX_PORTS: usize = 32;
/// Longest domain name in its text form (RFC 1035, 255 bytes on the wire).
pub const MAX_NAME: usize = 253;

/// One port of one transport protocol.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PortRule {
    /// The protocol.
    pub protocol: Protocol,
    /// The port; never 0.
    pub port: u16,
}

/// A name as it is compared: lower case, without the trailing dot; letters, digits, `-` and `_`, with labels of 1 to 63 bytes and
/// at least two of them.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePattern {
    /// Whether it stands for every name below `name`, at any depth, and not for `name` itself.
    wildcard: bool,
    /// The name.
    name: String,
}

/// Why a text is no [`NamePattern`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("\"{text}\" is not a domain name: {problem}")]
pub struct InvalidName {
    /// The text, cut.
    text: String,
    /// What is wrong with it, and what to do.
    problem: &'static str,
}

impl NamePattern {
    /// Reads `name` or `*.name`, in either case, with or without the trailing dot.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let invalid = |problem| InvalidName {
            text: text.chars().take(80).collect(),
            problem,
        };
        let lower = text.to_ascii_lowercase();
        let (wildcard, name) = match lower.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, lower.as_str()),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.len() > MAX_NAME {
            return Err(invalid("it is longer than 253 bytes"));
        }
        if name.parse::<IpAddr>().is_ok() {
            return Err(invalid(
                "it is an address; a SandboxProfile can allow it by cidr",
            ));
        }
        if !name.contains('.') {
            return Err(invalid("it has one label only; name the whole domain"));
        }
        let plain = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        };
        if !name.split('.').all(plain) {
            return Err(invalid(
                "labels are 1 to 63 letters, digits, - and _; only the first may be *; write other scripts in their xn-- form",
            ));
        }
        Ok(Self {
            wildcard,
            name: name.to_owned(),
        })
    }

    /// Whether it stands for `name`, which is in lower case and without a trailing dot.
    pub fn matches(&self, name: &str) -> bool {
        if !self.wildcard {
            return name == self.name;
        }
        name.strip_suffix(self.name.as_str())
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|below| !below.is_empty())
    }

    /// The name without `*.`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it stands for every name below [`NamePattern::name`].
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }
}

impl std::fmt::Display for NamePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let star = if self.wildcard { "*." } else { "" };
        write!(f, "{star}{}", self.name)
    }
}

impl TryFrom<String> for NamePattern {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(&text)
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.to_string()
    }
}

/// A name that may be reached, on these ports.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct NameRule {
    /// The name.
    pub name: NamePattern,
    /// The ports, one at least.
    pub ports: BTreeSet<PortRule>,
}

/// A range of addresses: as a destination, or as a source.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct RangeRule {
    /// The range, without bits beyond its prefix.
    pub range: IpNet,
    /// The ports of the destination; none means every port of TCP and UDP.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ports: BTreeSet<PortRule>,
}

/// All that one sandbox may reach, and who may reach it. Equal rules are equal values: everything is sorted and said once.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct NetworkRules {
    /// Names that may be reached; no pattern comes twice.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub names: BTreeSet<NameRule>,
    /// Addresses that may be reached.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub egress: BTreeSet<RangeRule>,
    /// Addresses that may connect, beside the node and what the installation allows.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ingress: BTreeSet<RangeRule>,
}

impl NetworkRules {
    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.egress.is_empty() && self.ingress.is_empty()
    }

    /// The ports on which `name` may be reached; `name` is in lower case and without a trailing dot.
    pub fn ports_of(&self, name: &str) -> BTreeSet<PortRule> {
        self.names
            .iter()
            .filter(|rule| rule.name.matches(name))
            .flat_map(|rule| rule.ports.iter().copied())
            .collect()
    }

    /// Sixteen hexadecimal digits that are equal exactly where the rules are.
    pub fn digest(&self) -> RulesDigest {
        // Maps and sets are sorted, so the text is canonical; a value of these types always has one.
        let text = serde_json::to_vec(self).unwrap_or_default();
        let hash = Sha256::digest(&text);
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        RulesDigest(u64::from_be_bytes(first))
    }
}

/// Which rules a pod's table holds. [`RulesDigest::FRESH`] is a table that never had any.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RulesDigest(u64);

impl RulesDigest {
    /// Of a table that was just made: nothing is allowed, and nothing ever was.
    pub const FRESH: Self = Self(0);

    /// Reads sixteen lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let plain =
            text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        plain
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
    }
}

impl std::fmt::Display for RulesDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for RulesDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RulesDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("a digest is 16 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> NamePattern {
        NamePattern::parse(text).unwrap()
    }

    #[test]
    fn a_name_is_itself_whatever_its_case_and_last_dot() {
        assert_eq!(pattern("PyPI.org."), pattern("pypi.org"));
        assert!(pattern("pypi.org").matches("pypi.org"));
        assert!(!pattern("pypi.org").matches("files.pypi.org"));
        assert!(!pattern("pypi.org").matches("evilpypi.org"));
    }

    #[test]
    fn a_wildcard_is_everything_below_and_not_the_name_itself() {
        let below = pattern("*.pypi.org");
        assert!(below.matches("a.pypi.org"));
        assert!(below.matches("a.b.pypi.org"));
        assert!(!below.matches("pypi.org"));
        assert!(!below.matches(".pypi.org"));
        assert!(!below.matches("evilpypi.org"));
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_to_do() {
        for text in [
            "", ".", "org", "*", "*.", "*.org", "a..b", "-a.b", "a-.b", "a b.c", "a.*.b", "*.*.b",
            "10.0.0.1", "a/b.c", "ä.de", "\0.a",
        ] {
            assert!(NamePattern::parse(text).is_err(), "{text}");
        }
        let long = format!("{}.org", "a".repeat(64));
        assert!(NamePattern::parse(&long).is_err());
        let error = NamePattern::parse("10.0.0.1").unwrap_err();
        assert!(error.to_string().contains("cidr"));
    }

    #[test]
    fn the_ports_of_all_rules_that_match_count() {
        let port = |port| PortRule {
            protocol: Protocol::Tcp,
            port,
        };
        let rule = |name, number| NameRule {
            name: pattern(name),
            ports: BTreeSet::from([port(number)]),
        };
        let rules = NetworkRules {
            names: BTreeSet::from([rule("*.a.org", 443), rule("b.a.org", 80)]),
            ..NetworkRules::default()
        };
        assert_eq!(
            rules.ports_of("b.a.org"),
            BTreeSet::from([port(80), port(443)])
        );
        assert_eq!(rules.ports_of("c.a.org"), BTreeSet::from([port(443)]));
        assert!(rules.ports_of("a.org").is_empty());
    }

    #[test]
    fn different_rules_have_different_digests() {
        let none = NetworkRules::default();
        let some = NetworkRules {
            ingress: BTreeSet::from([RangeRule {
                range: "10.0.0.0/8".parse().unwrap(),
                ports: BTreeSet::new(),
            }]),
            ..NetworkRules::default()
        };
        assert_ne!(none.digest(), some.digest());
        assert_ne!(none.digest(), RulesDigest::FRESH);
        let text = serde_json::to_string(&some.digest()).unwrap();
        assert_eq!(
            serde_json::from_str::<RulesDigest>(&text).unwrap(),
            some.digest()
        );
        assert!(RulesDigest::parse("000000000000000G").is_none());
        assert!(RulesDigest::parse("+00000000000000f").is_none());
    }

    proptest! {
        #[test]
        fn what_is_taken_reads_back_as_itself(text in "[*a-z0-9._-]{0,40}") {
            if let Ok(pattern) = NamePattern::parse(&text) {
                prop_assert_eq!(NamePattern::parse(&pattern.to_string()).unwrap(), pattern);
            }
        }
    }
}
