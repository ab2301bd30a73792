//! Token buckets for rate limits.

use super::time::{Duration, Instant};

/// Longest burst, as time at the full rate: a limit holds over any longer span.
pub const BURST: Duration = Duration::from_millis(250);
/// Least burst, so that a low limit still lets one block through: one block and its header.
pub const BURST_LEN_MIN: u64 = 17 * 1024;

/// A rate limit in bytes per second; without one, everything passes.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Option<u64>,
    /// Tokens in millionths of a byte, so that low rates lose nothing to rounding.
    micro_tokens: u128,
    filled_at: Instant,
}

const MICRO: u128 = 1_000_000;

impl Bucket {
    /// Creates a full bucket; `rate` in bytes per second, `None` for no limit.
    pub fn new(rate: Option<u64>, now: Instant) -> Self {
        let mut bucket = Self { rate, micro_tokens: 0, filled_at: now };
        bucket.micro_tokens = bucket.capacity();
        bucket
    }

    /// Changes the limit; the tokens stay, up to the new burst.
    pub fn set_rate(&mut self, rate: Option<u64>, now: Instant) {
        self.fill(now);
        self.rate = rate;
        self.micro_tokens = self.micro_tokens.min(self.capacity());
    }

    /// Returns the limit, bytes per second.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Returns the bytes that may pass now; `u64::MAX` without a limit.
    pub fn available(&mut self, now: Instant) -> u64 {
        self.fill(now);
        self.rate.map_or(u64::MAX, |_| (self.micro_tokens / MICRO) as u64)
    }

    /// Takes `len` bytes if they may pass now; returns whether they may.
    pub fn take(&mut self, len: u64, now: Instant) -> bool {
        let enough = self.available(now) >= len;
        if enough && self.rate.is_some() {
            self.micro_tokens -= u128::from(len) * MICRO;
        }
        enough
    }

    /// Returns when `len` bytes may pass; `None` means never, at rate 0.
    pub fn ready_at(&self, len: u64) -> Option<Instant> {
        let Some(rate) = self.rate else { return Some(self.filled_at) };
        let wanted = (u128::from(len) * MICRO).min(self.capacity());
        let missing = wanted.saturating_sub(self.micro_tokens);
        let micros = missing.div_ceil(u128::from(rate).max(1));
        (rate > 0 || missing == 0).then(|| self.filled_at + Duration::from_micros(micros as u64))
    }

    fn capacity(&self) -> u128 {
        let burst = u128::from(self.rate.unwrap_or(0)) * BURST.as_micros();
        burst.max(u128::from(BURST_LEN_MIN) * MICRO)
    }

    fn fill(&mut self, now: Instant) {
        let rate = u128::from(self.rate.unwrap_or(0));
        let gained = (now - self.filled_at).as_micros() * rate;
        self.micro_tokens = (self.micro_tokens + gained).min(self.capacity());
        self.filled_at = self.filled_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_kept_over_time_and_bursts_are_short() {
        let mut now = Instant::ZERO;
        let mut bucket = Bucket::new(Some(100_000), now);
        let mut passed = 0;
        while now < Instant::from_micros(10_000_000) {
            if bucket.take(16_384, now) {
                passed += 16_384;
            }
            now = bucket.ready_at(16_384).unwrap().max(now + Duration::from_micros(1));
        }
        assert!((1_000_000..1_050_000).contains(&passed), "{passed}");
    }

    #[test]
    fn no_limit_lets_everything_pass_and_zero_nothing_more() {
        let mut free = Bucket::new(None, Instant::ZERO);
        assert!(free.take(u64::MAX, Instant::ZERO));
        let mut shut = Bucket::new(Some(0), Instant::ZERO);
        assert!(shut.take(BURST_LEN_MIN, Instant::ZERO));
        assert!(!shut.take(1, Instant::from_micros(u64::MAX)) && shut.ready_at(1).is_none());
    }
}
