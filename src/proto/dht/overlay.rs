//! One of the two overlays (BEP 32): our id, the routing table, and its maintenance.
//!
//! The id fits our address (BEP 42) as the shell knows it or enough nodes see it; until then it is
//! the id of the last run, or random. When it changes, the table is sorted again, at most once per
//! [`RENAME_PAUSE`]. Joining is a lookup of our own id, repeated with growing pauses while the
//! table is smaller than a bucket; afterwards the table decides what is due. One maintenance lookup
//! runs at a time, and other maintenance waits for it, so that traffic has no bursts.

use std::net::{IpAddr, SocketAddr};

use super::bootstrap::Empty;
use super::defence::Defence;
use super::defence::prefix::may_name;
use super::event::{Config, OverlaySnapshot};
use super::krpc::{Method, Want};
use super::lookup::Lookup;
use super::node_id::{Node, NodeId};
use super::outgoing::{Identity, Outgoing};
use super::routing::{K, Table, Upkeep};
use super::transactions::{Purpose, Sent};
use super::voter::Voter;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// Least time between two changes of our id: each costs a lookup and our places in other tables.
const RENAME_PAUSE: Duration = Duration::from_secs(600);
/// Pause after the first lookup of our own id that left the table small; later pauses double.
const JOIN_PAUSE_MIN: Duration = Duration::from_secs(2);
/// Longest of these pauses: a network that stays at three nodes costs a lookup in five minutes.
const JOIN_PAUSE_MAX: Duration = Duration::from_secs(300);
/// Time between two lookups of our own id by disjoint paths, varied from three to five quarters of
/// it. If all nodes that our neighbours know belong to an attacker, they name only those, so
/// neighbours look for each other by paths around it. The first comes after a third of this time,
/// because nodes that start together find each other soon enough.
const GUARDED_PAUSE: Duration = Duration::from_secs(15 * 60);
/// Most nodes named by a bootstrap contact that lookups also start from.
const NAMED_MAX: usize = 2 * K;

/// If no node of a family is known, the other family's nodes are asked for them for this time in
/// each [`WANT_PERIOD`].
const WANT_SPAN: Duration = Duration::from_secs(60);
/// Period of [`WANT_SPAN`], long because many hosts have an IPv6 address and no IPv6 route.
const WANT_PERIOD: Duration = Duration::from_secs(600);

/// The progress of joining.
#[derive(Clone, Copy, Debug)]
enum Join {
    /// No node is known.
    Alone,
    /// Our own id is looked up at `at`; `pause` follows if the table stays small.
    Due { at: Instant, pause: Duration },
    /// Joined.
    Settled,
}

/// A maintenance lookup, with the number in its transactions.
#[derive(Debug)]
struct MaintenanceLookup {
    number: u32,
    lookup: Lookup,
}

/// One overlay.
#[derive(Debug)]
pub(super) struct Overlay {
    is_v6: bool,
    since: Instant,
    /// The nodes.
    pub(super) table: Table,
    voter: Voter,
    /// Our address, if the shell knows it.
    fixed: Option<IpAddr>,
    renamed_at: Option<Instant>,
    join: Join,
    maintenance: Option<MaintenanceLookup>,
    maintenance_count: u32,
    /// The next lookup of our own id by disjoint paths is not before this.
    guarded_at: Instant,
    /// Nodes that the last contact named while few were known. Lookups start from them too, so that
    /// a bootstrap node is queried once.
    named: Vec<Node>,
    defence: Defence,
    rng: Rng,
}

impl Overlay {
    /// Creates an overlay without nodes.
    pub(super) fn new(
        is_v6: bool,
        external: Option<IpAddr>,
        defence: Defence,
        mut rng: Rng,
        now: Instant,
    ) -> Self {
        let fixed = external.map(|ip| ip.to_canonical()).filter(|ip| ip.is_ipv6() == is_v6);
        let own = match fixed {
            Some(ip) => NodeId::for_ip(ip, &mut rng),
            None => NodeId::random(&mut rng),
        };
        Self {
            is_v6,
            since: now,
            table: Table::new(own, defence, rng.fork("table"), now),
            voter: Voter::default(),
            fixed,
            renamed_at: None,
            join: Join::Alone,
            maintenance: None,
            maintenance_count: 0,
            guarded_at: now + GUARDED_PAUSE / 3,
            named: Vec::new(),
            defence,
            rng,
        }
    }

