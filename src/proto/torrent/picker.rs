//! Which blocks to ask of a peer: rarest first, few partial pieces, the first pieces quick.

use super::availability::Availability;
use super::event::ConnId;
use super::pieces::Pieces;
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::piece::PieceIndex;
use crate::proto::rng::Rng;

/// Who is to be asked, and for how much.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The connection.
    pub conn: ConnId,
    /// What the peer has.
    pub have: &'a Bitfield,
    /// Blocks wanted at most.
    pub block_max: usize,
    /// Bytes per second from it lately: a fast peer fills whole pieces alone.
    pub rate: u64,
    /// Some: the peer chokes us, and only these pieces may be asked for (BEP 6 allowed fast).
    pub only: Option<&'a [PieceIndex]>,
    /// Connected peers that do not choke us: bounds the partial pieces.
    pub unchoking_count: usize,
}

/// The picker.
#[derive(Debug)]
pub struct Picker {
    _rng: Rng,
}

impl Picker {
    /// A picker; `sequential`: pieces in order.
    pub fn new(sequential: bool, rng: Rng) -> Self {
        let _ = sequential;
        Self { _rng: rng }
    }

    /// Changes the order from now on.
    pub fn set_sequential(&mut self, sequential: bool) {
        let _ = sequential;
        todo!()
    }

    /// Appends the blocks to ask for to `out`, already marked as requested in `pieces`. No endgame: see
    /// [`super::endgame::pick`].
    pub fn pick(
        &mut self,
        ask: Ask<'_>,
        pieces: &mut Pieces,
        availability: &mut Availability,
        out: &mut Vec<Block>,
    ) {
        let _ = (ask, pieces, availability, out);
        todo!()
    }

    /// The connection is gone.
    pub fn forget(&mut self, conn: ConnId) {
        let _ = conn;
        todo!()
    }
}
