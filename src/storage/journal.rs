//! The journal of one torrent: which pieces are durable, so that a start need not hash what is known to be good.
//!
//! An append-only file of records, each with its length and a CRC-32. The order that makes it true: a piece is
//! *intended* (appended, not synced) before its bytes are written; the bytes are made durable; only then is it
//! *kept* (appended and synced) together with the stamps of the files that were synced. So a kept piece was on
//! disk before the journal said so, whatever was lost afterwards, and a piece that was intended and not kept is
//! the only one that has to be looked at. A clean end writes the stamps of all files.
//!
//! Reading is total: records are taken up to the first one that is torn or false, as a power cut leaves at the
//! end; then there may be more on disk than the journal says, and the caller has to look. The file is written
//! anew beside itself and renamed into its place when the caller has settled what is there, when the tail has
//! grown, and at a clean end; one of a newer version is left alone.
//!
//! It knows which pieces there are, not where they lie: files are numbers with stamps.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::content::StorageError;
use super::fs::{FileSystem, Stamp};
use crate::proto::bitfield::Bitfield;
use crate::proto::infohash::InfoHash;
use crate::proto::piece::{Geometry, PieceIndex};

/// First bytes of every journal.
const MAGIC: [u8; 8] = *b"spratjnl";
/// What this program writes, and all that it reads.
const VERSION: u32 = 1;
/// Magic, version, infohash, total length, piece length, file count, CRC.
const HEADER_LEN: usize = 8 + 4 + 20 + 8 + 4 + 4 + 4;
/// Kind and length before a record's payload.
const PREFIX_LEN: usize = 5;
/// The CRC behind it.
const CRC_LEN: usize = 4;
/// Longest journal that is read: a snapshot of the most pieces, stamps of a million files, and a tail. A longer
/// one was not written by us and counts as missing.
const JOURNAL_LEN_MAX: u64 = 128 << 20;
/// Bytes of tail beyond the snapshot before the journal is written anew: an hour of a fast download.
const TAIL_LEN_MAX: u64 = 1 << 20;
/// Bytes of a stamp in a record.
const STAMP_LEN: usize = 4 + 4 * 8;
/// In a record of pieces: its bytes of unselected files lie in the parts file.
const IN_PARTS: u32 = 1 << 31;

const KIND_SNAPSHOT: u8 = 1;
const KIND_INTENDED: u8 = 2;
const KIND_KEPT: u8 = 3;
const KIND_LOST: u8 = 4;
const KIND_CLEAN: u8 = 5;

/// What a journal belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Which torrent.
    pub infohash: InfoHash,
    /// Its pieces.
    pub geometry: Geometry,
    /// Its files, pad files included; the parts file comes after the last.
    pub file_count: u32,
}

/// A piece on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// Which.
    pub piece: PieceIndex,
    /// Its bytes of unselected files lie in the parts file.
    pub in_parts: bool,
}

/// What a journal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Pieces that were durable.
    pub kept: Bitfield,
    /// Of these, those with bytes in the parts file.
    pub in_parts: Bitfield,
    /// Pieces that may have been written since, with the wall clock then, microseconds since 1970.
    pub intended: BTreeMap<PieceIndex, u64>,
    /// Files as they were when last made durable, by number.
    pub stamps: BTreeMap<u32, Stamp>,
    /// Whether it ended with everything durable and all stamps written.
    pub clean: bool,
    /// Whether it could be read to its end: else pieces may be there that it does not name.
    pub whole: bool,
}

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

impl Record {
    /// What no journal says of a torrent of so many pieces.
    pub(super) fn nothing(piece_count: u32) -> Self {
        Self {
            kept: Bitfield::new(piece_count),
            in_parts: Bitfield::new(piece_count),
            intended: BTreeMap::new(),
            stamps: BTreeMap::new(),
            clean: false,
            whole: false,
        }
    }

    fn keep(&mut self, piece: Kept) {
        self.kept.set(piece.piece);
        if piece.in_parts {
            self.in_parts.set(piece.piece);
        } else {
            self.in_parts.clear(piece.piece);
        }
        self.intended.remove(&piece.piece);
    }

