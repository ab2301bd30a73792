//! Node ids: one key space of 160 bits for nodes, torrents and items (BEP 5), and what an id has to do with an
//! address (BEP 42).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::proto::infohash::InfoHash;
use crate::proto::rng::Rng;

/// A point of the key space: a node's id, or a target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 20]);

/// A node: who, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Its id, as it says.
    pub id: NodeId,
    /// Its address, canonical.
    pub addr: SocketAddr,
}

impl NodeId {
    /// A uniform id.
    pub fn random(rng: &mut Rng) -> Self {
        let mut id = [0; 20];
        rng.fill(&mut id);
        Self(id)
    }

    /// An id that fits this address (BEP 42), random in its other bits.
    pub fn for_ip(ip: IpAddr, rng: &mut Rng) -> Self {
        let _ = (ip, rng);
        todo!()
    }

    /// Whether the id may be of a node at this address (BEP 42): local addresses may have any.
    pub fn fits(self, ip: IpAddr) -> bool {
        let _ = ip;
        todo!()
    }

    /// XOR: how far apart; smaller is closer.
    pub fn distance(self, other: Self) -> Self {
        let _ = other;
        todo!()
    }

    /// Leading bits in common, 0 to 160.
    pub fn shared_bits(self, other: Self) -> u32 {
        let _ = other;
        todo!()
    }

    /// A uniform id among those that share exactly `bits` leading bits with this one (160: itself).
    pub fn random_at(self, bits: u32, rng: &mut Rng) -> Self {
        let _ = (bits, rng);
        todo!()
    }
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
