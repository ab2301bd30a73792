//! Wrong pieces traced to the exact liar.

use std::net::SocketAddr;

use super::event::BlockHashes;
use super::pieces::Contributors;
use crate::proto::piece::PieceIndex;

/// Failed pieces and who sent their blocks.
#[derive(Debug, Default)]
pub struct Suspects {
    _skeleton: (),
}

impl Suspects {
    /// Whether the next good copy of the piece should come with its block hashes.
    pub fn wants_hashes(&self, piece: PieceIndex) -> bool {
        let _ = piece;
        todo!()
    }

    /// The piece failed: who sent it, and the hash of each block. The liar, if only one sent it all.
    pub fn failed(
        &mut self,
        piece: PieceIndex,
        contributors: Contributors,
        hashes: BlockHashes,
    ) -> Option<SocketAddr> {
        let _ = (piece, contributors, hashes);
        todo!()
    }

    /// The piece is good: everyone who once sent a block that differs, each once.
    pub fn good(&mut self, piece: PieceIndex, hashes: &BlockHashes) -> Vec<SocketAddr> {
        let _ = (piece, hashes);
        todo!()
    }
}
