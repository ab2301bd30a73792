//! Bytes per second over the last few seconds.

use crate::proto::time::Instant;

/// A rate estimator.
#[derive(Clone, Debug)]
pub struct Rate {
    _now: Instant,
}

impl Rate {
    /// Nothing passed yet.
    pub fn new(now: Instant) -> Self {
        Self { _now: now }
    }

    /// `len` bytes passed.
    pub fn add(&mut self, len: u64, now: Instant) {
        let _ = (len, now);
        todo!()
    }

    /// Bytes per second lately.
    pub fn per_second(&self, now: Instant) -> u64 {
        let _ = now;
        todo!()
    }
}
