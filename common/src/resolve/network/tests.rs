use super::*;
use proptest::prelude::*;

fn access(egress: &[(&str, &[i64])]) -> NetworkAccess {
    let rule = |(domain, ports): &(&str, &[i64])| EgressRule {
        domain: (*domain).to_owned(),
        ports: Some(
            ports
                .iter()
                .map(|port| Port {
                    port: Some(*port),
                    protocol: None,
                })
                .collect(),
        ),
    };
    NetworkAccess {
        egress: Some(egress.iter().map(rule).collect()),
        ingress: None,
    }
}

fn profile(type_: NetworkPolicyType, rules: Vec<NetworkPolicyRule>) -> SandboxProfileSpec {
    SandboxProfileSpec {
        language: "python".to_owned(),
        network_policies: Some(vec![NetworkPolicy {
            type_: Some(type_),
            rules: Some(rules),
        }]),
        ..SandboxProfileSpec::default()
    }
}

fn cidr(cidr: &str, ports: &[i64]) -> NetworkPolicyRule {
    let port = |port: &i64| ProfilePort {
        port: Some(*port),
        protocol: Some(Protocol::Udp),
    };
    NetworkPolicyRule {
        domain: None,
        cidr: Some(cidr.to_owned()),
        ports: Some(ports.iter().map(port).collect()),
    }
}

fn domain(domain: &str) -> NetworkPolicyRule {
    NetworkPolicyRule {
        domain: Some(domain.to_owned()),
        cidr: None,
        ports: None,
    }
}

fn ports(rules: &NetworkRules, name: &str) -> Vec<u16> {
    rules.ports_of(name).iter().map(|rule| rule.port).collect()
}

#[test]
fn nothing_said_is_nothing_allowed() {
    let empty = NetworkAccess::default();
    for access in [None, Some(&empty), Some(&access(&[]))] {
        assert!(resolve_network(access, None, true).unwrap().is_empty());
    }
}

#[test]
fn a_name_without_ports_is_the_webs() {
    let rules = resolve_network(Some(&access(&[("PyPI.org.", &[])])), None, true).unwrap();
    assert_eq!(ports(&rules, "pypi.org"), [80, 443]);
}

#[test]
fn sandbox_and_profile_are_united_and_no_name_comes_twice() {
    let profile = profile(
        NetworkPolicyType::Egress,
        vec![
            domain("example.com"),
            domain("*.example.com"),
            cidr("203.0.113.9/24", &[53]),
            cidr("203.0.113.0/24", &[54]),
        ],
    );
    let access = access(&[("example.com", &[8443]), ("example.com", &[22])]);
    let rules = resolve_network(Some(&access), Some(&profile), true).unwrap();
    assert_eq!(ports(&rules, "example.com"), [22, 80, 443, 8443]);
    assert_eq!(ports(&rules, "a.example.com"), [80, 443]);
    let range = rules.egress.iter().next().unwrap();
    assert_eq!(
        (range.range.to_string().as_str(), range.ports.len()),
        ("203.0.113.0/24", 2)
    );
    assert_eq!((rules.names.len(), rules.egress.len()), (2, 1));
}

#[test]
fn ingress_is_everybody_or_what_the_profile_names_on_every_port() {
    let open = NetworkAccess {
        ingress: Some(true),
        egress: None,
    };
    let rules = resolve_network(Some(&open), None, true).unwrap();
    let ranges: Vec<String> = rules
        .ingress
        .iter()
        .map(|rule| rule.range.to_string())
        .collect();
    assert_eq!(ranges, ["0.0.0.0/0", "::/0"]);
    let profile = profile(
        NetworkPolicyType::Ingress,
        vec![cidr("10.0.0.0/8", &[]), cidr("10.0.0.0/8", &[80])],
    );
    let rules = resolve_network(None, Some(&profile), true).unwrap();
    // Every port is not narrowed by one more.
    assert!(rules.ingress.iter().next().unwrap().ports.is_empty());
}

