//! The command line's one clock: for what is shown to people and written into new torrents.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "the command line's only monotonic clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970, for a torrent's creation date.
#[expect(clippy::disallowed_methods, reason = "a date in a file is the one use of the calendar")]
pub(crate) fn unix_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
