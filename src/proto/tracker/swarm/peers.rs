//! The peers of one torrent and one address family: found by address, seeds first, selected at
//! random.
//!
//! Twelve bytes for an IPv4 peer and 24 for IPv6, in one list that grows by a quarter; beyond
//! [`SCAN_MAX`] peers an index adds 6 to 11 bytes. Invariants: the list is ordered by [`Standing`],
//! and `ends` says where each standing ends; an address is in the list once; the index exists when
//! the list is longer than [`SCAN_MAX`].

use siphasher::sip::SipHasher13;

use super::super::AnnounceEvent;
use super::index::Index;

/// Longest list that is searched without an index: the addresses fill a dozen cache lines.
const SCAN_MAX: usize = 64;
/// Longest list that is searched for the earlier address of a peer that moved: 12 KB. In a larger
/// swarm both addresses count until the earlier one expires.
const MOVE_SCAN_MAX: usize = 1_024;
/// Random peers compared when a new peer replaces one.
const EVICTION_SAMPLE: u64 = 8;

/// A count of time units that wraps: see [`super::tick`].
pub(super) type Tick = u16;

/// The standing of a peer by its announces. The list has this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Everything: it announced `completed`, or had something left before.
    Seed,
    /// Nothing left, without proof: a seed from the start, or a new peer that has only an infohash
    /// and does not know what is left (aria2, rqbit). Counted as a seed, as other trackers do.
    Unproven,
    /// Something is left.
    Leecher,
}

/// A peer: its address in compact form (6 or 18 bytes).
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer<const LEN: usize> {
    addr: [u8; LEN],
    /// A keyed hash of its peer id and key, as bytes so that the alignment is that of `seen`.
    identity: [u8; 4],
    seen: Tick,
}

/// The content of an announce.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<const LEN: usize> {
    pub(super) addr: [u8; LEN],
    pub(super) identity: [u8; 4],
    /// Whether the announce has a key (BEP 7), which only its sender knows, so that `identity`
    /// proves the sender.
    pub(super) has_key: bool,
    /// Whether the announce came from this address, and does not only name it.
    pub(super) at_sender: bool,
    pub(super) event: AnnounceEvent,
    /// Whether `left` is 0.
    pub(super) nothing_left: bool,
    pub(super) now: Tick,
}

impl<const LEN: usize> Entry<LEN> {
    /// Returns the standing of its sender, which was `before` if the same peer announced before.
    pub(super) fn standing(&self, before: Option<Standing>) -> Standing {
        match (self.event, before) {
            _ if !self.nothing_left => Standing::Leecher,
            (AnnounceEvent::Completed, _) => Standing::Seed,
            // The earlier standing belongs to another session, possibly without the metadata.
            (AnnounceEvent::Started, _) => Standing::Unproven,
            (AnnounceEvent::None | AnnounceEvent::Stopped, Some(Standing::Seed | Standing::Leecher)) => {
                Standing::Seed
            }
            (AnnounceEvent::None | AnnounceEvent::Stopped, Some(Standing::Unproven) | None) => {
                Standing::Unproven
            }
        }
    }
}

/// The effect of an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// A new peer was added.
    Added,
    /// A new peer replaced another.
    Replaced,
    /// A known peer became a seed.
    Completed,
    /// A peer was removed.
    Removed,
}

/// The peers of one family.
#[derive(Debug, Default)]
pub(super) struct Peers<const LEN: usize> {
    list: Vec<Peer<LEN>>,
    /// The ends of the seeds and of the unproven peers.
    ends: [u32; 2],
    index: Option<Box<Index>>,
}

fn hash_of<const LEN: usize>(hasher: &SipHasher13, addr: &[u8; LEN]) -> u64 {
    hasher.hash(addr)
}

impl<const LEN: usize> Peers<LEN> {
    pub(super) fn len(&self) -> u32 {
        self.list.len() as u32
    }

    /// Returns the peers with nothing left, proven or not.
    pub(super) fn seed_count(&self) -> u32 {
        self.ends[1]
    }

