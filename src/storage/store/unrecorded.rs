//! Without a journal: what was written and is not durable yet, so that a sync that failed is not
//! believed afterwards.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{LostPiece, StorageError, Store};
use crate::proto::piece::PieceIndex;
use crate::storage::fs::FileSystem;
use crate::storage::journal::Kept;

/// What was written into one torrent of which no journal is kept.
#[derive(Debug, Default)]
pub(super) struct Unrecorded {
    state: Mutex<State>,
    /// Held to make things durable.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Pieces written since the last commit.
    written: Vec<Kept>,
    /// A sync failed since: the system may have forgotten that bytes of `written` are not on the
    /// disk.
    is_unsure: bool,
}

impl Unrecorded {
    fn state(&self) -> MutexGuard<'_, State> {
        // A piece is there or not.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece was written; `is_unsure`: and a sync failed that was to cover some of it.
    pub(super) fn add(&self, kept: Kept, is_unsure: bool) {
        let mut state = self.state();
        state.written.push(kept);
        state.is_unsure |= is_unsure;
    }

    /// Pieces turned out to be gone.
    pub(super) fn lose(&self, pieces: &[PieceIndex]) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.state().written.retain(|kept| !pieces.contains(&kept.piece));
    }
}

impl<F: FileSystem> Store<F> {
    /// Makes durable what was written. Pieces come back that the disk did not keep.
    pub(super) fn commit_unrecorded(&self) -> Result<Vec<LostPiece>, StorageError> {
        let _turn = self.unrecorded.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let State { written, is_unsure } = std::mem::take(&mut *self.unrecorded.state());
        let synced = self.sync_written(&written, is_unsure);
        let ((_, lost), _) = synced.inspect_err(|_| {
            let mut state = self.unrecorded.state();
            state.written.extend(&written);
            state.is_unsure = true;
        })?;
        Ok(lost)
    }
}
