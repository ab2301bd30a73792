//! Our requests to one peer: the requests in flight, the depth of the pipeline, and whether the
//! peer stalls.
//!
//! Depth: slow start adds one request a block, which doubles the pipeline each round trip, until a
//! second raises the rate by less than a tenth; from then on the depth is the rate times the sum of
//! the shortest latency seen and [`QUEUE_SPAN`]. The shortest latency, not the mean, because the
//! mean contains our own queue at the peer and would grow with it.
//!
//! The peer may still answer an abandoned request: by its block, or with BEP 6 by a reject. That
//! answer comes before the one to a later request of the same block, so the first reject of such a
//! block ends nothing. Some clients do not answer a cancel; this is known once they answer a
//! request that was sent after it.
//!
//! Rejects of requests that were sent together are one refusal: a choke that crosses with an
//! unchoke, or a queue shorter than the pipeline, rejects many at once.

use std::collections::VecDeque;

use crate::proto::bitfield::Bitfield;
use crate::proto::block::{BLOCK_LEN, Block};
use crate::proto::time::{Duration, Instant};

/// Least requests in flight to a peer that delivers.
pub const DEPTH_MIN: usize = 4;
/// Most requests in flight to one peer: 16 MiB, which at 100 ms feeds 1.3 Gbit/s.
pub const DEPTH_MAX: usize = 1_024;
/// Requests that a peer queues unless it says otherwise (`reqq`).
pub const PEER_QUEUE_DEFAULT: usize = 250;
/// Time at the peer's rate that our queue at the peer covers: enough to bridge a turn of either
/// shell.
pub const QUEUE_SPAN: Duration = Duration::from_millis(1_000);
/// Longest silence with requests in flight before the peer is snubbed and its blocks are requested
/// elsewhere.
pub const SNUB_AFTER_MAX: Duration = Duration::from_secs(60);
/// Shortest such silence, however fast the peer was.
pub const SNUB_AFTER_MIN: Duration = Duration::from_secs(10);
/// Such silence for a peer of unknown rate.
pub const SNUB_AFTER_UNKNOWN: Duration = Duration::from_secs(20);

/// Most abandoned requests whose answers are expected; the oldest is dropped.
pub const LATE_MAX: usize = DEPTH_MAX;

/// The kind of an arriving block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Of a request in flight.
    Expected,
    /// Of an abandoned request (choke, snub, cancel).
    Late,
    /// Never requested.
    Unsolicited,
}

/// The kind of an arriving reject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Of a request in flight that was sent since the last refusal, or the first one.
    Refused,
    /// Of a request in flight that was sent before the last refusal.
    SameRefusal,
    /// Of an abandoned request (choke, snub, cancel).
    Late,
    /// Of no request.
    Unsolicited,
}

/// Our requests to one peer.
#[derive(Debug)]
pub struct Requests {
    in_flight: VecDeque<(Block, Instant)>,
    /// Abandoned requests that may still be answered, with the time of abandonment.
    late: VecDeque<(Block, Instant)>,
    /// When the latest answered request was sent.
    answered_sent_at: Option<Instant>,
    /// When the peer last refused requests.
    refused_at: Option<Instant>,
    depth: usize,
    depth_max: usize,
    slow_start: bool,
    /// Rate at the last adjustment, bytes per second.
    rate: u64,
    latency_min: Option<Duration>,
    /// When the last block came, or the first request of a series was sent.
    heard_at: Instant,
    snubbed: bool,
}

impl Requests {
    /// Creates it without requests.
    pub fn new(now: Instant) -> Self {
        Self {
            in_flight: VecDeque::new(),
            late: VecDeque::new(),
            answered_sent_at: None,
            refused_at: None,
            depth: DEPTH_MIN,
            depth_max: PEER_QUEUE_DEFAULT,
            slow_start: true,
            rate: 0,
            latency_min: None,
            heard_at: now,
            snubbed: false,
        }
    }

    /// Sets the number of requests that the peer queues.
    pub fn limit_depth(&mut self, queue_max: u32) {
        self.depth_max = (queue_max as usize).clamp(1, DEPTH_MAX);
    }

    /// Returns how many blocks to request now; 0 until enough are missing to be worth a call of the
    /// picker.
    pub fn room(&self) -> usize {
        let depth = if self.snubbed { 1 } else { self.depth.min(self.depth_max) };
        let room = depth.saturating_sub(self.in_flight.len());
        if room * 8 >= depth { room } else { 0 }
    }

    /// A request was sent.
    pub fn sent(&mut self, block: Block, now: Instant) {
        if self.in_flight.is_empty() {
            self.heard_at = now;
        }
        self.in_flight.push_back((block, now));
    }

    /// A block came.
    pub fn handle_block(&mut self, block: Block, now: Instant) -> Arrival {
        let Some(sent_at) = self.remove(block) else {
            if self.remove_late(block).is_none() {
                return Arrival::Unsolicited;
            }
            self.heard(now);
            return Arrival::Late;
        };
        self.answered(sent_at);
        let latency = now - sent_at;
        self.latency_min = Some(self.latency_min.map_or(latency, |least| least.min(latency)));
        if self.slow_start && !self.snubbed {
            self.depth = (self.depth + 1).min(DEPTH_MAX);
        }
        self.heard(now);
        Arrival::Expected
    }

