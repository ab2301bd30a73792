//! Notices changes that other programs make to a torrent's files, before a block is uploaded.
//!
//! For each file the stamp is known that it had when its bytes were last hashed or durable. A block
//! is read first and the stamp taken afterwards, because a write during the read shows only then (a
//! file system sets the times before it takes the bytes). If the stamp differs, all pieces of the
//! file become pending verification: each is hashed again before a block of it is uploaded, and
//! before a download counts as complete. While any piece is pending, the stamp proves nothing, and
//! the journal records none.
//!
//! While this program writes a file, the stamp changes all the time, so only the receivers notice
//! what other programs write into it. A deleted or replaced file is noticed even then, because our
//! writes never change the inode.
//!
//! Writes through a memory map are noticed only at the first touch of a page; later ones change no
//! times.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Content, StorageError, Written, pieces_of};
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::piece::PieceIndex;
use crate::storage::fs::{FileSystem, Stamp};
use crate::storage::span::spans;

/// Most attempts to read a piece whose file changes meanwhile, before the piece counts as lost.
const ATTEMPT_MAX: usize = 3;

/// The expected stamp of a file, and the changes to it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: Seen,
    /// Writes of this program that have begun.
    begun_count: u64,
    /// Of these, the writes that have not ended.
    running_count: u32,
    /// Value of `begun_count` at the last look; if it is lower than now, the stamp differs because
    /// of this program.
    seen_count: u64,
    /// Sequence number, among all changes of the torrent's files by other programs, of the last
    /// change to this one; 0 if none.
    changed: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    /// No look yet.
    #[default]
    Never,
    /// The file was missing.
    Gone,
    /// The file had this stamp.
    As(Stamp),
}

impl From<Option<Stamp>> for Seen {
    fn from(stamp: Option<Stamp>) -> Self {
        stamp.map_or(Self::Gone, Self::As)
    }
}

impl Seen {
    /// Whether the file that was seen has been removed or replaced.
    fn is_another(self, stamp: Option<Stamp>) -> bool {
        matches!(self, Self::As(seen) if stamp.is_none_or(|stamp| stamp.inode != seen.inode))
    }
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one or two assignments, so a thread that panicked here left no broken
        // state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a write of this program begins.
    pub(super) fn begin(&self) {
        let mut state = self.state();
        state.begun_count += 1;
        state.running_count += 1;
    }

    /// Notes that a write of this program ended.
    pub(super) fn end(&self) {
        self.state().running_count -= 1;
    }

    /// The number of writes of this program that have begun; read before the stamp is taken.
    pub(super) fn begun_count(&self) -> u64 {
        self.state().begun_count
    }

    /// Accepts a stamp because the bytes are known or marked as pending; `begun_count` is from
    /// before the stamp was taken.
    fn see(&self, begun_count: u64, stamp: Option<Stamp>) {
        let mut state = self.state();
        if state.begun_count == begun_count && state.running_count == 0 {
            state.seen = stamp.into();
            state.seen_count = begun_count;
        } else if state.seen_count != state.begun_count {
            // A write is running: only the inode is known.
            state.seen = stamp.into();
        }
    }

    /// Accepts the stamp of the file that a running write goes to. Returns whether it is the file
    /// that was seen before, or the first.
    pub(super) fn write_into(&self, stamp: Stamp) -> bool {
        let mut state = self.state();
        let is_another = state.seen.is_another(Some(stamp));
        state.seen = Seen::As(stamp);
        !is_another
    }

    /// Sequence number of the last change by another program; 0 if none.
    fn changed(&self) -> u32 {
        self.state().changed
    }

    /// The expected stamp; outer `None` if it is unknown or this program is writing the file.
    fn seen(&self) -> Option<Option<Stamp>> {
        let state = self.state();
        match state.seen {
            _ if state.seen_count != state.begun_count => None,
            Seen::Never => None,
            Seen::Gone => Some(None),
            Seen::As(stamp) => Some(Some(stamp)),
        }
    }

