//! What we take: which blocks are asked of whom, under the rate limit.

pub mod availability;
mod blocks;
pub mod endgame;
pub mod picker;
pub mod pieces;
pub mod suspects;

use super::connection::outbox::Outbox;
use super::event::ConnId;
use super::round_robin::RoundRobin;
use crate::proto::bandwidth::Bucket;
use crate::proto::block::{BLOCK_LEN, Block};
use crate::proto::peer::Peer;
use crate::proto::rng::Rng;
use crate::proto::time::Instant;
use crate::proto::wire::message::Message;
use availability::Availability;
use picker::{Ask, Picker};
use pieces::Pieces;
use suspects::Suspects;

/// The taking side.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) pieces: Pieces,
    pub(crate) availability: Availability,
    pub(crate) picker: Picker,
    pub(crate) suspects: Suspects,
    bucket: Bucket,
    /// Peers that could be asked for more than there was to ask.
    waiting: RoundRobin,
    /// Whether a waiting connection may find a block now.
    retry: bool,
    /// When the bucket has room again; None: it is not waited for.
    ready_at: Option<Instant>,
    /// Whether the limit held something back since the last look.
    starved: bool,
    /// Whether the disk can take nothing.
    halted: bool,
    /// Peers that do not choke us.
    unchoking_count: usize,
    rng: Rng,
    /// Kept for its allocation.
    picked: Vec<Block>,
}

impl Download {
    /// Nobody to ask.
    pub(crate) fn new(pieces: Pieces, sequential: bool, rng: &mut Rng, now: Instant) -> Self {
        Self {
            availability: Availability::new(pieces.geometry().piece_count()),
            picker: Picker::new(sequential, rng.fork("picker")),
            pieces,
            suspects: Suspects::default(),
            bucket: Bucket::new(None, now),
            waiting: RoundRobin::default(),
            retry: false,
            ready_at: None,
            starved: false,
            halted: false,
            unchoking_count: 0,
            rng: rng.fork("endgame"),
            picked: Vec::new(),
        }
    }

    /// Bytes per second at most.
    pub(crate) fn set_rate(&mut self, now: Instant, rate: Option<u64>) {
        self.bucket.set_rate(rate, now);
        self.retry = true;
    }

    /// When the limit allows more.
    pub(crate) fn ready_at(&self) -> Option<Instant> {
        self.ready_at
    }

    /// Whether the limit held something back since this was last asked.
    pub(crate) fn take_starved(&mut self) -> bool {
        std::mem::take(&mut self.starved)
    }

    /// Blocks became free, or time passed: waiting connections are to be tried again.
    pub(crate) fn retry(&mut self) {
        self.retry = true;
    }

    /// How many peers to try again, by [`Download::next_waiting`].
    pub(crate) fn waiting_turns(&mut self) -> usize {
        if !std::mem::take(&mut self.retry) {
            return 0;
        }
        self.ready_at = None;
        self.waiting.len()
    }

    /// Whom to try again; None if there is nobody or the limit is reached: the others keep their
    /// turn.
    pub(crate) fn next_waiting(&mut self, now: Instant) -> Option<ConnId> {
        if self.bucket.available(now) < u64::from(BLOCK_LEN) && !self.waiting.is_empty() {
            self.starved = true;
            self.ready_at = self.bucket.ready_at(u64::from(BLOCK_LEN));
            return None;
        }
        self.waiting.pop()
    }

    /// Asks nobody for anything, or goes on.
    pub(crate) fn set_halted(&mut self, halted: bool) {
        self.halted = halted;
        self.retry = true;
    }

    /// The peer chokes us, or not any more.
    pub(crate) fn set_peer_choking(&mut self, peer: &mut Peer, choking: bool) {
        if peer.state.peer_choking != choking {
            peer.state.peer_choking = choking;
            self.unchoking_count = if choking { self.unchoking_count - 1 } else { self.unchoking_count + 1 };
        }
    }

    /// Tells the peer whether we want something of it, if that changed.
    pub(crate) fn express_interest(&mut self, now: Instant, peer: &mut Peer, out: &mut Outbox) {
        let interested = peer.remote.wanted_count() > 0;
        if peer.state.set_am_interested(interested, now) {
            let message = if interested { Message::Interested } else { Message::NotInterested };
            out.send(now, peer, message);
        }
    }

    /// The peer will not send what it was asked for.
    pub(crate) fn give_up(&mut self, now: Instant, peer: &mut Peer) {
        peer.requests.give_up(now);
        self.picker.forget(peer.conn);
        if self.pieces.release_all(peer.conn) > 0 {
            self.retry = true;
        }
    }

    /// The peer is gone.
    pub(crate) fn forget(&mut self, now: Instant, peer: &mut Peer) {
        self.set_peer_choking(peer, true);
        self.give_up(now, peer);
        self.availability.remove_peer(peer.remote.have(), peer.remote.is_fickle());
    }

    /// Asks the peer for as much as its pipeline, the limit and the pieces allow.
    pub(crate) fn fill(&mut self, now: Instant, peer: &mut Peer, out: &mut Outbox) {
        let room = peer.requests.room();
        if room == 0 || !peer.may_request() {
            return;
        }
        if self.halted {
            self.waiting.push(peer.conn);
            return;
        }
        let allowance = usize::try_from(self.bucket.available(now) / u64::from(BLOCK_LEN));
        let block_max = room.min(allowance.unwrap_or(usize::MAX));
        let mut picked = std::mem::take(&mut self.picked);
        self.pick(now, peer, block_max, &mut picked);
        if picked.len() < room {
            self.waiting.push(peer.conn);
        }
        // A peer that has nothing to ask for waits for blocks, not for the limit.
        let is_limited = picked.len() == block_max && block_max < room;
        for block in picked.drain(..) {
            self.bucket.take(u64::from(block.len), now);
            peer.requests.sent(block, now);
            out.send(now, peer, Message::Request(block));
        }
        if is_limited {
            self.starved = true;
            self.ready_at = self.bucket.ready_at(u64::from(BLOCK_LEN));
        }
        self.picked = picked;
    }

    fn pick(&mut self, now: Instant, peer: &Peer, block_max: usize, picked: &mut Vec<Block>) {
        if block_max == 0 {
            return;
        }
        let choking = peer.state.peer_choking;
        let ask = Ask {
            conn: peer.conn,
            have: peer.remote.have(),
            block_max,
            rate: peer.traffic.download.per_second(now),
            only: choking.then(|| peer.remote.allowed_fast()),
            unchoking_count: self.unchoking_count,
        };
        let before = self.pieces.is_all_requested();
        if !choking && !self.picker.is_sequential() && peer.remote.suggested().next().is_some() {
            // What a seed suggests is not asked of it by others: each piece gets out sooner.
            let suggested: Vec<_> = peer.remote.suggested().collect();
            let suggested = Ask { only: Some(&suggested), ..ask };
            self.picker.pick(suggested, &mut self.pieces, &mut self.availability, picked);
        }
        let ask = Ask { block_max: block_max - picked.len(), ..ask };
        if ask.block_max > 0 {
            self.picker.pick(ask, &mut self.pieces, &mut self.availability, picked);
        }
        let all_requested = self.pieces.is_all_requested();
        if all_requested && !choking && !peer.requests.is_snubbed() && picked.len() < block_max {
            let more = block_max - picked.len();
            let have = peer.remote.have();
            endgame::pick(peer.conn, have, more, &mut self.pieces, &mut self.rng, picked);
        }
        // The endgame begins: those who found nothing may find something.
        self.retry |= all_requested && !before;
    }
}
