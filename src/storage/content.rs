//! One torrent's files: reads, writes and checks pieces.
//!
//! - The first write to a file grows it to its full length, sparse, so that readers see its final
//!   size. A longer file keeps its length: nothing that was on disk before is truncated.
//! - Pad files (BEP 47) are never on disk: they read as zeros, and writes to them are dropped.
//! - Unselected files are never created. If a piece shares bytes with a selected file, the bytes of
//!   unselected files lie in the parts file `.<infohash>.parts`: slot `i` of one piece length for
//!   the `i`-th piece that touches several files. The slots depend on the torrent alone, so the
//!   parts file survives restarts and changes of the selection. It is sparse, and stays until all
//!   files are selected and complete, because such pieces could not be uploaded without it. An
//!   unselected file that already exists is read, never written.
//!
//! Starts no threads. The state is a flag per file and slot, so that several threads may write and
//! read pieces at once.

mod at_once;
mod durable;
#[cfg(test)]
mod faulty_tests;
mod mixed;
mod names;
#[cfg(test)]
mod names_tests;
mod pending_verification;
mod unreadable;
mod watch;
mod writing;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use super::fs::{FileSystem, Obstacle};
use super::handles::is_out_of_descriptors;
use super::hash;
use super::span::{Span, spans};
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::metainfo::files::File;
use crate::proto::metainfo::{Info, PARTS_SUFFIX};
use crate::proto::piece::PieceIndex;
use pending_verification::PendingVerification;
use unreadable::Unreadable;
pub use watch::LostPiece;
use watch::Watch;

/// An error at a file. The kind of `source` decides the policy: a full disk pauses the torrent,
/// other errors end it.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = path.display())]
pub struct StorageError {
    /// The file.
    pub path: PathBuf,
    /// From the system.
    pub source: io::Error,
}

impl StorageError {
    /// Makes an error at `path`.
    pub fn new(path: &Path, source: impl Into<io::Error>) -> Self {
        Self { path: path.to_owned(), source: source.into() }
    }

    /// Whether no space or quota is left, which is a state that may clear.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Makes an error at `path` below the folder of `fs`. For an [`Obstacle`], the error names its
    /// place: `path` itself, or a folder above it.
    pub(super) fn below<F: FileSystem>(fs: &F, path: &[String], source: io::Error) -> Self {
        let depth = Obstacle::of(&source).map_or(path.len(), |obstacle| obstacle.depth);
        Self { path: fs.full_path(&path[..depth.min(path.len())]), source }
    }

    /// Returns the obstacle, if one caused the error.
    pub fn obstacle(&self) -> Option<Obstacle> {
        Obstacle::of(&self.source)
    }

    /// Whether the process or the system has no file descriptor left, which says nothing about the
    /// file.
    pub fn is_out_of_descriptors(&self) -> bool {
        is_out_of_descriptors(&self.source)
    }
}

/// One torrent's files below one folder. All methods take `&self`: reads and writes of different
/// pieces may run at once on different threads.
#[derive(Debug)]
pub struct Content<F: FileSystem> {
    info: Info,
    /// Whether each file is wanted; empty if all are.
    selected: Box<[bool]>,
    fs: F,
    /// One for each file, and one for the parts file if it has slots.
    written: Box<[Written]>,
    /// `None` if no piece touches several files.
    parts: Option<Box<Parts>>,
    unverified: PendingVerification,
    unreadable: Unreadable,
    /// Changes of files by other programs that were noticed.
    change_count: AtomicU32,
    /// Whether the files with delicate names have been created.
    are_named: AtomicBool,
}

/// What this process did to a file and knows of it.
#[derive(Debug, Default)]
struct Written {
    /// The path in use, if it is not the torrent's.
    name: OnceLock<Box<[String]>>,
    /// Whether this process has created the file and grown it to its length.
    sized: AtomicBool,
    /// Whether it was written since the last sync.
    dirty: AtomicBool,
    /// Detects changes by other programs.
    watch: Watch,
}

/// The parts file: a slot for every piece that touches several files.
#[derive(Debug)]
struct Parts {
    path: Vec<String>,
    /// Ascending; the index of a piece is its slot.
    pieces: Vec<PieceIndex>,
    /// Whether the slot is known to hold the unselected bytes of its piece.
    filled: Vec<AtomicBool>,
    /// Pieces found in another combination than the selection requires, with the files whose bytes
    /// are only in the parts file.
    mixed: Mutex<BTreeMap<PieceIndex, Vec<usize>>>,
}

