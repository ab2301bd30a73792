//! Noticing what others do to a torrent's files before a block of them goes out.
//!
//! Of each file it is known what it looked like when its bytes were last hashed, or durable. A
//! block is read first and the file looked at afterwards, as one that was written to meanwhile
//! shows it (a file system marks the time before it takes the bytes). A file that looks otherwise
//! makes all of its pieces suspect: each is hashed again before a block of it goes out, and before
//! it counts for anything at the end of a download. As long as any is suspect, how the file looks
//! vouches for nothing, and no journal says otherwise.
//!
//! While we write a file ourselves it looks otherwise all the time, and what others do to its bytes
//! then is noticed by nobody but who receives the pieces. That it is deleted, or another one in its
//! place, is noticed all the same: our writes never make another file of it.
//!
//! Who writes through a memory map after the first touch of a page is not noticed, by the way such
//! maps work.

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

/// How often a read begins anew because the file changed under it, before the piece counts as lost.
const ATTEMPT_MAX: usize = 3;

/// What a file looked like.
#[derive(Debug, Default)]
pub(super) struct Watch {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: Seen,
    /// Writes of ours that were begun.
    begun_count: u64,
    /// Of these, those that are not done.
    running_count: u32,
    /// How many had begun when it was last looked at: if more have, it looks otherwise because of
    /// us.
    seen_count: u64,
    /// The how manyth change by somebody else the last one of it was, since we know the torrent's
    /// files; 0: none.
    changed: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    /// Not looked at yet.
    #[default]
    Never,
    /// It was not there.
    Gone,
    /// Like this.
    As(Stamp),
}

impl From<Option<Stamp>> for Seen {
    fn from(stamp: Option<Stamp>) -> Self {
        stamp.map_or(Self::Gone, Self::As)
    }
}

impl Seen {
    /// Whether the file that was there is gone, or another one in its place.
    fn is_another(self, stamp: Option<Stamp>) -> bool {
        matches!(self, Self::As(seen) if stamp.is_none_or(|stamp| stamp.inode != seen.inode))
    }
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment or two, so a thread that died here left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write of ours begins.
    pub(super) fn begin(&self) {
        let mut state = self.state();
        state.begun_count += 1;
        state.running_count += 1;
    }

    /// A write of ours is done.
    pub(super) fn end(&self) {
        self.state().running_count -= 1;
    }

    /// Writes of ours that were begun: to be asked before looking at the file.
    pub(super) fn begun_count(&self) -> u64 {
        self.state().begun_count
    }

    /// It looks like this and its bytes are known, or suspect; `begun_count` is from before.
    fn see(&self, begun_count: u64, stamp: Option<Stamp>) {
        let mut state = self.state();
        if state.begun_count == begun_count && state.running_count == 0 {
            state.seen = stamp.into();
            state.seen_count = begun_count;
        } else if state.seen_count != state.begun_count {
            // Which file it is is known, no more.
            state.seen = stamp.into();
        }
    }

    /// This is the file that a write of ours, which has begun, goes into. Whether it is the one
    /// that was known, or the first.
    pub(super) fn write_into(&self, stamp: Stamp) -> bool {
        let mut state = self.state();
        let is_another = state.seen.is_another(Some(stamp));
        state.seen = Seen::As(stamp);
        !is_another
    }

    /// Which of all changes by somebody else the last one of it was; 0: there was none.
    fn changed(&self) -> u32 {
        self.state().changed
    }

    /// What is known of its looks; None: nothing, or we are writing it.
    fn seen(&self) -> Option<Option<Stamp>> {
        let state = self.state();
        match state.seen {
            _ if state.seen_count != state.begun_count => None,
            Seen::Never => None,
            Seen::Gone => Some(None),
            Seen::As(stamp) => Some(Some(stamp)),
        }
    }

    /// Whether it looks as it should; one that nobody looked at before should look like this from
    /// now on.
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

/// A piece that cannot be handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPiece {
    /// Which.
    pub piece: PieceIndex,
    /// The file that is to blame.
    pub path: PathBuf,
    /// What is wrong with it, in words of the system.
    pub why: String,
}

