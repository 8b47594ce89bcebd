//! The seam between what finds pods and hands out sockets, and what writes rules into the kernel. [`super::nft`] has the two
//! implementations.

use std::net::IpAddr;

use ipnet::IpNet;
use pilotlight_common::network::RulesDigest;

use crate::network_protocol::{Configure, NetworkProblem, Opening};

/// Ports that the pod's DNS queries are redirected to. Whatever the pod sends to port 53, it arrives there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProxyPorts {
    /// Of UDP.
    pub udp: u16,
    /// Of TCP.
    pub tcp: u16,
}

/// What a pod's table is made with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Arming {
    /// Where its DNS queries go.
    pub proxy: ProxyPorts,
    /// Addresses that may always connect: those of the node.
    pub node_addresses: Vec<IpAddr>,
    /// Ranges that may always connect, by the chart.
    pub ingress_ranges: Vec<IpNet>,
}

/// Why the kernel's tables could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The kernel cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// The table is gone or another's, or its digest is not the one expected.
    #[error("{0}")]
    Stale(String),
    /// The kernel refused a step.
    #[error("cannot {step}: {source}")]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl TableError {
    /// The word for `api`.
    pub fn problem(&self) -> NetworkProblem {
        match self {
            Self::Unsupported(_) => NetworkProblem::Unsupported,
            Self::Stale(_) => NetworkProblem::Stale,
            Self::Kernel { .. } => NetworkProblem::Failed,
        }
    }
}

/// How a table stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TableState {
    /// What it says.
    pub digest: RulesDigest,
    /// Whether it is exactly what it must be.
    pub intact: bool,
    /// Packets out that were refused.
    pub refused_out: u64,
    /// Packets in that were dropped.
    pub dropped_in: u64,
}

/// The rules of one pod, in whichever namespace they are.
pub trait PodTable: Send {
    /// Makes the table, or takes the one that is there where it is exactly what these arguments make, changing nothing but the proxy's
    /// ports. At no moment is anything open that was not. Returns what the table says afterwards.
    fn arm(&mut self, arming: &Arming) -> Result<RulesDigest, TableError>;

    /// Puts rules in force, in one step.
    fn configure(&mut self, configure: &Configure) -> Result<(), TableError>;

    /// Lets the pod reach destinations, where the table says `digest`. An element that is there stays for the new time.
    fn open(&mut self, digest: RulesDigest, openings: &[Opening]) -> Result<(), TableError>;

    /// Compares the table with what it must be.
    fn check(&mut self) -> Result<TableState, TableError>;
}
