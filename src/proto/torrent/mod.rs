//! One torrent: every decision about its pieces and its peers.
//!
//! `Awake` owns the parts and passes between them what they need; no part knows another. It is made when the
//! torrent's first input comes: until then a [`Torrent`] is at rest (`rest`). The inputs are here, what they lead to
//! in `connections` (who is connected), `messages` (what peers say) and `exchange` (blocks and pieces). Work an input is in proportion to what it changes: a block costs no
//! walk over peers or pieces; a verified piece, a round and each second of upkeep cost one walk over peers.
//! A torrent without connections waits for nothing but its candidates.
//!
//! Invariants, checked in debug builds: a disconnected peer is in no part; interest is what the count of
//! wanted pieces says; every bound of a connection holds; the books of the pieces agree.

pub mod availability;
pub mod candidates;
pub mod choker;
mod connections;
mod debut;
pub mod description;
mod dialer;
mod download;
pub mod endgame;
pub mod event;
mod exchange;
pub mod finder;
mod messages;
mod metadata;
mod news;
mod outbox;
mod pex;
pub mod picker;
pub mod pieces;
pub mod rate;
pub mod refusals;
mod rest;
mod rota;
mod snapshot;
pub mod suspects;
#[cfg(test)]
mod tests;
mod upload;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::block::Block;
use super::peer::Peer;
use super::piece::PieceIndex;
use super::rng::Rng;
use super::session::{Demand, Lease};
use super::time::{Duration, Instant};
use super::wire::message::Message;
use debut::Debut;
use dialer::Dialer;
use download::Download;
use event::{
    Command, ConnId, Connected, DisconnectReason, Output, PieceResult, Receipt, Settings, Source,
    TorrentSnapshot,
};
use metadata::Metadata;
use news::News;
use outbox::Outbox;
use pex::Gossip;
use pieces::Pieces;
pub use rest::Torrent;
use snapshot::Totals;
use upload::{Share, Upload};

/// How often connections are looked after: silence, snubs, the depth of pipelines. Only while there are any.
const UPKEEP: Duration = Duration::from_secs(1);

/// A torrent that somebody or something came to. Its inputs and outputs are those of [`Torrent`], which says what
/// they mean.
#[derive(Debug)]
struct Awake {
    settings: Settings,
    peers: BTreeMap<ConnId, Peer>,
    download: Download,
    upload: Upload,
    news: News,
    metadata: Metadata,
    gossip: Gossip,
    dialer: Dialer,
    status: Status,
    limits: Limits,
    totals: Totals,
    /// When to look after connections; None without any.
    upkeep_at: Option<Instant>,
    out: Outbox,
}

/// What people see as the state of the whole.
#[derive(Debug)]
struct Status {
    paused: bool,
    /// Every wanted piece is there.
    complete: bool,
}

/// The shares that the session leases, and what the user allows this torrent.
#[derive(Debug)]
struct Limits {
    lease: Lease,
    upload_rate: Option<u64>,
    download_rate: Option<u64>,
}

impl Awake {
    /// Nobody came yet.
    fn new(settings: Settings, pieces: Pieces, mut rng: Rng, now: Instant) -> Self {
        let geometry = pieces.geometry();
        let debut = Debut::new(pieces.have(), geometry, rng.fork("debut"));
        let status = Status { paused: false, complete: pieces.is_complete() };
        let connection_max = settings.connection_max;
        let lease = Lease { connection_max, unchoke_max: None, upload_rate: None, download_rate: None };
        Self {
            peers: BTreeMap::new(),
            download: Download::new(pieces, settings.sequential, &mut rng, now),
            upload: Upload::new(debut, rng.fork("choker"), now),
            news: News::new(settings.swarming_interval, geometry.piece_len()),
            metadata: Metadata::new(if settings.private { Bytes::new() } else { settings.metadata.clone() }),
            gossip: Gossip::default(),
            dialer: Dialer::new(rng.fork("candidates"), settings.private),
            status,
            limits: Limits { lease, upload_rate: None, download_rate: None },
            totals: Totals::new(now),
            upkeep_at: None,
            out: Outbox::default(),
            settings,
        }
    }

