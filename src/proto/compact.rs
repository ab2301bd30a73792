//! Compact peer addresses: 6 bytes for IPv4 (BEP 23), 18 for IPv6 (BEP 7), and which addresses are
//! valid.
//!
//! An IPv4-mapped IPv6 address is IPv4 everywhere, so that no peer has two identities.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::scope::Scope;

/// Bytes of an IPv4 address and port.
pub const V4_LEN: usize = 6;
/// Bytes of an IPv6 address and port.
pub const V6_LEN: usize = 18;

/// Returns the canonical form of an address: IPv4-mapped IPv6 becomes IPv4.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Returns whether the address is of this machine, its link or a private network ([`Scope`]): only
/// hosts of the same network reach it. False for addresses without a scope, at which no host is
/// reached.
pub fn is_local(ip: IpAddr) -> bool {
    match Scope::of(ip) {
        Some(Scope::Private | Scope::LinkLocal | Scope::Loopback) => true,
        Some(Scope::Public) | None => false,
    }
}

/// Returns the network of an address with the host part zero: a /24 of IPv4, a /48 of IPv6. One
/// operator can easily have all addresses of such a network, so limits count it as one.
pub fn site(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() >> 8 << 8).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 80 << 80).into(),
    }
}

/// Returns whether a host could be reached at the address: it has a [`Scope`] (so no multicast,
/// broadcast or reserved address and no cloud metadata service), is not unspecified, and its port
/// is not 0.
pub fn is_dialable(addr: SocketAddr) -> bool {
    let ip = addr.ip().to_canonical();
    addr.port() != 0 && !ip.is_unspecified() && Scope::of(ip).is_some()
}

/// Appends an address: 6 bytes or 18, by its family.
pub fn encode(addr: SocketAddr, out: &mut Vec<u8>) {
    match canonical(addr).ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

/// Decodes a compact list of IPv4 addresses; an incomplete tail is dropped.
pub fn decode_v4(bytes: &[u8]) -> impl Iterator<Item = SocketAddr> {
    bytes.as_chunks::<V4_LEN>().0.iter().map(|&[a, b, c, d, high, low]| {
        SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]))
    })
}

/// Decodes a compact list of IPv6 addresses, canonical; an incomplete tail is dropped.
pub fn decode_v6(bytes: &[u8]) -> impl Iterator<Item = SocketAddr> {
    bytes.as_chunks::<V6_LEN>().0.iter().map(|bytes| {
        let (ip, port) = bytes.split_at(16);
        let ip: [u8; 16] = ip.try_into().expect("split at 16");
        canonical(SocketAddr::new(Ipv6Addr::from(ip).into(), u16::from_be_bytes([port[0], port[1]])))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_have_one_site() {
        let site_of = |text: &str| site(text.parse().unwrap()).to_string();
        assert_eq!([site_of("80.1.2.3"), site_of("::ffff:80.1.2.9")], ["80.1.2.0", "80.1.2.0"]);
        assert_eq!(site_of("2001:db8:1:2::3"), "2001:db8:1::");
    }

    #[test]
    fn addresses_round_trip_and_mapped_ones_are_ipv4() {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        encode("[::ffff:10.10.10.5]:128".parse().unwrap(), &mut v4);
        encode("[1002:1035:4527:3546:7854:1237:3247:3217]:6881".parse().unwrap(), &mut v6);
        assert_eq!(v4, [10, 10, 10, 5, 0, 128]);
        assert_eq!(decode_v4(&v4).collect::<Vec<_>>(), ["10.10.10.5:128".parse().unwrap()]);
        let expected = "[1002:1035:4527:3546:7854:1237:3247:3217]:6881".parse().unwrap();
        assert_eq!(decode_v6(&v6).collect::<Vec<_>>(), [expected]);
        assert_eq!(decode_v4(&v4[..5]).count(), 0);
    }

    #[test]
    fn no_host_is_reached_at_port_0_or_at_an_address_without_a_scope() {
        for nowhere in [
            "1.2.3.4:0",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "224.0.0.1:1",
            "240.0.0.1:1",
            "255.255.255.255:1",
            "169.254.169.254:1",
            "[64:ff9b::169.254.169.254]:1",
            "[::]:1",
            "[::127.0.0.1]:1",
            "[ff02::1]:1",
        ] {
            assert!(!is_dialable(nowhere.parse().unwrap()), "{nowhere}");
        }
        assert!(is_dialable("127.0.0.1:1".parse().unwrap()));
        for local in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::1",
            "192.0.0.1",
            "fec0::1",
        ] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["8.8.8.8", "100.128.0.1", "169.254.169.254", "224.0.0.1", "64:ff9b::8.8.8.8"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
    }
}
