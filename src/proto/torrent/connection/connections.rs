//! Who is connected: whom we dial, whom we take, whom we let go, and what each connection needs
//! each second.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::proto::peer::{Peer, greeting};
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::UPKEEP;
use crate::proto::torrent::active::Active;
use crate::proto::torrent::dial::dialer::stands_for;
use crate::proto::torrent::event::{ConnId, Connected, Direction, DisconnectReason, Event, Output};
use crate::proto::torrent::upload::Share;
use crate::proto::wire::message::Message;
use crate::proto::wire::sp_have;

/// A connection of which neither side wanted anything for so long makes room for a new one.
const USELESS_AFTER: Duration = Duration::from_secs(600);
/// Of so many connections one may be a newcomer with an allowed-fast set; one always may.
const NEWCOMER_SHARE: usize = 8;
/// HAVEs, 9 bytes each, that make up for the bitfield that a peer did not get while we fetched the
/// metadata. With more pieces it is disconnected instead, and dialled again.
const LATE_HAVES_MAX: u32 = 1_024;

impl Active {
    /// A connection is up: taken or refused.
    pub(crate) fn connect(&mut self, now: Instant, conn: ConnId, connected: Connected) {
        let asked_for = self.dialer.connected(&connected);
        match asked_for.and_then(|()| self.admit(now, &connected)) {
            Ok(listen_addr) => self.greet(now, conn, connected, listen_addr),
            Err(reason) => {
                self.out.push(Output::Disconnect(conn, reason));
                let others = self.peers.values_mut().map(|peer| (peer.connected, &mut peer.listen_addr));
                self.dialer.refused(now, &connected, reason, others);
            }
        }
    }

    /// Whether to take the connection; may let another one go for it. With where the peer listens,
    /// if another connection to it that goes knew.
    fn admit(&mut self, now: Instant, connected: &Connected) -> Result<Option<SocketAddr>, DisconnectReason> {
        if self.status.paused {
            return Err(DisconnectReason::Stopping);
        }
        let others = self.peers.values().map(|peer| (peer.conn, peer.connected));
        if let Some(conn) = self.dialer.admit(self.settings.peer_id, connected, others)? {
            let known = (connected.direction == Direction::Outgoing).then_some(connected.addr);
            let stays = |addr: &mut SocketAddr| stands_for(connected.addr, known, *addr);
            let listen_addr = self.peers.get_mut(&conn).and_then(|peer| peer.listen_addr.take_if(stays));
            self.disconnect(now, conn, DisconnectReason::Duplicate);
            return Ok(listen_addr);
        }
        if self.peers.len() < self.limits.lease.connection_max {
            return Ok(None);
        }
        let useless = |peer: &&Peer| {
            peer.state.useless_since().is_some_and(|useless_at| now - useless_at >= USELESS_AFTER)
        };
        let evicted = match &self.stage {
            Some(stage) => stage.useless(now, &self.peers),
            None => self.peers.values().find(useless).map(|peer| peer.conn),
        };
        let evicted = evicted.ok_or(DisconnectReason::Full)?;
        self.disconnect(now, evicted, DisconnectReason::Full);
        Ok(None)
    }

    fn greet(&mut self, now: Instant, conn: ConnId, connected: Connected, listen_addr: Option<SocketAddr>) {
        let have = self.download.pieces.have();
        let mut peer = Peer::new(conn, connected, have.len(), now);
        if let Some(message) = greeting::availability(have, peer.is_fast()) {
            self.out.send_availability(now, &mut peer, message);
        }
        if let Some(message) = greeting::dht_port(&self.settings, &connected) {
            self.out.send(now, &mut peer, message);
        }
        peer.listen_addr = listen_addr;
        self.enlist(now, peer, false);
        self.out.event(Event::PeerConnected(connected.addr));
    }

    /// Puts a connection on the books whose peer knows, or is about to be told, which pieces we
    /// have. `introduced`: the metadata was fetched on it.
    pub(crate) fn enlist(&mut self, now: Instant, mut peer: Peer, introduced: bool) {
        let connected = peer.connected;
        if connected.direction == Direction::Outgoing {
            peer.listen_addr = Some(connected.addr);
        }
        peer.known_haves.greet(self.download.pieces.have(), self.have_batch.gained());
        if connected.capabilities.extensions {
            let message = if self.stage.is_some() {
                greeting::introduction(&self.settings, &connected)
            } else {
                let complete = self.status.complete;
                let queue_max = self.request_queue_max();
                peer.uploads.tell_queue_max(queue_max, now);
                greeting::extension(&self.settings, &connected, complete, introduced, queue_max)
            };
            self.out.send(now, &mut peer, message);
        }
        self.peers.insert(peer.conn, peer);
        self.upkeep_at.get_or_insert(now + UPKEEP);
    }

