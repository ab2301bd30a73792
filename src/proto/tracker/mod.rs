//! Trackers, both sides: what an announce says, its UDP and HTTP forms, the client and the server.

pub mod announcer;
pub mod http;
pub mod scrape;
pub mod service;
pub mod swarm;
pub mod udp;
pub mod udp_client;

use std::net::{IpAddr, SocketAddr};

use super::infohash::InfoHash;
use super::peer_id::PeerId;
use super::time::Duration;

/// Why an announce is sent (BEP 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnnounceEvent {
    /// At the regular interval.
    #[default]
    None,
    /// The first one.
    Started,
    /// The last piece came; never sent by one who started complete.
    Completed,
    /// Leaving.
    Stopped,
}

/// An announce, whatever carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Which torrent.
    pub infohash: InfoHash,
    /// Who announces.
    pub peer_id: PeerId,
    /// Where it listens.
    pub port: u16,
    /// Content bytes sent since `started`.
    pub uploaded: u64,
    /// Content bytes received since `started`.
    pub downloaded: u64,
    /// Bytes missing.
    pub left: u64,
    /// Why.
    pub event: AnnounceEvent,
    /// How many peers are wanted; None: the tracker's default.
    pub numwant: Option<u32>,
    /// Proves identity across address changes.
    pub key: u32,
    /// The address the announcer wants to be known by.
    pub ip: Option<IpAddr>,
    /// Given by the tracker before, to be sent back (HTTP).
    pub tracker_id: Option<String>,
}

/// A tracker's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceReply {
    /// Time to the next announce.
    pub interval: Duration,
    /// Least time to the next announce.
    pub min_interval: Option<Duration>,
    /// Complete peers.
    pub seeders: Option<u32>,
    /// Incomplete peers.
    pub leechers: Option<u32>,
    /// Peers, both families, canonical.
    pub peers: Vec<SocketAddr>,
    /// To be sent back (HTTP).
    pub tracker_id: Option<String>,
    /// For the user.
    pub warning: Option<String>,
    /// Our address as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
}

/// What went wrong at a tracker: back off, try the next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrackerError {
    /// It said no.
    #[error("the tracker says: {reason}")]
    Refused {
        /// Its words, control characters removed, at most 256 characters.
        reason: String,
        /// BEP 31: when to try again; None: not said.
        retry_in: Option<RetryIn>,
    },
    /// It sent something else than an answer.
    #[error("the tracker's answer makes no sense: {0}")]
    Garbage(&'static str),
    /// It could not be reached, in words of the shell.
    #[error("{0}")]
    Unreachable(String),
    /// It did not answer.
    #[error("no answer")]
    Timeout,
    /// HTTP 410: never again.
    #[error("the tracker is gone for good")]
    Gone,
}

/// BEP 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryIn {
    /// After this time.
    After(Duration),
    /// Never.
    Never,
}
