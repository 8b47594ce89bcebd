//! The connection to `network`: questions go out in the order of calls, as many at a time as there are, and their answers come back with
//! the sockets that belong to them. Used by [`super::Network`].

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use crate::api::decide::Event;
use crate::network_protocol::{MAX_FRAME_BYTES, MAX_SOCKETS, Request, Response};

/// Questions that may wait. A node asks about 110 pods, and with each DNS answer.
const QUEUE: usize = 4096;
/// An answer takes well below a millisecond; one that takes so long is not going to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// First pause before the connection is made again: a process that was restarted is there soon.
const MIN_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Bytes read at a time.
const READ: usize = 16 << 10;

/// What came of a question.
#[derive(Debug)]
pub struct Answer {
    /// The number of the connection it was asked on.
    pub connection: u64,
    /// The answer and the sockets that came along, or why there is none.
    pub result: Result<(Response, Vec<OwnedFd>), String>,
}

#[derive(Debug)]
struct Asked {
    frame: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

/// Where questions go in.
#[derive(Clone, Debug)]
pub struct Questions(mpsc::Sender<Asked>);

/// Keeps the connection up. Dropping it ends it.
#[derive(Debug)]
pub struct Connection {
    path: PathBuf,
    questions: mpsc::Receiver<Asked>,
    lost: mpsc::Sender<Event>,
    number: u64,
}

/// Both ends; `lost` hears of each connection that ended.
pub fn connection(path: PathBuf, lost: mpsc::Sender<Event>) -> (Questions, Connection) {
    let (sender, questions) = mpsc::channel(QUEUE);
    let connection = Connection {
        path,
        questions,
        lost,
        number: 0,
    };
    (Questions(sender), connection)
}

impl Questions {
    /// Queues a question; the order of calls is the order on the wire.
    pub fn ask(&self, request: &Request) -> impl Future<Output = Answer> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        let queued = frame(request).and_then(|frame| {
            self.0
                .try_send(Asked { frame, answer })
                .map_err(|_| "too many questions to the network process wait".to_owned())
        });
        async move {
            let failed = |message: String| Answer {
                connection: 0,
                result: Err(message),
            };
            match queued {
                Err(message) => failed(message),
                Ok(()) => answered.await.unwrap_or_else(|_| {
                    failed("the connection to the network process ended".to_owned())
                }),
            }
        }
    }
}

fn frame(request: &Request) -> Result<Vec<u8>, String> {
    let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    let length = u32::try_from(body.len()).map_err(|error| error.to_string())?;
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend(body);
    Ok(frame)
}

impl Connection {
    /// Connects, serves, and connects again; ends when nobody can ask any more.
    pub async fn run(mut self) {
        let mut pause = MIN_PAUSE;
        loop {
            let stream = tokio::select! {
                connected = UnixStream::connect(&self.path) => connected,
                // Nothing waits for a process that is not there.
                asked = self.questions.recv() => match asked {
                    Some(_) => continue,
                    None => return,
                },
            };
            match stream {
                Ok(stream) => {
                    tracing::info!(connection = self.number, "connected to the network process");
                    pause = MIN_PAUSE;
                    let error = self.serve(stream).await;
                    tracing::warn!(error, "lost the network process; connecting again");
                    if self
                        .lost
                        .send(Event::NetworkLost(self.number))
                        .await
                        .is_err()
                    {
                        return;
                    }
                    self.number += 1;
                    tokio::time::sleep(MIN_PAUSE).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "the network process is not there");
                    let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
                    tokio::time::sleep(jittered).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
            // What was asked meanwhile is answered by nobody: its askers hear it as the senders are dropped.
            while self.questions.try_recv().is_ok() {}
        }
    }

    /// Returns why it ended.
    async fn serve(&mut self, stream: UnixStream) -> String {
        let waiting = Mutex::new(VecDeque::new());
        let (read, write) = stream.into_split();
        tokio::select! {
            error = ask(&mut self.questions, write, &waiting) => error,
            error = hear(read, &waiting, self.number) => error,
        }
    }
}

type Waiting = Mutex<VecDeque<oneshot::Sender<Answer>>>;

async fn ask(
    questions: &mut mpsc::Receiver<Asked>,
    mut stream: OwnedWriteHalf,
    waiting: &Waiting,
) -> String {
    while let Some(Asked { frame, answer }) = questions.recv().await {
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(answer);
        if let Err(error) = stream.write_all(&frame).await {
            return error.to_string();
        }
    }
    "nobody asks any more".to_owned()
}

async fn hear(stream: OwnedReadHalf, waiting: &Waiting, connection: u64) -> String {
    let mut input = Input::default();
    loop {
        let frame = match tokio::time::timeout(PATIENCE, input.frame(&stream)).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => {
                let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.is_empty() {
                    continue;
                }
                return format!("no answer within {} s", PATIENCE.as_secs());
            }
        };
        let response: Response = match serde_json::from_slice(&frame) {
            Ok(response) => response,
            Err(error) => return format!("not an answer: {error}"),
        };
        // Sockets come with the first byte of the frame they belong to, and with no other kind of answer.
        let sockets = match &response {
            Response::Armed(_) => input.sockets.drain(..).collect(),
            Response::Refused(message) => return format!("refused: {message}"),
            _ => Vec::new(),
        };
        let next = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(answer) = next else {
            return "an answer without a question".to_owned();
        };
        let _ = answer.send(Answer {
            connection,
            result: Ok((response, sockets)),
        });
    }
}

/// What was received and not read yet.
#[derive(Debug, Default)]
struct Input {
    bytes: Vec<u8>,
    sockets: VecDeque<OwnedFd>,
}

impl Input {
    /// The next frame. Given up half-way, nothing is lost.
    async fn frame(&mut self, stream: &OwnedReadHalf) -> io::Result<Vec<u8>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            stream.readable().await?;
            match stream
                .as_ref()
                .try_io(Interest::READABLE, || self.receive(stream.as_ref()))
            {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_FRAME_BYTES {
            return Err(io::Error::other("a frame is too large"));
        }
        let Some(frame) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = frame.to_vec();
        self.bytes.drain(..4 + length);
        Ok(Some(frame))
    }

    fn receive(&mut self, stream: &UnixStream) -> io::Result<usize> {
        let mut bytes = [0; READ];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut rights,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in rights.drain() {
            if let RecvAncillaryMessage::ScmRights(sockets) = message {
                self.sockets.extend(sockets);
            }
        }
        self.bytes.extend_from_slice(&bytes[..received.bytes]);
        Ok(received.bytes)
    }
}
