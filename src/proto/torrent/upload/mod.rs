//! What we give: blocks handed to the shell in turns under the rate limit, and the choker's rounds.

pub mod choker;
pub(crate) mod initial_seeding;

use std::collections::BTreeMap;

use super::connection::outbox::Outbox;
use super::download::availability::Availability;
use super::event::ConnId;
use super::metadata::upload::MetadataUpload;
use super::round_robin::RoundRobin;
use crate::proto::bandwidth::Bucket;
use crate::proto::bitfield::Bitfield;
use crate::proto::peer::Peer;
use crate::proto::piece::PieceIndex;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::wire::message::Message;
use choker::{Candidate, Capacity, Change, Choker};
use initial_seeding::InitialSeeding;

/// How long a peer may be passed over because others have asked for blocks of first copies and it
/// has not: about the time in which a neighbour completes a piece, tells of it and may be asked for
/// it. Then it is served as they are; a free rider gets one block and is passed over again.
const PASSED_MAX: Duration = Duration::from_secs(1);

/// What the giving side is to know of the torrent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share<'a> {
    /// We have all that we want.
    pub(crate) seeding: bool,
    /// Slots that the session allows.
    pub(crate) unchoke_max: Option<usize>,
    /// Copies among the neighbours.
    pub(crate) availability: &'a Availability,
}

/// The giving side.
#[derive(Debug)]
pub(crate) struct Upload {
    bucket: Bucket,
    /// Peers with requests and room in their window, one block a turn.
    ready: RoundRobin,
    /// Peers whose turn it was and that have asked for no block of a first copy (see
    /// `initial_seeding`).
    passed: RoundRobin,
    /// When the bucket has room again; None: it is not waited for.
    ready_at: Option<Instant>,
    choker: Choker,
    initial_seeding: InitialSeeding,
    /// Whether the limit held something back since the last look.
    starved: bool,
}

impl Upload {
    /// Nobody to give to.
    pub(crate) fn new(initial_seeding: InitialSeeding, rng: Rng, now: Instant) -> Self {
        Self {
            bucket: Bucket::new(None, now),
            ready: RoundRobin::default(),
            passed: RoundRobin::default(),
            ready_at: None,
            choker: Choker::new(rng, now),
            initial_seeding,
            starved: false,
        }
    }

    /// Bytes per second at most.
    pub(crate) fn set_rate(&mut self, now: Instant, rate: Option<u64>) {
        self.bucket.set_rate(rate, now);
    }

    /// When [`Upload::pump`] can go on.
    pub(crate) fn ready_at(&self) -> Option<Instant> {
        self.ready_at
    }

    /// When the next round is due.
    pub(crate) fn round_at(&self) -> Instant {
        self.choker.next_at()
    }

    /// Whether the limit held something back since this was last asked.
    pub(crate) fn take_starved(&mut self) -> bool {
        std::mem::take(&mut self.starved)
    }

    /// The peer has requests, or room for more blocks in its window.
    pub(crate) fn ready(&mut self, conn: ConnId) {
        self.ready.push(conn);
    }

    /// Hands blocks and metadata to the shell, one a peer in turns, as far as windows and the limit
    /// allow. Blocks of first copies come first while the limit holds blocks back.
    pub(crate) fn pump(
        &mut self,
        now: Instant,
        peers: &mut BTreeMap<ConnId, Peer>,
        metadata: &mut MetadataUpload,
        availability: &Availability,
        out: &mut Outbox,
    ) {
        self.ready_at = None;
        while let Some(conn) = self.next_turn(now, peers, metadata, availability) {
            let Some(peer) = peers.get_mut(&conn) else { continue };
            let Some(len) = metadata.next_len(now, conn).or_else(|| peer.uploads.next_len()) else {
                continue;
            };
            if !self.bucket.take(u64::from(len), now) {
                self.ready.push_front(conn);
                self.ready_at = self.bucket.ready_at(u64::from(len));
                self.starved = true;
                return;
            }
            if let Some(payload) = metadata.pop(now, conn) {
                match peer.remote.ut_metadata() {
                    Some(id) => out.send_metadata(now, peer, Message::Extended { id, payload }),
                    // It switched the extension off after asking.
                    None => metadata.sent(conn, 1),
                }
            } else if let Some(block) = peer.uploads.pop() {
                if self.bucket.rate().is_some() && !self.initial_seeding.is_closed() {
                    self.initial_seeding.sent(block.piece, conn);
                }
                if self.initial_seeding.is_free_rider(conn) {
                    peer.uploads.serve_passed(now);
                }
                out.send_block(now, peer, block);
            }
            self.ready.push(conn);
        }
    }

