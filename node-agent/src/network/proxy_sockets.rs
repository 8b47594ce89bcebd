//! The sockets that a pod's DNS queries arrive at, opened in the namespace the calling thread is in. Called by [`super::pods`],
//! which hands them to `api`.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use super::table::ProxyPorts;

/// How often a port that is free for one family turns out to be taken for the other before this is given up.
const TRIES: usize = 16;

/// UDP and TCP sockets on each of the addresses, in their order, all of one protocol on the same port. An address that this
/// namespace does not have is left out, but for the first.
pub fn open(addresses: &[IpAddr]) -> io::Result<(Vec<OwnedFd>, ProxyPorts)> {
    let udp = same_port(addresses, |address| {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.port();
        Ok((OwnedFd::from(socket), port))
    })?;
    let tcp = same_port(addresses, |address| {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.port();
        Ok((OwnedFd::from(socket), port))
    })?;
    // A family that only one of them has is of no use.
    let sockets = udp.0.into_iter().zip(tcp.0).flat_map(<[_; 2]>::from);
    Ok((
        sockets.collect(),
        ProxyPorts {
            udp: udp.1,
            tcp: tcp.1,
        },
    ))
}

fn same_port(
    addresses: &[IpAddr],
    open: impl Fn(SocketAddr) -> io::Result<(OwnedFd, u16)>,
) -> io::Result<(Vec<OwnedFd>, u16)> {
    let Some((first, others)) = addresses.split_first() else {
        return Err(io::Error::other("no address to listen on"));
    };
    let mut last = None;
    'tries: for _ in 0..TRIES {
        let (socket, port) = open(SocketAddr::new(*first, 0))?;
        let mut sockets = vec![socket];
        for address in others {
            match open(SocketAddr::new(*address, port)) {
                Ok((socket, _)) => sockets.push(socket),
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(error) => {
                    last = Some(error);
                    continue 'tries;
                }
            }
        }
        return Ok((sockets, port));
    }
    Err(last.unwrap_or_else(|| io::Error::other("no port is free")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn one_protocol_has_one_port_for_all_addresses_and_an_absent_address_is_left_out() {
        let absent: IpAddr = "192.0.2.1".parse().unwrap();
        let local = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];
        let (sockets, ports) = open(&[local[0].into(), absent, local[1].into()]).unwrap();
        assert_eq!(sockets.len(), 4);
        let sockets: Vec<_> = sockets.into_iter().collect();
        let [udp, tcp, other_udp, _] = <[_; 4]>::try_from(sockets).unwrap();
        assert_eq!(
            UdpSocket::from(udp).local_addr().unwrap(),
            SocketAddr::new(local[0].into(), ports.udp)
        );
        assert_eq!(
            TcpListener::from(tcp).local_addr().unwrap(),
            SocketAddr::new(local[0].into(), ports.tcp)
        );
        assert_eq!(
            UdpSocket::from(other_udp).local_addr().unwrap(),
            SocketAddr::new(local[1].into(), ports.udp)
        );
    }

    #[test]
    fn without_its_first_address_nothing_is_opened() {
        let absent: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(open(&[absent, Ipv6Addr::LOCALHOST.into()]).is_err());
        assert!(open(&[]).is_err());
    }
}
