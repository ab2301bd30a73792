//! The routing table of one overlay (BEP 5): nodes by how much of their id they share with ours.
//!
//! A node enters only by an answer to a query of ours; one node an id, one an address, one a /24 or
//! /64 in a bucket (local addresses are exempt). Of two nodes that compete for a place the one
//! whose id fits its address (BEP 42) wins, then the one that has been there longer. A node that
//! fails is replaced from the bucket's spare nodes; without a spare node it stays for two hours and
//! is queried now and then, so that the halves of a partitioned network find each other again.
//!
//! There is a bucket for each number of leading bits shared with our id. The farthest are wider
//! than k (128, 64, 32, 16): they hold most of the network, and a step from there gains up to four
//! bits more. Our 32 neighbours have a place besides: a Sybil attacker with fitting ids has four
//! times as many nodes around a target as there are others, and would fill the buckets of k of all
//! nodes there, so that these know only its nodes. A table has 240 nodes in an overlay of 1,000 and
//! 320 in one of 100,000, at 80 bytes each, in one list sorted by distance from us: a bucket is a
//! range of it, and the nodes closest to a target are found by descending as in a trie.
//!
//! The cost of maintenance: at most one ping in 2.5 s (about 100 bytes out, 80 back), and as many
//! from other nodes: 72 bytes/s each way. Only the buckets that are not full and the farthest one
//! are refreshed, about six in 15 min with some 17 queries each, and as many by other nodes:
//! answers of 300 bytes make 34 bytes/s each way, queries 11. The guarded lookup of our own id
//! takes 40 more queries in that time: 16. Together 133 bytes/s each way.
//!
//! It knows no pending queries and sends nothing.

mod entries;

use std::net::SocketAddr;

use super::defence::Defence;
use super::defence::density::{SizeSamples, size_by_density};
use super::node_id::{Node, NodeId};
use super::transactions::FAILED_AFTER;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use entries::{BUCKET_COUNT, Entries, Entry, Place};

/// Nodes in a bucket, and in an answer (BEP 5).
pub const K: usize = 8;

/// A node is pinged after this time of silence: early enough that even the last of 300 answers
/// every 15 min, and so is good (BEP 5) as long as it has not failed.
const PING_AFTER: Duration = Duration::from_secs(10 * 60);
/// A node is pinged this long after its last answer even if it queries us: with a forged source it
/// may be dead.
const QUERIES_SUFFICE: Duration = Duration::from_secs(30 * 60);
/// Least time between two pings: 300 nodes in 13 min.
const PING_GAP: Duration = Duration::from_millis(2_500);
/// A node that failed once is queried again after this: one datagram may be lost.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// A bad node without a replacement is queried again after this.
const BAD_RETRY_AFTER: Duration = Duration::from_secs(10 * 60);
/// A bad node is forgotten after this time of silence: the longest partition that heals by itself.
const LOST_AFTER: Duration = Duration::from_secs(2 * 3600);
/// Time for a ping to be answered or to fail before the table wants another one.
const PING_PENDING: Duration = Duration::from_secs(60);
/// Nodes far from the target at which a guarded lookup begins.
const FAR_START_COUNT: usize = 3 * K / 2;
/// Least time between two pings of unknown nodes that queried us: sources may be forged.
const STRANGER_GAP: Duration = Duration::from_secs(4);
/// A bucket that is not full is refreshed this soon, then after twice as long each time,
const REFRESH_FIRST: Duration = Duration::from_secs(15);
/// up to this (BEP 5).
const REFRESH_AFTER: Duration = Duration::from_secs(15 * 60);
/// Least time between two refreshes: half of all nodes may start at once, and each loads other
/// nodes as much as itself.
const REFRESH_GAP: Duration = Duration::from_secs(30);
/// The same while too few nodes are known to begin a lookup in the right part of the key space.
const REFRESH_GAP_FEW: Duration = Duration::from_secs(5);
/// The number of nodes that are no longer few.
const FEW_COUNT: usize = 4 * K;
/// The first refresh comes within this time, so that nodes started together do not query at once.
const REFRESH_START: Duration = Duration::from_secs(1);

/// The table.
#[derive(Debug)]
pub struct Table {
    entries: Entries,
    rng: Rng,
    /// No node is due for a ping before this.
    ping_due: Instant,
    /// No ping before this, whichever node is due.
    ping_allowed: Instant,
    stranger_allowed: Instant,
    /// No bucket is due for a refresh before this.
    refresh_due: Instant,
    /// No refresh before this, whichever is due.
    refresh_allowed: Instant,
    refreshes: [RefreshPlan; BUCKET_COUNT],
    size: SizeSamples,
    defence: Defence,
}

/// When a bucket is refreshed, if it is not full by then.
#[derive(Clone, Copy, Debug)]
struct RefreshPlan {
    due: Instant,
    /// From this time to the next.
    wait: Duration,
}

