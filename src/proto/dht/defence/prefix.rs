//! Prefixes of addresses: groups of addresses that one operator is likely to hold, and that count
//! once.
//!
//! A /24 of IPv4 or a /64 of IPv6. Each local address with its port (an office, a laboratory) is a
//! prefix of its own, so that many nodes may run on one host.

use std::net::{IpAddr, SocketAddr};

use crate::proto::compact;

/// A prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::proto::dht) struct Prefix(u64);

/// Marks a single local address. IPv6 addresses that have this bit themselves are local, multicast
/// or reserved, so no prefix of a public address has it.
const LOCAL: u64 = 1 << 63;

impl Prefix {
    /// Returns the prefix of a node.
    pub(in crate::proto::dht) fn of(addr: SocketAddr) -> Self {
        if compact::is_local(addr.ip()) { Self::of_address(addr) } else { Self::of_ip(addr.ip()) }
    }

    /// Returns the prefix of a single address and port.
    pub(in crate::proto::dht) fn of_address(addr: SocketAddr) -> Self {
        let port = u64::from(addr.port());
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) => Self(LOCAL | u64::from(ip.to_bits()) << 16 | port),
            IpAddr::V6(ip) => {
                let (high, low) = ((ip.to_bits() >> 64) as u64, ip.to_bits() as u64);
                // 144 bits do not fit into 63; two addresses with the same value share a prefix,
                // which costs little.
                Self(LOCAL | high.rotate_left(32) ^ low.rotate_left(16) ^ port)
            }
        }
    }

    /// Returns the prefix of a host, local or not.
    pub(in crate::proto::dht) fn of_ip(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            // ::/40 is unassigned, so these are no IPv6 prefixes.
            IpAddr::V4(ip) => Self(u64::from(ip.to_bits() >> 8)),
            IpAddr::V6(ip) => Self((ip.to_bits() >> 64) as u64),
        }
    }

    /// Returns the network of a host ([`compact::site`]), which in IPv6 has 65,536 prefixes.
    pub(in crate::proto::dht) fn site(ip: IpAddr) -> Self {
        Self::of_ip(compact::site(ip))
    }

    /// Returns it as a number to be hashed.
    pub(in crate::proto::dht) fn to_bits(self) -> u64 {
        self.0
    }
}

/// Whether two addresses must be treated as one node: the same host, or the same port of a local
/// host.
pub(in crate::proto::dht) fn is_same_host(left: SocketAddr, right: SocketAddr) -> bool {
    left.ip() == right.ip() && (left.port() == right.port() || !compact::is_local(left.ip()))
}

/// Returns whether a node may name another node to this one, or this one name it to that node:
/// local addresses are named only within a local network, unreachable addresses never.
pub(in crate::proto::dht) fn may_name(namer: SocketAddr, named: SocketAddr) -> bool {
    compact::is_dialable(named) && (compact::is_local(namer.ip()) || !compact::is_local(named.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_nodes_cannot_name_local_nodes_in_any_form() {
        let may_name = |namer: &str, named: &str| may_name(namer.parse().unwrap(), named.parse().unwrap());
        for local in [
            "10.0.0.1:53",
            "192.0.0.1:53",
            "[::ffff:10.0.0.1]:53",
            "[64:ff9b::10.0.0.1]:53",
            "[64:ff9b:1::1]:53",
            "[2002:7f00:1::1]:6881",
            "[fec0::1]:53",
        ] {
            assert!(!may_name("8.8.8.8:1", local) && !may_name("[2606:4700::1]:1", local), "{local}");
            assert!(may_name("10.0.0.9:1", local) && may_name("[fd00::9]:1", local), "{local}");
        }
        for never in ["169.254.169.254:80", "[fd00:ec2::254]:80", "240.0.0.1:1", "[::127.0.0.1]:1"] {
            assert!(!may_name("8.8.8.8:1", never) && !may_name("10.0.0.9:1", never), "{never}");
        }
    }

    #[test]
    fn a_prefix_is_a_24_or_a_64_and_each_local_address_its_own() {
        let same =
            |left: &str, right: &str| Prefix::of(left.parse().unwrap()) == Prefix::of(right.parse().unwrap());
        assert!(same("8.8.8.8:1", "8.8.8.200:2") && same("[2001:db8::1]:1", "[2001:db8::2:0:0:1]:2"));
        assert!(!same("8.8.8.8:1", "8.8.9.8:1") && !same("[2001:db8::1]:1", "[2001:db8:0:1::1]:1"));
        assert!(!same("127.0.0.1:1", "127.0.0.1:2") && !same("10.0.0.1:1", "10.0.0.2:1"));
        let site = |ip: &str| Prefix::site(ip.parse().unwrap());
        assert!(
            site("2001:db8::1") == site("2001:db8:0:ff::1") && site("2001:db8::") != site("2001:db8:1::")
        );
        assert!(site("8.8.8.8") == site("8.8.8.200") && site("8.8.8.8") != site("8.8.9.8"));
        assert!(!same("[fe80::1]:1", "[fe80::2]:1") && same("10.0.0.1:1", "10.0.0.1:1"));
    }
}
