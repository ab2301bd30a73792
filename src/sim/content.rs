//! Content without its bytes: each block is a tag, right or false, and a disk in memory that keeps
//! tags.
//!
//! The right tag of a block follows from the content's seed, so that a false block is found out as
//! by a hash, and traced to whom sent it by the same path as on real machines, at the cost of 8
//! bytes a block.

use std::collections::BTreeMap;

use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::piece::{Geometry, PieceIndex};
use crate::proto::torrent::event::{BlockHashes, PieceResult};

/// Stands for the bytes of one block.
pub(super) type Tag = u64;

/// What everybody wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    pub(super) geometry: Geometry,
    pub(super) seed: u64,
}

impl Content {
    /// The right bytes of a block.
    pub(super) fn tag(&self, block: Block) -> Tag {
        mix(mix(self.seed, u64::from(block.piece)), u64::from(block.offset))
    }
}

/// Stirs a number into another: what this gives is spread over all bits.
pub(super) fn mix(state: u64, value: u64) -> u64 {
    let stirred = (state ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let stirred = (stirred ^ (stirred >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let stirred = (stirred ^ (stirred >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    stirred ^ (stirred >> 31)
}

/// A host's disk.
#[derive(Debug)]
pub(super) struct Disk {
    content: Content,
    /// Pieces written, all of them right.
    good: Bitfield,
    buffers: BTreeMap<PieceIndex, Vec<Option<Tag>>>,
}

impl Disk {
    pub(super) fn new(content: Content, good: Bitfield) -> Self {
        Self { content, good, buffers: BTreeMap::new() }
    }

    /// The pieces that are there and right.
    pub(super) fn good(&self) -> &Bitfield {
        &self.good
    }

    /// Puts a block into its piece's buffer.
    pub(super) fn store(&mut self, block: Block, tag: Tag) {
        let block_count = self.content.geometry.block_count(block.piece) as usize;
        let buffer = self.buffers.entry(block.piece).or_insert_with(|| vec![None; block_count]);
        buffer[block.index() as usize] = Some(tag);
    }

    /// Forgets a piece's buffer.
    pub(super) fn drop_piece(&mut self, piece: PieceIndex) {
        self.buffers.remove(&piece);
    }

    /// Hashes a whole buffer and, if it is right, writes the piece.
    pub(super) fn verify(&mut self, piece: PieceIndex, block_hashes: bool) -> PieceResult {
        let buffer = self.buffers.remove(&piece);
        let tags: Option<Vec<Tag>> = buffer.and_then(|buffer| buffer.into_iter().collect());
        let tags = tags.expect("a piece is verified when all of its blocks are in its buffer");
        let hashes: BlockHashes = tags.iter().map(|&tag| hash(tag)).collect();
        let right = (0..).zip(&tags).all(|(index, &tag)| {
            let block = self.content.geometry.block(piece, index);
            self.content.tag(block) == tag
        });
        if right {
            self.good.set(piece);
            PieceResult::Good(block_hashes.then_some(hashes))
        } else {
            PieceResult::Bad(hashes)
        }
    }
}

fn hash(tag: Tag) -> [u8; 20] {
    let mut hash = [0; 20];
    hash[..8].copy_from_slice(&tag.to_be_bytes());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_false_block_spoils_a_piece() {
        let geometry = Geometry::new(40_000, 40_000).unwrap();
        let content = Content { geometry, seed: 1 };
        let mut disk = Disk::new(content, Bitfield::new(1));
        for false_index in [Some(2), None] {
            for index in 0..3 {
                let block = geometry.block(0, index);
                let tag = if false_index == Some(index) { 0 } else { content.tag(block) };
                disk.store(block, tag);
            }
            match disk.verify(0, false) {
                PieceResult::Bad(hashes) => assert!(false_index.is_some() && hashes.len() == 3),
                PieceResult::Good(hashes) => assert!(false_index.is_none() && hashes.is_none()),
                PieceResult::Lost => panic!("this disk loses nothing"),
            }
        }
        assert!(disk.good().is_full());
    }
}
