//! Telling a place of a disk that cannot be read from a disk that fails.
//!
//! A read that fails is tried again, as long as it takes: a disk may be away for a time. But when
//! the same block fails twice, and others of its torrent that lie on the disk too could be read in
//! between, it is the place that is bad, and whoever asks for it would hold up those who ask for
//! others for ever.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StorageError;
use crate::proto::block::Block;

/// Blocks remembered; beyond, the one that failed first is forgotten, and has to fail twice again.
const FAILED_MAX: usize = 1_024;

/// The blocks of one torrent that could not be read.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Reads that succeeded.
    good_count: u64,
    /// Those that failed, and how many reads had succeeded by then.
    failed: VecDeque<(Block, u64)>,
}

impl Unreadable {
    fn state(&self) -> MutexGuard<'_, State> {
        // Who died here left out a block at most.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block was read that was not in memory.
    pub(super) fn succeeded(&self, block: Block) {
        let mut state = self.state();
        state.good_count += 1;
        state.failed.retain(|&(known, _)| known != block);
    }

    /// A block could not be read. Whether that is for good: it was so before, and the disk has been
    /// well since.
    pub(super) fn failed(&self, block: Block) -> bool {
        let mut state = self.state();
        let good_count = state.good_count;
        let Some(at) = state.failed.iter().position(|&(known, _)| known == block) else {
            if state.failed.len() == FAILED_MAX {
                state.failed.pop_front();
            }
            state.failed.push_back((block, good_count));
            return false;
        };
        let is_for_good = state.failed[at].1 < good_count;
        if is_for_good {
            state.failed.remove(at);
        }
        is_for_good
    }
}

impl StorageError {
    /// The device says that it cannot do this; of what else may pass a piece is no cause.
    pub(in crate::storage) fn is_of_device(&self) -> bool {
        self.source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(piece: u32) -> Block {
        Block { piece, offset: 0, len: 1 }
    }

    #[test]
    fn a_disk_that_fails_altogether_has_no_bad_place() {
        let unreadable = Unreadable::default();
        unreadable.succeeded(block(0));
        assert!((0..10).all(|_| !unreadable.failed(block(1)) && !unreadable.failed(block(2))));
        unreadable.succeeded(block(2));
        assert!(unreadable.failed(block(1)) && !unreadable.failed(block(2)) && !unreadable.failed(block(3)));
        assert!(!unreadable.failed(block(1)), "it begins anew");
    }

    #[test]
    fn of_very_many_bad_places_the_oldest_are_forgotten() {
        let unreadable = Unreadable::default();
        assert!((0..=FAILED_MAX as u32).all(|piece| !unreadable.failed(block(piece))));
        unreadable.succeeded(block(5));
        assert!(unreadable.failed(block(1)) && !unreadable.failed(block(0)));
    }
}
