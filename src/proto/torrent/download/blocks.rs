//! Blocks and pieces: what follows when they come, go, verify or fail, or when the user wants
//! others.

use super::Download;
use super::pieces::{Contributors, Received};
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::peer::faults::Fault;
use crate::proto::peer::greeting;
use crate::proto::peer::requests::Arrival;
use crate::proto::piece::PieceIndex;
use crate::proto::time::Instant;
use crate::proto::torrent::active::Active;
use crate::proto::torrent::event::{BlockHashes, ConnId, DisconnectReason, Event, Output, Receipt};
use crate::proto::wire::message::Message;

impl Active {
    /// A block of a connection came.
    pub(crate) fn receive_block(&mut self, now: Instant, conn: ConnId, block: Block) -> Receipt {
        let len = u64::from(block.len);
        let Some(peer) = self.peers.get_mut(&conn) else {
            self.totals.wasted += len;
            return Receipt::Discard;
        };
        peer.traffic.received_at = now;
        if self.stage.is_some() {
            self.disconnect(now, conn, DisconnectReason::Protocol("block not asked for"));
            return Receipt::Discard;
        }
        peer.traffic.download.add(len, now);
        self.totals.download.add(len, now);
        if peer.requests.handle_block(block, now) == Arrival::Unsolicited {
            self.totals.wasted += len;
            if let Err(reason) = peer.faults.count(Fault::UnsolicitedBlock) {
                self.disconnect(now, conn, reason);
            }
            return Receipt::Discard;
        }
        peer.faults.block_came();
        let receipt = match self.download.pieces.receive(block, conn, peer.connected.addr) {
            Received::Kept { complete, others } => {
                peer.traffic.downloaded += len;
                self.totals.downloaded += len;
                self.cancel(now, block, &others);
                if complete {
                    let block_hashes = self.download.suspects.wants_hashes(block.piece);
                    self.out.push(Output::VerifyPiece { piece: block.piece, block_hashes });
                }
                Receipt::Keep
            }
            Received::Duplicate | Received::Unrequested => {
                self.totals.wasted += len;
                Receipt::Discard
            }
        };
        if let Some(peer) = self.peers.get_mut(&conn) {
            self.download.fill(now, peer, &mut self.out);
        }
        receipt
    }

    /// The block is there or not wanted any more: others need not send it.
    fn cancel(&mut self, now: Instant, block: Block, others: &[ConnId]) {
        for conn in others {
            let Some(peer) = self.peers.get_mut(conn) else { continue };
            if peer.requests.cancel(block, now) {
                self.out.send(now, peer, Message::Cancel(block));
                self.download.fill(now, peer, &mut self.out);
            }
        }
    }

    /// Blocks have left.
    pub(crate) fn blocks_sent(&mut self, now: Instant, conn: ConnId, len: u64) {
        self.totals.uploaded += len;
        self.totals.upload.add(len, now);
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.traffic.sent_at = now;
        peer.traffic.uploaded += len;
        peer.traffic.upload.add(len, now);
        peer.uploads.handle_sent(len);
        self.have_batch.tell_idle(now, self.download.pieces.have(), peer, &mut self.out);
        self.upload.ready(conn);
    }

    /// The piece is good and on disk.
    pub(crate) fn piece_good(&mut self, now: Instant, piece: PieceIndex, hashes: Option<&BlockHashes>) {
        if self.download.pieces.have().get(piece) {
            return;
        }
        let was_lacking = self.download.pieces.is_lacking(piece);
        self.download.pieces.verified(piece);
        self.out.event(Event::PieceCompleted(piece));
        if was_lacking {
            for peer in self.peers.values_mut() {
                peer.remote.wanted_lost(piece);
                self.download.express_interest(now, peer, &mut self.out);
            }
        }
        self.have_batch.gain(now, piece, &mut self.peers, &mut self.out);
        let liars = hashes.map(|hashes| self.download.suspects.good(piece, hashes));
        for addr in liars.into_iter().flatten() {
            self.ban(now, addr);
        }
        self.look_complete(now);
    }

    /// The piece does not hash.
    pub(crate) fn piece_bad(&mut self, now: Instant, piece: PieceIndex, hashes: BlockHashes) {
        let contributors = self.download.pieces.failed(piece);
        self.throw_away(piece, &contributors);
        self.out.event(Event::PieceFailed(piece));
        if let Some(liar) = self.download.suspects.failed(piece, contributors, hashes) {
            self.ban(now, liar);
        }
        self.download.retry();
    }

