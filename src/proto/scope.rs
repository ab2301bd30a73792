//! The network that an address belongs to, and how far inwards a URL may lead.
//!
//! A server on the internet must not direct this machine to hosts that it cannot reach itself: the
//! machine's own services, its local network, or the metadata service of a cloud. So the source of
//! a URL ([`Origin`]) decides how far it may lead, and the check is on the address to which its
//! host resolves, not on the spelling of the host. The forms `2130706433`, `0x7f.1` and
//! `[::ffff:127.0.0.1]` are all 127.0.0.1. An address that embeds an IPv4 address (IPv4-mapped,
//! NAT64, 6to4) has the scope of that address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How close the hosts at an address are, the most distant first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Any host on the internet. The documentation (RFC 5737, RFC 3849) and benchmarking ranges
    /// (RFC 2544) count as public: no host of a local network is there, and proxies use the latter
    /// in place of public addresses.
    Public,
    /// A private network: RFC 1918, RFC 4193, and shared address space of carriers (RFC 6598).
    Private,
    /// The link (RFC 3927, RFC 4291).
    LinkLocal,
    /// This machine. The unspecified address is one of its names.
    Loopback,
}

/// Addresses of cloud metadata services, which give credentials to any client; never contacted.
const CLOUD_METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    // The container credentials of ECS.
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

impl Scope {
    /// Returns the scope of an address; `None` for addresses that are never contacted (multicast,
    /// broadcast, reserved, cloud metadata).
    pub fn of(ip: IpAddr) -> Option<Self> {
        let ip = ip.to_canonical();
        if CLOUD_METADATA.contains(&ip) {
            return None;
        }
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Option<Self> {
        match ip.octets() {
            [0, 0, 0, 0] | [127, ..] => Some(Self::Loopback),
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Some(Self::Private),
            // Protocol assignments, such as the near end of a DS-Lite tunnel.
            [192, 0, 0, _] => Some(Self::Private),
            [169, 254, ..] => Some(Self::LinkLocal),
            [0, ..] | [224..=255, ..] => None,
            _ => Some(Self::Public),
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Option<Self> {
        if let Some(embedded) = embedded_v4(ip) {
            return Self::of(embedded.into());
        }
        match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Some(Self::Loopback),
            // IPv4-compatible addresses, which are deprecated.
            [0, 0, 0, 0, 0, 0, ..] => None,
            // Local use of NAT64 (RFC 8215), unique local and the former site-local addresses.
            [0x64, 0xff9b, 1, ..] | [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(Self::Private),
            [0xfe80..=0xfebf, ..] => Some(Self::LinkLocal),
            [0x2000..=0x3fff, ..] => Some(Self::Public),
            _ => None,
        }
    }
}

/// Returns the IPv4 address to which a gateway forwards: NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

/// The source of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The user: an option, a torrent file or a link.
    User,
    /// A server at an address of this scope, by a redirect. A server behind a proxy counts as
    /// public.
    Server(Scope),
}

impl Origin {
    /// Returns the innermost scope to which the URL may lead: servers lead only to their own scope
    /// and outwards.
    pub fn innermost(self) -> Scope {
        match self {
            Self::User => Scope::Loopback,
            Self::Server(scope) => scope,
        }
    }
}

impl Scope {
    /// Whether a URL that may lead inwards to this scope may lead to the address.
    pub fn admits(self, ip: IpAddr) -> bool {
        Self::of(ip).is_some_and(|scope| scope <= self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: Option<Scope> = Some(Scope::Public);
    const PRIVATE: Option<Scope> = Some(Scope::Private);
    const LINK: Option<Scope> = Some(Scope::LinkLocal);
    const LOOPBACK: Option<Scope> = Some(Scope::Loopback);

    /// The truth table: addresses of each scope, at its borders and in every form.
    const PUBLIC_ADDRS: &str = "\
        8.8.8.8 1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 \
        126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 \
        192.0.2.1 192.167.255.255 192.169.0.0 198.18.0.1 198.51.100.1 203.0.113.1 \
        223.255.255.255 2606:4700::1111 2001:db8::1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1";
    const PRIVATE_ADDRS: &str = "\
        10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.1 192.0.0.1 \
        100.64.0.0 100.127.255.255 ::ffff:10.0.0.1 64:ff9b::10.0.0.1 64:ff9b:1::1 2002:a00:1::1 \
        fc00::1 fdff::1 fec0::1";
    const LINK_LOCAL_ADDRS: &str = "\
        169.254.0.1 169.254.255.255 fe80::1 febf::1 ::ffff:169.254.1.1";
    const LOOPBACK_ADDRS: &str = "\
        127.0.0.1 127.255.255.255 0.0.0.0 ::1 :: ::ffff:127.0.0.1 \
        ::ffff:0.0.0.0 64:ff9b::127.0.0.1 2002:7f00:1::";
    const NEVER_ADDRS: &str = "\
        169.254.169.254 ::ffff:169.254.169.254 64:ff9b::169.254.169.254 2002:a9fe:a9fe:: 169.254.170.2 100.100.100.200 \
        fd00:ec2::254 0.0.0.1 0.255.255.255 224.0.0.1 239.255.255.250 240.0.0.1 \
        255.255.255.255 ::127.0.0.1 ::2 100::1 4000::1 ff02::1";

    #[test]
    fn every_address_has_a_scope_or_is_never_asked() {
        for (addrs, scope) in [
            (PUBLIC_ADDRS, PUBLIC),
            (PRIVATE_ADDRS, PRIVATE),
            (LINK_LOCAL_ADDRS, LINK),
            (LOOPBACK_ADDRS, LOOPBACK),
            (NEVER_ADDRS, None),
        ] {
            for addr in addrs.split_whitespace() {
                let ip: IpAddr = addr.parse().unwrap();
                assert_eq!(Scope::of(ip), scope, "{addr}");
                assert_eq!(Origin::User.innermost().admits(ip), scope.is_some(), "{addr}");
                assert_eq!(Origin::Server(Scope::Public).innermost().admits(ip), scope == PUBLIC, "{addr}");
            }
        }
    }

    #[test]
    fn a_server_leads_to_its_own_scope_and_outwards() {
        let scopes = [Scope::Public, Scope::Private, Scope::LinkLocal, Scope::Loopback];
        let addrs = ["8.8.8.8", "192.168.0.1", "169.254.1.1", "127.0.0.1"];
        for (from, server) in scopes.into_iter().enumerate() {
            for (to, addr) in addrs.into_iter().enumerate() {
                let admits = Origin::Server(server).innermost().admits(addr.parse().unwrap());
                assert_eq!(admits, to <= from, "{server:?} to {addr}");
            }
        }
    }
}
