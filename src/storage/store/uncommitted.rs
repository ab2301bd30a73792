//! The pieces that were written and are not durable yet, with a journal or without.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::proto::piece::PieceIndex;
use crate::storage::journal::Kept;

/// The writes that the next commit makes durable.
#[derive(Debug, Default)]
pub(super) struct UncommittedWrites {
    writes: Mutex<Writes>,
    /// Held for the whole of a commit, so that no caller takes for durable what another thread is
    /// still syncing.
    turn: Mutex<()>,
}

/// Pieces written since the last commit.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pub(super) pieces: Vec<Kept>,
    /// A sync failed since they were written: the system may have dropped their dirty pages.
    pub(super) is_unsure: bool,
}

impl Writes {
    /// Adds pieces to the next commit; `is_unsure` if a sync that should have covered some of their
    /// bytes failed.
    pub(super) fn add(&mut self, pieces: &[Kept], is_unsure: bool) {
        self.pieces.extend(pieces);
        self.is_unsure |= is_unsure;
    }

    /// Drops pieces that turned out to be lost.
    pub(super) fn remove(&mut self, pieces: &[PieceIndex]) {
        self.pieces.retain(|kept| !pieces.contains(&kept.piece));
    }
}

impl UncommittedWrites {
    pub(super) fn lock(&self) -> MutexGuard<'_, Writes> {
        // Each change is complete on its own, so a poisoned lock holds no broken state.
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other thread commits.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        // It guards no state: a thread that panicked while holding it left a commit undone.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the writes that a commit is about to make durable.
    pub(super) fn take(&self) -> Writes {
        std::mem::take(&mut *self.lock())
    }
}
