//! Hashes many pieces of a torrent on many threads: distributes the pieces and collects the
//! results. The disk threads (`disk`), `sprat verify` and `sprat create` (`make`) all hash this
//! way.

use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::hash;
use crate::proto::piece::PieceIndex;

/// The pieces to hash, and the results so far.
#[derive(Debug)]
pub struct Sweep<S> {
    /// Ascending.
    pieces: Vec<PieceIndex>,
    /// Pieces that a thread takes at a time.
    cut: u64,
    /// The first index in `pieces` that no thread has taken; the length of `pieces` when none is
    /// left.
    next: AtomicU64,
    found: Mutex<S>,
}

/// Returns how many pieces a thread takes at a time: about `len` bytes, or as many as are hashed
/// side by side if these are not more than `len_max` bytes; at least one.
pub fn cut_count(piece_len: u32, len: u32, len_max: u32) -> u32 {
    let fitting = |len: u32| len / piece_len;
    let side_by_side = fitting(len_max).min(hash::side_by_side() as u32);
    fitting(len).max(side_by_side).max(1)
}

impl<S> Sweep<S> {
    /// Creates a sweep in which nothing is hashed yet.
    pub fn new(pieces: Vec<PieceIndex>, cut_count: u32, found: S) -> Self {
        Self { pieces, cut: u64::from(cut_count), next: AtomicU64::new(0), found: Mutex::new(found) }
    }

    /// Hashes the next few pieces with `hash` and passes the result to `record`, from one thread at
    /// a time, which returns whether to continue. Returns false when no pieces are left.
    pub fn cut<R>(
        &self,
        hash: impl FnOnce(&[PieceIndex]) -> R,
        record: impl FnOnce(&mut S, &[PieceIndex], R) -> bool,
    ) -> bool {
        let first = self.next.fetch_add(self.cut, Ordering::Relaxed);
        let end = first.saturating_add(self.cut).min(self.pieces.len() as u64);
        if first >= end {
            return false;
        }
        let pieces = &self.pieces[first as usize..end as usize];
        let hashed = hash(pieces);
        if !record(&mut self.found(), pieces, hashed) {
            self.next.store(self.pieces.len() as u64, Ordering::Relaxed);
        }
        true
    }

    /// Returns what was found so far.
    pub fn found(&self) -> MutexGuard<'_, S> {
        // Each record leaves it consistent.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what was found.
    pub fn into_found(self) -> S {
        self.found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `run` on `thread_count` threads, or on as many as the system allows, and waits for all.
///
/// # Errors
/// The system allows none.
pub fn on_threads(thread_count: usize, run: impl Fn() + Sync) -> io::Result<()> {
    std::thread::scope(|scope| {
        for number in 0..thread_count.max(1) {
            match std::thread::Builder::new().spawn_scoped(scope, &run) {
                Ok(_) => {}
                Err(error) if number == 0 => return Err(error),
                // The running threads do all the work.
                Err(_) => break,
            }
        }
        Ok(())
    })
}

/// Returns the number of cores, or an assumption if it is unknown.
pub fn core_count() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_hashed_once_whatever_the_number_of_threads() {
        for (thread_count, cut) in [(1, 1), (3, 7), (8, 1_000)] {
            let sweep = Sweep::new((10..500).collect(), cut, Vec::new());
            let record = |found: &mut Vec<PieceIndex>, pieces: &[PieceIndex], hashed: usize| {
                assert_eq!(hashed, pieces.len());
                found.extend(pieces);
                true
            };
            on_threads(thread_count, || while sweep.cut(<[PieceIndex]>::len, record) {}).unwrap();
            let mut found = sweep.into_found();
            found.sort_unstable();
            assert_eq!(found, (10..500).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_record_that_returns_false_ends_its_thread() {
        let sweep = Sweep::new((0..500).collect(), 10, 0);
        let record = |count: &mut usize, pieces: &[PieceIndex], (): ()| {
            *count += pieces.len();
            false
        };
        while sweep.cut(|_| (), record) {}
        assert_eq!(*sweep.found(), 10);
    }

    #[test]
    fn a_cut_has_the_pieces_that_fit_and_at_least_one() {
        assert_eq!(cut_count(1 << 20, 8 << 20, 8 << 20), 8);
        assert_eq!(cut_count(1 << 30, 8 << 20, 8 << 20), 1);
        assert!(cut_count(1 << 23, 8 << 20, 128 << 20) as usize >= hash::side_by_side().min(16));
    }
}
