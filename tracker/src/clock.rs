//! The tracker's only clock: monotonic, so that a step of the wall clock expires no peers.

use sprat::proto::time::{Duration, Instant};

/// Maps the monotonic clock to the machines' time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started_at: std::time::Instant,
}

impl Clock {
    /// Starts the clock at zero.
    #[expect(clippy::disallowed_methods, reason = "this is the shell's one clock")]
    pub(crate) fn start() -> Self {
        Self { started_at: std::time::Instant::now() }
    }

    /// Returns the time since the start.
    pub(crate) fn now(&self) -> Instant {
        Instant::ZERO + self.uptime()
    }

    /// Returns how long the tracker has been running.
    pub(crate) fn uptime(&self) -> Duration {
        self.started_at.elapsed()
    }
}
