//! The address of a client behind reverse proxies (`X-Forwarded-For`), accepted only from trusted
//! proxies.
//!
//! Each proxy appends the address of its client, so only the end of the list, written by trusted
//! proxies, is reliable. The client is the last address that is no trusted proxy's.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A network: an address and the number of its significant leading bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    bit_count: u32,
}

/// The text is neither an address nor `ADDRESS/BITS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a network such as 10.0.0.0/8 or 2001:db8::/32")]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().map_err(|_| NotANetwork)?;
        let bit_max = if ip.is_ipv4() { 32 } else { 128 };
        let bit_count: u32 = bits.map_or(Ok(bit_max), str::parse).map_err(|_| NotANetwork)?;
        if bit_count > bit_max {
            return Err(NotANetwork);
        }
        let canonical = ip.to_canonical();
        // An IPv4-mapped network is IPv4, if it is not wider than all of IPv4.
        match (canonical, bit_count.checked_sub(96)) {
            (IpAddr::V4(_), Some(bit_count)) if ip.is_ipv6() => Ok(Self { ip: canonical, bit_count }),
            _ => Ok(Self { ip, bit_count }),
        }
    }
}

impl Network {
    /// Whether the network contains the address.
    pub fn contains(self, ip: IpAddr) -> bool {
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                (own.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bit_count
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                (own.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bit_count
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Returns the address of the client of a request that came from `from` with the `X-Forwarded-For`
/// lines `forwarded`. An entry that is no address ends the search: the client is the first address
/// after it.
pub fn client<'a>(
    from: IpAddr,
    trusted: &[Network],
    forwarded: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> IpAddr {
    let is_trusted = |ip| trusted.iter().any(|network| network.contains(ip));
    let mut client = from.to_canonical();
    for entry in forwarded.rev().flat_map(|line| line.rsplit(|&byte| byte == b',')) {
        let Some(ip) = address(entry).filter(|_| is_trusted(client)) else { break };
        client = ip;
    }
    client
}

/// Returns the address of an entry, with or without a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse().ok().map(|addr: SocketAddr| addr.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn networks_are_read_and_hold_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "::1", "8.8.8.8"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.9.9.9"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
            ("192.168.1.77/24", "192.168.1.1", "192.168.2.1"),
        ] {
            let read: Network = network.parse().unwrap();
            assert!(read.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!read.contains(outside.parse().unwrap()), "{network} {outside}");
        }
        for bad in ["", "/", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0/8", "proxy", "10.0.0.0/-1", " ::1"]
        {
            assert_eq!(bad.parse::<Network>(), Err(NotANetwork), "{bad}");
        }
    }

    #[test]
    fn only_entries_of_trusted_proxies_count() {
        let trusted = networks(&["10.0.0.0/8", "::1"]);
        for (from, lines, expected) in [
            ("9.9.9.9", &["1.2.3.4"][..], "9.9.9.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("::ffff:10.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("::1", &["2001:db8::1"], "2001:db8::1"),
            ("::1", &["[2001:db8::1]"], "2001:db8::1"),
            ("::1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("::1", &["1.2.3.4:5"], "1.2.3.4"),
            // The client's own entry is in front.
            ("10.0.0.1", &["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6, 1.2.3.4,10.0.0.2"], "1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6", "1.2.3.4", "10.0.0.2"], "1.2.3.4"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["1.2.3.4, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4,"], "10.0.0.1"),
        ] {
            let found = client(from.parse().unwrap(), &trusted, lines.iter().map(|line| line.as_bytes()));
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{from} {lines:?}");
        }
        let junk = [&b"\xff\xfe"[..], &[b','; 9000]];
        assert_eq!(
            client("::1".parse().unwrap(), &trusted, junk.into_iter()),
            "::1".parse::<IpAddr>().unwrap()
        );
    }
}