#[test]
fn what_cannot_be_meant_is_refused_to_whoever_wrote_it() {
    for domain in [
        "",
        "192.0.2.1",
        "localhost",
        "a..b",
        "*",
        "*.*.b.c",
        "a b.c",
        "a.b/24",
    ] {
        let refusal = resolve_network(Some(&access(&[(domain, &[])])), None, true).unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidNetworkAccess, "{domain}");
    }
    let numberless = NetworkAccess {
        egress: Some(vec![EgressRule {
            domain: "example.com".to_owned(),
            ports: Some(vec![Port::default()]),
        }]),
        ingress: None,
    };
    assert!(resolve_network(Some(&numberless), None, true).is_err());
    let both = NetworkPolicyRule {
        cidr: Some("10.0.0.0/8".to_owned()),
        ..domain("example.com")
    };
    for (type_, rule) in [
        (NetworkPolicyType::Ingress, domain("example.com")),
        (NetworkPolicyType::Egress, both),
        (NetworkPolicyType::Egress, NetworkPolicyRule::default()),
        (NetworkPolicyType::Egress, domain("localhost")),
        (NetworkPolicyType::Egress, cidr("10.0.0.0/33", &[])),
        (NetworkPolicyType::Egress, cidr("10.0.0.0", &[])),
        (NetworkPolicyType::Egress, cidr("10.0.0.0/8", &[0])),
        (NetworkPolicyType::Egress, cidr("10.0.0.0/8", &[65536])),
    ] {
        let profile = profile(type_, vec![rule]);
        let refusal = resolve_network(None, Some(&profile), true).unwrap_err();
        assert_eq!(refusal.reason, Reason::ProfileInvalid);
    }
}

#[test]
fn more_than_can_be_enforced_is_refused_with_the_bound() {
    let names: Vec<String> = (0..=MAX_NAMES)
        .map(|n| format!("n{n}.example.com"))
        .collect();
    let many: Vec<(&str, &[i64])> = names.iter().map(|name| (name.as_str(), &[][..])).collect();
    assert!(resolve_network(Some(&access(&many[1..])), None, true).is_ok());
    let refusal = resolve_network(Some(&access(&many)), None, true).unwrap_err();
    assert!(
        refusal.message.contains("257 domains; at most 256"),
        "{}",
        refusal.message
    );
    let ports: Vec<i64> = (1..=33).collect();
    assert!(resolve_network(Some(&access(&[("example.com", &ports)])), None, true).is_err());
    let long: Vec<String> = (0..200)
        .map(|n| format!("{}.{n}.example.com", vec!["a".repeat(60); 3].join(".")))
        .collect();
    let long: Vec<(&str, &[i64])> = long.iter().map(|name| (name.as_str(), &[][..])).collect();
    assert!(resolve_network(Some(&access(&long)), None, true).is_err());
}

#[test]
fn where_network_policies_enforce_names_are_refused_and_ranges_are_not() {
    let refusal = resolve_network(Some(&access(&[("example.com", &[])])), None, false).unwrap_err();
    assert_eq!(refusal.reason, Reason::NetworkNamesUnavailable);
    let profile = profile(NetworkPolicyType::Egress, vec![cidr("10.0.0.0/8", &[53])]);
    assert!(resolve_network(None, Some(&profile), false).is_ok());
}

proptest! {
    #[test]
    fn any_text_is_refused_or_taken_and_what_is_taken_is_within_the_bounds(
        domains in prop::collection::vec("\\PC{0,80}|[a-c*]{1,3}\\.[a-c]{1,3}", 0..6),
        cidrs in prop::collection::vec("\\PC{0,20}|10\\.0\\.0\\.0/[0-9]{1,2}", 0..4),
        port in any::<i64>(),
    ) {
        let rules: Vec<(&str, &[i64])> = domains.iter().map(|domain| (domain.as_str(), std::slice::from_ref(&port))).collect();
        let profile = profile(NetworkPolicyType::Egress, cidrs.iter().map(|range| cidr(range, &[53])).collect());
        if let Ok(rules) = resolve_network(Some(&access(&rules)), Some(&profile), true) {
            prop_assert!(serde_json::to_vec(&rules).unwrap().len() <= MAX_RULES_BYTES);
            let read: NetworkRules = serde_json::from_slice(&serde_json::to_vec(&rules).unwrap()).unwrap();
            prop_assert_eq!(read.digest(), rules.digest());
        }
    }

    #[test]
    fn the_order_of_rules_does_not_matter(mut domains in prop::collection::vec("[a-c]{1,2}\\.[a-c]{1,2}", 0..6)) {
        let resolved = |domains: &[String]| {
            let rules: Vec<(&str, &[i64])> = domains.iter().map(|domain| (domain.as_str(), &[][..])).collect();
            resolve_network(Some(&access(&rules)), None, true).unwrap().digest()
        };
        let first = resolved(&domains);
        domains.reverse();
        domains.extend(domains.clone());
        prop_assert_eq!(first, resolved(&domains));
    }
}
