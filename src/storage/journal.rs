//! The journal of one torrent: records which pieces are durable, so that a start need not hash
//! them.
//!
//! An append-only file of records, each with its length and a CRC-32. The order of writes keeps it
//! true: a piece is *intended* (appended, not synced) before its bytes are written; then the bytes
//! are made durable; only then is the piece *kept* (appended and synced), together with the stamps
//! of the synced files. So a kept piece was on disk before the journal said so, whatever is lost
//! later, and only pieces that were intended and not kept are in doubt. A clean end records the
//! stamps of all files. Blocks of incomplete pieces are recorded with a checksum after they were
//! written; a start reads them to find out whether they survived.
//!
//! Reading is total: records are taken up to the first torn or invalid one, as a power cut leaves
//! at the end. Then there may be more on disk than the journal says, and the caller must look. The
//! file is replaced by a new one, written beside it and renamed, when the caller has settled what
//! is present, when the tail has grown, and at a clean end. A file that cannot be used, or has an
//! unknown version, stays until the first write, which renames it and begins a new one.
//!
//! A journal that cannot be written *lapses* and delays nothing: its records are kept in memory and
//! written with the next commit that succeeds. Meanwhile the file says too little, never too much:
//! to withdraw a claim, the whole file is durably removed.
//!
//! The journal knows pieces and file numbers with stamps, not where the pieces lie.

mod record;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::content::StorageError;
use super::fs::{FileSystem, Stamp};
use super::pieces::{PartialPiece, Spilled};
use crate::proto::bitfield::Bitfield;
use crate::proto::piece::PieceIndex;
pub use record::{Kept, Owned, Owner, Record};

/// Longest journal that is read, bytes: a snapshot of the most pieces, stamps of a million files,
/// and a tail. A longer file was not written by this program and counts as missing.
const JOURNAL_LEN_MAX: u64 = 128 << 20;
/// Longest tail after the snapshot before the journal is rewritten, bytes: an hour of a fast
/// download.
const TAIL_LEN_MAX: u64 = 1 << 20;

impl Stamp {
    /// Returns a stamp that matches no file, so that the next start hashes the file.
    pub fn unknown(inode: u64) -> Self {
        Self { len: u64::MAX, modified: i64::MIN, changed: i64::MIN, inode }
    }

    /// Whether it is [`Stamp::unknown`].
    pub fn is_unknown(&self) -> bool {
        self.len == u64::MAX
    }
}

/// Appended to the name of a journal that cannot be used.
const ASIDE: &str = ".aside";

/// An open journal.
#[derive(Debug)]
pub struct Journal<F: FileSystem> {
    fs: Arc<F>,
    path: Vec<String>,
    owner: Owner,
    /// The offset of the next record.
    end: u64,
    /// Bytes of the last snapshot, header included.
    snapshot_len: u64,
    /// Whether the file holds everything that was written to it: false before the first write, and
    /// after a failed sync, which may have lost records in the middle.
    is_sound: bool,
    /// Whether the file at `path` cannot be used; the first write sets it aside.
    is_unusable: bool,
    /// Whether the file names pieces that `record` does not.
    is_overstated: bool,
    /// Set while the file lags behind `record`.
    lapse: Option<Lapse>,
    /// What to report to the user, once.
    trouble: Option<Trouble>,
    /// Whether a lapse was reported.
    is_lapse_told: bool,
    /// The content of the journal.
    record: Record,
}

/// How far a journal that could not be written lags behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lapse {
    /// The next start finds everything that matters.
    Late,
    /// Pieces were written that the file does not name.
    Gaps,
    /// The file was removed.
    Removed,
}

/// A problem of a journal that the user must know of.
#[derive(Debug)]
pub enum Trouble {
    /// The journal cannot be used. It stays until a new one is begun, and gets this name then.
    Unusable(StorageError, PathBuf),
    /// The journal could not be used and has this name now; a new one was begun.
    SetAside(StorageError, PathBuf),
    /// The journal cannot be written or synced; until it can, the next start hashes more.
    Lapsed(StorageError),
}

