//! Who is connected: whom we dial, whom we take, whom we let go, and what each connection needs each second.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::candidates::Candidates;
use super::event::{ConnId, Connected, Direction, DisconnectReason, Event, Output, Source};
use super::outbox::Outbox;
use super::upload::Share;
use super::{Torrent, UPKEEP};
use crate::proto::peer::{Peer, greeting};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::wire::message::Message;

/// Dials under way at once: home routers choke on more. Others wait.
const DIALING_MAX: usize = 20;
/// Least time between two looks at the candidates, so that nothing spins.
const LOOK_SPACING: Duration = Duration::from_millis(100);
/// A connection of which neither side wanted anything for so long makes room for a new one.
const USELESS_AFTER: Duration = Duration::from_secs(600);
/// Of so many connections one may be a newcomer with an allowed-fast set; one always may.
const NEWCOMER_SHARE: usize = 8;

/// Whom we dial.
#[derive(Debug)]
pub(super) struct Dialer {
    candidates: Candidates,
    dialing: BTreeSet<SocketAddr>,
    /// Whether there may be somebody to dial now.
    stale: bool,
    /// When there may be somebody to dial.
    look_at: Option<Instant>,
}

impl Dialer {
    /// Nobody known.
    pub(super) fn new(rng: Rng) -> Self {
        Self { candidates: Candidates::new(rng), dialing: BTreeSet::new(), stale: false, look_at: None }
    }

    /// Addresses from a source.
    pub(super) fn add(&mut self, now: Instant, source: Source, addrs: &[SocketAddr]) {
        for &addr in addrs {
            // Also an address known before may be worth a try again.
            self.candidates.add(now, source, addr);
            self.stale = true;
        }
    }

    /// Our own address as others see it.
    pub(super) fn set_external(&mut self, addr: SocketAddr) {
        self.candidates.external_addr(addr);
    }

    /// A dial failed.
    pub(super) fn failed(&mut self, now: Instant, addr: SocketAddr) {
        self.dialing.remove(&addr);
        self.candidates.dial_failed(now, addr);
        self.stale = true;
    }

    /// There may be somebody to dial now.
    pub(super) fn look(&mut self) {
        self.stale = true;
    }

    /// When there may be somebody to dial.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Dials under way.
    pub(super) fn dialing_count(&self) -> usize {
        self.dialing.len()
    }

    /// Addresses that may be dialled now or later.
    pub(super) fn candidate_count(&self) -> usize {
        self.candidates.len()
    }

    /// Dials whoever is due, at most `room` of them together with those under way.
    pub(super) fn dial(&mut self, now: Instant, room: usize, out: &mut Outbox) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let room = room.min(DIALING_MAX);
        while let Some(left) = room.checked_sub(self.dialing.len()).filter(|&left| left > 0) {
            let Some(addr) = self.candidates.next_dial(now, left) else { break };
            self.dialing.insert(addr);
            out.push(Output::Dial(addr));
        }
        // Without room the end of a dial or of a connection makes us look again.
        let waits = self.dialing.len() < room;
        self.look_at =
            self.candidates.next_at().filter(|_| waits).map(|next_at| next_at.max(now + LOOK_SPACING));
    }
}

impl Torrent {
    /// A connection is up: taken or refused.
    pub(super) fn connect(&mut self, now: Instant, conn: ConnId, connected: Connected) {
        if connected.direction == Direction::Outgoing {
            self.dialer.dialing.remove(&connected.addr);
            self.dialer.candidates.dialled(connected.addr);
            self.dialer.look();
        }
        match self.admit(now, &connected) {
            Ok(()) => self.greet(now, conn, connected),
            Err(reason) => {
                self.out.push(Output::Disconnect(conn, reason));
                if connected.direction == Direction::Outgoing && reason != DisconnectReason::Ourselves {
                    self.dialer.candidates.disconnected(now, connected.addr, false);
                }
            }
        }
    }