/// The place where the bytes of unselected files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unselected {
    InParts,
    InFiles,
}

impl<F: FileSystem> Content<F> {
    /// Creates content; touches no file. `selected[i]` says whether file `i` of `info.files` is
    /// wanted (beyond its end: yes); blocks of unwanted files that share a piece with wanted ones
    /// go to a parts file.
    pub fn new(info: Info, mut selected: Vec<bool>, fs: F) -> Self {
        selected.resize(info.files.len(), true);
        if selected.iter().all(|&is_selected| is_selected) {
            selected = Vec::new();
        }
        let parts = Parts::new(&info);
        let count = info.files.len() + usize::from(parts.is_some());
        let written = (0..count).map(|_| Written::default()).collect();
        Self {
            info,
            selected: selected.into(),
            fs,
            written,
            parts,
            unverified: PendingVerification::default(),
            unreadable: Unreadable::default(),
            change_count: AtomicU32::new(0),
            are_named: AtomicBool::new(false),
        }
    }

    /// The torrent.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Where the content lies.
    pub fn fs(&self) -> &F {
        &self.fs
    }

    /// The files that shall be on disk, with their numbers: selected, and no pad files.
    pub fn selected_files(&self) -> impl Iterator<Item = (usize, &File)> {
        let files = self.info.files.iter().enumerate();
        files.filter(|(at, file)| self.is_selected(*at) && !file.attributes.pad)
    }

    /// The pieces that selected files touch.
    pub fn wanted(&self) -> Bitfield {
        let geometry = self.info.geometry;
        let mut wanted = Bitfield::new(geometry.piece_count());
        for (_, file) in self.selected_files() {
            for piece in pieces_of(file, geometry.piece_len()) {
                wanted.set(piece);
            }
        }
        wanted
    }

    /// Bytes of a piece that are in files.
    pub fn content_len_of(&self, piece: PieceIndex) -> u64 {
        let geometry = self.info.geometry;
        let spans = spans(&self.info.files, geometry.offset_of(piece), geometry.len_of(piece) as usize);
        spans.filter(|span| !self.info.files[span.file].attributes.pad).map(|span| span.len as u64).sum()
    }

    /// Reads a span of a piece into `buffer` (`buffer.len()` = `block.len`).
    ///
    /// # Errors
    /// The span is not within the piece (`InvalidInput`), or a file is missing, short or
    /// unreadable.
    pub fn read_block(&self, block: Block, buffer: &mut [u8]) -> Result<(), StorageError> {
        let end = u64::from(block.offset) + u64::from(block.len);
        if buffer.len() as u64 != u64::from(block.len)
            || end > u64::from(self.info.geometry.len_of(block.piece))
        {
            return Err(self.misuse("a read beyond the piece"));
        }
        self.read_range(block.piece, block.offset, buffer, self.unselected(block.piece))
    }

    /// Reads and hashes a piece: [`Content::check_pieces`] for one piece.
    ///
    /// # Errors
    /// An existing file cannot be read.
    pub fn check_piece(&self, piece: PieceIndex, scratch: &mut Vec<u8>) -> Result<bool, StorageError> {
        self.check_pieces(&[piece], scratch).pop().unwrap_or(Ok(false))
    }

    /// Reads and hashes pieces, best [`hash::side_by_side`] of them; returns the result of each, in
    /// order: `Ok(false)` for a missing or short file, an error for an existing one that cannot be
    /// read. `scratch` is a buffer to use again in the next call.
    pub fn check_pieces(
        &self,
        pieces: &[PieceIndex],
        scratch: &mut Vec<u8>,
    ) -> Vec<Result<bool, StorageError>> {
        let mut checked = Vec::with_capacity(pieces.len());
        let len_of = |piece: &PieceIndex| self.info.geometry.len_of(*piece);
        let slot_of = |piece: &PieceIndex| self.slot(*piece).filter(|_| self.has_unselected(*piece));
        let alike = |one: &PieceIndex, other: &PieceIndex| {
            len_of(one) == len_of(other) && slot_of(one).is_none() && slot_of(other).is_none()
        };
        for pieces in pieces.chunk_by(alike) {
            match slot_of(&pieces[0]) {
                Some(filled) => checked.push(self.check_with_parts(pieces[0], filled, scratch)),
                None => checked.append(&mut self.check_alike(pieces, scratch, Unselected::InFiles)),
            }
        }
        checked
    }

