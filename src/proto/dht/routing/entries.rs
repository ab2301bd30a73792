//! The nodes of a table: one list by distance from us, of which each bucket is a range, and the spare nodes.
//!
//! It knows who may be where (capacities, one an id, an address, a neighbourhood in a bucket) and who is closest; it
//! does not know the time.

use std::net::SocketAddr;
use std::ops::Range;

use super::K;
use super::prefix::{Prefix, is_same_host};
use crate::proto::dht::node_id::{Node, NodeId};
use crate::proto::time::{Duration, Instant};

/// Buckets; the last one has all that share more bits with us. An overlay of 2^27 nodes fits, and who invents ids
/// close to ours fills one bucket with them, not a hundred.
pub(super) const BUCKET_COUNT: usize = 25;
/// Nodes of the farthest buckets, where most of the network is; of all others k.
const WIDE: [usize; 4] = [128, 64, 32, 16];
/// Spare nodes of a bucket; the one that was not heard for longest makes room.
const SPARE_COUNT_MAX: usize = K;
/// So many failures in a row make a node bad: with 1 % loss a living one fails twice in a row once in 10,000 times.
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
    /// When it last answered, or queried us while it did not fail.
    pub(super) heard_at: Instant,
    /// When it is to be asked something.
    pub(super) due: Instant,
}

/// Where a node would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Its bucket has room.
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
    /// In no order; at most [`SPARE_COUNT_MAX`] of a bucket.
    spares: Vec<Entry>,
    /// How many of `list` do not fit their address.
    unfit: usize,
}

impl Entry {
    /// A node that answered just now.
    pub(super) fn new(node: Node, now: Instant, due: Instant, round_trip: Duration) -> Self {
        let fits = node.id.fits(node.addr.ip());
        let round_trip = u16::try_from(round_trip.as_millis()).unwrap_or(u16::MAX);
        Self { node, fails: 0, fits, round_trip, heard_at: now, due }
    }

    /// It did not answer.
    pub(super) fn fail(&mut self) {
        self.fails = self.fails.saturating_add(1);
    }

    /// Whether it is not to be counted on, and whoever comes may take its place.
    pub(super) fn is_bad(&self) -> bool {
        self.fails >= BAD_FAILS
    }

    fn prefix(&self) -> Prefix {
        Prefix::of(self.node.addr)
    }
}