    /// The peer rejected a request.
    pub fn handle_reject(&mut self, block: Block, now: Instant) -> Rejection {
        let gave_up_at = self.remove_late(block);
        let is_answer = |at: Instant| self.answered_sent_at.is_none_or(|sent_at| sent_at <= at);
        if gave_up_at.is_some_and(|at| is_answer(at) || !self.is_in_flight(block)) {
            return Rejection::Late;
        }
        let Some(sent_at) = self.remove(block) else { return Rejection::Unsolicited };
        self.answered(sent_at);
        if self.refused_at.is_some_and(|at| sent_at < at) {
            return Rejection::SameRefusal;
        }
        self.refused_at = Some(now);
        Rejection::Refused
    }

    /// Limits the pipeline to the requests in flight, because the peer queues no more; it grows
    /// again from there.
    pub fn shorten(&mut self) {
        self.slow_start = false;
        self.depth = self.in_flight.len().max(DEPTH_MIN);
    }

    /// Cancels a block, which may still arrive. Returns true if it was in flight.
    pub fn cancel(&mut self, block: Block, now: Instant) -> bool {
        let was_in_flight = self.remove(block).is_some();
        if was_in_flight {
            self.expect_late(block, now);
        }
        was_in_flight
    }

    /// Abandons the requests of pieces that the peer no longer has; returns them.
    pub fn withdraw(&mut self, theirs: &Bitfield, now: Instant) -> Vec<Block> {
        let mut withdrawn = Vec::new();
        self.in_flight.retain(|&(block, _)| {
            let stays = theirs.get(block.piece);
            if !stays {
                withdrawn.push(block);
            }
            stays
        });
        withdrawn.iter().for_each(|&block| self.expect_late(block, now));
        withdrawn
    }

    /// Abandons all requests.
    pub fn give_up(&mut self, now: Instant) {
        while let Some((block, _)) = self.in_flight.pop_front() {
            self.expect_late(block, now);
        }
    }

    /// Whether requests are in flight.
    pub fn is_waiting(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether the peer stalls: with requests in flight it was silent for too long. Until it
    /// delivers, it gets one request at a time.
    pub fn is_snubbed(&self) -> bool {
        self.snubbed
    }

    /// Whether the peer has been silent for so long that its blocks must be requested elsewhere.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.is_waiting() && now - self.heard_at >= self.snub_after()
    }

    /// The peer stalled: abandons the requests in flight.
    pub fn snub(&mut self, now: Instant) {
        self.snubbed = true;
        self.slow_start = false;
        self.depth = DEPTH_MIN;
        self.heard_at = now;
        self.give_up(now);
    }

    /// Adjusts the depth to the rate, bytes per second, of the last seconds; called each second.
    pub fn fit_depth(&mut self, rate: u64) {
        let grew = rate > self.rate + self.rate / 10;
        if self.slow_start && self.rate > 0 && !grew {
            self.slow_start = false;
        }
        self.rate = rate;
        let span = self.latency_min.unwrap_or_default() + QUEUE_SPAN;
        let wanted = (u128::from(rate) * span.as_micros() / 1_000_000 / u128::from(BLOCK_LEN)) as usize;
        let floor = if self.slow_start { self.depth } else { DEPTH_MIN };
        self.depth = wanted.max(floor).min(DEPTH_MAX);
    }

    fn snub_after(&self) -> Duration {
        if self.rate == 0 {
            return SNUB_AFTER_UNKNOWN;
        }
        // Four times the time of one block, with everything that is in flight to this peer.
        let micros = u64::from(BLOCK_LEN) * 4_000_000 / self.rate;
        Duration::from_micros(micros).clamp(SNUB_AFTER_MIN, SNUB_AFTER_MAX)
    }

    fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.snubbed = false;
    }

    fn remove(&mut self, block: Block) -> Option<Instant> {
        // Peers answer in order, so it is nearly always the first.
        let at = self.in_flight.iter().position(|(asked, _)| *asked == block)?;
        self.in_flight.remove(at).map(|(_, sent_at)| sent_at)
    }

    fn answered(&mut self, sent_at: Instant) {
        self.answered_sent_at = self.answered_sent_at.max(Some(sent_at));
    }

    fn is_in_flight(&self, block: Block) -> bool {
        self.in_flight.iter().any(|(asked, _)| *asked == block)
    }

    /// Expects a late answer to this request.
    fn expect_late(&mut self, block: Block, now: Instant) {
        if self.late.len() == LATE_MAX {
            self.late.pop_front();
        }
        self.late.push_back((block, now));
    }

    /// Removes the oldest abandoned request of this block, and returns its time: it is answered, or
    /// will not be.
    fn remove_late(&mut self, block: Block) -> Option<Instant> {
        let at = self.late.iter().position(|(late, _)| *late == block)?;
        self.late.remove(at).map(|(_, gave_up_at)| gave_up_at)
    }

    /// Asserts the bounds.
    #[cfg(debug_assertions)]
    pub fn check_invariant(&self) {
        debug_assert!(self.in_flight.len() <= DEPTH_MAX && self.depth <= DEPTH_MAX);
        debug_assert!(self.late.len() <= LATE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn block(at: u32) -> Block {
        Block { piece: at, offset: 0, len: BLOCK_LEN }
    }

    fn fill(requests: &mut Requests, next: &mut u32, now: Instant) {
        for _ in 0..requests.room() {
            requests.sent(block(*next), now);
            *next += 1;
        }
    }

    #[test]
    fn the_pipeline_doubles_until_the_rate_stays_and_then_follows_it() {
        let (mut now, mut next) = (Instant::ZERO, 0);
        let mut requests = Requests::new(now);
        requests.limit_depth(2_000);
        let mut depths = Vec::new();
        for _ in 0..6 {
            fill(&mut requests, &mut next, now);
            depths.push(requests.in_flight.len());
            now += Duration::from_millis(100);
            for (at, _) in std::mem::take(&mut requests.in_flight.clone()) {
                assert_eq!(requests.handle_block(at, now), Arrival::Expected);
            }
        }
        assert_eq!(depths, [4, 8, 16, 32, 64, 128]);
        for _ in 0..3 {
            requests.fit_depth(1_000_000);
        }
        assert_eq!(requests.room(), 67);
        requests.limit_depth(20);
        assert_eq!(requests.room(), 20);
    }

    #[test]
    fn a_reject_ends_the_request_that_was_given_up_before_the_one_in_flight() {
        let mut now = Instant::ZERO;
        let mut requests = Requests::new(now);
        requests.sent(block(0), now);
        assert!(requests.cancel(block(0), now) && !requests.cancel(block(0), now));
        requests.sent(block(0), now);
        now += SECOND;
        assert_eq!(requests.handle_reject(block(0), now), Rejection::Late);
        assert!(requests.is_waiting(), "the second request stands");
        assert_eq!(requests.handle_reject(block(0), now), Rejection::Refused);
        assert_eq!(requests.handle_reject(block(0), now), Rejection::Unsolicited);
        // The block came before the cancel was read: one of the two answers is its reject.
        for _ in 0..2 {
            requests.sent(block(1), now);
            requests.cancel(block(1), now);
            requests.sent(block(1), now);
            assert_eq!(requests.handle_block(block(1), now), Arrival::Expected);
            assert_eq!(requests.handle_reject(block(1), now), Rejection::Late);
        }
        // A snub abandons requests in the same way.
        requests.sent(block(2), now);
        requests.snub(now);
        requests.sent(block(2), now);
        assert_eq!(requests.handle_reject(block(2), now), Rejection::Late);
        assert_eq!(requests.handle_block(block(2), now), Arrival::Expected);
    }

    #[test]
    fn a_peer_that_does_not_answer_cancels_may_still_refuse() {
        let mut now = Instant::ZERO;
        let mut requests = Requests::new(now);
        requests.sent(block(0), now);
        requests.cancel(block(0), now);
        now += SECOND;
        requests.sent(block(1), now);
        assert_eq!(requests.handle_block(block(1), now), Arrival::Expected);
        requests.sent(block(0), now);
        assert_eq!(requests.handle_reject(block(0), now), Rejection::Refused);
        assert!(!requests.is_waiting());
    }

    #[test]
    fn requests_that_were_sent_together_are_refused_once() {
        let mut now = Instant::ZERO;
        let mut requests = Requests::new(now);
        (0..100).for_each(|at| requests.sent(block(at), now));
        now += SECOND;
        assert_eq!(requests.handle_reject(block(0), now), Rejection::Refused);
        assert!((1..99).all(|at| requests.handle_reject(block(at), now) == Rejection::SameRefusal));
        requests.sent(block(0), now);
        assert_eq!(requests.handle_reject(block(0), now), Rejection::Refused);
        assert_eq!(requests.handle_reject(block(99), now), Rejection::SameRefusal);
    }

    #[test]
    fn expected_late_answers_are_bounded() {
        let mut requests = Requests::new(Instant::ZERO);
        for at in 0..3 * LATE_MAX as u32 {
            requests.sent(block(at), Instant::ZERO);
            requests.give_up(Instant::ZERO);
        }
        assert_eq!(requests.late.len(), LATE_MAX);
    }

    #[test]
    fn a_silent_peer_is_snubbed_until_it_delivers() {
        let mut now = Instant::ZERO;
        let mut requests = Requests::new(now);
        requests.sent(block(0), now);
        requests.sent(block(1), now);
        now += SNUB_AFTER_UNKNOWN;
        assert!(requests.is_overdue(now) && !requests.is_overdue(Instant::ZERO + SECOND));
        requests.snub(now);
        assert_eq!((requests.room(), requests.is_snubbed()), (1, true));
        assert_eq!(requests.handle_block(block(0), now), Arrival::Late);
        assert!(!requests.is_snubbed());
        assert_eq!(requests.handle_block(block(1), now), Arrival::Late);
        assert_eq!(requests.handle_block(block(1), now), Arrival::Unsolicited);
    }
}
