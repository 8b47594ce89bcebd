//! Asks the cluster's DNS servers. Called by [`super::exchange`].

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query};
use ipnet::IpNet;
use pilotlight_common::network::PortRule;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::answer::{self, BadAnswer, Told};
use super::query::Question;

/// How long one server is waited for. Resolvers give up after five seconds, and two servers are asked before that.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most servers asked for one question.
const TRIES: usize = 2;
/// Largest answer over UDP that is asked for: what gets through without fragments.
const PAYLOAD: u16 = 1232;

/// Why no server gave an answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// There is none to ask.
    #[error("no DNS server is known")]
    NoServer,
    /// The last one that was asked did not answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// It could not be asked.
    #[error("it cannot be asked: {0}")]
    Io(#[from] io::Error),
    /// What it answered is worth nothing.
    #[error("its answer is worth nothing: {0}")]
    Bad(#[from] BadAnswer),
}

/// What an answer is judged by.
pub struct Allowed<'a> {
    /// Ports of the name.
    pub ports: &'a BTreeSet<PortRule>,
    /// Ranges that are named although they are not public.
    pub ranges: &'a [IpNet],
}

/// Asks the servers, one after the other, until one answers.
pub async fn ask(
    servers: &[SocketAddr],
    question: &Question,
    allowed: &Allowed<'_>,
) -> Result<Told, UpstreamError> {
    let mut last = UpstreamError::NoServer;
    for server in servers
        .iter()
        .cycle()
        .take(TRIES.min(servers.len() * TRIES))
    {
        match timeout(PATIENCE, ask_one(*server, question, allowed)).await {
            Ok(Ok(told)) => return Ok(told),
            Ok(Err(error)) => last = error,
            Err(_) => last = UpstreamError::TimedOut,
        }
    }
    Err(last)
}

async fn ask_one(
    server: SocketAddr,
    question: &Question,
    allowed: &Allowed<'_>,
) -> Result<Told, UpstreamError> {
    let id: u16 = rand::random();
    let query = encode(question, id)?;
    // A socket for each question: its port is chosen at random by the kernel.
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // From here on the kernel takes datagrams of this server only.
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut buffer = [0; PAYLOAD as usize];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let read = answer::read(
            &buffer[..length],
            id,
            question,
            allowed.ports,
            allowed.ranges,
        );
        match read {
            Ok(told) => return Ok(told),
            Err(BadAnswer::Truncated) => break,
            // Somebody may be guessing: the true answer is still to come.
            Err(BadAnswer::Mismatch | BadAnswer::Malformed) => {}
            Err(failed @ BadAnswer::Failed) => return Err(failed.into()),
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&frame(&query)).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(answer::read(
        &bytes,
        id,
        question,
        allowed.ports,
        allowed.ranges,
    )?)
}

fn encode(question: &Question, id: u16) -> Result<Vec<u8>, UpstreamError> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(question.name.clone(), question.kind));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD);
    message.set_edns(edns);
    message
        .to_vec()
        .map_err(|error| UpstreamError::Io(io::Error::other(error)))
}

/// A message as it goes over TCP, its length before it.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(&message[..usize::from(length)]);
    bytes
}
