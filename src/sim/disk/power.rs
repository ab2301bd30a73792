//! The power of a simulated machine.

use std::io;

/// Whether the power goes out in the middle of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    On,
    GoesOut,
}

impl Power {
    pub(super) fn outcome(self) -> io::Result<()> {
        match self {
            Self::On => Ok(()),
            Self::GoesOut => Err(power_is_out()),
        }
    }
}

pub(super) fn power_is_out() -> io::Error {
    io::Error::other("the power is out")
}
