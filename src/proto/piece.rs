//! How content divides into pieces, and pieces into blocks (BEP 3).

use super::block::{BLOCK_LEN, Block};

/// Number of a piece, from 0.
pub type PieceIndex = u32;

/// Most pieces of a torrent; parsing refuses more.
pub const PIECE_COUNT_MAX: u32 = 4_194_304;
/// Longest piece, 1 GiB; parsing refuses longer ones.
pub const PIECE_LEN_MAX: u32 = 1 << 30;

/// The piece lengths of a torrent, v1: one run of bytes cut into equal pieces, the last one
/// shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    total_len: u64,
    piece_len: u32,
}

impl Geometry {
    /// No content.
    pub const EMPTY: Self = Self { total_len: 0, piece_len: 16 << 10 };

    /// Creates a geometry of `total_len` bytes in pieces of `piece_len`; `None` if there would be
    /// too many or too long pieces.
    pub fn new(total_len: u64, piece_len: u32) -> Option<Self> {
        let sound = (1..=PIECE_LEN_MAX).contains(&piece_len)
            && total_len.div_ceil(u64::from(piece_len)) <= u64::from(PIECE_COUNT_MAX);
        sound.then_some(Self { total_len, piece_len })
    }

    /// Returns the length of all content, pad files included, bytes.
    pub fn total_len(&self) -> u64 {
        self.total_len
    }

    /// Returns the length of every piece but the last, bytes.
    pub fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// Returns the number of pieces.
    pub fn piece_count(&self) -> u32 {
        self.total_len.div_ceil(u64::from(self.piece_len)) as u32
    }

    /// Returns the length of this piece, bytes; 0 beyond the end.
    pub fn len_of(&self, piece: PieceIndex) -> u32 {
        let left = self.total_len.saturating_sub(self.offset_of(piece));
        left.min(u64::from(self.piece_len)) as u32
    }

    /// Returns the offset of this piece in the content.
    pub fn offset_of(&self, piece: PieceIndex) -> u64 {
        u64::from(piece) * u64::from(self.piece_len)
    }

    /// Returns the number of blocks of this piece.
    pub fn block_count(&self, piece: PieceIndex) -> u32 {
        self.len_of(piece).div_ceil(BLOCK_LEN)
    }

    /// Returns the `index`-th block of a piece.
    pub fn block(&self, piece: PieceIndex, index: u32) -> Block {
        let offset = index * BLOCK_LEN;
        Block { piece, offset, len: self.len_of(piece).saturating_sub(offset).min(BLOCK_LEN) }
    }

    /// Whether the block is one that this program requests: aligned, complete, within its piece.
    pub fn is_block(&self, block: Block) -> bool {
        block.len > 0
            && block.offset.is_multiple_of(BLOCK_LEN)
            && block == self.block(block.piece, block.offset / BLOCK_LEN)
    }

    /// Whether a peer may request this span: within a piece and at most one block long.
    pub fn may_request(&self, block: Block) -> bool {
        (1..=BLOCK_LEN).contains(&block.len)
            && u64::from(block.offset) + u64::from(block.len) <= u64::from(self.len_of(block.piece))
    }
}

/// The SHA-1 of each block of a piece, in order.
pub type BlockHashes = Vec<[u8; 20]>;

/// The result of storing a piece whose blocks were all received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PieceResult {
    /// Its hash is right and it was written; with the hash of each block if they were requested.
    Good(Option<BlockHashes>),
    /// Its hash is wrong. The hash of each block is compared with a good copy later, to find the
    /// liar. No further block was written.
    Bad(BlockHashes),
    /// Blocks of it on the disk have changed: they must be downloaded again.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_piece_and_the_last_block_are_short() {
        let geometry = Geometry::new(100_000, 32_768).unwrap();
        assert_eq!(geometry.piece_count(), 4);
        assert_eq!(geometry.len_of(3), 100_000 - 3 * 32_768);
        assert_eq!((geometry.len_of(4), geometry.block_count(4)), (0, 0));
        assert_eq!(geometry.block(3, 0).len, 1_696);
        assert!(geometry.is_block(geometry.block(2, 1)) && !geometry.is_block(geometry.block(3, 1)));
        assert!(!geometry.may_request(Block { piece: 3, offset: 0, len: 1_697 }));
        assert!(!geometry.may_request(Block { piece: 0, offset: u32::MAX, len: 2 }));
    }

    #[test]
    fn absurd_lengths_are_refused() {
        assert!(Geometry::new(1, 0).is_none() && Geometry::new(u64::MAX, 16_384).is_none());
        assert_eq!(Geometry::new(0, 16_384).unwrap().piece_count(), 0);
    }
}
