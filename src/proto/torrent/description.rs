//! Fetching a torrent's description from its peers, when only the infohash is known (BEP 9).
//!
//! [`Description`] stands in a torrent's place until the info dictionary is there: it dials, greets, asks for
//! pieces of metadata and keeps what peers say about the content, so that [`super::Torrent`] can go on with the
//! same connections. Buffers belong to senders: what one peer claims about the size costs the others nothing.
//! When the whole does not hash, each contributor has to give it alone, and the liar is banned.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::candidates::Candidates;
use super::event::{ConnId, Connected, DisconnectReason, Event, Source};
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::rng::Rng;
use crate::proto::session::{Demand, Lease};
use crate::proto::time::Instant;
use crate::proto::wire::message::Message;

/// Longest description that is fetched, bytes; whoever claims a longer one is not asked.
pub const METADATA_LEN_MAX: u32 = 32 << 20;

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
    /// Room for so many bytes is needed, of what the process allows all descriptions together; answered by
    /// `handle_reserved`. What was reserved is given back when the machine is dropped.
    Reserve(u32),
    /// A peer has a DHT node at this address (PORT message).
    DhtNode(SocketAddr),
    /// The info dictionary, hashed and right. Take [`Description::into_handover`] and go on with a torrent.
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

/// A connection that goes on, and what the peer said on it so far, in order: availability, interest, choking,
/// extension handshake.
#[derive(Clone, Debug)]
pub struct Introduced {
    /// The shell's name for it.
    pub conn: ConnId,
    /// What the handshakes said.
    pub connected: Connected,
    /// What the peer said; a bitfield has the length of its bytes.
    pub messages: Vec<Message>,
}

/// What a torrent takes over.
#[derive(Debug)]
pub struct Handover {
    pub(super) introduced: Vec<Introduced>,
    pub(super) dialer: super::dialer::Dialer,
}

/// The machine.
#[derive(Debug)]
pub struct Description {
    _private: (),
}

impl Description {
    /// Nobody known.
    pub fn new(settings: Settings, rng: Rng, now: Instant) -> Self {
        let _ = (settings, rng, now, Candidates::new);
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

    /// A message came.
    pub fn handle_message(&mut self, now: Instant, conn: ConnId, message: Message) {
        let _ = (now, conn, message);
        todo!()
    }

    /// A block came: nobody asked for one, so the peer is disconnected.
    pub fn handle_block(&mut self, now: Instant, conn: ConnId) {
        let _ = (now, conn);
        todo!()
    }

    /// Addresses from a source.
    pub fn handle_candidates(&mut self, now: Instant, source: Source, addrs: &[SocketAddr]) {
        let _ = (now, source, addrs);
        todo!()
    }

    /// Our own address as a tracker sees it (BEP 40).
    pub fn handle_external_ip(&mut self, now: Instant, ip: IpAddr) {
        let _ = (now, ip);
        todo!()
    }

    /// The session's share.
    pub fn handle_lease(&mut self, now: Instant, lease: Lease) {
        let _ = (now, lease);
        todo!()
    }

    /// What [`Output::Reserve`] asked for is there.
    pub fn handle_reserved(&mut self, now: Instant, len: u32) {
        let _ = (now, len);
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

    /// When to call [`Description::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// What it could use of the session's budgets.
    pub fn demand(&self) -> Demand {
        todo!()
    }

    /// For people.
    pub fn progress(&self) -> Progress {
        todo!()
    }

    /// After [`Output::Described`]: what the torrent goes on with. `private`: only what trackers and the user
    /// named is handed over, and no connection (BEP 27); their closing is the shell's.
    pub fn into_handover(self, private: bool) -> Handover {
        let _ = private;
        todo!()
    }
}

impl Handover {
    /// The connections that go on; all others are to be closed.
    pub fn connections(&self) -> impl Iterator<Item = ConnId> {
        self.introduced.iter().map(|introduced| introduced.conn)
    }
}
