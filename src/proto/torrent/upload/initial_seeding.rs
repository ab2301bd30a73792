//! How a first seed lets its pieces out: each once before any twice (compare BEP 16).
//!
//! In a young swarm the seed's uplink is what every neighbour waits for, and neighbours that do not
//! know of each other's requests ask it for the same pieces. Four means against that:
//!
//! - Each unchoked neighbour is suggested pieces (BEP 6) that no neighbour has or was suggested.
//!   Other clients do not heed that.
//! - Under an upload limit, requests wait at the seed. Those for a piece of which no other
//!   neighbour was sent the first block are served first. [`InitialSeeding::is_first`] tells them
//!   apart; `upload` bounds how long the others wait.
//! - Under an upload limit, a neighbour whose pieces do not reach the others ([`Sharing`]) is given
//!   no further first copies while others ask for some: what it was sent has to be sent again.
//! - Under an upload limit, neighbours are told a short request queue
//!   ([`InitialSeeding::request_queue_max`]): libtorrent keeps three seconds of requests in flight
//!   otherwise, and what is asked for early is asked for twice.
//!
//! When every piece is out there is nothing left to do. Invariant: pieces before `cursor` are out.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::proto::bitfield::Bitfield;
use crate::proto::block::BLOCK_LEN;
use crate::proto::peer::Peer;
use crate::proto::peer::remote::SUGGESTED_MAX;
use crate::proto::peer::uploads::QUEUE_COUNT_MAX;
use crate::proto::piece::{Geometry, PieceIndex};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::connection::outbox::Outbox;
use crate::proto::torrent::download::availability::Availability;
use crate::proto::torrent::event::ConnId;
use crate::proto::wire::message::Message;

/// Pieces suggested to a neighbour ahead of what it fetches in [`AHEAD_SECS`].
const AHEAD_MIN: u64 = 2;
/// Seconds of a neighbour's rate that suggestions cover: the next ones come as it asks for these.
const AHEAD_SECS: u64 = 2;
/// Requests that may wait at the seed in all, as time at its upload limit: longer than most round
/// trips, so that the limit is reached.
const REQUEST_SPAN: Duration = Duration::from_millis(250);
/// Least request queue told to a neighbour, in blocks.
const REQUEST_QUEUE_MIN: usize = 16;

/// First copies that a neighbour must have announced before it is judged: fewer say too little.
const JUDGED_COUNT_MIN: u32 = 8;
/// The share of a free rider's pieces that reached other neighbours is less than this part of the
/// best share.
const FREE_RIDER_PARTS: u64 = 4;

/// The first copy of one piece.
#[derive(Clone, Copy, Debug)]
struct FirstCopy {
    /// The neighbour that was sent its first block.
    recipient: ConnId,
    /// The recipient has announced the piece.
    is_complete: bool,
    /// Another neighbour has announced it.
    is_shared: bool,
}

/// What became of the first copies that one neighbour was sent. Each piece counts once, so that
/// announcing and retracting it in turns raises nothing, and only when the recipient has announced
/// it as well.
#[derive(Clone, Copy, Debug, Default)]
struct Sharing {
    /// Pieces that it has announced.
    complete_count: u32,
    /// Those of them that another neighbour has announced too; at most `complete_count`.
    shared_count: u32,
    is_free_rider: bool,
}

impl Sharing {
    fn is_judged(&self) -> bool {
        self.complete_count >= JUDGED_COUNT_MIN
    }

    /// Compares the shares of their pieces that reached others.
    fn cmp_share(&self, other: &Self) -> Ordering {
        let times = |one: u32, two: u32| u64::from(one) * u64::from(two);
        times(self.shared_count, other.complete_count).cmp(&times(other.shared_count, self.complete_count))
    }

    /// Whether the share is less than the part [`FREE_RIDER_PARTS`] of the best share.
    fn is_free_rider_beside(&self, best: &Self) -> bool {
        let shared = FREE_RIDER_PARTS * u64::from(self.shared_count) * u64::from(best.complete_count);
        self.is_judged() && shared < u64::from(best.shared_count) * u64::from(self.complete_count)
    }
}

