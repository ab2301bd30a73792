//! Fetching a torrent's description from its peers, when only the infohash is known (BEP 9).
//!
//! [`Description`] stands in a torrent's place until the info dictionary is there: it dials,
//! greets, asks for pieces of metadata and keeps what peers say about the content, so that
//! [`super::Torrent`] can go on with the same connections. Buffers belong to senders: what one peer
//! claims about the size costs the others nothing. When the whole does not hash, each contributor
//! has to give it alone, and the liar is banned.
//!
//! It tells peers that it has no pieces, serves nothing, and chokes everybody. Its inputs are here;
//! who is connected and what peers say in `acquaintances`, what is kept of it in `introduction`,
//! which piece is asked of whom in `fetch`, by what each `describer` does, over the buffers of
//! `copy`.
//!
//! Invariants, checked in debug builds: nobody is asked who is not connected; there is upkeep
//! exactly while there are connections or room is reserved; the bounds of the fetching hold.

mod acquaintances;
mod introduction;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::UPKEEP;
use super::dialer::Dialer;
use super::event::{ConnId, Connected, DisconnectReason, Event, Source};
use super::metadata::fetch::{Decision, MetadataFetch};
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::rng::Rng;
use crate::proto::session::{Demand, Lease};
use crate::proto::time::Instant;
use crate::proto::wire::message::Message;
use crate::proto::wire::metadata::MetadataMessage;
use acquaintances::Acquaintance;

/// Fixed facts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which torrent.
    pub infohash: InfoHash,
    /// Our own name in this swarm.
    pub peer_id: PeerId,
    /// Told to peers in the extension handshake; None when not listening.
    pub listen_port: Option<u16>,
    /// Told to peers that speak the DHT (PORT); None: we do not.
    pub dht_port: Option<u16>,
    /// Exchange addresses with peers (BEP 11).
    pub pex: bool,
    /// Most connections before any lease.
    pub connection_max: usize,
}

/// The machine's decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// Send a message.
    Send(ConnId, Message),
    /// Close the connection.
    Disconnect(ConnId, DisconnectReason),
    /// Dial; answered by `handle_connected` or `handle_dial_failed`.
    Dial(SocketAddr),
    /// Room for so many bytes is needed, of what the process allows all descriptions together;
    /// answered by `handle_reserved`. What was reserved and not released is given back when the
    /// machine is dropped.
    Reserve(u32),
    /// So many bytes of what was reserved are not needed any more.
    Release(u32),
    /// A peer has a DHT node at this address (PORT message).
    DhtNode(SocketAddr),
    /// The info dictionary, hashed and right. Take [`Description::into_handover`] and go on with a
    /// torrent.
    Described(Bytes),
    /// For people: connections and bans.
    Event(Event),
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Connections.
    pub connected: usize,
    /// Of these, those that have the description.
    pub describing: usize,
    /// Bytes of the description received.
    pub done_len: u32,
    /// Bytes of the description, if anybody said; 0: nobody did.
    pub total_len: u32,
}

/// A connection that goes on, and what the peer said on it so far, in order: availability,
/// extension handshake, allowed-fast pieces, interest, choking.
#[derive(Clone, Debug)]
pub struct Introduced {
    /// The shell's name for it.
    pub conn: ConnId,
    /// What the handshakes said.
    pub connected: Connected,
    /// Where the peer takes connections, if that is known.
    pub listen_addr: Option<SocketAddr>,
    /// What the peer said; a bitfield has the length of its bytes.
    pub messages: Vec<Message>,
}

/// What a torrent takes over.
#[derive(Debug)]
pub struct Handover {
    pub(super) introduced: Vec<Introduced>,
    /// Where those listen whose connections do not go on.
    pub(super) parted: Vec<SocketAddr>,
    pub(super) dialer: Dialer,
}

/// The machine.
#[derive(Debug)]
pub struct Description {
    settings: Settings,
    peers: BTreeMap<ConnId, Acquaintance>,
    dialer: Dialer,
    fetch: MetadataFetch,
    connection_max: usize,
    /// When to look after connections and copies; None without any.
    upkeep_at: Option<Instant>,
    out: VecDeque<Output>,
}

impl Description {
    /// Nobody known.
    pub fn new(settings: Settings, mut rng: Rng) -> Self {
        Self {
            peers: BTreeMap::new(),
            dialer: Dialer::new(rng.fork("candidates"), false),
            fetch: MetadataFetch::new(settings.infohash, rng.fork("fetch")),
            connection_max: settings.connection_max,
            upkeep_at: None,
            out: VecDeque::new(),
            settings,
        }
    }

    /// Both handshakes are done. The id is the shell's and never used twice in one torrent.
    pub fn handle_connected(&mut self, now: Instant, conn: ConnId, connected: Connected) {
        self.connect(now, conn, connected);
        self.settle(now);
    }

    /// A dial ended without a connection.
    pub fn handle_dial_failed(&mut self, now: Instant, addr: SocketAddr) {
        self.dialer.failed(now, addr);
        self.settle(now);
    }

    /// The connection is gone, whoever closed it. Must follow every [`Output::Disconnect`] too.
    pub fn handle_disconnected(&mut self, now: Instant, conn: ConnId) {
        self.forget(now, conn, None);
        self.settle(now);
    }

