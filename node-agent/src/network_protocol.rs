//! What `api` and `network` say to each other: length-delimited JSON over a unix socket, with sockets handed over beside
//! some of the answers.
//!
//! [`crate::network::serve`] answers, [`crate::api::network`] asks. Questions may
//! overlap; answers come in the order of the questions. A frame is four bytes of length, little-endian, then that many bytes of JSON; the sockets of an answer
//! are attached (`SCM_RIGHTS`) to the first byte of its frame.

use std::collections::BTreeSet;
use std::net::IpAddr;

use pilotlight_common::network::{MAX_RANGES, PortRule, RangeRule, RulesDigest};
use serde::{Deserialize, Serialize};

use crate::protocol::PodUid;

/// Largest frame in bytes, either way: [`MAX_OPEN`] elements and two times [`MAX_RANGES`] rules of
/// [`pilotlight_common::network::MAX_PORTS`] ports are below it.
pub const MAX_FRAME_BYTES: usize = 1 << 20;
/// Most pods in one question; a kubelet runs 110, or a few hundred.
pub const MAX_PODS: usize = 512;
/// Most elements in one [`Request::Open`].
pub const MAX_OPEN: usize = 1024;
/// Most elements in the `close` of one [`Configure`]. More is said by [`Close::All`].
pub const MAX_CLOSE: usize = 2048;
/// Longest time an element stays without being refreshed, in seconds.
pub const MAX_ELEMENT_SECONDS: u32 = 24 * 3600;
/// Sockets handed over with an armed pod, in this order: UDP and TCP of IPv4, then of IPv6 where the pod has that.
pub const MAX_SOCKETS: usize = 4;
/// Longest message for people.
pub const MAX_MESSAGE: usize = 200;

/// Why a question was refused.
#[derive(Debug, thiserror::Error)]
pub enum NetworkProtocolError {
    /// More of something than its bound.
    #[error("{count} {what} in one request are too many; at most {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The bound.
        most: usize,
    },
    /// A time that is zero or beyond [`MAX_ELEMENT_SECONDS`].
    #[error("an element cannot stay for {0} s")]
    InvalidTime(u32),
    /// Port 0.
    #[error("0 is no port")]
    InvalidPort,
    /// Not a message of this protocol.
    #[error("not a message of this protocol: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// A destination that a pod may reach.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Element {
    /// Its address. One of IPv4 never comes in its IPv6 form.
    pub address: IpAddr,
    /// Protocol and port.
    pub port: PortRule,
}

/// A destination that a pod may begin to reach for some time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Opening {
    /// The destination.
    pub element: Element,
    /// For how long, in seconds. Connections that are open then go on.
    pub seconds: u32,
}

/// Which destinations are cut off, open connections too.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Close {
    /// These, whether they are there or not.
    Only(BTreeSet<Element>),
    /// Every one that was opened.
    All,
}

/// Rules that do not depend on names, put in force in one step.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Configure {
    /// The pod.
    pub pod: PodUid,
    /// The rules that these destinations were opened under: where the table says another, every destination is closed.
    pub previous: RulesDigest,
    /// What the table says from now on.
    pub digest: RulesDigest,
    /// Ranges that may be reached.
    pub egress: BTreeSet<RangeRule>,
    /// Ranges that may connect.
    pub ingress: BTreeSet<RangeRule>,
    /// What is closed where the table does say `previous`.
    pub close: Close,
}

/// A question of `api`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub enum Request {
    /// Close the pod's network but for what its table allows already, and open sockets for its DNS queries. Asked again, what
    /// was opened stays, and the sockets are new ones.
    Arm {
        /// The pod.
        pod: PodUid,
    },
    /// Put rules in force.
    Configure(Configure),
    /// Let the pod reach destinations.
    Open {
        /// The pod.
        pod: PodUid,
        /// The rules that allow them: where the table says another, nothing is opened.
        digest: RulesDigest,
        /// The destinations, at most [`MAX_OPEN`].
        openings: Vec<Opening>,
    },
    /// Tell of these pods; every other is forgotten, its sockets with it. Its rules stay as long as its network does.
    Check {
        /// All pods of the node, at most [`MAX_PODS`].
        pods: BTreeSet<PodUid>,
    },
}

impl Request {
    /// Reads one frame.
    pub fn read(frame: &[u8]) -> Result<Self, NetworkProtocolError> {
        let request: Self = serde_json::from_slice(frame)?;
        let bound = |what, count, most| {
            if count > most {
                return Err(NetworkProtocolError::TooMany { what, count, most });
            }
            Ok(())
        };
        match &request {
            Self::Arm { .. } => {}
            Self::Configure(configure) => {
                bound("ranges", configure.egress.len(), MAX_RANGES)?;
                bound("ranges", configure.ingress.len(), MAX_RANGES)?;
                let ranges = configure.egress.iter().chain(&configure.ingress);
                for range in ranges {
                    bound(
                        "ports",
                        range.ports.len(),
                        pilotlight_common::network::MAX_PORTS,
                    )?;
                    if range.ports.iter().any(|port| port.port == 0) {
                        return Err(NetworkProtocolError::InvalidPort);
                    }
                }
                if let Close::Only(elements) = &configure.close {
                    bound("elements", elements.len(), MAX_CLOSE)?;
                }
            }
            Self::Open { openings, .. } => {
                bound("elements", openings.len(), MAX_OPEN)?;
                for opening in openings {
                    if !(1..=MAX_ELEMENT_SECONDS).contains(&opening.seconds) {
                        return Err(NetworkProtocolError::InvalidTime(opening.seconds));
                    }
                    if opening.element.port.port == 0 {
                        return Err(NetworkProtocolError::InvalidPort);
                    }
                }
            }
            Self::Check { pods } => bound("pods", pods.len(), MAX_PODS)?,
        }
        Ok(request)
    }
}

