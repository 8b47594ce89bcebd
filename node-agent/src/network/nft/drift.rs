//! What the kernel says of a table, in a form that can be compared. Used by [`super::table`].

use std::collections::BTreeMap;
use std::io;

use sha2::{Digest, Sha256};

use super::attribute::{Attributes, find, find_long, find_number, find_text, read};
use super::batch::{INET, Key, message};
use super::elements;
use super::socket::NetfilterSocket;

/// Message that tells of tables.
const GET_TABLE: u16 = 1;

/// Names of all tables of both families of addresses.
pub fn tables(socket: &mut NetfilterSocket) -> io::Result<Vec<String>> {
    let found = socket.list(GET_TABLE, INET, &[])?;
    Ok(texts(&found, 1))
}

/// Names of the chains of a table; none where there is no such table.
pub fn chains(socket: &mut NetfilterSocket, table: &str) -> io::Result<Vec<String>> {
    let found = socket.list(message::GET_CHAIN, INET, &[])?;
    let of_table: Vec<Vec<u8>> = found
        .into_iter()
        .filter(|chain| find_text(chain, 1) == Some(table))
        .collect();
    Ok(texts(&of_table, 3))
}

/// Whether a chain is there.
pub fn has_chain(socket: &mut NetfilterSocket, table: &str, chain: &str) -> io::Result<bool> {
    let question = Attributes::new().text(1, table).text(3, chain);
    match socket.get(message::GET_CHAIN, INET, question.bytes()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A number that differs whenever any table of the network namespace changed.
pub fn generation(socket: &mut NetfilterSocket) -> io::Result<u32> {
    let found = socket.get(message::GET_GENERATION, 0, &[])?;
    find_number(&found, 1).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Sixteen hexadecimal digits of all that a table consists of but the elements of its sets: these chains, every rule of them, and every
/// set. Rules elsewhere in the table are in it, too, but for those of `except`.
pub fn fingerprint(
    socket: &mut NetfilterSocket,
    table: &str,
    chain_names: &[&str],
    except: &[&str],
) -> io::Result<String> {
    let mut hash = Sha256::new();
    for name in chain_names.iter().filter(|name| !except.contains(name)) {
        let question = Attributes::new().text(1, table).text(3, name);
        let chain = socket.get(message::GET_CHAIN, INET, question.bytes())?;
        add(&mut hash, &chain, &[3, 4, 5, 7]);
    }
    let question = Attributes::new().text(1, table);
    for rule in socket.list(message::GET_RULE, INET, question.bytes())? {
        let here = find_text(&rule, 1) == Some(table);
        if here && find_text(&rule, 2).is_none_or(|chain| !except.contains(&chain)) {
            add(&mut hash, &rule, &[2, 4]);
        }
    }
    let mut sets = socket.list(message::GET_SET, INET, question.bytes())?;
    sets.retain(|set| find_text(set, 1) == Some(table));
    sets.sort_by(|a, b| find_text(a, 2).cmp(&find_text(b, 2)));
    for set in sets {
        add(&mut hash, &set, &[2, 3, 5, 9]);
    }
    Ok(hex::encode(&hash.finalize()[..8]))
}

/// Takes these attributes into a hash, each with its type and length.
fn add(hash: &mut Sha256, bytes: &[u8], kinds: &[u16]) {
    for (kind, content) in read(bytes).filter(|(kind, _)| kinds.contains(kind)) {
        hash.update(kind.to_be_bytes());
        hash.update(
            u32::try_from(content.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        hash.update(content);
    }
}

/// The elements of the sets that only this program changes, sorted, by the name of the set; empty sets are left out.
pub fn static_elements(
    socket: &mut NetfilterSocket,
    table: &str,
) -> io::Result<BTreeMap<String, Vec<Key>>> {
    let mut found = BTreeMap::new();
    for set in elements::all() {
        if set.kind != super::batch::SetKind::Ranges {
            continue;
        }
        let question = Attributes::new().text(1, table).text(2, &set.name);
        let mut keys: Vec<Key> = socket
            .list(message::GET_ELEMENTS, INET, question.bytes())?
            .iter()
            .filter_map(|some| find(some, 3))
            .flat_map(|list| read(list).filter_map(|(_, element)| key(element)))
            .collect();
        keys.sort();
        if !keys.is_empty() {
            found.insert(set.name, keys);
        }
    }
    Ok(found)
}

fn key(element: &[u8]) -> Option<Key> {
    let value = |kind| find(element, kind).and_then(|data| find(data, 1));
    Some(Key {
        first: value(1)?.to_vec(),
        last: value(10).map(<[u8]>::to_vec),
    })
}

/// Packets that a counter with a name counted.
pub fn packets(socket: &mut NetfilterSocket, table: &str, counter: &str) -> io::Result<u64> {
    const COUNTER: u32 = 1;
    let question = Attributes::new()
        .text(1, table)
        .text(2, counter)
        .number(3, COUNTER);
    let found = socket.get(message::GET_OBJECT, INET, question.bytes())?;
    find(&found, 4)
        .and_then(|data| find_long(data, 2))
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn texts(messages: &[Vec<u8>], kind: u16) -> Vec<String> {
    messages
        .iter()
        .filter_map(|message| find_text(message, kind).map(str::to_owned))
        .collect()
}
