//! One active request: its lookups in both overlays, their results, and the final store.
//!
//! In each overlay it waits until a node is known, runs a lookup, and stores if requested. It does
//! not end itself: its owner takes the outcome when both overlays are done.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::answer::Answers;
use super::bloom::Filter;
use super::event::{self, Outcome, Output, Request, RequestId};
use super::item::{Item, ItemKey, ItemRef};
use super::krpc::{Method, Response, Want};
use super::lookup::{Found, Lookup};
use super::node_id::{Node, NodeId};
use super::outgoing::{Identity, Outgoing};
use super::overlay::{self, Overlays};
use super::transactions::{Purpose, Sent};
use crate::proto::compact;
use crate::proto::time::{Duration, Instant};
use crate::proto::tracker::words;

/// Time that a request waits for the first node of an overlay: enough for two lookups of the
/// bootstrap names.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same when the other overlay is done.
const PATIENCE_BESIDE: Duration = Duration::from_secs(3);
/// Most different peers of one request, about 130 KiB; further ones are dropped.
const PEER_COUNT_MAX: usize = 4_096;
/// Most peers taken from one answer; further ones are dropped, so that a few lying nodes do not use
/// up [`PEER_COUNT_MAX`].
const ANSWER_PEER_COUNT_MAX: usize = 100;
/// Most characters kept of a refusal.
const REFUSAL_LEN_MAX: usize = 100;

/// The progress of a request in one overlay.
#[derive(Debug)]
enum Stage {
    /// No node is known.
    Waiting { until: Instant },
    /// The lookup of the closest nodes runs.
    Looking(Box<Lookup>),
    /// Storing at the closest nodes: those still to query, closest last, and the number of pending
    /// queries.
    Storing { left: Vec<Found>, under_way: usize },
    /// Done, or not joined.
    Over,
}

/// An active request.
#[derive(Debug)]
pub(super) struct ActiveRequest {
    id: RequestId,
    request: Request,
    since: Instant,
    stages: [Stage; 2],
    /// Peers reported.
    seen: BTreeSet<SocketAddr>,
    /// Sequence number of the newest item reported.
    newest: Option<i64>,
    /// Seeds and downloaders.
    filters: Option<Box<(Filter, Filter)>>,
    /// Steps to the first node that had the result.
    found_after: Option<u32>,
    outcome: Outcome,
}

impl ActiveRequest {
    /// Starts where nodes are known, and waits elsewhere.
    pub(super) fn new(
        id: RequestId,
        request: Request,
        since: Instant,
        now: Instant,
        overlays: &Overlays,
    ) -> Self {
        let mut stages = [Stage::Over, Stage::Over];
        for is_v6 in overlays.families() {
            stages[usize::from(is_v6)] = Stage::Waiting { until: now + PATIENCE };
        }
        Self {
            id,
            request,
            since,
            stages,
            seen: BTreeSet::new(),
            newest: None,
            filters: None,
            found_after: None,
            outcome: Outcome::default(),
        }
    }

    /// Reports what this node stores itself: in a network of two no other node may have it.
    pub(super) fn recall(&mut self, now: Instant, answers: &mut Answers, outgoing: &mut Outgoing) {
        let target = self.target();
        match &self.request {
            Request::Peers { .. } => {
                let peers = [false, true].map(|is_v6| answers.recall_peers(now, target, is_v6));
                if self.found_peers(peers.into_iter().flatten(), true, outgoing) {
                    self.found_after = Some(0);
                }
            }
            Request::Get(key) => {
                if let Some(item) = answers.items.find(target).filter(|item| item.key() == *key).cloned() {
                    self.found_item(item, outgoing);
                    self.found_after = Some(0);
                }
            }
            Request::Put { .. } | Request::Nodes(_) => (),
        }
    }