    /// A message came. A peer that breaks the rules is disconnected by output; the shell needs no
    /// error.
    pub fn handle_message(&mut self, now: Instant, conn: ConnId, message: Message) {
        if let Err(reason) = self.receive_message(now, conn, message) {
            self.forget(now, conn, Some(reason));
        }
        self.settle(now);
    }

    /// A block came: nobody asked for one, so the peer is disconnected.
    pub fn handle_block(&mut self, now: Instant, conn: ConnId) {
        self.forget(now, conn, Some(DisconnectReason::Protocol("block not asked for")));
        self.settle(now);
    }

    /// Addresses from a source.
    pub fn handle_candidates(&mut self, now: Instant, source: Source, addrs: &[SocketAddr]) {
        self.dialer.add(now, source, addrs);
        self.settle(now);
    }

    /// Our own address as a tracker sees it (BEP 40).
    pub fn handle_external_ip(&mut self, now: Instant, ip: IpAddr) {
        self.dialer.set_external(SocketAddr::new(ip, self.settings.listen_port.unwrap_or(0)));
        self.settle(now);
    }

    /// The session's share.
    pub fn handle_lease(&mut self, now: Instant, lease: Lease) {
        self.connection_max = lease.connection_max;
        self.dialer.look();
        self.settle(now);
    }

    /// What [`Output::Reserve`] asked for is there.
    pub fn handle_reserved(&mut self, now: Instant, len: u32) {
        self.fetch.reserved(now, len);
        self.settle(now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.upkeep_at.is_some_and(|at| at <= now) {
            self.upkeep_at = Some(now + UPKEEP);
            self.upkeep(now);
        }
        if self.dialer.look_at().is_some_and(|at| at <= now) {
            self.dialer.look();
        }
        self.settle(now);
    }

    /// The next decision; drain to None after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to call [`Description::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.upkeep_at, self.dialer.look_at()].into_iter().flatten().min()
    }

    /// What it could use of the session's budgets.
    pub fn demand(&self) -> Demand {
        Demand {
            connections: self.peers.len() + self.dialer.dialing_count(),
            candidates: self.dialer.candidate_count(),
            ..Demand::default()
        }
    }

    /// For people.
    pub fn progress(&self) -> Progress {
        let (done_len, total_len) = self.fetch.progress();
        let (connected, describing) = (self.peers.len(), self.fetch.source_count());
        Progress { connected, describing, done_len, total_len }
    }

    /// After [`Output::Described`]: what the torrent goes on with. `private`: only addresses that
    /// trackers, the link or the user named are handed over, and connections to peers that listen
    /// there (BEP 27); the closing of others is the shell's.
    pub fn into_handover(mut self, private: bool) -> Handover {
        let (mut introduced, mut parted) = (Vec::new(), Vec::new());
        for (conn, Acquaintance { connected, introduction, listen_addr, .. }) in self.peers {
            let goes_on = !private || listen_addr.is_some_and(|addr| self.dialer.is_named(addr));
            match introduction.into_messages().filter(|_| goes_on) {
                Some(messages) => introduced.push(Introduced { conn, connected, listen_addr, messages }),
                None => parted.extend(listen_addr),
            }
        }
        if private {
            self.dialer.keep_named();
        }
        Handover { introduced, parted, dialer: self.dialer }
    }

    /// The end of every input: decisions of the fetching are carried out, and whoever is due is
    /// dialled.
    fn settle(&mut self, now: Instant) {
        while let Some(decision) = self.fetch.pop() {
            match decision {
                Decision::Ask(conn, piece) => {
                    self.send_metadata(now, conn, &MetadataMessage::Request(piece));
                }
                Decision::Reserve(len) => self.out.push_back(Output::Reserve(len)),
                Decision::Release(len) => self.out.push_back(Output::Release(len)),
                Decision::Liar(addr) => self.ban(now, addr),
                Decision::Complete(info) => self.out.push_back(Output::Described(info)),
            }
        }
        if self.needs_upkeep() {
            self.upkeep_at.get_or_insert(now + UPKEEP);
        } else {
            self.upkeep_at = None;
        }
        let room = self.connection_max.saturating_sub(self.peers.len());
        self.dialer.dial(now, room, |addr| self.out.push_back(Output::Dial(addr)));
        #[cfg(debug_assertions)]
        self.check_invariant();
    }

    /// Room stays reserved for what a peer left behind, until it is clear that nobody goes on with
    /// it.
    fn needs_upkeep(&self) -> bool {
        !self.peers.is_empty() || self.fetch.holds_room()
    }

    /// Says whether the books agree.
    #[cfg(debug_assertions)]
    fn check_invariant(&self) {
        debug_assert_eq!(self.upkeep_at.is_some(), self.needs_upkeep());
        debug_assert!(
            self.peers.keys().filter(|conn| self.fetch.is_source(**conn)).count()
                == self.fetch.source_count()
        );
        self.fetch.check_invariant();
    }
}

impl Handover {
    /// The connections that go on; all others are to be closed.
    pub fn connections(&self) -> impl Iterator<Item = ConnId> {
        self.introduced.iter().map(|introduced| introduced.conn)
    }
}
