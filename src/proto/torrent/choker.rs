//! Whom we upload to: rounds, reciprocation, the optimistic slot, seed mode.

use super::event::ConnId;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// Time between rounds.
pub const ROUND: Duration = Duration::from_secs(10);
/// How long the optimistic slot stays with one peer.
pub const OPTIMISTIC: Duration = Duration::from_secs(30);

/// One connection as the choker sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The connection.
    pub conn: ConnId,
    /// It wants something of ours.
    pub interested: bool,
    /// We do not choke it.
    pub unchoked: bool,
    /// It owes us blocks and sends none.
    pub snubbed: bool,
    /// Bytes per second from it lately.
    pub download_rate: u64,
    /// Bytes per second to it lately.
    pub upload_rate: u64,
    /// Content bytes sent to it in all.
    pub uploaded: u64,
    /// When it connected.
    pub connected_at: Instant,
}

/// What the torrent can give.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// We have all that we want: spread instead of reward.
    pub seeding: bool,
    /// Unchoke slots that the session allows; None: as many as the upload feeds.
    pub unchoke_max: Option<usize>,
    /// The upload limit, bytes per second.
    pub rate_limit: Option<u64>,
    /// Blocks lately waited for the uplink: more slots would not send more.
    pub saturated: bool,
}

/// A decision: from now on choke, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Choke it.
    Choke(ConnId),
    /// Unchoke it.
    Unchoke(ConnId),
}

/// The choker.
#[derive(Debug)]
pub struct Choker {
    _rng: Rng,
}

impl Choker {
    /// The first round is due at once.
    pub fn new(rng: Rng, now: Instant) -> Self {
        let _ = now;
        Self { _rng: rng }
    }

    /// When [`Choker::round`] is due.
    pub fn next_at(&self) -> Instant {
        todo!()
    }

    /// A round: who is choked and unchoked from now on. `peers` in any order.
    pub fn round(&mut self, now: Instant, peers: &[Candidate], capacity: Capacity) -> Vec<Change> {
        let _ = (now, peers, capacity);
        todo!()
    }

    /// Between rounds: someone became interested, or an unchoked one left or lost interest. Fills slots that
    /// are free, chokes nobody.
    pub fn fill(&mut self, now: Instant, peers: &[Candidate], capacity: Capacity) -> Vec<Change> {
        let _ = (now, peers, capacity);
        todo!()
    }
}
