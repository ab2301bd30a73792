//! UDP sockets that tell at which local address a datagram came, and send from a given one (RFC
//! 3542, ip(7)).
//!
//! A socket bound to all addresses sends from the address that the route to the peer prefers. On a
//! host with several addresses that may be another one than the peer asked, and a peer with a
//! connected socket never receives the answer. The engine and the tracker share this file; it knows
//! no protocol.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockaddrLike as _, SockaddrStorage,
    getsockname, recvmsg, sendmsg, setsockopt, sockopt,
};

/// The local address at which a datagram came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddr {
    ip: IpAddr,
    /// The number of the interface, which link-local addresses need; else 0, so that the route
    /// decides.
    interface: u32,
}

/// A datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its length, or that of the buffer if it is longer.
    pub len: usize,
    /// The sender.
    pub from: SocketAddr,
    /// Where to answer from; None: the system did not say, or it was sent to a multicast group.
    pub local: Option<LocalAddr>,
}

/// Room for what the system says of one datagram; reused for the next.
#[derive(Debug)]
pub struct Control(Vec<u8>);

impl Default for Control {
    fn default() -> Self {
        Self(nix::cmsg_space!(in_pktinfo, in6_pktinfo))
    }
}

/// Has the system tell the local address of each datagram that this bound socket receives.
///
/// # Errors
/// The system cannot.
pub fn enable(socket: &impl AsFd) -> io::Result<()> {
    let bound: SockaddrStorage = getsockname(socket.as_fd().as_raw_fd())?;
    if bound.family() == Some(AddressFamily::Inet6) {
        // IPv4 at such a socket is told by the same message, in its mapped form.
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(())
}

/// Receives a datagram into `bytes`; the rest of a longer one is lost.
///
/// # Errors
/// None has come, an earlier one could not be delivered, or the socket was shut down.
pub fn receive(socket: &impl AsFd, bytes: &mut [u8], control: &mut Control) -> io::Result<Received> {
    let mut parts = [IoSliceMut::new(bytes)];
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control.0), MsgFlags::empty())?;
    let from = message.address.as_ref().and_then(sender).ok_or(io::ErrorKind::NotConnected)?;
    let local = message.cmsgs().ok().and_then(|mut messages| messages.find_map(|said| local_addr(&said)));
    Ok(Received { len: message.bytes, from, local })
}

/// Sends a datagram, from this address if one is given.
///
/// # Errors
/// The socket has no room, the address is no longer ours, or there is no route.
pub fn send(socket: &impl AsFd, bytes: &[u8], to: SocketAddr, local: Option<LocalAddr>) -> io::Result<()> {
    let (v4, v6);
    let control = match local {
        None => None,
        Some(LocalAddr { ip: IpAddr::V4(ip), interface: _ }) => {
            let of = |bits: u32| in_addr { s_addr: bits.to_be() };
            v4 = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: of(ip.to_bits()), ipi_addr: of(0) };
            Some(ControlMessage::Ipv4PacketInfo(&v4))
        }
        Some(LocalAddr { ip: IpAddr::V6(ip), interface }) => {
            v6 = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: interface };
            Some(ControlMessage::Ipv6PacketInfo(&v6))
        }
    };
    let fd = socket.as_fd().as_raw_fd();
    let to = SockaddrStorage::from(to);
    sendmsg(fd, &[IoSlice::new(bytes)], control.as_slice(), MsgFlags::empty(), Some(&to))?;
    Ok(())
}

fn sender(addr: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = addr.as_sockaddr_in().map(|&addr| SocketAddr::V4(SocketAddrV4::from(addr)));
    v4.or_else(|| addr.as_sockaddr_in6().map(|&addr| SocketAddr::V6(SocketAddrV6::from(addr))))
}

fn local_addr(said: &ControlMessageOwned) -> Option<LocalAddr> {
    if let ControlMessageOwned::Ipv4PacketInfo(info) = said {
        let ip = Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr));
        return Some(LocalAddr { ip: ip.into(), interface: 0 });
    }
    if let ControlMessageOwned::Ipv6PacketInfo(info) = said {
        let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
        let interface = if ip.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
        return (!ip.is_multicast()).then_some(LocalAddr { ip: ip.into(), interface });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    #[test]
    fn answers_leave_from_the_address_that_was_asked() {
        for (bound, asked) in [
            ("0.0.0.0:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.7"),
            ("127.0.0.9:0", "127.0.0.9"),
            ("[::]:0", "127.0.0.7"),
            ("[::]:0", "::1"),
        ] {
            let socket = UdpSocket::bind(bound).unwrap();
            enable(&socket).unwrap();
            let port = socket.local_addr().unwrap().port();
            let asked = SocketAddr::new(asked.parse().unwrap(), port);
            let peer = UdpSocket::bind(if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
            peer.connect(asked).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            peer.send(b"who are you").unwrap();
            let (mut bytes, mut control) = ([0; 100], Control::default());
            let received = receive(&socket, &mut bytes, &mut control).unwrap();
            assert_eq!(&bytes[..received.len], b"who are you");
            assert_eq!(received.from.port(), peer.local_addr().unwrap().port());
            send(&socket, b"it is me", received.from, received.local).unwrap();
            let len = peer.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..len], b"it is me", "{bound} {asked}");
        }
    }

    #[test]
    fn a_long_datagram_is_cut_and_an_empty_one_is_one() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        enable(&socket).unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut bytes, mut control) = ([0; 10], Control::default());
        for (sent, received) in [(0, 0), (10, 10), (11, 10), (2_000, 10)] {
            peer.send_to(&vec![1; sent], socket.local_addr().unwrap()).unwrap();
            assert_eq!(receive(&socket, &mut bytes, &mut control).unwrap().len, received);
        }
    }
}
