//! The address by which others on the network probably reach this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// A host of the documentation ranges each: a route to it is the route to the world, and nothing is
/// sent.
const FAR: [(IpAddr, IpAddr); 2] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
];

/// The address that the system would send from towards the world, IPv4 first; None: no route there.
pub fn primary_address() -> Option<IpAddr> {
    FAR.iter().find_map(|&(local, far)| towards(local, far))
}

/// Whether the system would send anything towards the world by IPv6.
pub fn reaches_ipv6() -> bool {
    FAR.iter().any(|&(local, far)| far.is_ipv6() && towards(local, far).is_some())
}

fn towards(local: IpAddr, far: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(SocketAddr::new(local, 0)).ok()?;
    socket.connect(SocketAddr::new(far, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}
