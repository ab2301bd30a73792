//! The counterpart of `x86` where no vectors hash side by side: the `sha1` crate does everything,
//! and uses the SHA instructions of AArch64.

use super::{LANE_MAX, Row, State};

/// No vectors.
#[derive(Clone, Copy, Debug)]
pub(super) enum Vectors {}

impl Vectors {
    pub(super) fn available() -> impl Iterator<Item = Self> {
        std::iter::empty()
    }

    pub(super) fn name(self) -> &'static str {
        match self {}
    }

    pub(super) fn lanes(self) -> usize {
        match self {}
    }

    pub(super) fn compress(self, _state: &mut State, _rows: &[Row<'_>; LANE_MAX]) {
        match self {}
    }
}