    /// Blocks that were handed out cannot be sent: with BEP 6 each request has its answer.
    pub(crate) fn blocks_unsent(&mut self, now: Instant, conn: ConnId, blocks: &[Block]) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        for &block in blocks {
            peer.uploads.handle_sent(u64::from(block.len));
            if peer.is_fast() {
                self.out.send(now, peer, Message::Reject(block));
            }
        }
        self.upload.ready(conn);
    }

    /// The piece could not be stored, and its bytes are gone.
    pub(crate) fn piece_lost(&mut self, piece: PieceIndex) {
        if !self.download.pieces.have().get(piece) {
            let contributors = self.download.pieces.lost(piece);
            self.throw_away(piece, &contributors);
            self.download.retry();
        }
    }

    /// Pieces that we had are gone: whoever was told of them is told so (BEP 54), or greeted anew.
    pub(crate) fn pieces_lost(&mut self, now: Instant, mut lost: Vec<PieceIndex>, is_fetching: bool) {
        lost.retain(|&piece| self.download.pieces.have().get(piece));
        lost.sort_unstable();
        lost.dedup();
        if lost.is_empty() {
            return;
        }
        if !is_fetching {
            let mut wanted = self.download.pieces.wanted().clone();
            lost.iter().for_each(|&piece| _ = wanted.clear(piece));
            self.want(now, wanted);
        }
        lost.iter().for_each(|&piece| self.download.pieces.hold_back(piece));
        let have = self.download.pieces.have();
        self.upload.lose(have);
        for conn in self.have_batch.lose(now, &lost, have, &mut self.peers, &mut self.out) {
            self.disconnect(now, conn, DisconnectReason::Anew);
        }
        for peer in self.peers.values_mut() {
            let Download { pieces, availability, .. } = &self.download;
            self.upload.refuse_lost(now, peer, pieces.have(), availability, &mut self.out);
            let wanted =
                lost.iter().filter(|&&piece| pieces.is_lacking(piece) && peer.remote.have().get(piece));
            (0..wanted.count()).for_each(|_| peer.remote.wanted_gained());
            self.download.express_interest(now, peer, &mut self.out);
        }
        self.look_complete(now);
    }

    /// Lost pieces may be fetched again, as far as they are wanted.
    pub(crate) fn loss_noted(&mut self, pieces: &[PieceIndex]) {
        self.download.pieces.free(pieces);
        self.download.retry();
    }

    /// What these sent of the piece is wasted after all.
    fn throw_away(&mut self, piece: PieceIndex, contributors: &Contributors) {
        let geometry = self.download.pieces.geometry();
        let len: u64 = contributors.blocks().map(|index| u64::from(geometry.block(piece, index).len)).sum();
        self.totals.downloaded = self.totals.downloaded.saturating_sub(len);
        self.totals.wasted += len;
    }

    /// Other pieces are wanted from now on.
    pub(crate) fn want(&mut self, now: Instant, wanted: Bitfield) {
        let abandoned = self.download.pieces.set_wanted(wanted);
        for (conn, block) in abandoned.cancels {
            self.cancel(now, block, &[conn]);
        }
        for piece in abandoned.pieces {
            self.out.push(Output::DropPiece(piece));
        }
        for peer in self.peers.values_mut() {
            peer.remote.recount(|piece| self.download.pieces.is_lacking(piece));
            self.download.express_interest(now, peer, &mut self.out);
            self.download.fill(now, peer, &mut self.out);
        }
        self.look_complete(now);
        self.download.retry();
    }

    /// Notices that everything wanted is there, or no longer is.
    fn look_complete(&mut self, now: Instant) {
        let complete = self.download.pieces.is_complete();
        if complete == std::mem::replace(&mut self.status.complete, complete) {
            return;
        }
        // Seeds are not told of our pieces, so this is how they learn that we are done (BEP 21).
        for peer in self.peers.values_mut().filter(|peer| peer.connected.capabilities.extensions) {
            let queue_max = peer.uploads.told_queue_max();
            let message = greeting::extension(&self.settings, &peer.connected, complete, false, queue_max);
            self.out.send(now, peer, message);
        }
        if complete {
            self.out.event(Event::Completed);
            let conns: Vec<_> = self.peers.keys().copied().collect();
            let useless = |conn: &ConnId| self.part_if_useless(*conn).is_err();
            let useless: Vec<_> = conns.into_iter().filter(useless).collect();
            for conn in useless {
                self.disconnect(now, conn, DisconnectReason::BothComplete);
            }
        }
    }
}
