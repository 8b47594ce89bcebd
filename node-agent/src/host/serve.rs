//! The socket that `api` asks through. Called by [`super::run`].

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::codec::Framed;

use super::kernel::Kernel;
use crate::protocol::{Request, Response, codec};

/// Connections served at once. `api` holds one, and for a moment two when it restarts.
const MAX_CONNECTIONS: usize = 4;
/// A peer that does not take its answer for so long is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two looks at what was given: where nothing tells of a new container, it leaves the CPUs of a sandbox by this.
const TICK: Duration = Duration::from_secs(1);
/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the socket could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A step of making the socket failed.
    #[error("cannot {step} the socket: {source}")]
    Bind {
        /// The step.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Makes the socket: for its owner and the group `gid` only.
///
/// In a directory with that group and the set-group-id bit (an emptyDir with fsGroup) it has the group already, and giving it
/// away needs no capability where the group is one of the process's own.
pub fn bind(path: &Path, gid: u32) -> Result<UnixListener, ServeError> {
    let step = |step| move |source| ServeError::Bind { step, source };
    let listener = bind_blocking(path, gid)?;
    listener.set_nonblocking(true).map_err(step("prepare"))?;
    UnixListener::from_std(listener).map_err(step("prepare"))
}

/// The same for a process without an event loop.
pub fn bind_blocking(
    path: &Path,
    gid: u32,
) -> Result<std::os::unix::net::UnixListener, ServeError> {
    let step = |step| move |source| ServeError::Bind { step, source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(step("replace")(error));
        }
        _ => {}
    }
    // Until the mode is set nobody but the owner can connect: that takes write permission, which the usual umask withholds.
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(step("bind"))?;
    let owner = std::fs::metadata(path).map_err(step("read"))?;
    if owner.gid() != gid {
        std::os::unix::fs::chown(path, None, Some(gid)).map_err(step("give the group of"))?;
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o660))
        .map_err(step("set the mode of"))?;
    Ok(listener)
}

/// Answers every connection of user `uid`; never returns but on error.
pub async fn serve(
    listener: UnixListener,
    uid: u32,
    kernel: impl Kernel + 'static,
) -> Result<(), ServeError> {
    let kernel: Arc<Mutex<dyn Kernel>> = Arc::new(Mutex::new(kernel));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // By itself, whether anybody asks or not: `api` may be away, and pods come all the same.
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ticks.tick() => {
                kernel.lock().unwrap_or_else(PoisonError::into_inner).tick();
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !is_api(stream.peer_cred().map(|peer| peer.uid()), uid) {
            continue;
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("turned away a connection: too many");
            continue;
        };
        let kernel = Arc::clone(&kernel);
        tokio::spawn(async move {
            if let Err(error) = connection(stream, &kernel).await {
                tracing::info!(%error, "connection ended");
            }
            drop(place);
        });
    }
}

async fn connection(stream: UnixStream, kernel: &Mutex<dyn Kernel>) -> io::Result<()> {
    let mut framed = Framed::new(stream, codec());
    while let Some(frame) = framed.next().await {
        let answer = answer(&frame?, kernel);
        let bytes = serde_json::to_vec(&answer)?;
        tokio::time::timeout(WRITE_TIMEOUT, framed.send(Bytes::from(bytes)))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if matches!(answer, Response::Refused(_)) {
            return Err(io::Error::other("the peer does not speak this protocol"));
        }
    }
    Ok(())
}

fn answer(frame: &[u8], kernel: &Mutex<dyn Kernel>) -> Response {
    let request = match Request::read(frame) {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!(category = error.category(), %error, "refused a request");
            return Response::Refused(error.to_string().chars().take(200).collect());
        }
    };
    let mut kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
    match request {
        Request::Inspect { pods } => Response::Inspected(kernel.inspect(&pods)),
        Request::Usage { pods } => Response::Usage(kernel.usage(&pods)),
        Request::InstallProfile(profile) => {
            Response::ProfileInstalled(kernel.install_profile(&profile))
        }
        Request::CheckProfiles { wanted, named } => {
            Response::ProfilesChecked(kernel.check_profiles(&wanted, &named))
        }
        Request::Pin { pod, cpus } => Response::Pinned(kernel.pin(&pod, cpus)),
        Request::Cpus => Response::Cpus(kernel.cpus()),
    }
}

