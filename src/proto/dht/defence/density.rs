//! The density of nodes in the key space: estimates the overlay's size, and detects crowds.
//!
//! Ids of honest nodes are uniformly distributed, so k nodes lie within k/N of the key space around
//! any point of an overlay of N. A higher density shows an attacker.

use std::ops::RangeInclusive;

use super::super::node_id::NodeId;
use super::super::routing::K;

/// Most nodes around a target that have to answer where many crowd it; an overlay of fewer nodes is
/// too small for a lookup to have far ones.
pub(in crate::proto::dht) const CLOSEST_COUNT_MAX: usize = 24;
/// Of the nodes whose id fits, so many of the closest have to answer: k may be an attacker's, and
/// those that they hide are right behind them.
pub(in crate::proto::dht) const ANSWERED_COUNT: usize = 2 * K;
/// More nodes than these, within the distance that should hold k, are a crowd: by chance alone
/// there is one around a target of 250, and around one of ten if the size is taken for two thirds
/// of what it is.
pub(in crate::proto::dht) const CROWD_COUNT: usize = 2 * K;

/// The ranks among the closest nodes that estimate the overlay's size, each by itself; their median
/// is taken. The closest five vary too much, and beyond the twelfth a table does not know all.
const ESTIMATE_RANKS: RangeInclusive<usize> = 6..=12;
/// Sizes learnt from lookups that are remembered, some of the last two hours. The third of four is
/// taken: one varies by a third, and those from before a network grew tell too little.
const SAMPLE_COUNT_MAX: usize = 7;
/// With fewer samples, the density around our own id limits the estimate.
const SAMPLE_COUNT_MIN: usize = 5;
/// A lookup tells the overlay's size if its target shares fewer bits with our id than this: a crowd
/// around us means one of our neighbours.
const FAR_BITS: u32 = 3;

/// The size of an overlay, from what lookups of far targets found.
#[derive(Clone, Debug, Default)]
pub(in crate::proto::dht) struct SizeSamples(Vec<u64>);

impl SizeSamples {
    /// Adds what a lookup of a target that no other node chose found
    /// ([`size_estimate`](super::super::lookup::Lookup::size_estimate)).
    pub(in crate::proto::dht) fn add(&mut self, own: NodeId, target: NodeId, size: u64) {
        if target.shared_bits(own) >= FAR_BITS {
            return;
        }
        if self.0.len() >= SAMPLE_COUNT_MAX {
            self.0.remove(0);
        }
        self.0.push(size);
    }

    /// Returns the size that three of four samples do not exceed; with few samples at most what the
    /// density around our own id tells, within a third or so.
    pub(in crate::proto::dht) fn estimate(&self, density: impl Fn() -> u64) -> u64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        match sorted.get(3 * sorted.len() / 4).copied() {
            Some(quartile) if sorted.len() >= SAMPLE_COUNT_MIN => quartile,
            Some(quartile) => quartile.min(density()),
            None => density(),
        }
    }
}

/// Returns the number of nodes in the overlay, by how far the closest ones are from a point,
/// closest first: the i-th of N is at i/N of the key space. The median of several ranks, so that a
/// few nodes placed there on purpose do not count for much.
pub(in crate::proto::dht) fn size_by_density(distances: impl Iterator<Item = NodeId>) -> u64 {
    let mut estimates = [0.0; 16];
    let mut count = 0;
    let mut known = 0_u64;
    for (at, distance) in distances.take(*ESTIMATE_RANKS.end()).enumerate() {
        known += 1;
        if ESTIMATE_RANKS.contains(&(at + 1)) {
            estimates[count] = (at + 1) as f64 / share_of_space(distance);
            count += 1;
        }
    }
    let estimates = &mut estimates[..count];
    estimates.sort_by(f64::total_cmp);
    estimates.get(count / 2).map_or(known, |&median| (median as u64).max(known))
}

/// Returns a distance as a share of the key space, more than 0 and at most 1.
pub(in crate::proto::dht) fn share_of_space(distance: NodeId) -> f64 {
    let leading = distance.0.first_chunk().copied().map_or(0, u64::from_be_bytes);
    (leading as f64 + 1.0) / 2.0_f64.powi(64)
}
