//! One torrent: every decision about its pieces and its peers.
//!
//! [`Torrent`] is the machine and its inputs. Most of thousands of torrents in one process are
//! dormant: without any input that concerns peers, they have their pieces and settings only. Such
//! an input allocates the peer state (`active`), which fetches the metadata first if only the
//! infohash is known (`metadata`); what inputs lead to is in
//! `connection` (connections and messages), `download`, `upload` and `dial`. Work an input is in
//! proportion to what it changes: a block costs no walk over peers or pieces; a verified piece, a
//! round and each second of upkeep cost one walk over peers. A torrent without connections waits
//! for nothing but its candidates.

mod active;
mod connection;
pub mod dial;
pub mod download;
pub mod event;
pub mod metadata;
mod round_robin;
pub mod share_goal;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod upload;

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::bitfield::Bitfield;
use super::block::Block;
use super::piece::{Geometry, PieceIndex};
use super::rng::Rng;
use super::session::{Demand, Lease};
use super::time::{Duration, Instant};
use super::tracker::Progress;
use super::wire::message::Message;
use active::Active;
use download::pieces::Pieces;
use event::{Command, ConnId, Connected, Output, PieceResult, Receipt, Settings, Source, TorrentSnapshot};
use metadata::stage::MetadataStage;
use metadata::{LEFT_UNKNOWN, MetadataProgress};

/// How often connections are looked after: silence, snubs, the depth of pipelines. Only while there
/// are any.
const UPKEEP: Duration = Duration::from_secs(1);

/// The machine. The shell moves bytes; this decides.
///
/// Blocks: the shell asks [`Torrent::handle_block`] what to do with each received block (keep it in
/// the piece's buffer, or drop it). When a piece's last block is kept, [`Output::VerifyPiece`]
/// follows; the shell hashes and writes, and answers by [`Torrent::handle_piece_result`].
#[derive(Debug)]
pub struct Torrent {
    dormant: Dormant,
    /// The peer state; None: the torrent is dormant.
    active: Option<Box<Active>>,
}

/// What a dormant torrent has; its pieces move to the peer state.
#[derive(Debug)]
struct Dormant {
    settings: Settings,
    pieces: Pieces,
    /// Only the infohash is known.
    lacks_metadata: bool,
    rng: Rng,
    began_at: Instant,
    /// The latest, and since when.
    lease: Option<(Instant, Lease)>,
    external: Option<(Instant, IpAddr)>,
    paused: bool,
}

impl Dormant {
    fn activate(&mut self) -> Active {
        let (geometry, piece_count) = (self.pieces.geometry(), self.pieces.have().len());
        let none = || Bitfield::new(piece_count);
        let pieces = std::mem::replace(&mut self.pieces, Pieces::new(geometry, none(), none()));
        let mut rng = std::mem::replace(&mut self.rng, Rng::from_number(0));
        let stage =
            self.lacks_metadata.then(|| Box::new(MetadataStage::new(self.settings.infohash, &mut rng)));
        let mut active = Active::new(self.settings.clone(), pieces, stage, rng, self.began_at);
        if let Some((at, lease)) = self.lease {
            active.set_lease(at, lease);
            active.settle(at);
        }
        if let Some((at, ip)) = self.external {
            active.set_external(ip);
            active.settle(at);
        }
        if self.paused {
            active.obey(self.began_at, Command::Pause);
            active.settle(self.began_at);
        }
        active
    }
}

impl Torrent {
    /// A torrent of this geometry of which `have` is verified on disk. `wanted` are the pieces to
    /// fetch (all set: everything). Nothing happens before the first input.
    pub fn new(
        settings: Settings,
        geometry: Geometry,
        have: Bitfield,
        wanted: Bitfield,
        rng: Rng,
        now: Instant,
    ) -> Self {
        Self::dormant(settings, Pieces::new(geometry, have, wanted), false, rng, now)
    }

    /// A torrent of which only the infohash is known: the metadata is fetched from peers (BEP 9),
    /// which are told that we have no pieces and are sent nothing else. [`Output::Metadata`] brings
    /// it, [`Torrent::handle_content`] goes on.
    pub fn without_metadata(settings: Settings, rng: Rng, now: Instant) -> Self {
        let none = || Bitfield::new(0);
        let pieces = Pieces::new(Geometry::EMPTY, none(), none());
        Self::dormant(Settings { metadata: Bytes::new(), ..settings }, pieces, true, rng, now)
    }

    fn dormant(settings: Settings, pieces: Pieces, lacks_metadata: bool, rng: Rng, now: Instant) -> Self {
        let (lease, external, paused) = (None, None, false);
        let dormant =
            Dormant { settings, pieces, lacks_metadata, rng, began_at: now, lease, external, paused };
        Self { dormant, active: None }
    }

