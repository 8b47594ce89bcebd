//! The socket that `api` asks through. Called by [`super::run`].
//!
//! One connection at a time, one question at a time, without an event loop: each is a few system calls, and whoever else may connect is
//! `api` after a restart, whose last connection has ended by then.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt};

use crate::host::serve::is_api;
use crate::network_protocol::{MAX_FRAME_BYTES, Request, Response};

/// A peer that does not take its answer for so long is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers.
pub trait Answer {
    /// The answer, and the sockets that go with it.
    fn answer(&mut self, request: Request) -> (Response, Vec<OwnedFd>);
}

impl Answer for super::pods::Pods {
    fn answer(&mut self, request: Request) -> (Response, Vec<OwnedFd>) {
        Self::answer(self, request)
    }
}

/// Answers every connection of user `uid`; never returns.
pub fn serve(listener: &UnixListener, uid: u32, answers: &mut impl Answer) -> ! {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        let peer = getsockopt(&stream, sockopt::PeerCredentials);
        if !is_api(peer.map(|peer| peer.uid()), uid) {
            continue;
        }
        if let Err(error) = connection(stream, answers) {
            tracing::info!(%error, "connection ended");
        }
    }
}

fn connection(mut stream: UnixStream, answers: &mut impl Answer) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    while let Some(frame) = read(&mut stream)? {
        let (response, sockets) = match Request::read(&frame) {
            Ok(request) => answers.answer(request),
            Err(error) => (Response::Refused(error.to_string()), Vec::new()),
        };
        write(&mut stream, &response, &sockets)?;
        if matches!(response, Response::Refused(_)) {
            return Err(io::Error::other("the peer does not speak this protocol"));
        }
    }
    Ok(())
}

/// The next frame; none at the end.
fn read(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::other("a frame is too large"));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(Some(frame))
}

fn write(stream: &mut UnixStream, response: &Response, sockets: &[OwnedFd]) -> io::Result<()> {
    let body = serde_json::to_vec(response)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(body);
    let sockets: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&sockets)];
    let rights = if sockets.is_empty() { &[][..] } else { &rights };
    let sent = sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    stream.write_all(&bytes[sent..])
}
