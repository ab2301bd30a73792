//! When to announce to which tracker of one torrent (BEP 12 tiers, backoff, events).

use super::{Announce, AnnounceReply, TrackerError};
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use std::net::{IpAddr, SocketAddr};

/// Fixed facts of a torrent's announces.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which torrent.
    pub infohash: InfoHash,
    /// Our name.
    pub peer_id: PeerId,
    /// Where we listen.
    pub port: u16,
    /// URLs in tiers: `http:`, `https:`, `udp:`; others are reported once by [`Output::Failed`].
    pub tiers: Vec<Vec<String>>,
    /// Peers wanted an announce.
    pub numwant: u32,
}

/// Names one announce under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

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

/// The announcer's decisions.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Output {
    /// Send this announce to this URL; answered by `handle_reply`.
    Announce {
        /// To be given back with the answer.
        request: RequestId,
        /// The tracker.
        url: String,
        /// What to say.
        announce: Announce,
    },
    /// Peers that the tracker at `url` named.
    Peers {
        /// The tracker.
        url: String,
        /// Addresses.
        peers: Vec<SocketAddr>,
    },
    /// Our address as a tracker sees it.
    ExternalIp(IpAddr),
    /// An announce went well: for people.
    Announced {
        /// The tracker.
        url: String,
        /// Complete peers it knows.
        seeders: Option<u32>,
        /// Incomplete peers it knows.
        leechers: Option<u32>,
    },
    /// For the user, as sent.
    Warning {
        /// The tracker.
        url: String,
        /// Its words.
        text: String,
    },
    /// A tracker failed; others are tried, this one again at `retry_at` (None: never).
    Failed {
        /// The tracker.
        url: String,
        /// Why.
        error: TrackerError,
        /// When it is tried again.
        retry_at: Option<Instant>,
    },
}

/// The tracker client of one torrent.
#[derive(Debug)]
pub struct Announcer {
    _skeleton: (),
}

impl Announcer {
    /// Announces `started` at the first [`Announcer::handle_timeout`], unless there are no trackers.
    pub fn new(config: Config, progress: Progress, rng: Rng, now: Instant) -> Self {
        let _ = (config, progress, rng, now);
        todo!()
    }

    /// New counters; cheap, to be called before every other input.
    pub fn handle_progress(&mut self, progress: Progress) {
        let _ = progress;
        todo!()
    }

    /// The last missing piece came: `completed`, exactly once to each tracker.
    pub fn handle_completed(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// Leaving: `stopped` to every tracker that knows us; nothing after it.
    pub fn handle_stopped(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// The torrent needs more peers: earlier than the interval, never earlier than `min interval`.
    pub fn handle_need_peers(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// The answer to an announce.
    pub fn handle_reply(
        &mut self,
        now: Instant,
        request: RequestId,
        reply: Result<AnnounceReply, TrackerError>,
    ) {
        let _ = (now, request, reply);
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

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// After `handle_stopped`: whether every `stopped` is answered or given up.
    pub fn is_done(&self) -> bool {
        todo!()
    }

    /// Time to the regular announce, for people.
    pub fn next_announce_in(&self, now: Instant) -> Option<Duration> {
        let _ = now;
        todo!()
    }
}