    /// The peer whose turn it is. Under a limit, and until every piece is out: one that has asked
    /// for a block of a first copy or was passed over for [`PASSED_MAX`], if there is one.
    fn next_turn(
        &mut self,
        now: Instant,
        peers: &mut BTreeMap<ConnId, Peer>,
        metadata: &MetadataUpload,
        availability: &Availability,
    ) -> Option<ConnId> {
        if self.bucket.rate().is_none() || self.initial_seeding.is_closed() {
            self.upkeep();
            return self.ready.pop();
        }
        while let Some(conn) = self.ready.pop() {
            let Some(peer) = peers.get_mut(&conn) else { continue };
            let asks_metadata = metadata.next_len(now, conn).is_some();
            if !asks_metadata && peer.uploads.next_len().is_none() {
                continue;
            }
            let is_first = asks_metadata || self.initial_seeding.bring_forward(peer, availability);
            if is_first || peer.uploads.passed_for(now) >= PASSED_MAX {
                return Some(conn);
            }
            self.passed.push(conn);
        }
        if self.initial_seeding.is_over(availability) {
            self.initial_seeding.close();
            peers.values_mut().for_each(|peer| peer.uploads.forget_refused());
        }
        self.passed.pop()
    }

    /// Peers that were passed over are looked at again.
    pub(crate) fn upkeep(&mut self) {
        while let Some(conn) = self.passed.pop() {
            self.ready.push(conn);
        }
    }

    /// A neighbour has announced a piece; [`Upload::refuse_spread`] follows when it has announced
    /// all.
    pub(crate) fn handle_have(&mut self, piece: PieceIndex, holder: ConnId) {
        self.initial_seeding.handle_have(piece, holder);
    }

    /// A neighbour has not got a piece that it had announced.
    pub(crate) fn handle_retracted(&mut self, piece: PieceIndex) {
        self.initial_seeding.handle_retracted(piece);
    }

    /// A neighbour has announced one piece, or several. Under a limit, and until every piece is
    /// out, the others are to ask it for what it has: with BEP 6 their requests that wait are
    /// rejected. Takes a step for each neighbour, or for each request that waits, but none for each
    /// piece announced.
    pub(crate) fn refuse_spread(
        &mut self,
        now: Instant,
        piece: Option<PieceIndex>,
        holder: ConnId,
        peers: &mut BTreeMap<ConnId, Peer>,
        out: &mut Outbox,
    ) {
        if self.bucket.rate().is_none() || self.initial_seeding.is_closed() {
            return;
        }
        self.initial_seeding.judge();
        // Of one piece nothing else is looked at: a copy of all that the peer has would be made for
        // each HAVE.
        let held = match piece {
            Some(_) => None,
            None => peers.get(&holder).map(|peer| peer.remote.have().clone()),
        };
        for peer in peers.values_mut().filter(|peer| peer.conn != holder && peer.is_fast()) {
            let waiting = match (piece, &held) {
                (Some(piece), _) => peer.uploads.waiting_for(piece),
                (None, Some(held)) => peer.uploads.waiting_in(held),
                (None, None) => return,
            };
            for block in waiting {
                if self.initial_seeding.refuses(block.piece, peer) && peer.uploads.cancel(block) {
                    out.send(now, peer, Message::Reject(block));
                }
            }
        }
    }

    /// Whether a request for this piece that comes is to be rejected, because another neighbour has
    /// the piece: as in [`Upload::refuse_spread`].
    pub(crate) fn refuses(&self, piece: PieceIndex, peer: &mut Peer, availability: &Availability) -> bool {
        let is_concern = self.bucket.rate().is_some() && !self.initial_seeding.is_closed();
        let may = is_concern && peer.is_fast() && !peer.state.am_choking;
        may && availability.count(piece) > 0
            && !peer.remote.have().get(piece)
            && self.initial_seeding.refuses(piece, peer)
    }

    /// Requests that each peer may let wait.
    pub(crate) fn request_queue_max(&self, interested_count: usize) -> u32 {
        self.initial_seeding.request_queue_max(self.bucket.rate(), interested_count) as u32
    }

    /// A round of the choker.
    pub(crate) fn round(
        &mut self,
        now: Instant,
        peers: &mut BTreeMap<ConnId, Peer>,
        share: Share<'_>,
        out: &mut Outbox,
    ) {
        let capacity = self.capacity(peers, &share);
        let changes = self.choker.round(now, &candidates(peers, now), capacity);
        self.apply(now, &changes, peers, &share, out);
    }