impl<F: FileSystem> Journal<F> {
    /// Reads the journal at `path`. If it is missing or invalid, the record is empty and not whole.
    /// One that cannot be used stays as it is ([`Trouble::Unusable`]). Writes nothing before
    /// [`Journal::settle`].
    ///
    /// # Errors
    /// The journal cannot be read now; a later attempt may succeed.
    pub fn open(fs: Arc<F>, path: Vec<String>, owner: Owner) -> Result<Self, StorageError> {
        let record = Record::nothing(owner.geometry.piece_count());
        let mut this = Self {
            fs,
            path,
            owner,
            end: 0,
            snapshot_len: 0,
            is_sound: false,
            is_unusable: false,
            is_overstated: false,
            lapse: None,
            trouble: None,
            is_lapse_told: false,
            record,
        };
        match this.read() {
            Ok(Some(record)) => this.record = record,
            Ok(None) => {}
            Err(error) if error.may_pass() => return Err(error),
            Err(error) => {
                this.is_unusable = true;
                this.trouble = Some(Trouble::Unusable(error, this.fs.full_path(&this.aside())));
            }
        }
        Ok(this)
    }

    fn read(&self) -> Result<Option<Record>, StorageError> {
        let Some(bytes) = read_all(&*self.fs, &self.path).map_err(|source| self.error(source))? else {
            return Ok(None);
        };
        let unknown =
            |version| format!("format {version} is unknown: a newer program wrote it, or it is damaged");
        let decoded = record::decode(&bytes, &self.owner);
        decoded.map_err(|version| self.error(io::Error::other(unknown(version))))
    }

    /// The name that an unusable journal gets.
    fn aside(&self) -> Vec<String> {
        let mut aside = self.path.clone();
        if let Some(name) = aside.last_mut() {
            name.push_str(ASIDE);
        }
        aside
    }

    /// Renames an unusable journal, which may be something other than a file, to make room for a
    /// new one.
    fn set_aside(&mut self) -> Result<(), StorageError> {
        if !self.is_unusable {
            return Ok(());
        }
        // Read again, because another process may have set it aside and begun a new journal.
        if let Err(error) = self.read() {
            if error.may_pass() {
                return Err(error);
            }
            self.fs.rename(&self.path, &self.aside()).map_err(|source| self.error(source))?;
        }
        self.is_unusable = false;
        self.trouble = self.trouble.take().map(|trouble| match trouble {
            Trouble::Unusable(error, aside) => Trouble::SetAside(error, aside),
            Trouble::SetAside(..) | Trouble::Lapsed(_) => trouble,
        });
        Ok(())
    }

    /// Takes the trouble to report to the user; each is returned once.
    pub fn take_trouble(&mut self) -> Option<Trouble> {
        self.trouble.take()
    }

    /// Whether the file may lack durable pieces, so that the next start may not find them.
    pub fn has_gaps(&self) -> bool {
        matches!(self.lapse, Some(Lapse::Late | Lapse::Gaps))
    }

    /// Whether the file lags behind `record` because it could not be written.
    pub fn has_lapsed(&self) -> bool {
        self.lapse.is_some()
    }

    /// Rewrites the journal with exactly these pieces, the `in_parts` ones with bytes in the parts
    /// file by this selection, and these stamps. `clean` says that everything is durable, so that
    /// the next start only compares stamps; then a file stays ours only if its inode is the one
    /// recorded before, because a file that has replaced it belongs to another program. Called
    /// before any other change.
    ///
    /// # Errors
    /// The file names pieces that are missing, and can neither be written nor removed.
    pub fn settle(
        &mut self,
        kept: Bitfield,
        in_parts: Bitfield,
        selected: Bitfield,
        stamps: BTreeMap<u32, Stamp>,
        clean: bool,
    ) -> Result<(), StorageError> {
        let mut blocks = self.record.blocks.clone();
        blocks.retain(|&piece, _| !kept.get(piece));
        let owned = if clean { self.record.owned_as_before(&stamps) } else { self.record.owned.clone() };
        let (intended, selected) = (BTreeMap::new(), Some(selected));
        let settled =
            Record { kept, in_parts, selected, intended, blocks, stamps, owned, clean, whole: true };
        let before = std::mem::replace(&mut self.record, settled);
        self.is_overstated |= before.kept.has_more_than(&self.record.kept);
        let Err(error) = self.rewrite() else { return Ok(()) };
        self.lapse(error);
        let withdrawn = if self.is_overstated { self.remove() } else { Ok(()) };
        if withdrawn.is_err() {
            // Restores the record; otherwise a retry would treat it as already written.
            self.record = before;
        }
        withdrawn
    }