    /// Adds or refreshes a peer; returns the effect and the standing of the sender.
    ///
    /// An address belongs to the peer that announced it last, because a client that was killed
    /// restarts with another id. An announce from another address may take it over once the peer
    /// has not announced for `owned`. A peer whose key proves that it is an earlier one replaces
    /// the earlier entry.
    pub(super) fn announce(
        &mut self,
        hasher: &SipHasher13,
        entry: Entry<LEN>,
        owned: Tick,
        peer_max: usize,
        draw: u64,
    ) -> (Change, Standing) {
        let Some(at) = self.find(hasher, &entry.addr) else {
            let earlier = self.find_earlier(&entry);
            let standing = entry.standing(earlier.map(|at| self.standing_at(at)));
            let full = self.list.len() >= peer_max;
            let gone = earlier.or_else(|| full.then(|| self.oldest_of_some(entry.now, draw)));
            if let Some(at) = gone {
                self.remove_at(hasher, at);
            }
            self.add(hasher, entry, standing);
            return (if gone.is_some() { Change::Replaced } else { Change::Added }, standing);
        };
        let before = self.standing_at(at);
        let peer = &mut self.list[at];
        let is_owner = peer.identity == entry.identity;
        if !is_owner && !entry.at_sender && entry.now.wrapping_sub(peer.seen) <= owned {
            return (Change::None, entry.standing(None));
        }
        peer.identity = entry.identity;
        peer.seen = entry.now;
        let known = is_owner.then_some(before);
        let standing = entry.standing(known);
        self.shift(hasher, at, before, standing);
        let completed = standing == Standing::Seed && before != Standing::Seed;
        (if completed { Change::Completed } else { Change::None }, standing)
    }

    /// Removes a peer, if the owner of its address requests it.
    pub(super) fn stop(&mut self, hasher: &SipHasher13, addr: &[u8; LEN], identity: [u8; 4]) -> Change {
        match self.find(hasher, addr) {
            Some(at) if self.list[at].identity == identity => {
                self.remove_at(hasher, at);
                Change::Removed
            }
            Some(_) | None => Change::None,
        }
    }

    /// Removes peers not seen for longer than `age_max`; returns their number.
    pub(super) fn expire(&mut self, hasher: &SipHasher13, now: Tick, age_max: Tick) -> u32 {
        let before = self.len();
        let mut at = self.list.len();
        while at > 0 {
            at -= 1;
            // From the end: a peer that moves into the gap was examined already.
            if now.wrapping_sub(self.list[at].seen) > age_max {
                self.remove_at(hasher, at);
            }
        }
        if self.list.capacity() > 4 && self.list.len() * 2 < self.list.capacity() {
            self.list.shrink_to_fit();
        }
        before - self.len()
    }

    /// Appends up to `count` random peers other than `asker`: of all peers if the asker is a
    /// leecher, of the leechers if it is a seed, and leechers before seeds if its standing is
    /// unproven.
    pub(super) fn choose(
        &self,
        asker: Option<&[u8; LEN]>,
        standing: Standing,
        count: usize,
        draw: u64,
        out: &mut Vec<u8>,
    ) {
        let (seeds, leechers) = self.list.split_at(self.seed_count() as usize);
        let pools = match standing {
            Standing::Leecher => [&self.list[..], &[]],
            Standing::Unproven => [leechers, seeds],
            Standing::Seed => [leechers, &[]],
        };
        let end = out.len() + count * LEN;
        for pool in pools {
            choose_from(pool, asker, (end - out.len()) / LEN, draw, out);
        }
    }

    fn find(&self, hasher: &SipHasher13, addr: &[u8; LEN]) -> Option<usize> {
        match &self.index {
            None => self.list.iter().position(|peer| peer.addr == *addr),
            Some(index) => {
                let is_it = |at: u32| self.list[at as usize].addr == *addr;
                index.find(hash_of(hasher, addr), is_it).map(|at| at as usize)
            }
        }
    }

    /// Returns the earlier position of the same peer, if it proves its identity.
    fn find_earlier(&self, entry: &Entry<LEN>) -> Option<usize> {
        let is_searched = entry.has_key && self.list.len() <= MOVE_SCAN_MAX;
        let is_same = |peer: &Peer<LEN>| peer.identity == entry.identity;
        is_searched.then(|| self.list.iter().position(is_same)).flatten()
    }

    fn standing_at(&self, at: usize) -> Standing {
        match self.ends.map(|end| at < end as usize) {
            [true, _] => Standing::Seed,
            [false, true] => Standing::Unproven,
            [false, false] => Standing::Leecher,
        }
    }

    fn add(&mut self, hasher: &SipHasher13, entry: Entry<LEN>, standing: Standing) {
        let at = self.list.len();
        if at == self.list.capacity() {
            self.list.reserve_exact((at / 4).max(2));
        }
        self.list.push(Peer { addr: entry.addr, identity: entry.identity, seen: entry.now });
        let list = &self.list;
        if let Some(index) = &mut self.index {
            index.insert(hash_of(hasher, &entry.addr), at as u32, |at| {
                hash_of(hasher, &list[at as usize].addr)
            });
        } else if at >= SCAN_MAX {
            let mut index = Box::<Index>::default();
            for (at, peer) in list.iter().enumerate() {
                index.insert(hash_of(hasher, &peer.addr), at as u32, |at| {
                    hash_of(hasher, &list[at as usize].addr)
                });
            }
            self.index = Some(index);
        }
        self.shift(hasher, at, Standing::Leecher, standing);
    }