/// Pieces that are not out yet.
#[derive(Debug)]
pub(crate) struct InitialSeeding {
    /// In random order, taken from the end.
    unseen: Vec<PieceIndex>,
    /// Every piece is still to be listed, in an order that follows from this: nobody came yet.
    unlisted: Option<Rng>,
    /// The first copy of each piece whose recipient is connected. Empty before the first block
    /// under an upload limit, and again when every piece is out.
    first_copies: Vec<Option<FirstCopy>>,
    /// The recipients of first copies.
    sharing: BTreeMap<ConnId, Sharing>,
    /// The first piece that may not be out.
    cursor: PieceIndex,
    geometry: Geometry,
}

impl InitialSeeding {
    /// For a torrent that starts with `have`; only who starts complete has pieces to let out.
    pub(crate) fn new(have: &Bitfield, geometry: Geometry, rng: Rng) -> Self {
        let is_seed = have.is_full();
        let cursor = if is_seed { 0 } else { geometry.piece_count() };
        let unlisted = is_seed.then_some(rng);
        let (unseen, first_copies) = (Vec::new(), Vec::new());
        Self { unseen, unlisted, first_copies, sharing: BTreeMap::new(), cursor, geometry }
    }

    /// Suggests to an unchoked neighbour as much as it can fetch soon.
    pub(crate) fn suggest(
        &mut self,
        now: Instant,
        peer: &mut Peer,
        availability: &Availability,
        out: &mut Outbox,
    ) {
        if !peer.is_fast() || !peer.state.peer_interested {
            return;
        }
        self.list();
        let piece_len = u64::from(self.geometry.piece_len());
        let ahead = AHEAD_MIN + peer.traffic.upload.per_second(now) * AHEAD_SECS / piece_len;
        let ahead = usize::try_from(ahead).unwrap_or(usize::MAX).min(SUGGESTED_MAX);
        while peer.known_haves.suggested_count() < ahead {
            let Some(piece) = self.unseen.pop() else { return };
            // Those that got out by themselves need no more help.
            if self.is_first(piece, peer.conn, availability) {
                peer.known_haves.suggest(piece, self.geometry.block_count(piece));
                out.send(now, peer, Message::Suggest(piece));
            }
        }
    }

    /// Whether a block of this piece would be of its first copy: no other neighbour has the piece
    /// or was sent its first block.
    pub(crate) fn is_first(&self, piece: PieceIndex, conn: ConnId, availability: &Availability) -> bool {
        let first_copy = self.first_copy(piece);
        first_copy.map_or_else(|| availability.count(piece) == 0, |copy| copy.recipient == conn)
    }

    /// Whether the neighbour has asked for a block of a first copy; if so, that request becomes its
    /// next. One that asks again after it was refused cannot get the piece elsewhere: its request
    /// counts as well.
    pub(crate) fn bring_forward(&self, peer: &mut Peer, availability: &Availability) -> bool {
        let conn = peer.conn;
        let may_begin = !self.is_free_rider(conn);
        peer.uploads.bring_forward(|piece, refused_count| {
            let may = may_begin || self.first_copy(piece).is_some();
            refused_count >= self.geometry.block_count(piece)
                || may && self.is_first(piece, conn, availability)
        })
    }

    /// Whether what the neighbour was sent does not reach the others, while they share what they
    /// get.
    pub(crate) fn is_free_rider(&self, conn: ConnId) -> bool {
        self.sharing.get(&conn).is_some_and(|sharing| sharing.is_free_rider)
    }

    /// A neighbour has announced a piece.
    pub(crate) fn handle_have(&mut self, piece: PieceIndex, holder: ConnId) {
        let Some(Some(copy)) = self.first_copies.get_mut(piece as usize) else { return };
        let was = *copy;
        copy.is_complete |= copy.recipient == holder;
        copy.is_shared |= copy.recipient != holder;
        let Some(sharing) = self.sharing.get_mut(&copy.recipient) else { return };
        sharing.complete_count += u32::from(copy.is_complete && !was.is_complete);
        let counts = |copy: &FirstCopy| copy.is_complete && copy.is_shared;
        sharing.shared_count += u32::from(counts(copy) && !counts(&was));
    }

    /// Looks anew for free riders, after pieces were announced.
    pub(crate) fn judge(&mut self) {
        let judged = self.sharing.values().filter(|sharing| sharing.is_judged());
        let Some(best) = judged.copied().max_by(Sharing::cmp_share) else { return };
        for sharing in self.sharing.values_mut() {
            sharing.is_free_rider = sharing.is_free_rider_beside(&best);
        }
    }