    /// An error at a file of the torrent, with its full path.
    pub(super) fn error(&self, path: &[String], source: io::Error) -> StorageError {
        StorageError::below(&self.fs, path, source)
    }

    fn misuse(&self, what: &'static str) -> StorageError {
        let name = std::slice::from_ref(&self.info.name);
        self.error(name, io::Error::new(io::ErrorKind::InvalidInput, what))
    }

    fn has_unselected(&self, piece: PieceIndex) -> bool {
        let geometry = self.info.geometry;
        spans(&self.info.files, geometry.offset_of(piece), geometry.len_of(piece) as usize)
            .any(|span| !self.is_selected(span.file) && !self.info.files[span.file].attributes.pad)
    }

    fn check_with_parts(
        &self,
        piece: PieceIndex,
        filled: &AtomicBool,
        scratch: &mut Vec<u8>,
    ) -> Result<bool, StorageError> {
        let mut check =
            |unselected| self.check_alike(&[piece], scratch, unselected).pop().unwrap_or(Ok(false));
        let found = check(Unselected::InParts)?;
        filled.store(found, Ordering::Release);
        if found { Ok(true) } else { check(Unselected::InFiles) }
    }

    /// Pieces of one length.
    fn check_alike(
        &self,
        pieces: &[PieceIndex],
        scratch: &mut Vec<u8>,
        unselected: Unselected,
    ) -> Vec<Result<bool, StorageError>> {
        let len = pieces.first().map_or(0, |piece| self.info.geometry.len_of(*piece));
        let digests = hash::digests_of_reads(pieces.len(), len as usize, scratch, |at, offset, buffer| {
            if pieces.len() > 1 && offset.is_multiple_of(hash::FETCH_LEN) {
                self.will_read(pieces[at], offset as u32, unselected);
            }
            self.read_range(pieces[at], offset as u32, buffer, unselected)
        });
        let check = |(piece, digest): (&PieceIndex, Result<_, StorageError>)| match digest {
            Ok(digest) => Ok(self.info.piece_hash(*piece) == Some(digest)),
            Err(error) if is_absent(&error.source) => Ok(false),
            Err(error) => Err(error),
        };
        pieces.iter().zip(digests).map(check).collect()
    }

    /// The place of the unselected bytes of a piece that was written or found.
    fn unselected(&self, piece: PieceIndex) -> Unselected {
        if self.is_in_parts(piece) { Unselected::InParts } else { Unselected::InFiles }
    }

    fn read_range(
        &self,
        piece: PieceIndex,
        offset: u32,
        mut buffer: &mut [u8],
        unselected: Unselected,
    ) -> Result<(), StorageError> {
        let start = self.info.geometry.offset_of(piece) + u64::from(offset);
        for span in spans(&self.info.files, start, buffer.len()) {
            let (head, rest) = buffer.split_at_mut(span.len);
            self.read_span(piece, span, head, unselected)?;
            buffer = rest;
        }
        Ok(())
    }

    fn read_span(
        &self,
        piece: PieceIndex,
        span: Span,
        buffer: &mut [u8],
        unselected: Unselected,
    ) -> Result<(), StorageError> {
        if self.info.files[span.file].attributes.pad {
            buffer.fill(0);
            return Ok(());
        }
        let (path, offset) = self.place(piece, span, unselected);
        self.fs
            .open_read(path)
            .and_then(|open| self.fs.read_exact_at(&open, buffer, offset))
            .map_err(|source| self.error(path, source))
    }

    /// Passes the hint that [`hash::FETCH_LEN`] describes for a piece from `offset` on.
    fn will_read(&self, piece: PieceIndex, offset: u32, unselected: Unselected) {
        let len = hash::FETCH_LEN.min((self.info.geometry.len_of(piece) - offset) as usize);
        let start = self.info.geometry.offset_of(piece) + u64::from(offset);
        for span in spans(&self.info.files, start, len) {
            let (path, offset) = self.place(piece, span, unselected);
            // The read reports a file that cannot be opened.
            if !self.info.files[span.file].attributes.pad
                && let Ok(open) = self.fs.open_read(path)
            {
                self.fs.will_read(&open, offset, span.len as u64);
            }
        }
    }