    /// Uses the id of the last run, unless our address is known and the id does not fit it.
    pub(super) fn resume(&mut self, now: Instant, id: NodeId) {
        if self.fixed.is_none_or(|ip| id.fits(ip)) {
            self.table.rename(now, id);
        }
    }

    /// A node answered a query and reported our address as `external`. Returns our address if it is
    /// new.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        node: Node,
        round_trip: Duration,
        external: Option<SocketAddr>,
    ) -> Option<SocketAddr> {
        self.table.answered(now, node, round_trip);
        if matches!(self.join, Join::Alone) {
            self.join = Join::Due { at: now, pause: JOIN_PAUSE_MIN };
        }
        let claimed = external.filter(|claimed| claimed.is_ipv6() == self.is_v6 && self.fixed.is_none())?;
        let news = self.voter.vote(now, node.addr.ip(), claimed);
        if let Some(winner) = self.voter.winner() {
            self.follow(now, winner.ip());
        }
        news
    }

    /// A node sent a query. Returns whether to ping it: while few nodes are known, each unknown one
    /// is pinged, so that a network whose nodes start together forms within seconds.
    pub(super) fn queried(&mut self, now: Instant, node: Node) -> bool {
        let worth_it = self.table.queried(now, node);
        worth_it || (self.table.len() < K && self.table.good().all(|known| known.addr != node.addr))
    }

    /// A query failed.
    pub(super) fn failed(&mut self, now: Instant, addr: SocketAddr) {
        self.table.failed(now, addr);
        if self.is_alone() && self.maintenance.is_none() {
            self.join = Join::Alone;
        }
    }

    /// Whether no known node answered its last query.
    pub(super) fn is_alone(&self) -> bool {
        self.table.good().next().is_none()
    }

    /// Looks up our own id again, because part of the overlay was unreachable.
    pub(super) fn rejoin(&mut self, now: Instant) {
        self.join = Join::Due { at: now, pause: JOIN_PAUSE_MIN };
    }

    /// Changes to an id that fits our address.
    fn follow(&mut self, now: Instant, ip: IpAddr) {
        let lately = self.renamed_at.is_some_and(|at| now.since(at) < RENAME_PAUSE);
        if !lately && !self.table.own().fits(ip) {
            self.renamed_at = Some(now);
            let own = NodeId::for_ip(ip, &mut self.rng);
            self.table.rename(now, own);
            self.rejoin(now);
        }
    }

    /// When this node joined.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Returns when [`Overlay::maintain`] has something to do.
    pub(super) fn maintain_at(&self) -> Option<Instant> {
        if self.maintenance.is_some() {
            return None;
        }
        let joins_at = match self.join {
            Join::Alone | Join::Settled => None,
            Join::Due { at, .. } => Some(at),
        };
        joins_at.into_iter().chain(self.table.upkeep_at()).min()
    }

    /// Does the maintenance that is due.
    pub(super) fn maintain(&mut self, now: Instant, outgoing: &mut Outgoing, want: Want) {
        if let Join::Due { at, .. } = self.join
            && at <= now
            && self.maintenance.is_none()
        {
            self.begin_maintenance(now, self.table.own(), outgoing, want);
        }
        while self.maintenance.is_none()
            && let Some(upkeep) = self.table.upkeep(now)
        {
            match upkeep {
                Upkeep::Ping(node) => self.ping(now, node.addr, outgoing),
                Upkeep::Refresh(target) => self.begin_maintenance(now, target, outgoing, want),
            }
        }
    }

    /// Pings a node.
    pub(super) fn ping(&mut self, now: Instant, addr: SocketAddr, outgoing: &mut Outgoing) {
        let identity = Identity { id: self.table.own(), want: Want::default() };
        // A node without a free transaction counts as failed; a good one is queried again soon.
        if !outgoing.query(now, addr, Purpose::Ping, &identity, Method::Ping) {
            self.failed(now, addr);
        }
    }

    /// Adds nodes that a contact named.
    pub(super) fn named(&mut self, namer: SocketAddr, nodes: impl Iterator<Item = Node>) {
        if self.table.len() < K {
            let nodes = others(nodes, self.is_v6, self.table.own());
            self.named = nodes.filter(|node| may_name(namer, node.addr)).take(NAMED_MAX).collect();
        }
    }

    /// Returns a guarded lookup that starts at the known nodes.
    pub(super) fn lookup(&self, target: NodeId) -> Lookup {
        Lookup::new(target, &self.starts(target), self.table.size_estimate(), self.defence)
    }

    fn starts(&self, target: NodeId) -> Vec<Node> {
        let mut starts = self.table.starts(target);
        starts.extend_from_slice(&self.named);
        starts
    }

    /// Starts a maintenance lookup.
    fn begin_maintenance(&mut self, now: Instant, target: NodeId, outgoing: &mut Outgoing, want: Want) {
        self.maintenance_count = self.maintenance_count.wrapping_add(1);
        // A random target needs no guard, because no attacker knows it beforehand.
        let is_guarded = self.defence.own_id_paths && target == self.table.own() && self.guarded_at <= now;
        let lookup = if is_guarded {
            self.guarded_at = now + GUARDED_PAUSE.mul_f64(0.75 + self.rng.unit() / 2.0);
            self.lookup(target)
        } else {
            Lookup::new(target, &self.starts(target), 0, self.defence)
        };
        self.maintenance = Some(MaintenanceLookup { number: self.maintenance_count, lookup });
        self.advance(now, outgoing, want);
    }

    /// Sends the queries of the maintenance lookup, and ends it when it is done.
    pub(super) fn advance(&mut self, now: Instant, outgoing: &mut Outgoing, want: Want) {
        let identity = Identity { id: self.table.own(), want };
        let Some(MaintenanceLookup { number, lookup }) = &mut self.maintenance else { return };
        let method = Method::FindNode { target: lookup.target(), want };
        ask_next(now, lookup, outgoing, Purpose::MaintenanceLookup(*number), &identity, method);
        if lookup.is_done() {
            let target = lookup.target();
            if let Some(size) = lookup.size_estimate() {
                self.table.learn_size(target, size);
            }
            self.maintenance = None;
            self.named = Vec::new();
            self.maintenance_ended(now, target);
        }
    }

    /// A maintenance lookup ended.
    fn maintenance_ended(&mut self, now: Instant, target: NodeId) {
        if self.is_alone() {
            self.join = Join::Alone;
        } else if let Join::Due { at, pause } = self.join
            && at <= now
            && target == self.table.own()
        {
            self.join = if self.table.len() < K {
                let at = now + pause.mul_f64(0.75 + self.rng.unit() / 2.0);
                Join::Due { at, pause: (pause * 2).min(JOIN_PAUSE_MAX) }
            } else {
                Join::Settled
            };
        }
    }

    /// A query of the maintenance lookup with this number was answered.
    pub(super) fn maintenance_answered(
        &mut self,
        number: u32,
        from: Node,
        nodes: impl Iterator<Item = Node>,
    ) {
        let is_v6 = self.is_v6;
        let own = self.table.own();
        if let Some(maintenance) =
            self.maintenance.as_mut().filter(|maintenance| maintenance.number == number)
        {
            maintenance.lookup.answered(from.addr, from.id, others(nodes, is_v6, own), None);
        }
    }

    /// A query of the maintenance lookup with this number is late.
    pub(super) fn maintenance_slow(&mut self, number: u32, sent: &Sent) {
        if let Some(maintenance) =
            self.maintenance.as_mut().filter(|maintenance| maintenance.number == number)
        {
            maintenance.lookup.slow(sent.to);
        }
    }

    /// A query of the maintenance lookup with this number failed.
    pub(super) fn maintenance_failed(&mut self, number: u32, sent: &Sent) {
        if let Some(maintenance) =
            self.maintenance.as_mut().filter(|maintenance| maintenance.number == number)
        {
            maintenance.lookup.failed(sent.to);
        }
    }

    /// Whether a maintenance lookup is running.
    pub(super) fn is_maintaining(&self) -> bool {
        self.maintenance.is_some()
    }

    /// Returns the figures of the overlay.
    pub(super) fn snapshot(&self, port: u16) -> OverlaySnapshot {
        OverlaySnapshot {
            is_v6: self.is_v6,
            id: self.table.own(),
            external: self.fixed.map(|ip| SocketAddr::new(ip, port)).or(self.voter.winner()),
            nodes: (self.table.len(), self.table.good().count()),
            size_estimate: self.table.size_estimate(),
        }
    }
}