impl<F: FileSystem> Content<F> {
    /// Looks at a file, by number; the parts file comes after the last. From now on it should look
    /// like this; if it should have looked otherwise, its pieces are suspect.
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

    /// The same of a file that was there before: something else in its place makes its pieces
    /// suspect too.
    ///
    /// # Errors
    /// The disk fails in a way that may pass.
    pub(super) fn look_again(&self, number: usize) -> Result<Option<Stamp>, StorageError> {
        match self.look(number) {
            Err(error) if !error.may_pass() => {
                self.mark_unverified(number);
                Ok(None)
            }
            looked => looked,
        }
    }

    /// How a file looked when its bytes were last known; None: not there.
    ///
    /// # Errors
    /// Nobody looked yet, or we wrote it since, and it cannot be looked at now.
    pub(in crate::storage) fn last_look(&self, number: usize) -> Result<Option<Stamp>, StorageError> {
        match self.written.get(number).and_then(|written| written.watch.seen()) {
            Some(stamp) => Ok(stamp),
            None => self.look(number),
        }
    }

    /// Reads blocks to be sent, each into its buffer of the block's length, and makes sure of their
    /// pieces if a file is not as it was. Comes back with pieces that are there no more, or cannot
    /// be read while others can; then no buffer is to be used.
    ///
    /// # Errors
    /// A block is not within its piece, or the disk fails in a way that may pass.
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

    /// The same; with an error what it was that could not be read.
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

    /// Of these pieces, those that somebody else has spoilt, be it noticed before or only now. Of
    /// files that are as they were nothing is read, unless pieces of them are suspect still.
    ///
    /// # Errors
    /// The disk fails in a way that may pass.
    pub fn find_lost(&self, have: &Bitfield) -> Result<Vec<LostPiece>, StorageError> {
        for number in 0..=self.info.files.len() {
            self.look_again(number)?;
        }
        let mut scratch = Vec::new();
        let examine = |piece| self.examine(piece, &mut scratch).transpose();
        self.unverified.among(have).into_iter().filter_map(examine).collect()
    }

    /// Reads all blocks, then looks at their files; the pieces that need to be looked at more
    /// closely.
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

    /// Whether the open file looks as it should; one that cannot be opened does not.
    fn is_as_seen(&self, number: usize, begun_count: u64) -> bool {
        let stamp = self.fs.open_read(self.path_of(number)).and_then(|open| self.fs.stamp_of(&open));
        stamp.is_ok_and(|stamp| self.written[number].watch.is_as_seen(begun_count, Some(stamp)))
    }

    /// A file is not as it was: none of its pieces is what it was, until it hashes. It may be
    /// another one, so it is opened anew, and by who writes into it as if for the first time.
    pub(super) fn mark_unverified(&self, number: usize) {
        self.fs.close();
        let Written { watch, sized, .. } = &self.written[number];
        watch.state().changed = self.change_count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        sized.store(false, Ordering::Release);
        let begun_count = watch.begun_count();
        // Looked at before its pieces are suspect: what changes after this look shows by the next
        // one.
        let looked = self.stamp(number);
        self.unverified.add(self.info.geometry.piece_count(), self.pieces_in(number));
        // Only now may it count as it looks. Something else in its place is told when a piece is
        // read.
        if let Ok(stamp) = looked {
            watch.see(begun_count, stamp);
        }
    }

    /// The pieces that lie in a file, or may; by number.
    fn pieces_in(&self, number: usize) -> impl Iterator<Item = PieceIndex> {
        let (range, parts) = match self.info.files.get(number) {
            Some(file) => (pieces_of(file, self.info.geometry.piece_len()), &[][..]),
            None => (0..0, &self.parts.pieces[..]),
        };
        range.chain(parts.iter().copied())
    }