    /// Continues in one overlay: starts the lookup when a node is known, sends its queries, and
    /// stores.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        is_v6: bool,
        overlays: &Overlays,
        outgoing: &mut Outgoing,
    ) {
        let (Some(identity), Some(overlay)) = (overlays.identity(now, is_v6), overlays.of(is_v6)) else {
            return;
        };
        let target = self.target();
        let stage = &mut self.stages[usize::from(is_v6)];
        if matches!(stage, Stage::Waiting { .. }) && !overlay.is_alone() {
            let lookup = overlay.lookup(target);
            let lookup = if stores(&self.request) { lookup.with_tokens() } else { lookup };
            *stage = Stage::Looking(Box::new(lookup));
        }
        if let Stage::Looking(lookup) = stage {
            let method = question(&self.request, target, self.newest, identity.want);
            overlay::ask_next(now, lookup, outgoing, Purpose::Lookup(self.id), &identity, method);
            if lookup.is_done() {
                self.looked(now, is_v6);
            }
        }
        self.store(now, is_v6, &identity, outgoing);
        self.hurry(now, overlays);
    }

    /// A node answered a query of the lookup.
    pub(super) fn answered(&mut self, from: Node, response: &Response, own: NodeId, outgoing: &mut Outgoing) {
        let is_v6 = from.addr.is_ipv6();
        let mut after = None;
        if let Stage::Looking(lookup) = &mut self.stages[usize::from(is_v6)] {
            let nodes = overlay::others(response.nodes(), is_v6, own);
            lookup.answered(from.addr, from.id, nodes, response.token);
            after = Some(lookup.hops(from.addr));
        }
        if self.found(from, response, outgoing) && self.found_after.is_none() {
            self.found_after = after;
        }
    }

    /// A query is late.
    pub(super) fn slow(&mut self, sent: &Sent) {
        if let Stage::Looking(lookup) = &mut self.stages[usize::from(sent.to.is_ipv6())] {
            lookup.slow(sent.to);
        }
    }

    /// A query failed or was answered by an error.
    pub(super) fn failed(&mut self, sent: &Sent) {
        if let Stage::Looking(lookup) = &mut self.stages[usize::from(sent.to.is_ipv6())] {
            lookup.failed(sent.to);
        }
    }

    /// A node stored, refused with this code and text, or did not answer (`None`).
    pub(super) fn stored(&mut self, at: SocketAddr, how: Option<Result<(), (i64, &[u8])>>) {
        if let Stage::Storing { under_way, .. } = &mut self.stages[usize::from(at.is_ipv6())] {
            *under_way = under_way.saturating_sub(1);
        }
        match how {
            Some(Ok(())) => self.outcome.stored += 1,
            Some(Err((code, text))) => {
                let text: String = words(text).chars().take(REFUSAL_LEN_MAX).collect();
                self.outcome.refused = Some(format!("{code} {text}"));
            }
            None => (),
        }
    }

    /// Ends waiting that has timed out.
    pub(super) fn expire(&mut self, now: Instant) {
        for stage in &mut self.stages {
            if matches!(stage, Stage::Waiting { until } if *until <= now) {
                *stage = Stage::Over;
            }
        }
    }

    /// Whether it waits for a node of this overlay.
    pub(super) fn is_waiting(&self, is_v6: bool) -> bool {
        matches!(self.stages[usize::from(is_v6)], Stage::Waiting { .. })
    }

    /// Returns when waiting ends.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let until = |stage: &Stage| match stage {
            Stage::Waiting { until } => Some(*until),
            Stage::Looking(_) | Stage::Storing { .. } | Stage::Over => None,
        };
        self.stages.iter().filter_map(until).min()
    }

    /// Whether it is done in both overlays.
    pub(super) fn is_over(&self) -> bool {
        self.stages.iter().all(|stage| matches!(stage, Stage::Over))
    }

    /// Returns the outcome.
    pub(super) fn outcome(mut self, now: Instant) -> Outcome {
        let target = self.target();
        self.outcome.closest.sort_by_key(|node| node.id.distance(target));
        self.outcome.hops = self.found_after.unwrap_or(self.outcome.hops);
        self.outcome.took = now.since(self.since);
        self.outcome.scrape = self.filters.map(|filters| (filters.0.estimate(), filters.1.estimate()));
        self.outcome
    }

    fn target(&self) -> NodeId {
        match &self.request {
            Request::Peers { infohash, .. } => NodeId::from(*infohash),
            Request::Get(key) => key.target(),
            Request::Put { item, .. } => item.key().target(),
            Request::Nodes(target) => *target,
        }
    }

    /// Reports the content of an answer. Returns whether it had the requested kind.
    fn found(&mut self, from: Node, response: &Response, outgoing: &mut Outgoing) -> bool {
        match &self.request {
            Request::Peers { .. } => {
                self.merge_filters(response);
                let named = response.peers().take(ANSWER_PEER_COUNT_MAX);
                self.found_peers(named, compact::is_local(from.addr.ip()), outgoing)
            }
            Request::Get(key) => {
                let item = response.item.and_then(|item| newer(&item, key, self.newest));
                item.map(|item| self.found_item(item, outgoing)).is_some()
            }
            Request::Put { .. } | Request::Nodes(_) => false,
        }
    }

    /// Reports peers that were not reported before; `local`: the node that named them is on a local
    /// network. Returns whether any was named.
    fn found_peers(
        &mut self,
        named: impl Iterator<Item = SocketAddr>,
        local: bool,
        outgoing: &mut Outgoing,
    ) -> bool {
        let mut has_some = false;
        let mut peers = Vec::new();
        for peer in named {
            has_some = true;
            if self.seen.len() < PEER_COUNT_MAX && self.seen.insert(peer) {
                peers.push(peer);
            }
        }
        if !peers.is_empty() {
            self.tell(event::Found::Peers { peers, local }, outgoing);
        }
        has_some
    }

    fn tell(&self, found: event::Found, outgoing: &mut Outgoing) {
        outgoing.tell(Output::Found { request: self.id, found });
    }

    fn merge_filters(&mut self, response: &Response) {
        if let Some((seeds, downloaders)) = response.filters {
            let filters = self.filters.get_or_insert_default();
            filters.0.merge(seeds);
            filters.1.merge(downloaders);
        }
    }

    /// An immutable item is final; another node may have a newer version of a mutable one.
    fn found_item(&mut self, item: Item, outgoing: &mut Outgoing) {
        self.newest = item.mutable().map(|mutable| mutable.seq);
        if self.newest.is_none() {
            for is_v6 in [false, true] {
                self.close(is_v6);
            }
        }
        self.tell(event::Found::Item(item), outgoing);
    }

    /// Ends the lookup of an overlay and keeps its figures; returns the closest nodes that
    /// answered.
    fn close(&mut self, is_v6: bool) -> Vec<Found> {
        let stage = std::mem::replace(&mut self.stages[usize::from(is_v6)], Stage::Over);
        let Stage::Looking(lookup) = stage else { return Vec::new() };
        let (asked, answered) = lookup.counts();
        self.outcome.asked += asked;
        self.outcome.answered += answered;
        let closest = lookup.closest();
        self.outcome.hops = self.outcome.hops.max(closest.first().map_or(0, |found| found.hops));
        self.outcome.closest.extend(closest.iter().map(|found| found.node));
        closest
    }

    /// A lookup is done: stores, or waits again if no node answered.
    fn looked(&mut self, now: Instant, is_v6: bool) {
        let answered_before = self.outcome.answered;
        let mut closest = self.close(is_v6);
        let until = self.since + PATIENCE;
        let stage = &mut self.stages[usize::from(is_v6)];
        if self.outcome.answered == answered_before && now < until {
            *stage = Stage::Waiting { until };
        } else if stores(&self.request) {
            closest.reverse();
            *stage = Stage::Storing { left: closest, under_way: 0 };
        }
    }

    /// Sends the store queries to the closest nodes.
    fn store(&mut self, now: Instant, is_v6: bool, identity: &Identity, outgoing: &mut Outgoing) {
        let Stage::Storing { left, under_way } = &mut self.stages[usize::from(is_v6)] else { return };
        while outgoing.transactions.has_room()
            && let Some(found) = left.pop()
        {
            let Some(method) = statement(&self.request, &found.token) else { break };
            let asked = outgoing.query(now, found.node.addr, Purpose::Store(self.id), identity, method);
            *under_way += usize::from(asked);
        }
        outgoing.is_starved |= !left.is_empty();
        if left.is_empty() && *under_way == 0 {
            self.stages[usize::from(is_v6)] = Stage::Over;
        }
    }

    /// Shortens the wait for an overlay without nodes when the other one has answered.
    fn hurry(&mut self, now: Instant, overlays: &Overlays) {
        let is_looking = |stage: &Stage| matches!(stage, Stage::Looking(_) | Stage::Storing { .. });
        if self.outcome.answered == 0 || self.stages.iter().any(is_looking) {
            return;
        }
        for (stage, is_v6) in self.stages.iter_mut().zip([false, true]) {
            if let Stage::Waiting { until } = stage {
                let young = overlays.of(is_v6).is_some_and(|overlay| now < overlay.since() + PATIENCE);
                *until = (*until).min(if young { now + PATIENCE_BESIDE } else { now });
            }
        }
    }
}

