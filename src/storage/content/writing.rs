//! Writes pieces, complete or block by block, and reads back incomplete ones.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::{Content, StorageError, Unselected};
use crate::proto::block::{BLOCK_LEN, Block};
use crate::proto::piece::PieceIndex;
use crate::storage::fs::FileSystem;
use crate::storage::span::spans;

/// The content of a block in a pad file.
const ZEROS: [u8; BLOCK_LEN as usize] = [0; BLOCK_LEN as usize];

impl<F: FileSystem> Content<F> {
    /// Writes a complete piece from its blocks in order.
    ///
    /// # Errors
    /// The blocks are not as long as the piece or belong to no selected file (`InvalidInput`), or a
    /// file cannot be created or written; then part of the piece may have been written.
    pub fn write_piece(&self, piece: PieceIndex, blocks: &[&[u8]]) -> Result<(), StorageError> {
        self.write_rest(piece, blocks, std::slice::from_ref(&(0..blocks.len())))
    }

    /// Writes the blocks of a complete piece that are not in their places yet (`fresh`: ranges of
    /// `blocks`), which completes the piece on the disk.
    ///
    /// # Errors
    /// Those of [`Content::write_piece`].
    pub fn write_rest(
        &self,
        piece: PieceIndex,
        blocks: &[&[u8]],
        fresh: &[Range<usize>],
    ) -> Result<(), StorageError> {
        let len_of = |blocks: &[&[u8]]| blocks.iter().map(|block| block.len()).sum::<usize>();
        if len_of(blocks) != self.info.geometry.len_of(piece) as usize {
            return Err(self.misuse("blocks that do not make up the piece"));
        }
        let check = self.unverified.begin(piece);
        let write = |range: &Range<usize>| {
            self.write_blocks(piece, len_of(&blocks[..range.start]) as u32, &blocks[range.clone()])
        };
        let written = fresh.iter().try_for_each(write);
        // A partial write proves nothing about the other blocks: they may have changed after they
        // were read back.
        self.unverified.end(check, written.is_ok() && matches!(fresh, [all] if all.len() == blocks.len()));
        written?;
        if let Some(filled) = self.slot(piece).filter(|_| self.has_unselected(piece)) {
            filled.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Writes consecutive blocks of a piece from `offset` on.
    ///
    /// # Errors
    /// The blocks are not within the piece or belong to no selected file (`InvalidInput`), or a
    /// file cannot be created or written; then some of them may have been written.
    pub fn write_blocks(&self, piece: PieceIndex, offset: u32, blocks: &[&[u8]]) -> Result<(), StorageError> {
        let geometry = self.info.geometry;
        let len: usize = blocks.iter().map(|block| block.len()).sum();
        if offset as usize + len > geometry.len_of(piece) as usize {
            return Err(self.misuse("a write beyond the piece"));
        }
        let mut source = Source { blocks, skipped: 0 };
        for span in spans(&self.info.files, geometry.offset_of(piece) + u64::from(offset), len) {
            let bytes = source.take(span.len);
            if !self.info.files[span.file].attributes.pad {
                self.write_span(piece, span, &bytes)?;
            }
        }
        Ok(())
    }

    /// The CRC-32 of the bytes that [`Content::read_back`] will read after this block was written.
    pub fn crc_as_stored(&self, block: Block, mut bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let start = self.info.geometry.offset_of(block.piece) + u64::from(block.offset);
        for span in spans(&self.info.files, start, bytes.len()) {
            let (part, rest) = bytes.split_at(span.len);
            let is_pad = self.info.files[span.file].attributes.pad;
            hasher.update(if is_pad { &ZEROS[..span.len.min(ZEROS.len())] } else { part });
            bytes = rest;
        }
        hasher.finalize()
    }

    /// Reads the bytes that [`Content::write_blocks`] wrote at `offset` of a piece.
    ///
    /// # Errors
    /// A file is missing, short or unreadable.
    pub fn read_back(&self, piece: PieceIndex, offset: u32, buffer: &mut [u8]) -> Result<(), StorageError> {
        self.read_range(piece, offset, buffer, Unselected::InParts)
    }
}

/// Blocks of a piece, taken from the front.
struct Source<'a> {
    blocks: &'a [&'a [u8]],
    /// Bytes of the first block that were taken.
    skipped: usize,
}

impl<'a> Source<'a> {
    fn take(&mut self, mut len: usize) -> Vec<&'a [u8]> {
        let mut taken = Vec::with_capacity(self.blocks.len().min(len));
        while let Some((first, rest)) = self.blocks.split_first().filter(|_| len > 0) {
            let left = &first[self.skipped..];
            let part = &left[..left.len().min(len)];
            len -= part.len();
            if part.len() == left.len() {
                (self.blocks, self.skipped) = (rest, 0);
            } else {
                self.skipped += part.len();
            }
            taken.push(part);
        }
        taken
    }
}