    /// Whether the file has the expected stamp. The stamp of a file that was never looked at
    /// becomes the expected one.
    pub(super) fn is_as_seen(&self, begun_count: u64, stamp: Option<Stamp>) -> bool {
        let mut state = self.state();
        if state.seen.is_another(stamp) {
            return false;
        }
        if state.begun_count != begun_count || state.seen_count != begun_count || state.running_count > 0 {
            return true;
        }
        if state.seen == Seen::Never {
            state.seen = stamp.into();
        }
        state.seen == stamp.into()
    }
}

/// A piece that can no longer be uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPiece {
    /// The piece.
    pub piece: PieceIndex,
    /// The file with the fault.
    pub path: PathBuf,
    /// The fault, in the words of the system.
    pub why: String,
}

impl<F: FileSystem> Content<F> {
    /// Takes the stamp of a file, by number (the parts file comes after the last), and expects it
    /// from now on. If another one was expected, the pieces of the file become pending
    /// verification.
    ///
    /// # Errors
    /// Something else stands in the place of the file.
    pub fn look(&self, number: usize) -> Result<Option<Stamp>, StorageError> {
        let Some(Written { watch, .. }) = self.written.get(number) else { return Ok(None) };
        let begun_count = watch.begun_count();
        let stamp = self.stamp(number)?;
        if watch.is_as_seen(begun_count, stamp) {
            watch.see(begun_count, stamp);
        } else {
            self.mark_unverified(number);
        }
        Ok(stamp)
    }

    /// Takes the stamp of a file that existed before; if something else stands in its place, its
    /// pieces become pending verification as well.
    ///
    /// # Errors
    /// The disk has a fault that may clear.
    pub(super) fn look_again(&self, number: usize) -> Result<Option<Stamp>, StorageError> {
        match self.look(number) {
            Err(error) if !error.may_pass() => {
                self.mark_unverified(number);
                Ok(None)
            }
            looked => looked,
        }
    }

    /// Returns the stamp of a file as of when its bytes were last known; `None` if it is missing.
    ///
    /// # Errors
    /// The file was not looked at, or was written since, and its stamp cannot be taken now.
    pub(in crate::storage) fn last_look(&self, number: usize) -> Result<Option<Stamp>, StorageError> {
        match self.written.get(number).and_then(|written| written.watch.seen()) {
            Some(stamp) => Ok(stamp),
            None => self.look(number),
        }
    }

    /// Reads blocks for upload, each into its buffer of the block's length, and verifies their
    /// pieces if a file has changed. Returns the pieces that are lost: changed, or unreadable while
    /// others can be read; if there are any, no buffer may be used.
    ///
    /// # Errors
    /// A block is not within its piece, or the disk has a fault that may clear.
    pub fn read_blocks<B: AsMut<[u8]>>(
        &self,
        blocks: &mut [(Block, B)],
        scratch: &mut Vec<u8>,
    ) -> Result<Vec<LostPiece>, StorageError> {
        match self.read_sure(blocks, scratch) {
            Ok(lost) => Ok(lost),
            Err((block, error)) if error.is_of_device() && self.unreadable.failed(block) => {
                let StorageError { path, source } = error;
                Ok(vec![LostPiece { piece: block.piece, path, why: source.to_string() }])
            }
            Err((_, error)) => Err(error),
        }
    }

    /// Does the work of [`Content::read_blocks`]; an error comes with the block that could not be
    /// read.
    fn read_sure<B: AsMut<[u8]>>(
        &self,
        blocks: &mut [(Block, B)],
        scratch: &mut Vec<u8>,
    ) -> Result<Vec<LostPiece>, (Block, StorageError)> {
        let mut unverified = self.read_once(blocks)?;
        for _ in 1..ATTEMPT_MAX {
            if unverified.is_empty() {
                return Ok(Vec::new());
            }
            self.fs.close();
            let mut lost = Vec::new();
            for piece in unverified.drain(..) {
                lost.extend(self.examine(piece, scratch).map_err(|error| (self.whole(piece), error))?);
            }
            if !lost.is_empty() {
                return Ok(lost);
            }
            unverified = self.read_once(blocks)?;
        }
        Ok(unverified.into_iter().map(|piece| self.changing(piece)).collect())
    }

