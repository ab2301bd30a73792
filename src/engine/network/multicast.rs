//! Sockets of the local network's multicast groups, one a family, on every interface that is up.
//!
//! Bound to the group's own address, so that nothing else arrives: a stranger's datagram from far
//! away is sent to an address of ours. Shared with other programs on this machine, and heard by
//! them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use if_addrs::get_if_addrs;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

/// Routers that a datagram may cross: none (BEP 14 stays on the local network).
const HOP_MAX: u32 = 1;
/// Interfaces that are joined and sent to; on a machine with more, the rest is left out.
const INTERFACE_MAX: usize = 32;

/// An interface of one family: its address (IPv4) or its number (IPv6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Interface {
    /// By one of its addresses.
    V4(Ipv4Addr),
    /// By its number.
    V6(u32),
}

/// The interfaces that are up and have one of the addresses `listen`, or, if that is empty or says
/// so, any address by which others reach us; without any network, loopback, for peers on this
/// machine.
pub(crate) fn interfaces(listen: &[IpAddr]) -> Vec<Interface> {
    let found = get_if_addrs().unwrap_or_else(|error| {
        tracing::info!(%error, "the network's interfaces are unknown");
        Vec::new()
    });
    let everywhere = |ip: IpAddr| {
        let anywhere = |listen: &IpAddr| listen.is_unspecified() && listen.is_ipv4() == ip.is_ipv4();
        listen.is_empty() || listen.iter().any(anywhere)
    };
    // A link-local address is no use to a peer: it does not know which link.
    let usable = found.iter().filter(|interface| interface.ip().is_ipv4() || !interface.is_link_local());
    let (mut named, mut outer, mut loopback) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for interface in usable {
        let found = match (interface.ip(), interface.index) {
            (IpAddr::V4(ip), _) => Interface::V4(ip),
            (IpAddr::V6(_), Some(index)) => Interface::V6(index),
            (IpAddr::V6(_), None) => continue,
        };
        if listen.contains(&interface.ip()) {
            named.insert(found);
        } else if everywhere(interface.ip()) {
            let set = if interface.is_loopback() { &mut loopback } else { &mut outer };
            set.insert(found);
        }
    }
    named.extend(if outer.is_empty() { loopback } else { outer });
    named.into_iter().take(INTERFACE_MAX).collect()
}

/// The socket of one group.
#[derive(Debug)]
pub(crate) struct GroupSocket {
    group: SocketAddr,
    socket: UdpSocket,
    joined: BTreeSet<Interface>,
}

impl GroupSocket {
    /// Bound, and joined nowhere yet.
    ///
    /// # Errors
    /// The system has no such family, or a program keeps the port for itself.
    pub(crate) fn bind(group: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if group.is_ipv4() {
            socket.set_multicast_ttl_v4(HOP_MAX)?;
            socket.set_multicast_loop_v4(true)?;
        } else {
            socket.set_only_v6(true)?;
            socket.set_multicast_hops_v6(HOP_MAX)?;
            socket.set_multicast_loop_v6(true)?;
        }
        socket.bind(&group.into())?;
        Ok(Self { group, socket: UdpSocket::from_std(socket.into())?, joined: BTreeSet::new() })
    }

    /// Joins the group on those interfaces of its family where it is not joined yet; forgets those
    /// that are gone.
    pub(crate) fn join(&mut self, interfaces: &[Interface]) {
        self.joined.retain(|interface| interfaces.contains(interface));
        for &interface in interfaces {
            let joined = match (self.group.ip(), interface) {
                (IpAddr::V4(group), Interface::V4(ip)) => {
                    SockRef::from(&self.socket).join_multicast_v4(&group, &ip)
                }
                (IpAddr::V6(group), Interface::V6(index)) => {
                    SockRef::from(&self.socket).join_multicast_v6(&group, index)
                }
                (IpAddr::V4(_), Interface::V6(_)) | (IpAddr::V6(_), Interface::V4(_)) => continue,
            };
            match joined {
                Ok(()) => {}
                // Two addresses of one interface.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    tracing::debug!(group = %self.group, ?interface, %error, "not joined");
                    continue;
                }
            }
            self.joined.insert(interface);
        }
    }

    /// Sends to the group from every interface that is joined; one that does not take it is left
    /// out.
    pub(crate) async fn send(&self, bytes: &[u8]) {
        for &interface in &self.joined {
            let socket = SockRef::from(&self.socket);
            let chosen = match interface {
                Interface::V4(ip) => socket.set_multicast_if_v4(&ip),
                Interface::V6(index) => socket.set_multicast_if_v6(index),
            };
            let sent = match chosen {
                Ok(()) => self.socket.send_to(bytes, self.group).await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                tracing::debug!(group = %self.group, ?interface, %error, "not announced");
            }
        }
    }

    /// The next datagram to the group; the rest of one that is too long for `bytes` is cut.
    pub(crate) async fn receive(&self, bytes: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;
    use tokio::time::Duration;

    /// Bound to the group on any port, or on that of another socket.
    fn bind(group: IpAddr, port: u16) -> GroupSocket {
        let mut socket = GroupSocket::bind(SocketAddr::new(group, port)).unwrap();
        socket.group = socket.socket.local_addr().unwrap();
        socket
    }

    #[tokio::test]
    async fn all_programs_of_a_machine_hear_what_one_says() {
        let group = [239, 192, 152, 143].into();
        let listen = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let loopback = interfaces(&[listen]);
        let mut one = bind(group, 0);
        let mut other = bind(group, one.group.port());
        for socket in [&mut one, &mut other] {
            socket.join(&loopback);
            socket.join(&loopback);
            assert_eq!(socket.joined.len(), 1);
        }
        one.send(b"hello").await;
        for socket in [&one, &other] {
            let mut bytes = [0; 16];
            let heard = tokio::time::timeout(Duration::from_secs(10), socket.receive(&mut bytes));
            let (len, from) = heard.await.unwrap().unwrap();
            assert_eq!((&bytes[..len], from.ip()), (&b"hello"[..], listen));
        }
        one.join(&[]);
        assert!(one.joined.is_empty());
    }

    /// Linux routes no multicast of IPv6 through loopback: that it arrives is seen between
    /// namespaces.
    #[tokio::test]
    async fn a_group_of_ipv6_is_joined_by_the_number_of_an_interface() {
        let mut socket = bind([0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f].into(), 0);
        socket.join(&interfaces(&[Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]));
        assert!(socket.joined.iter().eq(&[Interface::V6(1)]), "{:?}", socket.joined);
    }

    #[test]
    fn what_is_not_listened_on_is_not_announced_on() {
        assert!(interfaces(&["192.0.2.77".parse().unwrap()]).is_empty());
        let everywhere = interfaces(&[]);
        let v4 = interfaces(&[Ipv4Addr::UNSPECIFIED.into()]);
        assert!(v4.iter().all(|found| matches!(found, Interface::V4(_)) && everywhere.contains(found)));
        assert!(!everywhere.is_empty());
    }
}
