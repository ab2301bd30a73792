//! Pending queries: address, transaction id and timeouts.
//!
//! An answer counts only with a pending id and from exactly the queried address. Ids are 32 bits of
//! the machine's own generator: a blind forger who guesses at [`COUNT_MAX`] pending ones, with the
//! right address, succeeds once in 8 million. Each query becomes slow once and then fails; both
//! happen in the order in which queries were sent, so that two queues are the only timers. Reads no
//! messages.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::event::RequestId;
use super::krpc::TRANSACTION_LEN;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// Most pending queries, about 50 KiB; beyond it lookups wait, and pings are skipped.
pub(super) const COUNT_MAX: usize = 512;
/// Timeout of a query. 99 % of live nodes answer within 1 s on any link; a node that needs more
/// than three is useless to a lookup of ten steps.
pub(super) const FAILED_AFTER: Duration = Duration::from_secs(3);
/// Longest time after which a query is slow and another node is queried beside it; used until round
/// trips are measured.
const SLOW_AFTER_MAX: Duration = Duration::from_secs(1);
/// Shortest time of this kind: below it lookups in a fast network would query twice at every
/// scheduling delay.
const SLOW_AFTER_MIN: Duration = Duration::from_millis(100);

/// The purpose of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To check whether a node is alive.
    Ping,
    /// To check whether a named address is a node.
    Hint,
    /// To check whether a node of the last run is still alive.
    Saved,
    /// To check whether an old node, at this place of the list, is still alive.
    Old(usize),
    /// A step of the overlay's maintenance lookup with this number.
    MaintenanceLookup(u32),
    /// A step of a request's lookup.
    Lookup(RequestId),
    /// To store the value of a request.
    Store(RequestId),
}

/// A pending query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    id: u32,
    /// The queried address.
    pub(super) to: SocketAddr,
    /// When it was sent.
    pub(super) at: Instant,
    /// Its purpose.
    pub(super) purpose: Purpose,
    /// Whether it was reported as slow.
    pub(super) is_slow: bool,
}

/// A timeout of a query.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// It is still pending, but longer than answers usually take.
    Slow(Sent),
    /// It has failed.
    Failed(Sent),
}

/// All pending queries.
#[derive(Debug)]
pub(super) struct Transactions {
    rng: Rng,
    open: Vec<Sent>,
    /// Those that are not slow yet, in order; entries of ended queries are skipped.
    slow: VecDeque<(Instant, u32)>,
    /// All of them, in order; entries of ended queries are skipped.
    failed: VecDeque<(Instant, u32)>,
    round_trip: RoundTrip,
}

impl Transactions {
    /// Creates it without queries.
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            open: Vec::new(),
            slow: VecDeque::new(),
            failed: VecDeque::new(),
            round_trip: RoundTrip::default(),
        }
    }

    /// Whether another query may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.open.len() < COUNT_MAX
    }

    /// Whether a query to this address is pending.
    pub(super) fn is_asking(&self, to: SocketAddr) -> bool {
        self.open.iter().any(|sent| sent.to == to)
    }

    /// Adds a query; called only while there is room.
    pub(super) fn open(&mut self, now: Instant, to: SocketAddr, purpose: Purpose) -> [u8; TRANSACTION_LEN] {
        let mut id = self.rng.bits() as u32;
        while self.open.iter().any(|sent| sent.id == id) {
            id = self.rng.bits() as u32;
        }
        self.open.push(Sent { id, to, at: now, purpose, is_slow: false });
        // Never before the query sent earlier, even if the measured time has shrunk since.
        let slow_at = now + self.round_trip.slow_after();
        let slow_at = self.slow.back().map_or(slow_at, |&(last, _)| slow_at.max(last));
        self.slow.push_back((slow_at, id));
        self.failed.push_back((now + FAILED_AFTER, id));
        id.to_be_bytes()
    }

    /// Ends the query that an answer belongs to; `None` if there is none.
    pub(super) fn close(&mut self, now: Instant, from: SocketAddr, id: &[u8]) -> Option<Sent> {
        let id = u32::from_be_bytes(id.try_into().ok()?);
        let at = self.open.iter().position(|sent| sent.id == id && sent.to == from)?;
        let sent = self.open.swap_remove(at);
        self.round_trip.measured(now.since(sent.at));
        self.trim();
        Some(sent)
    }

    /// Returns the next timeout that is due; each query is slow before it fails.
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

    /// Returns when a timeout is due.
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

/// The smoothed round-trip time (RFC 6298), microseconds.
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
    fn a_query_becomes_slow_then_fails_and_an_ended_one_sets_no_timer() {
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
    fn the_slow_timeout_follows_the_measured_round_trips() {
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
