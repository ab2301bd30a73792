//! What we gained in the running swarming interval: told to the neighbours in one batch when it
//! ends.
//!
//! A neighbour gets one `sp_have` message if it takes that, else a HAVE a piece, also about pieces
//! that it has itself: a peer that super-seeds (BEP 16) shows a piece at a time, and waits for the
//! HAVE of that one before it shows the next. Only a peer that is known to have everything is told
//! nothing.
//!
//! One that has nothing left to ask of us hears at once of a gained piece that it lacks: that is a
//! peer that has all that we told it of, and one that may ask and does not. The latter only while
//! pieces come fast: then a neighbour fetches all that it knows of in a fraction of the interval.
//! In a slow swarm some neighbour is idle most of the time, and telling of each piece by itself
//! would cost more bytes. A peer that may be super-seeding is told of every piece at once, for it
//! sends nothing more until then.
//!
//! A loss is told at once to every peer that may know of the piece, by `sp_have` or
//! `lt_donthave` (BEP 54); a gain that was not sent yet is not sent. A peer that takes neither is
//! disconnected and dialled again.

use std::collections::{BTreeMap, BTreeSet};

use super::outbox::Outbox;
use crate::proto::bitfield::Bitfield;
use crate::proto::peer::Peer;
use crate::proto::piece::PieceIndex;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event::ConnId;
use crate::proto::wire::dont_have;
use crate::proto::wire::message::Message;
use crate::proto::wire::sp_have;

/// Bytes of pieces gained in one interval from which on idle neighbours are told of each piece at
/// once: at such rates a HAVE a piece is nothing, and waiting is what costs.
const FAST_LEN: u64 = 4 << 20;

/// A peer that super-seeds shows so few pieces at a time: rtorrent one, libtorrent two.
const SHOWN_AT_ONCE_MAX: u32 = 2;

/// Most messages by which one neighbour is told of pieces lost at once, 10 bytes each: they are to
/// fit into the queue of its connection. With more it is greeted anew.
const DONT_HAVES_MAX: usize = 1_024;

/// The pieces gained in this interval.
#[derive(Debug)]
pub(crate) struct HaveBatch {
    interval: Duration,
    /// Bytes of a piece.
    piece_len: u64,
    /// Whether the last interval brought [`FAST_LEN`]; at first we hope so.
    was_fast: bool,
    gained: BTreeSet<PieceIndex>,
    /// When to tell; None while there is nothing to tell.
    due_at: Option<Instant>,
}

impl HaveBatch {
    /// Nothing gained yet.
    pub(crate) fn new(interval: Duration, piece_len: u32) -> Self {
        let piece_len = u64::from(piece_len);
        Self { interval, piece_len, was_fast: true, gained: BTreeSet::new(), due_at: None }
    }

    /// What is not told to everyone yet.
    pub(crate) fn gained(&self) -> &BTreeSet<PieceIndex> {
        &self.gained
    }

    /// When [`HaveBatch::tell`] is due.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// We gained a piece: it goes into the batch, and at once to a peer that has nothing left to
    /// ask of us or may be waiting for the message.
    pub(crate) fn gain(
        &mut self,
        now: Instant,
        piece: PieceIndex,
        peers: &mut BTreeMap<ConnId, Peer>,
        out: &mut Outbox,
    ) {
        self.gained.insert(piece);
        self.due_at.get_or_insert(now + self.interval);
        let is_fast = self.is_fast();
        for peer in peers.values_mut().filter(|peer| !peer.remote.is_seed()) {
            let lacks = !peer.remote.have().get(piece);
            let has_nothing_to_ask = peer.known_haves.is_exhausted() || (is_fast && is_idle(peer));
            let at_once = lacks && has_nothing_to_ask && !peer.known_haves.is_owed();
            if at_once || may_super_seed(peer) {
                peer.known_haves.tell_early(piece, lacks);
                out.send_availability(now, peer, Message::Have(piece));
            } else if lacks {
                peer.known_haves.owe();
            }
        }
    }

