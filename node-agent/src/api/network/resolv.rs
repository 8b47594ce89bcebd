//! Whom sandboxes' queries are passed on to: the servers of a resolv.conf. Called by [`crate::api::run`].

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Context;

/// Port of DNS.
const PORT: u16 = 53;
/// As many as the C library uses.
const MAX_SERVERS: usize = 3;

/// The servers that a file names. Their addresses are those of the cluster's DNS Service and do not change while this pod lives.
pub fn read(path: &Path) -> anyhow::Result<Vec<SocketAddr>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the DNS servers of {}", path.display()))?;
    let servers = parse(&text);
    anyhow::ensure!(
        !servers.is_empty(),
        "{} names no DNS server; is this pod's dnsPolicy ClusterFirst?",
        path.display()
    );
    Ok(servers)
}

fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())?
        })
        // An address of a link (`fe80::1%eth0`) is read as none.
        .filter_map(|word| word.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, PORT))
        .take(MAX_SERVERS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_are_taken_in_their_order_and_nothing_else_is() {
        let text = "search team.svc.cluster.local svc.cluster.local\n# nameserver 9.9.9.9\nnameserver 10.96.0.10\n\
            nameserver fe80::1%eth0\nnameserver fd00::a # the other\noptions ndots:5\n";
        let servers: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.96.0.10:53", "[fd00::a]:53"]);
        assert!(parse("").is_empty());
        assert_eq!(parse(&"nameserver 10.0.0.1\n".repeat(9)).len(), MAX_SERVERS);
    }
}
