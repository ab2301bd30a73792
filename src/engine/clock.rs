//! The engine's one clock: maps the monotonic clock of the system to the virtual time of `proto`.
//!
//! Every machine of one engine sees the same start. Knows nothing of calendars.

use crate::proto::time::{Duration, Instant};

/// The start that all instants of an engine count from. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "the engine's one clock")]
    pub(crate) fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// The present.
    #[expect(clippy::disallowed_methods, reason = "the engine's one clock")]
    pub(crate) fn now(self) -> Instant {
        let micros = std::time::Instant::now().duration_since(self.start).as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// The same instant for tokio's timers; what is beyond its range is a year away.
    pub(crate) fn timer(self, at: Instant) -> tokio::time::Instant {
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        let since_start = Duration::from_micros(at.as_micros());
        let at = self.start.checked_add(since_start).or_else(|| self.start.checked_add(FAR));
        tokio::time::Instant::from_std(at.unwrap_or(self.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_and_machines_agree_and_the_end_of_time_is_no_panic() {
        let clock = Clock::start();
        let now = clock.now();
        let later = now + Duration::from_secs(3);
        assert_eq!(clock.timer(later) - clock.timer(now), Duration::from_secs(3));
        assert!(clock.timer(Instant::from_micros(u64::MAX)) > clock.timer(later));
    }
}
