//! Checking content against its torrent on all cores, outside any swarm: for `verify`.

use std::num::NonZero;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::proto::bitfield::Bitfield;
use crate::proto::metainfo::Info;
use crate::storage::content::{Content, StorageError};
use crate::storage::fs::RealFs;
use crate::storage::handles::{HANDLE_MAX, Handles};
use crate::storage::hash;
pub use crate::storage::report::{Condition, FileReport};

/// What a check found.
#[derive(Debug)]
pub struct Verdict {
    /// The pieces that hash.
    pub good: Bitfield,
    /// Every file but pad files, in the torrent's order.
    pub files: Vec<FileReport>,
}

/// Reads and hashes all content of `info` below `dir`, on as many threads as cores; blocks until done.
/// `progress` is told the bytes looked at so far, from any of the threads. What cannot be read is not good.
///
/// # Errors
/// There is no folder `dir`, or it may not be entered.
pub fn verify(info: &Info, dir: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<Verdict, StorageError> {
    let fs = RealFs::open(dir, &Handles::new(HANDLE_MAX))?;
    let content = Content::new(info.clone(), Vec::new(), fs);
    let geometry = info.geometry;
    let good = Mutex::new(Bitfield::new(geometry.piece_count()));
    let (next, checked_len) = (AtomicU32::new(0), AtomicU64::new(0));
    let check = || {
        let mut scratch = Vec::new();
        let count = hash::side_by_side() as u32;
        loop {
            let first = next.fetch_add(count, Ordering::Relaxed);
            let end = first.saturating_add(count).min(geometry.piece_count());
            let pieces: Vec<_> = (first..end).collect();
            if pieces.is_empty() {
                return;
            }
            let checked = content.check_pieces(&pieces, &mut scratch);
            for (piece, _) in pieces.iter().zip(checked).filter(|(_, checked)| matches!(checked, Ok(true))) {
                good.lock().unwrap_or_else(PoisonError::into_inner).set(*piece);
            }
            let len = pieces.iter().map(|piece| u64::from(geometry.len_of(*piece))).sum();
            progress(checked_len.fetch_add(len, Ordering::Relaxed) + len);
        }
    };
    let thread_count = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 1..thread_count {
            // If the system allows no more threads, those that run do it all.
            let _ = std::thread::Builder::new().spawn_scoped(scope, check);
        }
        check();
    });
    let good = good.into_inner().unwrap_or_else(PoisonError::into_inner);
    let files = content.report(&good);
    Ok(Verdict { good, files })
}
