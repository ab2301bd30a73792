//! The DHT node (BEP 5, 32, 33, 42, 43, 44, 51): finds peers and stores items without a tracker.
//!
//! [`Dht`] is the machine. It owns an overlay for each address family (BEP 32), the transactions,
//! the requests, and the stores. The shell moves datagrams and resolves names.
//!
//! Invariants: a node enters a table only by an answer to a query of ours, from the address that
//! was asked and with its transaction id; any other answer is ignored without a penalty, because
//! its source may be forged. Nothing is sent to port 0, to a multicast address, or to ourselves. A
//! read-only node (BEP 43) is answered and neither stored nor queried. Every request ends in one
//! [`event::Found::Done`]. The work for one datagram does not grow with the size of a store.
//!
//! The amplification factor, answer over query, both with 28 bytes of headers: BEP 5 wants eight
//! nodes (208 bytes of IPv4, 304 of IPv6) in the answer to 91 bytes, a factor of 2.6, or 4.7 for
//! both families, and peers besides: 40 of them, or a sample of 16 infohashes, make 5.3. Filters
//! (BEP 33) make 6.9, an item (BEP 44) 10.7; ping 1.2 and errors less. The defence is the budget
//! ([`budget`]): 10 queries per second of one prefix, 16 kB of answers per second in all.

mod answer;
pub mod bloom;
mod bootstrap;
pub mod budget;
pub mod defence;
pub mod event;
mod ids;
pub mod item;
pub mod items;
pub mod krpc;
pub mod lookup;
pub mod node_id;
mod outgoing;
mod overlay;
pub mod peers;
mod reach;
mod request;
mod request_queue;
pub mod routing;
pub mod saved;
mod throttle;
pub mod token;
mod transactions;
pub mod voter;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use self::answer::{Answers, Asked};
use self::bootstrap::{BootstrapSources, Empty, SAVED_ENOUGH};
use self::defence::Defence;
use self::defence::prefix::may_name;
use self::event::{Config, Output, Request, RequestId, Snapshot};
use self::krpc::{Body, Message, Method, Query, Response};
use self::node_id::Node;
use self::outgoing::Outgoing;
use self::overlay::Overlays;
use self::request_queue::RequestQueue;
use self::routing::K;
use self::saved::SAVED_COUNT_MAX;
use self::throttle::Throttle;
use self::transactions::{Due, Purpose, Sent};
use super::bencode::{Limits, Value};
use super::compact;
use super::rng::Rng;
use super::time::{Duration, Instant};

/// Unknown nodes that queried us and are pinged without a pause: sources may be forged.
const PING_BACK_BURST: u32 = 16;
/// The pause between two pings after that.
const PING_BACK_PAUSE: Duration = Duration::from_millis(500);
/// Nodes of the other family in an answer that are queried while few are known there.
const OTHER_FAMILY_MAX: usize = 4;

/// The machine.
///
/// After each `handle_*` drain [`Dht::poll_output`]; then wait until [`Dht::poll_timeout`].
#[derive(Debug)]
pub struct Dht {
    port: u16,
    overlays: Overlays,
    outgoing: Outgoing,
    answers: Answers,
    requests: RequestQueue,
    bootstrap: BootstrapSources,
    ping_back: Throttle,
    /// Datagrams and bytes.
    received: (u64, u64),
}

impl Dht {
    /// Returns a node with empty tables. It is idle until the first input.
    pub fn new(config: Config, rng: Rng, now: Instant) -> Self {
        Self::with_defence(config, Defence::ALL, rng, now)
    }

    /// Returns a node with some rules of the defence switched off, for measurements.
    pub fn with_defence(config: Config, defence: Defence, mut rng: Rng, now: Instant) -> Self {
        let mut outgoing = Outgoing::new(config.read_only, rng.fork("transactions"), now);
        if let Some(ip) = config.external.map(|ip| ip.to_canonical()) {
            outgoing.own[usize::from(ip.is_ipv6())] = Some(SocketAddr::new(ip, config.port));
        }
        Self {
            port: config.port,
            overlays: Overlays::new(&config, defence, &mut rng, now),
            outgoing,
            answers: Answers::new(&mut rng, now),
            requests: RequestQueue::default(),
            bootstrap: BootstrapSources::new(rng.fork("contacts"), now),
            ping_back: Throttle::new(PING_BACK_PAUSE, PING_BACK_BURST),
            received: (0, 0),
        }
    }

