//! The DNS proxy of the node's sandboxes: answers what a sandbox may reach, and has the addresses opened before it answers.
//!
//! [`serve`] takes bytes from a pod's sockets; [`exchange`] turns a query into an answer by way of [`query`] and [`judge`] (may it be
//! asked?), [`kept`] (was it, a moment ago?), [`upstream`] (what do the cluster's servers say?) and [`answer`] (what of that is told, and opened?). Those of them that read bytes are
//! pure, and `fuzz` feeds them.

pub mod addresses;
pub mod answer;
mod exchange;
#[cfg(test)]
mod fixtures;
pub mod judge;
mod kept;
mod opened;
mod pod;
pub mod query;
mod rate;
mod refused;
mod serve;
#[cfg(test)]
mod tests;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use ipnet::IpNet;
use pilotlight_common::network::{NetworkRules, RulesDigest};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::network_protocol::{Close, Configure, MAX_SOCKETS, Opening};
use crate::protocol::PodUid;
use pod::Pod;
pub use refused::{MAX_REFUSED, RefusedName};

/// Questions of all pods that servers are asked at a time. Each has a socket.
const MAX_TURNS: usize = 512;

/// Lets pods reach destinations.
pub trait Opener: Send + Sync {
    /// Lets a pod reach these, where its table says `digest`. Queued at the call, in the order of calls; done when it is answered.
    fn open(
        &self,
        pod: &PodUid,
        digest: RulesDigest,
        openings: Vec<Opening>,
    ) -> BoxFuture<'static, Result<(), OpenError>>;
}

/// Why destinations were not opened.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

/// What is the same for all pods.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's DNS servers.
    pub upstreams: Vec<SocketAddr>,
    /// Ranges that answers may name although they are not public.
    pub allowed_ranges: Vec<IpNet>,
}

/// A pod's sockets, as `network` opened them; at most [`MAX_SOCKETS`] are used.
#[derive(Debug, Default)]
pub struct PodSockets {
    /// For datagrams.
    pub udp: Vec<std::net::UdpSocket>,
    /// For connections.
    pub tcp: Vec<std::net::TcpListener>,
}

/// What happened to queries since the process started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Answered by a server, and what it named was opened.
    pub allowed: u64,
    /// Answered as a server answered them a moment before.
    pub kept: u64,
    /// Of names that may not be reached.
    pub refused: u64,
    /// Of an allowed name with a search domain behind it, or for something that is not told.
    pub passed_over: u64,
    /// No queries, or none that can be answered.
    pub malformed: u64,
    /// Dropped because a pod asked too much.
    pub over_rate: u64,
    /// Not answered by any server.
    pub upstream_failed: u64,
    /// Answered with addresses that are not public, which were left out.
    pub withheld: u64,
    /// Answered by a server with what could not be opened.
    pub not_opened: u64,
}

/// [`Counters`] that count.
#[derive(Debug, Default)]
struct Counts {
    allowed: AtomicU64,
    kept: AtomicU64,
    refused: AtomicU64,
    passed_over: AtomicU64,
    malformed: AtomicU64,
    over_rate: AtomicU64,
    upstream_failed: AtomicU64,
    withheld: AtomicU64,
    not_opened: AtomicU64,
}

impl Counts {
    #[allow(
        clippy::unused_self,
        reason = "called as counts.add(&counts.allowed): it is this one's"
    )]
    fn add(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            allowed: read(&self.allowed),
            kept: read(&self.kept),
            refused: read(&self.refused),
            passed_over: read(&self.passed_over),
            malformed: read(&self.malformed),
            over_rate: read(&self.over_rate),
            upstream_failed: read(&self.upstream_failed),
            withheld: read(&self.withheld),
            not_opened: read(&self.not_opened),
        }
    }
}

/// What every task needs.
struct Shared {
    config: Config,
    opener: Arc<dyn Opener>,
    counts: Counts,
    turns: Semaphore,
}