    /// Tells our pieces to a peer that thinks that we have none.
    pub(crate) fn tell_pieces(&mut self, now: Instant, conn: ConnId) -> Result<(), DisconnectReason> {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        let have = self.download.pieces.have();
        let told = have.iter_set();
        match peer.remote.sp_have() {
            _ if have.count() == 0 => {}
            Some(id) => {
                let payload = sp_have::encode(&told.collect::<Vec<_>>(), have);
                self.out.send_availability(now, peer, Message::Extended { id, payload });
            }
            None if have.count() <= LATE_HAVES_MAX => {
                told.for_each(|piece| self.out.send_availability(now, peer, Message::Have(piece)));
            }
            None => return Err(DisconnectReason::Anew),
        }
        Ok(())
    }

    /// The peer told its first pieces: a newcomer gets its allowed-fast set, if newcomers are few.
    /// In a flash crowd everybody is one, and the sets would split the uplink among all for the
    /// same few pieces.
    pub(crate) fn welcome(&mut self, now: Instant, conn: ConnId) {
        let is_newcomer = |peer: &Peer| peer.remote.have().count() < greeting::ALLOWED_FAST_COUNT as u32;
        let newcomer_count = self.peers.values().filter(|peer| is_newcomer(peer)).count();
        let are_few = newcomer_count <= 1 + self.peers.len() / NEWCOMER_SHARE;
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if !peer.is_fast() || !are_few || !is_newcomer(peer) {
            return;
        }
        let have = self.download.pieces.have();
        let allowed = greeting::allowed_fast(&self.settings, &peer.connected, have);
        peer.uploads.allow_fast(&allowed);
        allowed.into_iter().for_each(|piece| self.out.send(now, peer, Message::AllowedFast(piece)));
    }

    /// Closes a connection and takes it off the books.
    pub(crate) fn disconnect(&mut self, now: Instant, conn: ConnId, reason: DisconnectReason) {
        self.forget(now, conn, Some(reason));
    }

    /// Closes all connections.
    pub(crate) fn disconnect_all(&mut self, now: Instant, reason: DisconnectReason) {
        while let Some(&conn) = self.peers.keys().next() {
            self.disconnect(now, conn, reason);
        }
    }

    /// Takes a connection off the books; with a reason, it is we who close it.
    pub(crate) fn forget(&mut self, now: Instant, conn: ConnId, reason: Option<DisconnectReason>) {
        let Some(mut peer) = self.peers.remove(&conn) else { return };
        if let Some(reason) = reason {
            self.out.disconnect(&peer, reason);
        }
        let had_slot = !peer.state.am_choking;
        let gave_metadata = self.stage.as_ref().is_some_and(|stage| stage.fetch.gave_at(conn).is_some());
        if let Some(stage) = &mut self.stage {
            stage.forget(now, conn);
        }
        self.download.forget(now, &mut peer);
        self.upload.forget(&mut peer);
        self.metadata.forget(conn);
        self.gossip.leave(now, conn);
        if let Some(addr) = peer.listen_addr {
            let gave = gave_metadata || peer.traffic.downloaded + peer.traffic.uploaded > 0;
            self.dialer.parted(now, addr, reason, gave);
        }
        self.dialer.look();
        if self.peers.is_empty() {
            // Left as it is, it keeps the room of eleven peers, for as long as nobody comes.
            self.peers = BTreeMap::new();
            self.upkeep_at = None;
            self.totals.idle();
        } else if had_slot {
            self.fill_slots(now);
        }
        self.out.event(Event::PeerDisconnected(peer.connected.addr, reason));
    }

    /// Free slots go to whoever waits for one.
    pub(crate) fn fill_slots(&mut self, now: Instant) {
        let share = Share {
            seeding: self.status.complete,
            unchoke_max: self.limits.lease.unchoke_max,
            availability: &self.download.availability,
        };
        self.upload.fill_slots(now, &mut self.peers, share, &mut self.out);
    }

    /// Requests that each peer may let wait.
    fn request_queue_max(&self) -> u32 {
        self.upload.request_queue_max(self.peers.values().filter(|peer| peer.state.peer_interested).count())
    }

