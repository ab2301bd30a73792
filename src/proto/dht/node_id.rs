//! Node ids: one key space of 160 bits for nodes, torrents and items (BEP 5), and the relation of
//! an id to its address (BEP 42).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::proto::compact;
use crate::proto::crc32c::crc32c;
use crate::proto::infohash::InfoHash;
use crate::proto::rng::Rng;

/// Bits of an id.
const ID_BITS: u32 = 160;
/// The bits of an id's third byte that follow from its address (BEP 42).
const PREFIX_MASK: u8 = 0xf8;

/// A point of the key space: a node's id or a target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 20]);

/// A node's id and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// The id that the node gave.
    pub id: NodeId,
    /// Its address, canonical.
    pub addr: SocketAddr,
}

impl NodeId {
    /// Returns a uniformly random id.
    pub fn random(rng: &mut Rng) -> Self {
        let mut id = [0; 20];
        rng.fill(&mut id);
        Self(id)
    }

    /// Returns an id that fits this address (BEP 42), random in its other bits.
    pub fn for_ip(ip: IpAddr, rng: &mut Rng) -> Self {
        let mut id = Self::random(rng);
        if !compact::is_local(ip) {
            let [first, second, third] = prefix_for(ip, id.0[19]);
            id.0[0] = first;
            id.0[1] = second;
            id.0[2] = third | (id.0[2] & !PREFIX_MASK);
        }
        id
    }

    /// Whether a node at this address may have this id (BEP 42); local addresses may have any.
    pub fn fits(self, ip: IpAddr) -> bool {
        let prefix = [self.0[0], self.0[1], self.0[2] & PREFIX_MASK];
        prefix == prefix_for(ip, self.0[19]) || compact::is_local(ip)
    }

    /// Returns the XOR distance; smaller is closer.
    pub fn distance(self, other: Self) -> Self {
        let mut distance = self.0;
        distance.iter_mut().zip(other.0).for_each(|(byte, other)| *byte ^= other);
        Self(distance)
    }

    /// The number of leading bits in common, 0 to 160.
    pub fn shared_bits(self, other: Self) -> u32 {
        let distance = self.distance(other).0;
        let unlike = distance.iter().position(|&byte| byte != 0);
        unlike.map_or(ID_BITS, |at| 8 * at as u32 + distance[at].leading_zeros())
    }

    /// Returns a uniformly random id among those that share exactly `bits` leading bits with this
    /// one (160: itself).
    pub fn random_at(self, bits: u32, rng: &mut Rng) -> Self {
        if bits >= ID_BITS {
            return self;
        }
        let mut id = Self::random(rng);
        let at = (bits / 8) as usize;
        id.0[..at].copy_from_slice(&self.0[..at]);
        // The bit after the shared ones is the first that differs.
        let differs = 0x80_u8 >> (bits % 8);
        let below = differs - 1;
        id.0[at] = (self.0[at] & !(differs | below)) | (!self.0[at] & differs) | (id.0[at] & below);
        id
    }
}

/// The first 21 bits of an id at this address; the id's last byte selects one of eight values (BEP
/// 42).
fn prefix_for(ip: IpAddr, last: u8) -> [u8; 3] {
    let seed = (last & 7) << 5;
    let crc = match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let mut octets = (ip.to_bits() & 0x030f_3fff).to_be_bytes();
            octets[0] |= seed;
            crc32c(&octets)
        }
        IpAddr::V6(ip) => {
            let mut octets = ((ip.to_bits() >> 64) as u64 & 0x0103_070f_1f3f_7fff).to_be_bytes();
            octets[0] |= seed;
            crc32c(&octets)
        }
    };
    let [first, second, third, _] = crc.to_be_bytes();
    [first, second, third & PREFIX_MASK]
}

impl From<InfoHash> for NodeId {
    fn from(infohash: InfoHash) -> Self {
        Self(infohash.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> NodeId {
        NodeId([byte; 20])
    }

    #[test]
    fn ids_made_for_an_address_fit_it_and_hardly_another_one() {
        let mut rng = Rng::from_number(1);
        for ip in ["124.31.75.21", "::ffff:124.31.75.21", "2001:db8::1"] {
            let ip = ip.parse().unwrap();
            for _ in 0..100 {
                let id = NodeId::for_ip(ip, &mut rng);
                assert!(id.fits(ip));
                let others = (0..=255_u8).filter(|&last| id.fits(IpAddr::from([9, 9, 9, last])));
                assert!(others.count() <= 1, "{id}");
            }
            assert_ne!(NodeId::for_ip(ip, &mut rng), NodeId::for_ip(ip, &mut rng));
        }
        let random = (0..10_000).filter(|_| NodeId::random(&mut rng).fits("8.8.8.8".parse().unwrap()));
        assert!(random.count() <= 1);
    }

    #[test]
    fn every_id_fits_a_local_address() {
        let mut rng = Rng::from_number(2);
        for ip in ["127.0.0.1", "10.0.0.7", "192.168.1.1", "::1", "fd00::1"] {
            let ip = ip.parse().unwrap();
            assert!(NodeId::random(&mut rng).fits(ip));
            let ids = [NodeId::for_ip(ip, &mut rng), NodeId::for_ip(ip, &mut rng)];
            assert_ne!(ids[0].0[..2], ids[1].0[..2], "{ip}: neighbours spread over the key space");
        }
    }

    #[test]
    fn distance_is_the_xor_and_shared_bits_its_leading_zeros() {
        assert_eq!(id(0xf0).distance(id(0x0f)), id(0xff));
        assert_eq!(id(7).distance(id(7)), id(0));
        assert_eq!(id(7).shared_bits(id(7)), 160);
        assert_eq!(id(0).shared_bits(id(0x80)), 0);
        let mut near = id(0);
        near.0[19] = 1;
        assert_eq!(id(0).shared_bits(near), 159);
        near.0[3] = 0x10;
        assert_eq!(id(0).shared_bits(near), 27);
    }

    #[test]
    fn random_ids_share_exactly_the_bits_asked_for() {
        let mut rng = Rng::from_number(3);
        let own = NodeId::random(&mut rng);
        for bits in 0..=160 {
            assert_eq!(own.shared_bits(own.random_at(bits, &mut rng)), bits);
        }
        assert_ne!(own.random_at(100, &mut rng), own.random_at(100, &mut rng));
    }
}
