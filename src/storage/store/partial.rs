//! Pieces that are not whole, on the disk: their blocks are written into their places, read back when the piece is
//! whole, and found again by the next start.
//!
//! The checksums are ours, of what we wrote: a block that reads otherwise was not kept by the disk, or somebody changed
//! it, and no peer is to blame. It is fetched again.

use super::Store;
use crate::proto::bitfield::Bitfield;
use crate::proto::block::BLOCK_LEN;
use crate::proto::piece::PieceIndex;
use crate::storage::content::StorageError;
use crate::storage::fs::FileSystem;
use crate::storage::pieces::{Held, PartialPiece, Spilled};

impl<F: FileSystem> Store<F> {
    /// Writes blocks of a piece that is not whole into their places, by their number in it, ascending; the CRC-32 of each.
    ///
    /// # Errors
    /// Some may have been written; it may be tried again.
    pub fn write_blocks<B: AsRef<[u8]>>(
        &self,
        piece: PieceIndex,
        blocks: &[(u32, B)],
    ) -> Result<Vec<u32>, StorageError> {
        let ledger = self.begin_write(piece)?;
        for run in blocks.chunk_by(|one, other| one.0 + 1 == other.0) {
            let bytes: Vec<&[u8]> = run.iter().map(|(_, content)| content.as_ref()).collect();
            self.content.write_blocks(piece, run[0].0 * BLOCK_LEN, &bytes)?;
        }
        let spilled =
            |&(index, ref content): &(u32, B)| Spilled { index, crc: crc32fast::hash(content.as_ref()) };
        let spilled: Vec<_> = blocks.iter().map(spilled).collect();
        if let Some(ledger) = ledger {
            ledger.state().journal.note_blocks(piece, &spilled)?;
        }
        Ok(spilled.iter().map(|spilled| spilled.crc).collect())
    }

    /// Reads the blocks of a piece that are on the disk, one behind the other; None: one is not there as it was written.
    pub fn read_back<B>(&self, piece: PieceIndex, blocks: &[Held<B>]) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for (index, held) in (0..).zip(blocks) {
            let Held::Disk(crc) = held else { continue };
            let (block, start) = (self.info().geometry.block(piece, index), bytes.len());
            bytes.resize(start + block.len as usize, 0);
            self.content.read_back(piece, block.offset, &mut bytes[start..]).ok()?;
            if crc32fast::hash(&bytes[start..]) != *crc {
                return None;
            }
        }
        Some(bytes)
    }

    /// What an earlier run wrote of pieces that are not there, and is still as it was written. To be called before
    /// anything is written.
    pub fn partial_pieces(&self, have: &Bitfield) -> Vec<PartialPiece> {
        let Some(ledger) = self.ledger.get() else { return Vec::new() };
        let noted = ledger.state().journal.record().blocks.clone();
        let wanted = self.content.wanted();
        let missing = noted.into_iter().filter(|&(piece, _)| wanted.get(piece) && !have.get(piece));
        let is_there = |piece, spilled: &Spilled| {
            let block = self.info().geometry.block(piece, spilled.index);
            let mut bytes = vec![0; block.len as usize];
            let read = self.content.read_back(piece, block.offset, &mut bytes);
            read.is_ok() && crc32fast::hash(&bytes) == spilled.crc
        };
        let partial = missing.map(|(piece, blocks)| {
            let spilled = blocks.into_iter().map(|(index, crc)| Spilled { index, crc });
            PartialPiece { piece, blocks: spilled.filter(|spilled| is_there(piece, spilled)).collect() }
        });
        let partial: Vec<_> = partial.filter(|partial| !partial.blocks.is_empty()).collect();
        ledger.state().journal.trust_blocks(&partial);
        partial
    }

    /// Blocks of a piece are not what they should be, though they are as they were written.
    pub fn forget_blocks(&self, piece: PieceIndex) {
        if let Some(ledger) = self.ledger.get() {
            // Else the next start takes them, and finds out once more when their piece is whole.
            let _ = ledger.state().journal.lose(&[piece]);
        }
    }
}
