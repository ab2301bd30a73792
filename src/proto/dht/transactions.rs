//! Queries of ours that are under way: who was asked, under which transaction id, and until when we
//! wait.
//!
//! An answer counts only with an id that is under way and from exactly the address that was asked.
//! Ids are 32 bits of the machine's own generator: a blind forger who guesses at [`COUNT_MAX`] open
//! ones, with the address right, hits one time in 8 million. Each query turns slow once, then
//! fails; both times come in the order in which queries were sent, so that two queues are all the
//! timers there are. It reads no messages.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::event::RequestId;
use super::krpc::TRANSACTION_LEN;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// Queries under way at once, about 50 KiB; beyond it lookups wait for the end of others, and pings
/// are left out.
pub(super) const COUNT_MAX: usize = 512;
/// When an answer is given up. Of live nodes 99 % answer within 1 s whatever their link; a node
/// that needs more than three is of no use to a lookup of ten steps.
pub(super) const FAILED_AFTER: Duration = Duration::from_secs(3);
/// When a query is slow and another node is asked beside it, as long as nothing was measured, and
/// at most.
const SLOW_AFTER_MAX: Duration = Duration::from_secs(1);
/// The same, at least: below it lookups in a fast network would ask twice whenever a machine
/// hesitates.
const SLOW_AFTER_MIN: Duration = Duration::from_millis(100);

/// What a query is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To see whether a node lives.
    Ping,
    /// To see whether an address that somebody named is a node.
    Hint,
    /// To see whether a node of our last run is still there.
    Saved,
    /// To see whether a node of long ago, at this place of the list, is still there.
    Old(usize),
    /// A step of the overlay's own lookup of this number.
    MaintenanceLookup(u32),
    /// A step of a request's lookup.
    Lookup(RequestId),
    /// To store what a request brings.
    Store(RequestId),
}

/// A query under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    id: u32,
    /// Whom we asked.
    pub(super) to: SocketAddr,
    /// When.
    pub(super) at: Instant,
    /// What for.
    pub(super) purpose: Purpose,
    /// That it is slow has been said.
    pub(super) is_slow: bool,
}

/// What time has done to a query.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// It still waits, but longer than answers mostly take.
    Slow(Sent),
    /// It is given up.
    Failed(Sent),
}

/// All queries under way.
#[derive(Debug)]
pub(super) struct Transactions {
    rng: Rng,
    open: Vec<Sent>,
    /// Those that are not slow yet, in order; an entry whose query has ended is skipped.
    slow: VecDeque<(Instant, u32)>,
    /// All, in order; likewise.
    failed: VecDeque<(Instant, u32)>,
    round_trip: RoundTrip,
}

impl Transactions {
    /// None.
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            open: Vec::new(),
            slow: VecDeque::new(),
            failed: VecDeque::new(),
            round_trip: RoundTrip::default(),
        }
    }

    /// Whether one more may be under way.
    pub(super) fn has_room(&self) -> bool {
        self.open.len() < COUNT_MAX
    }

    /// Whether this address is being asked something.
    pub(super) fn is_asking(&self, to: SocketAddr) -> bool {
        self.open.iter().any(|sent| sent.to == to)
    }

    /// Enters a query; call only while there is room.
    pub(super) fn open(&mut self, now: Instant, to: SocketAddr, purpose: Purpose) -> [u8; TRANSACTION_LEN] {
        let mut id = self.rng.bits() as u32;
        while self.open.iter().any(|sent| sent.id == id) {
            id = self.rng.bits() as u32;
        }
        self.open.push(Sent { id, to, at: now, purpose, is_slow: false });
        // Never before the one sent earlier, though what counts as slow may have shrunk since.
        let slow_at = now + self.round_trip.slow_after();
        let slow_at = self.slow.back().map_or(slow_at, |&(last, _)| slow_at.max(last));
        self.slow.push_back((slow_at, id));
        self.failed.push_back((now + FAILED_AFTER, id));
        id.to_be_bytes()
    }

    /// An answer came; None: to nothing that we asked there.
    pub(super) fn close(&mut self, now: Instant, from: SocketAddr, id: &[u8]) -> Option<Sent> {
        let id = u32::from_be_bytes(id.try_into().ok()?);
        let at = self.open.iter().position(|sent| sent.id == id && sent.to == from)?;
        let sent = self.open.swap_remove(at);
        self.round_trip.measured(now.since(sent.at));
        self.trim();
        Some(sent)
    }

    /// What is due, one at a time; each query is slow before it fails.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        let (slow, failed) = (&mut self.slow, &mut self.failed);
        let due = if slow.front().is_some_and(|&(at, _)| at <= now) {
            let (_, id) = slow.pop_front()?;
            let sent = self.open.iter_mut().find(|sent| sent.id == id)?;
            sent.is_slow = true;
            Due::Slow(*sent)
        } else if failed.front().is_some_and(|&(at, _)| at <= now) {
            let (_, id) = failed.pop_front()?;
            let at = self.open.iter().position(|sent| sent.id == id)?;
            Due::Failed(self.open.swap_remove(at))
        } else {
            return None;
        };
        self.trim();
        Some(due)
    }

    /// When something is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let first = |queue: &VecDeque<(Instant, u32)>| queue.front().map(|&(at, _)| at);
        first(&self.slow).into_iter().chain(first(&self.failed)).min()
    }

    /// Drops entries of ended queries from the front of both queues, so that their fronts are
    /// always live and no task is woken for nothing.
    fn trim(&mut self) {
        if self.open.is_empty() {
            self.slow.clear();
            self.failed.clear();
        }
        for queue in [&mut self.slow, &mut self.failed] {
            while let Some(&(_, id)) = queue.front()
                && !self.open.iter().any(|sent| sent.id == id)
            {
                queue.pop_front();
            }
        }
    }

    /// Every query under way has its failure to come, and no more than allowed are.
    #[cfg(debug_assertions)]
    pub(super) fn check_invariant(&self) {
        assert!(self.open.len() <= COUNT_MAX && self.failed.len() >= self.open.len());
        assert!(self.slow.len() <= self.failed.len());
        assert_eq!(self.open.is_empty(), self.failed.is_empty());
    }
}

