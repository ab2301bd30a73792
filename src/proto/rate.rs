//! Bytes per second over the last few seconds, for the choker, the picker and display.
//!
//! A ring of short spans. Adding is a few instructions and allocates nothing, so it is called per
//! block. Invariant: `slots[n % SLOTS]` holds the bytes of span `n`, for the last `SLOTS` spans
//! up to `head`.

use crate::proto::time::{Duration, Instant};

/// Spans in the window: 5 s in all, long enough to smooth over blocks and round trips, short enough
/// that a choke shows before the next round.
const SLOTS: u64 = 10;
/// One span.
const SPAN: Duration = Duration::from_millis(500);
/// Least time a rate is measured over, so that the first block is not taken for a flood.
const MEASURED_MIN: Duration = Duration::from_secs(1);

/// A rate estimator.
#[derive(Clone, Debug)]
pub struct Rate {
    slots: [u64; SLOTS as usize],
    head: u64,
    started_at: Instant,
}

impl Rate {
    /// Nothing passed yet.
    pub fn new(now: Instant) -> Self {
        Self { slots: [0; SLOTS as usize], head: span_of(now), started_at: now }
    }

    /// `len` bytes passed.
    pub fn add(&mut self, len: u64, now: Instant) {
        let span = span_of(now).max(self.head);
        for skipped in (self.head + 1..=span).rev().take(SLOTS as usize) {
            self.slots[(skipped % SLOTS) as usize] = 0;
        }
        self.head = span;
        self.slots[(span % SLOTS) as usize] += len;
    }

    /// Bytes per second lately.
    pub fn per_second(&self, now: Instant) -> u64 {
        let span = span_of(now).max(self.head);
        let oldest = (span + 1).saturating_sub(SLOTS);
        let passed: u64 = (oldest..=self.head).map(|span| self.slots[(span % SLOTS) as usize]).sum();
        let window_from = Instant::from_micros(oldest * SPAN.as_micros() as u64);
        let measured = (now - window_from.max(self.started_at)).max(MEASURED_MIN);
        (u128::from(passed) * 1_000_000 / measured.as_micros()) as u64
    }
}

fn span_of(now: Instant) -> u64 {
    now.as_micros() / SPAN.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    #[test]
    fn a_steady_flow_is_measured_and_its_end_noticed() {
        let mut rate = Rate::new(at(60_000));
        for step in 0..200 {
            rate.add(10_000, at(60_000 + step * 100));
        }
        let steady = rate.per_second(at(80_000));
        assert!((95_000..=105_000).contains(&steady), "{steady}");
        assert!(rate.per_second(at(83_000)) < 60_000);
        assert_eq!(rate.per_second(at(90_000)), 0);
        rate.add(1_000, at(500_000));
        assert!(rate.per_second(at(500_000)) <= 1_000);
    }

    #[test]
    fn the_first_block_is_no_flood() {
        let mut rate = Rate::new(at(0));
        rate.add(16_384, at(1));
        assert_eq!(rate.per_second(at(1)), 16_384);
    }
}
