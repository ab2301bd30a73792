//! Incomplete pieces on the disk: their blocks are written to their final places, read back when
//! the piece is complete, and found again by the next start.
//!
//! The checksums cover the bytes that this program wrote. If a block reads differently, the disk
//! lost it or another program changed it; no peer is blamed, and the block is downloaded again. A
//! block that reads correctly may still be only in caches: all blocks of a piece of an earlier run,
//! or of one written before a failed sync, are written once more when the piece is complete. Other
//! blocks are not: to write each piece whole when it is complete would be simpler, but 384 MiB in
//! pieces of 16 MiB at 48 MiB/s would then be 625 MiB of writes to the disk (`write_bytes` of
//! /proc/PID/io, median of 3).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Store;
use crate::proto::bitfield::Bitfield;
use crate::proto::block::{BLOCK_LEN, Block};
use crate::proto::piece::PieceIndex;
use crate::storage::content::StorageError;
use crate::storage::fs::FileSystem;
use crate::storage::journal::Kept;
use crate::storage::pieces::{Held, PartialPiece, Spilled, WholePiece};

/// The incomplete pieces that have blocks on the disk.
#[derive(Debug, Default)]
pub(super) struct OnDiskPartials {
    pieces: Mutex<BTreeMap<PieceIndex, Integrity>>,
}

/// How far the blocks of a piece on the disk can be trusted.
#[derive(Clone, Copy, Debug, Default)]
struct Integrity {
    /// They may be only in caches.
    is_unsure: bool,
    /// The device failed to read one of them once.
    is_unread: bool,
}

impl OnDiskPartials {
    fn pieces(&self) -> MutexGuard<'_, BTreeMap<PieceIndex, Integrity>> {
        // Each change is complete on its own.
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sync failed: marks all blocks as possibly only in caches.
    pub(super) fn mark_all_unsure(&self) {
        self.pieces().values_mut().for_each(|integrity| integrity.is_unsure = true);
    }

    fn is_unsure(&self, piece: PieceIndex) -> bool {
        self.pieces().get(&piece).is_some_and(|integrity| integrity.is_unsure)
    }

    /// Notes that a block of the piece could not be read; returns whether this is the second time.
    fn is_unread_again(&self, piece: PieceIndex) -> bool {
        self.pieces()
            .get_mut(&piece)
            .is_some_and(|integrity| std::mem::replace(&mut integrity.is_unread, true))
    }
}

impl<F: FileSystem> Store<F> {
    /// Writes a complete piece from its blocks in order; only those in `fresh` (ranges of `blocks`)
    /// are not in their places yet.
    ///
    /// # Errors
    /// The piece must neither be uploaded nor announced; the caller may try again.
    pub fn write_rest(
        &self,
        piece: PieceIndex,
        blocks: &[&[u8]],
        fresh: &[Range<usize>],
    ) -> Result<(), StorageError> {
        let journal = self.begin_write(piece)?;
        let all = 0..blocks.len();
        let was_unsure = self.on_disk().is_unsure(piece);
        self.content.write_rest(
            piece,
            blocks,
            if was_unsure { std::slice::from_ref(&all) } else { fresh },
        )?;
        let kept = Kept { piece, in_parts: self.content.is_in_parts(piece) };
        let integrity = self.on_disk().pieces().remove(&piece).unwrap_or_default();
        // A sync that should have covered the first blocks failed meanwhile: the next commit
        // rewrites the piece.
        let is_unsure = integrity.is_unsure && !was_unsure;
        self.uncommitted().lock().add(&[kept], is_unsure);
        journal.into_iter().for_each(|journal| journal.lock().file.written());
        Ok(())
    }

    /// Writes blocks of an incomplete piece to their places; `blocks` has ascending numbers in the
    /// piece. Returns the CRC-32 of each.
    ///
    /// # Errors
    /// Some blocks may have been written; the caller may try again.
    pub fn write_blocks<B: AsRef<[u8]>>(
        &self,
        piece: PieceIndex,
        blocks: &[(u32, B)],
    ) -> Result<Vec<u32>, StorageError> {
        let journal = self.begin_write(piece)?;
        self.on_disk().pieces().entry(piece).or_default();
        for run in blocks.chunk_by(|one, other| one.0 + 1 == other.0) {
            let bytes: Vec<&[u8]> = run.iter().map(|(_, content)| content.as_ref()).collect();
            self.content.write_blocks(piece, run[0].0 * BLOCK_LEN, &bytes)?;
        }
        let spilled = |&(index, ref content): &(u32, B)| {
            let block = self.info().geometry.block(piece, index);
            Spilled { index, crc: self.content.crc_as_stored(block, content.as_ref()) }
        };
        let spilled: Vec<_> = blocks.iter().map(spilled).collect();
        if let Some(journal) = journal {
            journal.lock().file.note_blocks(piece, &spilled);
        }
        Ok(spilled.iter().map(|spilled| spilled.crc).collect())
    }

