//! The end of a download: when everything is asked for, the last blocks are asked of several peers,
//! so that no slow peer holds up the end (BEP 3).
//!
//! What is wasted is bounded by the blocks in flight when it begins, times
//! [`REQUESTS_PER_BLOCK_MAX`], less what cancels save.

use super::pieces::Pieces;
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::rng::Rng;
use crate::proto::torrent::event::ConnId;

/// Connections that one block is asked of at most; a further peer then gets nothing to do.
pub const REQUESTS_PER_BLOCK_MAX: usize = 3;

/// Blocks handed to one peer at a time: it gets more when these came, by when many others are
/// there.
pub const BLOCK_MAX: usize = 4;

/// Appends blocks that are asked of others, to be asked of `conn` too (marked so in `pieces`),
/// those asked of fewest first; nothing before [`Pieces::is_all_requested`]. When one arrives,
/// [`super::pieces::Received::Kept`] names the others to cancel.
pub fn pick(
    conn: ConnId,
    have: &Bitfield,
    block_max: usize,
    pieces: &mut Pieces,
    rng: &mut Rng,
    out: &mut Vec<Block>,
) {
    if !pieces.is_all_requested() || block_max == 0 {
        return;
    }
    let mut asked = Vec::new();
    pieces.asked_of_others(conn, have, &mut asked);
    asked.retain(|&(count, _)| count < REQUESTS_PER_BLOCK_MAX);
    // Different peers take different blocks: ties are broken at random.
    rng.shuffle(&mut asked);
    asked.sort_by_key(|&(count, _)| count);
    for (_, block) in asked.into_iter().take(block_max.min(BLOCK_MAX)) {
        if pieces.request(block, conn) {
            out.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pieces::Received;
    use super::*;
    use crate::proto::piece::Geometry;

    #[test]
    fn the_last_blocks_are_asked_of_a_few_and_cancelled_when_one_sends() {
        let geometry = Geometry::new(16_384 * 8, 16_384 * 8).unwrap();
        let full = Bitfield::full(1);
        let mut pieces = Pieces::new(geometry, Bitfield::new(1), full.clone());
        let mut rng = Rng::from_number(1);
        let mut out = Vec::new();
        pieces.request_open(0, ConnId(0), 7, &mut out);
        let mut more = Vec::new();
        pick(ConnId(1), &full, 9, &mut pieces, &mut rng, &mut more);
        assert!(more.is_empty(), "one block is not asked of anybody");
        pieces.request_open(0, ConnId(0), 1, &mut out);
        for conn in 1..10 {
            pick(ConnId(conn), &full, 9, &mut pieces, &mut rng, &mut more);
        }
        assert_eq!(more.len(), 8 * (REQUESTS_PER_BLOCK_MAX - 1));
        pick(ConnId(20), &Bitfield::new(1), 9, &mut pieces, &mut rng, &mut more);
        let Received::Kept { others, .. } = pieces.receive(more[0], ConnId(0), "10.0.0.1:1".parse().unwrap())
        else {
            panic!("it was missing");
        };
        assert_eq!(others.len(), REQUESTS_PER_BLOCK_MAX - 1);
    }
}