    fn lose(&mut self, piece: PieceIndex) {
        self.kept.clear(piece);
        self.in_parts.clear(piece);
    }
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
        let decoded = bytes.map_or(Ok(None), |bytes| decode(&bytes, &owner));
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
        let settled = Record { kept, in_parts, intended: BTreeMap::new(), stamps, clean, whole: true };
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
        let mut payload = Vec::with_capacity(12);
        payload.extend_from_slice(&now.to_le_bytes());
        payload.extend_from_slice(&piece.to_le_bytes());
        self.append(KIND_INTENDED, &payload)?;
        self.record.intended.insert(piece, now);
        self.record.clean = false;
        Ok(())
    }

    /// Appends that these pieces are durable, and that these files were synced and then looked as stamped. The
    /// file that comes back is to be synced, without holding others up, and then [`Journal::kept`] be called.
    ///
    /// # Errors
    /// The record could not be appended.
    pub fn keep(&mut self, pieces: &[Kept], stamps: &[(u32, Stamp)]) -> Result<F::File, StorageError> {
        let mut payload = Vec::with_capacity(4 + pieces.len() * 4 + stamps.len() * STAMP_LEN);
        payload.extend_from_slice(&(pieces.len() as u32).to_le_bytes());
        for piece in pieces {
            let flag = if piece.in_parts { IN_PARTS } else { 0 };
            payload.extend_from_slice(&(piece.piece | flag).to_le_bytes());
        }
        encode_stamps(stamps, &mut payload);
        self.append(KIND_KEPT, &payload)
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
        let payload: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_le_bytes()).collect();
        let file = self.append(KIND_LOST, &payload)?;
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

    fn append(&mut self, kind: u8, payload: &[u8]) -> Result<F::File, StorageError> {
        if !self.is_sound {
            self.rewrite()?;
        }
        let bytes = encode(kind, payload);
        let written = self.fs.open_write(&self.path).and_then(|file| {
            self.fs.write_all_at(&file, &[&bytes], self.end)?;
            Ok(file)
        });
        let file = written.map_err(|source| self.error(source))?;
        // Only now: a write that failed is written over by the next one.
        self.end += bytes.len() as u64;
        Ok(file)
    }

    /// Writes everything anew beside the journal, and puts it into its place.
    fn rewrite(&mut self) -> Result<(), StorageError> {
        let bytes = self.encode_all();
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

    fn encode_all(&self) -> Vec<u8> {
        let record = &self.record;
        let mut bytes = header(&self.owner);
        let mut payload = Vec::new();
        payload.extend_from_slice(record.kept.as_bytes());
        payload.extend_from_slice(record.in_parts.as_bytes());
        let stamps: Vec<_> = record.stamps.iter().map(|(&file, &stamp)| (file, stamp)).collect();
        encode_stamps(&stamps, &mut payload);
        bytes.extend(encode(KIND_SNAPSHOT, &payload));
        for (&piece, &at) in &record.intended {
            let intended: Vec<u8> = at.to_le_bytes().into_iter().chain(piece.to_le_bytes()).collect();
            bytes.extend(encode(KIND_INTENDED, &intended));
        }
        if record.clean {
            bytes.extend(encode(KIND_CLEAN, &[]));
        }
        bytes
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

fn header(owner: &Owner) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&owner.infohash.0);
    bytes.extend_from_slice(&owner.geometry.total_len().to_le_bytes());
    bytes.extend_from_slice(&owner.geometry.piece_len().to_le_bytes());
    bytes.extend_from_slice(&owner.file_count.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn encode(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX_LEN + payload.len() + CRC_LEN);
    bytes.push(kind);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn encode_stamps(stamps: &[(u32, Stamp)], out: &mut Vec<u8>) {
    for (file, stamp) in stamps {
        out.extend_from_slice(&file.to_le_bytes());
        out.extend_from_slice(&stamp.len.to_le_bytes());
        out.extend_from_slice(&stamp.modified.to_le_bytes());
        out.extend_from_slice(&stamp.changed.to_le_bytes());
        out.extend_from_slice(&stamp.inode.to_le_bytes());
    }
}

/// What the bytes say; None: nothing about this torrent.
///
/// # Errors
/// The version, if it is newer than ours.
fn decode(bytes: &[u8], owner: &Owner) -> Result<Option<Record>, u32> {
    let Some((head, mut rest)) = bytes.split_at_checked(HEADER_LEN) else { return Ok(None) };
    let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if head[..8] == MAGIC && version > VERSION {
        return Err(version);
    }
    if head != header(owner) {
        return Ok(None);
    }
    let mut record = Record::nothing(owner.geometry.piece_count());
    while let Some((kind, payload, after)) = split_record(rest) {
        if apply(&mut record, kind, payload, owner).is_none() {
            break;
        }
        rest = after;
    }
    record.whole = rest.is_empty() && bytes.len() > HEADER_LEN;
    // What followed may have undone it.
    record.clean &= record.whole;
    Ok(Some(record))
}

/// The record in front: kind, payload, and what follows it; None: it is torn or false.
fn split_record(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, a, b, c, d], _) = bytes.split_first_chunk::<PREFIX_LEN>()?;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    let (checked, rest) = bytes.split_at_checked(PREFIX_LEN.checked_add(len)?)?;
    let (crc, rest) = rest.split_first_chunk::<CRC_LEN>()?;
    (crc32fast::hash(checked) == u32::from_le_bytes(*crc)).then_some((kind, &checked[PREFIX_LEN..], rest))
}

