//! Pieces that are not whole, on the disk: their blocks are written into their places, read back
//! when the piece is whole, and found again by the next start.
//!
//! The checksums are ours, of what we wrote: a block that reads otherwise was not kept by the disk,
//! or somebody changed it, and no peer is to blame. It is fetched again. What reads well is in
//! caches perhaps, and not on the disk: of a piece of an earlier run, and after a sync that failed,
//! all blocks are written once more when it is whole.

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

/// Pieces of which blocks are on the disk.
#[derive(Debug, Default)]
pub(super) struct Begun {
    pieces: Mutex<BTreeMap<PieceIndex, Doubts>>,
}

/// What is to be said against the blocks of a piece.
#[derive(Clone, Copy, Debug, Default)]
struct Doubts {
    /// They may be in caches alone.
    is_unsure: bool,
    /// The device could not read one, once.
    is_unread: bool,
}

impl Begun {
    fn pieces(&self) -> MutexGuard<'_, BTreeMap<PieceIndex, Doubts>> {
        // Entries come and go whole.
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sync failed.
    pub(super) fn doubt_all(&self) {
        self.pieces().values_mut().for_each(|doubts| doubts.is_unsure = true);
    }

    fn is_unsure(&self, piece: PieceIndex) -> bool {
        self.pieces().get(&piece).is_some_and(|doubts| doubts.is_unsure)
    }

    /// A block of the piece could not be read; whether for the second time.
    fn is_unread_again(&self, piece: PieceIndex) -> bool {
        self.pieces().get_mut(&piece).is_some_and(|doubts| std::mem::replace(&mut doubts.is_unread, true))
    }
}

impl<F: FileSystem> Store<F> {
    /// Writes a whole piece out of its blocks in order, of which only those in `fresh` (ranges of
    /// `blocks`) are not in their places yet.
    ///
    /// # Errors
    /// It is not to be handed on, nor claimed; it may be tried again.
    pub fn write_rest(
        &self,
        piece: PieceIndex,
        blocks: &[&[u8]],
        fresh: &[Range<usize>],
    ) -> Result<(), StorageError> {
        let ledger = self.begin_write(piece)?;
        let all = 0..blocks.len();
        let was_unsure = self.begun.is_unsure(piece);
        self.content.write_rest(
            piece,
            blocks,
            if was_unsure { std::slice::from_ref(&all) } else { fresh },
        )?;
        let kept = Kept { piece, in_parts: self.content.is_in_parts(piece) };
        let doubts = self.begun.pieces().remove(&piece).unwrap_or_default();
        // A sync failed meanwhile that was to cover the first blocks: the next commit makes sure of
        // the piece.
        let is_unsure = doubts.is_unsure && !was_unsure;
        match ledger {
            Some(ledger) => {
                let mut state = ledger.state();
                state.put_back(&[kept], is_unsure);
                state.journal.written();
            }
            None => self.unrecorded.add(kept, is_unsure),
        }
        Ok(())
    }

    /// Writes blocks of a piece that is not whole into their places, by their number in it,
    /// ascending; the CRC-32 of each.
    ///
    /// # Errors
    /// Some may have been written; it may be tried again.
    pub fn write_blocks<B: AsRef<[u8]>>(
        &self,
        piece: PieceIndex,
        blocks: &[(u32, B)],
    ) -> Result<Vec<u32>, StorageError> {
        let ledger = self.begin_write(piece)?;
        self.begun.pieces().entry(piece).or_default();
        for run in blocks.chunk_by(|one, other| one.0 + 1 == other.0) {
            let bytes: Vec<&[u8]> = run.iter().map(|(_, content)| content.as_ref()).collect();
            self.content.write_blocks(piece, run[0].0 * BLOCK_LEN, &bytes)?;
        }
        let spilled = |&(index, ref content): &(u32, B)| {
            let block = self.info().geometry.block(piece, index);
            Spilled { index, crc: self.content.crc_as_stored(block, content.as_ref()) }
        };
        let spilled: Vec<_> = blocks.iter().map(spilled).collect();
        if let Some(ledger) = ledger {
            ledger.state().journal.note_blocks(piece, &spilled);
        }
        Ok(spilled.iter().map(|spilled| spilled.crc).collect())
    }

    /// Reads the blocks of a piece that are on the disk, one behind the other; None: one is not
    /// there as it was written.
    ///
    /// # Errors
    /// The disk fails in a way that may pass.
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
                // A place that is bad is not waited for: what is written anew finds another.
                Err(error) if !error.is_of_device() || !self.begun.is_unread_again(whole.piece) => {
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

    /// Writes what is not on the disk of a whole piece, if its hash is right; whether it is.
    /// `blocks` are its bytes.
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

    /// What an earlier run wrote of pieces that are not there, and is still as it was written. To
    /// be called before anything is written.
    pub fn partial_pieces(&self, have: &Bitfield) -> Vec<PartialPiece> {
        let Some(ledger) = self.ledger.get() else { return Vec::new() };
        let noted = ledger.state().journal.record().blocks.clone();
        let wanted = self.content.wanted();
        let missing = noted.into_iter().filter(|&(piece, _)| wanted.get(piece) && !have.get(piece));
        let mut buffer = vec![0; BLOCK_LEN as usize];
        let mut is_there = |piece, spilled: &Spilled| {
            let block = self.info().geometry.block(piece, spilled.index);
            let read = self.is_as_written(block, spilled.crc, &mut buffer[..block.len as usize]);
            // What cannot be read now is fetched.
            read.unwrap_or(false)
        };
        let partial = missing.map(|(piece, blocks)| {
            let spilled = blocks.into_iter().map(|(index, crc)| Spilled { index, crc });
            PartialPiece { piece, blocks: spilled.filter(|spilled| is_there(piece, spilled)).collect() }
        });
        let partial: Vec<_> = partial.filter(|partial| !partial.blocks.is_empty()).collect();
        ledger.state().journal.trust_blocks(&partial);
        let of_earlier_run = Doubts { is_unsure: true, is_unread: false };
        self.begun.pieces().extend(partial.iter().map(|partial| (partial.piece, of_earlier_run)));
        partial
    }

    /// Blocks of a piece are not what they should be.
    fn forget_blocks(&self, piece: PieceIndex) {
        self.begun.pieces().remove(&piece);
        if let Some(ledger) = self.ledger.get() {
            // Else the next start takes them, and finds out once more when their piece is whole.
            let _ = ledger.state().journal.lose(&[piece]);
        }
    }
}
