//! When a torrent that seeds has shared enough for its user.

use crate::proto::time::{Duration, Instant};

/// The goals; reaching one is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShareGoal {
    /// Bytes sent for each wanted byte.
    pub ratio: Option<f64>,
    /// Time since the content is complete and durable.
    pub seed_time: Option<Duration>,
}

impl ShareGoal {
    /// Returns whether a torrent that is finished since `finished_at` has reached a goal, with
    /// `uploaded` bytes sent and `wanted_len` bytes of wanted content.
    pub fn is_reached(&self, now: Instant, finished_at: Instant, uploaded: u64, wanted_len: u64) -> bool {
        self.due_at(finished_at).is_some_and(|at| at <= now)
            || self.ratio.is_some_and(|ratio| uploaded as f64 >= ratio * wanted_len as f64)
    }

    /// Returns when the goal of time is reached.
    pub fn due_at(&self, finished_at: Instant) -> Option<Instant> {
        self.seed_time.map(|seed_time| finished_at + seed_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_goal_is_enough_and_without_one_seeding_does_not_end() {
        let (begin, hour) = (Instant::ZERO, Duration::from_secs(3_600));
        let reached = |ratio, seed_time, now, uploaded| {
            ShareGoal { ratio, seed_time }.is_reached(now, begin, uploaded, 1_000)
        };
        assert!(!reached(None, None, begin + 1_000 * hour, u64::MAX));
        assert!(!reached(Some(1.5), Some(hour), begin, 1_499));
        assert!(reached(Some(1.5), Some(hour), begin, 1_500));
        assert!(reached(Some(1.5), Some(hour), begin + hour, 0));
        assert!(reached(Some(0.0), None, begin, 0) && reached(None, Some(Duration::ZERO), begin, 0));
    }
}
