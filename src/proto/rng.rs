//! Seeded randomness: the machines' only source of random numbers.
//!
//! ChaCha8 from a seed that the shell draws once. Each machine owns a generator, forked from its
//! parent's by a label, so that another draw in one machine does not change the draws of others.
//! The output is unpredictable without the seed, so it may serve for transaction ids and tokens.

use rand::rngs::ChaCha8Rng;
use rand::{Rng as _, SeedableRng};
use sha1::{Digest, Sha1};

/// A deterministic generator owned by one machine.
#[derive(Debug)]
pub struct Rng {
    seed: [u8; 32],
    /// `None` until the first draw. Most generators of thousands of idle torrents are never used,
    /// and the precomputed output takes ten times as much memory as the seed.
    drawn: Option<Box<ChaCha8Rng>>,
}

impl Rng {
    /// Creates a generator whose output follows from `seed`.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed, drawn: None }
    }

    /// Creates a generator from a number, for tests and simulations.
    pub fn from_number(seed: u64) -> Self {
        let drawn = ChaCha8Rng::seed_from_u64(seed);
        Self { seed: drawn.get_seed(), drawn: Some(Box::new(drawn)) }
    }

    /// Forks a generator for another machine; the same label at the same point gives the same one.
    pub fn fork(&mut self, label: &str) -> Self {
        let mut own = [0; 32];
        self.fill(&mut own);
        let digest = Sha1::new().chain_update(own).chain_update(label).finalize();
        let mut seed = own;
        for (byte, mixed) in seed.iter_mut().zip(digest) {
            *byte ^= mixed;
        }
        Self::from_seed(seed)
    }

    /// Returns 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.generator().next_u64()
    }

    /// Returns a uniform number in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // Multiply and shift: the bias is below 2^-32 for every bound that fits in memory.
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// Returns a uniform number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Fills `bytes` with uniform bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.generator().fill_bytes(bytes);
    }

    /// Frees the memory that drawing took, for machines that draw rarely.
    pub fn compact(&mut self) {
        if self.drawn.is_some() {
            *self = self.fork("compact");
        }
    }

    fn generator(&mut self) -> &mut ChaCha8Rng {
        self.drawn.get_or_insert_with(|| Box::new(ChaCha8Rng::from_seed(self.seed)))
    }

    /// Puts `items` into a uniformly random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_one_future_and_labels_differ() {
        let draw = |label: &str| Rng::from_number(7).fork(label).bits();
        assert_eq!(draw("picker"), draw("picker"));
        assert_ne!(draw("picker"), draw("choker"));
    }

    #[test]
    fn below_stays_below_and_reaches_everything() {
        let mut rng = Rng::from_number(1);
        let mut seen = [0; 7];
        for _ in 0..7_000 {
            seen[rng.below(7)] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1_200).contains(&count)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }
}
