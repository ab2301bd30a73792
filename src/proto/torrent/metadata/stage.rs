//! The stage of a torrent in which only its infohash is known and its metadata is fetched (BEP 9).
//!
//! Connections, candidates and extensions work as they always do; the torrent has no pieces yet.
//! What a peer says about pieces is kept as it came, up to [`EARLY_COUNT_MAX`] messages of a peer
//! and [`EARLY_LEN_MAX`] bytes of all, and handled when the number of pieces is known. A peer that
//! said more is disconnected then and dialled again.

use std::collections::BTreeMap;

use super::fetch::{Decision, MetadataFetch};
use super::{METADATA_LEN_MAX, MetadataProgress};
use crate::proto::bitfield::Bitfield;
use crate::proto::infohash::InfoHash;
use crate::proto::peer::Peer;
use crate::proto::piece::PIECE_COUNT_MAX;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::UPKEEP;
use crate::proto::torrent::active::Active;
use crate::proto::torrent::download::pieces::Pieces;
use crate::proto::torrent::event::{Command, ConnId, DisconnectReason, Event, Output, Settings};
use crate::proto::wire::dont_have::{self, LT_DONTHAVE_ID};
use crate::proto::wire::extension::SP_HAVE_ID;
use crate::proto::wire::message::Message;
use crate::proto::wire::metadata::MetadataMessage;

/// A peer that gave us nothing of the metadata for so long, whatever it claims, makes room for
/// another.
const USELESS_AFTER: Duration = Duration::from_secs(60);
/// Messages about pieces that are kept of one peer; with more, the peer is told to come again.
const EARLY_COUNT_MAX: usize = 4_096;
/// Bytes of such messages of all peers: the bitfields of a hundred peers of a torrent of a million
/// pieces. A peer whose message does not fit is told to come again.
const EARLY_LEN_MAX: usize = 16 << 20;

/// What the torrent has in this stage alone.
#[derive(Debug)]
pub(crate) struct MetadataStage {
    pub(crate) fetch: MetadataFetch,
    early: BTreeMap<ConnId, EarlyMessages>,
    /// Bytes of all kept messages.
    early_len: usize,
    /// The latest commands that concern pieces.
    wanted: Option<Bitfield>,
    sequential: Option<bool>,
    /// For the parts that are made with the content.
    rng: Rng,
}

/// What one peer said about pieces, in order.
#[derive(Debug, Default)]
struct EarlyMessages {
    messages: Vec<Message>,
    len: usize,
    /// It said more than is kept.
    is_incomplete: bool,
    /// The user was told that its metadata is too long.
    is_reported: bool,
}

impl MetadataStage {
    /// Makes the stage of a torrent that knows no peer.
    pub(crate) fn new(infohash: InfoHash, rng: &mut Rng) -> Self {
        Self {
            fetch: MetadataFetch::new(infohash, rng.fork("fetch")),
            early: BTreeMap::new(),
            early_len: 0,
            wanted: None,
            sequential: None,
            rng: rng.fork("content"),
        }
    }

    /// Keeps a message about pieces for later.
    fn keep(&mut self, conn: ConnId, message: Message) {
        let early = self.early.entry(conn).or_default();
        let len = size_of::<Message>() + message.encoded_len();
        if early.messages.len() >= EARLY_COUNT_MAX || self.early_len + len > EARLY_LEN_MAX {
            early.is_incomplete = true;
            early.messages = Vec::new();
            self.early_len -= std::mem::take(&mut early.len);
        }
        if !early.is_incomplete {
            early.messages.push(message);
            early.len += len;
            self.early_len += len;
        }
    }

    /// Forgets a connection.
    pub(crate) fn forget(&mut self, now: Instant, conn: ConnId) {
        self.fetch.left(now, conn);
        if let Some(early) = self.early.remove(&conn) {
            self.early_len -= early.len;
        }
    }

    /// Keeps a command that concerns pieces for later; returns any other.
    pub(crate) fn hold_back(&mut self, command: Command) -> Option<Command> {
        match command {
            Command::Want(wanted) => self.wanted = Some(wanted),
            Command::Sequential(sequential) => self.sequential = Some(sequential),
            Command::Pause | Command::Resume | Command::Limit { .. } => return Some(command),
        }
        None
    }