    /// The end of every input: peers that wait for blocks, bytes or addresses get what there is.
    fn input<T>(&mut self, now: Instant, input: impl FnOnce(&mut Active) -> T) -> T {
        let active = self.active.get_or_insert_with(|| Box::new(self.dormant.activate()));
        let result = input(active);
        active.settle(now);
        result
    }

    /// Both handshakes are done. The id is the shell's and never used twice in one torrent.
    pub fn handle_connected(&mut self, now: Instant, conn: ConnId, connected: Connected) {
        self.input(now, |active| active.connect(now, conn, connected));
    }

    /// What [`Output::ReserveMetadata`] asked for is reserved.
    pub fn handle_metadata_reserved(&mut self, now: Instant, len: u32) {
        self.input(now, |active| {
            if let Some(stage) = &mut active.stage {
                stage.fetch.reserved(now, len);
            }
        });
    }

    /// The metadata says that the torrent is private (BEP 27): only peers that trackers, the link
    /// or the user named stay.
    pub fn handle_private(&mut self, now: Instant) {
        self.input(now, |active| active.restrict(now));
    }

    /// The content of a torrent that was made without metadata, as for [`Torrent::new`].
    /// Connections stay: peers hear now which pieces we have, by `sp_have` or by HAVEs; a peer that
    /// would need too many HAVEs is disconnected, to be dialled again.
    pub fn handle_content(
        &mut self,
        now: Instant,
        settings: Settings,
        geometry: Geometry,
        have: Bitfield,
        wanted: Bitfield,
    ) {
        let pieces = Pieces::new(geometry, have, wanted);
        self.input(now, |active| active.begin_content(now, settings, pieces));
    }

    /// A dial ended without a connection.
    pub fn handle_dial_failed(&mut self, now: Instant, addr: SocketAddr) {
        self.input(now, |active| active.dialer.failed(now, addr));
    }

    /// The connection is gone, whoever closed it. Must follow every [`Output::Disconnect`] too.
    pub fn handle_disconnected(&mut self, now: Instant, conn: ConnId) {
        self.input(now, |active| active.forget(now, conn, None));
    }

    /// A message came. A peer that breaks the rules is disconnected by output; the shell needs no
    /// error.
    pub fn handle_message(&mut self, now: Instant, conn: ConnId, message: Message) {
        self.input(now, |active| {
            if let Err(reason) = active.receive_message(now, conn, message) {
                active.disconnect(now, conn, reason);
            }
        });
    }

    /// A block came whole. Says whether the shell is to keep its bytes for the piece.
    pub fn handle_block(&mut self, now: Instant, conn: ConnId, block: Block) -> Receipt {
        self.input(now, |active| active.receive_block(now, conn, block))
    }

    /// Blocks handed out by [`Output::SendBlock`] have left for the socket: room for more.
    pub fn handle_blocks_sent(&mut self, now: Instant, conn: ConnId, count: usize, bytes: u64) {
        debug_assert!(count > 0 || bytes == 0, "bytes belong to blocks");
        self.input(now, |active| active.blocks_sent(now, conn, bytes));
    }

    /// So many messages handed out by [`Output::SendMetadata`] have left for the socket: room for
    /// more.
    pub fn handle_metadata_sent(&mut self, now: Instant, conn: ConnId, count: usize) {
        self.input(now, |active| {
            active.metadata.sent(conn, count);
            active.upload.ready(conn);
        });
    }

    /// Blocks of a piece that is not whole are there, by their number in it: kept by an earlier
    /// run, whoever sent them. To be told before the first connection. They are not asked for; the
    /// piece is verified when it is whole.
    pub fn handle_restored(&mut self, now: Instant, piece: PieceIndex, blocks: &[u32]) {
        self.input(now, |active| {
            if active.download.pieces.restore(piece, blocks) {
                active.out.push(Output::VerifyPiece { piece, block_hashes: false });
            }
        });
    }

    /// Blocks handed out by [`Output::SendBlock`] will not be sent: their pieces are lost, as
    /// [`Torrent::handle_lost`] was told before.
    pub fn handle_blocks_unsent(&mut self, now: Instant, conn: ConnId, blocks: &[Block]) {
        self.input(now, |active| active.blocks_unsent(now, conn, blocks));
    }

    /// Pieces that were there are there no more. `is_fetching`: they are fetched again, as far as
    /// they are wanted, but not before [`Torrent::handle_loss_noted`]; else they are not wanted any
    /// more.
    pub fn handle_lost(&mut self, now: Instant, pieces: Vec<PieceIndex>, is_fetching: bool) {
        self.input(now, |active| active.pieces_lost(now, pieces, is_fetching));
    }

