//! How a first seed lets its pieces out: each once before any twice, by suggestions (BEP 6).
//!
//! In a young swarm the seed's uplink is what everybody waits for, and neighbours that do not know of each
//! other's requests ask it for the same pieces. So each unchoked neighbour is suggested pieces that nobody
//! else has or was suggested. When every piece is out there is nothing left to do.

use super::availability::Availability;
use super::outbox::Outbox;
use crate::proto::bitfield::Bitfield;
use crate::proto::peer::Peer;
use crate::proto::peer::remote::SUGGESTED_MAX;
use crate::proto::piece::{Geometry, PieceIndex};
use crate::proto::rng::Rng;
use crate::proto::time::Instant;
use crate::proto::wire::message::Message;

/// Pieces suggested to a neighbour ahead of what it fetches in [`AHEAD_SECS`].
const AHEAD_MIN: u64 = 2;
/// Seconds of a neighbour's rate that suggestions cover: the next ones come as it asks for these.
const AHEAD_SECS: u64 = 2;

/// Pieces that are not out yet.
#[derive(Debug)]
pub(super) struct Debut {
    /// In random order, taken from the end.
    unseen: Vec<PieceIndex>,
    /// Every piece is still to be listed, in an order that follows from this: nobody came yet.
    unlisted: Option<Rng>,
    geometry: Geometry,
}

impl Debut {
    /// For a torrent that starts with `have`; only who starts complete has pieces to let out.
    pub(super) fn new(have: &Bitfield, geometry: Geometry, rng: Rng) -> Self {
        Self { unseen: Vec::new(), unlisted: have.is_full().then_some(rng), geometry }
    }

    /// Suggests to an unchoked neighbour as much as it can fetch soon.
    pub(super) fn suggest(
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
        while peer.offer.suggested_count() < ahead {
            let Some(piece) = self.unseen.pop() else { return };
            // Those that got out by themselves need no more help.
            if availability.count(piece) == 0 {
                peer.offer.suggest(piece, self.geometry.block_count(piece));
                out.send(now, peer, Message::Suggest(piece));
            }
        }
    }

    fn list(&mut self) {
        if let Some(mut rng) = self.unlisted.take() {
            self.unseen = (0..self.geometry.piece_count()).collect();
            rng.shuffle(&mut self.unseen);
        }
    }

    /// We do not have all pieces any more, but `have`: who has the others got them elsewhere.
    pub(super) fn lose(&mut self, have: &Bitfield) {
        self.list();
        self.unseen.retain(|&piece| have.get(piece));
    }

    /// The neighbour will not fetch what it was suggested: others may.
    pub(super) fn take_back(&mut self, peer: &mut Peer) {
        self.unseen.extend(peer.offer.take_suggested());
    }
}
