//! Bytes and silence of one connection.

use crate::proto::rate::Rate;
use crate::proto::time::{Duration, Instant};

/// Time without sending after which a keep-alive is sent: just below the two minutes of BEP 3.
pub const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(110);
/// Age of a connection at which a peer that has shown no piece gets a keep-alive. rtorrent's
/// initial seeding (compare BEP 16) shows its first piece in answer to a message, and there may be
/// no other message to send until then.
pub const WAKE_AFTER: Duration = Duration::from_secs(2);
/// Time without receiving after which the connection is closed.
pub const IDLE_AFTER: Duration = Duration::from_secs(120);

/// The traffic of one connection.
#[derive(Debug)]
pub struct Traffic {
    /// Content received.
    pub download: Rate,
    /// Content sent.
    pub upload: Rate,
    /// Content bytes received and kept.
    pub downloaded: u64,
    /// Content bytes sent.
    pub uploaded: u64,
    /// Bytes of availability messages sent.
    pub availability_sent: u64,
    /// When the connection was established.
    pub connected_at: Instant,
    /// When the last message was sent.
    pub sent_at: Instant,
    /// When the last message was received.
    pub received_at: Instant,
}

impl Traffic {
    /// Creates it for a new connection.
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

    /// Whether a peer that has shown no piece gets its one early keep-alive: nothing was sent to it
    /// since the connection reached [`WAKE_AFTER`].
    pub fn is_to_be_woken(&self, now: Instant) -> bool {
        let from = self.connected_at + WAKE_AFTER;
        now >= from && self.sent_at < from
    }

    /// Whether the peer seems gone.
    pub fn is_idle(&self, now: Instant) -> bool {
        now - self.received_at >= IDLE_AFTER
    }
}
