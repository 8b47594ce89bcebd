//! The server for names. Used by [`super::Outside`].

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::{Meaning, Zone};

/// Largest answer over UDP that every resolver takes.
const DATAGRAM: usize = 512;

/// Answers over UDP and TCP.
pub(super) async fn serve(
    at: SocketAddr,
    zone: &Arc<Mutex<Zone>>,
    servers: &mut JoinSet<()>,
) -> std::io::Result<()> {
    let datagrams = UdpSocket::bind(at).await?;
    let listener = TcpListener::bind(at).await?;
    let of_datagrams = zone.clone();
    servers.spawn(async move {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        while let Ok((length, peer)) = datagrams.recv_from(&mut buffer).await {
            if let Some(answer) = answer(&buffer[..length], &of_datagrams, DATAGRAM) {
                // One that is lost is asked for again.
                let _ = datagrams.send_to(&answer, peer).await;
            }
        }
    });
    let of_streams = zone.clone();
    servers.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let zone = of_streams.clone();
            open.spawn(async move {
                // Whoever asks in vain is told nothing.
                let _ = connection(stream, &zone).await;
            });
            while open.try_join_next().is_some() {}
        }
    });
    Ok(())
}

async fn connection(mut stream: TcpStream, zone: &Mutex<Zone>) -> std::io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await?;
        let Some(answer) = answer(&query, zone, usize::from(u16::MAX)) else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        stream.write_all(&framed).await?;
    }
}

/// The answer to a query; none where it is none.
fn answer(query: &[u8], zone: &Mutex<Zone>, most: usize) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?.clone();
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_available = true;
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.add_query(question.clone());
    let mut name = question.name().clone();
    let mut known = false;
    // A chain of any length that a test may have said, and no endless one.
    for _ in 0..16 {
        let Some(meaning) = look_up(&name, zone) else {
            break;
        };
        known = true;
        let Some(alias) = &meaning.alias else {
            answer.add_answers(records(&name, question.query_type(), &meaning));
            break;
        };
        let target = Name::from_ascii(format!("{alias}.")).ok()?;
        let data = RData::CNAME(CNAME(target.clone()));
        answer.add_answer(Record::from_rdata(name, meaning.ttl, data));
        name = target;
    }
    if !known {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    let bytes = answer.to_vec().ok()?;
    if bytes.len() <= most {
        return Some(bytes);
    }
    answer.answers.clear();
    answer.metadata.truncation = true;
    answer.to_vec().ok()
}

fn look_up(name: &Name, zone: &Mutex<Zone>) -> Option<Meaning> {
    let text = name.to_ascii().to_ascii_lowercase();
    let text = text.trim_end_matches('.');
    let mut zone = zone.lock().unwrap_or_else(PoisonError::into_inner);
    zone.asked.insert(text.to_owned());
    zone.names.get(text).cloned()
}

fn records(name: &Name, kind: RecordType, meaning: &Meaning) -> Vec<Record> {
    let data: Vec<RData> = match kind {
        RecordType::TXT => vec![RData::TXT(TXT::new(vec!["a secret way out".into()]))],
        _ => meaning
            .addresses
            .iter()
            .filter_map(|address| match (address, kind) {
                (IpAddr::V4(address), RecordType::A) => Some(RData::A(A(*address))),
                (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(AAAA(*address))),
                _ => None,
            })
            .collect(),
    };
    data.into_iter()
        .map(|data| Record::from_rdata(name.clone(), meaning.ttl, data))
        .collect()
}
