//! The command line's one clock: for what is shown to people and written into new torrents.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "the command line's only monotonic clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The calendar, for what is compared with the times of files.
#[expect(clippy::disallowed_methods, reason = "the command line's only calendar")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970, for a torrent's creation date.
pub(crate) fn unix_seconds() -> i64 {
    wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
