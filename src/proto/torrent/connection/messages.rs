//! What peers say, message by message (BEP 3, 5, 6, 9, 10, 11, 21, 54). An error is the reason to
//! disconnect.

use std::net::SocketAddr;

use bytes::Bytes;

use super::pex::heard;
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::peer::faults::Fault;
use crate::proto::peer::requests::Rejection;
use crate::proto::peer::uploads::Refused;
use crate::proto::piece::PieceIndex;
use crate::proto::time::Instant;
use crate::proto::torrent::active::Active;
use crate::proto::torrent::download::Download;
use crate::proto::torrent::event::{ConnId, DisconnectReason, Output};
use crate::proto::wire::dont_have::{self, LT_DONTHAVE_ID};
use crate::proto::wire::extension::{ExtensionHandshake, SP_HAVE_ID};
use crate::proto::wire::message::Message;
use crate::proto::wire::metadata::{MetadataMessage, UT_METADATA_ID};
use crate::proto::wire::pex::UT_PEX_ID;
use crate::proto::wire::sp_have::{self, SpHave};

type Verdict = Result<(), DisconnectReason>;

impl Active {
    /// A message of a connection; of one that is not on the books it means nothing any more.
    pub(crate) fn receive_message(&mut self, now: Instant, conn: ConnId, message: Message) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        peer.traffic.received_at = now;
        let Some(message) = self.hold_back(conn, message)? else { return Ok(()) };
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        match message {
            Message::KeepAlive => Ok(()),
            Message::Port(port) => self.on_port(now, conn, port),
            Message::Choke => self.on_choke(now, conn),
            Message::Unchoke => self.on_unchoke(now, conn),
            Message::Interested => self.on_interest(now, conn, true),
            Message::NotInterested => self.on_interest(now, conn, false),
            Message::Have(piece) => self.on_have(now, conn, piece),
            Message::Bitfield(field) => self.on_bitfield(now, conn, field),
            Message::HaveAll => self.on_have_all(now, conn),
            Message::HaveNone => self.on_have_none(now, conn),
            Message::Request(block) => self.on_request(now, conn, block),
            Message::Cancel(block) => self.on_cancel(now, conn, block),
            Message::Reject(block) => self.on_reject(now, conn, block),
            Message::Suggest(piece) => peer.remote.handle_suggest(piece, &mut peer.faults),
            Message::AllowedFast(piece) => {
                peer.remote.handle_allowed_fast(piece, &mut peer.faults)?;
                self.download.fill(now, peer, &mut self.out);
                Ok(())
            }
            Message::Extended { id, payload } => self.on_extended(now, conn, id, &payload),
        }
    }

    fn on_choke(&mut self, now: Instant, conn: ConnId) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        self.download.set_peer_choking(peer, true);
        // With BEP 6 each request is rejected by itself; who does not even do that is overdue soon.
        if peer.is_fast() {
            self.download.picker.forget(conn);
        } else {
            self.download.give_up(now, peer);
        }
        Ok(())
    }

    fn on_unchoke(&mut self, now: Instant, conn: ConnId) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        self.download.set_peer_choking(peer, false);
        self.download.fill(now, peer, &mut self.out);
        Ok(())
    }

    fn on_interest(&mut self, now: Instant, conn: ConnId, interested: bool) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        let changed = peer.state.peer_interested != interested;
        peer.state.set_peer_interested(interested, now);
        let waits = interested && peer.state.am_choking;
        let leaves = !interested && !peer.state.am_choking;
        if changed && (waits || leaves) {
            self.fill_slots(now);
        }
        Ok(())
    }

    fn on_have(&mut self, now: Instant, conn: ConnId, piece: PieceIndex) -> Verdict {
        self.gain(now, conn, piece)?;
        self.upload.refuse_spread(now, Some(piece), conn, &mut self.peers, &mut self.out);
        self.part_if_useless(conn)
    }

    /// The peer has one more piece.
    fn gain(&mut self, now: Instant, conn: ConnId, piece: PieceIndex) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        if !peer.remote.handle_have(piece)? {
            return Ok(());
        }
        self.download.availability.gain(piece, peer.remote.have(), peer.remote.is_fickle());
        if self.download.pieces.have().get(piece) {
            peer.known_haves.peer_gained(piece, self.have_batch.gained());
            self.upload.handle_have(piece, conn);
        } else if self.download.pieces.is_lacking(piece) {
            peer.remote.wanted_gained();
            self.download.express_interest(now, peer, &mut self.out);
            self.download.fill(now, peer, &mut self.out);
        }
        Ok(())
    }

    fn on_bitfield(&mut self, now: Instant, conn: ConnId, field: Bitfield) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        // Connections from before the description are still decoded without knowing how many pieces
        // there are.
        let field = field
            .fitted(self.download.pieces.geometry().piece_count())
            .map_err(|_| DisconnectReason::Protocol("bitfield of another torrent"))?;
        let is_fickle = peer.remote.is_fickle();
        self.download.availability.remove_peer(peer.remote.have(), is_fickle);
        let is_first = peer.remote.handle_bitfield(&field, &mut peer.faults);
        self.download.availability.add_peer(peer.remote.have(), is_fickle);
        let is_first = is_first?;
        self.recount(now, conn);
        if is_first {
            self.welcome(now, conn);
        }
        self.part_if_useless(conn)
    }

    fn on_have_none(&mut self, now: Instant, conn: ConnId) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        if peer.remote.handle_have_none() {
            self.welcome(now, conn);
            return Ok(());
        }
        peer.faults.count(Fault::Hint)
    }

    fn on_have_all(&mut self, now: Instant, conn: ConnId) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        if peer.remote.is_seed() {
            return peer.faults.count(Fault::Hint);
        }
        let is_fickle = peer.remote.is_fickle();
        self.download.availability.remove_peer(peer.remote.have(), is_fickle);
        peer.remote.handle_have_all();
        self.download.availability.add_peer(peer.remote.have(), is_fickle);
        self.recount(now, conn);
        self.part_if_useless(conn)
    }

    /// The peer's pieces were told anew: what each side wants of the other follows.
    fn recount(&mut self, now: Instant, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let pieces = &self.download.pieces;
        peer.known_haves.recount(pieces.have(), self.have_batch.gained(), peer.remote.have());
        peer.remote.recount(|piece| pieces.is_lacking(piece));
        self.download.express_interest(now, peer, &mut self.out);
        self.download.fill(now, peer, &mut self.out);
        self.upload.refuse_spread(now, None, conn, &mut self.peers, &mut self.out);
    }

    fn on_request(&mut self, now: Instant, conn: ConnId, block: Block) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        let geometry = self.download.pieces.geometry();
        let fault = if !geometry.may_request(block) || !self.download.pieces.have().get(block.piece) {
            Some(Fault::InvalidRequest)
        } else if peer.state.am_choking
            && !peer.uploads.spend_allowed_fast(block.piece, geometry.block_count(block.piece))
        {
            Some(Fault::ChokedRequest)
        } else if self.upload.refuses(block.piece, peer, &self.download.availability) {
            self.out.send(now, peer, Message::Reject(block));
            return Ok(());
        } else {
            match peer.uploads.push(block) {
                Ok(()) => None,
                Err(Refused::Duplicate) => return peer.faults.count(Fault::FloodedRequest),
                Err(Refused::Full) => Some(Fault::FloodedRequest),
            }
        };
        let Some(fault) = fault else {
            if peer.known_haves.peer_asked(block.piece) {
                self.upload.suggest(now, peer, &self.download.availability, &mut self.out);
            }
            self.upload.ready(conn);
            return Ok(());
        };
        if peer.is_fast() {
            self.out.send(now, peer, Message::Reject(block));
        }
        peer.faults.count(fault)
    }

    fn on_cancel(&mut self, now: Instant, conn: ConnId, block: Block) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        if peer.uploads.cancel(block) && peer.is_fast() {
            self.out.send(now, peer, Message::Reject(block));
        }
        Ok(())
    }

    fn on_reject(&mut self, now: Instant, conn: ConnId, block: Block) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        if !peer.is_fast() {
            return Err(DisconnectReason::Protocol("reject without the fast extension"));
        }
        let rejection = peer.requests.handle_reject(block, now);
        match rejection {
            Rejection::Refused | Rejection::SameRefusal => {}
            Rejection::Late => return Ok(()),
            Rejection::Unsolicited => return peer.faults.count(Fault::UnsolicitedReject),
        }
        if self.download.pieces.release(block, conn) {
            self.download.retry();
        }
        // While it chokes us, rejects only confirm the choke.
        if peer.state.peer_choking {
            return Ok(());
        }
        // This peer itself is asked again with its next block or at the next upkeep, so that a
        // reject of everything does not become a quarrel.
        peer.requests.shorten();
        if rejection == Rejection::Refused { peer.faults.count(Fault::Reject) } else { Ok(()) }
    }

    fn on_extended(&mut self, now: Instant, conn: ConnId, id: u8, payload: &Bytes) -> Verdict {
        match id {
            0 => self.on_extension_handshake(now, conn, payload),
            SP_HAVE_ID => self.on_sp_have(now, conn, payload),
            UT_METADATA_ID if !self.settings.private => self.on_metadata(now, conn, payload),
            UT_PEX_ID => self.on_pex(now, conn, payload),
            LT_DONTHAVE_ID => self.on_dont_have(now, conn, payload),
            // BEP 10: what we did not offer is ignored.
            _ => Ok(()),
        }
    }

    fn on_extension_handshake(&mut self, now: Instant, conn: ConnId, payload: &Bytes) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        let handshake = ExtensionHandshake::decode(payload)
            .map_err(|_| DisconnectReason::Protocol("bad extension handshake"))?;
        if let Some(queue_max) = handshake.request_queue_max {
            peer.requests.limit_depth(queue_max);
        }
        let port = handshake.port;
        peer.remote.handle_extension(handshake);
        if let Some(port) = port {
            self.listens_at(conn, port);
        }
        self.offered(now, conn)?;
        self.gossip_with(now, conn);
        self.part_if_useless(conn)
    }

    fn on_metadata(&mut self, now: Instant, conn: ConnId, payload: &Bytes) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        if payload.is_empty() {
            // The decoder does not read pieces any more, among them those that were asked for and
            // come late.
            return peer.faults.count(Fault::UnsolicitedMetadata);
        }
        let message = MetadataMessage::decode(payload)
            .map_err(|_| DisconnectReason::Protocol("bad metadata message"))?;
        match message {
            MetadataMessage::Request(piece) => {
                let Some(id) = peer.remote.ut_metadata() else {
                    return peer.faults.count(Fault::RefusedMetadata);
                };
                if self.metadata.ask(conn, peer.connected.addr.ip(), piece) {
                    self.upload.ready(conn);
                    return Ok(());
                }
                let payload = MetadataMessage::Reject(piece).encode();
                self.out.send(now, peer, Message::Extended { id, payload });
                peer.faults.count(Fault::RefusedMetadata)
            }
            MetadataMessage::Data { piece, total_len, bytes } => match &mut self.stage {
                Some(stage) => stage.fetch.data(now, conn, (piece, total_len, &bytes), &mut peer.faults),
                None => peer.faults.count(Fault::UnsolicitedMetadata),
            },
            MetadataMessage::Reject(piece) => match &mut self.stage {
                Some(stage) => stage.fetch.rejected(now, conn, piece, &mut peer.faults),
                None => peer.faults.count(Fault::UnsolicitedMetadata),
            },
            MetadataMessage::Unknown => Ok(()),
        }
    }

    /// The peer's DHT node (BEP 5).
    fn on_port(&mut self, now: Instant, conn: ConnId, port: u16) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        if self.settings.dht_port().is_some() && port != 0 && peer.pace.takes_port(now) {
            self.out.push(Output::DhtNode(SocketAddr::new(peer.connected.addr.ip(), port)));
        }
        Ok(())
    }

    /// Gossip: addresses that the peer may name become candidates (BEP 11). Who is gone tells us
    /// nothing.
    fn on_pex(&mut self, now: Instant, conn: ConnId, payload: &Bytes) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn).filter(|_| self.settings.gossips()) else { return Ok(()) };
        let teller = peer.connected.addr.ip();
        let told = (teller, self.status.complete);
        let addrs = heard(now, payload, told, &mut peer.pace, &mut peer.faults)?;
        self.dialer.add_gossip(now, teller, &addrs);
        Ok(())
    }

    fn on_sp_have(&mut self, now: Instant, conn: ConnId, payload: &Bytes) -> Verdict {
        let piece_count = self.download.pieces.geometry().piece_count();
        let news = sp_have::decode(payload, piece_count)
            .map_err(|_| DisconnectReason::Protocol("bad sp_have message"))?;
        match news {
            SpHave::Full(field) => {
                let Some(peer) = self.peers.get(&conn) else { return Ok(()) };
                let gone = peer.remote.have().iter_set().filter(|&piece| !field.get(piece)).collect();
                self.take_back(now, conn, gone)?;
                field.iter_set().try_for_each(|piece| self.gain(now, conn, piece))?;
            }
            SpHave::Delta(gained) => gained.into_iter().try_for_each(|piece| self.gain(now, conn, piece))?,
            SpHave::Lost(lost) => return self.take_back(now, conn, lost),
        }
        self.upload.refuse_spread(now, None, conn, &mut self.peers, &mut self.out);
        self.part_if_useless(conn)
    }

    fn on_dont_have(&mut self, now: Instant, conn: ConnId, payload: &Bytes) -> Verdict {
        let piece =
            dont_have::decode(payload).map_err(|_| DisconnectReason::Protocol("bad lt_donthave message"))?;
        self.take_back(now, conn, vec![piece])
    }

    /// The peer does not have these pieces any more. What it was asked of them is as good as
    /// rejected (BEP 54).
    fn take_back(&mut self, now: Instant, conn: ConnId, gone: Vec<PieceIndex>) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        let Download { pieces, availability, picker, .. } = &mut self.download;
        let mut taken_back = Vec::with_capacity(gone.len());
        for piece in gone {
            let was_fickle = peer.remote.is_fickle();
            if peer.remote.handle_dont_have(piece, &mut peer.faults)? {
                availability.lose(piece, peer.remote.have(), was_fickle);
                if pieces.is_lacking(piece) {
                    peer.remote.wanted_retracted();
                }
                self.upload.handle_retracted(piece);
                taken_back.push(piece);
            }
        }
        if taken_back.is_empty() {
            return Ok(());
        }
        picker.retreat(conn, peer.remote.have());
        for block in peer.requests.withdraw(peer.remote.have(), now) {
            pieces.release(block, conn);
        }
        self.have_batch.peer_lost(now, &taken_back, pieces.have(), peer, &mut self.out);
        self.download.express_interest(now, peer, &mut self.out);
        self.download.fill(now, peer, &mut self.out);
        self.download.retry();
        Ok(())
    }
}
