//! Decides when written data is made durable: after two seconds or 32 MiB, whichever comes first,
//! which bounds the loss at a power cut. One commit runs at a time, on a thread of its own, so a
//! disk that syncs slowly delays only the next commit.

use crate::proto::time::{Duration, Instant};

/// Age of the oldest data that is not durable at which a commit is due.
const COMMIT_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes that are not durable at which a commit is due at once.
const COMMIT_LEN: u64 = 32 << 20;

/// The data that was written and is not durable.
#[derive(Debug, Default)]
pub struct Durability {
    written_len: u64,
    due_at: Option<Instant>,
    is_running: bool,
}

impl Durability {
    /// Adds bytes that were written now and received `age` ago.
    pub fn written(&mut self, now: Instant, len: u64, age: Duration) {
        self.written_len += len;
        let wait = COMMIT_INTERVAL.saturating_sub(age);
        let due_at = if self.written_len >= COMMIT_LEN { now } else { now + wait };
        self.due_at = Some(self.due_at.map_or(due_at, |at| at.min(due_at)));
    }

    /// Returns when [`Durability::begin`] has something to do.
    pub fn due_at(&self) -> Option<Instant> {
        self.due_at.filter(|_| !self.is_running)
    }

    /// Begins a commit if one is due, and returns whether it did.
    #[must_use]
    pub fn begin(&mut self, now: Instant) -> bool {
        let is_due = self.due_at().is_some_and(|at| at <= now);
        if is_due {
            *self = Self { is_running: true, ..Self::default() };
        }
        is_due
    }

    /// Ends the commit; one that failed is tried again an interval later.
    pub fn end(&mut self, now: Instant, is_durable: bool) {
        self.is_running = false;
        if !is_durable {
            self.due_at = Some(now + COMMIT_INTERVAL);
        }
    }

    /// Whether a commit is running.
    pub fn is_running(&self) -> bool {
        self.is_running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_follows_the_first_piece_by_two_seconds_or_32_mib_at_once() {
        let mut durability = Durability::default();
        let start = Instant::ZERO;
        assert!(durability.due_at().is_none() && !durability.begin(start));
        durability.written(start, 1 << 20, Duration::ZERO);
        durability.written(start + Duration::from_secs(1), 1 << 20, Duration::ZERO);
        assert_eq!(durability.due_at(), Some(start + Duration::from_secs(2)));
        durability.written(start + Duration::from_secs(1), 30 << 20, Duration::ZERO);
        assert!(durability.begin(start + Duration::from_secs(1)), "32 MiB");
        durability.written(start + Duration::from_secs(1), 64 << 20, Duration::ZERO);
        assert!(durability.due_at().is_none(), "one at a time");
        durability.end(start + Duration::from_secs(5), true);
        assert!(durability.begin(start + Duration::from_secs(5)), "what came meanwhile");
        durability.end(start + Duration::from_secs(5), true);
        durability.written(start + Duration::from_secs(6), 1, Duration::ZERO);
        durability.written(start + Duration::from_secs(6), 1, Duration::from_secs(1));
        assert_eq!(durability.due_at(), Some(start + Duration::from_secs(7)), "what came a second ago");
        assert!(durability.begin(start + Duration::from_secs(7)));
        durability.end(start + Duration::from_secs(8), false);
        assert_eq!(durability.due_at(), Some(start + Duration::from_secs(10)), "and again");
    }
}
