//! A torrent that nobody came to yet: what it was made of, and no more.
//!
//! Of thousands of torrents in one process most wait for somebody. The parts that deal with peers are made at the
//! first input that is more than a share of the session's budgets, as if they had been there all along.

use std::net::{IpAddr, SocketAddr};

use super::Awake;
use super::description::Handover;
use super::event::{
    Command, ConnId, Connected, Output, PieceResult, Receipt, Settings, Source, TorrentSnapshot,
};
use super::pieces::Pieces;
use super::snapshot;
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::piece::{Geometry, PieceIndex};
use crate::proto::rng::Rng;
use crate::proto::session::{Demand, Lease};
use crate::proto::time::Instant;
use crate::proto::wire::message::Message;

/// The machine. The shell moves bytes; this decides.
///
/// Blocks: the shell asks [`Torrent::handle_block`] what to do with each received block (keep it in the
/// piece's buffer, or drop it). When a piece's last block is kept, [`Output::VerifyPiece`] follows; the shell
/// hashes and writes, and answers by [`Torrent::handle_piece_result`].
#[derive(Debug)]
pub struct Torrent(State);

#[derive(Debug)]
enum State {
    Resting(Box<Rest>),
    Awake(Box<Awake>),
    /// From the one to the other; nobody sees it.
    Waking,
}

/// What a torrent is made of.
#[derive(Debug)]
struct Rest {
    settings: Settings,
    pieces: Pieces,
    rng: Rng,
    began_at: Instant,
    /// The latest, and since when.
    lease: Option<(Instant, Lease)>,
    external: Option<(Instant, IpAddr)>,
    paused: bool,
}

impl Rest {
    fn wake(self) -> Awake {
        let mut awake = Awake::new(self.settings, self.pieces, self.rng, self.began_at);
        if let Some((at, lease)) = self.lease {
            awake.handle_lease(at, lease);
        }
        if let Some((at, ip)) = self.external {
            awake.handle_external_ip(at, ip);
        }
        if self.paused {
            awake.handle_command(self.began_at, Command::Pause);
        }
        awake
    }

    fn snapshot(&self) -> TorrentSnapshot {
        TorrentSnapshot { paused: self.paused, ..snapshot::of_pieces(&self.pieces) }
    }
}

impl Torrent {
    /// A torrent of this geometry of which `have` is verified on disk. `wanted` are the pieces to fetch
    /// (all set: everything). Nothing happens before the first input.
    pub fn new(
        settings: Settings,
        geometry: Geometry,
        have: Bitfield,
        wanted: Bitfield,
        rng: Rng,
        now: Instant,
    ) -> Self {
        let pieces = Pieces::new(geometry, have, wanted);
        Self(State::Resting(Box::new(Rest {
            settings,
            pieces,
            rng,
            began_at: now,
            lease: None,
            external: None,
            paused: false,
        })))
    }

    /// The parts, made now if they were not there.
    fn awake(&mut self) -> &mut Awake {
        if matches!(self.0, State::Resting(_))
            && let State::Resting(rest) = std::mem::replace(&mut self.0, State::Waking)
        {
            self.0 = State::Awake(Box::new(rest.wake()));
        }
        match &mut self.0 {
            State::Awake(awake) => awake,
            State::Resting(_) | State::Waking => unreachable!("awake since just now"),
        }
    }

    /// Both handshakes are done. The id is the shell's and never used twice in one torrent.
    pub fn handle_connected(&mut self, now: Instant, conn: ConnId, connected: Connected) {
        self.awake().handle_connected(now, conn, connected);
    }

    /// Goes on with what the fetching of the description began: its candidates and connections. To be the first
    /// input, if at all. Peers were told that we have nothing: what we have they hear now, by `sp_have` or by
    /// HAVEs; who would need too many HAVEs is disconnected, to be dialled again.
    pub fn handle_handover(&mut self, now: Instant, handover: Handover) {
        self.awake().handle_handover(now, handover);
    }

    /// A dial ended without a connection.
    pub fn handle_dial_failed(&mut self, now: Instant, addr: SocketAddr) {
        self.awake().handle_dial_failed(now, addr);
    }

    /// The connection is gone, whoever closed it. Must follow every [`Output::Disconnect`] too.
    pub fn handle_disconnected(&mut self, now: Instant, conn: ConnId) {
        self.awake().handle_disconnected(now, conn);
    }

    /// A message came. A peer that breaks the rules is disconnected by output; the shell needs no error.
    pub fn handle_message(&mut self, now: Instant, conn: ConnId, message: Message) {
        self.awake().handle_message(now, conn, message);
    }

    /// A block came whole. Says whether the shell is to keep its bytes for the piece.
    pub fn handle_block(&mut self, now: Instant, conn: ConnId, block: Block) -> Receipt {
        self.awake().handle_block(now, conn, block)
    }

