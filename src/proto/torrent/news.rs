//! What we gained in the running swarming interval: told to the neighbours in one batch when it ends.
//!
//! A neighbour gets one `sp_have` message if it takes that, else a HAVE a piece; never about pieces that it
//! has. One that has nothing left to ask of us hears of a gained piece at once.

use std::collections::{BTreeMap, BTreeSet};

use super::event::ConnId;
use super::outbox::Outbox;
use crate::proto::bitfield::Bitfield;
use crate::proto::peer::Peer;
use crate::proto::piece::PieceIndex;
use crate::proto::time::{Duration, Instant};
use crate::proto::wire::message::Message;
use crate::proto::wire::sp_have;

/// The news of the interval.
#[derive(Debug)]
pub(super) struct News {
    interval: Duration,
    gained: BTreeSet<PieceIndex>,
    /// When to tell; None while there is nothing to tell.
    due_at: Option<Instant>,
}

impl News {
    /// Nothing gained yet.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, gained: BTreeSet::new(), due_at: None }
    }

    /// What is not told to everyone yet.
    pub(super) fn gained(&self) -> &BTreeSet<PieceIndex> {
        &self.gained
    }

    /// When [`News::tell`] is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// We gained a piece: it goes into the batch, and at once to a peer that has nothing left to ask of us.
    pub(super) fn gain(
        &mut self,
        now: Instant,
        piece: PieceIndex,
        peers: &mut BTreeMap<ConnId, Peer>,
        out: &mut Outbox,
    ) {
        self.gained.insert(piece);
        self.due_at.get_or_insert(now + self.interval);
        for peer in peers.values_mut() {
            if !peer.remote.have().get(piece) && peer.offer.is_exhausted() {
                peer.offer.tell_early(piece);
                out.send(now, peer, Message::Have(piece));
            }
        }
    }

    /// The interval ends: `have` is all that we hold.
    pub(super) fn tell(
        &mut self,
        now: Instant,
        have: &Bitfield,
        peers: &mut BTreeMap<ConnId, Peer>,
        out: &mut Outbox,
    ) {
        self.due_at = None;
        for peer in peers.values_mut() {
            let fresh = peer.offer.tell(&self.gained, peer.remote.have());
            match (fresh.as_slice(), peer.remote.sp_have()) {
                ([], _) => {}
                // One HAVE is shorter than any extension message.
                ([piece], _) => out.send(now, peer, Message::Have(*piece)),
                (pieces, Some(id)) => {
                    let payload = sp_have::encode(pieces, have);
                    out.send(now, peer, Message::Extended { id, payload });
                }
                (pieces, None) => pieces.iter().for_each(|&piece| out.send(now, peer, Message::Have(piece))),
            }
        }
        self.gained.clear();
    }
}
