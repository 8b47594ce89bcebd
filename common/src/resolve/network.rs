//! What a sandbox may reach and who may reach it: its own `networkAccess` and its profile's `networkPolicies`, united. Whatever neither
//! names is denied.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::kinds::{
    EgressRule, NetworkAccess, NetworkPolicy, NetworkPolicyRule, NetworkPolicyType, Port,
    ProfilePort, Protocol, SandboxProfileSpec,
};
use crate::network::{
    MAX_NAMES, MAX_PORTS, MAX_RANGES, MAX_RULES_BYTES, NamePattern, NameRule, NetworkRules,
    PortRule, RangeRule,
};
use crate::reasons::{Reason, Refusal};

use super::shortened;

/// Ports of an egress rule that says none, of TCP: what the web uses.
pub const DEFAULT_PORTS: [u16; 2] = [443, 80];

type Ports = BTreeSet<PortRule>;

/// Rules while they are collected: no name and no range comes twice.
#[derive(Default)]
struct Collected {
    names: BTreeMap<NamePattern, Ports>,
    egress: BTreeMap<IpNet, Ports>,
    ingress: BTreeMap<IpNet, Ports>,
}

/// The rules of a sandbox. `names`: whether domains can be enforced in this installation.
pub fn resolve_network(
    access: Option<&NetworkAccess>,
    profile: Option<&SandboxProfileSpec>,
    names: bool,
) -> Result<NetworkRules, Refusal> {
    let mut collected = Collected::default();
    if let Some(NetworkAccess { egress, ingress }) = access {
        for EgressRule { domain, ports } in egress.iter().flatten() {
            let name = NamePattern::parse(domain)
                .map_err(|error| invalid(format!("networkAccess.egress: {error}")))?;
            let ports = ports
                .iter()
                .flatten()
                .map(|Port { port, protocol }| (*port, *protocol));
            let ports = own_ports(ports).map_err(invalid)?;
            collected.names.entry(name).or_default().extend(ports);
        }
        if ingress.unwrap_or(false) {
            for everybody in [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())] {
                collected.ingress.insert(everybody, Ports::new());
            }
        }
    }
    if let Some(profile) = profile {
        for policy in profile.network_policies.iter().flatten() {
            collect(policy, &mut collected).map_err(|message| {
                Refusal::new(
                    Reason::ProfileInvalid,
                    format!("the SandboxProfile is invalid: {message}"),
                )
            })?;
        }
    }
    let rules = NetworkRules {
        names: collected
            .names
            .into_iter()
            .map(|(name, ports)| NameRule { name, ports })
            .collect(),
        egress: ranges(collected.egress),
        ingress: ranges(collected.ingress),
    };
    bounded(&rules)?;
    if !names && !rules.names.is_empty() {
        return Err(Refusal::new(
            Reason::NetworkNamesUnavailable,
            "egress by domain needs the chart's network.mode=node; NetworkPolicies know addresses only, so name them by cidr in a SandboxProfile",
        ));
    }
    Ok(rules)
}

/// Whether the rules of a profile make sense by themselves.
pub(super) fn check_policies(policies: &[NetworkPolicy]) -> Result<(), String> {
    let mut collected = Collected::default();
    policies
        .iter()
        .try_for_each(|policy| collect(policy, &mut collected))
}

