//! Who is connected while the description is being fetched, and what they say (BEP 3, 5, 6, 9, 10,
//! 11, 54).

use std::net::SocketAddr;

use bytes::Bytes;

use super::introduction::Introduction;
use super::{Description, Output};
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::peer::faults::{Fault, Faults};
use crate::proto::peer::greeting;
use crate::proto::peer::pace::Pace;
use crate::proto::peer::traffic::Traffic;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::dialer::stands_for;
use crate::proto::torrent::event::{ConnId, Connected, Direction, DisconnectReason, Event};
use crate::proto::torrent::metadata::METADATA_LEN_MAX;
use crate::proto::torrent::pex::heard;
use crate::proto::wire::dont_have::{self, LT_DONTHAVE_ID};
use crate::proto::wire::extension::ExtensionHandshake;
use crate::proto::wire::message::Message;
use crate::proto::wire::metadata::{MetadataMessage, UT_METADATA_ID};
use crate::proto::wire::pex::UT_PEX_ID;

/// A peer that gave us nothing of the description for so long, whatever it claims, makes room for
/// another.
const USELESS_AFTER: Duration = Duration::from_secs(60);
/// Bytes of all bitfields that are kept: those of a hundred peers of a torrent of a million pieces.
/// A peer whose bitfield does not fit does not go on to the torrent.
const FIELDS_LEN_MAX: usize = 16 << 20;

type Verdict = Result<(), DisconnectReason>;

/// One connection.
#[derive(Debug)]
pub(super) struct Acquaintance {
    pub(super) connected: Connected,
    pub(super) introduction: Introduction,
    /// Where it takes connections: dialled, or told in the extension handshake.
    pub(super) listen_addr: Option<SocketAddr>,
    /// Its claim of too long metadata was told to people.
    told_too_long: bool,
    traffic: Traffic,
    faults: Faults,
    pace: Pace,
}

impl Description {
    /// A connection is up: taken or refused.
    pub(super) fn connect(&mut self, now: Instant, conn: ConnId, connected: Connected) {
        let asked_for = self.dialer.connected(&connected);
        match asked_for.and_then(|()| self.admit(now, &connected)) {
            Ok(listen_addr) => self.greet(now, conn, connected, listen_addr),
            Err(reason) => {
                self.out.push_back(Output::Disconnect(conn, reason));
                let others = self.peers.values_mut().map(|peer| (peer.connected, &mut peer.listen_addr));
                self.dialer.refused(now, &connected, reason, others);
            }
        }
    }

    /// Whether to take the connection; may let another one go for it. With where the peer listens,
    /// if we dialled it or another connection to it that goes knew.
    fn admit(&mut self, now: Instant, connected: &Connected) -> Result<Option<SocketAddr>, DisconnectReason> {
        let known = (connected.direction == Direction::Outgoing).then_some(connected.addr);
        let others = self.peers.iter().map(|(conn, peer)| (*conn, peer.connected));
        if let Some(conn) = self.dialer.admit(self.settings.peer_id, connected, others)? {
            let stays = |addr: &mut SocketAddr| stands_for(connected.addr, known, *addr);
            let listen_addr = self.peers.get_mut(&conn).and_then(|peer| peer.listen_addr.take_if(stays));
            self.forget(now, conn, Some(DisconnectReason::Duplicate));
            return Ok(known.or(listen_addr));
        }
        if self.peers.len() >= self.connection_max {
            let evicted = self.useless(now).ok_or(DisconnectReason::Full)?;
            self.forget(now, evicted, Some(DisconnectReason::Full));
        }
        Ok(known)
    }

    /// Of those who had time to give us the description and gave nothing of it lately, the one that
    /// was here longest; whoever does not even claim to have it comes first.
    fn useless(&self, now: Instant) -> Option<ConnId> {
        let useless = |(conn, peer): &(&ConnId, &Acquaintance)| {
            let gave_at = self.fetch.gave_at(**conn);
            now - gave_at.unwrap_or(peer.traffic.connected_at) >= USELESS_AFTER
        };
        let order = |(conn, peer): &(&ConnId, &Acquaintance)| {
            (self.fetch.is_source(**conn), peer.traffic.connected_at)
        };
        self.peers.iter().filter(useless).min_by_key(order).map(|(conn, _)| *conn)
    }

