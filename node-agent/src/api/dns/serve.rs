//! The sockets of one pod. Started by [`super::Proxy::attach`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Shared;
use super::exchange::{Step, begin, finish};
use super::pod::Pod;
use super::query::{MAX_QUERY, encode};
use super::upstream::frame;

/// A connection on which nothing is asked for so long is closed.
const IDLE: Duration = Duration::from_secs(5);
/// Pause after a failed receive or accept, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Answers datagrams until the task is ended.
pub(super) async fn datagrams(shared: Arc<Shared>, pod: Arc<Pod>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    // They end with this task.
    let mut exchanges = JoinSet::new();
    // One byte more than the longest that is read, so that a longer one is seen to be.
    let mut buffer = [0; MAX_QUERY + 1];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(pod = %pod.uid, %error, "a receive failed");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let asked = match begin(&shared, &pod, &buffer[..length]) {
            Step::Dropped => continue,
            Step::Answered(message, most) => {
                if let Some(bytes) = encode(&message, usize::from(most)) {
                    send(&socket, &bytes, from);
                }
                continue;
            }
            Step::Ask(asked) => asked,
        };
        let Ok(place) = Arc::clone(&pod.asked).try_acquire_owned() else {
            shared.counts.add(&shared.counts.over_rate);
            continue;
        };
        while exchanges.try_join_next().is_some() {}
        let (shared, pod, socket) = (Arc::clone(&shared), Arc::clone(&pod), Arc::clone(&socket));
        exchanges.spawn(async move {
            // First come, first served, whichever pod it is: none has more than its share of places.
            let Ok(_turn) = shared.turns.acquire().await else {
                return;
            };
            let message = finish(&shared, &pod, &asked).await;
            let most = usize::from(asked.question().payload.0);
            if let Some(bytes) = encode(&message, most) {
                send(&socket, &bytes, from);
            }
            drop(place);
        });
    }
}

/// A datagram that cannot go out at once is lost, as datagrams are.
fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    if let Err(error) = socket.try_send_to(bytes, to) {
        tracing::debug!(%error, "an answer was lost");
    }
}

/// Answers connections until the task is ended.
pub(super) async fn connections(shared: Arc<Shared>, pod: Arc<Pod>, listener: TcpListener) {
    // They end with this task.
    let mut open = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(pod = %pod.uid, %error, "an accept failed");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&pod.connections).try_acquire_owned() else {
            shared.counts.add(&shared.counts.over_rate);
            continue;
        };
        while open.try_join_next().is_some() {}
        let (shared, pod) = (Arc::clone(&shared), Arc::clone(&pod));
        open.spawn(async move {
            if let Err(error) = connection(&shared, &pod, stream).await {
                tracing::debug!(pod = %pod.uid, %error, "a connection ended");
            }
            drop(place);
        });
    }
}

async fn connection(shared: &Shared, pod: &Pod, mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; MAX_QUERY];
    loop {
        // All of a query within the time, however slowly its bytes come.
        let Ok(length) = timeout(IDLE, receive(&mut stream, &mut buffer)).await else {
            return Ok(());
        };
        let Some(length) = length? else {
            return Ok(());
        };
        let message = match begin(shared, pod, &buffer[..length]) {
            Step::Dropped => return Ok(()),
            Step::Answered(message, _) => *message,
            Step::Ask(asked) => {
                let Ok(_turn) = shared.turns.acquire().await else {
                    return Ok(());
                };
                finish(shared, pod, &asked).await
            }
        };
        let Some(bytes) = encode(&message, usize::from(u16::MAX)) else {
            return Ok(());
        };
        // One who does not take its answer is cut off.
        match timeout(IDLE, stream.write_all(&frame(&bytes))).await {
            Ok(written) => written?,
            Err(_) => return Ok(()),
        }
    }
}

/// Reads one query; nothing at the end of the connection, or where it is too long.
async fn receive(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(place) = buffer.get_mut(..length) else {
        return Ok(None);
    };
    stream.read_exact(place).await?;
    Ok(Some(length))
}
