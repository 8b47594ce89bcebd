//! What `api` and `host` say to each other: length-delimited JSON over a unix socket, one answer per question.
//!
//! [`crate::host::serve`] answers and [`crate::api::host_client`] asks. Everything is bounded and typed before it is
//! used: a pod UID becomes a path component in `host`, so it is a type that only a UUID fits into.

use std::collections::BTreeSet;

pub use pilotlight_common::stream::UserProfile;
use serde::{Deserialize, Serialize};
use tokio_util::codec::LengthDelimitedCodec;

use crate::cpu::CpuSet;

/// Largest frame in bytes, either way. [`MAX_PODS`] answers of [`MAX_CONTAINERS`] containers are about 160 KiB, and the largest seccomp
/// profile is 256 KiB where every character is escaped.
pub const MAX_FRAME_BYTES: usize = 320 << 10;
/// Most pods in one question.
pub const MAX_PODS: usize = 64;
/// Most containers told of one pod; more make the answer `truncated`, which counts as not verified.
pub const MAX_CONTAINERS: usize = 16;
/// Most processes looked at in one container; more make it `truncated`. Above the default limit of PIDs per pod.
pub const MAX_PROCESSES: usize = 4096;
/// Most seccomp profiles named in one question: twice what the scheduler takes from users, for those that went out of use.
pub const MAX_PROFILES: usize = 128;
/// Longest file name of a seccomp profile.
const MAX_PROFILE_FILE: usize = 64;
/// Longest container name told; the runtimes' are 64 hexadecimal digits.
pub const MAX_CONTAINER_NAME: usize = 80;

/// Most pins told of; a kubelet runs 110 pods, or a few hundred. Of all CPUs that a kernel can have the lists take 40 KiB.
pub const MAX_PINS: usize = 512;
/// Longest message for people.
pub const MAX_MESSAGE: usize = 200;

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
    /// More than [`MAX_PROFILES`].
    #[error("{0} seccomp profiles in one request are too many; at most {MAX_PROFILES}")]
    TooManyProfiles(usize),
    /// What cannot be the file of a seccomp profile.
    #[error("\"{0}\" is not the file name of a seccomp profile")]
    InvalidFile(String),
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
            Self::TooManyProfiles(_) => "too_many_profiles",
            Self::InvalidFile(_) => "invalid_file",
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

/// File name of an installed seccomp profile: `<name>-<12 hexadecimal digits>.json`. It becomes a path component in `host`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProfileFile(String);

impl ProfileFile {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ProfileFile {
    type Error = ProtocolError;

    fn try_from(text: String) -> Result<Self, ProtocolError> {
        let valid = text.len() <= MAX_PROFILE_FILE
            && text
                .strip_suffix(".json")
                .and_then(|stem| stem.rsplit_once('-'))
                .is_some_and(|(name, hash)| {
                    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                        && name
                            .bytes()
                            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
                        && hash.len() == 12
                        && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                });
        if valid {
            Ok(Self(text))
        } else {
            Err(ProtocolError::InvalidFile(text.chars().take(40).collect()))
        }
    }
}

impl From<ProfileFile> for String {
    fn from(file: ProfileFile) -> Self {
        file.0
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
    /// Validate a seccomp profile that a user brought, and install it.
    InstallProfile(UserProfile),
    /// See to it that every seccomp profile is what it must be.
    CheckProfiles {
        /// The users' profiles that somebody may name, at most [`MAX_PROFILES`].
        wanted: BTreeSet<ProfileFile>,
        /// Those that pods of this node name, at most [`MAX_PROFILES`].
        named: BTreeSet<ProfileFile>,
    },
    /// Whole CPUs for one pod. Asked again, the pod keeps what it has.
    Pin {
        /// The pod.
        pod: PodUid,
        /// How many.
        cpus: u32,
    },
    /// Which CPUs are given, and how many can be.
    Cpus,
}

impl Request {
    /// Reads one frame.
    pub fn read(frame: &[u8]) -> Result<Self, ProtocolError> {
        let request: Self = serde_json::from_slice(frame)?;
        match &request {
            Self::Inspect { pods } | Self::Usage { pods } if pods.len() > MAX_PODS => {
                Err(ProtocolError::TooManyPods(pods.len()))
            }
            Self::CheckProfiles { wanted, named }
                if wanted.len().max(named.len()) > MAX_PROFILES =>
            {
                Err(ProtocolError::TooManyProfiles(
                    wanted.len().max(named.len()),
                ))
            }
            // How long a profile may be is for its parser to say; a frame is not much longer.
            _ => Ok(request),
        }
    }
}

/// An answer of `host`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Response {
    /// To [`Request::Inspect`], in the order of the question.
    Inspected(Vec<PodInspection>),
    /// To [`Request::Usage`], in the order of the question, pods without a cgroup left out.
    Usage(Vec<PodUsage>),
    /// To [`Request::InstallProfile`]: the file it became, or why the profile is refused.
    ProfileInstalled(Result<ProfileFile, String>),
    /// To [`Request::CheckProfiles`].
    ProfilesChecked(CheckedProfiles),
    /// To [`Request::Pin`].
    Pinned(PinAnswer),
    /// To [`Request::Cpus`].
    Cpus(CpuState),
    /// The question was refused.
    Refused(String),
}

/// How the seccomp profiles of the node stand.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CheckedProfiles {
    /// Those that are what they must be.
    pub installed: Vec<ProfileFile>,
    /// Those that were wanted and that `host` has never seen: it is to be told what they say.
    pub unknown: Vec<ProfileFile>,
    /// What keeps a profile from being installed, if anything.
    pub problem: Option<String>,
    /// Files that were written by checks since the process started: at first all of them, later what somebody changed.
    pub repaired: u64,
}