/// Whether a peer, by the user that the kernel names, is `api`. Whoever else it is, is told of in the log and to be cut off.
pub(crate) fn is_api(peer: Result<u32, impl std::fmt::Display>, api: u32) -> bool {
    match peer {
        Ok(user) if user == api => true,
        Ok(user) => {
            tracing::warn!(uid = user, "turned away a peer that is not the api process");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "turned away a peer whose user is unknown");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuSet;
    use crate::protocol::{
        CheckedProfiles, CpuState, MAX_FRAME_BYTES, PinAnswer, PodInspection, PodUid, PodUsage,
        ProfileFile, UserProfile,
    };
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Records what it was asked.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<String>>>);

    impl Recorder {
        fn note(&self, what: String) {
            self.0.lock().unwrap().push(what);
        }
    }

    impl Kernel for Recorder {
        fn inspect(&mut self, pods: &[PodUid]) -> Vec<PodInspection> {
            self.note(format!("inspect {}", pods.len()));
            Vec::new()
        }

        fn usage(&mut self, pods: &[PodUid]) -> Vec<PodUsage> {
            self.note(format!("usage {}", pods.len()));
            Vec::new()
        }

        fn install_profile(&mut self, profile: &UserProfile) -> Result<ProfileFile, String> {
            self.note(format!("install {}", profile.name));
            Err("this recorder installs nothing".to_owned())
        }

        fn check_profiles(
            &mut self,
            wanted: &BTreeSet<ProfileFile>,
            named: &BTreeSet<ProfileFile>,
        ) -> CheckedProfiles {
            self.note(format!("check {} {}", wanted.len(), named.len()));
            CheckedProfiles::default()
        }

        fn pin(&mut self, _pod: &PodUid, cpus: u32) -> PinAnswer {
            self.note(format!("pin {cpus}"));
            PinAnswer::Granted(CpuSet::default())
        }

        fn cpus(&mut self) -> CpuState {
            self.note("cpus".to_owned());
            CpuState::default()
        }

        fn tick(&mut self) {}
    }

    fn own_uid() -> u32 {
        nix::unistd::Uid::current().as_raw()
    }

    fn start(uid: u32) -> (tempfile::TempDir, std::path::PathBuf, Recorder) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.sock");
        let listener = bind(&path, nix::unistd::Gid::current().as_raw()).unwrap();
        let recorder = Recorder::default();
        tokio::spawn(serve(listener, uid, recorder.clone()));
        (directory, path, recorder)
    }

    #[tokio::test]
    async fn a_question_is_answered_and_the_connection_stays() {
        let (_directory, path, recorder) = start(own_uid());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let mut framed = Framed::new(UnixStream::connect(&path).await.unwrap(), codec());
        for _ in 0..2 {
            let request = serde_json::to_vec(&Request::Usage { pods: Vec::new() }).unwrap();
            framed.send(Bytes::from(request)).await.unwrap();
            let frame = framed.next().await.unwrap().unwrap();
            let answer: Response = serde_json::from_slice(&frame).unwrap();
            assert_eq!(answer, Response::Usage(Vec::new()));
        }
        assert_eq!(*recorder.0.lock().unwrap(), ["usage 0", "usage 0"]);
    }

    #[tokio::test]
    async fn a_peer_of_another_user_is_turned_away_unheard() {
        let (_directory, path, recorder) = start(own_uid() + 1);
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let _ = stream.write_all(b"\0\0\0\x02{}").await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        assert!(recorder.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_oversize_frame_ends_the_connection_and_not_the_process() {
        let (_directory, path, recorder) = start(own_uid());
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let length = u32::try_from(MAX_FRAME_BYTES + 1).unwrap();
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        let mut framed = Framed::new(UnixStream::connect(&path).await.unwrap(), codec());
        framed
            .send(Bytes::from_static(br#"{"Inspect":{"pods":[]}}"#))
            .await
            .unwrap();
        assert!(framed.next().await.unwrap().is_ok());
        assert_eq!(*recorder.0.lock().unwrap(), ["inspect 0"]);
    }

    proptest! {
        #[test]
        fn hostile_frames_are_refused_or_answered_without_a_panic(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            let kernel: Arc<Mutex<dyn Kernel>> = Arc::new(Mutex::new(Recorder::default()));
            let _ = answer(&frame, &kernel);
        }

        #[test]
        fn a_hostile_byte_stream_never_ends_the_server(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (mut ours, theirs) = UnixStream::pair().unwrap();
                let kernel: Arc<Mutex<dyn Kernel>> = Arc::new(Mutex::new(Recorder::default()));
                ours.write_all(&bytes).await.unwrap();
                ours.shutdown().await.unwrap();
                let _ = connection(theirs, &kernel).await;
            });
        }
    }
}