    /// Between rounds: slots that are free go to whom waits.
    pub(crate) fn fill_slots(
        &mut self,
        now: Instant,
        peers: &mut BTreeMap<ConnId, Peer>,
        share: Share<'_>,
        out: &mut Outbox,
    ) {
        let capacity = self.capacity(peers, &share);
        let changes = self.choker.fill(now, &candidates(peers, now), capacity);
        self.apply(now, &changes, peers, &share, out);
    }

    /// An unchoked peer asked for all of a suggested piece: it may need more suggestions.
    pub(crate) fn suggest(
        &mut self,
        now: Instant,
        peer: &mut Peer,
        availability: &Availability,
        out: &mut Outbox,
    ) {
        if !peer.state.am_choking {
            self.initial_seeding.suggest(now, peer, availability, out);
        }
    }

    /// We have lost pieces, and `have` only these: no others are suggested any more.
    pub(crate) fn lose(&mut self, have: &Bitfield) {
        self.initial_seeding.lose(have);
    }

    /// Of the peer's requests those are dropped, and with BEP 6 rejected, that are for pieces which
    /// we lost: we `have` only these. It may need other suggestions then.
    pub(crate) fn refuse_lost(
        &mut self,
        now: Instant,
        peer: &mut Peer,
        have: &Bitfield,
        availability: &Availability,
        out: &mut Outbox,
    ) {
        drop_waiting(now, peer, |piece| have.get(piece), out);
        self.suggest(now, peer, availability, out);
    }

    /// The peer is gone.
    pub(crate) fn forget(&mut self, peer: &mut Peer) {
        self.initial_seeding.forget(peer);
    }

    fn apply(
        &mut self,
        now: Instant,
        changes: &[Change],
        peers: &mut BTreeMap<ConnId, Peer>,
        share: &Share<'_>,
        out: &mut Outbox,
    ) {
        for change in changes {
            match *change {
                Change::Choke(conn) => {
                    if let Some(peer) = peers.get_mut(&conn) {
                        choke(now, peer, out);
                        self.initial_seeding.take_back(peer);
                    }
                }
                Change::Unchoke(conn) => {
                    if let Some(peer) = peers.get_mut(&conn) {
                        peer.state.am_choking = false;
                        // Before the unchoke, which the peer answers with its requests.
                        self.initial_seeding.suggest(now, peer, share.availability, out);
                        out.send(now, peer, Message::Unchoke);
                    }
                }
            }
        }
    }

    fn capacity(&self, peers: &BTreeMap<ConnId, Peer>, share: &Share<'_>) -> Capacity {
        // Requests that wait although their peers are unchoked: the uplink, or the limit, is what
        // is short.
        let unchoked = peers.values().filter(|peer| !peer.state.am_choking);
        let (all, waiting) = unchoked
            .fold((0, 0), |(all, waiting), peer| (all + 1, waiting + usize::from(peer.uploads.is_waiting())));
        let saturated = all > 0 && 2 * waiting >= all;
        Capacity {
            seeding: share.seeding,
            unchoke_max: share.unchoke_max,
            rate_limit: self.bucket.rate(),
            saturated,
        }
    }
}

fn candidates(peers: &BTreeMap<ConnId, Peer>, now: Instant) -> Vec<Candidate> {
    let candidate = |peer: &Peer| Candidate {
        conn: peer.conn,
        interested: peer.state.peer_interested,
        unchoked: !peer.state.am_choking,
        snubbed: peer.requests.is_snubbed(),
        download_rate: peer.traffic.download.per_second(now),
        upload_rate: peer.traffic.upload.per_second(now),
        uploaded: peer.traffic.uploaded,
        connected_at: peer.traffic.connected_at,
    };
    peers.values().map(candidate).collect()
}

/// Chokes a peer: what waits is dropped, and with BEP 6 each of those requests rejected, but for
/// allowed-fast pieces.
fn choke(now: Instant, peer: &mut Peer, out: &mut Outbox) {
    peer.state.am_choking = true;
    out.send(now, peer, Message::Choke);
    let kept: Vec<_> = if peer.is_fast() { peer.uploads.allowed_fast().collect() } else { Vec::new() };
    drop_waiting(now, peer, |piece| kept.contains(&piece), out);
}

/// Empties the peer's queue but for what `keeps` says; what is dropped is rejected, if the peer
/// knows BEP 6.
fn drop_waiting(now: Instant, peer: &mut Peer, keeps: impl Fn(PieceIndex) -> bool, out: &mut Outbox) {
    let dropped = peer.uploads.drop_waiting(keeps);
    if peer.is_fast() {
        dropped.into_iter().for_each(|block| out.send(now, peer, Message::Reject(block)));
    }
}
