//! One torrent: every decision about its pieces and its peers.

pub mod availability;
pub mod candidates;
pub mod choker;
pub mod endgame;
pub mod event;
pub mod picker;
pub mod pieces;
pub mod rate;
pub mod suspects;

use std::net::SocketAddr;

use super::bitfield::Bitfield;
use super::block::Block;
use super::piece::{Geometry, PieceIndex};
use super::rng::Rng;
use super::session::{Demand, Lease};
use super::time::Instant;
use super::wire::message::Message;
use event::{
    Command, ConnId, Connected, Output, PieceResult, Receipt, Settings, Source, StorageFault, TorrentSnapshot,
};

/// The machine. The shell moves bytes; this decides.
///
/// Blocks: the shell asks [`Torrent::handle_block`] what to do with each received block (keep it in the
/// piece's buffer, or drop it). When a piece's last block is kept, [`Output::VerifyPiece`] follows; the shell
/// hashes and writes, and answers by [`Torrent::handle_piece_result`].
#[derive(Debug)]
pub struct Torrent {
    _skeleton: (),
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
        let _ = (settings, geometry, have, wanted, rng, now);
        todo!()
    }

    /// Both handshakes are done. The id is the shell's and never used twice in one torrent.
    pub fn handle_connected(&mut self, now: Instant, conn: ConnId, connected: Connected) {
        let _ = (now, conn, connected);
        todo!()
    }

    /// A dial ended without a connection.
    pub fn handle_dial_failed(&mut self, now: Instant, addr: SocketAddr) {
        let _ = (now, addr);
        todo!()
    }

    /// The connection is gone, whoever closed it. Must follow every [`Output::Disconnect`] too.
    pub fn handle_disconnected(&mut self, now: Instant, conn: ConnId) {
        let _ = (now, conn);
        todo!()
    }

    /// A message came. A peer that breaks the rules is disconnected by output; the shell needs no error.
    pub fn handle_message(&mut self, now: Instant, conn: ConnId, message: Message) {
        let _ = (now, conn, message);
        todo!()
    }

    /// A block came whole. Says whether the shell is to keep its bytes for the piece.
    pub fn handle_block(&mut self, now: Instant, conn: ConnId, block: Block) -> Receipt {
        let _ = (now, conn, block);
        todo!()
    }

    /// Blocks handed out by [`Output::SendBlock`] have left for the socket: room for more.
    pub fn handle_blocks_sent(&mut self, now: Instant, conn: ConnId, count: usize, bytes: u64) {
        let _ = (now, conn, count, bytes);
        todo!()
    }

    /// A piece was hashed and, if good, written.
    pub fn handle_piece_result(&mut self, now: Instant, piece: PieceIndex, result: PieceResult) {
        let _ = (now, piece, result);
        todo!()
    }

    /// The disk cannot take more just now, or can again (None).
    pub fn handle_storage(&mut self, now: Instant, fault: Option<StorageFault>) {
        let _ = (now, fault);
        todo!()
    }

    /// Addresses from a tracker, the user, PEX...
    pub fn handle_candidates(&mut self, now: Instant, source: Source, addrs: &[SocketAddr]) {
        let _ = (now, source, addrs);
        todo!()
    }

    /// What the user wants.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        let _ = (now, command);
        todo!()
    }

    /// The session's new share for this torrent.
    pub fn handle_lease(&mut self, now: Instant, lease: Lease) {
        let _ = (now, lease);
        todo!()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// The next decision; drain to None after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        todo!()
    }

    /// When to call [`Torrent::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// What it could use of the session's budgets.
    pub fn demand(&self) -> Demand {
        todo!()
    }

    /// Figures for people and for announces.
    pub fn snapshot(&self, now: Instant) -> TorrentSnapshot {
        let _ = now;
        todo!()
    }

    /// The pieces that are verified.
    pub fn have(&self) -> &Bitfield {
        todo!()
    }
}
