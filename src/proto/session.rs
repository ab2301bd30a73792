//! All torrents of one process: how connections, unchoke slots and rates are shared among them.
//!
//! Torrents tell what they could use; the session leases shares, anew each [`LEASE_INTERVAL`].

use std::collections::BTreeMap;

use super::infohash::InfoHash;
use super::time::{Duration, Instant};

/// How often shares are fitted to demand.
pub const LEASE_INTERVAL: Duration = Duration::from_secs(1);

/// Budgets of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all torrents.
    pub connection_max: usize,
    /// Connections of one torrent.
    pub torrent_connection_max: usize,
    /// Bytes per second of content sent; None: no limit.
    pub upload_rate_max: Option<u64>,
    /// Bytes per second of content received; None: no limit.
    pub download_rate_max: Option<u64>,
    /// Peers unchoked at once over all torrents; None: follows the upload capacity.
    pub unchoke_max: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connection_max: 500,
            torrent_connection_max: 100,
            upload_rate_max: None,
            download_rate_max: None,
            unchoke_max: None,
        }
    }
}

/// What one torrent could use, told at each interval and when it changes much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Connections open or being opened.
    pub connections: usize,
    /// Candidates waiting for a connection.
    pub candidates: usize,
    /// Interested peers.
    pub interested: usize,
    /// Bytes per second sent lately.
    pub upload_rate: u64,
    /// Bytes per second received lately.
    pub download_rate: u64,
    /// Whether it is held back by its upload lease.
    pub upload_starved: bool,
    /// Whether it is held back by its download lease.
    pub download_starved: bool,
}

/// One torrent's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Connections it may have.
    pub connection_max: usize,
    /// Peers it may unchoke; None: as many as its upload capacity feeds.
    pub unchoke_max: Option<usize>,
    /// Bytes per second of content it may send; None: no limit.
    pub upload_rate: Option<u64>,
    /// Bytes per second of content it may ask for; None: no limit.
    pub download_rate: Option<u64>,
}

/// The session's decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// A torrent's new share; told only when it changed.
    Lease(InfoHash, Lease),
}

/// The budgets of all torrents.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    torrents: BTreeMap<InfoHash, Demand>,
}

impl Session {
    /// No torrents yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, torrents: BTreeMap::new() }
    }

    /// A torrent came; its first lease follows.
    pub fn handle_added(&mut self, now: Instant, torrent: InfoHash) {
        let _ = (now, torrent, &self.limits, &self.torrents);
        todo!()
    }

    /// A torrent left.
    pub fn handle_removed(&mut self, now: Instant, torrent: InfoHash) {
        let _ = (now, torrent);
        todo!()
    }

    /// A torrent says what it could use.
    pub fn handle_demand(&mut self, now: Instant, torrent: InfoHash, demand: Demand) {
        let _ = (now, torrent, demand);
        todo!()
    }

    /// The user changed the limits.
    pub fn handle_limits(&mut self, now: Instant, limits: Limits) {
        let _ = (now, limits);
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

    /// When to call [`Session::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
}