    fn greet(&mut self, now: Instant, conn: ConnId, connected: Connected, listen_addr: Option<SocketAddr>) {
        let peer = Acquaintance {
            connected,
            introduction: Introduction::new(),
            listen_addr,
            told_too_long: false,
            traffic: Traffic::new(now),
            faults: Faults::default(),
            pace: Pace::new(now),
        };
        self.peers.insert(conn, peer);
        let capabilities = connected.capabilities;
        if capabilities.fast {
            self.send(now, conn, Message::HaveNone);
        }
        if capabilities.extensions {
            let (port, pex) = (self.settings.listen_port, self.settings.pex);
            self.send(now, conn, greeting::introduction(port, pex, &connected));
        }
        if let Some(port) = self.settings.dht_port.filter(|_| capabilities.dht) {
            self.send(now, conn, Message::Port(port));
        }
        self.out.push_back(Output::Event(Event::PeerConnected(connected.addr)));
    }

    fn send(&mut self, now: Instant, conn: ConnId, message: Message) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.traffic.sent_at = now;
            self.out.push_back(Output::Send(conn, message));
        }
    }

    /// Says something about the description, under the peer's own number.
    pub(super) fn send_metadata(&mut self, now: Instant, conn: ConnId, message: &MetadataMessage) {
        let Some(peer) = self.peers.get(&conn) else { return };
        let Some(id) = peer.introduction.extension().and_then(|extension| extension.ut_metadata) else {
            return;
        };
        self.send(now, conn, Message::Extended { id, payload: message.encode() });
    }

    /// Takes a connection off the books; with a reason, it is we who close it.
    pub(super) fn forget(&mut self, now: Instant, conn: ConnId, reason: Option<DisconnectReason>) {
        let Some(peer) = self.peers.remove(&conn) else { return };
        if let Some(reason) = reason {
            self.out.push_back(Output::Disconnect(conn, reason));
        }
        let gave = self.fetch.gave_at(conn).is_some();
        self.fetch.left(now, conn);
        if let Some(addr) = peer.listen_addr {
            self.dialer.parted(now, addr, reason, gave);
        }
        self.dialer.look();
        self.out.push_back(Output::Event(Event::PeerDisconnected(peer.connected.addr, reason)));
    }

    /// The address lied: its host is done with, and so is every connection of it.
    pub(super) fn ban(&mut self, now: Instant, addr: SocketAddr) {
        self.dialer.ban(addr);
        self.out.push_back(Output::Event(Event::PeerBanned(addr)));
        let liars = self.peers.iter().filter(|(_, peer)| self.dialer.is_banned(peer.connected.addr));
        let liars: Vec<_> = liars.map(|(conn, _)| *conn).collect();
        for conn in liars {
            self.forget(now, conn, Some(DisconnectReason::Poison));
        }
    }

    /// What every connection needs each second.
    pub(super) fn upkeep(&mut self, now: Instant) {
        let idle = self.peers.iter().filter(|(_, peer)| peer.traffic.is_idle(now));
        let idle: Vec<_> = idle.map(|(conn, _)| *conn).collect();
        for conn in idle {
            self.forget(now, conn, Some(DisconnectReason::Idle));
        }
        let quiet = self.peers.iter().filter(|(_, peer)| peer.traffic.is_quiet(now));
        let quiet: Vec<_> = quiet.map(|(conn, _)| *conn).collect();
        for conn in quiet {
            self.send(now, conn, Message::KeepAlive);
        }
        // Who has it may be among those for whom there is no room.
        if self.peers.len() >= self.connection_max
            && self.dialer.candidate_count() > 0
            && let Some(conn) = self.useless(now)
        {
            self.forget(now, conn, Some(DisconnectReason::Full));
        }
        self.fetch.upkeep(now);
    }

    /// A message of a connection; of one that is not on the books it means nothing any more.
    pub(super) fn receive_message(&mut self, now: Instant, conn: ConnId, message: Message) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        peer.traffic.received_at = now;
        let Acquaintance { introduction, faults, .. } = peer;
        match message {
            // We ask for no blocks, and suggestions wait for nobody.
            Message::KeepAlive | Message::Cancel(_) | Message::Suggest(_) => Ok(()),
            Message::Choke => {
                introduction.choking(true);
                Ok(())
            }
            Message::Unchoke => {
                introduction.choking(false);
                Ok(())
            }
            Message::Interested => {
                introduction.interested(true);
                Ok(())
            }
            Message::NotInterested => {
                introduction.interested(false);
                Ok(())
            }
            Message::Have(piece) => introduction.have(piece),
            Message::Bitfield(field) => self.on_bitfield(conn, field),
            Message::HaveAll => {
                introduction.have_all();
                Ok(())
            }
            Message::HaveNone => introduction.have_none(faults),
            Message::AllowedFast(piece) => introduction.allowed_fast(piece, faults),
            Message::Reject(_) => faults.count(Fault::UnsolicitedReject),
            Message::Request(block) => self.on_request(now, conn, block),
            Message::Port(port) => self.on_port(now, conn, port),
            Message::Extended { id, payload } => self.on_extended(now, conn, id, &payload),
        }
    }

    fn on_bitfield(&mut self, conn: ConnId, field: Bitfield) -> Verdict {
        let kept_len: usize = self.peers.values().map(|peer| peer.introduction.field_len()).sum();
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        let fits = kept_len + field.as_bytes().len() <= FIELDS_LEN_MAX;
        peer.introduction.bitfield(field, fits, &mut peer.faults)
    }

    /// We have nothing, and said so.
    fn on_request(&mut self, now: Instant, conn: ConnId, block: Block) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        peer.faults.count(Fault::InvalidRequest)?;
        if peer.connected.capabilities.fast {
            self.send(now, conn, Message::Reject(block));
        }
        Ok(())
    }

    /// The peer's DHT node (BEP 5).
    fn on_port(&mut self, now: Instant, conn: ConnId, port: u16) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        if self.settings.dht_port.is_some() && port != 0 && peer.pace.takes_port(now) {
            self.out.push_back(Output::DhtNode(SocketAddr::new(peer.connected.addr.ip(), port)));
        }
        Ok(())
    }

    fn on_extended(&mut self, now: Instant, conn: ConnId, id: u8, payload: &Bytes) -> Verdict {
        match id {
            0 => self.on_extension_handshake(now, conn, payload),
            UT_METADATA_ID => self.on_metadata(now, conn, payload),
            UT_PEX_ID if self.settings.pex => self.on_pex(now, conn, payload),
            LT_DONTHAVE_ID => self.on_dont_have(conn, payload),
            // BEP 10: what we did not offer is ignored.
            _ => Ok(()),
        }
    }

    fn on_extension_handshake(&mut self, now: Instant, conn: ConnId, payload: &Bytes) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        let handshake = ExtensionHandshake::decode(payload)
            .map_err(|_| DisconnectReason::Protocol("bad extension handshake"))?;
        let (addr, port) = (peer.connected.addr, handshake.port);
        peer.introduction.handle_extension(handshake);
        let claim = peer.introduction.extension().filter(|known| known.ut_metadata.is_some());
        let claim = claim.and_then(|known| known.metadata_size);
        if let Some(port) = port.filter(|_| peer.listen_addr.is_none()) {
            let addr = SocketAddr::new(addr.ip(), port);
            peer.listen_addr = Some(addr);
            self.dialer.listens_at(addr);
        }
        if claim.is_some_and(|total_len| total_len > METADATA_LEN_MAX) && !peer.told_too_long {
            peer.told_too_long = true;
            let event = Event::MetadataTooLong(addr, claim.unwrap_or_default());
            self.out.push_back(Output::Event(event));
        }
        if let Some(total_len) = claim {
            return self.fetch.joined(now, conn, addr, total_len);
        }
        // It may have switched off what it offered before.
        self.fetch.left(now, conn);
        Ok(())
    }

    fn on_metadata(&mut self, now: Instant, conn: ConnId, payload: &Bytes) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        let message = MetadataMessage::decode(payload)
            .map_err(|_| DisconnectReason::Protocol("bad metadata message"))?;
        match message {
            MetadataMessage::Data { piece, total_len, bytes } => {
                self.fetch.data(now, conn, (piece, total_len, &bytes), &mut peer.faults)
            }
            MetadataMessage::Reject(piece) => self.fetch.rejected(now, conn, piece, &mut peer.faults),
            MetadataMessage::Request(piece) => {
                peer.faults.count(Fault::RefusedMetadata)?;
                self.send_metadata(now, conn, &MetadataMessage::Reject(piece));
                Ok(())
            }
            MetadataMessage::Unknown => Ok(()),
        }
    }

    fn on_dont_have(&mut self, conn: ConnId, payload: &Bytes) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        let piece =
            dont_have::decode(payload).map_err(|_| DisconnectReason::Protocol("bad lt_donthave message"))?;
        peer.introduction.dont_have(piece, &mut peer.faults)
    }

    fn on_pex(&mut self, now: Instant, conn: ConnId, payload: &Bytes) -> Verdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        let teller = peer.connected.addr.ip();
        let addrs = heard(now, payload, (teller, false), &mut peer.pace, &mut peer.faults)?;
        self.dialer.add_gossip(now, teller, &addrs);
        Ok(())
    }
}