    /// A neighbour has not got a piece that it had announced: it may not be out.
    pub(crate) fn handle_retracted(&mut self, piece: PieceIndex) {
        if !self.is_closed() {
            self.cursor = self.cursor.min(piece);
        }
    }

    /// Whether a request for a piece that another neighbour has is refused: each block once.
    pub(crate) fn refuses(&self, piece: PieceIndex, peer: &mut Peer) -> bool {
        peer.uploads.refuse(piece, self.geometry.block_count(piece))
    }

    /// A neighbour is sent a block of this piece. A free rider is the recipient of no further first
    /// copy: the piece is still one to begin for the others.
    pub(crate) fn sent(&mut self, piece: PieceIndex, conn: ConnId) {
        if self.is_free_rider(conn) {
            return;
        }
        self.first_copies.resize(self.geometry.piece_count() as usize, None);
        if let Some(copy) = self.first_copies.get_mut(piece as usize)
            && copy.is_none()
        {
            *copy = Some(FirstCopy { recipient: conn, is_complete: false, is_shared: false });
            self.sharing.entry(conn).or_default();
        }
    }

    /// Whether every piece is out: some neighbour has it or is being sent it. Looks on from where
    /// it last stopped; a neighbour that leaves has it begin anew.
    pub(crate) fn is_over(&mut self, availability: &Availability) -> bool {
        let end = self.geometry.piece_count();
        let is_out = |piece: PieceIndex| self.first_copy(piece).is_some() || availability.count(piece) > 0;
        self.cursor = (self.cursor..end).find(|&piece| !is_out(piece)).unwrap_or(end);
        self.cursor == end
    }

    /// Every piece is out, and no neighbour asks for more of a first copy.
    pub(crate) fn close(&mut self) {
        self.cursor = self.geometry.piece_count();
        self.first_copies = Vec::new();
        self.sharing.clear();
    }

    /// Whether first copies are no concern any more, or never were.
    pub(crate) fn is_closed(&self) -> bool {
        self.cursor == self.geometry.piece_count() && self.first_copies.is_empty()
    }

    /// Blocks that each of so many neighbours may ask for ahead, under a limit of so many bytes per
    /// second.
    pub(crate) fn request_queue_max(&self, rate: Option<u64>, interested_count: usize) -> usize {
        let Some(rate) = rate.filter(|_| interested_count > 1 && !self.is_closed()) else {
            return QUEUE_COUNT_MAX;
        };
        let len = u128::from(rate) * REQUEST_SPAN.as_micros() / 1_000_000;
        let count = len / u128::from(BLOCK_LEN) / interested_count as u128;
        usize::try_from(count).unwrap_or(usize::MAX).clamp(REQUEST_QUEUE_MIN, QUEUE_COUNT_MAX)
    }

    fn first_copy(&self, piece: PieceIndex) -> Option<FirstCopy> {
        self.first_copies.get(piece as usize).copied().flatten()
    }

    fn list(&mut self) {
        if let Some(mut rng) = self.unlisted.take() {
            self.unseen = (0..self.geometry.piece_count()).collect();
            rng.shuffle(&mut self.unseen);
        }
    }

    /// We do not have all pieces any more, but `have`: who has the others got them elsewhere.
    pub(crate) fn lose(&mut self, have: &Bitfield) {
        self.list();
        self.unseen.retain(|&piece| have.get(piece));
        self.close();
    }

    /// The neighbour will not fetch what it was suggested: others may.
    pub(crate) fn take_back(&mut self, peer: &mut Peer) {
        self.unseen.extend(peer.known_haves.take_suggested());
    }

    /// The neighbour is gone, and what only it had.
    pub(crate) fn forget(&mut self, peer: &mut Peer) {
        self.take_back(peer);
        if self.sharing.remove(&peer.conn).is_some() {
            let is_gone = |copy: &FirstCopy| copy.recipient == peer.conn;
            self.first_copies.iter_mut().for_each(|copy| *copy = copy.filter(|copy| !is_gone(copy)));
        }
        if !self.is_closed() {
            self.cursor = 0;
        }
    }
}
