//! The requests: up to [`ACTIVE_MAX`] are active, the others wait in the order of their ids.
//!
//! Announces of complete torrents have a queue of their own, which takes turns with the other one:
//! a torrent that lacks pieces does not wait behind thousands of seeds.

use std::collections::BTreeMap;

use super::answer::Answers;
use super::event::{Found, Outcome, Output, Request, RequestId};
use super::outgoing::Outgoing;
use super::overlay::Overlays;
use super::request::ActiveRequest;
use crate::proto::time::Instant;

/// Most active requests: each has up to eight pending queries, so that 16 in both overlays stay
/// below the limit of transactions.
pub(super) const ACTIVE_MAX: usize = 16;
/// Most waiting requests, one for each torrent of a large session; beyond it a request ends at once
/// without a result. (A waiting request takes less than 200 bytes.)
const QUEUE_MAX: usize = 1 << 17;

/// A waiting request.
#[derive(Debug)]
struct Queued {
    request: Request,
    since: Instant,
}

/// All requests.
#[derive(Debug, Default)]
pub(super) struct RequestQueue {
    active: BTreeMap<RequestId, Box<ActiveRequest>>,
    /// Announces of complete torrents.
    seeds: BTreeMap<RequestId, Queued>,
    /// All other waiting requests.
    others: BTreeMap<RequestId, Queued>,
    /// Whether the next request is taken from `seeds` if both maps have one.
    is_seed_next: bool,
}

impl RequestQueue {
    /// Adds a request.
    pub(super) fn add(&mut self, now: Instant, id: RequestId, request: Request, outgoing: &mut Outgoing) {
        if self.seeds.len() + self.others.len() < QUEUE_MAX {
            let queue = if announces_seed(&request) { &mut self.seeds } else { &mut self.others };
            queue.insert(id, Queued { request, since: now });
        } else {
            let found = Found::Done(Outcome::default());
            outgoing.tell(Output::Found { request: id, found });
        }
    }

    /// Drops a request without a result.
    pub(super) fn cancel(&mut self, id: RequestId) {
        self.active.remove(&id);
        self.seeds.remove(&id);
        self.others.remove(&id);
    }

    /// Starts waiting requests while fewer than [`ACTIVE_MAX`] are active.
    pub(super) fn start(
        &mut self,
        now: Instant,
        overlays: &Overlays,
        answers: &mut Answers,
        outgoing: &mut Outgoing,
    ) {
        while self.may_start()
            && let Some((id, Queued { request, since })) = self.next()
        {
            let mut running = Box::new(ActiveRequest::new(id, request, since, now, overlays));
            running.recall(now, answers, outgoing);
            self.active.insert(id, running);
            for is_v6 in overlays.families() {
                self.advance(now, id, is_v6, overlays, outgoing);
            }
            self.finish(now, id, outgoing);
        }
    }

    /// Returns whether a waiting request could start.
    pub(super) fn may_start(&self) -> bool {
        !(self.seeds.is_empty() && self.others.is_empty()) && self.active.len() < ACTIVE_MAX
    }

    /// Takes the next waiting request.
    fn next(&mut self) -> Option<(RequestId, Queued)> {
        let is_seed = self.others.is_empty() || self.is_seed_next && !self.seeds.is_empty();
        self.is_seed_next = !is_seed;
        if is_seed { self.seeds.pop_first() } else { self.others.pop_first() }
    }

    /// Returns an active request.
    pub(super) fn running(&mut self, id: RequestId) -> Option<&mut ActiveRequest> {
        self.active.get_mut(&id).map(|running| &mut **running)
    }

    /// Continues a request in one overlay after an event there, and ends it if it is done.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        id: RequestId,
        is_v6: bool,
        overlays: &Overlays,
        outgoing: &mut Outgoing,
    ) {
        if let Some(running) = self.active.get_mut(&id) {
            running.advance(now, is_v6, overlays, outgoing);
            self.finish(now, id, outgoing);
        }
    }

    /// Starts the requests that wait for a node of one overlay, if one is known now.
    pub(super) fn advance_waiting(
        &mut self,
        now: Instant,
        is_v6: bool,
        overlays: &Overlays,
        outgoing: &mut Outgoing,
    ) {
        let waiting = self.active.iter().filter(|(_, running)| running.is_waiting(is_v6));
        for id in waiting.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.advance(now, id, is_v6, overlays, outgoing);
        }
    }

    /// Continues all requests in one overlay.
    pub(super) fn advance_all(
        &mut self,
        now: Instant,
        is_v6: bool,
        overlays: &Overlays,
        outgoing: &mut Outgoing,
    ) {
        for id in self.active.keys().copied().collect::<Vec<_>>() {
            self.advance(now, id, is_v6, overlays, outgoing);
        }
    }

    /// Ends requests whose wait for a first node has timed out.
    pub(super) fn expire(&mut self, now: Instant, outgoing: &mut Outgoing) {
        if self.waits_until().is_some_and(|until| until <= now) {
            for id in self.active.keys().copied().collect::<Vec<_>>() {
                if let Some(running) = self.active.get_mut(&id) {
                    running.expire(now);
                    self.finish(now, id, outgoing);
                }
            }
        }
    }

    /// Returns when the first wait for a node times out.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.active.values().filter_map(|running| running.waits_until()).min()
    }

    /// The number of active requests.
    pub(super) fn active_count(&self) -> usize {
        self.active.len()
    }

    /// Reports the end of a finished request.
    fn finish(&mut self, now: Instant, id: RequestId, outgoing: &mut Outgoing) {
        if self.active.get(&id).is_some_and(|running| running.is_over())
            && let Some(running) = self.active.remove(&id)
        {
            let found = Found::Done(running.outcome(now));
            outgoing.tell(Output::Found { request: id, found });
        }
    }
}

/// Whether a request announces a complete torrent.
fn announces_seed(request: &Request) -> bool {
    match request {
        Request::Peers { announce, .. } => announce.is_some_and(|announce| announce.seed),
        Request::Get(_) | Request::Put { .. } | Request::Nodes(_) => false,
    }
}
