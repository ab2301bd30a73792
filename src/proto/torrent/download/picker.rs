//! Which blocks to ask of a peer: rarest first (BEP 3), few partial pieces, the first pieces quick.
//!
//! A fast peer fills whole pieces alone, so that a piece has few contributors and is complete soon;
//! slow ones share. In order: the piece it is on; pieces that nobody works on, and for slow peers
//! those that others have begun, but neither before a rarer one that this peer has; a new piece;
//! and rather than let a peer idle, whatever is open.
//!
//! Nothing here walks over all pieces: a peer's own piece is tried first and serves most calls;
//! else the partial pieces, which are bounded, and [`Availability`]'s order are looked at. It knows
//! no time.

use std::collections::BTreeMap;

use super::availability::Availability;
use super::pieces::{Partial, Pieces};
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::piece::PieceIndex;
use crate::proto::rng::Rng;
use crate::proto::torrent::event::ConnId;

/// Pieces that are taken at random and shared by all peers, until there is something to offer
/// others.
const FIRST_PIECES: u32 = 1;
/// Seconds within which a peer that is fast fills a piece alone.
const WHOLE_PIECE_SECS: u64 = 10;
/// Partial pieces that may always be open, whatever the number of peers.
const PARTIAL_MIN: usize = 4;
/// Partial pieces for each two peers that do not choke us. Beyond it new ones are begun only for a
/// peer that would have nothing to send otherwise.
const PARTIALS_PER_TWO_PEERS: usize = 3;

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
    sequential: bool,
    /// The piece each connection was last asked for.
    working: BTreeMap<ConnId, PieceIndex>,
    /// Pieces that a fast peer fills alone.
    owners: BTreeMap<PieceIndex, ConnId>,
    rng: Rng,
}

impl Picker {
    /// A picker; `sequential`: pieces in order.
    pub fn new(sequential: bool, rng: Rng) -> Self {
        Self { sequential, working: BTreeMap::new(), owners: BTreeMap::new(), rng }
    }

    /// Whether pieces are picked in order.
    pub fn is_sequential(&self) -> bool {
        self.sequential
    }

    /// Changes the order from now on.
    pub fn set_sequential(&mut self, sequential: bool) {
        self.sequential = sequential;
    }

    /// Appends the blocks to ask for to `out`, already marked as requested in `pieces`. No endgame:
    /// see [`super::endgame::pick`].
    pub fn pick(
        &mut self,
        ask: Ask<'_>,
        pieces: &mut Pieces,
        availability: &mut Availability,
        out: &mut Vec<Block>,
    ) {
        let mut left = ask.block_max;
        if let Some(only) = ask.only {
            for &piece in only.iter().filter(|&&piece| ask.have.get(piece)) {
                left -= pieces.request_open(piece, ask.conn, left, out);
            }
            return;
        }
        if let Some(&piece) = self.working.get(&ask.conn) {
            left -= pieces.request_open(piece, ask.conn, left, out);
        }
        if left > 0 && !pieces.is_all_requested() {
            availability.follow(pieces);
            let fast = pieces.have().count() >= FIRST_PIECES
                && ask.rate * WHOLE_PIECE_SECS >= u64::from(pieces.geometry().piece_len());
            self.pick_further(Turn { ask, fast, left, pieces, availability, out });
        }
    }

    /// The peer has no open block left in the piece it was on.
    fn pick_further(&mut self, mut turn: Turn<'_>) {
        let left_before = turn.left;
        self.disown(turn.ask.conn);
        let mut partial_count = 0;
        let mut open: Vec<Open> = Vec::new();
        for partial in turn.pieces.partials() {
            partial_count += 1;
            if turn.ask.have.get(partial.piece) && turn.pieces.is_open_to(partial.piece, turn.ask.conn) {
                let order = if self.sequential { partial.piece } else { partial.open_count };
                let rarity = turn.availability.count(partial.piece);
                let rarity = if self.sequential { 0 } else { rarity };
                open.push((self.class(&partial, turn.fast), rarity, order, partial.piece));
            }
        }
        let partial_max = PARTIAL_MIN.max(turn.ask.unchoking_count * PARTIALS_PER_TWO_PEERS / 2);
        let room = partial_max.saturating_sub(partial_count);
        let rarest = self.next_piece(&mut turn).filter(|_| room > 0 && !self.sequential);
        let rarest = rarest.map_or(u32::MAX, |piece| turn.availability.count(piece));
        for (class, rarity, ..) in &mut open {
            // What this peer has and others have not is worth more than a piece that others can
            // finish.
            if *rarity > rarest {
                *class = Class::Late;
            }
        }
        open.sort_unstable();
        let (soon, late) = open.split_at(open.partition_point(|partial| partial.0 == Class::Soon));
        self.join(&mut turn, soon);
        self.begin(&mut turn, room);
        self.join(&mut turn, late);
        // Beyond the bound on partial pieces one is begun only if there is nothing else to ask for.
        let idle = turn.left == left_before;
        self.begin(&mut turn, usize::from(idle));
    }

