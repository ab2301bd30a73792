//! Where there are no vectors that hash side by side: all is left to the `sha1` crate, which uses
//! the SHA instructions of AArch64. The same face as on x86-64.

use super::{LANE_MAX, Row, State};

/// None.
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
