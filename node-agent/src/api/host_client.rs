//! Asks the `host` process. Used by [`super::engine`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::protocol::{MAX_PODS, PodInspection, PodUid, PodUsage, Request, Response, codec};

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
        let connection = place.take();
        let (answer, connection) =
            tokio::time::timeout(TIMEOUT, exchange(&self.path, connection, request))
                .await
                .map_err(|_| HostError::Timeout)??;
        *place = Some(connection);
        Ok(answer)
    }
}

async fn exchange(
    path: &Path,
    connection: Option<Connection>,
    request: &Request,
) -> Result<(Response, Connection), HostError> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => Framed::new(UnixStream::connect(path).await?, codec()),
    };
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
}

fn refused(response: &Response) -> HostError {
    HostError::Refused(match response {
        Response::Refused(message) => message.chars().take(200).collect(),
        Response::Inspected(_) => "inspections".to_owned(),
        Response::Usage(_) => "usage".to_owned(),
    })
}
