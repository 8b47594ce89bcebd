//! The third process: keeps pods to their network rules. Started by `main`.
//!
//! The only one with capabilities: it enters the network namespaces of pods ([`namespace`]), finds out where each one's rules go
//! ([`evidence`]), opens the sockets that its DNS queries arrive at ([`proxy_sockets`]) for `api` to answer, and writes rules into nf_tables
//! ([`nft`]). It reads no packet and no name; the questions of `api` ([`serve`]) are about addresses. One thread, no event loop.

pub mod evidence;
pub mod links;
pub mod namespace;
pub mod nft;
pub mod pods;
pub mod proxy_sockets;
pub mod serve;
pub mod table;

use std::fs;
use std::os::unix::net::UnixListener;

use anyhow::Context;

use crate::args::NetworkArgs;
use crate::host::cgroup::Tree;
use crate::host::privileges;

/// Serves until it is ended. All capabilities but its own must be dropped already.
pub fn run(args: &NetworkArgs) -> anyhow::Result<()> {
    privileges::verify_network(&args.proc_root)?;
    let own = fs::read_to_string(args.proc_root.join("self/cgroup"))
        .context("cannot read the cgroup of this process")?;
    let tree = Tree::new(&args.cgroup_root, &own);
    let node = evidence::Node::new(&args.proc_root)
        .context("cannot open the node's network; does this pod have hostPID?")?;
    let mut pods = pods::Pods::new(
        node,
        tree,
        args.proc_root.clone(),
        args.ingress_ranges.clone(),
    )
    .context("cannot speak with nf_tables in the node's network")?;
    let listener: UnixListener = crate::host::serve::bind_blocking(&args.socket, args.api_gid)?;
    tracing::info!(socket = %args.socket.display(), "serving");
    serve::serve(&listener, args.api_uid, &mut pods)
}