    fn handle_connected(&mut self, now: Instant, conn: ConnId, connected: Connected) {
        self.connect(now, conn, connected);
        self.settle(now);
    }

    fn handle_handover(&mut self, now: Instant, handover: description::Handover) {
        debug_assert!(self.peers.is_empty(), "nothing came before");
        self.dialer = handover.dialer;
        if self.settings.private {
            self.dialer.keep_named();
        }
        for addr in handover.parted {
            self.dialer.parted(now, addr, Some(DisconnectReason::Anew), true);
        }
        for introduced in handover.introduced {
            self.take_over(now, introduced);
        }
        self.settle(now);
    }

    fn handle_dial_failed(&mut self, now: Instant, addr: SocketAddr) {
        self.dialer.failed(now, addr);
        self.settle(now);
    }

    fn handle_disconnected(&mut self, now: Instant, conn: ConnId) {
        self.forget(now, conn, None);
        self.settle(now);
    }

    fn handle_message(&mut self, now: Instant, conn: ConnId, message: Message) {
        if let Err(reason) = self.receive_message(now, conn, message) {
            self.disconnect(now, conn, reason);
        }
        self.settle(now);
    }

    fn handle_block(&mut self, now: Instant, conn: ConnId, block: Block) -> Receipt {
        let receipt = self.receive_block(now, conn, block);
        self.settle(now);
        receipt
    }

    fn handle_blocks_sent(&mut self, now: Instant, conn: ConnId, count: usize, bytes: u64) {
        debug_assert!(count > 0 || bytes == 0, "bytes belong to blocks");
        self.blocks_sent(now, conn, bytes);
        self.settle(now);
    }

    fn handle_metadata_sent(&mut self, now: Instant, conn: ConnId, count: usize) {
        self.metadata.sent(conn, count);
        self.upload.ready(conn);
        self.settle(now);
    }

    fn handle_restored(&mut self, now: Instant, piece: PieceIndex, blocks: &[u32]) {
        if self.download.pieces.restore(piece, blocks) {
            self.out.push(Output::VerifyPiece { piece, block_hashes: false });
        }
        self.settle(now);
    }

    fn handle_piece_result(&mut self, now: Instant, piece: PieceIndex, result: PieceResult) {
        match result {
            PieceResult::Good(hashes) => self.piece_good(now, piece, hashes.as_ref()),
            PieceResult::Bad(hashes) => self.piece_bad(now, piece, hashes),
            PieceResult::Lost => self.piece_lost(piece),
        }
        self.settle(now);
    }

    fn handle_blocks_unsent(&mut self, now: Instant, conn: ConnId, blocks: &[Block]) {
        self.blocks_unsent(now, conn, blocks);
        self.settle(now);
    }

    fn handle_lost(&mut self, now: Instant, pieces: Vec<PieceIndex>, is_fetching: bool) {
        self.pieces_lost(now, pieces, is_fetching);
        self.settle(now);
    }

    fn handle_loss_noted(&mut self, now: Instant, pieces: &[PieceIndex]) {
        self.loss_noted(pieces);
        self.settle(now);
    }

    fn handle_storage(&mut self, now: Instant, is_failing: bool) {
        self.download.set_halted(is_failing);
        self.settle(now);
    }

    fn handle_candidates(&mut self, now: Instant, source: Source, addrs: &[SocketAddr]) {
        self.dialer.add(now, source, addrs);
        self.settle(now);
    }

