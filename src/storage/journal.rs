//! The journal of one torrent: which pieces are durable, so that a start need not hash what is
//! known to be good.
//!
//! An append-only file of records, each with its length and a CRC-32. The order that makes it true:
//! a piece is *intended* (appended, not synced) before its bytes are written; the bytes are made
//! durable; only then is it *kept* (appended and synced) together with the stamps of the files that
//! were synced. So a kept piece was on disk before the journal said so, whatever was lost
//! afterwards, and a piece that was intended and not kept is the only one that has to be looked at.
//! A clean end writes the stamps of all files. Blocks of a piece that is not whole are noted with a
//! checksum after they were written: whether they are there is found out by reading them.
//!
//! Reading is total: records are taken up to the first one that is torn or false, as a power cut
//! leaves at the end; then there may be more on disk than the journal says, and the caller has to
//! look. The file is written anew beside itself and renamed into its place when the caller has
//! settled what is there, when the tail has grown, and at a clean end. One that cannot be used, or
//! has an unknown version, stays as it is until then; the first write renames it and begins a new
//! one.
//!
//! A journal that cannot be written holds up nothing: it *lapses*. What it would say is kept in
//! memory and written with the next commit that can. Meanwhile the file says too little, never too
//! much: what has to be withdrawn from it is durably removed with the whole file.
//!
//! It knows which pieces there are, not where they lie: files are numbers with stamps.

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

/// Longest journal that is read: a snapshot of the most pieces, stamps of a million files, and a
/// tail. A longer one was not written by us and counts as missing.
const JOURNAL_LEN_MAX: u64 = 128 << 20;
/// Bytes of tail beyond the snapshot before the journal is written anew: an hour of a fast
/// download.
const TAIL_LEN_MAX: u64 = 1 << 20;

impl Stamp {
    /// A stamp that matches no file, so that the next start hashes the file.
    pub fn unknown(inode: u64) -> Self {
        Self { len: u64::MAX, modified: i64::MIN, changed: i64::MIN, inode }
    }

    /// Whether it is [`Stamp::unknown`].
    pub fn is_unknown(&self) -> bool {
        self.len == u64::MAX
    }
}

/// What is appended to the name of a journal that cannot be used.
const ASIDE: &str = ".aside";

/// An open journal.
#[derive(Debug)]
pub struct Journal<F: FileSystem> {
    fs: Arc<F>,
    path: Vec<String>,
    owner: Owner,
    /// Where the next record goes.
    end: u64,
    /// Bytes of the last snapshot, header included.
    snapshot_len: u64,
    /// Whether the file is known to hold what was written to it: not before it is first written,
    /// nor after a sync of it failed, for then records in its middle may be lost, and with them all
    /// that follow.
    is_sound: bool,
    /// What is at `path` cannot be used: the first write sets it aside.
    is_unusable: bool,
    /// The file names pieces that `record` does not.
    is_overstated: bool,
    /// Set while the file lags behind `record`.
    lapse: Option<Lapse>,
    /// What is to be said to the user, once.
    trouble: Option<Trouble>,
    /// That it lapsed was said.
    is_lapse_told: bool,
    /// What the journal says.
    record: Record,
}

/// How far a journal that could not be written lags behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lapse {
    /// All that matters is in it.
    Late,
    /// Pieces are written that it does not know of.
    Gaps,
    /// The file was removed.
    Removed,
}

/// What the user has to know about a journal.
#[derive(Debug)]
pub enum Trouble {
    /// It cannot be used. It is left as it is until a new one is begun, and has this name then.
    Unusable(StorageError, PathBuf),
    /// It could not be used and has this name now; a new one is begun.
    SetAside(StorageError, PathBuf),
    /// It cannot be written, or be made durable: until it can, the next start has to hash more.
    Lapsed(StorageError),
}

impl<F: FileSystem> Journal<F> {
    /// Reads the journal at `path`; without one, and of one that makes no sense, the record is of
    /// nothing and not whole. One that cannot be used stays as it is ([`Trouble::Unusable`]).
    /// Nothing is written before [`Journal::settle`].
    ///
    /// # Errors
    /// It cannot be read now, and may be later.
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