/// Whether the request ends with a store.
fn stores(request: &Request) -> bool {
    match request {
        Request::Peers { announce, .. } => announce.is_some(),
        Request::Put { .. } => true,
        Request::Get(_) | Request::Nodes(_) => false,
    }
}

/// Returns the query of a lookup.
fn question(request: &Request, target: NodeId, newest: Option<i64>, want: Want) -> Method<'static> {
    match request {
        Request::Peers { announce, scrape, .. } => {
            let no_seed = announce.is_some_and(|announce| announce.seed);
            Method::GetPeers { infohash: target, want, scrape: *scrape, no_seed }
        }
        Request::Get(_) => Method::Get { target, seq: newest, want },
        Request::Put { .. } => Method::Get { target, seq: None, want },
        Request::Nodes(_) => Method::FindNode { target, want },
    }
}

/// Returns the final store query.
fn statement<'a>(request: &'a Request, token: &'a [u8]) -> Option<Method<'a>> {
    match request {
        Request::Peers { infohash, announce, .. } => {
            let announce = (*announce)?;
            let infohash = NodeId::from(*infohash);
            Some(Method::AnnouncePeer { infohash, port: announce.port, token, seed: announce.seed })
        }
        Request::Put { item, cas } => Some(Method::Put { token, cas: *cas, item: item.as_item_ref() }),
        Request::Get(_) | Request::Nodes(_) => None,
    }
}

/// Returns the item, if it is the requested one and newer than the known one; verifies its
/// signature only then.
fn newer(item: &ItemRef, key: &ItemKey, newest: Option<i64>) -> Option<Item> {
    let is_newer = newest.is_none_or(|newest| item.seq > newest);
    is_newer.then(|| item.verify_as(key).ok()).flatten()
}
