//! Asks the `host` process. Used by [`super::engine`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::protocol::{
    CheckedProfiles, CpuState, MAX_PODS, PinAnswer, PodInspection, PodUid, PodUsage, ProfileFile,
    Request, Response, UserProfile, codec,
};

/// A question takes `host` a few milliseconds; one that takes so long is not going to be answered.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(#[from] std::io::Error),
    /// No answer in time.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// The connection was closed.
    #[error("the connection was closed")]
    Closed,
    /// Not an answer.
    #[error("not an answer: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The answer to another question.
    #[error("refused, or the answer to another question: {0}")]
    Refused(String),
}

/// Something that answers the questions of [`crate::protocol`].
pub trait Host: Send + Sync + 'static {
    /// The processes of each pod.
    fn inspect(
        &self,
        pods: Vec<PodUid>,
    ) -> impl Future<Output = Result<Vec<PodInspection>, HostError>> + Send;
    /// What each pod uses.
    fn usage(
        &self,
        pods: Vec<PodUid>,
    ) -> impl Future<Output = Result<Vec<PodUsage>, HostError>> + Send;
    /// Installs a user's seccomp profile; the inner error says why it is refused.
    fn install_profile(
        &self,
        profile: UserProfile,
    ) -> impl Future<Output = Result<Result<ProfileFile, String>, HostError>> + Send;
    /// Makes every seccomp profile what it must be.
    fn check_profiles(
        &self,
        wanted: BTreeSet<ProfileFile>,
        named: BTreeSet<ProfileFile>,
    ) -> impl Future<Output = Result<CheckedProfiles, HostError>> + Send;
    /// Whole CPUs for a pod.
    fn pin(
        &self,
        pod: PodUid,
        cpus: u32,
    ) -> impl Future<Output = Result<PinAnswer, HostError>> + Send;
    /// Which CPUs are given, and how many can be.
    fn cpus(&self) -> impl Future<Output = Result<CpuState, HostError>> + Send;
}

type Connection = Framed<UnixStream, LengthDelimitedCodec>;

/// The `host` process behind its socket; the connection is made again after an error.
#[derive(Debug)]
pub struct HostSocket {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
}

impl HostSocket {
    /// The process behind `path`; nothing is connected yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            connection: Mutex::new(None),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Response, HostError> {
        let mut place = self.connection.lock().await;
        // Put back only after a whole answer: half of one would be taken for the next.
        let kept = place.take();
        let asked = async {
            if let Some(connection) = kept
                && let Ok(answered) = exchange(connection, request).await
            {
                return Ok(answered);
            }
            // The kept one may be of a process that was replaced meanwhile; questions can be asked twice.
            let stream = UnixStream::connect(&self.path).await?;
            exchange(Framed::new(stream, codec()), request).await
        };
        let (answer, connection) = tokio::time::timeout(TIMEOUT, asked)
            .await
            .map_err(|_| HostError::Timeout)??;
        *place = Some(connection);
        Ok(answer)
    }
}

async fn exchange(
    mut connection: Connection,
    request: &Request,
) -> Result<(Response, Connection), HostError> {
    connection
        .send(Bytes::from(serde_json::to_vec(request)?))
        .await?;
    let frame = connection.next().await.ok_or(HostError::Closed)??;
    Ok((serde_json::from_slice(&frame)?, connection))
}

impl Host for HostSocket {
    async fn inspect(&self, pods: Vec<PodUid>) -> Result<Vec<PodInspection>, HostError> {
        match self.ask(&Request::Inspect { pods }).await? {
            Response::Inspected(inspections) => Ok(inspections),
            other => Err(refused(&other)),
        }
    }

    async fn usage(&self, pods: Vec<PodUid>) -> Result<Vec<PodUsage>, HostError> {
        let mut all = Vec::with_capacity(pods.len());
        let mut rest = pods.as_slice();
        // Without pods too: the answer shows that the process is there.
        loop {
            let (batch, later) = rest.split_at(rest.len().min(MAX_PODS));
            let pods = batch.to_vec();
            match self.ask(&Request::Usage { pods }).await? {
                Response::Usage(usage) => all.extend(usage),
                other => return Err(refused(&other)),
            }
            if later.is_empty() {
                return Ok(all);
            }
            rest = later;
        }
    }

    async fn install_profile(
        &self,
        profile: UserProfile,
    ) -> Result<Result<ProfileFile, String>, HostError> {
        match self.ask(&Request::InstallProfile(profile)).await? {
            Response::ProfileInstalled(result) => Ok(result),
            other => Err(refused(&other)),
        }
    }

    async fn pin(&self, pod: PodUid, cpus: u32) -> Result<PinAnswer, HostError> {
        match self.ask(&Request::Pin { pod, cpus }).await? {
            Response::Pinned(answer) => Ok(answer),
            other => Err(refused(&other)),
        }
    }