    /// Reads the blocks of a piece that are on the disk into one buffer, in order. Returns `None`
    /// if one is missing or differs from what was written.
    ///
    /// # Errors
    /// The disk has a fault that may clear.
    pub fn read_back<B>(&self, whole: &WholePiece<B>) -> Result<Option<Vec<u8>>, StorageError> {
        if whole.blocks.is_empty() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        for (index, held) in (0..).zip(&whole.blocks) {
            let Held::Disk(crc) = held else { continue };
            let (block, start) = (self.info().geometry.block(whole.piece, index), bytes.len());
            bytes.resize(start + block.len as usize, 0);
            match self.is_as_written(block, *crc, &mut bytes[start..]) {
                Ok(true) => {}
                // A second failure means a bad sector: a new write goes to another one.
                Err(error) if !error.is_of_device() || !self.on_disk().is_unread_again(whole.piece) => {
                    return Err(error);
                }
                Ok(false) | Err(_) => {
                    self.forget_blocks(whole.piece);
                    return Ok(None);
                }
            }
        }
        Ok(Some(bytes))
    }

    fn is_as_written(&self, block: Block, crc: u32, buffer: &mut [u8]) -> Result<bool, StorageError> {
        match self.content.read_back(block.piece, block.offset, buffer) {
            Ok(()) => Ok(crc32fast::hash(buffer) == crc),
            Err(error) if error.may_pass() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Writes the blocks of a complete piece that are not on the disk yet, if its hash is right;
    /// returns `is_right`. `blocks` are the bytes of the piece.
    ///
    /// # Errors
    /// Those of [`Store::write_rest`].
    pub fn write_if<B: AsRef<[u8]>>(
        &self,
        is_right: bool,
        whole: &WholePiece<B>,
        blocks: &[&[u8]],
    ) -> Result<bool, StorageError> {
        let fresh = whole.fresh();
        if is_right {
            self.write_rest(whole.piece, blocks, &fresh)?;
        } else if !matches!(&fresh[..], [all] if all.len() == blocks.len()) {
            self.forget_blocks(whole.piece);
        }
        Ok(is_right)
    }

    /// Returns the blocks of missing pieces that an earlier run wrote and that are unchanged.
    /// Called before anything is written.
    pub fn partial_pieces(&self, have: &Bitfield) -> Vec<PartialPiece> {
        let Some(journal) = self.journal.get() else { return Vec::new() };
        let noted = journal.lock().file.record().blocks.clone();
        let wanted = self.content.wanted();
        let missing = noted.into_iter().filter(|&(piece, _)| wanted.get(piece) && !have.get(piece));
        let mut buffer = vec![0; BLOCK_LEN as usize];
        let mut is_there = |piece, spilled: &Spilled| {
            let block = self.info().geometry.block(piece, spilled.index);
            let read = self.is_as_written(block, spilled.crc, &mut buffer[..block.len as usize]);
            // A block that cannot be read now is downloaded.
            read.unwrap_or(false)
        };
        let partial = missing.map(|(piece, blocks)| {
            let spilled = blocks.into_iter().map(|(index, crc)| Spilled { index, crc });
            PartialPiece { piece, blocks: spilled.filter(|spilled| is_there(piece, spilled)).collect() }
        });
        let partial: Vec<_> = partial.filter(|partial| !partial.blocks.is_empty()).collect();
        journal.lock().file.trust_blocks(&partial);
        let of_earlier_run = Integrity { is_unsure: true, is_unread: false };
        self.on_disk().pieces().extend(partial.iter().map(|partial| (partial.piece, of_earlier_run)));
        partial
    }

    /// Forgets the blocks of a piece, because some differ from what was written.
    fn forget_blocks(&self, piece: PieceIndex) {
        self.on_disk().pieces().remove(&piece);
        if let Some(journal) = self.journal.get() {
            // If this fails, the next start takes the blocks and finds the difference again.
            let _ = journal.lock().file.lose(&[piece]);
        }
    }
}