    /// Returns those of these pieces that other programs have spoilt, whether noticed before or
    /// only now. Reads nothing of unchanged files without pending pieces.
    ///
    /// # Errors
    /// The disk has a fault that may clear.
    pub fn find_lost(&self, have: &Bitfield) -> Result<Vec<LostPiece>, StorageError> {
        for number in 0..=self.info.files.len() {
            self.look_again(number)?;
        }
        let mut scratch = Vec::new();
        let examine = |piece| self.examine(piece, &mut scratch).transpose();
        self.unverified.among(have).into_iter().filter_map(examine).collect()
    }

    /// Reads all blocks, then takes the stamps of their files. Returns the pieces to verify.
    fn read_once<B: AsMut<[u8]>>(
        &self,
        blocks: &mut [(Block, B)],
    ) -> Result<Vec<PieceIndex>, (Block, StorageError)> {
        let mut unverified = BTreeSet::new();
        let mut counts = Vec::new();
        for (block, buffer) in &mut *blocks {
            for number in self.places_of(*block) {
                if !counts.iter().any(|&(known, _)| known == number) {
                    counts.push((number, self.written[number].watch.begun_count()));
                }
            }
            match self.read_block(*block, buffer.as_mut()) {
                Ok(()) if !self.unverified.contains(block.piece) => self.unreadable.succeeded(*block),
                Err(error) if error.may_pass() || error.is_misuse() => return Err((*block, error)),
                Ok(()) | Err(_) => {
                    unverified.insert(block.piece);
                }
            }
        }
        let changed: Vec<usize> = counts
            .into_iter()
            .filter(|&(number, count)| !self.is_as_seen(number, count))
            .map(|at| at.0)
            .collect();
        for &number in &changed {
            self.mark_unverified(number);
        }
        let touched = blocks.iter().filter(|(block, _)| self.unverified.contains(block.piece));
        unverified.extend(touched.map(|(block, _)| block.piece));
        Ok(unverified.into_iter().collect())
    }

    /// Whether the open file has the expected stamp; `false` if it cannot be opened.
    fn is_as_seen(&self, number: usize, begun_count: u64) -> bool {
        let stamp = self.fs.open_read(self.path_of(number)).and_then(|open| self.fs.stamp_of(&open));
        stamp.is_ok_and(|stamp| self.written[number].watch.is_as_seen(begun_count, Some(stamp)))
    }

    /// Marks all pieces of a changed file as pending verification. The file may have been replaced,
    /// so it is opened again for reading and for writing.
    pub(super) fn mark_unverified(&self, number: usize) {
        self.fs.close();
        let Written { watch, sized, .. } = &self.written[number];
        watch.state().changed = self.change_count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        sized.store(false, Ordering::Release);
        let begun_count = watch.begun_count();
        // The stamp is taken before the pieces are marked: a later change differs from it.
        let looked = self.stamp(number);
        self.unverified.add(self.info.geometry.piece_count(), self.pieces_in(number));
        // The stamp is accepted only after the pieces are marked. An obstacle in the place of the
        // file is reported by the next read.
        if let Ok(stamp) = looked {
            watch.see(begun_count, stamp);
        }
    }

    /// The pieces that lie, or may lie, in a file, by number.
    fn pieces_in(&self, number: usize) -> impl Iterator<Item = PieceIndex> {
        let (range, parts) = match self.info.files.get(number) {
            Some(file) => (pieces_of(file, self.info.geometry.piece_len()), &[][..]),
            None => (0..0, self.parts.as_ref().map_or(&[][..], |parts| &parts.pieces)),
        };
        range.chain(parts.iter().copied())
    }

    /// Whether another program changed a file, by number, and any of these pieces in it is pending
    /// verification; then its stamp proves nothing.
    pub(in crate::storage) fn has_unverified(&self, number: usize, pieces: &Bitfield) -> bool {
        let mut claimed = self.pieces_in(number).filter(|&piece| pieces.get(piece));
        let is_changed = self.written.get(number).is_some_and(|written| written.watch.changed() > 0);
        is_changed && self.unverified.any(&mut claimed)
    }

    /// Marks pieces as pending verification.
    pub(in crate::storage) fn mark_pieces_unverified(&self, pieces: impl Iterator<Item = PieceIndex>) {
        self.unverified.add(self.info.geometry.piece_count(), pieces);
    }

