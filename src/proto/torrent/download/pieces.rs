//! The state of every piece of one torrent: the only piece state there is.
//!
//! A piece is missing, active (some block asked for or there; all there: it awaits verification) or
//! had. Missing and had are bits; only active pieces carry more, and they are few. Work per block
//! is a look-up among the active pieces; nothing here walks over all pieces but [`Pieces::new`] and
//! [`Pieces::set_wanted`].
//!
//! Invariants: no active piece is had; an active piece has at least one block asked for or there;
//! counts of open blocks and of startable pieces are exact; every change of what may be started is
//! noted for [`super::availability`]. It knows neither rarity nor rates nor who chokes whom.

mod active;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::SocketAddr;

use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::piece::{Geometry, PieceIndex};
use crate::proto::torrent::event::ConnId;
pub use active::Contributors;
use active::{Active, Slot};

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

/// What is given up when pieces are not wanted any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abandoned {
    /// Pieces whose buffers are to be dropped.
    pub pieces: Vec<PieceIndex>,
    /// Requests to be cancelled.
    pub cancels: Vec<(ConnId, Block)>,
}

/// A piece on its way, as the picker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// Which.
    pub piece: PieceIndex,
    /// Blocks neither there nor asked for.
    pub open_count: u32,
    /// Blocks asked for.
    pub asked_count: u32,
}

/// The state of all pieces.
#[derive(Debug)]
pub struct Pieces {
    geometry: Geometry,
    have: Bitfield,
    wanted: Bitfield,
    active: BTreeMap<PieceIndex, Active>,
    /// Pieces that failed their hash since they were last good.
    parole: BTreeSet<PieceIndex>,
    /// Lost pieces that are not to be begun yet, wanted or not.
    held: BTreeSet<PieceIndex>,
    /// Wanted pieces that are missing and not active.
    startable_count: u32,
    /// Open blocks of active pieces.
    open_count: u64,
    have_len: u64,
    wanted_len: u64,
    wanted_done_len: u64,
    /// Pieces that became startable or ceased to be, since [`Pieces::take_changed`].
    changed: Vec<PieceIndex>,
}

impl Pieces {
    /// `have` is verified on disk; `wanted` are the pieces to fetch. Both of the geometry's piece
    /// count.
    pub fn new(geometry: Geometry, have: Bitfield, wanted: Bitfield) -> Self {
        let have_len = have.iter_set().map(|piece| u64::from(geometry.len_of(piece))).sum();
        let mut pieces = Self {
            geometry,
            have,
            wanted,
            active: BTreeMap::new(),
            parole: BTreeSet::new(),
            held: BTreeSet::new(),
            startable_count: 0,
            open_count: 0,
            have_len,
            wanted_len: 0,
            wanted_done_len: 0,
            changed: Vec::new(),
        };
        pieces.count_wanted();
        pieces.changed = pieces.wanted.iter_set().filter(|&piece| pieces.is_startable(piece)).collect();
        pieces
    }

    fn count_wanted(&mut self) {
        let (mut all, mut done, mut startable) = (0, 0, 0);
        for piece in self.wanted.iter_set() {
            let len = u64::from(self.geometry.len_of(piece));
            all += len;
            done += if self.have.get(piece) { len } else { 0 };
            startable += u32::from(self.is_startable(piece));
        }
        (self.wanted_len, self.wanted_done_len, self.startable_count) = (all, done, startable);
    }

    /// How the content divides.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Verified pieces.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Pieces to fetch, whether they are there or not.
    pub fn wanted(&self) -> &Bitfield {
        &self.wanted
    }

    /// Bytes of all pieces that are not verified.
    pub fn left(&self) -> u64 {
        self.geometry.total_len() - self.have_len
    }

    /// Bytes of wanted pieces.
    pub fn wanted_len(&self) -> u64 {
        self.wanted_len
    }

    /// Bytes of wanted pieces that are verified.
    pub fn wanted_done_len(&self) -> u64 {
        self.wanted_done_len
    }

    /// Whether every wanted piece is verified.
    pub fn is_complete(&self) -> bool {
        self.wanted_done_len == self.wanted_len
    }

