//! The expressions that rules consist of. Used by [`super::rules`].
//!
//! Numbers of attributes, keys and codes are those of the kernel's `linux/netfilter/nf_tables.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::attribute::Attributes;

/// First register of four bytes. An address of IPv4 takes one, an address of IPv6 four.
const FIRST: u32 = 8;
/// Attribute of a list's members.
const LIST_ELEMENT: u16 = 1;

/// A family of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Its number as the kernel has it (`NFPROTO_*`).
    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Bytes of an address.
    pub fn width(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// Where a packet's header has an address.
    fn offset(self, side: Side) -> u32 {
        match (self, side) {
            (Self::V4, Side::Source) => 12,
            (Self::V4, Side::Destination) => 16,
            (Self::V6, Side::Source) => 8,
            (Self::V6, Side::Destination) => 24,
        }
    }

    /// The register behind an address.
    fn behind(self) -> u32 {
        FIRST + self.width() / 4
    }
}

/// One end of a packet's way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// Which interface of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Interface {
    /// The one it came in by.
    In,
    /// The one it goes out by.
    Out,
}

/// Numbers of IP protocols.
pub mod protocol {
    /// Internet Control Message Protocol.
    pub const ICMP: u8 = 1;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// Internet Control Message Protocol of IPv6.
    pub const ICMPV6: u8 = 58;
}

/// Bits of a connection's state.
pub mod state {
    /// Both directions were seen.
    pub const ESTABLISHED: u32 = 2;
    /// An error message about a known connection.
    pub const RELATED: u32 = 4;
}

/// Bit of a connection's status: its destination was rewritten.
const REWRITTEN: u32 = 1 << 5;

/// A rule: expressions in the order in which they are evaluated.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rule(Vec<(&'static str, Attributes)>);

impl Rule {
    /// A rule that matches everything and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The expressions as one attribute holds them.
    pub fn encode(&self) -> Attributes {
        self.0.iter().fold(Attributes::new(), |list, (name, data)| {
            let expression = Attributes::new().text(1, name).nested(2, data);
            list.nested(LIST_ELEMENT, &expression)
        })
    }

    fn with(mut self, name: &'static str, data: Attributes) -> Self {
        self.0.push((name, data));
        self
    }

    fn meta(self, key: u32, register: u32) -> Self {
        self.with("meta", Attributes::new().number(1, register).number(2, key))
    }

    fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        let data = Attributes::new()
            .number(1, register)
            .number(2, base)
            .number(3, offset)
            .number(4, length);
        self.with("payload", data)
    }

    fn compare(self, differs: bool, value: &[u8]) -> Self {
        let data = Attributes::new()
            .number(1, FIRST)
            .number(2, u32::from(differs))
            .nested(3, &Attributes::new().raw(1, value));
        self.with("cmp", data)
    }

    fn bits(self, mask: u32) -> Self {
        let value = |bytes: [u8; 4]| Attributes::new().raw(1, &bytes);
        let data = Attributes::new()
            .number(1, FIRST)
            .number(2, FIRST)
            .number(3, 4)
            .nested(4, &value(mask.to_ne_bytes()))
            .nested(5, &value([0; 4]));
        self.with("bitwise", data).compare(true, &[0; 4])
    }

    /// Only where the interface is this one, or is not.
    pub fn interface(self, which: Interface, name: &str, differs: bool) -> Self {
        // The kernel compares 16 bytes, the rest of which is zero.
        let mut value = [0; 16];
        let bytes = name.as_bytes();
        let length = bytes.len().min(15);
        value[..length].copy_from_slice(&bytes[..length]);
        let key = match which {
            Interface::In => 6,
            Interface::Out => 7,
        };
        self.meta(key, FIRST).compare(differs, &value)
    }

    /// Only packets of this family.
    pub fn family(self, family: Family) -> Self {
        self.meta(15, FIRST).compare(false, &[family.number()])
    }

    /// Only packets of this protocol.
    pub fn protocol(self, number: u8) -> Self {
        self.meta(16, FIRST).compare(false, &[number])
    }

    /// Only packets of the address's family that have this address, or have another.
    pub fn address(self, side: Side, address: IpAddr, differs: bool) -> Self {
        let family = Family::of(&address);
        let rule = self
            .family(family)
            .payload(1, family.offset(side), family.width(), FIRST);
        match address {
            IpAddr::V4(address) => rule.compare(differs, &address.octets()),
            IpAddr::V6(address) => rule.compare(differs, &address.octets()),
        }
    }

    /// Only packets with this port; the protocol must be known to have ports.
    pub fn port(self, side: Side, port: u16) -> Self {
        self.payload(2, port_offset(side), 2, FIRST)
            .compare(false, &port.to_be_bytes())
    }

    /// Only ICMP messages of this type; the protocol must be known.
    pub fn icmp_type(self, number: u8) -> Self {
        self.payload(2, 0, 1, FIRST).compare(false, &[number])
    }

    /// Only packets of IPv6 that no router forwarded.
    pub fn never_forwarded(self) -> Self {
        self.payload(1, 7, 1, FIRST).compare(false, &[255])
    }

    /// Only packets of connections in one of these states.
    pub fn state(self, bits: u32) -> Self {
        self.with("ct", Attributes::new().number(1, FIRST).number(2, 0))
            .bits(bits)
    }

    /// Only packets of connections whose destination was rewritten.
    pub fn rewritten(self) -> Self {
        self.with("ct", Attributes::new().number(1, FIRST).number(2, 2))
            .bits(REWRITTEN)
    }

    /// Only packets in the direction of the first one, or only those against it.
    pub fn direction(self, reply: bool) -> Self {
        self.with("ct", Attributes::new().number(1, FIRST).number(2, 1))
            .compare(false, &[u8::from(reply)])
    }

    /// Loads `address . protocol`, and `port` behind them where one is asked for.
    fn load(self, family: Family, side: Side, port: Option<Side>) -> Self {
        let rule = self
            .family(family)
            .payload(1, family.offset(side), family.width(), FIRST)
            .meta(16, family.behind());
        match port {
            Some(side) => rule.payload(2, port_offset(side), 2, family.behind() + 1),
            None => rule,
        }
    }

    /// Only packets whose `address . protocol`, or `address . protocol . port`, is in the set. With a port the protocol must be known
    /// to have ports.
    pub fn found(self, set: &str, family: Family, side: Side, port: Option<Side>) -> Self {
        self.load(family, side, port)
            .with("lookup", Attributes::new().text(1, set).number(2, FIRST))
    }

    /// Puts what [`Rule::found`] loaded into a set, for so many milliseconds from now.
    pub fn remember(self, set: &str, milliseconds: u64) -> Self {
        const UPDATE: u32 = 1;
        let data = Attributes::new()
            .text(1, set)
            .number(3, UPDATE)
            .number(4, FIRST)
            .long(6, milliseconds);
        self.with("dynset", data)
    }

    /// Counts in a counter that has a name.
    pub fn count(self, counter: &str) -> Self {
        const COUNTER: u32 = 1;
        self.with(
            "objref",
            Attributes::new().number(1, COUNTER).text(2, counter),
        )
    }

    fn verdict(self, code: u32) -> Self {
        let verdict = Attributes::new().nested(2, &Attributes::new().number(1, code));
        self.with(
            "immediate",
            Attributes::new().number(1, 0).nested(2, &verdict),
        )
    }

    /// Lets the packet pass this chain.
    pub fn accept(self) -> Self {
        self.verdict(1)
    }

    /// Takes the packet away.
    pub fn drop(self) -> Self {
        self.verdict(0)
    }

    /// Takes the packet of TCP away and resets its connection.
    pub fn reset(self) -> Self {
        self.with("reject", Attributes::new().number(1, 1).raw(2, &[0]))
    }

    /// Takes the packet away and says that nobody listens there: of all refusals the one that every network stack tells its programs,
    /// gVisor's too.
    pub fn refuse(self) -> Self {
        const PORT_UNREACHABLE: u8 = 1;
        let data = Attributes::new().number(1, 2).raw(2, &[PORT_UNREACHABLE]);
        self.with("reject", data)
    }

    fn load_port(self, port: u16, register: u32) -> Self {
        let value = Attributes::new().raw(1, &port.to_be_bytes());
        self.with(
            "immediate",
            Attributes::new().number(1, register).nested(2, &value),
        )
    }

    /// Sends the packet to this port of the machine itself.
    pub fn redirect(self, port: u16) -> Self {
        self.load_port(port, FIRST)
            .with("redir", Attributes::new().number(1, FIRST).number(2, FIRST))
    }

    /// Sends the packet to this address and port.
    pub fn send_to(self, address: IpAddr, port: u16) -> Self {
        const DESTINATION: u32 = 1;
        let family = Family::of(&address);
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let value = Attributes::new().raw(1, &bytes);
        let load = Attributes::new().number(1, FIRST).nested(2, &value);
        let behind = family.behind();
        self.with("immediate", load).load_port(port, behind).with(
            "nat",
            Attributes::new()
                .number(1, DESTINATION)
                .number(2, u32::from(family.number()))
                .number(3, FIRST)
                .number(5, behind),
        )
    }
}

/// Loopback of a family.
pub fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

fn port_offset(side: Side) -> u32 {
    match side {
        Side::Source => 0,
        Side::Destination => 2,
    }
}
