//! The bytes of pieces under way: blocks collected, and how many are at the disk.
//!
//! Which blocks are kept, and when a piece is whole, the machine says. It owns the buffers, `B`, and looks into none.

use std::collections::BTreeMap;

use crate::proto::block::Block;
use crate::proto::piece::{Geometry, PieceIndex};

/// Bytes of one torrent at the disk, to be hashed and written, before its connections are read no further:
/// what 200 ms of a 1 Gbit/s line bring, and what the threads need to hash pieces side by side.
const STORING_LEN_MAX: u64 = 24 << 20;

/// A whole piece on its way to the disk.
#[derive(Debug)]
pub struct WholePiece<B> {
    /// Which.
    pub piece: PieceIndex,
    /// Its blocks in order.
    pub blocks: Vec<B>,
    /// Whether each block's hash is wanted.
    pub block_hashes: bool,
}

/// All pieces under way.
#[derive(Debug)]
pub struct PieceBuffers<B> {
    geometry: Geometry,
    partial: BTreeMap<PieceIndex, Vec<Option<B>>>,
    storing_len: u64,
}

impl<B> PieceBuffers<B> {
    /// None yet.
    pub fn new(geometry: Geometry) -> Self {
        Self { geometry, partial: BTreeMap::new(), storing_len: 0 }
    }

    /// Keeps a block for its piece.
    pub fn keep(&mut self, block: Block, content: B) {
        let block_count = self.geometry.block_count(block.piece) as usize;
        let blocks =
            self.partial.entry(block.piece).or_insert_with(|| (0..block_count).map(|_| None).collect());
        if let Some(slot) = blocks.get_mut(block.index() as usize) {
            *slot = Some(content);
        }
    }

    /// The blocks of a piece are not needed any more.
    pub fn discard(&mut self, piece: PieceIndex) {
        self.partial.remove(&piece);
    }

    /// Takes a piece out, for the disk; None: a block is missing.
    pub fn take(&mut self, piece: PieceIndex, block_hashes: bool) -> Option<WholePiece<B>> {
        let blocks = self.partial.remove(&piece)?.into_iter().collect::<Option<Vec<_>>>()?;
        Some(WholePiece { piece, blocks, block_hashes })
    }

    /// A piece goes to the disk.
    pub fn storing(&mut self, piece: PieceIndex) {
        self.storing_len += u64::from(self.geometry.len_of(piece));
    }

    /// A piece came back from the disk; its length, bytes.
    pub fn stored(&mut self, piece: PieceIndex) -> u64 {
        let len = u64::from(self.geometry.len_of(piece));
        self.storing_len -= len;
        len
    }

    /// Whether any piece is at the disk.
    pub fn is_storing(&self) -> bool {
        self.storing_len > 0
    }

    /// Whether the disk keeps up: else connections are not to be read.
    pub fn has_room(&self) -> bool {
        self.storing_len < STORING_LEN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole_piece(pieces: &mut PieceBuffers<Vec<u8>>, piece: PieceIndex) {
        for index in (0..pieces.geometry.block_count(piece)).rev() {
            let block = pieces.geometry.block(piece, index);
            pieces.keep(block, vec![index as u8; block.len as usize]);
        }
    }

    #[test]
    fn blocks_come_back_in_order_and_an_incomplete_piece_does_not() {
        let mut pieces = PieceBuffers::new(Geometry::new(100_000, 65_536).unwrap());
        whole_piece(&mut pieces, 1);
        let whole = pieces.take(1, false).unwrap();
        let firsts: Vec<_> = whole.blocks.iter().map(|block| block[0]).collect();
        assert_eq!(firsts, [0, 1, 2]);
        assert_eq!(whole.blocks[2].len(), 100_000 - 65_536 - 2 * 16_384);
        pieces.keep(pieces.geometry.block(0, 1), vec![0; 16_384]);
        assert!(pieces.take(0, false).is_none());
    }

    #[test]
    fn a_slow_disk_holds_the_sockets_back() {
        let mut pieces = PieceBuffers::<()>::new(Geometry::new(1 << 30, 16 << 20).unwrap());
        pieces.storing(0);
        assert!(pieces.has_room());
        pieces.storing(1);
        assert!(!pieces.has_room());
        pieces.stored(0);
        assert!(pieces.has_room() && pieces.is_storing());
    }
}
