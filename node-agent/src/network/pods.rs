//! Answers what `api` asks about the networks of the node's pods. Called by [`super::serve`].

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;

use ipnet::IpNet;
use pilotlight_common::network::RulesDigest;

use super::evidence::{Failure, Node, Place};
use super::links::Links;
use super::namespace::{self, Identity};
use super::nft::{NetfilterSocket, tidy};
use super::table::{PodTable, TableError};
use crate::host::cgroup::{Resource, Tree};
use crate::network_protocol::{Armed, MAX_MESSAGE, NetworkProblem, PodNetwork, Request, Response};
use crate::protocol::PodUid;

/// Checks, one every ten seconds, in which the links of a pod are compared each time after it was armed: a runtime with a network stack of
/// its own takes its addresses within the first seconds.
const NEW: u32 = 6;
/// Each of how many checks compares the links of a pod that is older. `api` has a pod armed again when its containers change, so this only
/// finds what nobody told of.
const TURNS: usize = 6;

/// The armed pods of the node.
pub struct Pods {
    node: Node,
    tree: Tree,
    proc_root: PathBuf,
    ingress_ranges: Vec<IpNet>,
    armed: BTreeMap<PodUid, Entry>,
    /// Checks so far.
    turn: usize,
    /// Of the node's namespace, for tables whose link is gone.
    socket: NetfilterSocket,
}

struct Entry {
    table: Box<dyn PodTable>,
    namespace: Identity,
    place: Place,
    /// Checks since it was armed.
    checks: u32,
}

impl Pods {
    /// Starts with none: tables that stand are found again when their pods are armed.
    pub fn new(
        node: Node,
        tree: Tree,
        proc_root: PathBuf,
        ingress_ranges: Vec<IpNet>,
    ) -> io::Result<Self> {
        let socket = node.visit(NetfilterSocket::open)??;
        Ok(Self {
            node,
            tree,
            proc_root,
            ingress_ranges,
            armed: BTreeMap::new(),
            turn: 0,
            socket,
        })
    }

    /// The answer, and the sockets that go with it.
    pub fn answer(&mut self, request: Request) -> (Response, Vec<OwnedFd>) {
        let result = match request {
            Request::Arm { pod } => self
                .arm(&pod)
                .map(|(armed, sockets)| (Response::Armed(armed), sockets)),
            Request::Configure(configure) => self
                .table(&configure.pod)
                .and_then(|table| table.configure(&configure).map_err(Failure::from))
                .map(|()| (Response::Done, Vec::new())),
            Request::Open {
                pod,
                digest,
                openings,
            } => self
                .table(&pod)
                .and_then(|table| table.open(digest, &openings).map_err(Failure::from))
                .map(|()| (Response::Done, Vec::new())),
            Request::Check { pods } => {
                self.armed.retain(|pod, _| pods.contains(pod));
                Ok((Response::Checked(self.check()), Vec::new()))
            }
        };
        result.unwrap_or_else(|failure| {
            let message = failure.message.chars().take(MAX_MESSAGE).collect();
            let reason = failure.reason;
            (Response::Failed { reason, message }, Vec::new())
        })
    }

    fn arm(&mut self, pod: &PodUid) -> Result<(Armed, Vec<OwnedFd>), Failure> {
        let Some(directory) = self.tree.pod(pod, Resource::Memory, Instant::now()) else {
            return Err(Failure::new(
                NetworkProblem::NotFound,
                "the pod has no cgroup yet",
            ));
        };
        // The old sockets first: on the node, their ports are those of this pod's table.
        self.armed.remove(pod);
        let mut found = self
            .node
            .find(pod, &directory, &self.proc_root, &self.ingress_ranges)?;
        let digest = found.table.arm(&found.arming)?;
        let backend = found.place.backend();
        self.armed.insert(
            pod.clone(),
            Entry {
                table: found.table,
                namespace: found.namespace,
                place: found.place,
                checks: 0,
            },
        );
        tracing::info!(%pod, backend = backend.as_str(), %digest, "armed");
        let armed = Armed { backend, digest };
        Ok((armed, found.sockets))
    }

    fn table(&mut self, pod: &PodUid) -> Result<&mut dyn PodTable, Failure> {
        match self.armed.get_mut(pod) {
            Some(entry) => Ok(&mut *entry.table),
            None => Err(Failure::new(NetworkProblem::Stale, "the pod is not armed")),
        }
    }

    fn check(&mut self) -> Vec<PodNetwork> {
        let links = self.node.visit(Links::read).and_then(|links| links);
        let links = links.map_err(|source| TableError::Kernel {
            step: "read the node's links",
            source,
        });
        let links = match links {
            Ok(links) => links,
            Err(error) => {
                let message: String = error.to_string().chars().take(MAX_MESSAGE).collect();
                return self
                    .armed
                    .keys()
                    .map(|pod| unknown(pod, &message))
                    .collect();
            }
        };
        let names: Vec<String> = links.interfaces.iter().map(|i| i.name.clone()).collect();
        let tidied = tidy(&mut self.socket, &names);
        if let Err(error) = tidied {
            tracing::warn!(%error, "cannot clear up after links that are gone");
        }
        // A pod whose sandbox was made anew has another network, and is to be armed again.
        self.turn = self.turn.wrapping_add(1);
        let mut places = self.turn..;
        let (node, tree, proc_root) = (&self.node, &mut self.tree, &self.proc_root);
        self.armed.retain(|pod, entry| {
            entry.checks = entry.checks.saturating_add(1);
            let its_turn = places
                .next()
                .is_some_and(|place| place.is_multiple_of(TURNS));
            if entry.checks > NEW && !its_turn {
                return true;
            }
            let directory = tree.pod(pod, Resource::Memory, Instant::now());
            let found = directory.and_then(|directory| {
                namespace::of_pod(&directory, proc_root)
                    .into_iter()
                    .find(|found| found.identity() == entry.namespace)
            });
            let there = found
                .as_ref()
                .is_some_and(|namespace| node.is_still(&entry.place, namespace, &links));
            if !there {
                tracing::info!(%pod, gone = found.is_none(), "its network is not what it was");
            }
            there
        });
        self.armed
            .iter_mut()
            .map(|(pod, entry)| stands(pod, &mut *entry.table))
            .collect()
    }
}

fn stands(pod: &PodUid, table: &mut dyn PodTable) -> PodNetwork {
    match table.check() {
        Ok(state) => {
            if !state.intact {
                tracing::warn!(%pod, "somebody changed its network rules; they were made anew, with nothing open");
            }
            PodNetwork {
                pod: pod.clone(),
                digest: state.digest,
                intact: state.intact,
                refused_out: state.refused_out,
                dropped_in: state.dropped_in,
                message: String::new(),
            }
        }
        Err(error) => {
            tracing::warn!(%pod, %error, "its network rules cannot be checked");
            let message: String = error.to_string().chars().take(MAX_MESSAGE).collect();
            unknown(pod, &message)
        }
    }
}

/// A pod of which it is not known whether it is armed counts as one that is not.
fn unknown(pod: &PodUid, message: &str) -> PodNetwork {
    PodNetwork {
        pod: pod.clone(),
        digest: RulesDigest::FRESH,
        intact: false,
        refused_out: 0,
        dropped_in: 0,
        message: message.to_owned(),
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        Self::new(error.problem(), error.to_string())
    }
}
