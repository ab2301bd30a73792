//! Checking content against its torrent on all cores, outside any swarm: for `verify`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::proto::bitfield::Bitfield;
use crate::proto::metainfo::Info;
use crate::proto::piece::PieceIndex;
use crate::storage::content::{Content, StorageError};
use crate::storage::foreign::Misfit;
use crate::storage::fs::RealFs;
use crate::storage::handles::{HANDLE_MAX, Handles};
use crate::storage::journals;
pub use crate::storage::report::{Condition, FileReport};
use crate::storage::store::Store;
use crate::storage::sweep::{Sweep, core_count, cut_count, on_threads};

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

/// The length of each file of `info` below `dir`, in their order; None: not there, or a pad file.
/// Nothing is read.
///
/// # Errors
/// There is no folder `dir`, or it may not be entered; or something else stands in the place of a
/// file.
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

/// Reads and hashes all content of `info` below `dir`, on as many threads as cores; blocks until
/// done. `progress` is told the bytes of files looked at so far, from any of the threads. The
/// journals below `resume_dir` tell which files a download began.
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
    let found = Findings { good: none.clone(), unread: none, errors: BTreeMap::new() };
    let cut_count = cut_count(geometry.piece_len(), 0, u32::MAX);
    let sweep = Sweep::new((0..geometry.piece_count()).collect(), cut_count, found);
    let checked_len = AtomicU64::new(0);
    let check = || {
        let mut scratch = Vec::new();
        let mut find = |pieces: &[PieceIndex]| {
            let checked = content.find_pieces(pieces, &mut scratch);
            (checked, pieces.iter().map(|&piece| content.content_len_of(piece)).sum::<u64>())
        };
        let record = |found: &mut Findings, pieces: &[PieceIndex], (checked, len): (Vec<_>, u64)| {
            pieces.iter().zip(checked).for_each(|(&piece, checked)| found.add(piece, checked));
            progress(checked_len.fetch_add(len, Ordering::Relaxed) + len);
            true
        };
        while sweep.cut(&mut find, record) {}
    };
    if on_threads(core_count(), check).is_err() {
        // The system allows no more threads: this one does it all.
        check();
    }
    sweep.into_found()
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
