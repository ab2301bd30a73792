//! Listening sockets: one for each worker and address, among which the kernel distributes the
//! traffic.
//!
//! IPv6 sockets accept IPv4 too, unless an IPv4 address of the same port has its own sockets. An
//! address that another process uses is refused, although the workers share theirs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::Failure;

/// Connections that the kernel queues until they are accepted.
const BACKLOG: i32 = 1024;
/// Receive buffer of each UDP socket, bytes, if the kernel allows it: bursts of ten thousand
/// announces.
const UDP_BUFFER_LEN: usize = 4 << 20;

/// The UDP sockets of all addresses and workers.
pub(crate) struct Udp {
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) sockets: Vec<UdpSocket>,
}

impl Udp {
    /// Wakes all threads that wait for a datagram.
    pub(crate) fn wake(&self) {
        for socket in &self.sockets {
            // The kernel reports an unconnected socket, and wakes the receiver anyway.
            let _ = SockRef::from(socket).shutdown(Shutdown::Both);
        }
    }
}

/// The TCP listeners: for each worker, one for each address.
pub(crate) struct Http {
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) listeners: Vec<Vec<TcpListener>>,
}

/// Opens the UDP sockets.
pub(crate) fn udp(addrs: &[SocketAddr], workers: usize) -> Result<Udp, Failure> {
    let mut udp = Udp { addrs: Vec::new(), sockets: Vec::new() };
    for &addr in addrs {
        let (addr, sockets) = open(Kind::Udp, addr, shares_port(addr, addrs), workers)?;
        udp.addrs.push(addr);
        udp.sockets.extend(sockets.into_iter().map(UdpSocket::from));
    }
    Ok(udp)
}

/// Opens the TCP listeners.
pub(crate) fn http(addrs: &[SocketAddr], workers: usize) -> Result<Http, Failure> {
    // Without addresses no worker is needed.
    let workers = if addrs.is_empty() { 0 } else { workers };
    let listeners = (0..workers).map(|_| Vec::new()).collect();
    let mut http = Http { addrs: Vec::new(), listeners };
    for &addr in addrs {
        let (addr, sockets) = open(Kind::Http, addr, shares_port(addr, addrs), workers)?;
        http.addrs.push(addr);
        for (listeners, socket) in http.listeners.iter_mut().zip(sockets) {
            listeners.push(socket.into());
        }
    }
    Ok(http)
}

#[derive(Clone, Copy)]
enum Kind {
    Udp,
    Http,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Http => "http",
        }
    }
}

/// Whether an IPv4 address of the same port has sockets of its own.
fn shares_port(addr: SocketAddr, addrs: &[SocketAddr]) -> bool {
    addr.port() != 0 && addrs.iter().any(|other| other.is_ipv4() && other.port() == addr.port())
}

/// Opens one socket for each worker; returns them with their final address.
fn open(
    kind: Kind,
    addr: SocketAddr,
    v6_only: bool,
    workers: usize,
) -> Result<(SocketAddr, Vec<Socket>), Failure> {
    let fail = |error: io::Error| {
        let hint = if error.kind() == io::ErrorKind::AddrInUse {
            "the port is in use; choose another".to_owned()
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            "not allowed; ports below 1024 need privileges".to_owned()
        } else {
            error.to_string()
        };
        Failure(format!("cannot listen for {} on {addr}: {hint}", kind.name()))
    };
    // The first socket does not share the address, so it finds out whether the address is free.
    let mut addr = addr;
    let probe = match bind(kind, addr, v6_only, false) {
        Err(error) if addr.ip().is_unspecified() && addr.is_ipv6() && is_about_family(&error) => {
            addr.set_ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            bind(kind, addr, v6_only, false)
        }
        result => result,
    }
    .map_err(fail)?;
    let bound = probe.local_addr().map_err(fail)?.as_socket().unwrap_or(addr);
    drop(probe);
    let sockets = (0..workers).map(|_| {
        let socket = bind(kind, bound, v6_only, true)?;
        match kind {
            Kind::Udp => {
                // The kernel caps it; a smaller buffer is acceptable.
                let _ = socket.set_recv_buffer_size(UDP_BUFFER_LEN);
                let _ = socket.set_send_buffer_size(UDP_BUFFER_LEN);
                sprat::datagram::enable(&socket)?;
            }
            Kind::Http => {
                socket.set_nonblocking(true)?;
                socket.listen(BACKLOG)?;
            }
        }
        Ok(socket)
    });
    Ok((bound, sockets.collect::<Result<_, _>>().map_err(fail)?))
}

fn bind(kind: Kind, addr: SocketAddr, v6_only: bool, shared: bool) -> io::Result<Socket> {
    let socket = match kind {
        Kind::Udp => Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?,
        Kind::Http => {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
            // Connections of an ended process do not occupy the address.
            socket.set_reuse_address(true)?;
            socket
        }
    };
    if addr.is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    if let (Kind::Http, false) = (kind, shared) {
        // Only listening shows whether another process listens.
        socket.listen(1)?;
    }
    Ok(socket)
}

/// Whether the error means that this machine has no IPv6.
fn is_about_family(error: &io::Error) -> bool {
    /// `EAFNOSUPPORT` of Linux.
    const NO_FAMILY: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_FAMILY)
}
