//! A rate limit: a token bucket without a timer.

use crate::proto::time::{Duration, Instant};

/// Allows one turn each `pause`, and saves up to `burst` of them.
#[derive(Debug)]
pub(super) struct Throttle {
    pause: Duration,
    burst: u32,
    /// When the bucket would be full again.
    full_at: Instant,
}

impl Throttle {
    /// Creates a full bucket.
    pub(super) const fn new(pause: Duration, burst: u32) -> Self {
        Self { pause, burst, full_at: Instant::ZERO }
    }

    /// Takes a turn, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let ready = self.ready_at() <= now;
        if ready {
            self.full_at = self.full_at.max(now) + self.pause;
        }
        ready
    }

    /// Returns when the next turn is available.
    pub(super) fn ready_at(&self) -> Instant {
        Instant::ZERO + self.full_at.since(Instant::ZERO + self.pause * (self.burst - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_each_pause() {
        let second = Duration::from_secs(1);
        let mut throttle = Throttle::new(second, 3);
        let start = Instant::ZERO + second * 100;
        assert_eq!((0..10).filter(|_| throttle.take(start)).count(), 3);
        assert_eq!(throttle.ready_at(), start + second);
        assert!(throttle.take(start + second) && !throttle.take(start + second));
        assert_eq!((0..10).filter(|_| throttle.take(start + second * 60)).count(), 3);
    }
}