    /// What one that cannot be used is renamed to.
    fn aside(&self) -> Vec<String> {
        let mut aside = self.path.clone();
        if let Some(name) = aside.last_mut() {
            name.push_str(ASIDE);
        }
        aside
    }

    /// Renames what cannot be used, which may be something else than a file, to make room for a new
    /// one.
    fn set_aside(&mut self) -> Result<(), StorageError> {
        if !self.is_unusable {
            return Ok(());
        }
        // Read again: another process may have set it aside and begun a new journal.
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

    /// What is wrong with the journal, for the user; once.
    pub fn take_trouble(&mut self) -> Option<Trouble> {
        self.trouble.take()
    }

    /// Whether the file may lack pieces that are durable, so that the next start may not find them.
    pub fn has_gaps(&self) -> bool {
        matches!(self.lapse, Some(Lapse::Late | Lapse::Gaps))
    }

    /// Whether the file lags behind what the journal says, because it could not be written.
    pub fn has_lapsed(&self) -> bool {
        self.lapse.is_some()
    }

    /// It is known now what is there, exactly: these pieces, with bytes in the parts file as the
    /// selection has it, in files that look as stamped; `clean`: and all of it is durable, so that
    /// the next start need only compare. Then a file is ours only if it is the one that was stamped
    /// before: what came into its place since is its owner's. To be called before anything else is
    /// told.
    ///
    /// # Errors
    /// The file names pieces that are not there, and can neither be written nor removed.
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

    /// These files are ours to write from now on: written by the next [`Journal::settle`].
    pub fn own(&mut self, owned: Owned) {
        self.record.owned = Some(owned);
    }

    /// A file of ours that has no stamp is this one.
    pub fn identify(&mut self, file: u32, inode: u64) {
        self.record.stamps.entry(file).or_insert(Stamp::unknown(inode));
    }

    /// Where the journal is.
    pub fn fs(&self) -> &Arc<F> {
        &self.fs
    }

    /// What the journal said when it was opened, and all that was added since.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Of the pieces that it names only these are there, by how the files look. Nothing is written.
    pub fn trust(&mut self, kept: Bitfield, in_parts: Bitfield) {
        self.is_overstated |= self.record.kept.has_more_than(&kept);
        self.record.kept = kept;
        self.record.in_parts = in_parts;
    }

    /// The stamps of these files count for nothing any more. Not synced: if the machine goes down,
    /// the files look different.
    ///
    /// # Errors
    /// The stamps cannot be withdrawn; the files are not to be written.
    pub fn forget(&mut self, files: &[u32]) -> Result<(), StorageError> {
        let inode = |file| self.record.stamps.get(file).map_or(0, |stamp| stamp.inode);
        let stamps: Vec<_> = files.iter().map(|file| (*file, Stamp::unknown(inode(file)))).collect();
        self.withdraw(&record::kept(&[], &stamps))?;
        self.record.stamps.extend(stamps);
        self.record.clean = false;
        Ok(())
    }

    /// This piece, which is not kept, is about to be written, at `now` by the wall clock. Not
    /// synced: if the machine goes down, the piece counts as not there, which is true.
    pub fn intend(&mut self, now: u64, piece: PieceIndex) {
        if self.add(&record::intended(now, piece)).is_none() && self.lapse == Some(Lapse::Late) {
            self.lapse = Some(Lapse::Gaps);
        }
        self.record.intended.insert(piece, now);
        self.record.clean = false;
    }

    /// A piece that was intended is written. If the file does not know of it, the file is removed,
    /// so that the next start looks at everything.
    pub fn written(&mut self) {
        if self.lapse == Some(Lapse::Gaps) {
            // If that fails, the next start may not find the piece, and says nothing false.
            let _ = self.remove();
        }
    }

    /// These blocks of a piece, which is intended, were written. Not synced: if the machine goes
    /// down, their checksums say whether they are there.
    pub fn note_blocks(&mut self, piece: PieceIndex, blocks: &[Spilled]) {
        self.add(&record::blocks(piece, blocks.iter().copied()));
        self.record.note_blocks(piece, blocks);
        self.record.clean = false;
        self.written();
    }

    /// Of the blocks that it names only these are there. Nothing is written.
    pub fn trust_blocks(&mut self, partial: &[PartialPiece]) {
        self.record.blocks.clear();
        partial.iter().for_each(|partial| self.record.note_blocks(partial.piece, &partial.blocks));
    }

    /// Appends that these pieces are durable, and that these files were synced and then looked as
    /// stamped. The file that comes back, if any, is to be synced, without holding others up, and
    /// then [`Journal::kept`] be called.
    pub fn keep(&mut self, pieces: &[Kept], stamps: &[(u32, Stamp)]) -> Option<F::File> {
        self.add(&record::kept(pieces, stamps))
    }

    /// What was given to [`Journal::keep`] is durable. A journal that has lapsed, or whose tail is
    /// long, is written anew.
    pub fn kept(&mut self, pieces: &[Kept], stamps: &[(u32, Stamp)]) {
        pieces.iter().for_each(|&piece| self.record.keep(piece));
        self.record.stamps.extend(stamps.iter().copied());
        self.record.clean = false;
        let is_due = self.lapse.is_some() || self.end - self.snapshot_len > TAIL_LEN_MAX;
        if is_due && let Err(error) = self.rewrite() {
            self.lapse(error);
        }
    }

    /// These pieces turned out to be gone or false. The file that comes back, if any, is to be
    /// synced, without holding others up.
    ///
    /// # Errors
    /// They cannot be withdrawn.
    pub fn lose(&mut self, pieces: &[PieceIndex]) -> Result<Option<F::File>, StorageError> {
        let file = self.withdraw(&record::lost(pieces))?;
        // Before it is durable: if that fails, what is written anew is to be without them.
        pieces.iter().for_each(|&piece| self.record.lose(piece));
        self.record.clean = false;
        Ok(file)
    }

    /// A sync of the file failed: it is written anew before anything is added.
    pub(super) fn not_synced(&mut self, source: io::Error) {
        let error = self.error(source);
        self.lapse(error);
    }

    /// Removes the file durably.
    pub(super) fn remove(&mut self) -> Result<(), StorageError> {
        if self.lapse == Some(Lapse::Removed) {
            return Ok(());
        }
        // One that cannot be used names no pieces, and is kept.
        if !self.is_unusable {
            let removed = self.fs.remove(&self.path).and_then(|()| self.fs.sync_folder(self.folder()));
            removed.map_err(|source| self.error(source))?;
        }
        self.lapse = Some(Lapse::Removed);
        Ok(())
    }

    /// It could not be written: said once, and tried again by [`Journal::kept`] and
    /// [`Journal::settle`].
    fn lapse(&mut self, error: StorageError) {
        self.is_sound = false;
        self.lapse.get_or_insert(Lapse::Late);
        if !std::mem::replace(&mut self.is_lapse_told, true) {
            self.trouble = Some(Trouble::Lapsed(error));
        }
    }

    /// Appends what may be missing; None: the journal has lapsed.
    fn add(&mut self, bytes: &[u8]) -> Option<F::File> {
        if self.lapse.is_some() {
            return None;
        }
        self.append(bytes).map_err(|error| self.lapse(error)).ok()
    }

    /// Appends what must not be missing, or else removes the file.
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
        // Only now: a write that failed is written over by the next one.
        self.end += bytes.len() as u64;
        Ok(file)
    }

    /// Writes everything anew beside the journal, and puts it into its place.
    fn rewrite(&mut self) -> Result<(), StorageError> {
        let bytes = self.record.encode(&self.owner);
        // It may be in its place already when what follows fails.
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
        // One that a power cut left there may be longer.
        self.fs.remove(&beside)?;
        let file = self.fs.open_write(&beside)?;
        self.fs.write_all_at(&file, &[bytes], 0)?;
        self.fs.sync(&file)?;
        self.fs.rename(&beside, &self.path)?;
        self.fs.sync_folder(self.folder())
    }
}

/// The bytes of the file; None: there is none, or it is nothing of ours.
fn read_all<F: FileSystem>(fs: &F, path: &[String]) -> io::Result<Option<Vec<u8>>> {
    let Some(stamp) = fs.stamp(path)?.filter(|stamp| stamp.len <= JOURNAL_LEN_MAX) else { return Ok(None) };
    let mut bytes = vec![0; stamp.len as usize];
    let file = fs.open_read(path)?;
    fs.read_exact_at(&file, &mut bytes, 0)?;
    Ok(Some(bytes))
}
