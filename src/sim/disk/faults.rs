//! What goes wrong on a simulated disk, and when.

use std::ops::Range;

use rustix::io::Errno;

/// Which calls fail, and how.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The machine goes down in the middle of this call, counted from 1.
    pub cut_at: Option<u64>,
    /// Bytes that all files together may have, in whole sectors, and when; more is `ENOSPC`, after
    /// as much as fits.
    pub space: Option<(u64, When)>,
    /// What else fails.
    pub failing: Option<(When, Failure)>,
}

/// A span in a disk's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// Calls that change something, counted from 1.
    Calls(Range<u64>),
    /// By the wall clock of the file system, microseconds since 1970.
    Time(Range<u64>),
}

/// How calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Calls that change something do nothing.
    Refused(Errno),
    /// Writes take some of their bytes, then fail.
    Short(Errno),
    /// Syncs fail, and what they should have written counts as written from then on although some
    /// of it is not: no later sync writes it. Programs still see it, or see what was there before:
    /// `forgets`.
    Unsynced {
        /// What the sync says.
        error: Errno,
        /// Whether what was not written is gone for programs too.
        forgets: bool,
    },
    /// Reads fail.
    Unread(Errno),
    /// Every call ends only when the span of time is over, and then well.
    Stalled,
}

impl When {
    /// Whether it is now, after so many calls at this time.
    pub(super) fn is_now(&self, call_count: u64, micros: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Calls(calls) => calls.contains(&call_count),
            Self::Time(time) => time.contains(&micros),
        }
    }
}
