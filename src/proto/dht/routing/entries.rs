//! The nodes of a table: one list by distance from us, of which each bucket is a range, and the
//! spare nodes.
//!
//! It knows who may be where (capacities, one an id, an address, a neighbourhood in a bucket) and
//! who is closest; it does not know the time.

use std::net::SocketAddr;
use std::ops::Range;

use super::K;
use crate::proto::dht::defence::Defence;
use crate::proto::dht::defence::prefix::is_same_host;
use crate::proto::dht::node_id::{Node, NodeId};
use crate::proto::time::{Duration, Instant};

/// Buckets; the last one has all that share more bits with us. An overlay of 2^27 nodes fits, and
/// who invents ids close to ours fills one bucket with them, not a hundred.
pub(super) const BUCKET_COUNT: usize = 25;
/// Nodes of the farthest buckets, where most of the network is; of all others k.
const WIDE: [usize; 4] = [128, 64, 32, 16];
/// Of the nodes closest to us so many have a place whether their bucket is full or not. Whoever
/// crowds our neighbourhood, with eight ids for each address, fills its buckets of k before our
/// neighbours have come; so many leave room for them. Where none does, they are in their buckets
/// anyway but for eight or so.
pub(super) const NEIGHBOUR_COUNT: usize = 4 * K;
/// Spare nodes of a bucket; the one that was not heard for longest makes room.
const SPARE_COUNT_MAX: usize = K;
/// So many failures in a row make a node bad: with 1 % loss a living one fails twice in a row once
/// in 10,000 times.
const BAD_FAILS: u8 = 2;

/// A node that answered, and how it does.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) node: Node,
    /// Failures since it last answered.
    pub(super) fails: u8,
    /// Its id fits its address (BEP 42).
    fits: bool,
    /// How fast it last answered, milliseconds.
    round_trip: u16,
    /// When it last answered.
    pub(super) heard_at: Instant,
    /// When the last of its failures came to light.
    pub(super) failed_at: Instant,
    /// When it is to be asked something.
    pub(super) due: Instant,
}

/// Where a node would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Its bucket has room, or it is a neighbour of ours.
    Room,
    /// In the place of this one, or at least without it.
    Over(usize),
    /// Among the spare nodes: its bucket is full of nodes that are not worse.
    Spare,
    /// Somebody with its id, address or neighbourhood is there.
    Nowhere,
}

/// The nodes.
#[derive(Debug)]
pub(super) struct Entries {
    own: NodeId,
    /// Closest to us first.
    list: Vec<Entry>,
    /// The leading bits of their distances: an answer to a query is found in these 2 KiB, not in
    /// the 20 KiB of `list`, which are in no cache of a process that does other things between two
    /// datagrams.
    keys: Vec<u64>,
    /// In no order; at most [`SPARE_COUNT_MAX`] of a bucket.
    spares: Vec<Entry>,
    /// How many of `list` do not fit their address.
    unfit: usize,
    defence: Defence,
}

impl Entry {
    /// A node that answered just now.
    pub(super) fn new(node: Node, fits: bool, now: Instant, due: Instant, round_trip: Duration) -> Self {
        let round_trip = u16::try_from(round_trip.as_millis()).unwrap_or(u16::MAX);
        Self { node, fails: 0, fits, round_trip, heard_at: now, failed_at: now, due }
    }

    /// It did not answer.
    pub(super) fn fail(&mut self, now: Instant) {
        self.fails = self.fails.saturating_add(1);
        self.failed_at = now;
    }

    /// Whether it is not to be counted on, and whoever comes may take its place.
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

    /// Closest to us first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.list.iter()
    }

    /// All, then the spare ones.
    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.list.into_iter().chain(self.spares)
    }

    /// Exactly this node.
    pub(super) fn known(&mut self, node: &Node) -> Option<&mut Entry> {
        let at = self.find(node.id).ok()?;
        Some(&mut self.list[at]).filter(|entry| entry.node.addr == node.addr)
    }

    /// The node at this address; a spare one is forgotten.
    pub(super) fn at_address(&mut self, addr: SocketAddr) -> Option<&mut Entry> {
        self.spares.retain(|entry| entry.node.addr != addr);
        self.list.iter_mut().find(|entry| entry.node.addr == addr)
    }

    /// Removes the node at this address; its bucket.
    pub(super) fn remove_address(&mut self, addr: SocketAddr) -> Option<usize> {
        let at = self.list.iter().position(|entry| entry.node.addr == addr)?;
        let bucket = self.bucket_of(self.list[at].node.id);
        self.remove(at);
        Some(bucket)
    }

    /// The one to be asked first.
    pub(super) fn most_due(&mut self) -> Option<&mut Entry> {
        self.list.iter_mut().min_by_key(|entry| entry.due)
    }

    /// The bucket of an id.
    pub(super) fn bucket_of(&self, id: NodeId) -> usize {
        (self.own.shared_bits(id) as usize).min(BUCKET_COUNT - 1)
    }

    /// The bucket of the closest node.
    pub(super) fn deepest(&self) -> usize {
        self.list.first().map_or(0, |closest| self.bucket_of(closest.node.id))
    }

    /// Whether a bucket has as many nodes as it may have, none of them bad.
    pub(super) fn is_full(&self, bucket: usize) -> bool {
        let nodes = &self.list[self.range(bucket)];
        nodes.len() >= capacity(bucket) && nodes.iter().all(|entry| !entry.is_bad())
    }

    /// Where a node would go that is not known.
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

    /// Lets a node in that is not known, if there is a place for it; whether it is in a bucket now.
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

    /// Puts a spare node in the place of a bad one, if there is one; if not, the bad one stays
    /// unless it is lost or its bucket has more than its own. When the spare one is to be asked
    /// something.
    pub(super) fn replace(&mut self, bad: NodeId, is_lost: bool) -> Option<Instant> {
        let at = self.find(bad).ok()?;
        let bucket = self.bucket_of(bad);
        if !is_lost && self.range(bucket).len() <= capacity(bucket) {
            self.best_spare(bucket)?;
        }
        self.remove(at);
        self.refill(bucket)
    }

    /// Lets the best spare node of a bucket in, if there is one; when it is to be asked something.
    pub(super) fn refill(&mut self, bucket: usize) -> Option<Instant> {
        let spare = self.spares.swap_remove(self.best_spare(bucket)?);
        let due = spare.due;
        self.insert(spare).then_some(due)
    }

    /// The best of a bucket's spare nodes that may have a place there.
    fn best_spare(&self, bucket: usize) -> Option<usize> {
        (0..self.spares.len())
            .filter(|&spare| self.bucket_of(self.spares[spare].node.id) == bucket)
            .filter(|&spare| !matches!(self.place(&self.spares[spare].node, true), Place::Nowhere))
            .min_by_key(|&spare| (!self.spares[spare].fits, self.spares[spare].round_trip))
    }

    /// See [`super::Table::closest`].
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

    /// The closest of those that `may` be named; half of them fit their address, if so many are
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

    /// Appends the closest of a range in which all ids share the leading bits, until there are
    /// `count` or, rather than sorting twice, a few more.
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

    /// One that has just ceased to be a neighbour has the place of any other: none if its bucket
    /// has more than its own.
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
