//! Distinguishes a bad place of a disk from a disk that fails altogether.
//!
//! A failed read is tried again for as long as it takes, because a disk may be away for a time. But
//! if the same block fails twice, and other blocks of the torrent were read from the disk in
//! between, the place is bad, and requests for this block would delay all other requests without
//! end.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StorageError;
use crate::proto::block::Block;

/// Most blocks remembered; beyond that the one that failed first is forgotten and must fail twice
/// again.
const FAILED_MAX: usize = 1_024;

/// The blocks of one torrent that could not be read.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    /// Allocated by the first read that fails.
    state: Mutex<Option<Box<State>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Reads that succeeded since the first one failed.
    good_count: u64,
    /// Blocks that failed, each with the number of successful reads at that time.
    failed: VecDeque<(Block, u64)>,
}

impl Unreadable {
    fn state(&self) -> MutexGuard<'_, Option<Box<State>>> {
        // A thread that panicked here lost one block at most.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a block was read from the disk.
    pub(super) fn succeeded(&self, block: Block) {
        if let Some(state) = &mut *self.state() {
            state.good_count += 1;
            state.failed.retain(|&(known, _)| known != block);
        }
    }

    /// Notes that a block could not be read. Returns whether it failed before and other reads have
    /// succeeded since.
    pub(super) fn failed(&self, block: Block) -> bool {
        let mut state = self.state();
        let state = state.get_or_insert_default();
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
    /// Whether the device reported the error; other errors that may clear are not caused by one
    /// block.
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
    fn a_disk_that_fails_altogether_has_no_bad_sector() {
        let unreadable = Unreadable::default();
        unreadable.succeeded(block(0));
        assert!((0..10).all(|_| !unreadable.failed(block(1)) && !unreadable.failed(block(2))));
        unreadable.succeeded(block(2));
        assert!(unreadable.failed(block(1)) && !unreadable.failed(block(2)) && !unreadable.failed(block(3)));
        assert!(!unreadable.failed(block(1)), "it begins anew");
    }

    #[test]
    fn beyond_the_limit_the_oldest_bad_blocks_are_forgotten() {
        let unreadable = Unreadable::default();
        assert!((0..=FAILED_MAX as u32).all(|piece| !unreadable.failed(block(piece))));
        unreadable.succeeded(block(5));
        assert!(unreadable.failed(block(1)) && !unreadable.failed(block(0)));
    }
}