    /// What every connection needs each second.
    pub(crate) fn upkeep(&mut self, now: Instant) {
        self.upkeep_at = Some(now + UPKEEP);
        let mut gone = Vec::new();
        let queue_max = self.request_queue_max();
        for peer in self.peers.values_mut() {
            if peer.traffic.is_idle(now) {
                gone.push(peer.conn);
                continue;
            }
            let shows_nothing = !self.status.complete && peer.remote.have().count() == 0;
            if peer.traffic.is_quiet(now) || shows_nothing && peer.traffic.is_to_be_woken(now) {
                self.out.send(now, peer, Message::KeepAlive);
            }
            if peer.requests.is_overdue(now) {
                if !peer.state.peer_choking {
                    peer.requests.snub(now);
                }
                self.download.give_up(now, peer);
            }
            peer.requests.fit_depth(peer.traffic.download.per_second(now));
            peer.uploads.fit_window(peer.traffic.upload.per_second(now));
            if self.stage.is_none()
                && peer.connected.capabilities.extensions
                && peer.uploads.tell_queue_max(queue_max, now)
            {
                let complete = self.status.complete;
                let message =
                    greeting::extension(&self.settings, &peer.connected, complete, false, queue_max);
                self.out.send(now, peer, message);
            }
            self.download.fill(now, peer, &mut self.out);
        }
        for conn in gone {
            self.disconnect(now, conn, DisconnectReason::Idle);
        }
        self.upkeep_stage(now);
        self.upload.upkeep();
        self.metadata.upkeep(now).into_iter().for_each(|conn| self.upload.ready(conn));
        self.totals.upkeep(now, self.upload.take_starved(), self.download.take_starved());
        self.download.retry();
    }

    /// Lets go whom neither side can give anything: we are complete, and so is it.
    pub(crate) fn part_if_useless(&self, conn: ConnId) -> Result<(), DisconnectReason> {
        let is_useless = |peer: &Peer| {
            let wants_nothing =
                peer.remote.is_seed() || peer.remote.extension().is_some_and(|known| known.upload_only);
            wants_nothing && !self.may_need_metadata(peer)
        };
        let parts = self.status.complete && self.peers.get(&conn).is_some_and(is_useless);
        if parts { Err(DisconnectReason::BothComplete) } else { Ok(()) }
    }

    /// Whether the peer may have only the infohash, and may get the metadata from us (BEP 9): it
    /// takes metadata and does not say how much it has. A peer with pieces has it, whatever it
    /// says; of a torrent without pieces, a peer that has not introduced itself yet may have come
    /// for it.
    fn may_need_metadata(&self, peer: &Peer) -> bool {
        let have = peer.remote.have();
        let asks = match peer.remote.extension() {
            Some(known) => known.ut_metadata.is_some() && known.metadata_size.is_none_or(|len| len == 0),
            None => peer.connected.capabilities.extensions && have.is_empty(),
        };
        asks && have.count() == 0 && self.metadata.is_given()
    }

    /// The peer told where it takes connections.
    pub(crate) fn listens_at(&mut self, conn: ConnId, port: u16) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if peer.listen_addr.is_none() && port != 0 {
            let addr = SocketAddr::new(peer.connected.addr.ip(), port);
            peer.listen_addr = Some(addr);
            self.dialer.listens_at(addr);
        }
    }

    /// The peer's extension handshake came: others may hear of it, and it of others.
    pub(crate) fn gossip_with(&mut self, now: Instant, conn: ConnId) {
        // Before the metadata says that the torrent is not private, peers are not told of others.
        let may_tell = self.settings.gossips() && self.stage.is_none();
        let Some(peer) = self.peers.get(&conn).filter(|_| may_tell) else { return };
        if let Some(addr) = peer.listen_addr {
            self.gossip.join(now, conn, addr);
        }
        if peer.remote.extension().is_some_and(|extension| extension.ut_pex.is_some()) {
            self.gossip.listen(now, conn);
        }
    }

    /// The address lied: its host is done with, and so is every connection of it.
    pub(crate) fn ban(&mut self, now: Instant, addr: SocketAddr) {
        self.dialer.ban(addr);
        self.out.event(Event::PeerBanned(addr));
        let liars = self.peers.values().filter(|peer| self.dialer.is_banned(peer.connected.addr));
        let liars: Vec<_> = liars.map(|peer| peer.conn).collect();
        for conn in liars {
            self.disconnect(now, conn, DisconnectReason::Poison);
        }
    }
}