    /// Changes the standing of the peer at `at` by moving it from one part of the list to the next;
    /// returns its new position.
    fn shift(&mut self, hasher: &SipHasher13, mut at: usize, from: Standing, to: Standing) -> usize {
        for border in (to as usize..from as usize).rev() {
            let first = self.ends[border] as usize;
            self.swap(hasher, at, first);
            self.ends[border] += 1;
            at = first;
        }
        for border in from as usize..to as usize {
            self.ends[border] -= 1;
            let last = self.ends[border] as usize;
            self.swap(hasher, at, last);
            at = last;
        }
        at
    }

    fn remove_at(&mut self, hasher: &SipHasher13, at: usize) {
        let at = self.shift(hasher, at, self.standing_at(at), Standing::Leecher);
        let last = self.list.len() - 1;
        self.swap(hasher, at, last);
        if let Some(index) = &mut self.index {
            let list = &self.list;
            index.remove(hash_of(hasher, &list[last].addr), last as u32, |at| {
                hash_of(hasher, &list[at as usize].addr)
            });
        }
        self.list.pop();
        if self.list.len() <= SCAN_MAX / 2 {
            self.index = None;
        }
    }

    fn swap(&mut self, hasher: &SipHasher13, one: usize, other: usize) {
        if one == other {
            return;
        }
        if let Some(index) = &mut self.index {
            let hashes = [one, other].map(|at| hash_of(hasher, &self.list[at].addr));
            // A position must not be in the index twice, not even temporarily.
            let between = self.list.len() as u32;
            index.relocate(hashes[0], one as u32, between);
            index.relocate(hashes[1], other as u32, one as u32);
            index.relocate(hashes[0], between, other as u32);
        }
        self.list.swap(one, other);
    }

    /// Returns the peer with the longest silence among a few random ones; the list is not empty.
    fn oldest_of_some(&self, now: Tick, draw: u64) -> usize {
        let len = self.list.len() as u64;
        let sample = (0..EVICTION_SAMPLE).map(|step| (draw.rotate_left(8 * step as u32) % len) as usize);
        sample.max_by_key(|&at| now.wrapping_sub(self.list[at].seen)).unwrap_or(0)
    }

    /// Asserts the invariants of the module.
    #[cfg(test)]
    pub(super) fn check(&self, hasher: &SipHasher13) {
        assert!(self.ends[0] <= self.ends[1] && self.ends[1] <= self.len());
        assert!(self.index.is_some() || self.list.len() <= SCAN_MAX);
        for (at, peer) in self.list.iter().enumerate() {
            assert_eq!(self.find(hasher, &peer.addr), Some(at));
        }
    }
}

