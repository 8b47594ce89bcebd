//! An internet for sandboxes to reach or not: names below `internet.test` that mean what a test says, and servers on addresses that are
//! public by their number. Used by the end-to-end tests and by the load generator; the local cluster has the addresses and asks for
//! the names.

mod dns;
mod web;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use pilotlight_cluster::{OUTSIDE_ADDRESSES, OUTSIDE_DOMAIN, Plan};
use tokio::task::JoinSet;

/// Ports that every address is served at, of TCP and UDP alike.
pub const PORTS: [u16; 4] = [80, 443, 853, 8443];
/// What is said to whoever gets through, before anything else, on TCP; and the answer to every datagram.
pub const GREETING: &str = "outside\n";

/// What a name means.
#[derive(Clone, Debug, Default)]
pub struct Meaning {
    /// Its addresses, of both families.
    pub addresses: Vec<IpAddr>,
    /// The name it is another one for.
    pub alias: Option<String>,
    /// For how long an answer is good, in seconds.
    pub ttl: u32,
}

impl Meaning {
    /// Addresses that are good for a minute.
    pub fn addresses<A: Into<IpAddr>>(addresses: impl IntoIterator<Item = A>) -> Self {
        Self {
            addresses: addresses.into_iter().map(Into::into).collect(),
            alias: None,
            ttl: 60,
        }
    }
}

/// What is known of every name, and which were asked for.
#[derive(Debug, Default)]
struct Zone {
    names: BTreeMap<String, Meaning>,
    asked: BTreeSet<String>,
}

/// The servers; they end with this.
#[derive(Debug)]
pub struct Outside {
    addresses: [Ipv4Addr; OUTSIDE_ADDRESSES],
    zone: Arc<Mutex<Zone>>,
    _servers: JoinSet<()>,
}

impl Outside {
    /// Serves the addresses of a cluster that runs.
    pub async fn serve(plan: &Plan) -> Result<Self> {
        let zone = Arc::new(Mutex::new(Zone::default()));
        let mut servers = JoinSet::new();
        dns::serve(plan.outside_dns().into(), &zone, &mut servers)
            .await
            .context("cannot answer for names")?;
        for address in plan.outside() {
            for port in PORTS {
                web::serve((address, port).into(), &mut servers)
                    .await
                    .with_context(|| format!("cannot serve {address}:{port}"))?;
            }
            // A resolver that knows every name, for those who ask it instead of the cluster's.
            dns::serve((address, 53).into(), &zone, &mut servers).await?;
        }
        Ok(Self {
            addresses: plan.outside(),
            zone,
            _servers: servers,
        })
    }

    /// The addresses that are served.
    pub fn addresses(&self) -> [Ipv4Addr; OUTSIDE_ADDRESSES] {
        self.addresses
    }

    /// From now on a name means this. Returns the whole name.
    pub fn name(&self, label: &str, meaning: Meaning) -> String {
        let name = format!("{label}.{OUTSIDE_DOMAIN}");
        self.zone().names.insert(name.clone(), meaning);
        name
    }

    /// Whether anybody asked for exactly this name, in lower case.
    pub fn was_asked_for(&self, name: &str) -> bool {
        self.zone().asked.contains(name)
    }

    fn zone(&self) -> std::sync::MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