    fn class(&self, partial: &Partial, fast: bool) -> Class {
        let deserted = partial.asked_count == 0;
        let owned = self.owners.contains_key(&partial.piece);
        if deserted || (!fast && !owned) { Class::Soon } else { Class::Late }
    }

    /// Asks for open blocks of partial pieces: the rarest first, of those the nearest to
    /// completion; in order, if so told.
    fn join(&mut self, turn: &mut Turn<'_>, open: &[Open]) {
        for &(class, _, _, piece) in open {
            if turn.left == 0 {
                break;
            }
            turn.request(piece);
            self.work_on(piece, turn.ask.conn, turn.fast && class == Class::Soon);
        }
    }

    /// Begins at most `piece_max` pieces.
    fn begin(&mut self, turn: &mut Turn<'_>, piece_max: usize) {
        for _ in 0..piece_max {
            if turn.left == 0 {
                break;
            }
            let Some(piece) = self.next_piece(turn) else { break };
            turn.request(piece);
            turn.availability.follow(turn.pieces);
            self.work_on(piece, turn.ask.conn, turn.fast);
        }
    }

    fn next_piece(&mut self, turn: &mut Turn<'_>) -> Option<PieceIndex> {
        let (have, first) = (turn.ask.have, turn.pieces.have().count() < FIRST_PIECES);
        match (self.sequential, first) {
            (true, _) => turn.availability.lowest(have),
            (false, true) => turn.availability.random(have, &mut self.rng),
            (false, false) => turn.availability.rarest(have, &mut self.rng),
        }
    }

    fn work_on(&mut self, piece: PieceIndex, conn: ConnId, alone: bool) {
        self.disown(conn);
        self.working.insert(conn, piece);
        if alone {
            self.owners.insert(piece, conn);
        }
    }

    fn disown(&mut self, conn: ConnId) {
        if let Some(piece) = self.working.remove(&conn)
            && self.owners.get(&piece) == Some(&conn)
        {
            self.owners.remove(&piece);
        }
    }

    /// The peer has only these pieces by now: if the one it was on is none of them, that is free
    /// for others.
    pub fn retreat(&mut self, conn: ConnId, have: &Bitfield) {
        if self.working.get(&conn).is_some_and(|&piece| !have.get(piece)) {
            self.disown(conn);
        }
    }

    /// The connection is gone, chokes us or is snubbed: its piece is free for others.
    pub fn forget(&mut self, conn: ConnId) {
        self.disown(conn);
    }
}

/// One peer's turn: what is left to ask it for, and the parts that are asked.
struct Turn<'a> {
    ask: Ask<'a>,
    fast: bool,
    left: usize,
    pieces: &'a mut Pieces,
    availability: &'a mut Availability,
    out: &'a mut Vec<Block>,
}

impl Turn<'_> {
    fn request(&mut self, piece: PieceIndex) {
        self.left -= self.pieces.request_open(piece, self.ask.conn, self.left, self.out);
    }
}

/// A partial piece with open blocks: when, how rare, how near, which.
type Open = (Class, u32, u32, PieceIndex);