    /// Whether to take the connection; may let another one go for it.
    fn admit(&mut self, now: Instant, connected: &Connected) -> Result<(), DisconnectReason> {
        if self.status.paused {
            return Err(DisconnectReason::Stopping);
        }
        if connected.peer_id == self.settings.peer_id {
            if connected.direction == Direction::Outgoing {
                self.dialer.candidates.ourselves(connected.addr);
            }
            return Err(DisconnectReason::Ourselves);
        }
        if self.dialer.candidates.is_banned(connected.addr) {
            return Err(DisconnectReason::Banned);
        }
        if let Some((conn, other)) = self.duplicate_of(connected) {
            if !self.replaces(connected, &other) {
                return Err(DisconnectReason::Duplicate);
            }
            self.disconnect(now, conn, DisconnectReason::Duplicate);
        }
        if self.peers.len() < self.limits.lease.connection_max {
            return Ok(());
        }
        let useless = |peer: &&Peer| {
            peer.state.useless_since().is_some_and(|useless_at| now - useless_at >= USELESS_AFTER)
        };
        let evicted = self.peers.values().find(useless).ok_or(DisconnectReason::Full)?.conn;
        self.disconnect(now, evicted, DisconnectReason::Full);
        Ok(())
    }

    fn duplicate_of(&self, connected: &Connected) -> Option<(ConnId, Connected)> {
        let same = |other: &Connected| other.peer_id == connected.peer_id || other.addr == connected.addr;
        let peer = self.peers.values().find(|peer| same(&peer.connected))?;
        Some((peer.conn, peer.connected))
    }

    /// Of two connections between the same two, both ends keep the one that the greater peer id dialled. A
    /// stranger who borrows a peer's name from another host does not get its place.
    fn replaces(&self, newer: &Connected, older: &Connected) -> bool {
        let kept =
            if self.settings.peer_id > newer.peer_id { Direction::Outgoing } else { Direction::Incoming };
        newer.addr.ip() == older.addr.ip() && newer.direction == kept && older.direction != kept
    }

    fn greet(&mut self, now: Instant, conn: ConnId, connected: Connected) {
        let have = self.download.pieces.have();
        let mut peer = Peer::new(conn, connected, have.len(), now);
        if connected.direction == Direction::Outgoing {
            peer.listen_addr = Some(connected.addr);
        }
        if let Some(message) = greeting::availability(have, peer.is_fast()) {
            self.out.send(now, &mut peer, message);
        }
        peer.offer.greet(have, self.news.gained());
        if connected.capabilities.extensions {
            let message = greeting::extension(&self.settings, &connected, self.status.complete);
            self.out.send(now, &mut peer, message);
        }
        if let Some(message) = greeting::dht_port(&self.settings, &connected) {
            self.out.send(now, &mut peer, message);
        }
        self.peers.insert(conn, peer);
        self.upkeep_at.get_or_insert(now + UPKEEP);
        self.out.event(Event::PeerConnected(connected.addr));
    }