    fn handle_external_ip(&mut self, now: Instant, ip: IpAddr) {
        // The port only tells apart who shares our address, and who does not listen has none.
        self.dialer.set_external(SocketAddr::new(ip, self.settings.listen_port.unwrap_or(0)));
        self.settle(now);
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Pause => {
                self.status.paused = true;
                self.disconnect_all(now, DisconnectReason::Stopping);
                self.dialer.look();
            }
            Command::Resume => {
                self.status.paused = false;
                self.dialer.look();
            }
            Command::Want(wanted) => self.want(now, wanted),
            Command::Sequential(sequential) => self.download.picker.set_sequential(sequential),
            Command::Limit { upload_rate, download_rate } => {
                self.limits.upload_rate = upload_rate;
                self.limits.download_rate = download_rate;
                self.limit_rates(now);
            }
        }
        self.settle(now);
    }

    fn handle_lease(&mut self, now: Instant, lease: Lease) {
        self.limits.lease = lease;
        self.limit_rates(now);
        self.dialer.look();
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.upkeep_at) {
            self.upkeep(now);
        }
        if due(self.news.due_at()) {
            self.news.tell(now, self.download.pieces.have(), &mut self.peers, &mut self.out);
        }
        if due(self.gossip.due_at()) {
            self.gossip.tell(now, &mut self.peers, &mut self.out);
        }
        if due(self.round_at()) {
            let share = Share {
                seeding: self.status.complete,
                unchoke_max: self.limits.lease.unchoke_max,
                availability: &self.download.availability,
            };
            self.upload.round(now, &mut self.peers, share, &mut self.out);
        }
        if due(self.download.ready_at()) {
            self.download.retry();
        }
        if due(self.dialer.look_at()) {
            self.dialer.look();
        }
        self.settle(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let timers = [
            self.upkeep_at,
            self.news.due_at(),
            self.gossip.due_at(),
            self.round_at(),
            self.upload.ready_at(),
            self.download.ready_at(),
            self.dialer.look_at(),
        ];
        timers.into_iter().flatten().min()
    }

    fn demand(&self) -> Demand {
        Demand {
            connections: self.peers.len() + self.dialer.dialing_count(),
            candidates: self.dialer.candidate_count(),
            interested: self.peers.values().filter(|peer| peer.state.peer_interested).count(),
            upload_rate: self.totals.upload_rate,
            download_rate: self.totals.download_rate,
            upload_starved: self.totals.upload_starved,
            download_starved: self.totals.download_starved,
        }
    }

    fn snapshot(&self, now: Instant) -> TorrentSnapshot {
        self.take_snapshot(now)
    }

    /// When the next round of the choker is due; None without anybody to choke.
    fn round_at(&self) -> Option<Instant> {
        (!self.peers.is_empty()).then(|| self.upload.round_at())
    }

    /// The tighter of lease and command, each way.
    fn limit_rates(&mut self, now: Instant) {
        let tighter = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        let Limits { lease, upload_rate, download_rate } = &self.limits;
        self.upload.set_rate(now, tighter(lease.upload_rate, *upload_rate));
        self.download.set_rate(now, tighter(lease.download_rate, *download_rate));
    }

    /// The end of every input: those who wait for blocks, bytes or addresses get what there is.
    fn settle(&mut self, now: Instant) {
        for _ in 0..self.download.hungry_turns() {
            let Some(conn) = self.download.next_hungry(now) else { break };
            if let Some(peer) = self.peers.get_mut(&conn) {
                self.download.fill(now, peer, &mut self.out);
            }
        }
        let availability = &self.download.availability;
        self.upload.pump(now, &mut self.peers, &mut self.metadata, availability, &mut self.out);
        // While paused too: the dialer has to learn that it waits for nobody.
        let connection_max = if self.status.paused { 0 } else { self.limits.lease.connection_max };
        let room = connection_max.saturating_sub(self.peers.len());
        self.dialer.dial(now, room, |addr| self.out.push(Output::Dial(addr)));
        #[cfg(debug_assertions)]
        self.check_invariant();
    }

    /// Says whether the books agree.
    #[cfg(debug_assertions)]
    fn check_invariant(&self) {
        debug_assert_eq!(self.upkeep_at.is_some(), !self.peers.is_empty());
        debug_assert!(!self.status.paused || self.peers.is_empty());
        self.download.pieces.check_invariant();
        self.gossip.check_invariant();
        for peer in self.peers.values() {
            peer.check_invariant();
            debug_assert_eq!(peer.state.am_interested, peer.remote.wanted_count() > 0);
        }
    }
}