    /// Whether the piece is wanted and not verified: what makes its owners interesting.
    pub fn is_lacking(&self, piece: PieceIndex) -> bool {
        self.wanted.get(piece) && !self.have.get(piece)
    }

    /// Whether every block of every wanted piece is asked for or there: endgame, or the end.
    pub fn is_all_requested(&self) -> bool {
        self.startable_count == 0 && self.open_count == 0
    }

    /// Whether the piece is wanted, missing, not held back, and none of its blocks asked for.
    pub fn is_startable(&self, piece: PieceIndex) -> bool {
        self.is_lacking(piece) && !self.active.contains_key(&piece) && !self.held.contains(&piece)
    }

    /// Pieces that are begun and not whole, ascending.
    pub fn partials(&self) -> impl Iterator<Item = Partial> {
        self.active.iter().filter(|(_, active)| !active.is_whole()).map(|(&piece, active)| Partial {
            piece,
            open_count: active.open_count,
            asked_count: active.asked_count(),
        })
    }

    /// Whether an active piece has open blocks that `conn` may be asked for (a piece on parole is
    /// fetched from one peer as long as that one has blocks under way).
    pub fn is_open_to(&self, piece: PieceIndex, conn: ConnId) -> bool {
        self.active.get(&piece).is_some_and(|active| active.open_count > 0 && active.is_open_to(conn))
    }

    /// Asks `conn` for open blocks of a piece, in order, at most `block_max`, appending them to
    /// `out`. Begins the piece if it is startable.
    pub fn request_open(
        &mut self,
        piece: PieceIndex,
        conn: ConnId,
        block_max: usize,
        out: &mut Vec<Block>,
    ) -> usize {
        if block_max == 0 || !(self.is_startable(piece) || self.is_open_to(piece, conn)) {
            return 0;
        }
        self.begin(piece);
        let on_parole = self.parole.contains(&piece);
        let active = self.active.get_mut(&piece).expect("begun just above");
        let mut count = 0;
        while count < block_max && active.open_count > 0 {
            let index = active.open_from;
            if active.slots[index as usize] == Slot::Open && active.ask(index, conn) {
                if on_parole {
                    active.note_sole(conn, 1);
                }
                out.push(self.geometry.block(piece, index));
                count += 1;
            }
            active.open_from += 1;
        }
        self.open_count -= count as u64;
        count
    }

    /// Marks a block as asked of `conn`, also if others were asked for it; false if `conn` was
    /// asked already, or if it is there or not wanted.
    pub fn request(&mut self, block: Block, conn: ConnId) -> bool {
        let piece = block.piece;
        if !self.geometry.is_block(block) || !self.is_lacking(piece) || self.held.contains(&piece) {
            return false;
        }
        self.begin(piece);
        let on_parole = self.parole.contains(&piece);
        let active = self.active.get_mut(&piece).expect("begun just above");
        let open_before = active.open_count;
        let asked = active.ask(block.index(), conn);
        self.open_count -= u64::from(open_before - active.open_count);
        if asked && on_parole {
            active.note_sole(conn, 1);
        }
        asked
    }

    /// These blocks of a piece are there, from an earlier run, if the piece is wanted and was not
    /// begun; whether that is all of it, which now awaits verification.
    pub fn restore(&mut self, piece: PieceIndex, blocks: &[u32]) -> bool {
        if piece >= self.geometry.piece_count() || !self.is_startable(piece) || blocks.is_empty() {
            return false;
        }
        self.begin(piece);
        let active = self.active.get_mut(&piece).expect("begun just above");
        let there = blocks.iter().filter(|&&index| active.restore(index)).count();
        let is_whole = active.is_whole();
        self.open_count -= there as u64;
        self.end_if_idle(piece);
        is_whole
    }

    fn begin(&mut self, piece: PieceIndex) {
        if self.is_startable(piece) {
            let block_count = self.geometry.block_count(piece);
            self.active.insert(piece, Active::new(block_count));
            self.open_count += u64::from(block_count);
            self.startable_count -= 1;
            self.changed.push(piece);
        }
    }

