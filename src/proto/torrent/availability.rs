//! How many connected peers have each piece, and the missing pieces in order of rarity.

use crate::proto::bitfield::Bitfield;
use crate::proto::piece::PieceIndex;

/// Counts of copies among the neighbours; a peer that has everything is counted once, not once a piece.
#[derive(Debug)]
pub struct Availability {
    _piece_count: u32,
}

impl Availability {
    /// Nobody connected.
    pub fn new(piece_count: u32) -> Self {
        Self { _piece_count: piece_count }
    }

    /// A peer came, or told its bitfield (an empty one need not be added).
    pub fn add_peer(&mut self, have: &Bitfield) {
        let _ = have;
        todo!()
    }

    /// A peer left, or is about to replace its bitfield; `have` is all that it was counted with.
    pub fn remove_peer(&mut self, have: &Bitfield) {
        let _ = have;
        todo!()
    }

    /// A peer gained `piece`; `have` already has it.
    pub fn gain(&mut self, piece: PieceIndex, have: &Bitfield) {
        let _ = (piece, have);
        todo!()
    }

    /// Copies of this piece among the connected peers.
    pub fn count(&self, piece: PieceIndex) -> u32 {
        let _ = piece;
        todo!()
    }

    /// Copies of the rarest piece; scans all pieces, for snapshots.
    pub fn min(&self) -> u32 {
        todo!()
    }

    /// Connected peers that have everything.
    pub fn seeds(&self) -> u32 {
        todo!()
    }
}
