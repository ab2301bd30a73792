//! Bytes and silence of one connection.

use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::rate::Rate;

/// Silence of ours after which a keep-alive goes out: just before the two minutes of BEP 3.
pub const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(110);
/// Age of a connection at which a peer that has shown no piece is sent a keep-alive. rtorrent's
/// initial seeding (compare BEP 16) shows its first piece in answer to a message, and there may be
/// nothing to send it until then.
pub const WAKE_AFTER: Duration = Duration::from_secs(2);
/// Silence of theirs after which the connection is closed.
pub const IDLE_AFTER: Duration = Duration::from_secs(120);

/// What passed over one connection, and when.
#[derive(Debug)]
pub struct Traffic {
    /// Content from them.
    pub download: Rate,
    /// Content to them.
    pub upload: Rate,
    /// Content bytes from them that were kept.
    pub downloaded: u64,
    /// Content bytes to them.
    pub uploaded: u64,
    /// Bytes of availability messages to them.
    pub availability_sent: u64,
    /// When the connection was up.
    pub connected_at: Instant,
    /// When we last sent.
    pub sent_at: Instant,
    /// When they last sent.
    pub received_at: Instant,
}

impl Traffic {
    /// A connection that is up.
    pub fn new(now: Instant) -> Self {
        Self {
            download: Rate::new(now),
            upload: Rate::new(now),
            downloaded: 0,
            uploaded: 0,
            availability_sent: 0,
            connected_at: now,
            sent_at: now,
            received_at: now,
        }
    }

    /// Whether a keep-alive is due.
    pub fn is_quiet(&self, now: Instant) -> bool {
        now - self.sent_at >= KEEP_ALIVE_AFTER
    }

    /// Whether a peer that has shown no piece is to be sent its one early keep-alive: nothing was
    /// sent to it since the connection is [`WAKE_AFTER`] old.
    pub fn is_to_be_woken(&self, now: Instant) -> bool {
        let from = self.connected_at + WAKE_AFTER;
        now >= from && self.sent_at < from
    }

    /// Whether the peer seems gone.
    pub fn is_idle(&self, now: Instant) -> bool {
        now - self.received_at >= IDLE_AFTER
    }
}