    /// Returns the peer that makes room for another one: of those that had time to give us metadata
    /// and gave none lately, the one that was connected longest; first those that claim to have
    /// none.
    pub(crate) fn useless(&self, now: Instant, peers: &BTreeMap<ConnId, Peer>) -> Option<ConnId> {
        let is_useless = |peer: &&Peer| {
            let gave_at = self.fetch.gave_at(peer.conn).unwrap_or(peer.traffic.connected_at);
            now - gave_at >= USELESS_AFTER
        };
        let order = |peer: &&Peer| (self.fetch.is_source(peer.conn), peer.traffic.connected_at);
        peers.values().filter(is_useless).min_by_key(order).map(|peer| peer.conn)
    }

    /// Returns how far the fetch is.
    pub(crate) fn progress(&self) -> MetadataProgress {
        let (done_len, total_len) = self.fetch.progress();
        MetadataProgress { source_count: self.fetch.source_count(), done_len, total_len }
    }
}

impl Active {
    /// Keeps a message about pieces for when their number is known; returns any other, to be
    /// handled now. Outside this stage it returns every message.
    pub(crate) fn hold_back(
        &mut self,
        conn: ConnId,
        message: Message,
    ) -> Result<Option<Message>, DisconnectReason> {
        let Some(stage) = &mut self.stage else { return Ok(Some(message)) };
        match message {
            Message::Have(piece) | Message::AllowedFast(piece) if piece >= PIECE_COUNT_MAX => {
                return Err(DisconnectReason::Protocol("no such piece"));
            }
            Message::Extended { id: LT_DONTHAVE_ID, payload } => {
                let piece = dont_have::decode(&payload)
                    .map_err(|_| DisconnectReason::Protocol("bad lt_donthave message"))?;
                // A copy, as the payload may hold on to a larger buffer.
                let payload = dont_have::encode(piece);
                stage.keep(conn, Message::Extended { id: LT_DONTHAVE_ID, payload });
            }
            // Not offered before the metadata (BEP 10); suggestions wait for no one.
            Message::Extended { id: SP_HAVE_ID, .. } | Message::Suggest(_) => {}
            Message::Choke
            | Message::Unchoke
            | Message::Interested
            | Message::NotInterested
            | Message::Have(_)
            | Message::Bitfield(_)
            | Message::HaveAll
            | Message::HaveNone
            | Message::AllowedFast(_) => stage.keep(conn, message),
            Message::KeepAlive
            | Message::Port(_)
            | Message::Request(_)
            | Message::Cancel(_)
            | Message::Reject(_)
            | Message::Extended { .. } => return Ok(Some(message)),
        }
        Ok(None)
    }

    /// Handles what the peer's extension handshake says about the metadata, if it is fetched.
    pub(crate) fn offered(&mut self, now: Instant, conn: ConnId) -> Result<(), DisconnectReason> {
        let (Some(stage), Some(peer)) = (&mut self.stage, self.peers.get(&conn)) else { return Ok(()) };
        let addr = peer.connected.addr;
        let claim = peer.remote.extension().filter(|known| known.ut_metadata.is_some());
        let Some(total_len) = claim.and_then(|known| known.metadata_size) else {
            // It may have switched off what it offered before.
            stage.fetch.left(now, conn);
            return Ok(());
        };
        if total_len > METADATA_LEN_MAX
            && !std::mem::replace(&mut stage.early.entry(conn).or_default().is_reported, true)
        {
            self.out.event(Event::MetadataTooLong(addr, total_len));
        }
        stage.fetch.joined(now, conn, addr, total_len)
    }

    /// Looks after the fetch once a second.
    pub(crate) fn upkeep_stage(&mut self, now: Instant) {
        let is_full = self.peers.len() >= self.limits.lease.connection_max;
        let Some(stage) = &mut self.stage else { return };
        stage.fetch.upkeep(now);
        // A peer that has the metadata may be among those for which there is no room.
        if is_full
            && self.dialer.candidate_count() > 0
            && let Some(conn) = stage.useless(now, &self.peers)
        {
            self.disconnect(now, conn, DisconnectReason::Full);
        }
    }