/// An answer of `network`, in the order of the questions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Response {
    /// To [`Request::Arm`]: sockets come along, at most [`MAX_SOCKETS`].
    Armed(Armed),
    /// To [`Request::Configure`] and [`Request::Open`].
    Done,
    /// To [`Request::Check`], pods that are not armed left out.
    Checked(Vec<PodNetwork>),
    /// To any of the first three: it did not work. The pod is as it was, or stricter.
    Failed {
        /// Why.
        reason: NetworkProblem,
        /// What happened, for people; at most [`MAX_MESSAGE`] characters.
        message: String,
    },
    /// The question was refused; the connection ends.
    Refused(String),
}

/// Why a pod's network could not be armed or changed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum NetworkProblem {
    /// The pod has no process, or no network namespace of its own yet: worth another try soon.
    NotFound,
    /// It shares the node's network: it can never be armed.
    HostNetwork,
    /// It is not armed, or its table says other rules than the question: arm it and configure it.
    Stale,
    /// The kernel or this node cannot do it.
    Unsupported,
    /// Something went wrong that may go right the next time.
    Failed,
}

/// Where a pod's rules are enforced.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Backend {
    /// In the pod's own network namespace: its runtime uses the kernel's network stack.
    Pod,
    /// In the node's, by the pod's link: its runtime has a stack of its own.
    Node,
}

impl Backend {
    /// The word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Node => "node",
        }
    }
}

/// An armed pod.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Armed {
    /// Where its rules are enforced.
    pub backend: Backend,
    /// What its table says: [`RulesDigest::FRESH`] where it was just made.
    pub digest: RulesDigest,
}

/// How one armed pod stands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PodNetwork {
    /// The pod.
    pub pod: PodUid,
    /// What its table says.
    pub digest: RulesDigest,
    /// Whether the table is exactly what it must be. One that is not was made anew, with nothing open, and its `digest` is
    /// [`RulesDigest::FRESH`].
    pub intact: bool,
    /// Packets out of the pod that were refused, since its table was made.
    pub refused_out: u64,
    /// Packets into the pod that were dropped, since its table was made.
    pub dropped_in: u64,
    /// What is wrong, for people; empty where nothing is. Such a pod counts as not armed.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotlight_common::network::{MAX_PORTS, Protocol};
    use proptest::prelude::*;

    fn uid() -> PodUid {
        PodUid::try_from("0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11".to_owned()).unwrap()
    }

    fn element(n: usize) -> Element {
        Element {
            address: format!("fd00:1111:2222:3333:4444:5555:6666:{n:x}")
                .parse()
                .unwrap(),
            port: PortRule {
                protocol: Protocol::Tcp,
                port: 65535,
            },
        }
    }

    fn is_taken(request: &Request) -> bool {
        Request::read(&serde_json::to_vec(request).unwrap()).is_ok()
    }

    #[test]
    fn more_than_the_bounds_is_refused() {
        let opening = |seconds| Opening {
            element: element(1),
            seconds,
        };
        let open = |openings| Request::Open {
            pod: uid(),
            digest: RulesDigest::FRESH,
            openings,
        };
        assert!(is_taken(&open(vec![opening(1); MAX_OPEN])));
        assert!(!is_taken(&open(vec![opening(1); MAX_OPEN + 1])));
        assert!(!is_taken(&open(vec![opening(0)])));
        assert!(!is_taken(&open(vec![opening(MAX_ELEMENT_SECONDS + 1)])));
    }

    #[test]
    fn the_largest_questions_fit_into_a_frame() {
        let ports: BTreeSet<PortRule> = (0..MAX_PORTS)
            .map(|n| PortRule {
                protocol: Protocol::Udp,
                port: 65535 - u16::try_from(n).unwrap(),
            })
            .collect();
        let ranges: BTreeSet<RangeRule> = (0..MAX_RANGES)
            .map(|n| RangeRule {
                range: format!("fd00:1111:2222:3333:4444:5555:6666:{n:x}/128")
                    .parse()
                    .unwrap(),
                ports: ports.clone(),
            })
            .collect();
        let configure = Request::Configure(Configure {
            pod: uid(),
            previous: RulesDigest::FRESH,
            digest: RulesDigest::FRESH,
            egress: ranges.clone(),
            ingress: ranges,
            close: Close::Only((0..MAX_CLOSE).map(element).collect()),
        });
        let bytes = serde_json::to_vec(&configure).unwrap();
        assert!(bytes.len() < MAX_FRAME_BYTES, "{}", bytes.len());
        assert!(Request::read(&bytes).is_ok());
    }

    proptest! {
        #[test]
        fn any_frame_is_read_or_refused_without_a_panic(frame in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Request::read(&frame);
        }
    }
}