    /// Marks a piece that the disk lost after the write, and returns it with the reason.
    pub(in crate::storage) fn not_kept(&self, piece: PieceIndex) -> LostPiece {
        self.mark_pieces_unverified(std::iter::once(piece));
        let why = "the disk did not keep what was written".to_owned();
        LostPiece { piece, path: self.changed_path(piece), why }
    }

    /// Hashes a piece that was good before; `None` if it still is.
    fn examine(&self, piece: PieceIndex, scratch: &mut Vec<u8>) -> Result<Option<LostPiece>, StorageError> {
        for _ in 0..ATTEMPT_MAX {
            let check = self.unverified.begin(piece);
            let checked = self.check_piece(piece, scratch);
            self.unverified.end(check, matches!(checked, Ok(true)));
            let (path, why) = match checked {
                // It became pending again during the hash.
                Ok(true) if self.unverified.contains(piece) => continue,
                Ok(true) => return Ok(None),
                Ok(false) => (self.changed_path(piece), "changed since it was checked".to_owned()),
                Err(error) if error.may_pass() => return Err(error),
                Err(error) => (error.path, error.source.to_string()),
            };
            return Ok(Some(LostPiece { piece, path, why }));
        }
        Ok(Some(self.changing(piece)))
    }

    fn changing(&self, piece: PieceIndex) -> LostPiece {
        LostPiece { piece, path: self.changed_path(piece), why: "it keeps changing".to_owned() }
    }

    /// The files that hold the bytes of a block, by number.
    pub(super) fn places_of(&self, block: Block) -> impl Iterator<Item = usize> {
        self.places(block, self.is_in_parts(block.piece))
    }

    /// The files that hold the bytes of a block, by number; `in_parts` says whether the bytes of
    /// unselected files are in the parts file, which comes after the last.
    pub(in crate::storage) fn places(&self, block: Block, in_parts: bool) -> impl Iterator<Item = usize> {
        let start = self.info.geometry.offset_of(block.piece) + u64::from(block.offset);
        spans(&self.info.files, start, block.len as usize)
            .filter(|span| !self.info.files[span.file].attributes.pad)
            .map(move |span| {
                let apart = in_parts && !self.is_selected(span.file);
                if apart { self.info.files.len() } else { span.file }
            })
    }

    /// Returns a piece as one block.
    pub(in crate::storage) fn whole(&self, piece: PieceIndex) -> Block {
        Block { piece, offset: 0, len: self.info.geometry.len_of(piece) }
    }

    /// The file of a piece that another program changed, or the one in which the piece begins.
    fn changed_path(&self, piece: PieceIndex) -> PathBuf {
        let whole = self.whole(piece);
        // If several changed, the one that changed last: the piece was good after the earlier
        // changes.
        let changed = |number: usize| self.written[number].watch.changed();
        let last = self.places_of(whole).filter(|&at| changed(at) > 0).max_by_key(|&at| changed(at));
        let number = last.or_else(|| self.places_of(whole).next());
        let path = number.map_or(&[][..], |number| self.path_of(number));
        self.fs.full_path(path)
    }
}

impl StorageError {
    /// Whether the fault may clear by itself or by more disk space, so that waiting makes sense.
    /// All other faults need the user.
    pub fn may_pass(&self) -> bool {
        use io::ErrorKind::{
            Interrupted, OutOfMemory, QuotaExceeded, ReadOnlyFilesystem, StorageFull, TimedOut, WouldBlock,
            WriteZero,
        };
        matches!(
            self.source.kind(),
            StorageFull
                | QuotaExceeded
                | ReadOnlyFilesystem
                | TimedOut
                | WouldBlock
                | Interrupted
                | OutOfMemory
                | WriteZero
        ) || self.source.raw_os_error().is_some_and(|code| PASSING.contains(&code))
    }

    fn is_misuse(&self) -> bool {
        self.source.kind() == io::ErrorKind::InvalidInput
    }
}

