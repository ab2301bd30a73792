//! The nodes of a table: one list ordered by distance from our id, of which each bucket is a range,
//! and the spare nodes.
//!
//! Decides which node may have which place (capacities; one id, one address, one prefix in a
//! bucket) and which are closest. Does not know the time.

use std::net::SocketAddr;
use std::ops::Range;

use super::K;
use crate::proto::dht::defence::Defence;
use crate::proto::dht::defence::prefix::is_same_host;
use crate::proto::dht::node_id::{Node, NodeId};
use crate::proto::time::{Duration, Instant};

/// Number of buckets; the last one has all nodes that share more bits with our id. An overlay of
/// 2^27 nodes fits, and an attacker with ids close to ours fills one bucket, not a hundred.
pub(super) const BUCKET_COUNT: usize = 25;
/// Capacity of the farthest buckets, which cover most of the network; that of all others is k.
const WIDE: [usize; 4] = [128, 64, 32, 16];
/// Nodes closest to our id that keep a place whether their bucket is full or not. An attacker
/// around our id, with eight ids for each address, fills its buckets of k before our neighbours
/// arrive; these places are left for them. Without an attacker all but about eight of them are in
/// their buckets anyway.
pub(super) const NEIGHBOUR_COUNT: usize = 4 * K;
/// Most spare nodes of a bucket; the one that was silent for longest is replaced.
const SPARE_COUNT_MAX: usize = K;
/// Consecutive failures that make a node bad: with 1 % loss a live node fails twice in a row once
/// in 10,000 times.
const BAD_FAILS: u8 = 2;

/// A node that answered, with its state.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) node: Node,
    /// Failures since it last answered.
    pub(super) fails: u8,
    /// Whether its id fits its address (BEP 42).
    fits: bool,
    /// Round-trip time of its last answer, milliseconds.
    round_trip: u16,
    /// When it last answered.
    pub(super) heard_at: Instant,
    /// When its last failure was noticed.
    pub(super) failed_at: Instant,
    /// When it is due for a query.
    pub(super) due: Instant,
}

/// The place of a new node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A free place in its bucket, or one of a neighbour of ours.
    Room,
    /// The place of this node, or a place that needs its removal.
    Over(usize),
    /// A place among the spare nodes, because its bucket is full of nodes that are not worse.
    Spare,
    /// No place, because its id, address or prefix is taken.
    Nowhere,
}

/// The nodes of a table.
#[derive(Debug)]
pub(super) struct Entries {
    own: NodeId,
    /// Closest to our id first.
    list: Vec<Entry>,
    /// The leading bits of their distances: the node of an answer is found in these 2 KiB instead
    /// of the 20 KiB of `list`, which other work pushes out of the cache between two datagrams.
    keys: Vec<u64>,
    /// Unordered; at most [`SPARE_COUNT_MAX`] of a bucket.
    spares: Vec<Entry>,
    /// Nodes of `list` whose id does not fit their address.
    unfit: usize,
    defence: Defence,
}

impl Entry {
    /// Creates the entry of a node that has just answered.
    pub(super) fn new(node: Node, fits: bool, now: Instant, due: Instant, round_trip: Duration) -> Self {
        let round_trip = u16::try_from(round_trip.as_millis()).unwrap_or(u16::MAX);
        Self { node, fails: 0, fits, round_trip, heard_at: now, failed_at: now, due }
    }

    /// Notes a failed query.
    pub(super) fn fail(&mut self, now: Instant) {
        self.fails = self.fails.saturating_add(1);
        self.failed_at = now;
    }

    /// Whether it is bad, so that any other node may replace it.
    pub(super) fn is_bad(&self) -> bool {
        self.fails >= BAD_FAILS
    }
}

impl Entries {
    pub(super) fn new(own: NodeId, defence: Defence) -> Self {
        Self { own, list: Vec::new(), keys: Vec::new(), spares: Vec::new(), unfit: 0, defence }
    }