/// Appends up to `count` random peers of `pool` but `asker`: two consecutive runs from two random
/// places, so that the cost is that of the answer, not of the swarm.
fn choose_from<const LEN: usize>(
    pool: &[Peer<LEN>],
    asker: Option<&[u8; LEN]>,
    count: usize,
    draw: u64,
    out: &mut Vec<u8>,
) {
    let mut room = count;
    let mut give = |peers: &[Peer<LEN>]| {
        for peer in peers {
            if room > 0 && Some(&peer.addr) != asker {
                out.extend_from_slice(&peer.addr);
                room -= 1;
            }
        }
    };
    if pool.len() <= count {
        return give(pool);
    }
    // One more than requested, because one of them may be the asker.
    let wanted = (count + 1).min(pool.len());
    let (front, back) = pool.split_at(pool.len() / 2);
    let from_front = (wanted / 2).min(front.len());
    for (half, take, draw) in [(front, from_front, draw >> 32), (back, wanted - from_front, draw)] {
        let start = ((u64::from(draw as u32) * half.len() as u64) >> 32) as usize;
        let first = take.min(half.len() - start);
        give(&half[start..start + first]);
        give(&half[..take - first]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rng::Rng;
    use std::collections::{BTreeMap, BTreeSet};

    fn addr(number: usize) -> [u8; 6] {
        let [a, b] = (number as u16).to_be_bytes();
        [10, 0, 0, 1, a, b]
    }

    fn entry(addr: [u8; 6], nothing_left: bool, event: AnnounceEvent) -> Entry<6> {
        Entry { addr, identity: [1; 4], has_key: false, at_sender: true, event, nothing_left, now: 0 }
    }

    #[test]
    fn peers_cost_what_the_header_says() {
        assert_eq!((size_of::<Peer<6>>(), size_of::<Peer<18>>()), (12, 24));
        let hasher = SipHasher13::new_with_keys(1, 2);
        let mut peers = Peers::<6>::default();
        for number in 0..10_000 {
            let entry = entry(addr(number), number % 2 == 0, AnnounceEvent::None);
            let _ = peers.announce(&hasher, entry, 10, 100_000, 0);
            assert!(peers.list.capacity() <= (number + 1) * 5 / 4 + 2);
        }
    }

    #[test]
    fn the_list_equals_a_map() {
        let hasher = SipHasher13::new_with_keys(1, 2);
        let mut rng = Rng::from_number(1);
        let mut peers = Peers::<6>::default();
        let mut model: BTreeMap<[u8; 6], Standing> = BTreeMap::new();
        for step in 0..30_000_usize {
            let range = if step / 5_000 % 2 == 0 { 500 } else { 20 };
            let addr = addr(rng.below(500));
            if rng.below(500) < range {
                let events = [AnnounceEvent::None, AnnounceEvent::Started, AnnounceEvent::Completed];
                let entry = entry(addr, rng.below(2) == 0, events[rng.below(3)]);
                let (change, standing) = peers.announce(&hasher, entry, 10, 1000, rng.bits());
                let expected = match model.insert(addr, standing) {
                    None => Change::Added,
                    Some(before) if standing == Standing::Seed && before != standing => Change::Completed,
                    Some(_) => Change::None,
                };
                assert_eq!(change, expected);
            } else {
                let known = model.remove(&addr).is_some();
                assert_eq!(peers.stop(&hasher, &addr, [1; 4]) == Change::Removed, known);
            }
            assert_eq!(peers.len() as usize, model.len());
            let seeds = model.values().filter(|&&standing| standing != Standing::Leecher).count();
            assert_eq!(peers.seed_count() as usize, seeds);
            let found = peers.find(&hasher, &addr).map(|at| peers.standing_at(at));
            assert_eq!(found, model.get(&addr).copied());
            if step % 500 == 0 {
                peers.check(&hasher);
            }
        }
    }

    #[test]
    fn choices_are_distinct_and_fair_without_the_asker_and_for_seeds_without_seeds() {
        let hasher = SipHasher13::new_with_keys(1, 2);
        let mut rng = Rng::from_number(1);
        for total in [1_usize, 2, 10, 50, 51, 52, 200] {
            let mut peers = Peers::<6>::default();
            for number in 0..total {
                let entry = entry(addr(number), number % 4 == 0, AnnounceEvent::Completed);
                let _ = peers.announce(&hasher, entry, 10, 1000, 0);
            }
            let mut counts = BTreeMap::new();
            for _ in 0..400 {
                let mut out = Vec::new();
                peers.choose(Some(&addr(0)), Standing::Leecher, 50, rng.bits(), &mut out);
                let chosen: BTreeSet<_> = out.as_chunks::<6>().0.iter().copied().collect();
                assert_eq!(chosen.len() * 6, out.len(), "distinct");
                assert_eq!(chosen.len(), 50.min(total - 1));
                assert!(!chosen.contains(&addr(0)));
                chosen.into_iter().for_each(|addr| *counts.entry(addr).or_insert(0) += 1);
                out.clear();
                peers.choose(Some(&addr(0)), Standing::Seed, 50, rng.bits(), &mut out);
                assert!(out.as_chunks::<6>().0.iter().all(|addr| addr[5] % 4 != 0));
                let leechers = total - total.div_ceil(4);
                assert_eq!(out.len() / 6, leechers.min(50));
                out.clear();
                peers.choose(Some(&addr(0)), Standing::Unproven, 50, rng.bits(), &mut out);
                let (first, rest) = out.as_chunks::<6>().0.split_at(leechers.min(50));
                assert_eq!(first.len() + rest.len(), 50.min(total - 1));
                assert!(
                    first.iter().all(|addr| addr[5] % 4 != 0) && rest.iter().all(|addr| addr[5] % 4 == 0)
                );
            }
            assert_eq!(counts.len(), total - 1, "everybody has a chance");
        }
    }

    #[test]
    fn in_a_full_swarm_new_peers_replace_silent_ones() {
        let hasher = SipHasher13::new_with_keys(1, 2);
        let mut rng = Rng::from_number(1);
        let mut peers = Peers::<6>::default();
        for number in 0..200 {
            let now = (number / 2) as Tick;
            let entry = Entry { now, ..entry(addr(number), false, AnnounceEvent::None) };
            let _ = peers.announce(&hasher, entry, 10, 100, rng.bits());
        }
        assert_eq!(peers.len(), 100);
        peers.check(&hasher);
        let young = (150..200).filter(|&number| peers.find(&hasher, &addr(number)).is_some()).count();
        assert!(young > 40, "{young}");
    }
}
