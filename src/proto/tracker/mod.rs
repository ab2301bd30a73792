//! Trackers, both sides: the content of an announce, its UDP and HTTP forms, client and server.

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

/// Shortest accepted time between regular announces; a shorter interval of a tracker is raised to
/// it.
pub const INTERVAL_MIN: Duration = Duration::from_secs(30);
/// Longest accepted time between regular announces: by then a tracker has dropped the peer.
pub const INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);
/// The interval of an answer that names none.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// Longest text of a tracker that is kept, in characters; the rest is cut off.
pub const WORDS_LEN_MAX: usize = 256;

/// Why an announce is sent (BEP 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnnounceEvent {
    /// At the regular interval.
    #[default]
    None,
    /// The first one.
    Started,
    /// The last piece was downloaded; never sent by a peer that started complete.
    Completed,
    /// The peer leaves.
    Stopped,
}

/// An announce, independent of its transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The torrent.
    pub infohash: InfoHash,
    /// The announcing peer.
    pub peer_id: PeerId,
    /// The peer's listening port.
    pub port: u16,
    /// Content bytes sent since `started`.
    pub uploaded: u64,
    /// Content bytes received since `started`.
    pub downloaded: u64,
    /// Bytes missing.
    pub left: u64,
    /// The event.
    pub event: AnnounceEvent,
    /// Number of peers wanted; `None` for the tracker's default.
    pub numwant: Option<u32>,
    /// Proves the peer's identity across address changes.
    pub key: u32,
    /// The address under which the peer wants to be known.
    pub ip: Option<IpAddr>,
    /// Received from the tracker, to be sent back (HTTP).
    pub tracker_id: Option<String>,
}

impl Announce {
    /// Returns an announce without transfer or special requests.
    pub fn new(infohash: InfoHash, peer_id: PeerId, port: u16) -> Self {
        Self {
            infohash,
            peer_id,
            port,
            uploaded: 0,
            downloaded: 0,
            left: 0,
            event: AnnounceEvent::None,
            numwant: None,
            key: 0,
            ip: None,
            tracker_id: None,
        }
    }
}

/// Counters for announces, since the start of this session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Content bytes sent.
    pub uploaded: u64,
    /// Content bytes received.
    pub downloaded: u64,
    /// Bytes missing.
    pub left: u64,
}

/// The state of one tracker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrackerStatus {
    /// Its URL.
    pub url: String,
    /// Complete peers it knows.
    pub seeders: Option<u32>,
    /// Incomplete peers it knows.
    pub leechers: Option<u32>,
    /// Why the last announce failed.
    pub error: Option<String>,
}

/// A tracker's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceReply {
    /// Time to the next announce.
    pub interval: Duration,
    /// Shortest time to the next announce.
    pub min_interval: Option<Duration>,
    /// Complete peers.
    pub seeders: Option<u32>,
    /// Incomplete peers.
    pub leechers: Option<u32>,
    /// Peers of both families, canonical.
    pub peers: Vec<SocketAddr>,
    /// To be sent back (HTTP).
    pub tracker_id: Option<String>,
    /// For the user.
    pub warning: Option<String>,
    /// Our address as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
}

/// Why a tracker gave no peers: back off, try the next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrackerError {
    /// It refused.
    #[error("the tracker says: {reason}")]
    Refused {
        /// Its reason, control characters removed, at most 256 characters.
        reason: String,
        /// When to try again (BEP 31); `None` if it did not say.
        retry_in: Option<RetryIn>,
    },
    /// It sent an invalid answer.
    #[error("the tracker's answer makes no sense: {0}")]
    Garbage(&'static str),
    /// It could not be reached, in words of the shell.
    #[error("{0}")]
    Unreachable(String),
    /// It did not answer.
    #[error("no answer")]
    Timeout,
    /// HTTP 410: do not ask again.
    #[error("the tracker is gone for good")]
    Gone,
}

/// When to announce again after a refusal (BEP 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryIn {
    /// After this time.
    After(Duration),
    /// Never.
    Never,
}

/// Returns a tracker's seconds, clamped to [`INTERVAL_MIN`] and [`INTERVAL_MAX`].
pub(crate) fn clamped_interval(secs: i64) -> Duration {
    Duration::from_secs(u64::try_from(secs).unwrap_or(0)).clamp(INTERVAL_MIN, INTERVAL_MAX)
}

/// Makes a foreign text safe for a terminal: no control or direction-changing characters, at most
/// [`WORDS_LEN_MAX`] characters.
pub(crate) fn words(bytes: &[u8]) -> String {
    // A character is at most four bytes, so the rest need not be read.
    let bytes = &bytes[..bytes.len().min(WORDS_LEN_MAX * 4)];
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|&c| !c.is_control() && !turns(c)).take(WORDS_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trackers_words_cannot_steer_a_terminal() {
        assert_eq!(words(b"sorry\x1b[31m\r\n\0"), "sorry[31m");
        assert_eq!(words("a\u{202e}b".as_bytes()), "ab");
        assert_eq!(words(&[0xff; 4000]).chars().count(), WORDS_LEN_MAX);
    }

    #[test]
    fn absurd_intervals_are_clamped() {
        assert_eq!(clamped_interval(-1), INTERVAL_MIN);
        assert_eq!(clamped_interval(0), INTERVAL_MIN);
        assert_eq!(clamped_interval(1800), Duration::from_secs(1800));
        assert_eq!(clamped_interval(i64::MAX), INTERVAL_MAX);
    }
}
