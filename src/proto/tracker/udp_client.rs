//! The client's UDP transactions on one shared socket: connect, retransmit at 15 x 2^n s, connection ids.

use super::announcer::RequestId;
use super::{Announce, AnnounceReply, TrackerError};
use crate::proto::rng::Rng;
use crate::proto::time::Instant;
use std::net::SocketAddr;

/// What to do on the socket, and what came of requests. A `Key` is the engine's name of a request
/// (torrent and [`RequestId`]).
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Output<Key> {
    /// Send a datagram.
    Datagram {
        /// To.
        to: SocketAddr,
        /// Bytes.
        bytes: Vec<u8>,
    },
    /// A request ended.
    Reply {
        /// The request.
        key: Key,
        /// How.
        reply: Result<AnnounceReply, TrackerError>,
    },
}

/// UDP transactions of a process.
#[derive(Debug)]
pub struct UdpClient<Key> {
    _skeleton: std::marker::PhantomData<(Key, RequestId)>,
}

impl<Key: Clone + Ord + std::fmt::Debug> UdpClient<Key> {
    /// No transactions yet.
    pub fn new(rng: Rng) -> Self {
        let _ = rng;
        todo!()
    }

    /// Announce to the tracker at `tracker`; `url_data` is path and query of its URL (BEP 41).
    pub fn handle_announce(
        &mut self,
        now: Instant,
        key: Key,
        tracker: SocketAddr,
        url_data: &str,
        announce: Announce,
    ) {
        let _ = (now, key, tracker, url_data, announce);
        todo!()
    }

    /// A datagram came; false: it is none of ours (not from a tracker we asked).
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> bool {
        let _ = (now, from, bytes);
        todo!()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// The next decision.
    pub fn poll_output(&mut self) -> Option<Output<Key>> {
        todo!()
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
}
