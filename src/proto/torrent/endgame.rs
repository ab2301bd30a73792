//! The end of a download: when everything is asked for, the last blocks are asked of several peers.

use super::event::ConnId;
use super::pieces::Pieces;
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::rng::Rng;

/// Connections that one block is asked of at most: what is wasted is bounded by the blocks in flight.
pub const REQUESTS_PER_BLOCK_MAX: usize = 3;

/// Appends blocks that are asked of others, to be asked of `conn` too (marked so in `pieces`); nothing
/// before [`Pieces::is_all_requested`]. When one arrives, [`super::pieces::Received::Kept`] names the others to cancel.
pub fn pick(
    conn: ConnId,
    have: &Bitfield,
    block_max: usize,
    pieces: &mut Pieces,
    rng: &mut Rng,
    out: &mut Vec<Block>,
) {
    let _ = (conn, have, block_max, pieces, rng, out);
    todo!()
}