    pub(super) fn own(&self) -> NodeId {
        self.own
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns the nodes, closest to our id first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.list.iter()
    }

    /// Returns all nodes, then the spare ones.
    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.list.into_iter().chain(self.spares)
    }

    /// Returns the entry of exactly this node.
    pub(super) fn known(&mut self, node: &Node) -> Option<&mut Entry> {
        let at = self.find(node.id).ok()?;
        Some(&mut self.list[at]).filter(|entry| entry.node.addr == node.addr)
    }

    /// Returns the node at this address; a spare one is forgotten.
    pub(super) fn at_address(&mut self, addr: SocketAddr) -> Option<&mut Entry> {
        self.spares.retain(|entry| entry.node.addr != addr);
        self.list.iter_mut().find(|entry| entry.node.addr == addr)
    }

    /// Removes the node at this address; returns its bucket.
    pub(super) fn remove_address(&mut self, addr: SocketAddr) -> Option<usize> {
        let at = self.list.iter().position(|entry| entry.node.addr == addr)?;
        let bucket = self.bucket_of(self.list[at].node.id);
        self.remove(at);
        Some(bucket)
    }

    /// Returns the node that is due first.
    pub(super) fn most_due(&mut self) -> Option<&mut Entry> {
        self.list.iter_mut().min_by_key(|entry| entry.due)
    }

    /// Returns the bucket of an id.
    pub(super) fn bucket_of(&self, id: NodeId) -> usize {
        (self.own.shared_bits(id) as usize).min(BUCKET_COUNT - 1)
    }

    /// Returns the bucket of the closest node.
    pub(super) fn deepest(&self) -> usize {
        self.list.first().map_or(0, |closest| self.bucket_of(closest.node.id))
    }

    /// Whether a bucket is at its capacity without bad nodes.
    pub(super) fn is_full(&self, bucket: usize) -> bool {
        let nodes = &self.list[self.range(bucket)];
        nodes.len() >= capacity(bucket) && nodes.iter().all(|entry| !entry.is_bad())
    }

    /// Returns the place of an unknown node.
    pub(super) fn place(&self, node: &Node, fits: bool) -> Place {
        let over = |at: usize, may: bool| if may { Place::Over(at) } else { Place::Nowhere };
        let closer = match self.find(node.id) {
            Ok(at) => return over(at, self.list[at].is_bad()),
            Err(closer) => closer,
        };
        if let Some(at) = self.list.iter().position(|entry| is_same_host(entry.node.addr, node.addr)) {
            let entry = &self.list[at];
            return over(at, entry.node.addr == node.addr || entry.is_bad());
        }
        let bucket = self.bucket_of(node.id);
        let range = self.range(bucket);
        let is_worse = |entry: &Entry| entry.is_bad() || (fits && !entry.fits);
        let prefix = self.defence.prefix(node.addr);
        let has_prefix = |at: usize| self.defence.prefix(self.list[at].node.addr) == prefix;
        if let Some(at) = range.clone().find(|&at| has_prefix(at)) {
            return over(at, is_worse(&self.list[at]));
        }
        if range.len() < capacity(bucket) {
            return Place::Room;
        }
        let worst = range.filter(|&at| is_worse(&self.list[at])).max_by_key(|&at| {
            let entry = &self.list[at];
            (entry.is_bad(), !entry.fits, std::cmp::Reverse(entry.heard_at))
        });
        match worst {
            Some(at) => Place::Over(at),
            None if closer < self.neighbour_count() => Place::Room,
            None => Place::Spare,
        }
    }

    /// Adds an unknown node if it has a place; returns whether it is in a bucket now.
    pub(super) fn insert(&mut self, entry: Entry) -> bool {
        loop {
            match self.place(&entry.node, entry.fits) {
                Place::Over(at) => self.remove(at),
                Place::Room => {
                    self.add(entry);
                    return true;
                }
                Place::Spare => {
                    self.spare(entry);
                    return false;
                }
                Place::Nowhere => return false,
            }
        }
    }

    /// Replaces a bad node by a spare one, if there is one. If not, the bad node stays unless it is
    /// lost or its bucket exceeds its capacity. Returns when the spare one is due for a query.
    pub(super) fn replace(&mut self, bad: NodeId, is_lost: bool) -> Option<Instant> {
        let at = self.find(bad).ok()?;
        let bucket = self.bucket_of(bad);
        if !is_lost && self.range(bucket).len() <= capacity(bucket) {
            self.best_spare(bucket)?;
        }
        self.remove(at);
        self.refill(bucket)
    }

    /// Moves the best spare node of a bucket into it, if there is one; returns when it is due for a
    /// query.
    pub(super) fn refill(&mut self, bucket: usize) -> Option<Instant> {
        let spare = self.spares.swap_remove(self.best_spare(bucket)?);
        let due = spare.due;
        self.insert(spare).then_some(due)
    }

    /// Returns the best spare node of a bucket that may have a place there.
    fn best_spare(&self, bucket: usize) -> Option<usize> {
        (0..self.spares.len())
            .filter(|&spare| self.bucket_of(self.spares[spare].node.id) == bucket)
            .filter(|&spare| !matches!(self.place(&self.spares[spare].node, true), Place::Nowhere))
            .min_by_key(|&spare| (!self.spares[spare].fits, self.spares[spare].round_trip))
    }

    /// Implements [`super::Table::closest`].
    pub(super) fn closest(&self, target: NodeId, count: usize) -> Vec<Node> {
        let mut nodes = self.closest_of(target, count, |entry| entry.fails == 0);
        if nodes.len() < count {
            nodes = self.closest_of(target, count, |entry| !entry.is_bad());
        }
        if nodes.is_empty() {
            nodes = self.closest_of(target, count, |_| true);
        }
        nodes
    }

    /// Returns the closest nodes that `may` accepts; half of them have fitting ids, if enough are
    /// known.
    fn closest_of(&self, target: NodeId, count: usize, may: impl Fn(&Entry) -> bool) -> Vec<Node> {
        let mut nodes = Vec::with_capacity(count + K);
        self.descend(
            0..self.list.len(),
            target,
            0,
            count,
            &|entry: &Entry| entry.fits && may(entry),
            &mut nodes,
        );
        if self.unfit == 0 {
            nodes.truncate(count);
            return nodes;
        }
        let mut unfit = Vec::with_capacity(count + K);
        self.descend(
            0..self.list.len(),
            target,
            0,
            count,
            &|entry: &Entry| !entry.fits && may(entry),
            &mut unfit,
        );
        nodes.truncate(count);
        unfit.truncate((count / 2).max(count - nodes.len()));
        nodes.append(&mut unfit);
        nodes.sort_unstable_by_key(|node| node.id.distance(target));
        nodes.truncate(count);
        nodes
    }

    /// Appends the closest nodes of a range whose ids share their leading bits, until there are
    /// `count` or, to avoid a second sort, a few more.
    fn descend(
        &self,
        range: Range<usize>,
        target: NodeId,
        bits: u32,
        count: usize,
        may: &impl Fn(&Entry) -> bool,
        nodes: &mut Vec<Node>,
    ) {
        if nodes.len() >= count {
            return;
        }
        if range.len() <= K || bits == u64::BITS {
            let sorted = nodes.len();
            nodes.extend(self.list[range].iter().filter(|entry| may(entry)).map(|entry| entry.node));
            nodes[sorted..].sort_unstable_by_key(|node| node.id.distance(target));
            return;
        }
        let differs = |key: u64| key << bits >= 1 << (u64::BITS - 1);
        let keys = &self.keys[range.clone()];
        let middle = range.start + keys.partition_point(|&key| !differs(key));
        let (near, far) = (range.start..middle, middle..range.end);
        let is_far = differs(key_of(target.distance(self.own)));
        let (first, second) = if is_far { (far, near) } else { (near, far) };
        self.descend(first, target, bits + 1, count, may, nodes);
        self.descend(second, target, bits + 1, count, may, nodes);
    }

    fn find(&self, id: NodeId) -> Result<usize, usize> {
        let distance = id.distance(self.own);
        let from = self.keys.partition_point(|&key| key < key_of(distance));
        let to = from + self.keys[from..].iter().take_while(|&&key| key == key_of(distance)).count();
        let among =
            self.list[from..to].binary_search_by(|entry| entry.node.id.distance(self.own).cmp(&distance));
        among.map(|at| from + at).map_err(|at| from + at)
    }

    fn range(&self, bucket: usize) -> Range<usize> {
        let end_of = |bits: usize| self.keys.partition_point(|key| key.leading_zeros() as usize >= bits);
        let start = if bucket + 1 < BUCKET_COUNT { end_of(bucket + 1) } else { 0 };
        start..end_of(bucket)
    }

    fn add(&mut self, entry: Entry) {
        let (Ok(at) | Err(at)) = self.find(entry.node.id);
        self.unfit += usize::from(!entry.fits);
        self.spares.retain(|spare| !is_same_host(spare.node.addr, entry.node.addr));
        let bucket = self.bucket_of(entry.node.id);
        self.keys.insert(at, key_of(entry.node.id.distance(self.own)));
        self.list.insert(at, entry);
        self.release_neighbour();
        self.check_invariant(bucket);
    }

    /// A node that has just ceased to be a neighbour is treated like any other: it loses its place
    /// if its bucket exceeds its capacity.
    fn release_neighbour(&mut self) {
        let Some(entry) = self.list.get(self.neighbour_count()) else { return };
        let bucket = self.bucket_of(entry.node.id);
        if self.range(bucket).len() > capacity(bucket) {
            let entry = entry.clone();
            self.remove(self.neighbour_count());
            self.spare(entry);
        }
    }

    fn neighbour_count(&self) -> usize {
        if self.defence.neighbour_places { NEIGHBOUR_COUNT } else { 0 }
    }

    fn remove(&mut self, at: usize) {
        self.keys.remove(at);
        let removed = self.list.remove(at);
        self.unfit -= usize::from(!removed.fits);
    }

    /// Keeps a node that answered and found no place.
    fn spare(&mut self, entry: Entry) {
        let bucket = self.bucket_of(entry.node.id);
        let prefix = self.defence.prefix(entry.node.addr);
        let mut rivals: Vec<usize> = Vec::with_capacity(SPARE_COUNT_MAX);
        for (at, spare) in self.spares.iter_mut().enumerate() {
            if spare.node == entry.node {
                *spare = entry;
                return;
            }
            let shared = self.own.shared_bits(spare.node.id) as usize;
            if shared.min(BUCKET_COUNT - 1) == bucket {
                if self.defence.prefix(spare.node.addr) == prefix {
                    return;
                }
                rivals.push(at);
            }
        }
        if rivals.len() < SPARE_COUNT_MAX {
            self.spares.push(entry);
            return;
        }
        let worst = rivals.into_iter().min_by_key(|&at| (self.spares[at].fits, self.spares[at].heard_at));
        if let Some(worst) = worst.filter(|&at| entry.fits || !self.spares[at].fits) {
            self.spares[worst] = entry;
        }
    }

    /// Sorted, so one an id; and no more of the bucket that grew than it may have, neighbours
    /// apart.
    fn check_invariant(&self, bucket: usize) {
        debug_assert!(self.list.len() == self.keys.len());
        debug_assert!(self.list.is_sorted_by_key(|entry| entry.node.id.distance(self.own)));
        debug_assert!(
            self.range(bucket).end <= NEIGHBOUR_COUNT || self.range(bucket).len() <= capacity(bucket)
        );
    }
}

fn capacity(bucket: usize) -> usize {
    WIDE.get(bucket).copied().unwrap_or(K)
}

/// The leading bits of a distance, in its order.
fn key_of(distance: NodeId) -> u64 {
    distance.0.first_chunk().copied().map_or(0, u64::from_be_bytes)
}
