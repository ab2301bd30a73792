//! One request under way: its lookups in both overlays, what they found, and what is stored at
//! their end.
//!
//! In each overlay it waits until a node is known, looks up, and stores where that is asked for. It
//! ends nothing by itself: whoever owns it takes the outcome when both overlays are through.

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

/// How long a request waits for the first node of an overlay: bootstrap names are looked up twice
/// in this time.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it waits for the first node of one overlay when it is through with the other.
const PATIENCE_BESIDE: Duration = Duration::from_secs(3);
/// Peers of one request that are told apart, about 130 KiB; further ones are left out.
const PEER_COUNT_MAX: usize = 4_096;
/// Peers of one answer that count; further ones are left out, so that a few who lie do not use up
/// all that may be told.
const ANSWER_PEER_COUNT_MAX: usize = 100;
/// Characters of a refusal that are kept.
const REFUSAL_LEN_MAX: usize = 100;

/// How far a request is in one overlay.
#[derive(Debug)]
enum Stage {
    /// Nobody is known there.
    Waiting { until: Instant },
    /// Looking for the closest nodes.
    Looking(Box<Lookup>),
    /// Storing at the closest nodes: those still to be asked, closest last, and how many are being
    /// asked.
    Storing { left: Vec<Found>, under_way: usize },
    /// Through, or not taking part.
    Over,
}

/// The request.
#[derive(Debug)]
pub(super) struct ActiveRequest {
    id: RequestId,
    request: Request,
    since: Instant,
    stages: [Stage; 2],
    /// Peers told.
    seen: BTreeSet<SocketAddr>,
    /// Of the newest item told.
    newest: Option<i64>,
    /// Seeds and downloaders.
    filters: Option<Box<(Filter, Filter)>>,
    /// Steps to the first node that had it.
    found_after: Option<u32>,
    outcome: Outcome,
}

impl ActiveRequest {
    /// Begins where nodes are known, and waits elsewhere.
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

    /// Tells what we keep of it ourselves: in a network of two nobody else may have it.
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

    /// Goes on in one overlay: begins the lookup when a node is known, asks whom it wants asked,
    /// and stores.
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

    /// A node answered a step of the lookup.
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

    /// A query of ours is late.
    pub(super) fn slow(&mut self, sent: &Sent) {
        if let Stage::Looking(lookup) = &mut self.stages[usize::from(sent.to.is_ipv6())] {
            lookup.slow(sent.to);
        }
    }

    /// A query of ours went unanswered, or was answered by an error.
    pub(super) fn failed(&mut self, sent: &Sent) {
        if let Stage::Looking(lookup) = &mut self.stages[usize::from(sent.to.is_ipv6())] {
            lookup.failed(sent.to);
        }
    }

    /// A node took what was to be stored, or refused it with these words, or did not answer (None).
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

    /// Gives up waiting where the time is up.
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

    /// When waiting ends.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let until = |stage: &Stage| match stage {
            Stage::Waiting { until } => Some(*until),
            Stage::Looking(_) | Stage::Storing { .. } | Stage::Over => None,
        };
        self.stages.iter().filter_map(until).min()
    }

    /// Whether it is through everywhere.
    pub(super) fn is_over(&self) -> bool {
        self.stages.iter().all(|stage| matches!(stage, Stage::Over))
    }

    /// How it went.
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

    /// Tells what an answer brought. Whether it was what is sought.
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

    /// An immutable item is all that there is; of a mutable one another node may have a newer one.
    fn found_item(&mut self, item: Item, outgoing: &mut Outgoing) {
        self.newest = item.mutable().map(|mutable| mutable.seq);
        if self.newest.is_none() {
            for is_v6 in [false, true] {
                self.close(is_v6);
            }
        }
        self.tell(event::Found::Item(item), outgoing);
    }

    /// Ends the lookup of an overlay and keeps its figures; the closest nodes that answered.
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

    /// A lookup is done: store, or wait anew if nobody answered.
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

    /// Asks the closest nodes to store.
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

    /// Does not wait long for an overlay where nobody is known, while the other one has answered.
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

/// Whether something is stored at the end.
fn stores(request: &Request) -> bool {
    match request {
        Request::Peers { announce, .. } => announce.is_some(),
        Request::Put { .. } => true,
        Request::Get(_) | Request::Nodes(_) => false,
    }
}

/// What a lookup asks at each step.
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

/// What the closest nodes are told at the end.
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

/// The item, if it is the one sought and newer than what is known; only then its signature is
/// verified.
fn newer(item: &ItemRef, key: &ItemKey, newest: Option<i64>) -> Option<Item> {
    let is_newer = newest.is_none_or(|newest| item.seq > newest);
    is_newer.then(|| item.verify_as(key).ok()).flatten()
}
