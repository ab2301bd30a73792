//! One connection's part of the protocol: states, requests in flight in both directions, and
//! messages to send.
//!
//! A [`Peer`] belongs to a torrent, which passes its inputs and sends its messages. It knows
//! neither the pieces of the torrent nor other peers.

pub mod faults;
pub mod greeting;
pub mod known_haves;
pub mod pace;
pub mod remote;
pub mod requests;
pub mod state;
pub mod traffic;
pub mod uploads;

use std::net::SocketAddr;

use crate::proto::connection::{ConnId, Connected};
use crate::proto::time::Instant;
use faults::Faults;
use known_haves::KnownHaves;
use pace::Pace;
use remote::Remote;
use requests::Requests;
use state::State;
use traffic::Traffic;
use uploads::Uploads;

/// One connection.
#[derive(Debug)]
pub struct Peer {
    /// The shell's identifier of the connection.
    pub conn: ConnId,
    /// The results of the handshakes.
    pub connected: Connected,
    /// Choking and interest of both sides.
    pub state: State,
    /// The peer's announcements.
    pub remote: Remote,
    /// Our pieces as the peer knows them.
    pub known_haves: KnownHaves,
    /// Our requests.
    pub requests: Requests,
    /// The peer's requests.
    pub uploads: Uploads,
    /// Bytes and silence.
    pub traffic: Traffic,
    /// Misbehaviour so far.
    pub faults: Faults,
    /// Limits on how often the peer may name others.
    pub pace: Pace,
    /// The peer's listening address: dialled, or from its extension handshake.
    pub listen_addr: Option<SocketAddr>,
}

impl Peer {
    /// Creates a connection after its handshakes, in a torrent of `piece_count` pieces.
    pub fn new(conn: ConnId, connected: Connected, piece_count: u32, now: Instant) -> Self {
        Self {
            conn,
            connected,
            state: State::new(now),
            remote: Remote::new(piece_count),
            known_haves: KnownHaves::default(),
            requests: Requests::new(now),
            uploads: Uploads::default(),
            traffic: Traffic::new(now),
            faults: Faults::default(),
            pace: Pace::new(now),
            listen_addr: None,
        }
    }

    /// Sets the number of pieces of a peer that connected in the metadata stage. It has sent
    /// nothing about pieces, and the time before does not count as its silence.
    pub fn begin_content(&mut self, piece_count: u32, now: Instant) {
        self.remote.begin_content(piece_count);
        self.traffic = Traffic::new(now);
    }

    /// Whether both ends support the fast extension (BEP 6); this end always does.
    pub fn is_fast(&self) -> bool {
        self.connected.capabilities.fast
    }

    /// Whether requests are allowed: for any piece, or for allowed-fast ones.
    pub fn may_request(&self) -> bool {
        self.state.am_interested && (!self.state.peer_choking || !self.remote.allowed_fast().is_empty())
    }

    /// Asserts the bounds.
    #[cfg(debug_assertions)]
    pub fn check_invariant(&self) {
        self.requests.check_invariant();
        self.uploads.check_invariant();
    }
}
