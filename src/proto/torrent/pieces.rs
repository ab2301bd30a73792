//! The state of every piece of one torrent: the only piece state there is.

use std::net::SocketAddr;

use super::event::ConnId;
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::piece::{Geometry, PieceIndex};

/// What became of a received block.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Received {
    /// It was missing: its bytes go into the piece's buffer.
    Kept {
        /// It was the last one of its piece, which now awaits verification.
        complete: bool,
        /// Other connections that were asked for it too, to be told `cancel`.
        others: Vec<ConnId>,
    },
    /// It is there already.
    Duplicate,
    /// Its piece is not being fetched, or it is no block of ours.
    Unrequested,
}

/// Who sent which block of a piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contributors {
    addrs: Vec<SocketAddr>,
    blocks: Vec<u16>,
}

impl Contributors {
    /// Who sent the block of this number.
    pub fn of(&self, index: usize) -> Option<SocketAddr> {
        self.addrs.get(usize::from(*self.blocks.get(index)?)).copied()
    }

    /// The one who sent everything, if it was one.
    pub fn sole(&self) -> Option<SocketAddr> {
        todo!()
    }

    /// Everyone who sent a block, in order of their first.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }
}

/// What is given up when pieces are not wanted any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abandoned {
    /// Pieces whose buffers are to be dropped.
    pub pieces: Vec<PieceIndex>,
    /// Requests to be cancelled.
    pub cancels: Vec<(ConnId, Block)>,
}

/// The state of all pieces.
#[derive(Debug)]
pub struct Pieces {
    _geometry: Geometry,
}

#[expect(missing_docs, reason = "signatures first")]
impl Pieces {
    /// `have` is verified on disk; `wanted` are the pieces to fetch.
    pub fn new(geometry: Geometry, have: Bitfield, wanted: Bitfield) -> Self {
        let _ = (have, wanted);
        Self { _geometry: geometry }
    }
    pub fn geometry(&self) -> Geometry {
        todo!()
    }
    /// Verified pieces.
    pub fn have(&self) -> &Bitfield {
        todo!()
    }
    /// Pieces to fetch, whether they are there or not.
    pub fn wanted(&self) -> &Bitfield {
        todo!()
    }
    /// Bytes of all pieces that are not verified.
    pub fn left(&self) -> u64 {
        todo!()
    }
    /// Bytes of wanted pieces.
    pub fn wanted_len(&self) -> u64 {
        todo!()
    }
    /// Bytes of wanted pieces that are verified.
    pub fn wanted_done_len(&self) -> u64 {
        todo!()
    }
    /// Whether every wanted piece is verified.
    pub fn is_complete(&self) -> bool {
        todo!()
    }
    /// Whether the piece is wanted and not verified: what makes its owners interesting.
    pub fn is_lacking(&self, piece: PieceIndex) -> bool {
        let _ = piece;
        todo!()
    }
    /// Whether a peer with `have` has a piece that is wanted and not verified.
    pub fn is_interesting(&self, have: &Bitfield) -> bool {
        let _ = have;
        todo!()
    }
    /// Whether every block of every wanted piece is asked for or there: endgame (or the end).
    pub fn is_all_requested(&self) -> bool {
        todo!()
    }
    /// Marks a block as asked of `conn`; false if it is there already or not wanted.
    pub fn request(&mut self, block: Block, conn: ConnId) -> bool {
        let _ = (block, conn);
        todo!()
    }
    /// `conn` will not send this block (reject, cancel, timeout); true if it had been asked.
    pub fn release(&mut self, block: Block, conn: ConnId) -> bool {
        let _ = (block, conn);
        todo!()
    }
    /// `conn` will send nothing more (choke without fast extension, disconnect, snub); how many were asked of it.
    pub fn release_all(&mut self, conn: ConnId) -> usize {
        let _ = conn;
        todo!()
    }
    /// A block came. A block of a piece being fetched is kept even if it is not asked of `conn` any more:
    /// late ones are welcome.
    pub fn receive(&mut self, block: Block, conn: ConnId, addr: SocketAddr) -> Received {
        let _ = (block, conn, addr);
        todo!()
    }
    /// The piece is good and on disk.
    pub fn verified(&mut self, piece: PieceIndex) -> Contributors {
        let _ = piece;
        todo!()
    }
    /// The piece does not hash: missing again, and on parole (fetched from one peer at a time if possible).
    pub fn failed(&mut self, piece: PieceIndex) -> Contributors {
        let _ = piece;
        todo!()
    }
    /// The piece's bytes are gone: missing again.
    pub fn lost(&mut self, piece: PieceIndex) {
        let _ = piece;
        todo!()
    }
    /// Which pieces to fetch from now on.
    pub fn set_wanted(&mut self, wanted: Bitfield) -> Abandoned {
        let _ = wanted;
        todo!()
    }
}
