//! The tracker's one clock: monotonic, so that a step of the wall clock expires nobody.

use sprat::proto::time::{Duration, Instant};

/// Maps the monotonic clock to the machines' time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started_at: std::time::Instant,
}

impl Clock {
    /// Time starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the shell's one clock")]
    pub(crate) fn start() -> Self {
        Self { started_at: std::time::Instant::now() }
    }

    /// The time.
    pub(crate) fn now(&self) -> Instant {
        Instant::ZERO + self.uptime()
    }

    /// Time since the start.
    pub(crate) fn uptime(&self) -> Duration {
        self.started_at.elapsed()
    }
}
