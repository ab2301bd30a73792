//! Which pieces are to be hashed before anything is said of them.
//!
//! A piece is suspect from when somebody noticed a change of its file until it was hashed, or
//! written, by somebody who began after that: what was noticed while a piece was read is not
//! answered by what was read.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::proto::bitfield::Bitfield;
use crate::proto::piece::PieceIndex;

/// The suspect pieces of one torrent, which are to be rechecked; nothing is held until there is
/// one, or one is written.
#[derive(Debug, Default)]
pub(super) struct Rechecks {
    state: Mutex<Option<Box<State>>>,
}

#[derive(Debug, Default)]
struct State {
    pieces: Option<Bitfield>,
    /// Pieces that somebody makes sure of, unless they became suspect since that began.
    checks: Vec<(Check, PieceIndex)>,
    check_count: u64,
}

/// Somebody makes sure of a piece; to be [ended](Rechecks::end).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Check(u64);

impl Rechecks {
    fn state(&self) -> MutexGuard<'_, Option<Box<State>>> {
        // Bits are set and cleared one by one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are suspect, whatever is found out about them by who has begun to.
    pub(super) fn add(&self, piece_count: u32, suspects: impl Iterator<Item = PieceIndex>) {
        let mut state = self.state();
        let State { pieces, checks, .. } = &mut **state.get_or_insert_default();
        let pieces = pieces.get_or_insert_with(|| Bitfield::new(piece_count));
        suspects.for_each(|piece| {
            pieces.set(piece);
            checks.retain(|&(_, checked)| checked != piece);
        });
    }

    /// Somebody is about to hash the piece, or to write it.
    pub(super) fn begin(&self, piece: PieceIndex) -> Check {
        let mut state = self.state();
        let State { checks, check_count, .. } = &mut **state.get_or_insert_default();
        *check_count += 1;
        let check = Check(*check_count);
        checks.push((check, piece));
        check
    }

    /// It is hashed or written, and good or not.
    pub(super) fn end(&self, check: Check, is_good: bool) {
        let mut state = self.state();
        let Some(State { pieces, checks, .. }) = state.as_deref_mut() else { return };
        let Some(at) = checks.iter().position(|&(known, _)| known == check) else { return };
        let (_, piece) = checks.swap_remove(at);
        if let Some(pieces) = pieces.as_mut().filter(|_| is_good) {
            pieces.clear(piece);
        }
    }

    /// Whether the piece is to be hashed first. To be asked once more after the files were looked
    /// at: who notices a change says so here before the file counts as it looks now.
    pub(super) fn contains(&self, piece: PieceIndex) -> bool {
        self.any(std::iter::once(piece))
    }

    /// Whether any of these is.
    pub(super) fn any(&self, mut pieces: impl Iterator<Item = PieceIndex>) -> bool {
        let state = self.state();
        let suspects = state.as_ref().and_then(|state| state.pieces.as_ref());
        suspects.is_some_and(|suspects| pieces.any(|piece| suspects.get(piece)))
    }

    /// Those of these pieces that are.
    pub(super) fn among(&self, pieces: &Bitfield) -> Vec<PieceIndex> {
        let state = self.state();
        let suspects = state.as_ref().and_then(|state| state.pieces.as_ref());
        suspects.map_or_else(Vec::new, |all| all.iter_set().filter(|&piece| pieces.get(piece)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_suspect_while_it_was_hashed_is_hashed_again() {
        let rechecks = Rechecks::default();
        rechecks.add(9, 2..5);
        let [first, other] = [3, 4].map(|piece| rechecks.begin(piece));
        rechecks.add(9, std::iter::once(3));
        let second = rechecks.begin(3);
        rechecks.end(first, true);
        rechecks.end(other, true);
        assert!(rechecks.contains(3) && !rechecks.contains(4), "the first began before");
        rechecks.end(second, false);
        assert!(rechecks.contains(3));
        let third = rechecks.begin(3);
        rechecks.end(third, true);
        assert_eq!(rechecks.among(&Bitfield::full(9)), [2]);
        assert!(rechecks.any(0..3) && !rechecks.any(3..9));
    }
}
