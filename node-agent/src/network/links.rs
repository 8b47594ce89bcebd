//! Links, addresses and routes of the network namespace the calling thread is in, asked of the kernel by rtnetlink. Called by
//! [`super::evidence`].

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::{
    AddressFamily as Domain, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
    sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// The kernel answers within microseconds; only a broken one does not.
const PATIENCE_SECONDS: i64 = 5;
/// Largest message that the kernel sends is 32 KiB.
const READ: usize = 64 << 10;

/// One link.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is a loopback.
    pub loopback: bool,
    /// Number of the other end, which may be in another namespace.
    pub peer: Option<u32>,
    /// The number that this namespace knows the other end's namespace by; none where the other end is here.
    pub peer_namespace: Option<i32>,
    /// Whether it is a port of a bridge or the like.
    pub enslaved: bool,
    /// Its addresses, those of the link alone left out.
    pub addresses: Vec<IpAddr>,
}

/// A route to one address over one link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HostRoute {
    /// The address.
    pub address: IpAddr,
    /// Number of the link.
    pub index: u32,
}

/// What one namespace has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Links {
    /// Its links.
    pub interfaces: Vec<Interface>,
    /// Its routes to single addresses.
    pub host_routes: Vec<HostRoute>,
}

impl Links {
    /// Reads them.
    pub fn read() -> io::Result<Self> {
        let mut socket = RouteSocket::open()?;
        let mut links = Self::default();
        socket.list(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            |message| {
                if let RouteNetlinkMessage::NewLink(link) = message {
                    links.interfaces.push(interface(&link));
                }
            },
        )?;
        socket.list(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            |message| {
                if let RouteNetlinkMessage::NewAddress(found) = message
                    && let Some(address) = address(&found)
                    && let Some(interface) = links
                        .interfaces
                        .iter_mut()
                        .find(|interface| interface.index == found.header.index)
                {
                    interface.addresses.push(address);
                }
            },
        )?;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            socket.list(RouteNetlinkMessage::GetRoute(question), |message| {
                if let RouteNetlinkMessage::NewRoute(route) = message {
                    links.host_routes.extend(host_route(&route));
                }
            })?;
        }
        Ok(links)
    }

    /// Every address of any link but the loopback.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = self
            .interfaces
            .iter()
            .filter(|interface| !interface.loopback)
            .flat_map(|interface| interface.addresses.iter().copied())
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The number that the namespace of this thread knows another one by, where it has one.
pub fn number_of(namespace: impl AsFd) -> io::Result<Option<i32>> {
    let mut question = NsidMessage::default();
    let fd = u32::try_from(namespace.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    question.attributes.push(NsidAttribute::Fd(fd));
    let mut number = None;
    RouteSocket::open()?.ask(RouteNetlinkMessage::GetNsId(question), |message| {
        if let RouteNetlinkMessage::NewNsId(answer) = message {
            number = answer
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    // The kernel says -1 of one that has no number.
                    NsidAttribute::Id(number) => Some(*number).filter(|number| *number >= 0),
                    _ => None,
                });
        }
    })?;
    Ok(number)
}

fn interface(link: &LinkMessage) -> Interface {
    let mut found = Interface {
        index: link.header.index,
        loopback: link.header.flags.contains(LinkFlags::Loopback),
        ..Interface::default()
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Link(peer) => found.peer = Some(*peer),
            LinkAttribute::LinkNetNsId(number) => found.peer_namespace = Some(*number),
            LinkAttribute::Controller(number) => found.enslaved = *number != 0,
            _ => {}
        }
    }
    found
}

/// The address that a message is about, where it is more than the link's own.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    if matches!(
        message.header.scope,
        AddressScope::Link | AddressScope::Host | AddressScope::Nowhere
    ) {
        return None;
    }
    // On a link with a peer, `Address` is the peer's and `Local` its own.
    let find = |local: bool| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(address) if local => Some(*address),
                AddressAttribute::Address(address) if !local => Some(*address),
                _ => None,
            })
    };
    find(true).or_else(|| find(false))
}

fn host_route(message: &RouteMessage) -> Option<HostRoute> {
    let width = match message.header.address_family {
        AddressFamily::Inet => 32,
        AddressFamily::Inet6 => 128,
        _ => return None,
    };
    // The local table has a route to each of the node's own addresses.
    if message.header.destination_prefix_length != width
        || message.header.kind != RouteType::Unicast
        || message.header.table != RouteHeader::RT_TABLE_MAIN
    {
        return None;
    }
    let mut address = None;
    let mut index = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(found)) => {
                address = Some(IpAddr::V4(*found));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(found)) => {
                address = Some(IpAddr::V6(*found));
            }
            RouteAttribute::Oif(found) => index = Some(*found),
            // Not over this link's other end, but over somebody behind it.
            RouteAttribute::Gateway(_) => return None,
            _ => {}
        }
    }
    Some(HostRoute {
        address: address?,
        index: index?,
    })
}

/// A netlink socket of routes and links.
struct RouteSocket {
    socket: OwnedFd,
    sequence: u32,
}

impl RouteSocket {
    fn open() -> io::Result<Self> {
        let socket = socket(
            Domain::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let patience = TimeVal::seconds(PATIENCE_SECONDS);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        setsockopt(&socket, sockopt::SendTimeout, &patience)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Asks for all there are.
    fn list(
        &mut self,
        question: RouteNetlinkMessage,
        found: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.exchange(question, NLM_F_REQUEST | NLM_F_DUMP, found)
    }

    /// Asks for one thing.
    fn ask(
        &mut self,
        question: RouteNetlinkMessage,
        found: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.exchange(question, NLM_F_REQUEST | NLM_F_ACK, found)
    }

    fn exchange(
        &mut self,
        question: RouteNetlinkMessage,
        flags: u16,
        mut found: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        sendto(
            self.socket.as_raw_fd(),
            &bytes,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        let mut buffer = vec![0; READ];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                let length = usize::try_from(message.header.length).unwrap_or(rest.len());
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => found(message),
                    NetlinkPayload::Done(_) => return Ok(()),
                    // An acknowledgement is error 0.
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }
}