    /// The peer told its first pieces: a newcomer gets its allowed-fast set, if newcomers are few. In a flash
    /// crowd everybody is one, and the sets would split the uplink among all for the same few pieces.
    pub(super) fn welcome(&mut self, now: Instant, conn: ConnId) {
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
    pub(super) fn disconnect(&mut self, now: Instant, conn: ConnId, reason: DisconnectReason) {
        self.forget(now, conn, Some(reason));
    }

    /// Closes all connections.
    pub(super) fn disconnect_all(&mut self, now: Instant, reason: DisconnectReason) {
        while let Some(&conn) = self.peers.keys().next() {
            self.disconnect(now, conn, reason);
        }
    }

    /// Takes a connection off the books; with a reason, it is we who close it.
    pub(super) fn forget(&mut self, now: Instant, conn: ConnId, reason: Option<DisconnectReason>) {
        let Some(mut peer) = self.peers.remove(&conn) else { return };
        if let Some(reason) = reason {
            self.out.disconnect(&peer, reason);
        }
        let had_slot = !peer.state.am_choking;
        self.download.forget(&mut peer);
        self.upload.forget(&mut peer);
        self.gossip.leave(now, conn);
        if let Some(addr) = peer.listen_addr {
            let useful = match reason {
                Some(DisconnectReason::Stopping) => true,
                None | Some(DisconnectReason::Idle | DisconnectReason::Full) => {
                    peer.traffic.downloaded + peer.traffic.uploaded > 0
                }
                Some(
                    DisconnectReason::Protocol(_)
                    | DisconnectReason::Poison
                    | DisconnectReason::Ourselves
                    | DisconnectReason::Duplicate
                    | DisconnectReason::BothComplete
                    | DisconnectReason::Banned,
                ) => false,
            };
            self.dialer.candidates.disconnected(now, addr, useful);
        }
        self.dialer.look();
        if self.peers.is_empty() {
            self.upkeep_at = None;
            self.totals.idle();
        } else if had_slot {
            self.fill_slots(now);
        }
        self.out.event(Event::PeerDisconnected(peer.connected.addr, reason));
    }

    /// Free slots go to whoever waits for one.
    pub(super) fn fill_slots(&mut self, now: Instant) {
        let share = Share {
            seeding: self.status.complete,
            unchoke_max: self.limits.lease.unchoke_max,
            availability: &self.download.availability,
        };
        self.upload.fill_slots(now, &mut self.peers, share, &mut self.out);
    }

    /// What every connection needs each second.
    pub(super) fn upkeep(&mut self, now: Instant) {
        self.upkeep_at = Some(now + UPKEEP);
        let mut gone = Vec::new();
        for peer in self.peers.values_mut() {
            if peer.traffic.is_idle(now) {
                gone.push(peer.conn);
                continue;
            }
            if peer.traffic.is_quiet(now) {
                self.out.send(now, peer, Message::KeepAlive);
            }
            if peer.requests.is_overdue(now) {
                if !peer.state.peer_choking {
                    peer.requests.snub(now);
                }
                self.download.give_up(peer);
            }
            peer.requests.fit_depth(peer.traffic.download.per_second(now));
            peer.uploads.fit_window(peer.traffic.upload.per_second(now));
            self.download.fill(now, peer, &mut self.out);
        }
        for conn in gone {
            self.disconnect(now, conn, DisconnectReason::Idle);
        }
        self.totals.upkeep(now, self.upload.take_starved(), self.download.take_starved());
        self.download.retry();
    }

    /// Lets go whom neither side can give anything: we are complete, and so is it.
    pub(super) fn part_if_useless(&self, conn: ConnId) -> Result<(), DisconnectReason> {
        let is_useless = |peer: &Peer| {
            peer.remote.is_seed() || peer.remote.extension().is_some_and(|extension| extension.upload_only)
        };
        let parts = self.status.complete && self.peers.get(&conn).is_some_and(is_useless);
        if parts { Err(DisconnectReason::BothComplete) } else { Ok(()) }
    }

    /// The peer told where it takes connections.
    pub(super) fn listens_at(&mut self, conn: ConnId, port: u16) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if peer.listen_addr.is_none() && port != 0 {
            let addr = SocketAddr::new(peer.connected.addr.ip(), port);
            peer.listen_addr = Some(addr);
            self.dialer.candidates.listens_at(addr);
        }
    }

    /// The peer's extension handshake came: others may hear of it, and it of others.
    pub(super) fn gossip_with(&mut self, now: Instant, conn: ConnId) {
        let Some(peer) = self.peers.get(&conn).filter(|_| self.settings.gossips()) else { return };
        if let Some(addr) = peer.listen_addr {
            self.gossip.join(now, conn, addr);
        }
        if peer.remote.extension().is_some_and(|extension| extension.ut_pex.is_some()) {
            self.gossip.listen(now, conn);
        }
    }

    /// The address lied: its host is done with, and so is every connection of it.
    pub(super) fn ban(&mut self, now: Instant, addr: SocketAddr) {
        self.dialer.candidates.ban(addr);
        self.out.event(Event::PeerBanned(addr));
        let candidates = &self.dialer.candidates;
        let liars = self.peers.values().filter(|peer| candidates.is_banned(peer.connected.addr));
        let liars: Vec<_> = liars.map(|peer| peer.conn).collect();
        for conn in liars {
            self.disconnect(now, conn, DisconnectReason::Poison);
        }
    }
}
