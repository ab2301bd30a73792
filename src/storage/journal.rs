//! The journal of one torrent: which pieces are durable, so that a start need not hash what is known to be good.
//!
//! An append-only file of records, each with its length and a CRC-32. The order that makes it true: a piece is
//! *intended* (appended, not synced) before its bytes are written; the bytes are made durable; only then is it
//! *kept* (appended and synced) together with the stamps of the files that were synced. So a kept piece was on
//! disk before the journal said so, whatever was lost afterwards, and a piece that was intended and not kept is
//! the only one that has to be looked at. A clean end writes the stamps of all files. Blocks of a piece that is not
//! whole are noted with a checksum after they were written: whether they are there is found out by reading them.
//!
//! Reading is total: records are taken up to the first one that is torn or false, as a power cut leaves at the
//! end; then there may be more on disk than the journal says, and the caller has to look. The file is written
//! anew beside itself and renamed into its place when the caller has settled what is there, when the tail has
//! grown, and at a clean end; one of a newer version is left alone.
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
pub use record::{Kept, Owner, Record};

/// Longest journal that is read: a snapshot of the most pieces, stamps of a million files, and a tail. A longer
/// one was not written by us and counts as missing.
const JOURNAL_LEN_MAX: u64 = 128 << 20;
/// Bytes of tail beyond the snapshot before the journal is written anew: an hour of a fast download.
const TAIL_LEN_MAX: u64 = 1 << 20;

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Written by a newer program; it is left alone.
    #[error("{path}: written by a newer version of this program (format {version}); it is left as it is", path = path.display())]
    Version {
        /// The journal.
        path: PathBuf,
        /// What it says.
        version: u32,
    },
    /// It cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

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
    /// Whether the file is known to hold what was written to it: not before it is first written, nor after a sync
    /// of it failed, for then records in its middle may be lost, and with them all that follow.
    is_sound: bool,
    /// What the journal says.
    record: Record,
}

impl<F: FileSystem> Journal<F> {
    /// Reads the journal at `path`; none, or one that makes no sense, is a record of nothing that is not whole.
    /// Nothing is written before [`Journal::settle`].
    ///
    /// # Errors
    /// It is of a newer version, or cannot be read or made.
    pub fn open(fs: Arc<F>, path: Vec<String>, owner: Owner) -> Result<Self, JournalError> {
        let full_path = fs.full_path(&path);
        let bytes = read_all(&*fs, &path).map_err(|source| StorageError::new(&full_path, source))?;
        let decoded = bytes.map_or(Ok(None), |bytes| record::decode(&bytes, &owner));
        let record = decoded.map_err(|version| JournalError::Version { path: full_path, version })?;
        let record = record.unwrap_or_else(|| Record::nothing(owner.geometry.piece_count()));
        Ok(Self { fs, path, owner, end: 0, snapshot_len: 0, is_sound: false, record })
    }

    /// It is known now what is there, exactly: these pieces, in files that look as stamped; `clean`: and all of
    /// it is durable, so that the next start need only compare. To be called before anything else is told.
    ///
    /// # Errors
    /// The journal could not be written.
    pub fn settle(
        &mut self,
        kept: Bitfield,
        in_parts: Bitfield,
        stamps: BTreeMap<u32, Stamp>,
        clean: bool,
    ) -> Result<(), StorageError> {
        let mut blocks = self.record.blocks.clone();
        blocks.retain(|&piece, _| !kept.get(piece));
        let settled =
            Record { kept, in_parts, intended: BTreeMap::new(), blocks, stamps, clean, whole: true };
        let before = std::mem::replace(&mut self.record, settled);
        // Or else whoever tries again would find it said.
        let written = self.rewrite();
        if written.is_err() {
            self.record = before;
        }
        written
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
        self.record.kept = kept;
        self.record.in_parts = in_parts;
    }

    /// How these files looked when they were last stamped vouches for nothing any more. Not synced: if the machine
    /// goes down, they look otherwise.
    ///
    /// # Errors
    /// The record could not be appended; the files are not to be written.
    pub fn forget(&mut self, files: &[u32]) -> Result<(), StorageError> {
        let stamps: Vec<_> = files.iter().map(|&file| (file, Stamp::UNKNOWN)).collect();
        self.keep(&[], &stamps)?;
        self.kept(&[], &stamps)
    }

    /// This piece, which is not kept, is about to be written, at `now` by the wall clock. Not synced: if the machine
    /// goes down, the piece counts as not there, which is true.
    ///
    /// # Errors
    /// The record could not be appended; the piece is not to be written.
    pub fn intend(&mut self, now: u64, piece: PieceIndex) -> Result<(), StorageError> {
        self.append(&record::intended(now, piece))?;
        self.record.intended.insert(piece, now);
        self.record.clean = false;
        Ok(())
    }

    /// These blocks of a piece, which is intended, were written. Not synced: if the machine goes down, their checksums say
    /// whether they are there.
    ///
    /// # Errors
    /// The record could not be appended; the next start does not know of them.
    pub fn note_blocks(&mut self, piece: PieceIndex, blocks: &[Spilled]) -> Result<(), StorageError> {
        self.append(&record::blocks(piece, blocks.iter().copied()))?;
        self.record.note_blocks(piece, blocks);
        self.record.clean = false;
        Ok(())
    }

    /// Of the blocks that it names only these are there. Nothing is written.
    pub fn trust_blocks(&mut self, partial: &[PartialPiece]) {
        self.record.blocks.clear();
        partial.iter().for_each(|partial| self.record.note_blocks(partial.piece, &partial.blocks));
    }

    /// Appends that these pieces are durable, and that these files were synced and then looked as stamped. The
    /// file that comes back is to be synced, without holding others up, and then [`Journal::kept`] be called.
    ///
    /// # Errors
    /// The record could not be appended.
    pub fn keep(&mut self, pieces: &[Kept], stamps: &[(u32, Stamp)]) -> Result<F::File, StorageError> {
        self.append(&record::kept(pieces, stamps))
    }

    /// What was appended by [`Journal::keep`] is durable.
    ///
    /// # Errors
    /// The journal was due to be written anew and could not be; what it says stands.
    pub fn kept(&mut self, pieces: &[Kept], stamps: &[(u32, Stamp)]) -> Result<(), StorageError> {
        pieces.iter().for_each(|&piece| self.record.keep(piece));
        self.record.stamps.extend(stamps.iter().copied());
        self.record.clean = false;
        if self.end - self.snapshot_len > TAIL_LEN_MAX { self.rewrite() } else { Ok(()) }
    }

    /// These pieces turned out to be gone or false. The file that comes back is to be synced, without holding others
    /// up.
    ///
    /// # Errors
    /// The record could not be appended.
    pub fn lose(&mut self, pieces: &[PieceIndex]) -> Result<F::File, StorageError> {
        let file = self.append(&record::lost(pieces))?;
        // Before it is durable: if that fails, what is written anew is to be without them.
        pieces.iter().for_each(|&piece| self.record.lose(piece));
        self.record.clean = false;
        Ok(file)
    }

    /// A sync of the journal failed: it is written anew before anything is added.
    pub(super) fn not_synced(&mut self, source: io::Error) -> StorageError {
        self.is_sound = false;
        self.error(source)
    }

    fn error(&self, source: io::Error) -> StorageError {
        StorageError::new(&self.fs.full_path(&self.path), source)
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
        self.replace(&bytes).map_err(|source| self.error(source))?;
        self.end = bytes.len() as u64;
        self.snapshot_len = self.end;
        self.is_sound = true;
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
        self.fs.sync_folder(&self.path[..self.path.len() - 1])
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