    /// Pieces, ascending, are not ours any more; `have` is all that we still hold. Who is to be
    /// greeted anew, since it knows of one and cannot be told.
    pub(crate) fn lose(
        &mut self,
        now: Instant,
        lost: &[PieceIndex],
        have: &Bitfield,
        peers: &mut BTreeMap<ConnId, Peer>,
        out: &mut Outbox,
    ) -> Vec<ConnId> {
        let before = self.gained.clone();
        self.gained.retain(|piece| have.get(*piece));
        let mut untold = Vec::new();
        for peer in peers.values_mut() {
            let Peer { known_haves, remote, .. } = peer;
            let known = lost.iter().copied().filter(|&piece| known_haves.lose(piece, &before, remote.have()));
            let known: Vec<_> = known.collect();
            match (remote.lt_donthave(), remote.sp_have()) {
                _ if known.is_empty() => {}
                (Some(_), Some(id)) => {
                    // It may name all that we hold: then that is no news any more.
                    self.tell_peer(now, have, peer, &[], out);
                    let payload = sp_have::encode_lost(&known, have);
                    out.send_availability(now, peer, Message::Extended { id, payload });
                }
                (Some(id), None) if known.len() <= DONT_HAVES_MAX => {
                    for payload in known.into_iter().map(dont_have::encode) {
                        out.send_availability(now, peer, Message::Extended { id, payload });
                    }
                }
                (Some(_) | None, _) => untold.push(peer.conn),
            }
        }
        untold
    }

    /// The peer took back these pieces of ours: it is told that we have them, if it may not know.
    pub(crate) fn peer_lost(
        &self,
        now: Instant,
        taken_back: &[PieceIndex],
        have: &Bitfield,
        peer: &mut Peer,
        out: &mut Outbox,
    ) {
        let ours = taken_back.iter().copied().filter(|&piece| have.get(piece));
        let again: Vec<_> = ours.filter(|&piece| peer.known_haves.peer_lost(piece, &self.gained)).collect();
        if !again.is_empty() {
            self.tell_peer(now, have, peer, &again, out);
        }
    }

    /// The peer may have nothing left to ask of us: then it is told what it missed. `have` is all
    /// that we hold.
    pub(crate) fn tell_idle(&self, now: Instant, have: &Bitfield, peer: &mut Peer, out: &mut Outbox) {
        if peer.known_haves.is_owed() && self.is_fast() && is_idle(peer) {
            self.tell_peer(now, have, peer, &[], out);
        }
    }

    /// Whether pieces come so fast that idle neighbours need not wait for the interval.
    fn is_fast(&self) -> bool {
        self.was_fast || self.brought_len() >= FAST_LEN
    }

    fn brought_len(&self) -> u64 {
        self.gained.len() as u64 * self.piece_len
    }

    /// The interval ends: `have` is all that we hold.
    pub(crate) fn tell(
        &mut self,
        now: Instant,
        have: &Bitfield,
        peers: &mut BTreeMap<ConnId, Peer>,
        out: &mut Outbox,
    ) {
        self.due_at = None;
        self.was_fast = self.brought_len() >= FAST_LEN;
        for peer in peers.values_mut() {
            self.tell_peer(now, have, peer, &[], out);
            peer.known_haves.end_interval();
        }
        self.gained.clear();
    }

    /// Tells the peer what it missed of the news, and of pieces that are none.
    fn tell_peer(
        &self,
        now: Instant,
        have: &Bitfield,
        peer: &mut Peer,
        again: &[PieceIndex],
        out: &mut Outbox,
    ) {
        let mut fresh = peer.known_haves.tell(&self.gained, peer.remote.have());
        if !again.is_empty() {
            fresh.extend(again);
            fresh.sort_unstable();
        }
        match (fresh.as_slice(), peer.remote.sp_have()) {
            ([], _) => {}
            // One HAVE is shorter than any extension message.
            ([piece], _) => out.send_availability(now, peer, Message::Have(*piece)),
            (pieces, Some(id)) => {
                let payload = sp_have::encode(pieces, have);
                out.send_availability(now, peer, Message::Extended { id, payload });
            }
            (pieces, None) => {
                pieces.iter().for_each(|&piece| out.send_availability(now, peer, Message::Have(piece)));
            }
        }
    }
}

/// Whether the peer may be super-seeding (BEP 16): it has pieces, never wanted any of ours, and
/// shows hardly more than we have already. No peer that speaks `sp_have` does.
fn may_super_seed(peer: &Peer) -> bool {
    let shows_few = peer.remote.have().count() > 0 && peer.remote.wanted_count() < SHOWN_AT_ONCE_MAX;
    shows_few && !peer.state.peer_was_interested && peer.remote.sp_have().is_none()
}

/// Whether the peer may ask and does not: it knows of nothing that it wants of us.
fn is_idle(peer: &Peer) -> bool {
    !peer.state.am_choking && !peer.uploads.is_waiting()
}
