//! The unit of requests: a span of at most 16 KiB within one piece (BEP 3).

use super::piece::PieceIndex;

/// Bytes of every block but the last of a piece.
pub const BLOCK_LEN: u32 = 16 * 1024;

/// A span of a piece, as requests, cancels and piece messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// The piece.
    pub piece: PieceIndex,
    /// Bytes from the start of the piece.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

impl Block {
    /// Number of this block within its piece, for blocks that are aligned.
    pub fn index(&self) -> u32 {
        self.offset / BLOCK_LEN
    }
}