    async fn check_profiles(
        &self,
        wanted: BTreeSet<ProfileFile>,
        named: BTreeSet<ProfileFile>,
    ) -> Result<CheckedProfiles, HostError> {
        match self.ask(&Request::CheckProfiles { wanted, named }).await? {
            Response::ProfilesChecked(checked) => Ok(checked),
            other => Err(refused(&other)),
        }
    }

    async fn cpus(&self) -> Result<CpuState, HostError> {
        match self.ask(&Request::Cpus).await? {
            Response::Cpus(state) => Ok(state),
            other => Err(refused(&other)),
        }
    }
}

fn refused(response: &Response) -> HostError {
    HostError::Refused(match response {
        Response::Refused(message) => message.chars().take(200).collect(),
        Response::Inspected(_) => "inspections".to_owned(),
        Response::Usage(_) => "usage".to_owned(),
        Response::ProfileInstalled(_) => "an installed profile".to_owned(),
        Response::ProfilesChecked(_) => "checked profiles".to_owned(),
        Response::Pinned(_) => "whether a pod has CPUs".to_owned(),
        Response::Cpus(_) => "CPUs".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::kernel::Kernel;
    use crate::host::serve::{bind, serve};

    struct Silent;

    impl Kernel for Silent {
        fn inspect(&mut self, pods: &[PodUid]) -> Vec<PodInspection> {
            let unseen = |uid: &PodUid| PodInspection {
                uid: uid.clone(),
                found: false,
                containers: Vec::new(),
                truncated: false,
                pin: None,
            };
            pods.iter().map(unseen).collect()
        }

        fn usage(&mut self, pods: &[PodUid]) -> Vec<PodUsage> {
            assert!(pods.len() <= MAX_PODS);
            let used = |uid: &PodUid| PodUsage {
                uid: uid.clone(),
                cpu_micros: 1,
                working_set_bytes: 1,
                at_micros: 1,
            };
            pods.iter().map(used).collect()
        }

        fn install_profile(&mut self, profile: &UserProfile) -> Result<ProfileFile, String> {
            ProfileFile::try_from(format!("{}-0123456789ab.json", profile.name))
                .map_err(|error| error.to_string())
        }

        fn check_profiles(
            &mut self,
            wanted: &BTreeSet<ProfileFile>,
            _: &BTreeSet<ProfileFile>,
        ) -> CheckedProfiles {
            CheckedProfiles {
                installed: wanted.iter().cloned().collect(),
                ..CheckedProfiles::default()
            }
        }
        fn pin(&mut self, _pod: &PodUid, cpus: u32) -> PinAnswer {
            PinAnswer::Granted((0..cpus).collect())
        }

        fn cpus(&mut self) -> CpuState {
            CpuState {
                free: 7,
                ..CpuState::default()
            }
        }

        fn tick(&mut self) {}
    }

    fn start(path: &Path) -> tokio::task::JoinSet<()> {
        let gid = nix::unistd::Gid::current().as_raw();
        let uid = nix::unistd::Uid::current().as_raw();
        let listener = bind(path, gid).unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { serve(listener, uid, Silent).await.unwrap() });
        tasks
    }

    #[tokio::test]
    async fn more_pods_than_fit_into_a_question_are_asked_about_in_several() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.sock");
        let _server = start(&path);
        let host = HostSocket::new(&path);
        let pods: Vec<PodUid> = (0..150)
            .map(|n| PodUid::try_from(format!("00000000-0000-0000-0000-{n:012x}")).unwrap())
            .collect();
        assert_eq!(host.usage(pods.clone()).await.unwrap().len(), 150);
        assert_eq!(host.usage(Vec::new()).await.unwrap().len(), 0);
        let seen = host.inspect(pods[..64].to_vec()).await.unwrap();
        assert_eq!(seen.len(), 64);
        let answer = host.pin(pods[0].clone(), 2).await.unwrap();
        assert_eq!(answer, PinAnswer::Granted((0..2).collect()));
        assert_eq!(host.cpus().await.unwrap().free, 7);
    }

    #[tokio::test]
    async fn profiles_are_installed_and_checked_through_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.sock");
        let _server = start(&path);
        let host = HostSocket::new(&path);
        let profile = |name: &str| UserProfile {
            name: name.into(),
            json: "{}".into(),
        };
        let file = host.install_profile(profile("mine")).await.unwrap();
        let wanted = BTreeSet::from([file.unwrap()]);
        let checked = host.check_profiles(wanted.clone(), BTreeSet::new()).await;
        assert!(checked.unwrap().installed.iter().eq(&wanted));
        let refused = host.install_profile(profile("../mine")).await.unwrap();
        assert!(refused.unwrap_err().contains("../mine"));
    }

    #[tokio::test]
    async fn a_host_that_was_replaced_is_asked_again_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.sock");
        let host = HostSocket::new(&path);
        assert!(matches!(
            host.usage(Vec::new()).await,
            Err(HostError::Socket(_))
        ));
        let server = start(&path);
        host.usage(Vec::new()).await.unwrap();
        drop(server);
        let _server = start(&path);
        host.usage(Vec::new()).await.unwrap();
    }
}
