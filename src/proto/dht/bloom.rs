//! The Bloom filter of BEP 33: 256 bytes that stand for a set of addresses.

use std::net::IpAddr;

/// A set of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(pub [u8; 256]);

impl Default for Filter {
    fn default() -> Self {
        Self([0; 256])
    }
}

impl Filter {
    /// Adds an address.
    pub fn insert(&mut self, ip: IpAddr) {
        let _ = ip;
        todo!()
    }

    /// The union with another one.
    pub fn merge(&mut self, other: &[u8; 256]) {
        let _ = other;
        todo!()
    }

    /// How many addresses it stands for, estimated; beyond some 6,000 it is full.
    pub fn estimate(&self) -> u32 {
        todo!()
    }
}