/// Whether a pod got its CPUs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum PinAnswer {
    /// It runs on these, and nobody else of the node's pods does.
    Granted(CpuSet),
    /// It did not.
    Refused {
        /// Why.
        reason: PinRefusal,
        /// What happened, for people.
        message: String,
    },
}

/// Why a pod got no CPUs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum PinRefusal {
    /// Not enough are free, or the node never has so many.
    NoCpus,
    /// This node pins no CPUs.
    Unavailable,
    /// Something went wrong that may go right the next time.
    Failed,
}

/// Which CPUs are given, and how many can be.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CpuState {
    /// Why none can be given, or what is wrong with those that are; empty where all is well.
    pub message: String,
    /// The most that one pod can get now.
    pub free: u32,
    /// The most that one pod could get if no other had any.
    pub capacity: u32,
    /// CPUs of the largest core: what an odd request can cost in addition is less.
    pub core: u32,
    /// The pods that have CPUs of their own, at most [`MAX_PINS`].
    pub pins: Vec<Pin>,
}

/// The CPUs of one pod.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Pin {
    /// The pod.
    pub pod: PodUid,
    /// Its CPUs.
    pub cpus: CpuSet,
    /// Whether it runs on all of these and alone: not so where one went offline.
    pub intact: bool,
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
    /// Its own CPUs, where it has some.
    #[serde(default)]
    pub pin: Option<Pin>,
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
    use crate::cpu::set::MAX_CPUS;
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
            pin: None,
        };
        // Pins do not share CPUs, so in the worst case all of them together name each CPU once.
        let cpus = |first: u32, step| (first..MAX_CPUS).step_by(step).collect();
        let mut pods = vec![pod; MAX_PODS];
        for (n, pod) in (0..).zip(&mut pods) {
            pod.pin = Some(pin(cpus(n, MAX_PODS)));
        }
        let answer = Response::Inspected(pods);
        assert!(serde_json::to_vec(&answer).unwrap().len() < MAX_FRAME_BYTES);
        let pins = (0..).map(|n| pin(cpus(n, MAX_PINS))).take(MAX_PINS);
        let answer = Response::Cpus(CpuState {
            message: "x".repeat(MAX_MESSAGE),
            pins: pins.collect(),
            ..CpuState::default()
        });
        assert!(serde_json::to_vec(&answer).unwrap().len() < MAX_FRAME_BYTES);
    }

    fn pin(cpus: CpuSet) -> Pin {
        Pin {
            pod: PodUid::try_from(UID.to_owned()).unwrap(),
            cpus,
            intact: false,
        }
    }

    #[test]
    fn a_file_name_that_could_lead_elsewhere_is_refused() {
        let file = |text: &str| ProfileFile::try_from(text.to_owned());
        assert!(file("team-a-0123456789ab.json").is_ok());
        for text in [
            "",
            "../x-0123456789ab.json",
            "-0123456789ab.json",
            ".partial-x-0123456789ab.json",
            "x-0123456789AB.json",
            "x-0123456789ab.json.json",
            "x/y-0123456789ab.json",
            "x-0123456789ab",
        ] {
            assert!(file(text).is_err(), "{text}");
        }
        assert!(file(&format!("{}-0123456789ab.json", "x".repeat(60))).is_err());
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
