//! The Bloom filter of BEP 33: 256 bytes that represent a set of addresses.
//!
//! Each address sets two of 2,048 bits. Filters of several nodes are united by OR, and the number
//! of addresses follows from the bits that are still clear. Ports do not count.

use std::net::IpAddr;

use sha1::{Digest, Sha1};

/// Bits of a filter.
const BIT_COUNT: u32 = 8 * 256;
/// Bits that an address sets.
const BITS_EACH: f64 = 2.0;

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
        let [a, b, c, d, ..]: [u8; 20] = match ip.to_canonical() {
            IpAddr::V4(ip) => Sha1::digest(ip.octets()).into(),
            IpAddr::V6(ip) => Sha1::digest(ip.octets()).into(),
        };
        for bits in [[a, b], [c, d]] {
            let bit = u32::from(u16::from_le_bytes(bits)) % BIT_COUNT;
            self.0[(bit / 8) as usize] |= 1 << (bit % 8);
        }
    }

    /// Adds all addresses of another filter.
    pub fn merge(&mut self, other: &[u8; 256]) {
        self.0.iter_mut().zip(other).for_each(|(own, other)| *own |= other);
    }

    /// Estimates the number of addresses; the filter is full beyond some 6,000, and the highest
    /// result is 7,806.
    pub fn estimate(&self) -> u32 {
        let clear: u32 = self.0.iter().map(|byte| byte.count_zeros()).sum();
        let clear_share = f64::from(clear.max(1)) / f64::from(BIT_COUNT);
        let size = clear_share.ln() / (BITS_EACH * (1.0 - 1.0 / f64::from(BIT_COUNT)).ln());
        size.round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(from: u32, count: u32) -> Filter {
        let mut filter = Filter::default();
        (from..from + count)
            .for_each(|number| filter.insert(IpAddr::from((0x0800_0000 + number).to_be_bytes())));
        filter
    }

    #[test]
    fn sizes_are_estimated_closely_until_it_is_full() {
        assert_eq!(Filter::default().estimate(), 0);
        for count in [1, 2, 10, 100, 1_000, 3_000] {
            let estimate = filter(0, count).estimate();
            assert!(estimate.abs_diff(count) <= count / 10, "{estimate} for {count}");
        }
        assert!(filter(0, 100_000).estimate() > 6_000);
        assert_eq!(Filter([0xff; 256]).estimate(), 7_806);
    }

    #[test]
    fn a_union_counts_each_address_once() {
        let mut union = filter(0, 200);
        union.merge(&filter(100, 200).0);
        assert_eq!(union, filter(0, 300));
        let mut mapped = Filter::default();
        mapped.insert("::ffff:8.0.0.0".parse().unwrap());
        assert_eq!(mapped, filter(0, 1));
    }
}