    /// Whoever had to know has heard of the loss of these pieces: nothing speaks against fetching
    /// them any more.
    pub fn handle_loss_noted(&mut self, now: Instant, pieces: &[PieceIndex]) {
        self.input(now, |active| active.loss_noted(pieces));
    }

    /// A piece was hashed and, if good, written.
    pub fn handle_piece_result(&mut self, now: Instant, piece: PieceIndex, result: PieceResult) {
        self.input(now, |active| match result {
            PieceResult::Good(hashes) => active.piece_good(now, piece, hashes.as_ref()),
            PieceResult::Bad(hashes) => active.piece_bad(now, piece, hashes),
            PieceResult::Lost => active.piece_lost(piece),
        });
    }

    /// The disk accepts no data just now, or accepts it again.
    pub fn handle_storage(&mut self, now: Instant, is_failing: bool) {
        self.input(now, |active| active.download.set_halted(is_failing));
    }

    /// Addresses from a tracker, the user, PEX...
    pub fn handle_candidates(&mut self, now: Instant, source: Source, addrs: &[SocketAddr]) {
        // An empty list does not activate the torrent.
        if !addrs.is_empty() {
            self.input(now, |active| active.dialer.add(now, source, addrs));
        }
    }

    /// Our own address as a tracker sees it: whom we dial first follows from it (BEP 40).
    pub fn handle_external_ip(&mut self, now: Instant, ip: IpAddr) {
        match self.active {
            None => self.dormant.external = Some((now, ip)),
            Some(_) => self.input(now, |active| active.set_external(ip)),
        }
    }

    /// What the user wants.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        match (&self.active, command) {
            (None, Command::Pause) => self.dormant.paused = true,
            (None, Command::Resume) => self.dormant.paused = false,
            (_, command) => self.input(now, |active| active.obey(now, command)),
        }
    }

    /// The session's new share for this torrent.
    pub fn handle_lease(&mut self, now: Instant, lease: Lease) {
        match self.active {
            None => self.dormant.lease = Some((now, lease)),
            Some(_) => self.input(now, |active| active.set_lease(now, lease)),
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.active.is_some() {
            self.input(now, |active| active.time_passed(now));
        }
    }

    /// The next decision; drain to None after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.active.as_mut()?.out.pop()
    }

    /// When to call [`Torrent::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.active.as_ref()?.due_at()
    }

    /// What it could use of the session's budgets.
    pub fn demand(&self) -> Demand {
        self.active.as_ref().map_or_else(Demand::default, |active| active.demand())
    }

    /// Figures for people and for announces.
    pub fn snapshot(&self, now: Instant) -> TorrentSnapshot {
        let dormant = || TorrentSnapshot {
            paused: self.dormant.paused,
            complete: self.is_complete(),
            ..snapshot::of_pieces(&self.dormant.pieces)
        };
        self.active.as_ref().map_or_else(dormant, |active| active.take_snapshot(now))
    }

    /// The pieces that are verified.
    pub fn have(&self) -> &Bitfield {
        self.pieces().have()
    }

    /// The pieces to fetch, whether they are there or not.
    pub fn wanted(&self) -> &Bitfield {
        self.pieces().wanted()
    }

    /// Bytes of the pieces to fetch.
    pub fn wanted_len(&self) -> u64 {
        self.pieces().wanted_len()
    }

    /// Whether every wanted piece is there.
    pub fn is_complete(&self) -> bool {
        !self.lacks_metadata() && self.pieces().is_complete()
    }

    /// How far the fetch of the metadata is; None: it is known.
    pub fn metadata_progress(&self) -> Option<MetadataProgress> {
        let active = || self.active.as_ref()?.stage.as_ref().map(|stage| stage.progress());
        self.lacks_metadata().then(|| active().unwrap_or_default())
    }

    fn lacks_metadata(&self) -> bool {
        self.active.as_ref().map_or(self.dormant.lacks_metadata, |active| active.stage.is_some())
    }

    /// Counters for announces.
    pub fn progress(&self) -> Progress {
        let totals = self.active.as_ref().map(|active| &active.totals);
        let (uploaded, downloaded) = totals.map_or((0, 0), |totals| (totals.uploaded, totals.downloaded));
        let left = if self.lacks_metadata() { LEFT_UNKNOWN } else { self.pieces().left() };
        Progress { uploaded, downloaded, left }
    }

    fn pieces(&self) -> &Pieces {
        self.active.as_ref().map_or(&self.dormant.pieces, |active| &active.download.pieces)
    }
}