impl Entries {
    pub(super) fn new(own: NodeId) -> Self {
        Self { own, list: Vec::new(), spares: Vec::new(), unfit: 0 }
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

    /// Removes the node at this address; whether there was one.
    pub(super) fn remove_address(&mut self, addr: SocketAddr) -> bool {
        let at = self.list.iter().position(|entry| entry.node.addr == addr);
        if let Some(at) = at {
            self.remove(at);
        }
        at.is_some()
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
        if let Ok(at) = self.find(node.id) {
            return over(at, self.list[at].is_bad());
        }
        if let Some(at) = self.list.iter().position(|entry| is_same_host(entry.node.addr, node.addr)) {
            let entry = &self.list[at];
            return over(at, entry.node.addr == node.addr || entry.is_bad());
        }
        let bucket = self.bucket_of(node.id);
        let range = self.range(bucket);
        let is_worse = |entry: &Entry| entry.is_bad() || (fits && !entry.fits);
        let prefix = Prefix::of(node.addr);
        if let Some(at) = range.clone().find(|&at| self.list[at].prefix() == prefix) {
            return over(at, is_worse(&self.list[at]));
        }
        if range.len() < capacity(bucket) {
            return Place::Room;
        }
        let worst = range.filter(|&at| is_worse(&self.list[at])).max_by_key(|&at| {
            let entry = &self.list[at];
            (entry.is_bad(), !entry.fits, std::cmp::Reverse(entry.heard_at))
        });
        worst.map_or(Place::Spare, Place::Over)
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

    /// Puts a spare node in the place of a bad one, if there is one; if not, the bad one stays unless it is lost.
    pub(super) fn replace(&mut self, bad: NodeId, is_lost: bool) {
        let Ok(at) = self.find(bad) else { return };
        let bucket = self.bucket_of(bad);
        let best = (0..self.spares.len())
            .filter(|&spare| self.bucket_of(self.spares[spare].node.id) == bucket)
            .filter(|&spare| !matches!(self.place(&self.spares[spare].node, true), Place::Nowhere))
            .min_by_key(|&spare| (!self.spares[spare].fits, self.spares[spare].round_trip));
        if best.is_some() || is_lost {
            self.remove(at);
        }
        if let Some(best) = best {
            let spare = self.spares.swap_remove(best);
            self.insert(spare);
        }
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

    /// The closest of those that `may` be named; half of them fit their address, if so many are known.
    fn closest_of(&self, target: NodeId, count: usize, may: impl Fn(&Entry) -> bool) -> Vec<Node> {
        let mut nodes = Vec::with_capacity(count + K);
        self.descend(&self.list, target, 0, count, &|entry: &Entry| entry.fits && may(entry), &mut nodes);
        if self.unfit == 0 {
            nodes.truncate(count);
            return nodes;
        }
        let mut unfit = Vec::with_capacity(count + K);
        self.descend(&self.list, target, 0, count, &|entry: &Entry| !entry.fits && may(entry), &mut unfit);
        nodes.truncate(count);
        unfit.truncate((count / 2).max(count - nodes.len()));
        nodes.append(&mut unfit);
        nodes.sort_unstable_by_key(|node| node.id.distance(target));
        nodes.truncate(count);
        nodes
    }

    /// Appends the closest of a range in which all ids share their first `bits`, until there are `count` or, rather
    /// than sorting twice, a few more.
    fn descend(
        &self,
        range: &[Entry],
        target: NodeId,
        bits: u32,
        count: usize,
        may: &impl Fn(&Entry) -> bool,
        nodes: &mut Vec<Node>,
    ) {
        if nodes.len() >= count {
            return;
        }
        if range.len() <= K {
            let sorted = nodes.len();
            nodes.extend(range.iter().filter(|entry| may(entry)).map(|entry| entry.node));
            nodes[sorted..].sort_unstable_by_key(|node| node.id.distance(target));
            return;
        }
        let differs = |id: NodeId| bit(id, bits) != bit(self.own, bits);
        let (near, far) = range.split_at(range.partition_point(|entry| !differs(entry.node.id)));
        let (first, second) = if differs(target) { (far, near) } else { (near, far) };
        self.descend(first, target, bits + 1, count, may, nodes);
        self.descend(second, target, bits + 1, count, may, nodes);
    }

    fn find(&self, id: NodeId) -> Result<usize, usize> {
        let distance = id.distance(self.own);
        self.list.binary_search_by(|entry| entry.node.id.distance(self.own).cmp(&distance))
    }

    fn range(&self, bucket: usize) -> Range<usize> {
        let end_of = |bits: usize| {
            self.list.partition_point(|entry| self.own.shared_bits(entry.node.id) as usize >= bits)
        };
        let start = if bucket + 1 < BUCKET_COUNT { end_of(bucket + 1) } else { 0 };
        start..end_of(bucket)
    }

    fn add(&mut self, entry: Entry) {
        let (Ok(at) | Err(at)) = self.find(entry.node.id);
        self.unfit += usize::from(!entry.fits);
        self.spares.retain(|spare| !is_same_host(spare.node.addr, entry.node.addr));
        self.list.insert(at, entry);
        self.check_invariant();
    }

    fn remove(&mut self, at: usize) {
        let removed = self.list.remove(at);
        self.unfit -= usize::from(!removed.fits);
    }

    /// Keeps a node that answered and found no place.
    fn spare(&mut self, entry: Entry) {
        let bucket = self.bucket_of(entry.node.id);
        let prefix = entry.prefix();
        let mut rivals: Vec<usize> = Vec::with_capacity(SPARE_COUNT_MAX);
        for (at, spare) in self.spares.iter_mut().enumerate() {
            if spare.node == entry.node {
                *spare = entry;
                return;
            }
            let shared = self.own.shared_bits(spare.node.id) as usize;
            if shared.min(BUCKET_COUNT - 1) == bucket {
                if spare.prefix() == prefix {
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

    /// Sorted, so one an id; and no more of a bucket than it may have.
    fn check_invariant(&self) {
        debug_assert!(self.list.is_sorted_by_key(|entry| entry.node.id.distance(self.own)));
        debug_assert!((0..BUCKET_COUNT).all(|bucket| self.range(bucket).len() <= capacity(bucket)));
    }
}

fn capacity(bucket: usize) -> usize {
    WIDE.get(bucket).copied().unwrap_or(K)
}

fn bit(id: NodeId, at: u32) -> bool {
    id.0.get((at / 8) as usize).is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0)
}
