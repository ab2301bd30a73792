//! Sockets that wait for peers: binding them all to one port, and accepting.
//!
//! IPv4 and IPv6 have sockets of their own (IPV6_V6ONLY), so no address is ever IPv4-mapped. TCP
//! and UDP share the port. A pending handshake holds a permit, and one prefix may hold few of them,
//! so that half-open connections cost a bounded number of sockets and shut nobody else out.

use std::collections::BTreeMap;
use std::io;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket,
};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::Duration;

use crate::datagram;
use crate::engine::EngineError;
use crate::engine::network::handshake;
use crate::engine::registry::Registry;
use crate::engine::task::Tasks;
use crate::proto::compact;

/// Accepted connections without a handshake, of all listeners; more wait in the system's backlog.
pub(crate) const PENDING_MAX: usize = 256;
/// The same from one /24 (IPv4) or /64 (IPv6); more are closed at once.
const PENDING_PREFIX_MAX: u32 = 4;
/// The same from one prefix of a local network, which may be the whole swarm: half of all.
const PENDING_LOCAL_MAX: u32 = 128;
/// Connections that the system may hold for us before we accept them.
const BACKLOG: i32 = 1024;
/// Bytes of datagrams that the system may hold for us, if it allows as much: thousands of nodes may
/// answer or ask at once. More are lost.
const RECEIVE_BUFFER_LEN: usize = 1 << 20;
/// Pause after an accept failed, as it does when the process has no more file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(250);
/// How often a free port is looked for that is free for every address and protocol.
const PORT_TRIES: u32 = 32;

/// Bound sockets, all on one port.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// The port.
    pub(crate) port: u16,
    /// For peers.
    pub(crate) tcp: Vec<TcpListener>,
    /// For trackers and the DHT.
    pub(crate) udp: Vec<UdpSocket>,
}

/// Binds TCP and UDP at each address; no addresses: IPv4 and, where the system has it, IPv6. Port
/// 0: any one that is free for all of them.
pub(crate) fn bind(addrs: &[IpAddr], port: u16) -> Result<Sockets, EngineError> {
    let mut tries = if port == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        match bind_port(addrs, port) {
            Err(EngineError::PortTaken(_)) if tries > 0 => {}
            bound => return bound,
        }
    }
}

fn bind_port(addrs: &[IpAddr], wanted: u16) -> Result<Sockets, EngineError> {
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let all = addrs.is_empty();
    let mut sockets = Sockets { port: wanted, tcp: Vec::new(), udp: Vec::new() };
    for &ip in if all { &everywhere } else { addrs } {
        let addr = SocketAddr::new(ip, sockets.port);
        match bind_addr(addr) {
            Ok((tcp, udp)) => {
                sockets.port = tcp.local_addr()?.port();
                sockets.tcp.push(TcpListener::from_std(tcp)?);
                sockets.udp.push(UdpSocket::from_std(udp)?);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(EngineError::PortTaken(addr));
            }
            // A system without IPv6 is no reason not to use IPv4.
            Err(error) if all && ip.is_ipv6() => tracing::info!(%error, "no IPv6"),
            Err(error) => return Err(EngineError::Listen(addr, error)),
        }
    }
    Ok(sockets)
}

fn bind_addr(addr: SocketAddr) -> io::Result<(StdTcpListener, StdUdpSocket)> {
    let tcp = open(addr, Type::STREAM, Protocol::TCP)?;
    // A peer that was just stopped may start again at once, in spite of its old connections.
    tcp.set_reuse_address(true)?;
    tcp.bind(&addr.into())?;
    tcp.listen(BACKLOG)?;
    let tcp = StdTcpListener::from(tcp);
    let udp = open(addr, Type::DGRAM, Protocol::UDP)?;
    // Less than that is no reason not to start.
    let _ = udp.set_recv_buffer_size(RECEIVE_BUFFER_LEN);
    udp.bind(&SocketAddr::new(addr.ip(), tcp.local_addr()?.port()).into())?;
    datagram::enable(&udp)?;
    Ok((tcp, udp.into()))
}