/// What the table asks of the machine to stay good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Upkeep {
    /// Ping a node that was silent for long.
    Ping(Node),
    /// Look up this target, to refresh a bucket.
    Refresh(NodeId),
}

impl Table {
    /// Returns an empty table. It is idle until the first node answers; then it asks for a lookup
    /// of our own id.
    pub fn new(own: NodeId, defence: Defence, rng: Rng, now: Instant) -> Self {
        Self {
            entries: Entries::new(own, defence),
            rng,
            ping_due: now,
            ping_allowed: now,
            stranger_allowed: now,
            refresh_due: now,
            refresh_allowed: now,
            refreshes: [RefreshPlan { due: now, wait: REFRESH_FIRST }; BUCKET_COUNT],
            size: SizeSamples::default(),
            defence,
        }
    }

    /// Returns our id.
    pub fn own(&self) -> NodeId {
        self.entries.own()
    }

    /// Handles a node that answered a query of ours. A node whose id changed is evicted; it enters
    /// with the new one at its next answer.
    pub fn answered(&mut self, now: Instant, node: Node, round_trip: Duration) {
        if node.id == self.own() {
            return;
        }
        let due = now + jitter(&mut self.rng, PING_AFTER);
        let entry = Entry::new(node, self.defence.fits(&node), now, due, round_trip);
        if let Some(known) = self.entries.known(&node) {
            *known = entry;
            return;
        }
        if let Some(removed) = self.entries.remove_address(node.addr) {
            let refilled = self.entries.refill(removed);
            self.entered(refilled);
            return;
        }
        if self.is_empty() {
            self.refresh_allowed = now + REFRESH_START.mul_f64(self.rng.unit());
        }
        if self.entries.insert(entry) {
            self.ping_due = self.ping_due.min(due);
            let bucket = self.entries.bucket_of(node.id);
            self.refresh_due = self.refresh_due.min(self.refreshes[bucket].due);
        }
    }

    /// Handles a query that timed out. One sent before the last failure was noticed does not count:
    /// many lookups may query a node within one outage.
    pub fn failed(&mut self, now: Instant, addr: SocketAddr) {
        let Some(entry) = self.entries.at_address(addr) else { return };
        if entry.fails > 0 && now - entry.failed_at < FAILED_AFTER {
            return;
        }
        entry.fail(now);
        let wait = if entry.is_bad() { BAD_RETRY_AFTER } else { RETRY_AFTER };
        entry.due = now + jitter(&mut self.rng, wait);
        self.ping_due = self.ping_due.min(entry.due);
        if entry.is_bad() {
            let is_lost = now - entry.heard_at >= LOST_AFTER;
            let id = entry.node.id;
            let replaced = self.entries.replace(id, is_lost);
            self.entered(replaced);
        }
    }

    /// Plans the ping of a spare node that got a place: its last answer may be long ago.
    fn entered(&mut self, due: Option<Instant>) {
        self.ping_due = due.map_or(self.ping_due, |due| self.ping_due.min(due));
    }

    /// Handles a node that queried us. Returns whether it is unknown and worth a ping.
    pub fn queried(&mut self, now: Instant, node: Node) -> bool {
        if node.id == self.own() {
            return false;
        }
        if let Some(known) = self.entries.known(&node) {
            if known.fails == 0 {
                let due = now + jitter(&mut self.rng, PING_AFTER);
                known.due = due.min(known.heard_at + QUERIES_SUFFICE).max(known.due);
            } else {
                // A bad node may be back, or the source is forged: ping it.
                known.due = known.due.min(now);
                self.ping_due = self.ping_due.min(now);
            }
            return false;
        }
        let is_worth_it = now >= self.stranger_allowed
            && match self.entries.place(&node, self.defence.fits(&node)) {
                Place::Room | Place::Over(_) => true,
                Place::Spare | Place::Nowhere => false,
            };
        if is_worth_it {
            self.stranger_allowed = now + STRANGER_GAP;
        }
        is_worth_it
    }

    /// Returns the known nodes closest to a target, at most `count`, closest first. Nodes that
    /// failed lately are included only if others do not suffice, bad ones only if there are no
    /// others. At most half have ids that do not fit their address if enough others are known, so
    /// that such ids cannot hide other nodes.
    pub fn closest(&self, target: NodeId, count: usize) -> Vec<Node> {
        self.entries.closest(target, count)
    }

    /// Returns where a lookup begins: the k nodes closest to the target, then twelve of the
    /// farthest, where an attacker of this target has no reason to be.
    pub fn starts(&self, target: NodeId) -> Vec<Node> {
        let mut starts = self.closest(target, K);
        let far = self.closest(NodeId(target.0.map(|byte| !byte)), FAR_START_COUNT);
        starts.extend(far.into_iter().filter(|node| !starts.contains(node)).collect::<Vec<_>>());
        starts
    }