    /// `conn` will not send this block (reject, cancel, timeout); true if it had been asked.
    pub fn release(&mut self, block: Block, conn: ConnId) -> bool {
        if !self.geometry.is_block(block) {
            return false;
        }
        let Some(active) = self.active.get_mut(&block.piece) else { return false };
        let open_before = active.open_count;
        let released = active.release(block.index(), conn);
        self.open_count += u64::from(active.open_count - open_before);
        if released && active.sole.is_some() {
            active.note_sole(conn, -1);
        }
        self.end_if_idle(block.piece);
        released
    }

    /// `conn` will send nothing more (choke without fast extension, disconnect, snub); how many
    /// blocks were asked of it. Walks over the active pieces.
    pub fn release_all(&mut self, conn: ConnId) -> usize {
        let mut asked = Vec::new();
        for (&piece, active) in &self.active {
            for index in 0..active.slots.len() as u32 {
                let first = active.slots[index as usize] == Slot::Asked(conn);
                if first || (!active.doubled.is_empty() && active.asked(index).any(|other| other == conn)) {
                    asked.push(self.geometry.block(piece, index));
                }
            }
        }
        for &block in &asked {
            self.release(block, conn);
        }
        asked.len()
    }

    /// A piece of which nothing is there and nothing asked for is missing, as before.
    fn end_if_idle(&mut self, piece: PieceIndex) {
        if self.active.get(&piece).is_some_and(Active::is_idle) {
            self.end(piece);
        }
    }

    fn end(&mut self, piece: PieceIndex) -> Option<Active> {
        let active = self.active.remove(&piece)?;
        self.open_count -= u64::from(active.open_count);
        self.note_startable(piece);
        Some(active)
    }

    /// A block came. A block of a piece being fetched is kept even if it is not asked of `conn` any
    /// more: late ones are welcome, and false ones are traced whoever sent them.
    pub fn receive(&mut self, block: Block, conn: ConnId, addr: SocketAddr) -> Received {
        if !self.geometry.is_block(block) {
            return Received::Unrequested;
        }
        let Some(active) = self.active.get_mut(&block.piece) else {
            let there = self.have.get(block.piece);
            return if there { Received::Duplicate } else { Received::Unrequested };
        };
        let index = block.index();
        let mut others = Vec::new();
        match active.slots[index as usize] {
            Slot::There(_) => return Received::Duplicate,
            Slot::Open => {
                active.open_count -= 1;
                self.open_count -= 1;
            }
            Slot::Asked(first) if first == conn && active.doubled.is_empty() => {}
            Slot::Asked(_) => others.extend(active.asked(index).filter(|&other| other != conn)),
        }
        active.doubled.retain(|doubled| doubled.0 != index);
        if active.sole.is_some() {
            active.note_sole(conn, -1);
            others.iter().for_each(|&other| active.note_sole(other, -1));
        }
        active.slots[index as usize] = Slot::There(active.sender(addr));
        active.there_count += 1;
        Received::Kept { complete: active.is_whole(), others }
    }

    /// The piece is good and on disk; who sent it (nobody, if it was not fetched).
    pub fn verified(&mut self, piece: PieceIndex) -> Contributors {
        let was_startable = self.is_startable(piece);
        if self.have.set(piece) {
            let len = u64::from(self.geometry.len_of(piece));
            self.have_len += len;
            self.wanted_done_len += if self.wanted.get(piece) { len } else { 0 };
        }
        if was_startable {
            self.startable_count -= 1;
            self.changed.push(piece);
        }
        self.parole.remove(&piece);
        self.end(piece).map(Active::contributors).unwrap_or_default()
    }

    /// The piece does not hash: missing again, and on parole (fetched from one peer at a time if
    /// possible).
    pub fn failed(&mut self, piece: PieceIndex) -> Contributors {
        self.parole.insert(piece);
        self.end(piece).map(Active::contributors).unwrap_or_default()
    }

    /// The piece's bytes are gone: missing again, also if it was had; who sent them, as far as it
    /// was being fetched.
    pub fn lost(&mut self, piece: PieceIndex) -> Contributors {
        if self.have.clear(piece) {
            let len = u64::from(self.geometry.len_of(piece));
            self.have_len -= len;
            self.wanted_done_len -= if self.wanted.get(piece) { len } else { 0 };
            self.note_startable(piece);
            Contributors::default()
        } else {
            self.end(piece).map(Active::contributors).unwrap_or_default()
        }
    }