/// Returns the nodes of one overlay without this node.
pub(super) fn others(
    nodes: impl Iterator<Item = Node>,
    is_v6: bool,
    own: NodeId,
) -> impl Iterator<Item = Node> {
    nodes.filter(move |node| node.addr.is_ipv6() == is_v6 && node.id != own)
}

/// Sends the queries of a lookup, as far as transactions are free.
pub(super) fn ask_next(
    now: Instant,
    lookup: &mut Lookup,
    outgoing: &mut Outgoing,
    purpose: Purpose,
    identity: &Identity,
    method: Method,
) {
    while outgoing.transactions.has_room() {
        let Some(node) = lookup.next_query() else { return };
        if !outgoing.query(now, node.addr, purpose, identity, method) {
            lookup.failed(node.addr);
        }
    }
    outgoing.is_starved = true;
}

/// Both overlays, as far as this node joins them.
#[derive(Debug)]
pub(super) struct Overlays([Option<Overlay>; 2]);

impl Overlays {
    /// Creates those of the configuration.
    pub(super) fn new(config: &Config, defence: Defence, rng: &mut Rng, now: Instant) -> Self {
        let v4 = config.v4.then(|| Overlay::new(false, config.external, defence, rng.fork("v4"), now));
        let v6 = config.v6.then(|| Overlay::new(true, config.external, defence, rng.fork("v6"), now));
        Self([v4, v6])
    }