    /// Changes our id and sorts the nodes again.
    pub fn rename(&mut self, now: Instant, own: NodeId) {
        if own == self.own() {
            return;
        }
        let old = std::mem::replace(&mut self.entries, Entries::new(own, self.defence));
        for entry in old.into_entries().filter(|entry| entry.node.id != own) {
            self.entries.insert(entry);
        }
        self.refreshes = [RefreshPlan { due: now, wait: REFRESH_FIRST }; BUCKET_COUNT];
        self.refresh_due = now;
    }

    /// Returns what is due; None: nothing before [`Table::upkeep_at`].
    pub fn upkeep(&mut self, now: Instant) -> Option<Upkeep> {
        if self.is_empty() {
            return None;
        }
        self.due_ping(now).or_else(|| self.due_refresh(now))
    }

    /// Returns when to call [`Table::upkeep`].
    pub fn upkeep_at(&self) -> Option<Instant> {
        let ping_at = self.ping_due.max(self.ping_allowed);
        let refresh_at = self.refresh_due.max(self.refresh_allowed);
        (!self.is_empty()).then(|| ping_at.min(refresh_at))
    }

    /// Returns the good nodes: they answered the last query.
    pub fn good(&self) -> impl Iterator<Item = Node> {
        self.entries.iter().filter(|entry| entry.fails == 0).map(|entry| entry.node)
    }

    /// Returns all nodes, good ones first.
    pub fn best_first(&self) -> impl Iterator<Item = Node> {
        let failed = self.entries.iter().filter(|entry| entry.fails > 0).map(|entry| entry.node);
        self.good().chain(failed)
    }

    /// Returns the number of nodes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the estimated number of nodes in the whole overlay.
    pub fn size_estimate(&self) -> u64 {
        let living = || self.entries.iter().filter(|entry| !entry.is_bad());
        let density = || size_by_density(living().map(|entry| entry.node.id.distance(self.own())));
        if self.defence.sampled_size { self.size.estimate(density) } else { density() }
    }

    /// Takes in what a lookup of a target that no other node chose found the overlay's size to be.
    pub fn learn_size(&mut self, target: NodeId, size: u64) {
        self.size.add(self.entries.own(), target, size);
    }

    fn due_ping(&mut self, now: Instant) -> Option<Upkeep> {
        if now < self.ping_due.max(self.ping_allowed) {
            return None;
        }
        let entry = self.entries.most_due()?;
        if now < entry.due {
            self.ping_due = entry.due;
            return None;
        }
        entry.due = now + PING_PENDING;
        let node = entry.node;
        self.ping_allowed = now + jitter(&mut self.rng, PING_GAP);
        Some(Upkeep::Ping(node))
    }

    fn due_refresh(&mut self, now: Instant) -> Option<Upkeep> {
        if now < self.refresh_due.max(self.refresh_allowed) {
            return None;
        }
        let deepest = self.entries.deepest();
        // Our neighbours first: lookups for what we store lead to them.
        let found = (0..=deepest).rev().find(|&bucket| self.wants_refresh(now, bucket));
        let next = self.refreshes[..=deepest].iter().map(|plan| plan.due).min();
        self.refresh_due = next.unwrap_or(now + REFRESH_AFTER);
        let bucket = found?;
        let gap = if self.len() < FEW_COUNT { REFRESH_GAP_FEW } else { REFRESH_GAP };
        self.refresh_allowed = now + jitter(&mut self.rng, gap);
        let own = self.own();
        let target = if bucket == deepest { own } else { own.random_at(bucket as u32, &mut self.rng) };
        Some(Upkeep::Refresh(target))
    }

    /// Returns whether a bucket is to be refreshed now; plans the next check.
    fn wants_refresh(&mut self, now: Instant, bucket: usize) -> bool {
        let RefreshPlan { due, wait } = self.refreshes[bucket];
        if now < due {
            return false;
        }
        // Our own bucket is refreshed even if it is full, because there may be closer nodes; so is
        // the other half of the key space, from which the overlay's size is estimated.
        let is_full = self.entries.is_full(bucket) && bucket != self.entries.deepest() && bucket > 0;
        let wait = if is_full { REFRESH_AFTER } else { wait };
        self.refreshes[bucket] =
            RefreshPlan { due: now + jitter(&mut self.rng, wait), wait: REFRESH_AFTER.min(wait * 2) };
        !is_full
    }
}

/// Returns a span between three and five quarters of this one, so that nodes that start together
/// spread out.
fn jitter(rng: &mut Rng, span: Duration) -> Duration {
    span.mul_f64(0.75 + rng.unit() / 2.0)
}

#[cfg(test)]
mod tests;
