//! The socket that speaks with nf_tables of one network namespace. Opened by [`crate::network`] in the namespace it is for;
//! used by [`super::table`].

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::batch::Batch;

/// Bytes of a message's header: `nlmsghdr` and `nfgenmsg`.
const HEADER: usize = 20;
/// Bytes of `nlmsghdr` alone.
const NETLINK_HEADER: usize = 16;
/// Subsystem of nf_tables, in the upper byte of a message's type.
const SUBSYSTEM: u16 = 10;
/// Type of an error, or of an acknowledgement, which is error 0.
const ERROR: u16 = 2;
/// Type of the last message of a list.
const DONE: u16 = 3;
/// Flag: this is a question.
pub(super) const REQUEST: u16 = 1;
/// Flag: tell of success, too.
pub(super) const ACKNOWLEDGE: u16 = 4;
/// Flags: tell of all there are.
const LIST: u16 = 0x300;
/// Flag of an answer: what it tells of changed while it was told.
const INTERRUPTED: u16 = 0x10;
/// The kernel answers within microseconds; only a broken one does not.
const PATIENCE_SECONDS: i64 = 5;
/// Room for the largest batch: 16,384 elements of static sets, of at most 120 bytes.
const SEND_BUFFER: usize = 4 << 20;
/// Room for the answers to a batch of which everything fails.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Largest message that the kernel sends is 32 KiB.
const READ: usize = 64 << 10;
/// A list that is interrupted by changes so often is given up.
const TRIES: usize = 8;

/// A netlink socket of nf_tables. It stays with the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct NetfilterSocket {
    socket: OwnedFd,
    sequence: u32,
}

/// One message of an answer.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    /// What follows the first header.
    content: &'a [u8],
}

impl NetfilterSocket {
    /// Opens one in the network namespace of this thread.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let patience = TimeVal::seconds(PATIENCE_SECONDS);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        setsockopt(&socket, sockopt::SendTimeout, &patience)?;
        // Beyond the usual limit with CAP_NET_ADMIN only, which whoever changes tables has.
        setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER)?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Carries out all of a batch, or nothing of it.
    pub fn commit(&mut self, batch: &Batch) -> io::Result<()> {
        let (bytes, first, last) = batch.encode(self.sequence);
        self.sequence = last;
        let Some(acknowledged) = batch.last(first) else {
            return Ok(());
        };
        self.send(&bytes)?;
        let mut failed = None;
        let mut buffer = vec![0; READ];
        loop {
            let length = self.receive(&mut buffer)?;
            for message in messages(&buffer[..length]) {
                // Left from a batch that was given up.
                if message.sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                    continue;
                }
                let Some(error) = error_of(&message) else {
                    continue;
                };
                if error != 0 {
                    failed.get_or_insert(error);
                }
                // The kernel speaks of the whole batch with its first message, and of nothing else then.
                if message.sequence == acknowledged || message.sequence == first {
                    return match failed {
                        None => Ok(()),
                        Some(error) => Err(io::Error::from_raw_os_error(error)),
                    };
                }
            }
        }
    }

    /// Contents of the messages that tell of all there are, without their headers.
    pub fn list(&mut self, kind: u16, family: u8, content: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..TRIES {
            if let Some(found) = self.ask(kind, family, LIST, content)? {
                return Ok(found);
            }
        }
        Err(io::Error::other("the tables do not stop changing"))
    }

    /// Content of the message that answers a question, without its headers.
    pub fn get(&mut self, kind: u16, family: u8, content: &[u8]) -> io::Result<Vec<u8>> {
        let found = self.ask(kind, family, 0, content)?;
        found
            .and_then(|found| found.into_iter().next())
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    /// Asks; nothing where the answer was interrupted by a change.
    fn ask(
        &mut self,
        kind: u16,
        family: u8,
        flags: u16,
        content: &[u8],
    ) -> io::Result<Option<Vec<Vec<u8>>>> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut bytes = Vec::new();
        write(
            &mut bytes,
            message_kind(kind),
            REQUEST | flags | if flags == 0 { ACKNOWLEDGE } else { 0 },
            sequence,
            (family, 0),
            content,
        );
        self.send(&bytes)?;
        let (mut found, mut interrupted) = (Vec::new(), false);
        // Not kept: a node has more than a hundred of these sockets, and uses one at a time.
        let mut buffer = vec![0; READ];
        loop {
            let length = self.receive(&mut buffer)?;
            for message in messages(&buffer[..length]) {
                if message.sequence != sequence {
                    continue;
                }
                interrupted |= message.flags & INTERRUPTED != 0;
                match (message.kind, error_of(&message)) {
                    (DONE, _) | (_, Some(0)) => return Ok((!interrupted).then_some(found)),
                    (_, Some(error)) => return Err(io::Error::from_raw_os_error(error)),
                    _ => found.push(
                        message
                            .content
                            .get(HEADER - NETLINK_HEADER..)
                            .unwrap_or_default()
                            .to_vec(),
                    ),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        let sent = sendto(self.socket.as_raw_fd(), bytes, &kernel, MsgFlags::empty())?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::WriteZero))
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Ok(length) => return Ok(length),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => {
                    return Err(io::Error::from(io::ErrorKind::TimedOut));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The type of a message of nf_tables.
pub(super) fn message_kind(kind: u16) -> u16 {
    (SUBSYSTEM << 8) | kind
}

/// Writes one message: family and resource go into its second header.
pub(super) fn write(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    (family, resource): (u8, u16),
    content: &[u8],
) {
    let length = u32::try_from(HEADER + content.len()).unwrap_or(u32::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The messages in what was received; it ends at the first that does not fit.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let word = |at: usize| -> Option<u32> {
            Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        let half = |at: usize| -> Option<u16> {
            Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
        };
        let length = usize::try_from(word(0)?).ok()?;
        let message = Message {
            kind: half(4)?,
            flags: half(6)?,
            sequence: word(8)?,
            content: bytes.get(NETLINK_HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// What an error message says, as a number above 0; 0 is an acknowledgement.
fn error_of(message: &Message<'_>) -> Option<i32> {
    if message.kind != ERROR {
        return None;
    }
    let code = message
        .content
        .get(..4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(-libc_eproto(), i32::from_ne_bytes);
    Some(code.saturating_neg())
}

/// The error for an answer that makes no sense.
fn libc_eproto() -> i32 {
    nix::errno::Errno::EPROTO as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_reads_back() {
        let mut bytes = Vec::new();
        write(&mut bytes, ERROR, 0, 7, (0, 0), &[]);
        write(
            &mut bytes,
            message_kind(3),
            INTERRUPTED,
            8,
            (1, 0),
            &[1, 2, 3],
        );
        let all: Vec<_> = messages(&bytes)
            .map(|m| (m.kind, m.flags, m.sequence, m.content.len()))
            .collect();
        assert_eq!(all, [(2, 0, 7, 4), (0xa03, INTERRUPTED, 8, 7)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for message in messages(&bytes) {
                let _ = error_of(&message);
            }
        }
    }
}