    /// The bytes of a piece that was had are gone: missing again, and not to be begun before
    /// [`Pieces::free`], whatever becomes wanted meanwhile.
    pub fn hold_back(&mut self, piece: PieceIndex) {
        if self.have.get(piece) {
            self.held.insert(piece);
            self.lost(piece);
        }
    }

    /// Pieces that were held back are as any other from now on.
    pub fn free(&mut self, pieces: &[PieceIndex]) {
        for &piece in pieces {
            if self.held.remove(&piece) {
                self.note_startable(piece);
            }
        }
    }

    /// The piece was not startable; if it is now, that is noted.
    fn note_startable(&mut self, piece: PieceIndex) {
        if self.is_startable(piece) {
            self.startable_count += 1;
            self.changed.push(piece);
        }
    }

    /// Which pieces to fetch from now on. Pieces that await verification are finished nevertheless.
    pub fn set_wanted(&mut self, wanted: Bitfield) -> Abandoned {
        let before: Vec<bool> = (0..wanted.len()).map(|piece| self.is_startable(piece)).collect();
        self.wanted = wanted;
        let unwanted = |(piece, active): (&PieceIndex, &Active)| {
            (!self.wanted.get(*piece) && !active.is_whole()).then_some(*piece)
        };
        let mut abandoned =
            Abandoned { pieces: self.active.iter().filter_map(unwanted).collect(), cancels: Vec::new() };
        for &piece in &abandoned.pieces {
            let Some(active) = self.end(piece) else { continue };
            for index in 0..active.slots.len() as u32 {
                let block = self.geometry.block(piece, index);
                abandoned.cancels.extend(active.asked(index).map(|conn| (conn, block)));
            }
        }
        self.count_wanted();
        let flipped = (0..).zip(before).filter(|&(piece, before)| self.is_startable(piece) != before);
        let flipped: Vec<PieceIndex> = flipped.map(|(piece, _)| piece).collect();
        self.changed.extend(flipped);
        abandoned
    }

    /// Pieces that may have become startable, or ceased to be, since the last call.
    pub fn take_changed(&mut self) -> Vec<PieceIndex> {
        mem::take(&mut self.changed)
    }

    /// Blocks of active pieces of `have` that are asked of others but not of `conn`, with how many
    /// were asked: for the endgame. Walks over the active pieces.
    pub fn asked_of_others(&self, conn: ConnId, have: &Bitfield, out: &mut Vec<(usize, Block)>) {
        for (&piece, active) in self.active.iter().filter(|(piece, _)| have.get(**piece)) {
            if active.asked_count() == 0 {
                continue;
            }
            for (index, slot) in (0..).zip(&active.slots) {
                let asked = match slot {
                    Slot::Asked(first) if *first != conn => active.asked(index),
                    Slot::Asked(_) | Slot::Open | Slot::There(_) => continue,
                };
                let (mut count, mut ours) = (0, false);
                asked.for_each(|other| (count, ours) = (count + 1, ours || other == conn));
                if !ours {
                    out.push((count, self.geometry.block(piece, index)));
                }
            }
        }
    }