    /// Lists files as ours; the next [`Journal::settle`] writes the list.
    pub fn own(&mut self, owned: Owned) {
        self.record.owned = Some(owned);
    }

    /// Records the inode of a file of ours that has no stamp.
    pub fn identify(&mut self, file: u32, inode: u64) {
        self.record.stamps.entry(file).or_insert(Stamp::unknown(inode));
    }

    /// Returns the file system of the journal.
    pub fn fs(&self) -> &Arc<F> {
        &self.fs
    }

    /// Returns the content of the journal, with all changes since it was opened.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Keeps only these pieces, judged by the stamps of the files; writes nothing.
    pub fn trust(&mut self, kept: Bitfield, in_parts: Bitfield) {
        self.is_overstated |= self.record.kept.has_more_than(&kept);
        self.record.kept = kept;
        self.record.in_parts = in_parts;
    }

    /// Withdraws the stamps of these files. Not synced: if the system goes down, the stamps do not
    /// match either.
    ///
    /// # Errors
    /// The stamps cannot be withdrawn; the caller must not write to the files.
    pub fn forget(&mut self, files: &[u32]) -> Result<(), StorageError> {
        let inode = |file| self.record.stamps.get(file).map_or(0, |stamp| stamp.inode);
        let stamps: Vec<_> = files.iter().map(|file| (*file, Stamp::unknown(inode(file)))).collect();
        self.withdraw(&record::kept(&[], &stamps))?;
        self.record.stamps.extend(stamps);
        self.record.clean = false;
        Ok(())
    }

    /// Records that this piece, which is not kept, is about to be written, at `now` by the wall
    /// clock (microseconds since 1970). Not synced: if the system goes down, the piece counts as
    /// missing.
    pub fn intend(&mut self, now: u64, piece: PieceIndex) {
        if self.add(&record::intended(now, piece)).is_none() && self.lapse == Some(Lapse::Late) {
            self.lapse = Some(Lapse::Gaps);
        }
        self.record.intended.insert(piece, now);
        self.record.clean = false;
    }

    /// Notes that an intended piece was written. If the file does not name it, removes the file, so
    /// that the next start looks at everything.
    pub fn written(&mut self) {
        if self.lapse == Some(Lapse::Gaps) {
            // If this fails, the next start may not find the piece; it claims nothing false.
            let _ = self.remove();
        }
    }

    /// Records that these blocks of an intended piece were written. Not synced: if the system goes
    /// down, their checksums tell whether they survived.
    pub fn note_blocks(&mut self, piece: PieceIndex, blocks: &[Spilled]) {
        self.add(&record::blocks(piece, blocks.iter().copied()));
        self.record.note_blocks(piece, blocks);
        self.record.clean = false;
        self.written();
    }

    /// Keeps only these blocks; writes nothing.
    pub fn trust_blocks(&mut self, partial: &[PartialPiece]) {
        self.record.blocks.clear();
        partial.iter().for_each(|partial| self.record.note_blocks(partial.piece, &partial.blocks));
    }

    /// Appends that these pieces are durable and that these files had these stamps after a sync.
    /// The caller syncs the returned file, if any, without holding the lock, and then calls
    /// [`Journal::kept`].
    pub fn keep(&mut self, pieces: &[Kept], stamps: &[(u32, Stamp)]) -> Option<F::File> {
        self.add(&record::kept(pieces, stamps))
    }

    /// Adds the pieces and stamps that were passed to [`Journal::keep`] and are durable now.
    /// Rewrites a journal that has lapsed or has a long tail.
    pub fn kept(&mut self, pieces: &[Kept], stamps: &[(u32, Stamp)]) {
        pieces.iter().for_each(|&piece| self.record.keep(piece));
        self.record.stamps.extend(stamps.iter().copied());
        self.record.clean = false;
        let is_due = self.lapse.is_some() || self.end - self.snapshot_len > TAIL_LEN_MAX;
        if is_due && let Err(error) = self.rewrite() {
            self.lapse(error);
        }
    }