    /// Returns the overlay of a family.
    pub(super) fn of(&self, is_v6: bool) -> Option<&Overlay> {
        self.0[usize::from(is_v6)].as_ref()
    }

    /// Returns the overlay of a family for changes.
    pub(super) fn of_mut(&mut self, is_v6: bool) -> Option<&mut Overlay> {
        self.0[usize::from(is_v6)].as_mut()
    }

    /// Returns all overlays.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Overlay> {
        self.0.iter().flatten()
    }

    /// Returns the families, IPv6 or not.
    pub(super) fn families(&self) -> impl Iterator<Item = bool> + use<> {
        let [v4, v6] = [self.0[0].is_some(), self.0[1].is_some()];
        [false, true].into_iter().filter(move |&is_v6| if is_v6 { v6 } else { v4 })
    }

    /// Returns how many overlays know no node.
    pub(super) fn empty(&self) -> Empty {
        let empty = self.iter().filter(|overlay| overlay.is_alone()).count();
        match empty {
            0 => Empty::None,
            _ if empty == self.iter().count() => Empty::All,
            _ => Empty::One,
        }
    }

    /// Whether an id is one of our own.
    pub(super) fn is_own(&self, id: NodeId) -> bool {
        self.iter().any(|overlay| overlay.table.own() == id)
    }

    /// Returns the families of nodes to ask for in one family: also the other one if few of its
    /// nodes are known there, and now and then if none is.
    pub(super) fn want(&self, now: Instant, is_v6: bool) -> Want {
        let both = self.of(!is_v6).is_some_and(|other| {
            let age = now.since(other.since).as_micros() % WANT_PERIOD.as_micros();
            other.table.len() < K && (!other.is_alone() || age < WANT_SPAN.as_micros())
        });
        Want { v4: both, v6: both }
    }

    /// Returns our identity in a family.
    pub(super) fn identity(&self, now: Instant, is_v6: bool) -> Option<Identity> {
        let id = self.of(is_v6)?.table.own();
        Some(Identity { id, want: self.want(now, is_v6) })
    }
}
