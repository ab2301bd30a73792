//! When one torrent asks the DHT: beside its trackers, and at once where they fail.
//!
//! Without trackers: at once. With trackers: at once when none has answered within [`PATIENCE`] of the start or
//! all have failed since, otherwise at a random moment within some minutes, so that a thousand torrents do not
//! ask together. Again while peers are few, with growing pauses, and every quarter of an hour to stay listed.
//! A private torrent never asks (BEP 27).

use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// How long trackers have before the DHT is asked at once.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The machine's decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// Look up peers and announce ourselves; answered by [`Finder::handle_done`].
    Lookup,
}

/// The machine.
#[derive(Debug)]
pub struct Finder {
    _private: (),
}

impl Finder {
    /// `private`: this torrent may never ask.
    pub fn new(has_trackers: bool, private: bool, rng: Rng, now: Instant) -> Self {
        let _ = (has_trackers, private, rng, now);
        todo!()
    }

    /// A tracker answered.
    pub fn handle_tracker_answered(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// A tracker failed; `all`: no tracker of the torrent works now.
    pub fn handle_tracker_failed(&mut self, now: Instant, all: bool) {
        let _ = (now, all);
        todo!()
    }

    /// The torrent could use more peers (few connections, nobody left to dial), or has enough.
    pub fn handle_need(&mut self, now: Instant, needs_peers: bool) {
        let _ = (now, needs_peers);
        todo!()
    }

    /// The lookup is over: how many nodes answered and peers were named.
    pub fn handle_done(&mut self, now: Instant, answered: u32, peers: usize) {
        let _ = (now, answered, peers);
        todo!()
    }

    /// The description says private, or the torrent became complete (a new announce says so soon).
    pub fn handle_private(&mut self) {
        todo!()
    }

    /// We became a seed: announced with the next lookup, which is soon.
    pub fn handle_completed(&mut self, now: Instant) {
        let _ = now;
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

    /// When to call [`Finder::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
}