    /// What must always hold, as far as it can be told from the active pieces alone.
    #[cfg(debug_assertions)]
    pub fn check_invariant(&self) {
        let mut open_count = 0;
        for (&piece, active) in &self.active {
            assert!(!self.have.get(piece), "piece {piece} is had and active");
            assert!(!active.is_idle(), "piece {piece} is active for nothing");
            assert_eq!(active.slots.len() as u32, self.geometry.block_count(piece));
            open_count += u64::from(active.open_count);
        }
        assert_eq!(open_count, self.open_count, "open blocks");
        let is_missing = |piece: &PieceIndex| !self.have.get(*piece) && !self.active.contains_key(piece);
        assert!(self.held.iter().all(is_missing), "what is held back is missing");
        assert!(self.have_len <= self.geometry.total_len() && self.wanted_done_len <= self.wanted_len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rng::Rng;

    const A: ConnId = ConnId(1);
    const B: ConnId = ConnId(2);

    fn addr(conn: ConnId) -> SocketAddr {
        format!("10.0.0.{}:1", conn.0).parse().unwrap()
    }

    /// Three pieces of two blocks; the last one has one short block.
    fn three() -> Pieces {
        let geometry = Geometry::new(2 * 32_768 + 100, 32_768).unwrap();
        Pieces::new(geometry, Bitfield::new(3), Bitfield::full(3))
    }

    fn kept(complete: bool, others: &[ConnId]) -> Received {
        Received::Kept { complete, others: others.to_vec() }
    }

    fn receive(pieces: &mut Pieces, piece: PieceIndex, index: u32, conn: ConnId) -> Received {
        let block = pieces.geometry().block(piece, index);
        pieces.receive(block, conn, addr(conn))
    }

    fn is_verifying(pieces: &Pieces, piece: PieceIndex) -> bool {
        pieces.active.get(&piece).is_some_and(Active::is_whole)
    }

    #[test]
    fn a_piece_goes_from_missing_to_had_and_remembers_who_sent_what() {
        let mut pieces = three();
        assert_eq!((pieces.left(), pieces.wanted_done_len()), (65_636, 0));
        let mut out = Vec::new();
        assert_eq!(pieces.request_open(0, A, 1, &mut out), 1);
        assert_eq!(pieces.request_open(0, B, 9, &mut out), 1);
        assert_eq!(out.iter().map(Block::index).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(receive(&mut pieces, 0, 1, B), kept(false, &[]));
        assert_eq!(receive(&mut pieces, 0, 1, B), Received::Duplicate);
        assert_eq!(receive(&mut pieces, 1, 0, B), Received::Unrequested);
        assert_eq!(receive(&mut pieces, 0, 0, A), kept(true, &[]));
        assert!(is_verifying(&pieces, 0) && !pieces.have().get(0));
        let senders = pieces.verified(0);
        assert_eq!((senders.of(0), senders.of(1), senders.sole()), (Some(addr(A)), Some(addr(B)), None));
        assert_eq!((pieces.left(), pieces.wanted_done_len()), (65_636 - 32_768, 32_768));
        assert_eq!(receive(&mut pieces, 0, 0, A), Received::Duplicate);
    }

    #[test]
    fn what_one_gives_up_another_may_fetch_and_late_blocks_are_welcome() {
        let mut pieces = three();
        let mut out = Vec::new();
        pieces.request_open(0, A, 2, &mut out);
        assert!(pieces.request(out[0], B), "asked twice in the endgame");
        assert!(!pieces.request(out[0], B));
        assert_eq!(pieces.release_all(A), 2);
        assert!(!pieces.is_startable(0), "still asked of B");
        assert_eq!(receive(&mut pieces, 0, 1, A), kept(false, &[]), "late");
        assert_eq!(receive(&mut pieces, 0, 0, A), kept(true, &[B]));
        pieces.lost(0);
        assert!(pieces.is_startable(0));
        pieces.request_open(0, A, 2, &mut out);
        assert_eq!(pieces.release_all(A), 2);
        assert!(pieces.is_startable(0) && pieces.active.is_empty());
    }

    #[test]
    fn a_failed_piece_is_fetched_from_one_peer_alone() {
        let mut pieces = three();
        let mut out = Vec::new();
        pieces.request_open(1, A, 1, &mut out);
        pieces.request_open(1, B, 1, &mut out);
        let _ = (receive(&mut pieces, 1, 0, A), receive(&mut pieces, 1, 1, B));
        assert_eq!(pieces.failed(1).addrs(), [addr(A), addr(B)]);
        assert_eq!(pieces.request_open(1, B, 1, &mut out), 1);
        assert_eq!(pieces.request_open(1, A, 1, &mut out), 0, "B has a block under way");
        assert!(pieces.release(pieces.geometry().block(1, 0), B));
        assert_eq!(pieces.request_open(1, A, 2, &mut out), 2);
        let _ = (receive(&mut pieces, 1, 0, A), receive(&mut pieces, 1, 1, A));
        assert_eq!(pieces.verified(1).sole(), Some(addr(A)));
    }

    #[test]
    fn blocks_of_an_earlier_run_are_not_asked_for_and_nobody_answers_for_them() {
        let mut pieces = three();
        let mut out = Vec::new();
        assert!(!pieces.restore(0, &[1, 1, 7]));
        assert!(!pieces.is_startable(0) && !pieces.restore(0, &[0]), "it is begun");
        assert_eq!(pieces.request_open(0, A, 9, &mut out), 1);
        assert_eq!(out, [pieces.geometry().block(0, 0)]);
        assert_eq!(receive(&mut pieces, 0, 1, B), Received::Duplicate);
        assert_eq!(receive(&mut pieces, 0, 0, A), kept(true, &[]));
        let senders = pieces.failed(0);
        assert_eq!((senders.of(0), senders.of(1), senders.sole()), (Some(addr(A)), None, None));
        assert!(pieces.restore(1, &[0, 1]), "whole");
        assert!(is_verifying(&pieces, 1));
        assert!(!pieces.restore(2, &[5]) && pieces.is_startable(2), "no block of it");
        assert!(!pieces.restore(3, &[0]), "no piece of ours");
    }

    #[test]
    fn unwanted_pieces_are_dropped_and_their_requests_cancelled() {
        let mut pieces = three();
        let mut out = Vec::new();
        pieces.request_open(0, A, 1, &mut out);
        let mut only_last = Bitfield::new(3);
        only_last.set(2);
        let abandoned = pieces.set_wanted(only_last);
        assert_eq!(abandoned, Abandoned { pieces: vec![0], cancels: vec![(A, out[0])] });
        assert_eq!((pieces.wanted_len(), pieces.is_all_requested()), (100, false));
        assert_eq!(receive(&mut pieces, 0, 0, A), Received::Unrequested);
        pieces.request_open(2, A, 9, &mut out);
        assert!(pieces.is_all_requested() && !pieces.is_complete());
        assert_eq!(receive(&mut pieces, 2, 0, A), kept(true, &[]));
        pieces.verified(2);
        assert!(pieces.is_complete());
    }

    #[test]
    fn what_is_held_back_is_begun_only_when_it_is_free_and_wanted() {
        let mut pieces = three();
        let mut out = Vec::new();
        pieces.request_open(0, A, 2, &mut out);
        let _ = (receive(&mut pieces, 0, 0, A), receive(&mut pieces, 0, 1, A));
        pieces.verified(0);
        pieces.hold_back(0);
        assert_eq!((pieces.left(), pieces.is_lacking(0)), (65_636, true));
        assert!(pieces.request_open(0, A, 2, &mut out) == 0 && !pieces.request(out[0], A));
        pieces.set_wanted(Bitfield::new(3));
        pieces.free(&[0]);
        assert_eq!(pieces.request_open(0, A, 2, &mut out), 0, "not wanted meanwhile");
        pieces.set_wanted(Bitfield::full(3));
        assert_eq!(pieces.request_open(0, A, 2, &mut out), 2);
    }

    #[test]
    fn counts_stay_exact_whatever_happens() {
        let mut rng = Rng::from_number(5);
        let geometry = Geometry::new(40_000 * 20, 40_000).unwrap();
        let mut pieces = Pieces::new(geometry, Bitfield::new(20), Bitfield::full(20));
        let mut out = Vec::new();
        for _ in 0..20_000 {
            let (piece, conn) = (rng.below(20) as u32, ConnId(rng.below(4) as u32));
            let block = geometry.block(piece, rng.below(3) as u32);
            match rng.below(11) {
                10 => drop(pieces.restore(piece, &[rng.below(3) as u32])),
                0 | 1 => drop(pieces.request_open(piece, conn, 2, &mut out)),
                2 => drop(pieces.request(block, conn)),
                3 => drop(pieces.release(block, conn)),
                4 => drop(pieces.receive(block, conn, addr(conn))),
                5 if is_verifying(&pieces, piece) => drop(pieces.verified(piece)),
                6 if is_verifying(&pieces, piece) => drop(pieces.failed(piece)),
                5 | 6 => drop(pieces.release_all(conn)),
                7 => pieces.hold_back(piece),
                8 => pieces.free(&[piece]),
                _ => drop(pieces.lost(piece)),
            }
            #[cfg(debug_assertions)]
            pieces.check_invariant();
            let startable = (0..20).filter(|&piece| pieces.is_startable(piece)).count();
            assert_eq!(startable, pieces.startable_count as usize);
        }
    }
}