/// None: the payload is not of its kind.
fn apply(record: &mut Record, kind: u8, payload: &[u8], owner: &Owner) -> Option<()> {
    record.clean = false;
    match kind {
        KIND_SNAPSHOT => snapshot(record, payload, owner)?,
        KIND_INTENDED => {
            let (at, piece) = payload.split_first_chunk::<8>()?;
            let piece = piece_of(<[u8; 4]>::try_from(piece).ok()?, owner)?;
            record.lose(piece);
            record.intended.insert(piece, u64::from_le_bytes(*at));
        }
        KIND_KEPT => kept(record, payload, owner)?,
        KIND_LOST => {
            let (pieces, rest) = payload.as_chunks::<4>();
            let pieces: Option<Vec<_>> = pieces.iter().map(|&piece| piece_of(piece, owner)).collect();
            pieces.filter(|_| rest.is_empty())?.into_iter().for_each(|piece| record.lose(piece));
        }
        KIND_CLEAN => {
            record.intended.clear();
            record.clean = true;
        }
        _ => return None,
    }
    Some(())
}

fn snapshot(record: &mut Record, payload: &[u8], owner: &Owner) -> Option<()> {
    let piece_count = owner.geometry.piece_count();
    let (kept, rest) = payload.split_at_checked(Bitfield::byte_len(piece_count))?;
    let (in_parts, rest) = rest.split_at_checked(Bitfield::byte_len(piece_count))?;
    let stamps = stamps(rest, owner)?;
    *record = Record {
        kept: Bitfield::from_wire(kept, piece_count).ok()?,
        in_parts: Bitfield::from_wire(in_parts, piece_count).ok()?,
        intended: BTreeMap::new(),
        stamps,
        clean: false,
        whole: false,
    };
    Some(())
}

fn kept(record: &mut Record, payload: &[u8], owner: &Owner) -> Option<()> {
    let (count, rest) = payload.split_first_chunk::<4>()?;
    let (pieces, rest) = rest.split_at_checked((u32::from_le_bytes(*count) as usize).checked_mul(4)?)?;
    let stamps = stamps(rest, owner)?;
    let piece = |bytes: &[u8; 4]| {
        let word = u32::from_le_bytes(*bytes);
        let piece = piece_of((word & !IN_PARTS).to_le_bytes(), owner)?;
        Some(Kept { piece, in_parts: word & IN_PARTS != 0 })
    };
    let pieces: Vec<Kept> = pieces.as_chunks::<4>().0.iter().map(piece).collect::<Option<_>>()?;
    pieces.into_iter().for_each(|piece| record.keep(piece));
    record.stamps.extend(stamps);
    Some(())
}

fn stamps(bytes: &[u8], owner: &Owner) -> Option<BTreeMap<u32, Stamp>> {
    let (stamps, rest) = bytes.as_chunks::<STAMP_LEN>();
    if !rest.is_empty() {
        return None;
    }
    let word = |bytes: &[u8; STAMP_LEN], at: usize| bytes[at..].first_chunk::<8>().copied();
    let stamp = |bytes: &[u8; STAMP_LEN]| {
        let file = u32::from_le_bytes(*bytes.first_chunk()?);
        let stamp = Stamp {
            len: u64::from_le_bytes(word(bytes, 4)?),
            modified: i64::from_le_bytes(word(bytes, 12)?),
            changed: i64::from_le_bytes(word(bytes, 20)?),
            inode: u64::from_le_bytes(word(bytes, 28)?),
        };
        (file <= owner.file_count).then_some((file, stamp))
    };
    stamps.iter().map(stamp).collect()
}

fn piece_of(bytes: [u8; 4], owner: &Owner) -> Option<PieceIndex> {
    Some(u32::from_le_bytes(bytes)).filter(|&piece| piece < owner.geometry.piece_count())
}
