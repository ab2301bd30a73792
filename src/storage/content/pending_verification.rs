//! The pieces that must be hashed before they are uploaded or counted as present.
//!
//! A piece becomes pending when a change of its file is noticed, and stays so until a check (a hash
//! or a write of the piece) that began later succeeds. A check that was running when the change was
//! noticed does not count, because it may have read the old bytes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::proto::bitfield::Bitfield;
use crate::proto::piece::PieceIndex;

/// The pieces of one torrent that are pending verification. Allocates nothing before the first
/// such piece or the first write.
#[derive(Debug, Default)]
pub(super) struct PendingVerification {
    state: Mutex<Option<Box<State>>>,
}

#[derive(Debug, Default)]
struct State {
    pieces: Option<Bitfield>,
    /// Running checks whose pieces have not become pending again since they began.
    checks: Vec<(Check, PieceIndex)>,
    check_count: u64,
}

/// A running check of a piece, which [`PendingVerification::end`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Check(u64);

impl PendingVerification {
    fn state(&self) -> MutexGuard<'_, Option<Box<State>>> {
        // Each change is complete on its own.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks pieces as pending; running checks of them no longer count.
    pub(super) fn add(&self, piece_count: u32, added: impl Iterator<Item = PieceIndex>) {
        let mut state = self.state();
        let State { pieces, checks, .. } = &mut **state.get_or_insert_default();
        let pieces = pieces.get_or_insert_with(|| Bitfield::new(piece_count));
        added.for_each(|piece| {
            pieces.set(piece);
            checks.retain(|&(_, checked)| checked != piece);
        });
    }

    /// Begins a check: a thread is about to hash the piece or to write it.
    pub(super) fn begin(&self, piece: PieceIndex) -> Check {
        let mut state = self.state();
        let State { checks, check_count, .. } = &mut **state.get_or_insert_default();
        *check_count += 1;
        let check = Check(*check_count);
        checks.push((check, piece));
        check
    }

    /// Ends a check with its result.
    pub(super) fn end(&self, check: Check, is_good: bool) {
        let mut state = self.state();
        let Some(State { pieces, checks, .. }) = state.as_deref_mut() else { return };
        let Some(at) = checks.iter().position(|&(known, _)| known == check) else { return };
        let (_, piece) = checks.swap_remove(at);
        if let Some(pieces) = pieces.as_mut().filter(|_| is_good) {
            pieces.clear(piece);
        }
    }

    /// Whether the piece is pending. Callers ask once more after they took the stamps of its files:
    /// a thread that notices a change marks the pieces before it accepts the new stamp.
    pub(super) fn contains(&self, piece: PieceIndex) -> bool {
        self.any(std::iter::once(piece))
    }

    /// Whether any of these pieces is pending.
    pub(super) fn any(&self, mut pieces: impl Iterator<Item = PieceIndex>) -> bool {
        let state = self.state();
        let pending = state.as_ref().and_then(|state| state.pieces.as_ref());
        pending.is_some_and(|pending| pieces.any(|piece| pending.get(piece)))
    }

    /// Returns those of these pieces that are pending.
    pub(super) fn among(&self, pieces: &Bitfield) -> Vec<PieceIndex> {
        let state = self.state();
        let pending = state.as_ref().and_then(|state| state.pieces.as_ref());
        pending.map_or_else(Vec::new, |all| all.iter_set().filter(|&piece| pieces.get(piece)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_during_a_check_requires_another_check() {
        let pending = PendingVerification::default();
        pending.add(9, 2..5);
        let [first, other] = [3, 4].map(|piece| pending.begin(piece));
        pending.add(9, std::iter::once(3));
        let second = pending.begin(3);
        pending.end(first, true);
        pending.end(other, true);
        assert!(
            pending.contains(3) && !pending.contains(4),
            "the first check began before the second change"
        );
        pending.end(second, false);
        assert!(pending.contains(3));
        let third = pending.begin(3);
        pending.end(third, true);
        assert_eq!(pending.among(&Bitfield::full(9)), [2]);
        assert!(pending.any(0..3) && !pending.any(3..9));
    }
}
