//! Which addresses an answer may name. Used by [`super::answer`].
//!
//! A name belongs to whoever owns its domain, who can let it mean an address inside of the cluster (rebinding). So what is not an
//! address of the public internet counts only where the installation or a rule of the sandbox says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Ranges of IPv4 that are not public (RFC 6890): this network, private, carriers', loopback, link-local with the clouds' metadata,
/// private, protocols, private, benchmarks, multicast, and reserved with broadcast.
const NOT_PUBLIC_V4: [(Ipv4Addr, u32); 11] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Ranges of IPv6 that are not public: local translation, discard, Teredo, unique local with a cloud's metadata, link-local, site-local
/// and multicast. Everything below ::/96 is judged apart.
const NOT_PUBLIC_V6: [(Ipv6Addr, u32); 7] = [
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// Whether an answer may name the address: it is public, or in one of the ranges.
pub fn may_be_named(address: IpAddr, ranges: &[IpNet]) -> bool {
    // In its IPv6 form it would escape a range of IPv4.
    let address = address.to_canonical();
    is_public(address) || ranges.iter().any(|range| range.contains(&address))
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !NOT_PUBLIC_V4
            .iter()
            .any(|(start, length)| (address.to_bits() ^ start.to_bits()) >> (32 - length) == 0),
        IpAddr::V6(address) => {
            if let Some(embedded) = embedded(address) {
                return is_public(embedded.into());
            }
            !NOT_PUBLIC_V6
                .iter()
                .any(|(start, length)| (address.to_bits() ^ start.to_bits()) >> (128 - length) == 0)
        }
    }
}

/// The IPv4 address that packets to this one end at: old compatible form with unspecified and loopback, mapped, translated (NAT64), 6to4.
fn embedded(whole: Ipv6Addr) -> Option<Ipv4Addr> {
    let address = |high, low| {
        Some(Ipv4Addr::from_bits(
            (u32::from(high) << 16) | u32::from(low),
        ))
    };
    match whole.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            address(high, low)
        }
        [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits(
            (u32::from(high) << 16) | u32::from(low),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(address: &str, ranges: &[&str]) -> bool {
        let ranges: Vec<IpNet> = ranges.iter().map(|r| r.parse().unwrap()).collect();
        may_be_named(address.parse().unwrap(), &ranges)
    }

    #[test]
    fn what_is_inside_is_not_named() {
        for address in [
            "0.0.0.0",
            "10.96.0.1",
            "100.64.0.1",
            "127.0.0.53",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:0a00:0001::1",
            "2001::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!named(address, &[]), "{address}");
        }
    }

    #[test]
    fn what_is_public_is_named() {
        for address in [
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "2606:4700::1",
            "64:ff9b::1.1.1.1",
            "::ffff:1.1.1.1",
        ] {
            assert!(named(address, &[]), "{address}");
        }
    }

    #[test]
    fn a_range_makes_an_exception_in_either_form() {
        assert!(named("10.1.2.3", &["10.1.0.0/16"]));
        assert!(named("::ffff:10.1.2.3", &["10.1.0.0/16"]));
        assert!(!named("10.2.2.3", &["10.1.0.0/16"]));
        assert!(named("fd00::1", &["fd00::/8"]));
    }
}
