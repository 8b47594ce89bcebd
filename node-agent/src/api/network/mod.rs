//! The networks of the node's sandboxes: asks `network` to keep pods to their rules ([`connection`]), and hands the DNS proxy
//! ([`super::dns`]) the sockets that their queries arrive at. Used by [`super::engine`].

mod connection;
pub mod resolv;

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use pilotlight_common::network::{NetworkRules, RulesDigest};
use tokio::sync::mpsc;

use super::decide::{Event, NetworkAnswer, NetworkAsk, NetworkFailure};
use super::dns::{Config, Counters, OpenError, Opener, PodSockets, Proxy};
use crate::network_protocol::{
    Armed, Configure, MAX_OPEN, NetworkProblem, Opening, Request, Response,
};
use crate::protocol::PodUid;
pub use connection::Connection;
use connection::{Answer, Questions};

/// The `network` process and the DNS proxy.
pub struct Network {
    questions: Questions,
    proxy: Proxy,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Network {
    /// The process behind `socket`; the connection is made once the second value runs. `lost` hears when it ends.
    pub fn new(
        socket: PathBuf,
        config: Config,
        lost: mpsc::Sender<Event>,
    ) -> (Arc<Self>, Connection) {
        let (questions, connection) = connection::connection(socket, lost);
        let network = Self {
            proxy: Proxy::new(config, Arc::new(questions.clone())),
            questions,
        };
        (Arc::new(network), connection)
    }

    /// What happened to queries.
    pub fn counters(&self) -> Counters {
        self.proxy.counters()
    }

    /// The pod is gone.
    pub fn forget(&self, pod: &PodUid) {
        self.proxy.detach(pod);
    }

    /// Asks, and takes over what the proxy needs of the answer. The question is queued before the first wait.
    pub async fn ask(&self, ask: NetworkAsk) -> NetworkAnswer {
        match ask {
            NetworkAsk::Arm(pod) => self.arm(pod).await,
            NetworkAsk::Configure(pod, rules) => self.configure(pod, rules).await,
            NetworkAsk::Check(pods) => {
                let refused = pods
                    .iter()
                    .map(|pod| (pod.clone(), self.proxy.take_refused(pod)))
                    .filter(|(_, names)| !names.is_empty())
                    .collect();
                let Answer { connection, result } =
                    self.questions.ask(&Request::Check { pods }).await;
                let result = match result {
                    Ok((Response::Checked(pods), _)) => {
                        for pod in pods.iter().filter(|pod| !pod.intact) {
                            // Everything it had open is closed.
                            self.proxy.was_armed(&pod.pod, RulesDigest::FRESH);
                        }
                        Ok(pods)
                    }
                    other => Err(failure(other)),
                };
                NetworkAnswer::Checked {
                    connection,
                    result,
                    refused,
                }
            }
        }
    }

    async fn arm(&self, pod: PodUid) -> NetworkAnswer {
        let Answer { connection, result } =
            self.questions.ask(&Request::Arm { pod: pod.clone() }).await;
        let result = match result {
            Ok((Response::Armed(armed), sockets)) => sort(sockets)
                .and_then(|sockets| {
                    self.proxy.was_armed(&pod, armed.digest);
                    self.proxy.attach(&pod, sockets)
                })
                .map(|()| armed)
                .map_err(|error| NetworkFailure {
                    reason: NetworkProblem::Failed,
                    message: format!("cannot serve the sockets of its DNS: {error}"),
                }),
            other => Err(failure(other)),
        };
        NetworkAnswer::Armed {
            pod,
            connection,
            result,
        }
    }

    async fn configure(&self, pod: PodUid, rules: Arc<NetworkRules>) -> NetworkAnswer {
        let digest = rules.digest();
        let mut answer = None;
        self.proxy
            .set_rules(&pod, (*rules).clone(), &mut |configure: Configure| {
                answer = Some(self.questions.ask(&Request::Configure(configure)));
            });
        let (connection, result) = match answer {
            Some(answer) => {
                let Answer { connection, result } = answer.await;
                let result = match result {
                    Ok((Response::Done, _)) => Ok(digest),
                    other => Err(failure(other)),
                };
                (connection, result)
            }
            None => (0, Ok(digest)),
        };
        NetworkAnswer::Configured {
            pod,
            connection,
            result,
        }
    }
}

type Reply = Result<(Response, Vec<std::os::fd::OwnedFd>), String>;

fn failure(reply: Reply) -> NetworkFailure {
    let failed = |message| NetworkFailure {
        reason: NetworkProblem::Failed,
        message,
    };
    match reply {
        Ok((Response::Failed { reason, message }, _)) => NetworkFailure { reason, message },
        Ok((Response::Armed(Armed { .. }) | Response::Done | Response::Checked(_), _)) => {
            failed("the network process answered another question".to_owned())
        }
        Ok((Response::Refused(message), _)) => failed(message),
        Err(message) => failed(format!("the network process does not answer: {message}")),
    }
}

/// The sockets by their kind, which the kernel tells.
fn sort(sockets: Vec<std::os::fd::OwnedFd>) -> std::io::Result<PodSockets> {
    use rustix::net::SocketType;
    let mut sorted = PodSockets::default();
    for socket in sockets {
        match rustix::net::sockopt::socket_type(&socket)? {
            SocketType::DGRAM => sorted.udp.push(socket.into()),
            SocketType::STREAM => sorted.tcp.push(socket.into()),
            other => {
                return Err(std::io::Error::other(format!(
                    "a socket of a kind that was not asked for: {other:?}"
                )));
            }
        }
    }
    Ok(sorted)
}

impl Opener for Questions {
    fn open(
        &self,
        pod: &PodUid,
        digest: RulesDigest,
        openings: Vec<Opening>,
    ) -> BoxFuture<'static, Result<(), OpenError>> {
        // Queued now, all of them, before anything is awaited.
        let answers: Vec<_> = openings
            .chunks(MAX_OPEN)
            .map(|openings| {
                self.ask(&Request::Open {
                    pod: pod.clone(),
                    digest,
                    openings: openings.to_vec(),
                })
            })
            .collect();
        Box::pin(async move {
            for answer in answers {
                match answer.await.result {
                    Ok((Response::Done, _)) => {}
                    other => return Err(OpenError(failure(other).message)),
                }
            }
            Ok(())
        })
    }
}
