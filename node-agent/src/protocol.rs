//! What `api` and `host` say to each other: length-delimited JSON over a unix socket, one answer per question.
//!
//! [`crate::host::serve`] answers and [`crate::api::host_client`] asks. Everything is bounded and typed before it is
//! used: a pod UID becomes a path component in `host`, so it is a type that only a UUID fits into.

use serde::{Deserialize, Serialize};
use tokio_util::codec::LengthDelimitedCodec;

/// Largest frame in bytes, either way. [`MAX_PODS`] answers of [`MAX_CONTAINERS`] containers are about 160 KiB.
pub const MAX_FRAME_BYTES: usize = 256 << 10;
/// Most pods in one question.
pub const MAX_PODS: usize = 64;
/// Most containers told of one pod; more make the answer `truncated`, which counts as not verified.
pub const MAX_CONTAINERS: usize = 16;
/// Most processes looked at in one container; more make it `truncated`. Above the default limit of PIDs per pod.
pub const MAX_PROCESSES: usize = 4096;
/// Longest container name told; the runtimes' are 64 hexadecimal digits.
pub const MAX_CONTAINER_NAME: usize = 80;

/// The framing both sides use.
pub fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(MAX_FRAME_BYTES)
        .new_codec()
}

/// Why a message was refused.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A pod UID that is no lower-case UUID.
    #[error("\"{0}\" is not a pod UID")]
    InvalidUid(String),
    /// More than [`MAX_PODS`].
    #[error("{0} pods in one request are too many; at most {MAX_PODS}")]
    TooManyPods(usize),
    /// Not a message of this protocol.
    #[error("not a message of this protocol: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl ProtocolError {
    /// Stable word for logs and metric labels.
    pub fn category(&self) -> &'static str {
        match self {
            Self::InvalidUid(_) => "invalid_uid",
            Self::TooManyPods(_) => "too_many_pods",
            Self::Malformed(_) => "malformed",
        }
    }
}

/// UID of a pod: 36 characters, lower-case hexadecimal digits and dashes where a UUID has them.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodUid(String);

impl PodUid {
    /// The UID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PodUid {
    type Error = ProtocolError;

    fn try_from(text: String) -> Result<Self, ProtocolError> {
        let valid = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            });
        if valid {
            Ok(Self(text))
        } else {
            // Hostile input goes into the message, so it is cut.
            Err(ProtocolError::InvalidUid(text.chars().take(40).collect()))
        }
    }
}

impl From<PodUid> for String {
    fn from(uid: PodUid) -> Self {
        uid.0
    }
}

impl std::fmt::Display for PodUid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A question of `api`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub enum Request {
    /// Which processes the pods have, and the seccomp state of each.
    Inspect {
        /// The pods, at most [`MAX_PODS`].
        pods: Vec<PodUid>,
    },
    /// What the pods use.
    Usage {
        /// The pods, at most [`MAX_PODS`].
        pods: Vec<PodUid>,
    },
}

impl Request {
    /// Reads one frame.
    pub fn read(frame: &[u8]) -> Result<Self, ProtocolError> {
        let request: Self = serde_json::from_slice(frame)?;
        let (Self::Inspect { pods } | Self::Usage { pods }) = &request;
        if pods.len() > MAX_PODS {
            return Err(ProtocolError::TooManyPods(pods.len()));
        }
        Ok(request)
    }
}

/// An answer of `host`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Response {
    /// To [`Request::Inspect`], in the order of the question.
    Inspected(Vec<PodInspection>),
    /// To [`Request::Usage`], in the order of the question, pods without a cgroup left out.
    Usage(Vec<PodUsage>),
    /// The question was refused.
    Refused(String),
}

/// The processes of one pod.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PodInspection {
    /// The pod.
    pub uid: PodUid,
    /// Whether the pod has a cgroup.
    pub found: bool,
    /// Its containers, the sandbox (pause) container among them: `host` cannot tell which that is, `api` can.
    pub containers: Vec<ContainerInspection>,
    /// Whether there were more containers than [`MAX_CONTAINERS`].
    pub truncated: bool,
}

/// The processes of one container.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ContainerInspection {
    /// The runtime's id, without what the cgroup driver puts around it.
    pub id: String,
    /// Processes seen.
    pub processes: u32,
    /// The first process that no seccomp filter holds, if any.
    pub unconfined: Option<u32>,
    /// Whether there were more processes than [`MAX_PROCESSES`], or some could not be read.
    pub truncated: bool,
}

/// What one pod uses, its pause container included.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PodUsage {
    /// The pod.
    pub uid: PodUid,
    /// CPU time since the pod's cgroup was made, in microseconds.
    pub cpu_micros: u64,
    /// Memory that cannot be reclaimed at once (usage without inactive files), in bytes.
    pub working_set_bytes: u64,
    /// Reading of the monotonic clock at the sample, in microseconds.
    pub at_micros: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UID: &str = "0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11";

    #[test]
    fn a_uid_that_could_climb_out_of_its_directory_is_refused() {
        assert!(PodUid::try_from(UID.to_owned()).is_ok());
        for text in [
            "",
            "..",
            "../../../../../../../../../../../etc",
            "0F7C1B52-3C6E-4F8E-9A53-1F0A3F1A9D11",
            "0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d1",
            "0f7c1b52-3c6e-4f8e-9a53-1f0a3f1a9d11\0",
            "0f7c1b52/3c6e/4f8e/9a53/1f0a3f1a9d11",
        ] {
            assert!(PodUid::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn more_pods_than_allowed_are_refused() {
        let pods = vec![PodUid::try_from(UID.to_owned()).unwrap(); MAX_PODS + 1];
        let frame = serde_json::to_vec(&Request::Usage { pods }).unwrap();
        assert!(matches!(
            Request::read(&frame),
            Err(ProtocolError::TooManyPods(65))
        ));
    }

    #[test]
    fn the_largest_answer_fits_into_a_frame() {
        let container = ContainerInspection {
            id: "f".repeat(MAX_CONTAINER_NAME),
            processes: u32::MAX,
            unconfined: Some(u32::MAX),
            truncated: false,
        };
        let pod = PodInspection {
            uid: PodUid::try_from(UID.to_owned()).unwrap(),
            found: true,
            containers: vec![container; MAX_CONTAINERS],
            truncated: true,
        };
        let answer = Response::Inspected(vec![pod; MAX_PODS]);
        assert!(serde_json::to_vec(&answer).unwrap().len() < MAX_FRAME_BYTES);
    }

    proptest! {
        #[test]
        fn any_frame_is_read_or_refused_without_a_panic(frame in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Request::read(&frame);
        }

        #[test]
        fn only_uuids_are_uids(text in "[0-9a-g./-]{30,40}") {
            if let Ok(uid) = PodUid::try_from(text) {
                prop_assert!(!uid.as_str().contains(['/', '.', 'g']));
            }
        }
    }
}