    /// Handles a datagram. Returns false if it is not KRPC, by its first byte.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> bool {
        if bytes.first() != Some(&b'd') {
            return false;
        }
        self.received = (self.received.0 + 1, self.received.1 + bytes.len() as u64);
        let from = compact::canonical(from);
        if self.overlays.of(from.is_ipv6()).is_some() && self.outgoing.may_send(from) {
            match krpc::decode(bytes) {
                Ok(message) => self.handle_message(now, from, &message),
                Err(error) => self.handle_malformed(now, from, bytes, error.0),
            }
            self.go_on(now);
        }
        true
    }

    /// Handles the address of a possible node: from a resolved bootstrap name, a PORT message or a
    /// torrent's `nodes`. It is queried once and enters a table only if it answers.
    pub fn handle_hint(&mut self, now: Instant, addr: SocketAddr) {
        self.hint(now, compact::canonical(addr));
        self.go_on(now);
    }

    /// Handles the nodes saved by the last run ([`Dht::good_nodes`]); they precede bootstrap names.
    pub fn handle_saved(&mut self, now: Instant, nodes: &[Node]) {
        let (overlays, outgoing) = (&self.overlays, &self.outgoing);
        let addrs = nodes.iter().map(|node| compact::canonical(node.addr));
        let usable = |addr: &SocketAddr| overlays.of(addr.is_ipv6()).is_some() && outgoing.may_send(*addr);
        self.bootstrap.save(now, addrs.filter(usable));
        self.go_on(now);
    }

    /// Starts a request. The shell chooses the id and never reuses it.
    pub fn handle_request(&mut self, now: Instant, id: RequestId, request: Request) {
        if self.overlays.empty() == Empty::All {
            self.bootstrap.hasten();
        }
        self.requests.add(now, id, request, &mut self.outgoing);
        self.go_on(now);
    }

    /// Cancels a request.
    pub fn handle_cancel(&mut self, id: RequestId) {
        self.requests.cancel(id);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.outgoing.transactions.due(now) {
            match due {
                Due::Slow(sent) => self.slow(now, &sent),
                Due::Failed(sent) => self.failed(now, &sent),
            }
        }
        self.requests.expire(now, &mut self.outgoing);
        self.answers.expire(now);
        self.go_on(now);
    }

    /// Returns the next output; drain to None after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outgoing.poll_output()
    }

    /// Returns when to call [`Dht::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.requests.may_start() {
            return Some(Instant::ZERO);
        }
        let maintain_at = self.overlays.iter().filter_map(|overlay| overlay.maintain_at()).min();
        let others = [
            self.outgoing.transactions.due_at(),
            self.requests.waits_until(),
            self.answers.expires_at(),
            maintain_at,
        ];
        let first = self.bootstrap.due_at(self.overlays.empty());
        Some(others.into_iter().flatten().fold(first, Instant::min))
    }

    /// Returns at most [`saved::SAVED_COUNT_MAX`] nodes of both families to save for the next run:
    /// good ones first, then the others, so that an outage just before the end loses nothing.
    pub fn good_nodes(&self) -> Vec<Node> {
        let known =
            |is_v6| self.overlays.of(is_v6).into_iter().flat_map(|overlay| overlay.table.best_first());
        let v6_count = known(true).count();
        let v4_count = known(false).count().min(SAVED_COUNT_MAX - v6_count.min(SAVED_COUNT_MAX / 2));
        known(false).take(v4_count).chain(known(true).take(SAVED_COUNT_MAX - v4_count)).collect()
    }

    /// Returns the figures shown to the user.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let maintaining = self.overlays.iter().filter(|overlay| overlay.is_maintaining()).count();
        Snapshot {
            overlays: self.overlays.iter().map(|overlay| overlay.snapshot(self.port)).collect(),
            received: self.received,
            sent: self.outgoing.sent(),
            queries: self.answers.counts,
            stored_peers: self.answers.peers.counts(),
            stored_items: self.answers.items.len(),
            lookups: self.requests.active_count() + maintaining,
            read_only: self.overlays.families().any(|is_v6| self.outgoing.is_read_only(now, is_v6)),
        }
    }

    fn handle_message(&mut self, now: Instant, from: SocketAddr, message: &Message) {
        match &message.body {
            Body::Query(query) if self.overlays.is_own(query.id) => (),
            Body::Response(response) if self.overlays.is_own(response.id) => (),
            Body::Query(query) => self.handle_query(now, from, message.transaction, query),
            Body::Response(response) => {
                if let Some(sent) = self.outgoing.transactions.close(now, from, message.transaction) {
                    self.answered(now, &sent, message.external, response);
                }
            }
            Body::Error(code, text) => {
                if let Some(sent) = self.outgoing.transactions.close(now, from, message.transaction) {
                    self.refused(now, &sent, (*code, text));
                }
            }
        }
    }

    fn handle_query(&mut self, now: Instant, from: SocketAddr, transaction: &[u8], query: &Query) {
        if !self.answers.admit(now, from) {
            return;
        }
        self.outgoing.reach_mut(from).queried(now, from.ip());
        if self.outgoing.is_read_only(now, from.is_ipv6()) {
            return;
        }
        let asked = Asked { from, transaction, query };
        if let Some(bytes) = self.answers.answer(now, &asked, &self.overlays) {
            self.outgoing.datagram(from, bytes);
        }
        let Some(overlay) = self.overlays.of_mut(from.is_ipv6()) else { return };
        if !query.read_only
            && overlay.queried(now, Node { id: query.id, addr: from })
            && !self.outgoing.transactions.is_asking(from)
            && self.ping_back.take(now)
        {
            overlay.ping(now, from, &mut self.outgoing);
        }
    }

    /// Answers a malformed query with an error no longer than it, so as not to amplify traffic.
    fn handle_malformed(&mut self, now: Instant, from: SocketAddr, bytes: &[u8], what: &str) {
        let Some(message) = Value::read(bytes, &Limits::KRPC).ok().and_then(|value| value.dict()) else {
            return;
        };
        let is_query = message.get(b"y").and_then(|kind| kind.bytes()) == Some(b"q");
        let transaction = message.get(b"t").and_then(|transaction| transaction.bytes());
        let Some(transaction) = transaction.filter(|bytes| bytes.len() <= krpc::TRANSACTION_LEN_MAX) else {
            return;
        };
        if is_query
            && !self.outgoing.is_read_only(now, from.is_ipv6())
            && self.answers.admit(now, from)
            && let Some(answer) = self.answers.refuse(now, from, transaction, what, bytes.len())
        {
            self.outgoing.datagram(from, answer);
        }
    }

    /// Handles the response to a query of ours.
    fn answered(&mut self, now: Instant, sent: &Sent, external: Option<SocketAddr>, response: &Response) {
        let (from, is_v6) = (Node { id: response.id, addr: sent.to }, sent.to.is_ipv6());
        let Some(overlay) = self.overlays.of_mut(is_v6) else { return };
        let external = external.map(compact::canonical);
        let news = overlay.answered(now, from, now.since(sent.at), external);
        self.bootstrap.met(sent.to);
        self.outgoing.reach_mut(sent.to).answered(now, sent.to.ip());
        if let Some(external) = news {
            self.outgoing.own[usize::from(is_v6)] = Some(external);
            self.outgoing.tell(Output::External(external));
        }
        self.hint_other_family(now, sent.to, response);
        self.follow_answer(now, sent, from, response);
        self.requests.advance_waiting(now, is_v6, &self.overlays, &mut self.outgoing);
    }

    /// Passes a response to the part that sent the query.
    fn follow_answer(&mut self, now: Instant, sent: &Sent, from: Node, response: &Response) {
        let is_v6 = from.addr.is_ipv6();
        let Self { overlays, requests, bootstrap, outgoing, .. } = self;
        let want = overlays.want(now, is_v6);
        let Some(overlay) = overlays.of_mut(is_v6) else { return };
        match sent.purpose {
            Purpose::Ping => (),
            Purpose::Hint => overlay.named(sent.to, response.nodes()),
            Purpose::Saved => {
                overlay.named(sent.to, response.nodes());
                if !sent.is_slow {
                    bootstrap.saved_ended();
                }
            }
            Purpose::Old(place) => {
                if bootstrap.old_ended(place, from.addr, false) {
                    overlay.rejoin(now);
                }
            }
            Purpose::MaintenanceLookup(number) => {
                overlay.maintenance_answered(number, from, response.nodes());
                overlay.advance(now, outgoing, want);
            }
            Purpose::Lookup(id) => {
                let own = overlay.table.own();
                if let Some(running) = requests.running(id) {
                    running.answered(from, response, own, outgoing);
                }
                requests.advance(now, id, is_v6, overlays, outgoing);
            }
            Purpose::Store(id) => self.stored(now, sent, id, Some(Ok(()))),
        }
    }

    /// Handles an error in answer to a query of ours: the node is alive but useless for this query.
    /// Only a node that answers a ping with an error counts as unresponsive.
    fn refused(&mut self, now: Instant, sent: &Sent, error: (i64, &[u8])) {
        if let Purpose::Store(id) = sent.purpose {
            self.stored(now, sent, id, Some(Err(error)));
            return;
        }
        if !sent.is_slow {
            self.slow(now, sent);
        }
        if sent.purpose == Purpose::Ping {
            self.failed(now, sent);
        } else {
            self.ended(now, sent);
        }
    }

    fn stored(&mut self, now: Instant, sent: &Sent, id: RequestId, how: Option<Result<(), (i64, &[u8])>>) {
        let Self { overlays, requests, outgoing, .. } = self;
        if let Some(running) = requests.running(id) {
            running.stored(sent.to, how);
        }
        requests.advance(now, id, sent.to.is_ipv6(), overlays, outgoing);
    }

    /// Handles a late answer: its lookup queries further nodes in the meantime.
    fn slow(&mut self, now: Instant, sent: &Sent) {
        let Self { overlays, requests, bootstrap, outgoing, .. } = self;
        let is_v6 = sent.to.is_ipv6();
        let want = overlays.want(now, is_v6);
        match sent.purpose {
            Purpose::Ping | Purpose::Hint | Purpose::Old(_) | Purpose::Store(_) => (),
            Purpose::Saved => bootstrap.saved_ended(),
            Purpose::MaintenanceLookup(number) => {
                if let Some(overlay) = overlays.of_mut(is_v6) {
                    overlay.maintenance_slow(number, sent);
                    overlay.advance(now, outgoing, want);
                }
            }
            Purpose::Lookup(id) => {
                if let Some(running) = requests.running(id) {
                    running.slow(sent);
                }
                requests.advance(now, id, is_v6, overlays, outgoing);
            }
        }
    }

    /// Handles a query that timed out.
    fn failed(&mut self, now: Instant, sent: &Sent) {
        if let Some(overlay) = self.overlays.of_mut(sent.to.is_ipv6()) {
            overlay.failed(now, sent.to);
        }
        self.ended(now, sent);
        self.requests.advance_waiting(now, sent.to.is_ipv6(), &self.overlays, &mut self.outgoing);
    }

    /// Ends a query without a useful answer: the part that sent it continues without one.
    fn ended(&mut self, now: Instant, sent: &Sent) {
        let Self { overlays, requests, bootstrap, outgoing, .. } = self;
        let is_v6 = sent.to.is_ipv6();
        let want = overlays.want(now, is_v6);
        match sent.purpose {
            Purpose::Ping | Purpose::Hint | Purpose::Saved => (),
            Purpose::Old(place) => {
                bootstrap.old_ended(place, sent.to, true);
            }
            Purpose::MaintenanceLookup(number) => {
                if let Some(overlay) = overlays.of_mut(is_v6) {
                    overlay.maintenance_failed(number, sent);
                    overlay.advance(now, outgoing, want);
                }
            }
            Purpose::Lookup(id) => {
                if let Some(running) = requests.running(id) {
                    running.failed(sent);
                }
                requests.advance(now, id, is_v6, overlays, outgoing);
            }
            Purpose::Store(id) => self.stored(now, sent, id, None),
        }
    }

    fn hint(&mut self, now: Instant, addr: SocketAddr) {
        if let Some(overlay) = self.overlays.of(addr.is_ipv6())
            && self.outgoing.may_send(addr)
        {
            self.bootstrap.hint(now, addr, overlay.is_alone());
        }
    }

    /// Queries the nodes of the other family in a response if few are known there (BEP 32).
    fn hint_other_family(&mut self, now: Instant, from: SocketAddr, response: &Response) {
        if self.overlays.of(from.is_ipv4()).is_some_and(|other| other.table.len() < K) {
            let others = response.nodes().filter(|node| node.addr.is_ipv4() == from.is_ipv6());
            for node in others.filter(|node| may_name(from, node.addr)).take(OTHER_FAMILY_MAX) {
                self.hint(now, node.addr);
            }
        }
    }

    /// Does what is due or has become possible; cheap if nothing is.
    fn go_on(&mut self, now: Instant) {
        if self.outgoing.is_starved && self.outgoing.transactions.has_room() {
            self.outgoing.is_starved = false;
            self.feed(now);
        }
        if self.overlays.iter().any(|overlay| overlay.maintain_at().is_some_and(|at| at <= now)) {
            for is_v6 in self.overlays.families() {
                let want = self.overlays.want(now, is_v6);
                if let Some(overlay) = self.overlays.of_mut(is_v6) {
                    overlay.maintain(now, &mut self.outgoing, want);
                }
            }
        }
        self.requests.start(now, &self.overlays, &mut self.answers, &mut self.outgoing);
        self.try_bootstrap_sources(now);
        #[cfg(debug_assertions)]
        self.check_invariant();
    }

    /// Continues the lookups that waited for a free transaction.
    fn feed(&mut self, now: Instant) {
        let Self { overlays, requests, outgoing, .. } = self;
        for is_v6 in overlays.families() {
            let want = overlays.want(now, is_v6);
            if let Some(overlay) = overlays.of_mut(is_v6) {
                overlay.advance(now, outgoing, want);
            }
            requests.advance_all(now, is_v6, overlays, outgoing);
        }
    }

    /// Queries addresses of possible nodes, or has the bootstrap names resolved.
    fn try_bootstrap_sources(&mut self, now: Instant) {
        let empty = self.overlays.empty();
        if !self.bootstrap.has_saved() && now < self.bootstrap.due_at(empty) {
            return;
        }
        while let Some(addr) = self.bootstrap.next_saved() {
            let known = self.overlays.of(addr.is_ipv6()).map_or(0, |overlay| overlay.table.len());
            if known >= SAVED_ENOUGH || !self.introduce(now, addr, Purpose::Saved) {
                self.bootstrap.saved_ended();
            }
        }
        while let Some(addr) = self.bootstrap.next_hint(now) {
            self.introduce(now, addr, Purpose::Hint);
        }
        if let Some((place, addr)) = self.bootstrap.next_old(now) {
            self.introduce(now, addr, Purpose::Old(place));
        }
        if self.bootstrap.begin_bootstrap(now, empty) {
            self.outgoing.tell(Output::Bootstrap);
        }
    }

    /// Queries an address for the nodes closest to us.
    fn introduce(&mut self, now: Instant, addr: SocketAddr, purpose: Purpose) -> bool {
        let Some(identity) = self.overlays.identity(now, addr.is_ipv6()) else { return false };
        let method = Method::FindNode { target: identity.id, want: identity.want };
        self.outgoing.query(now, addr, purpose, &identity, method)
    }

    /// Checks what must hold after every input.
    #[cfg(debug_assertions)]
    fn check_invariant(&self) {
        self.outgoing.transactions.check_invariant();
        assert!(self.requests.active_count() <= request_queue::ACTIVE_MAX);
    }
}
