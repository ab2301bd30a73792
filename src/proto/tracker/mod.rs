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

/// Shortest time between regular announces that is believed: a tracker that asks for more is not
/// obeyed.
pub const INTERVAL_MIN: Duration = Duration::from_secs(30);
/// Longest time between regular announces that is believed: peers would be gone from its list long
/// before.
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

impl Announce {
    /// One that tells of no transfer and asks for nothing in particular.
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

/// How things stand with one tracker.
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

/// Seconds as a tracker says them, within [`INTERVAL_MIN`] and [`INTERVAL_MAX`].
pub(crate) fn clamped_interval(secs: i64) -> Duration {
    Duration::from_secs(u64::try_from(secs).unwrap_or(0)).clamp(INTERVAL_MIN, INTERVAL_MAX)
}

/// A stranger's text fit for a terminal: no control or direction-changing characters, at most
/// [`WORDS_LEN_MAX`] characters.
pub(crate) fn words(bytes: &[u8]) -> String {
    // A character is at most four bytes, so the rest need not be looked at.
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
    fn absurd_intervals_are_not_obeyed() {
        assert_eq!(clamped_interval(-1), INTERVAL_MIN);
        assert_eq!(clamped_interval(0), INTERVAL_MIN);
        assert_eq!(clamped_interval(1800), Duration::from_secs(1800));
        assert_eq!(clamped_interval(i64::MAX), INTERVAL_MAX);
    }
}