    /// Whether somebody changed a file, by number, and any of these pieces in it is to be hashed
    /// before it is relied on: then how the file looks vouches for nothing.
    pub(in crate::storage) fn has_unverified(&self, number: usize, pieces: &Bitfield) -> bool {
        let mut claimed = self.pieces_in(number).filter(|&piece| pieces.get(piece));
        let is_changed = self.written.get(number).is_some_and(|written| written.watch.changed() > 0);
        is_changed && self.unverified.any(&mut claimed)
    }

    /// Nothing of these pieces goes out before it was hashed again.
    pub(in crate::storage) fn mark_pieces_unverified(&self, pieces: impl Iterator<Item = PieceIndex>) {
        self.unverified.add(self.info.geometry.piece_count(), pieces);
    }

    /// The disk took the bytes of a piece and has others now.
    pub(in crate::storage) fn not_kept(&self, piece: PieceIndex) -> LostPiece {
        self.mark_pieces_unverified(std::iter::once(piece));
        let why = "the disk did not keep what was written".to_owned();
        LostPiece { piece, path: self.changed_path(piece), why }
    }

    /// Hashes a piece that was good once; None: it still is.
    fn examine(&self, piece: PieceIndex, scratch: &mut Vec<u8>) -> Result<Option<LostPiece>, StorageError> {
        for _ in 0..ATTEMPT_MAX {
            let check = self.unverified.begin(piece);
            let checked = self.check_piece(piece, scratch);
            self.unverified.end(check, matches!(checked, Ok(true)));
            let (path, why) = match checked {
                // It became so again while it was hashed.
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

    /// The same, of a block of which the bytes of unselected files are in the parts file, or not;
    /// it comes after the last.
    pub(in crate::storage) fn places(&self, block: Block, in_parts: bool) -> impl Iterator<Item = usize> {
        let start = self.info.geometry.offset_of(block.piece) + u64::from(block.offset);
        spans(&self.info.files, start, block.len as usize)
            .filter(|span| !self.info.files[span.file].attributes.pad)
            .map(move |span| {
                let apart = in_parts && !self.selected[span.file];
                if apart { self.info.files.len() } else { span.file }
            })
    }

    /// A piece as one block.
    pub(in crate::storage) fn whole(&self, piece: PieceIndex) -> Block {
        Block { piece, offset: 0, len: self.info.geometry.len_of(piece) }
    }

    /// The file of a piece that somebody changed, or else the one that it begins in.
    fn changed_path(&self, piece: PieceIndex) -> PathBuf {
        let whole = self.whole(piece);
        // Of several the one that was changed last: the piece was good after the others were.
        let changed = |number: usize| self.written[number].watch.changed();
        let last = self.places_of(whole).filter(|&at| changed(at) > 0).max_by_key(|&at| changed(at));
        let number = last.or_else(|| self.places_of(whole).next());
        let path = number.map_or(&[][..], |number| self.path_of(number));
        self.fs.full_path(path)
    }
}

impl StorageError {
    /// Whether the disk may do the same some time later, without anybody's help but for room: a
    /// state, to be waited out. The rest is for people to put right.
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

/// Errors of the system without a kind of their own: the device fails, or is away, or no descriptor
/// is left.
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
        assert!(!lost.is_empty() || blocks[0].1 == sample.piece(piece), "piece {piece} went out false");
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
    fn what_others_change_is_hashed_again_before_it_goes_out() {
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
    fn files_that_are_replaced_truncated_or_gone_lose_just_what_is_false() {
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
    fn what_we_write_ourselves_is_nothing_to_wonder_at() {
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
    fn a_file_is_taken_as_it_is_when_it_is_first_looked_at() {
        let (folder, sample, _) = set_up();
        let again = sample.content(folder.path(), &[]);
        assert_eq!(read(&sample, &again, 0).unwrap(), []);
        std::fs::write(folder.path().join("a"), [0; 100]).unwrap();
        assert_eq!(read(&sample, &again, 0).unwrap().len(), 1);
    }
}