/// A pod and the tasks that serve its sockets.
struct Attached {
    pod: Arc<Pod>,
    /// Ended when it is dropped.
    tasks: JoinSet<()>,
}

/// The proxy.
pub struct Proxy {
    shared: Arc<Shared>,
    pods: Mutex<BTreeMap<PodUid, Attached>>,
}

impl Proxy {
    /// One that serves nobody yet.
    pub fn new(config: Config, opener: Arc<dyn Opener>) -> Self {
        let shared = Shared {
            config,
            opener,
            counts: Counts::default(),
            turns: Semaphore::new(MAX_TURNS),
        };
        Self {
            shared: Arc::new(shared),
            pods: Mutex::default(),
        }
    }

    /// Serves a pod's sockets, from within a tokio runtime. Earlier ones are closed; what the pod may reach stays.
    pub fn attach(&self, pod: &PodUid, sockets: PodSockets) -> io::Result<()> {
        let mut pods = self.pods();
        let attached = entry(&mut pods, pod);
        attached.tasks = JoinSet::new();
        for socket in sockets.udp.into_iter().take(MAX_SOCKETS) {
            socket.set_nonblocking(true)?;
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&attached.pod));
            attached.tasks.spawn(serve::datagrams(shared, pod, socket));
        }
        for listener in sockets.tcp.into_iter().take(MAX_SOCKETS) {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&attached.pod));
            attached
                .tasks
                .spawn(serve::connections(shared, pod, listener));
        }
        Ok(())
    }

    /// Forgets a pod, its sockets with it.
    pub fn detach(&self, pod: &PodUid) {
        self.pods().remove(pod);
    }

    /// Judges by these rules from now on. `send` gets what must be put in force in the kernel, and must queue it before it returns: what
    /// was opened under the old rules is queued before it, and what is opened under the new ones behind it.
    pub fn set_rules(&self, pod: &PodUid, rules: NetworkRules, send: &mut dyn FnMut(Configure)) {
        let attached = Arc::clone(&entry(&mut self.pods(), pod).pod);
        let mut state = attached.state();
        let digest = rules.digest();
        let close = if digest == state.digest {
            // The table holds these rules already: another life of the agent put them in force, and what it opened stays open.
            Close::Only(BTreeSet::new())
        } else {
            state.opened.close(&rules)
        };
        state.kept.forget();
        send(Configure {
            pod: pod.clone(),
            previous: state.digest,
            digest,
            egress: rules.egress.clone(),
            ingress: rules.ingress.clone(),
            close,
        });
        state.digest = digest;
        state.rules = Arc::new(rules);
    }

    /// The pod's table says this now. Where it was just made, nothing is open; where another life of the agent made it, what is open is
    /// not known, and the next change closes it.
    pub fn was_armed(&self, pod: &PodUid, digest: RulesDigest) {
        let attached = Arc::clone(&entry(&mut self.pods(), pod).pod);
        let mut state = attached.state();
        state.kept.forget();
        if digest == RulesDigest::FRESH {
            state.opened.forget();
        } else if digest != state.digest {
            state.opened.inherit();
        }
        state.digest = digest;
    }

    /// The names that a pod was refused since the last call.
    pub fn take_refused(&self, pod: &PodUid) -> Vec<RefusedName> {
        let pods = self.pods();
        pods.get(pod)
            .map(|attached| attached.pod.state().refused.take())
            .unwrap_or_default()
    }

    /// What happened to queries.
    pub fn counters(&self) -> Counters {
        self.shared.counts.read()
    }

    fn pods(&self) -> MutexGuard<'_, BTreeMap<PodUid, Attached>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry<'a>(pods: &'a mut BTreeMap<PodUid, Attached>, pod: &PodUid) -> &'a mut Attached {
    pods.entry(pod.clone()).or_insert_with(|| Attached {
        pod: Arc::new(Pod::new(pod.clone())),
        tasks: JoinSet::new(),
    })
}