/// How long answers take, smoothed as TCP smooths it (RFC 6298), microseconds.
#[derive(Debug, Default)]
struct RoundTrip {
    mean: Option<u32>,
    deviation: u32,
}

impl RoundTrip {
    fn measured(&mut self, span: Duration) {
        let span = u32::try_from(span.as_micros()).unwrap_or(u32::MAX).min(FAILED_AFTER.as_micros() as u32);
        if let Some(mean) = self.mean {
            let error = span.abs_diff(mean);
            self.deviation = self.deviation - self.deviation / 4 + error / 4;
            self.mean = Some(mean - mean / 8 + span / 8);
        } else {
            (self.mean, self.deviation) = (Some(span), span / 2);
        }
    }

    fn slow_after(&self) -> Duration {
        self.mean.map_or(SLOW_AFTER_MAX, |mean| {
            Duration::from_micros(u64::from(mean) + 4 * u64::from(self.deviation))
                .clamp(SLOW_AFTER_MIN, SLOW_AFTER_MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn addr(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 6881))
    }

    fn transactions() -> Transactions {
        Transactions::new(Rng::from_number(1))
    }

    #[test]
    fn an_answer_counts_once_from_the_address_asked_and_with_its_id_alone() {
        let (mut all, now) = (transactions(), Instant::ZERO);
        let id = all.open(now, addr(1), Purpose::Ping);
        assert!(all.close(now, addr(2), &id).is_none(), "another host");
        assert!(all.close(now, SocketAddr::from(([10, 0, 0, 1], 1)), &id).is_none(), "another port");
        assert!(all.close(now, addr(1), &id[..3]).is_none() && all.close(now, addr(1), b"").is_none());
        assert!(all.close(now, addr(1), &id).is_some());
        assert!(all.close(now, addr(1), &id).is_none(), "twice");
        assert_eq!(all.due_at(), None);
    }

    #[test]
    fn a_query_turns_slow_then_fails_and_nothing_wakes_us_for_one_that_ended() {
        let (mut all, now) = (transactions(), Instant::ZERO);
        let first = all.open(now, addr(1), Purpose::Ping);
        let _second = all.open(now + MILLI, addr(2), Purpose::Ping);
        assert_eq!(all.due_at(), Some(now + SLOW_AFTER_MAX));
        assert!(all.close(now + MILLI, addr(1), &first).is_some());
        assert_eq!(all.due_at(), Some(now + MILLI + SLOW_AFTER_MAX));
        let slow_at = all.due_at().unwrap();
        assert!(matches!(all.due(slow_at), Some(Due::Slow(sent)) if sent.to == addr(2)));
        assert!(all.due(slow_at).is_none());
        assert_eq!(all.due_at(), Some(now + MILLI + FAILED_AFTER));
        let failed_at = all.due_at().unwrap();
        assert!(matches!(all.due(failed_at), Some(Due::Failed(sent)) if sent.to == addr(2)));
        assert_eq!((all.due_at(), all.has_room()), (None, true));
    }

    #[test]
    fn what_counts_as_slow_follows_what_was_measured() {
        let mut all = transactions();
        for step in 0..50 {
            let now = Instant::ZERO + MILLI * 100 * step;
            let id = all.open(now, addr(1), Purpose::Ping);
            assert!(all.close(now + MILLI * 60, addr(1), &id).is_some());
        }
        let now = Instant::ZERO + Duration::from_secs(10);
        all.open(now, addr(1), Purpose::Ping);
        assert_eq!(all.due_at(), Some(now + SLOW_AFTER_MIN));
    }
}
