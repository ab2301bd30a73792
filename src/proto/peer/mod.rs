//! One connection's share of the protocol: states, requests in flight both ways, what to say next.
//!
//! A [`Peer`] belongs to a torrent, which passes it what it needs and sends what it says. It knows
//! one connection and no other: not the pieces of the torrent, not the other peers.

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

use crate::proto::time::Instant;
use crate::proto::torrent::event::{ConnId, Connected};
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
    /// The shell's name for it.
    pub conn: ConnId,
    /// What the handshakes said.
    pub connected: Connected,
    /// Who chokes whom, who is interested.
    pub state: State,
    /// What the other end told of itself.
    pub remote: Remote,
    /// What it knows of our pieces.
    pub known_haves: KnownHaves,
    /// Our requests.
    pub requests: Requests,
    /// Their requests.
    pub uploads: Uploads,
    /// Bytes and silence.
    pub traffic: Traffic,
    /// Misbehaviour borne so far.
    pub faults: Faults,
    /// How often it may tell of others.
    pub pace: Pace,
    /// Where it takes connections: dialled, or told in the extension handshake.
    pub listen_addr: Option<SocketAddr>,
}

impl Peer {
    /// A connection whose handshakes are done, in a torrent of so many pieces.
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

    /// The number of pieces is known now; the peer was connected before, and has said nothing about
    /// pieces yet. The time in between does not count as its silence.
    pub fn begin_content(&mut self, piece_count: u32, now: Instant) {
        self.remote.begin_content(piece_count);
        self.traffic = Traffic::new(now);
    }

    /// Whether both ends speak the fast extension (BEP 6); we always do.
    pub fn is_fast(&self) -> bool {
        self.connected.capabilities.fast
    }

    /// Whether we may ask for blocks: of any piece, or of allowed-fast ones.
    pub fn may_request(&self) -> bool {
        self.state.am_interested && (!self.state.peer_choking || !self.remote.allowed_fast().is_empty())
    }

    /// Says whether the bounds hold.
    #[cfg(debug_assertions)]
    pub fn check_invariant(&self) {
        self.requests.check_invariant();
        self.uploads.check_invariant();
    }
}