    /// Blocks handed out by [`Output::SendBlock`] have left for the socket: room for more.
    pub fn handle_blocks_sent(&mut self, now: Instant, conn: ConnId, count: usize, bytes: u64) {
        self.awake().handle_blocks_sent(now, conn, count, bytes);
    }

    /// So many messages handed out by [`Output::SendMetadata`] have left for the socket: room for more.
    pub fn handle_metadata_sent(&mut self, now: Instant, conn: ConnId, count: usize) {
        self.awake().handle_metadata_sent(now, conn, count);
    }

    /// Blocks of a piece that is not whole are there, by their number in it: kept by an earlier run, whoever sent them.
    /// To be told before the first connection. They are not asked for; the piece is verified when it is whole.
    pub fn handle_restored(&mut self, now: Instant, piece: PieceIndex, blocks: &[u32]) {
        self.awake().handle_restored(now, piece, blocks);
    }

    /// Blocks handed out by [`Output::SendBlock`] will not be sent: their pieces are lost, as
    /// [`Torrent::handle_lost`] was told before.
    pub fn handle_blocks_unsent(&mut self, now: Instant, conn: ConnId, blocks: &[Block]) {
        self.awake().handle_blocks_unsent(now, conn, blocks);
    }

    /// Pieces that were there are there no more. `is_fetching`: they are fetched again, as far as they are wanted, but
    /// not before [`Torrent::handle_loss_noted`]; else they are not wanted any more.
    pub fn handle_lost(&mut self, now: Instant, pieces: Vec<PieceIndex>, is_fetching: bool) {
        self.awake().handle_lost(now, pieces, is_fetching);
    }

    /// Whoever had to know has heard of the loss of these pieces: nothing speaks against fetching them any more.
    pub fn handle_loss_noted(&mut self, now: Instant, pieces: &[PieceIndex]) {
        self.awake().handle_loss_noted(now, pieces);
    }

    /// A piece was hashed and, if good, written.
    pub fn handle_piece_result(&mut self, now: Instant, piece: PieceIndex, result: PieceResult) {
        self.awake().handle_piece_result(now, piece, result);
    }

    /// The disk cannot take more just now, or can again (None).
    pub fn handle_storage(&mut self, now: Instant, is_failing: bool) {
        self.awake().handle_storage(now, is_failing);
    }

    /// Addresses from a tracker, the user, PEX...
    pub fn handle_candidates(&mut self, now: Instant, source: Source, addrs: &[SocketAddr]) {
        // Nobody is no reason to wake up.
        if !addrs.is_empty() {
            self.awake().handle_candidates(now, source, addrs);
        }
    }

    /// Our own address as a tracker sees it: whom we dial first follows from it (BEP 40).
    pub fn handle_external_ip(&mut self, now: Instant, ip: IpAddr) {
        match &mut self.0 {
            State::Resting(rest) => rest.external = Some((now, ip)),
            State::Awake(_) | State::Waking => self.awake().handle_external_ip(now, ip),
        }
    }

    /// What the user wants.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        match (&mut self.0, command) {
            (State::Resting(rest), Command::Pause) => rest.paused = true,
            (State::Resting(rest), Command::Resume) => rest.paused = false,
            (_, command) => self.awake().handle_command(now, command),
        }
    }

    /// The session's new share for this torrent.
    pub fn handle_lease(&mut self, now: Instant, lease: Lease) {
        match &mut self.0 {
            State::Resting(rest) => rest.lease = Some((now, lease)),
            State::Awake(_) | State::Waking => self.awake().handle_lease(now, lease),
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let State::Awake(awake) = &mut self.0 {
            awake.handle_timeout(now);
        }
    }

    /// The next decision; drain to None after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        match &mut self.0 {
            State::Awake(awake) => awake.poll_output(),
            State::Resting(_) | State::Waking => None,
        }
    }

    /// When to call [`Torrent::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.0 {
            State::Awake(awake) => awake.poll_timeout(),
            State::Resting(_) | State::Waking => None,
        }
    }

    /// What it could use of the session's budgets.
    pub fn demand(&self) -> Demand {
        match &self.0 {
            State::Awake(awake) => awake.demand(),
            State::Resting(_) | State::Waking => Demand::default(),
        }
    }

    /// Figures for people and for announces.
    pub fn snapshot(&self, now: Instant) -> TorrentSnapshot {
        match &self.0 {
            State::Awake(awake) => awake.snapshot(now),
            State::Resting(rest) => rest.snapshot(),
            State::Waking => TorrentSnapshot::default(),
        }
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
        self.pieces().is_complete()
    }

    /// Bytes of content sent to peers.
    pub fn uploaded(&self) -> u64 {
        match &self.0 {
            State::Awake(awake) => awake.totals.uploaded,
            State::Resting(_) | State::Waking => 0,
        }
    }

    fn pieces(&self) -> &Pieces {
        match &self.0 {
            State::Awake(awake) => &awake.download.pieces,
            State::Resting(rest) => &rest.pieces,
            State::Waking => unreachable!("nobody sees it"),
        }
    }
}