    /// Drops pieces that turned out to be missing or false. The caller syncs the returned file, if
    /// any, without holding the lock.
    ///
    /// # Errors
    /// The pieces cannot be withdrawn.
    pub fn lose(&mut self, pieces: &[PieceIndex]) -> Result<Option<F::File>, StorageError> {
        let file = self.withdraw(&record::lost(pieces))?;
        // Dropped before the sync: if that fails, the rewritten journal must not name them.
        pieces.iter().for_each(|&piece| self.record.lose(piece));
        self.record.clean = false;
        Ok(file)
    }

    /// Notes that a sync of the file failed: it is rewritten before anything is added.
    pub(super) fn not_synced(&mut self, source: io::Error) {
        let error = self.error(source);
        self.lapse(error);
    }

    /// Removes the file durably.
    pub(super) fn remove(&mut self) -> Result<(), StorageError> {
        if self.lapse == Some(Lapse::Removed) {
            return Ok(());
        }
        // An unusable file names no pieces and is kept.
        if !self.is_unusable {
            let removed = self.fs.remove(&self.path).and_then(|()| self.fs.sync_folder(self.folder()));
            removed.map_err(|source| self.error(source))?;
        }
        self.lapse = Some(Lapse::Removed);
        Ok(())
    }

    /// Notes that the journal could not be written: reports it once; [`Journal::kept`] and
    /// [`Journal::settle`] try again.
    fn lapse(&mut self, error: StorageError) {
        self.is_sound = false;
        self.lapse.get_or_insert(Lapse::Late);
        if !std::mem::replace(&mut self.is_lapse_told, true) {
            self.trouble = Some(Trouble::Lapsed(error));
        }
    }

    /// Appends a record that may be missing from the file; `None` if the journal has lapsed.
    fn add(&mut self, bytes: &[u8]) -> Option<F::File> {
        if self.lapse.is_some() {
            return None;
        }
        self.append(bytes).map_err(|error| self.lapse(error)).ok()
    }

    /// Appends a record that must not be missing from the file, or else removes the file.
    fn withdraw(&mut self, bytes: &[u8]) -> Result<Option<F::File>, StorageError> {
        let file = self.add(bytes);
        if file.is_none() {
            self.remove()?;
        }
        Ok(file)
    }

    fn folder(&self) -> &[String] {
        &self.path[..self.path.len() - 1]
    }

    fn error(&self, source: io::Error) -> StorageError {
        StorageError::below(&*self.fs, &self.path, source)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<F::File, StorageError> {
        if !self.is_sound {
            self.rewrite()?;
        }
        let written = self.fs.open_write(&self.path).and_then(|file| {
            self.fs.write_all_at(&file, &[bytes], self.end)?;
            Ok(file)
        });
        let file = written.map_err(|source| self.error(source))?;
        // Advanced only now, so that the next write overwrites one that failed.
        self.end += bytes.len() as u64;
        Ok(file)
    }

    /// Writes a new journal beside the old one and renames it into place.
    fn rewrite(&mut self) -> Result<(), StorageError> {
        let bytes = self.record.encode(&self.owner);
        // The new file may be in place already when a later step fails.
        self.is_sound = false;
        if self.lapse == Some(Lapse::Removed) {
            self.lapse = Some(Lapse::Gaps);
        }
        self.set_aside()?;
        self.replace(&bytes).map_err(|source| self.error(source))?;
        self.end = bytes.len() as u64;
        self.snapshot_len = self.end;
        (self.is_sound, self.is_overstated, self.lapse) = (true, false, None);
        Ok(())
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let mut beside = self.path.clone();
        if let Some(name) = beside.last_mut() {
            name.push_str(".new");
        }
        // One that a power cut left behind may be longer.
        self.fs.remove(&beside)?;
        let file = self.fs.open_write(&beside)?;
        self.fs.write_all_at(&file, &[bytes], 0)?;
        self.fs.sync(&file)?;
        self.fs.rename(&beside, &self.path)?;
        self.fs.sync_folder(self.folder())
    }
}

/// Returns the bytes of the file; `None` if it is missing or too long to be a journal.
fn read_all<F: FileSystem>(fs: &F, path: &[String]) -> io::Result<Option<Vec<u8>>> {
    let Some(stamp) = fs.stamp(path)?.filter(|stamp| stamp.len <= JOURNAL_LEN_MAX) else { return Ok(None) };
    let mut bytes = vec![0; stamp.len as usize];
    let file = fs.open_read(path)?;
    fs.read_exact_at(&file, &mut bytes, 0)?;
    Ok(Some(bytes))
}