    /// The file where a span of a piece is read, and the offset there.
    fn place(&self, piece: PieceIndex, span: Span, unselected: Unselected) -> (&[String], u64) {
        let in_parts = !self.is_selected(span.file) && unselected == Unselected::InParts;
        match self.place_in_parts(piece, span).filter(|_| in_parts) {
            Some(offset) => (self.path_of(self.info.files.len()), offset),
            None => (self.path_of(span.file), span.offset),
        }
    }

    fn write_span(&self, piece: PieceIndex, span: Span, bytes: &[&[u8]]) -> Result<(), StorageError> {
        let (number, offset) = if self.is_selected(span.file) {
            (span.file, span.offset)
        } else {
            let Some(offset) = self.place_in_parts(piece, span) else {
                return Err(self.misuse("a write to a file that is not selected"));
            };
            (self.info.files.len(), offset)
        };
        let written = &self.written[number];
        written.watch.begin();
        let open = self.open_to_write(number);
        let result = open.and_then(|open| self.fs.write_all_at(&open, bytes, offset));
        let result = result.map_err(|source| self.error(self.path_of(number), source));
        // Marked after the write, so that a sync that sees the mark covers the bytes.
        written.dirty.store(true, Ordering::Release);
        written.watch.end();
        result
    }

    /// Opens a file, by number, for a write that has begun. A file that was created and is missing
    /// now was deleted by another program.
    fn open_to_write(&self, number: usize) -> io::Result<F::File> {
        let (path, written) = (self.path_of(number), &self.written[number]);
        if written.sized.load(Ordering::Acquire) {
            match self.fs.open_again(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.mark_unverified(number),
                opened => return opened,
            }
        }
        let open = self.fs.open_write(path)?;
        let stamp = self.fs.stamp_of(&open)?;
        if !written.watch.write_into(stamp) {
            self.mark_unverified(number);
        }
        if let Some(file) = self.info.files.get(number).filter(|file| stamp.len < file.len) {
            self.fs.set_len(&open, file.len)?;
        }
        written.sized.store(true, Ordering::Release);
        Ok(open)
    }

    fn place_in_parts(&self, piece: PieceIndex, span: Span) -> Option<u64> {
        let geometry = self.info.geometry;
        let within = self.info.files[span.file].offset + span.offset - geometry.offset_of(piece);
        let slot = self.parts.as_ref()?.slot(piece)?;
        Some(slot as u64 * u64::from(geometry.piece_len()) + within)
    }

    /// Whether the slot of a piece in the parts file is filled; `None` if it has no slot.
    fn slot(&self, piece: PieceIndex) -> Option<&AtomicBool> {
        let parts = self.parts.as_ref()?;
        Some(&parts.filled[parts.slot(piece)?])
    }
}

impl Parts {
    /// Makes the slots of a torrent; `None` if it needs none.
    fn new(info: &Info) -> Option<Box<Self>> {
        let mut pieces = Vec::new();
        let mut last = None;
        for file in info.files.iter().filter(|file| file.len > 0 && !file.attributes.pad) {
            let touched = pieces_of(file, info.geometry.piece_len());
            if last == Some(touched.start) && pieces.last() != Some(&touched.start) {
                pieces.push(touched.start);
            }
            last = touched.last();
        }
        let filled = pieces.iter().map(|_| AtomicBool::new(false)).collect();
        let path = vec![format!(".{}{PARTS_SUFFIX}", info.infohash)];
        let has_slots = !pieces.is_empty();
        has_slots.then(|| Box::new(Self { path, pieces, filled, mixed: Mutex::default() }))
    }

    fn slot(&self, piece: PieceIndex) -> Option<usize> {
        self.pieces.binary_search(&piece).ok()
    }
}

/// The pieces that a file touches; none for an empty one.
pub(super) fn pieces_of(file: &File, piece_len: u32) -> Range<PieceIndex> {
    let piece_len = u64::from(piece_len);
    let first = file.offset / piece_len;
    let end = if file.len == 0 { first } else { (file.offset + file.len).div_ceil(piece_len) };
    first as PieceIndex..end as PieceIndex
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
