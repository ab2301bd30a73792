//! Checking content against its torrent on all cores, outside any swarm: for `verify`.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::proto::bitfield::Bitfield;
use crate::proto::metainfo::Info;
use crate::proto::piece::PieceIndex;
use crate::storage::content::{Content, StorageError};
use crate::storage::foreign::Misfit;
use crate::storage::fs::RealFs;
use crate::storage::handles::{HANDLE_MAX, Handles};
use crate::storage::hash;
use crate::storage::journals;
pub use crate::storage::report::{Condition, FileReport};
use crate::storage::store::Store;

/// What a check found.
#[derive(Debug)]
pub struct Verdict {
    /// The pieces that hash.
    pub good: Bitfield,
    /// Every file but pad files, in the torrent's order.
    pub files: Vec<FileReport>,
    /// Files that a download would not write, or would cut.
    pub misfits: Vec<Misfit>,
    /// The paths of files, by number, that lie under another one than the torrent's.
    pub other_names: BTreeMap<usize, String>,
}

/// What the threads find together.
struct Findings {
    good: Bitfield,
    /// Pieces that could not be read.
    unread: Bitfield,
    /// Why, the first error of each file.
    errors: BTreeMap<PathBuf, StorageError>,
}

/// The length of each file of `info` below `dir`, in their order; None: not there, or a pad file. Nothing is read.
///
/// # Errors
/// There is no folder `dir`, or it may not be entered; or something else stands in the place of a file.
pub fn lengths(info: &Info, dir: &Path, follow_links: bool) -> Result<Vec<Option<u64>>, StorageError> {
    let content = open(info, dir, follow_links, &Handles::new(HANDLE_MAX))?;
    let len = |number| Ok(content.stamp(number)?.map(|stamp| stamp.len));
    (0..info.files.len()).map(len).collect()
}

/// The content, under the names that it has there.
fn open(
    info: &Info,
    dir: &Path,
    follow_links: bool,
    handles: &Arc<Handles>,
) -> Result<Content<RealFs>, StorageError> {
    let fs = RealFs::open(dir, handles)?.following_links(follow_links);
    let content = Content::new(info.clone(), Vec::new(), fs);
    content.find_names();
    Ok(content)
}

/// Reads and hashes all content of `info` below `dir`, on as many threads as cores; blocks until done.
/// `progress` is told the bytes of files looked at so far, from any of the threads. The journals below `resume_dir`
/// tell which files a download began.
///
/// # Errors
/// There is no folder `dir`, or it may not be entered.
pub fn verify(
    info: &Info,
    dir: &Path,
    follow_links: bool,
    resume_dir: Option<&Path>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Verdict, StorageError> {
    let handles = Handles::new(HANDLE_MAX);
    let store = Store::new(open(info, dir, follow_links, &handles)?);
    let journals = resume_dir.and_then(|dir| RealFs::open(dir, &handles).ok()).map(Arc::new);
    let journal = journals.map(|journals| journals::open_journal(journals, info, dir)).transpose();
    let begun = journal.and_then(|journal| store.begin(journal));
    let content = store.content();
    let Findings { good, unread, errors } = check(content, progress);
    // What cannot be looked at is reported for itself.
    let misfits = begun.and_then(|begun| content.misfits(&begun, &good)).unwrap_or_default();
    let files = content.report_with(&good, &unread, errors);
    let other_names = content.other_names().map(|(number, path)| (number, path.join("/"))).collect();
    Ok(Verdict { good, files, misfits, other_names })
}

fn check(content: &Content<RealFs>, progress: &(dyn Fn(u64) + Sync)) -> Findings {
    let geometry = content.info().geometry;
    let none = Bitfield::new(geometry.piece_count());
    let findings = Mutex::new(Findings { good: none.clone(), unread: none, errors: BTreeMap::new() });
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
            let checked = content.find_pieces(&pieces, &mut scratch);
            let mut findings = findings.lock().unwrap_or_else(PoisonError::into_inner);
            pieces.iter().zip(checked).for_each(|(&piece, checked)| findings.add(piece, checked));
            drop(findings);
            let len = pieces.iter().map(|&piece| content.content_len_of(piece)).sum();
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
    findings.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Findings {
    fn add(&mut self, piece: PieceIndex, checked: Result<bool, StorageError>) {
        match checked {
            Ok(true) => {
                self.good.set(piece);
            }
            Ok(false) => {}
            Err(error) => {
                self.unread.set(piece);
                self.errors.entry(error.path.clone()).or_insert(error);
            }
        }
    }
}