fn collect(policy: &NetworkPolicy, into: &mut Collected) -> Result<(), String> {
    let NetworkPolicy { type_, rules } = policy;
    let Some(direction) = type_ else {
        return Err("a network policy says neither egress nor ingress; set its type".to_owned());
    };
    for NetworkPolicyRule {
        domain,
        cidr,
        ports,
    } in rules.iter().flatten()
    {
        let ports = ports
            .iter()
            .flatten()
            .map(|ProfilePort { port, protocol }| (*port, *protocol));
        match (domain, cidr, direction) {
            (Some(domain), None, NetworkPolicyType::Egress) => {
                let name = NamePattern::parse(domain).map_err(|error| error.to_string())?;
                into.names
                    .entry(name)
                    .or_default()
                    .extend(own_ports(ports)?);
            }
            (Some(_), None, NetworkPolicyType::Ingress) => {
                return Err(
                    "an ingress rule names a domain, and no packet says where it comes from by name; name a cidr"
                        .to_owned(),
                );
            }
            (None, Some(cidr), NetworkPolicyType::Egress) => {
                add(&mut into.egress, range(cidr)?, own_ports(ports)?);
            }
            (None, Some(cidr), NetworkPolicyType::Ingress) => {
                add(&mut into.ingress, range(cidr)?, said(ports)?);
            }
            _ => return Err("a network rule needs either a domain or a cidr".to_owned()),
        }
    }
    Ok(())
}

/// One more rule of a range; no ports are all.
fn add(ranges: &mut BTreeMap<IpNet, Ports>, range: IpNet, ports: Ports) {
    match ranges.get_mut(&range) {
        None => {
            ranges.insert(range, ports);
        }
        Some(known) if known.is_empty() || ports.is_empty() => known.clear(),
        Some(known) => known.extend(ports),
    }
}

fn ranges(ranges: BTreeMap<IpNet, Ports>) -> BTreeSet<RangeRule> {
    ranges
        .into_iter()
        .map(|(range, ports)| RangeRule { range, ports })
        .collect()
}

fn range(cidr: &str) -> Result<IpNet, String> {
    let range: Result<IpNet, _> = cidr.parse();
    match range {
        Ok(range) => Ok(range.trunc()),
        Err(_) => Err(format!(
            "\"{}\" is not a CIDR such as 203.0.113.0/24",
            shortened(cidr)
        )),
    }
}

/// The ports that are said.
fn said(ports: impl Iterator<Item = (Option<i64>, Option<Protocol>)>) -> Result<Ports, String> {
    ports
        .map(|(port, protocol)| {
            let Some(port) = port else {
                return Err("a port has no number; set port, or leave ports out".to_owned());
            };
            let number = u16::try_from(port).ok().filter(|number| *number > 0);
            match number {
                Some(port) => Ok(PortRule {
                    protocol: protocol.unwrap_or_default(),
                    port,
                }),
                None => Err(format!("port {port} is not from 1 to 65535")),
            }
        })
        .collect()
}

/// The ports that are said, or the usual ones.
fn own_ports(
    ports: impl Iterator<Item = (Option<i64>, Option<Protocol>)>,
) -> Result<Ports, String> {
    let said = said(ports)?;
    if !said.is_empty() {
        return Ok(said);
    }
    Ok(DEFAULT_PORTS
        .map(|port| PortRule {
            protocol: Protocol::Tcp,
            port,
        })
        .into())
}

fn bounded(rules: &NetworkRules) -> Result<(), Refusal> {
    let too_many = |what: &str, count: usize, most: usize| {
        Err(invalid(format!(
            "networkAccess and the SandboxProfile together have {count} {what}; at most {most} can be enforced"
        )))
    };
    if rules.names.len() > MAX_NAMES {
        return too_many("domains", rules.names.len(), MAX_NAMES);
    }
    for ranges in [&rules.egress, &rules.ingress] {
        if ranges.len() > MAX_RANGES {
            return too_many("address ranges", ranges.len(), MAX_RANGES);
        }
    }
    let of_names = rules.names.iter().map(|rule| rule.ports.len());
    let of_ranges = rules.egress.iter().chain(&rules.ingress);
    let most = of_names.chain(of_ranges.map(|rule| rule.ports.len())).max();
    if let Some(most) = most.filter(|most| *most > MAX_PORTS) {
        return too_many("ports for one destination", most, MAX_PORTS);
    }
    let length = serde_json::to_vec(rules).map_or(usize::MAX, |text| text.len());
    if length > MAX_RULES_BYTES {
        return too_many("bytes of rules", length, MAX_RULES_BYTES);
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::InvalidNetworkAccess, message)
}

#[cfg(test)]
mod tests;