/// Passing errors without an `io::ErrorKind` of their own: the device fails or is away, or no
/// descriptor is left.
const PASSING: [i32; 6] = {
    use rustix::io::Errno;
    [
        Errno::IO.raw_os_error(),
        Errno::NODEV.raw_os_error(),
        Errno::NXIO.raw_os_error(),
        Errno::STALE.raw_os_error(),
        Errno::MFILE.raw_os_error(),
        Errno::NFILE.raw_os_error(),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::testing::{Sample, sample};

    fn read(
        sample: &Sample,
        content: &Content<crate::storage::fs::RealFs>,
        piece: PieceIndex,
    ) -> Result<Vec<LostPiece>, StorageError> {
        let len = sample.info.geometry.len_of(piece);
        let mut blocks = [(Block { piece, offset: 0, len }, vec![0; len as usize])];
        let lost = content.read_blocks(&mut blocks, &mut Vec::new())?;
        assert!(
            !lost.is_empty() || blocks[0].1 == sample.piece(piece),
            "piece {piece} was uploaded with wrong bytes"
        );
        Ok(lost)
    }

    fn set_up() -> (tempfile::TempDir, Sample, Content<crate::storage::fs::RealFs>) {
        let folder = tempfile::tempdir().unwrap();
        let sample = sample(&[("a", 100), ("b", 60)], 32);
        let content = sample.content(folder.path(), &[]);
        sample.pieces().for_each(|piece| sample.write(&content, piece).unwrap());
        content.sync().unwrap();
        (folder, sample, content)
    }

    #[test]
    fn changed_pieces_are_hashed_again_before_they_are_uploaded() {
        let (folder, sample, content) = set_up();
        sample.pieces().for_each(|piece| assert_eq!(read(&sample, &content, piece).unwrap(), []));
        let mut bytes = sample.file(0).to_vec();
        bytes[40] ^= 1;
        std::fs::write(folder.path().join("a"), &bytes).unwrap();
        let lost = read(&sample, &content, 1).unwrap();
        assert_eq!(lost.iter().map(|lost| lost.piece).collect::<Vec<_>>(), [1]);
        assert!(lost[0].why.contains("changed"), "{lost:?}");
        for piece in [0, 2, 3, 4] {
            assert_eq!(read(&sample, &content, piece).unwrap(), [], "the others are still good");
        }
        sample.write(&content, 1).unwrap();
        assert_eq!(read(&sample, &content, 1).unwrap(), [], "fetched again");
    }

    #[test]
    fn replaced_truncated_and_missing_files_lose_only_wrong_pieces() {
        let (folder, sample, content) = set_up();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        assert_eq!(read(&sample, &content, 4).unwrap(), []);
        std::fs::write(folder.path().join("new"), sample.file(0)).unwrap();
        std::fs::rename(folder.path().join("new"), &a).unwrap();
        assert_eq!(read(&sample, &content, 0).unwrap(), [], "another file with the same bytes");
        std::fs::File::options().write(true).open(&a).unwrap().set_len(64).unwrap();
        assert_eq!(read(&sample, &content, 1).unwrap(), []);
        assert_eq!(read(&sample, &content, 2).unwrap().len(), 1);
        std::fs::remove_file(&b).unwrap();
        assert_eq!(read(&sample, &content, 4).unwrap().len(), 1);
        std::os::unix::fs::symlink(&a, &b).unwrap();
        assert_eq!(read(&sample, &content, 4).unwrap().len(), 1, "a link is not followed");
    }

    #[test]
    fn our_own_writes_are_not_changes() {
        let (_folder, sample, content) = set_up();
        for piece in sample.pieces() {
            sample.write(&content, piece).unwrap();
            assert_eq!(read(&sample, &content, piece).unwrap(), []);
            assert!(!content.unverified.contains(piece));
        }
        content.sync().unwrap();
        assert_eq!(read(&sample, &content, 0).unwrap(), []);
        assert!(!content.unverified.contains(0));
    }

    #[test]
    fn the_first_look_sets_the_expected_stamp() {
        let (folder, sample, _) = set_up();
        let again = sample.content(folder.path(), &[]);
        assert_eq!(read(&sample, &again, 0).unwrap(), []);
        std::fs::write(folder.path().join("a"), [0; 100]).unwrap();
        assert_eq!(read(&sample, &again, 0).unwrap().len(), 1);
    }
}