/// When to ask for a partial piece's blocks: before a new piece is begun, or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Soon,
    Late,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::piece::Geometry;

    const FAST: u64 = 10_000_000;

    struct Setting {
        pieces: Pieces,
        availability: Availability,
        picker: Picker,
    }

    /// 100 pieces of 8 blocks, of which the first `had` are had.
    fn setting(had: u32) -> Setting {
        let geometry = Geometry::new(100 * 8 * 16_384, 8 * 16_384).unwrap();
        let mut have = Bitfield::new(100);
        for piece in 0..had {
            have.set(piece);
        }
        let pieces = Pieces::new(geometry, have, Bitfield::full(100));
        let picker = Picker::new(false, Rng::from_number(4));
        Setting { pieces, availability: Availability::new(100), picker }
    }

    impl Setting {
        fn pick(&mut self, conn: u32, have: &Bitfield, block_max: usize, rate: u64) -> Vec<Block> {
            let ask = Ask { conn: ConnId(conn), have, block_max, rate, only: None, unchoking_count: 4 };
            let mut out = Vec::new();
            self.picker.pick(ask, &mut self.pieces, &mut self.availability, &mut out);
            out
        }
    }

    fn pieces_of(blocks: &[Block]) -> Vec<PieceIndex> {
        let mut pieces: Vec<_> = blocks.iter().map(|block| block.piece).collect();
        pieces.dedup();
        pieces
    }

    #[test]
    fn fast_peers_fill_whole_pieces_and_slow_ones_share() {
        let full = Bitfield::full(100);
        let mut setting = setting(10);
        let first = pieces_of(&setting.pick(1, &full, 5, FAST));
        let second = pieces_of(&setting.pick(2, &full, 5, FAST));
        assert_ne!(first, second);
        assert_eq!(pieces_of(&setting.pick(1, &full, 3, FAST)), first, "it finishes what it began");
        let slow = pieces_of(&setting.pick(3, &full, 2, 0));
        assert!(slow != first && slow != second, "not into a piece that a fast one fills alone");
        assert_eq!(pieces_of(&setting.pick(4, &full, 2, 0)), slow, "slow ones share");
        setting.pieces.release_all(ConnId(2));
        setting.picker.forget(ConnId(2));
    }

    #[test]
    fn a_deserted_piece_is_finished_before_a_new_one_is_begun() {
        let full = Bitfield::full(100);
        let mut setting = setting(10);
        let blocks = setting.pick(1, &full, 4, FAST);
        let _ = setting.pieces.receive(blocks[0], ConnId(1), "10.0.0.1:1".parse().unwrap());
        setting.pieces.release_all(ConnId(1));
        setting.picker.forget(ConnId(1));
        let next = setting.pick(2, &full, 7, FAST);
        assert_eq!((pieces_of(&next), next.len()), (pieces_of(&blocks), 7));
    }

    #[test]
    fn partial_pieces_are_few_but_nobody_idles() {
        let full = Bitfield::full(100);
        let mut setting = setting(10);
        for conn in 0..40 {
            assert_eq!(setting.pick(conn, &full, 1, FAST).len(), 1);
        }
        assert_eq!(setting.pieces.partials().count(), 6, "three for each two of four peers");
        let mut other = Bitfield::new(100);
        let unbegun = (10..100).find(|&piece| setting.pieces.is_startable(piece)).unwrap();
        other.set(unbegun);
        assert_eq!(pieces_of(&setting.pick(99, &other, 3, FAST)), [unbegun]);
    }

    #[test]
    fn rarest_first_only_wanted_and_in_order_if_told() {
        let mut setting = setting(10);
        let mut common = Bitfield::full(100);
        common.clear(42);
        setting.availability.add_peer(&common, false);
        let full = Bitfield::full(100);
        assert_eq!(pieces_of(&setting.pick(1, &full, 8, FAST)), [42]);
        setting.picker.set_sequential(true);
        assert_eq!(pieces_of(&setting.pick(1, &full, 16, FAST)), [10, 11]);
        let mut wanted = Bitfield::new(100);
        wanted.set(77);
        setting.pieces.set_wanted(wanted);
        assert_eq!(pieces_of(&setting.pick(2, &full, 99, FAST)), [77]);
        assert!(setting.pick(3, &full, 99, FAST).is_empty());
    }

    #[test]
    fn what_only_this_peer_has_goes_before_a_piece_that_others_can_finish() {
        let full = Bitfield::full(100);
        let mut setting = setting(10);
        let mut common = Bitfield::full(100);
        common.clear(42);
        (0..3).for_each(|_| setting.availability.add_peer(&common, false));
        assert_ne!(pieces_of(&setting.pick(1, &common, 2, 0)), [42]);
        assert_eq!(pieces_of(&setting.pick(2, &full, 2, 0)), [42]);
        let mut slow = setting.pick(3, &common, 6, 0);
        slow.retain(|block| block.piece == 42);
        assert!(slow.is_empty(), "which that one has not");
    }

    #[test]
    fn a_choking_peer_is_asked_for_what_it_allows() {
        let full = Bitfield::full(100);
        let mut setting = setting(10);
        let mut out = Vec::new();
        let only = Some(&[5, 20, 21][..]);
        let ask = Ask { conn: ConnId(1), have: &full, block_max: 10, rate: 0, only, unchoking_count: 0 };
        setting.picker.pick(ask, &mut setting.pieces, &mut setting.availability, &mut out);
        assert_eq!((pieces_of(&out), out.len()), (vec![20, 21], 10), "5 is had");
    }

    #[test]
    fn all_of_a_torrent_is_asked_for_exactly_once() {
        let full = Bitfield::full(100);
        let mut setting = setting(0);
        let mut blocks = Vec::new();
        for conn in (0..7).cycle().take(400) {
            blocks.extend(setting.pick(conn, &full, 1 + conn as usize, u64::from(conn) * 50_000));
        }
        assert_eq!(blocks.len(), 800);
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), 800);
        assert!(setting.pieces.is_all_requested());
    }
}