fn open(addr: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Accepts for ever: each connection gets its handshake in a task of its own, and then goes to its
/// torrent.
pub(crate) async fn accept(listener: TcpListener, pending: Arc<Semaphore>, torrents: Registry) {
    let mut prefixes = Prefixes::default();
    let mut handshakes: Tasks<IpAddr> = Tasks::new();
    loop {
        let permit = loop {
            tokio::select! {
                permit = pending.clone().acquire_owned() => break permit,
                ip = handshakes.next() => prefixes.release(ip),
            }
        };
        let Some((stream, addr)) = accept_one(&listener, &mut handshakes, &mut prefixes).await else {
            tokio::time::sleep(ACCEPT_BACKOFF).await;
            continue;
        };
        if !prefixes.admit(addr.ip()) {
            continue;
        }
        let torrents = torrents.clone();
        handshakes.spawn("accept", async move {
            handshake::accept(stream, addr, &torrents).await;
            drop(permit);
            addr.ip()
        });
    }
}

/// The next connection; None: the system refuses for now.
async fn accept_one(
    listener: &TcpListener,
    handshakes: &mut Tasks<IpAddr>,
    prefixes: &mut Prefixes,
) -> Option<(TcpStream, SocketAddr)> {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, addr)) => return Some((stream, compact::canonical(addr))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections for now");
                    return None;
                }
            },
            ip = handshakes.next() => prefixes.release(ip),
        }
    }
}

/// Pending handshakes by /24 or /64.
#[derive(Debug, Default)]
struct Prefixes {
    counts: BTreeMap<[u8; 9], u32>,
}

impl Prefixes {
    fn admit(&mut self, ip: IpAddr) -> bool {
        let count = self.counts.entry(prefix(ip)).or_default();
        let max = if compact::is_local(ip) { PENDING_LOCAL_MAX } else { PENDING_PREFIX_MAX };
        let admitted = *count < max;
        *count += u32::from(admitted);
        admitted
    }

    fn release(&mut self, ip: IpAddr) {
        if let Some(count) = self.counts.get_mut(&prefix(ip)) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&prefix(ip));
            }
        }
    }
}

/// Family and network part.
fn prefix(ip: IpAddr) -> [u8; 9] {
    let mut prefix = [0; 9];
    match ip {
        IpAddr::V4(ip) => prefix[1..4].copy_from_slice(&ip.octets()[..3]),
        IpAddr::V6(ip) => {
            prefix[0] = 6;
            prefix[1..].copy_from_slice(&ip.octets()[..8]);
        }
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_cannot_occupy_the_door_and_neighbours_are_exempt() {
        let mut prefixes = Prefixes::default();
        for host in 0..4 {
            assert!(prefixes.admit(format!("8.8.8.{host}").parse().unwrap()));
        }
        assert!(!prefixes.admit("8.8.8.9".parse().unwrap()));
        assert!(prefixes.admit("8.8.9.9".parse().unwrap()) && prefixes.admit("2001:db8::1".parse().unwrap()));
        prefixes.release("8.8.8.1".parse().unwrap());
        assert!(prefixes.admit("8.8.8.9".parse().unwrap()));
        assert!((0..128).all(|host| prefixes.admit(format!("10.0.0.{host}").parse().unwrap())));
        assert!(!prefixes.admit("10.0.0.200".parse().unwrap()));
    }

    #[tokio::test]
    async fn one_port_for_all_sockets_and_a_taken_one_is_named() {
        let sockets = bind(&[], 0).unwrap();
        assert_ne!(sockets.port, 0);
        for (tcp, udp) in sockets.tcp.iter().zip(&sockets.udp) {
            assert_eq!(tcp.local_addr().unwrap(), udp.local_addr().unwrap());
        }
        let taken = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), sockets.port);
        assert!(matches!(bind(&[], sockets.port), Err(EngineError::PortTaken(addr)) if addr == taken));
    }
}