    /// Carries out what the fetch has decided; to be called at the end of every input.
    pub(crate) fn settle_stage(&mut self, now: Instant) {
        while let Some(decision) = self.stage.as_mut().and_then(|stage| stage.fetch.pop()) {
            match decision {
                Decision::Ask(conn, piece) => self.ask_metadata(now, conn, piece),
                Decision::Reserve(len) => self.out.push(Output::ReserveMetadata(len)),
                Decision::Release(len) => self.out.push(Output::ReleaseMetadata(len)),
                Decision::Liar(addr) => self.ban(now, addr),
                Decision::Complete(bytes) => self.out.push(Output::Metadata(bytes)),
            }
        }
        // Room stays reserved for what a peer left behind until it is clear that no other peer goes
        // on with it.
        if self.stage.as_ref().is_some_and(|stage| stage.fetch.holds_room()) {
            self.upkeep_at.get_or_insert(now + UPKEEP);
        } else if self.peers.is_empty() {
            self.upkeep_at = None;
        }
    }

    fn ask_metadata(&mut self, now: Instant, conn: ConnId, piece: u32) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let Some(id) = peer.remote.ut_metadata() else { return };
        let payload = MetadataMessage::Request(piece).encode();
        self.out.send(now, peer, Message::Extended { id, payload });
    }

    /// The torrent turned out to be private (BEP 27): candidates and connections stay only if a
    /// tracker, the link or the user named the address.
    pub(crate) fn restrict(&mut self, now: Instant) {
        self.settings.private = true;
        self.dialer.keep_named();
        let is_strange = |peer: &&Peer| !peer.listen_addr.is_some_and(|addr| self.dialer.is_named(addr));
        let strangers: Vec<_> = self.peers.values().filter(is_strange).map(|peer| peer.conn).collect();
        for conn in strangers {
            self.disconnect(now, conn, DisconnectReason::Stopping);
        }
    }

    /// Goes on with the content, whose metadata is `settings.metadata`. Peers were told that we
    /// have no pieces: they are told of ours now.
    pub(crate) fn begin_content(&mut self, now: Instant, settings: Settings, pieces: Pieces) {
        let Some(stage) = self.stage.take() else { return };
        let MetadataStage { mut early, wanted, sequential, rng, .. } = *stage;
        let piece_count = pieces.have().len();
        let content = Self::new(settings, pieces, None, rng, now);
        let Self { peers, dialer, limits, totals, status, out, .. } = std::mem::replace(self, content);
        (self.dialer, self.limits, self.totals, self.out) = (dialer, limits, totals, out);
        self.status.paused = status.paused;
        self.limit_rates(now);
        if self.settings.private {
            self.dialer.keep_named();
        }
        for mut peer in peers.into_values() {
            let conn = peer.conn;
            peer.begin_content(piece_count, now);
            self.enlist(now, peer, true);
            let early = early.remove(&conn).unwrap_or_default();
            if let Err(reason) = self.hear_early(now, conn, early) {
                self.disconnect(now, conn, reason);
            }
        }
        let commands = [wanted.map(Command::Want), sequential.map(Command::Sequential)];
        commands.into_iter().flatten().for_each(|command| self.obey(now, command));
    }

    /// Handles what a peer said about pieces before their number was known, and tells it of ours.
    fn hear_early(
        &mut self,
        now: Instant,
        conn: ConnId,
        early: EarlyMessages,
    ) -> Result<(), DisconnectReason> {
        if early.is_incomplete {
            return Err(DisconnectReason::Anew);
        }
        early.messages.into_iter().try_for_each(|message| self.receive_message(now, conn, message))?;
        self.gossip_with(now, conn);
        self.part_if_useless(conn)?;
        if self.status.paused || self.peers.len() > self.limits.lease.connection_max {
            return Err(DisconnectReason::Full);
        }
        self.tell_pieces(now, conn)
    }
}
