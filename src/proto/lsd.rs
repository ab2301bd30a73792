//! Local service discovery (BEP 14): who on the local network has the same torrents.
//!
//! One machine for all torrents of a process: each is announced soon after it is added and then every five
//! minutes, several in one datagram, to one multicast group a family, not more often than the BEP allows.
//! Announces of strangers are counted by source, so that nobody can make us dial without end. It knows no
//! sockets.

use std::net::SocketAddr;

use super::infohash::InfoHash;
use super::rng::Rng;
use super::time::Instant;

/// The port of both groups.
pub const LSD_PORT: u16 = 6_771;

/// A multicast group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// 239.192.152.143
    V4,
    /// ff15::efc0:988f
    V6,
}

impl Group {
    /// Where its datagrams go.
    pub fn addr(self) -> SocketAddr {
        todo!()
    }
}

/// The machine's decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// Send a datagram to a group, from every interface.
    Announce(Group, Vec<u8>),
    /// A peer of a torrent of ours.
    Peer(InfoHash, SocketAddr),
}

/// The machine.
#[derive(Debug)]
pub struct Lsd {
    _private: (),
}

impl Lsd {
    /// No torrents. `port`: where we take connections.
    pub fn new(port: u16, rng: Rng, now: Instant) -> Self {
        let _ = (port, rng, now);
        todo!()
    }

    /// A public torrent runs.
    pub fn handle_added(&mut self, now: Instant, infohash: InfoHash) {
        let _ = (now, infohash);
        todo!()
    }

    /// A torrent has left.
    pub fn handle_removed(&mut self, infohash: InfoHash) {
        let _ = infohash;
        todo!()
    }

    /// A datagram came to a group. Our own are known by their cookie; nonsense is dropped.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let _ = (now, from, bytes);
        todo!()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// The next decision.
    pub fn poll_output(&mut self) -> Option<Output> {
        todo!()
    }

    /// When to call [`Lsd::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
}
