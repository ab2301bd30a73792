//! Peers that other nodes announced, by torrent (BEP 5, 33, 51), within limits.
//!
//! At most 4,096 torrents of 200 peers each, a few of them from one /24 or /48. A peer expires half
//! an hour after its announce. A full store accepts no new torrent and gives no token for one, and
//! keeps what it has promised to keep.
//!
//! Memory follows the content: 12 bytes for an IPv4 peer, 24 for IPv6, 80 for a torrent.
//! Invariants: torrents are ordered and none is empty; `peer_count` is the sum of their lists; an
//! address is in a torrent once.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::bloom::Filter;
use super::defence::prefix::Prefix;
use super::defence::quota::PrefixQuota;
use super::node_id::NodeId;
use crate::proto::compact::{self, V4_LEN, V6_LEN};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// Most torrents. When hit, announces for further ones are refused until others expire.
pub const TORRENT_COUNT_MAX: usize = 4_096;
/// Most peers of a torrent, of both families. When hit, further ones are refused until others
/// expire.
pub const PEER_COUNT_MAX: usize = 200;
/// Most peers of a torrent from one /24 or /48, so that one network cannot fill it; local addresses
/// are exempt. When hit, an address that has peers replaces its oldest, others are refused.
pub const PREFIX_PEER_COUNT_MAX: usize = 4;
/// Torrents that one /24 or /48 may be the first to announce while the store is more than half
/// full, so that one network cannot fill it; local addresses are exempt. When hit, its further ones
/// are refused.
pub const PREFIX_TORRENT_COUNT_MAX: u32 = 256;
/// Time after its last announce when a peer expires: clients repeat theirs every 15 to 30 minutes.
pub const PEER_AGE_MAX: Duration = Duration::from_secs(30 * 60);
/// Least time between two scans for expired peers; meanwhile they are kept and not named.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The peers of all torrents.
#[derive(Debug)]
pub struct PeerStore {
    /// By infohash.
    torrents: Vec<Torrent>,
    peer_count: usize,
    quota: PrefixQuota,
    /// No peer expires before this; `None` if there are none.
    sweep_at: Option<Instant>,
    rng: Rng,
}

#[derive(Debug)]
struct Torrent {
    infohash: NodeId,
    /// The prefix of the node that announced it first.
    founder: Prefix,
    v4: Vec<Peer<V4_LEN>>,
    v6: Vec<Peer<V6_LEN>>,
}

/// A peer: its address in compact form.
#[derive(Clone, Copy, Debug)]
struct Peer<const LEN: usize> {
    addr: [u8; LEN],
    is_seed: bool,
    announced: Second,
}

/// Whole seconds since the start of the shell; 136 years fit.
type Second = u32;

fn second(now: Instant) -> Second {
    (now.as_micros() / 1_000_000) as Second
}

impl PeerStore {
    /// Creates an empty store; `rng` selects which peers are named.
    pub fn new(rng: Rng) -> Self {
        let quota = PrefixQuota::default();
        Self { torrents: Vec::new(), peer_count: 0, quota, sweep_at: None, rng }
    }

    /// Whether an announce for this torrent from this address would be stored; if not, no token is
    /// given.
    pub fn has_room(&self, infohash: NodeId, ip: IpAddr) -> bool {
        let Some(torrent) = self.torrent(infohash) else {
            return self.may_found(ip);
        };
        let place = match ip.to_canonical() {
            IpAddr::V4(ip) => place(&torrent.v4, &with_port(ip.octets(), 0), torrent.is_full()),
            IpAddr::V6(ip) => place(&torrent.v6, &with_port(ip.octets(), 0), torrent.is_full()),
        };
        place.is_some()
    }

    /// Stores a peer; false if there is no room.
    pub fn insert(&mut self, now: Instant, infohash: NodeId, peer: SocketAddr, seed: bool) -> bool {
        self.expire(now);
        if !compact::is_dialable(peer) {
            return false;
        }
        let at = match self.torrents.binary_search_by_key(&infohash, |torrent| torrent.infohash) {
            Ok(at) => at,
            Err(_) if !self.may_found(peer.ip()) => return false,
            Err(at) => {
                let founder = self.quota.add(peer.ip());
                self.torrents.insert(at, Torrent { infohash, founder, v4: Vec::new(), v6: Vec::new() });
                at
            }
        };
        let torrent = &mut self.torrents[at];
        let before = torrent.len();
        let kept = torrent.insert(second(now), peer, seed);
        self.peer_count += torrent.len() - before;
        self.sweep_at.get_or_insert(now + PEER_AGE_MAX);
        kept
    }

    /// Returns up to `count` random peers of one family.
    pub fn sample_peers(
        &mut self,
        now: Instant,
        infohash: NodeId,
        v6: bool,
        no_seed: bool,
        count: usize,
    ) -> Vec<SocketAddr> {
        let Ok(at) = self.torrents.binary_search_by_key(&infohash, |torrent| torrent.infohash) else {
            return Vec::new();
        };
        let (torrent, now) = (&self.torrents[at], second(now));
        if v6 {
            sample(&torrent.v6, now, no_seed, count, &mut self.rng)
        } else {
            sample(&torrent.v4, now, no_seed, count, &mut self.rng)
        }
    }

    /// Returns seeds and downloaders as filters (BEP 33); `None` if the torrent is unknown.
    pub fn filters(&self, infohash: NodeId) -> Option<Box<(Filter, Filter)>> {
        let torrent = self.torrent(infohash)?;
        let mut filters = Box::<(Filter, Filter)>::default();
        let v4 = torrent.v4.iter().map(|peer| (peer.addr().ip(), peer.is_seed));
        let v6 = torrent.v6.iter().map(|peer| (peer.addr().ip(), peer.is_seed));
        for (ip, is_seed) in v4.chain(v6) {
            let filter = if is_seed { &mut filters.0 } else { &mut filters.1 };
            filter.insert(ip);
        }
        Some(filters)
    }

    /// Returns up to `count` random infohashes, and the number of all (BEP 51).
    pub fn sample_infohashes(&mut self, count: usize) -> (Vec<NodeId>, usize) {
        let total = self.torrents.len();
        // Floyd's algorithm: each step adds one place to a uniform choice.
        let mut chosen = BTreeSet::new();
        for newest in total - count.min(total)..total {
            let place = self.rng.below(newest + 1);
            if !chosen.insert(place) {
                chosen.insert(newest);
            }
        }
        (chosen.into_iter().map(|at| self.torrents[at].infohash).collect(), total)
    }

    /// Drops expired peers; cheap if there are none.
    pub fn expire(&mut self, now: Instant) {
        if self.sweep_at.is_none_or(|at| now < at) {
            return;
        }
        let mut oldest: Second = 0;
        let Self { torrents, quota, .. } = self;
        torrents.retain_mut(|torrent| {
            for age in
                [drop_expired(&mut torrent.v4, second(now)), drop_expired(&mut torrent.v6, second(now))]
            {
                oldest = oldest.max(age.unwrap_or(0));
            }
            let is_empty = torrent.len() == 0;
            if is_empty {
                quota.remove(torrent.founder);
            }
            !is_empty
        });
        shrink(&mut self.torrents);
        self.peer_count = self.torrents.iter().map(Torrent::len).sum();
        let left = PEER_AGE_MAX.saturating_sub(Duration::from_secs(oldest.into()));
        self.sweep_at = (!self.torrents.is_empty()).then(|| now + left.max(SWEEP_INTERVAL));
    }

    /// Returns when [`PeerStore::expire`] has something to do.
    pub fn expires_at(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Returns the number of torrents and of their peers.
    pub fn counts(&self) -> (usize, usize) {
        (self.torrents.len(), self.peer_count)
    }

    /// Whether this address may be the first to announce a torrent.
    fn may_found(&self, ip: IpAddr) -> bool {
        let count = self.torrents.len();
        count < TORRENT_COUNT_MAX
            && self.quota.may_found(ip, count, TORRENT_COUNT_MAX, PREFIX_TORRENT_COUNT_MAX)
    }

    fn torrent(&self, infohash: NodeId) -> Option<&Torrent> {
        let at = self.torrents.binary_search_by_key(&infohash, |torrent| torrent.infohash).ok()?;
        Some(&self.torrents[at])
    }
}

impl Torrent {
    fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    fn is_full(&self) -> bool {
        self.len() >= PEER_COUNT_MAX
    }

    fn insert(&mut self, announced: Second, peer: SocketAddr, is_seed: bool) -> bool {
        let full = self.is_full();
        match peer.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let addr = with_port(ip.octets(), peer.port());
                insert(&mut self.v4, Peer { addr, is_seed, announced }, full)
            }
            IpAddr::V6(ip) => {
                let addr = with_port(ip.octets(), peer.port());
                insert(&mut self.v6, Peer { addr, is_seed, announced }, full)
            }
        }
    }
}

impl<const LEN: usize> Peer<LEN> {
    fn addr(&self) -> SocketAddr {
        let addr = if LEN == V4_LEN {
            compact::decode_v4(&self.addr).next()
        } else {
            compact::decode_v6(&self.addr).next()
        };
        addr.expect("the array is of the length of one address")
    }
}

/// Returns an address in compact form.
fn with_port<const IP_LEN: usize, const LEN: usize>(ip: [u8; IP_LEN], port: u16) -> [u8; LEN] {
    let mut addr = [0; LEN];
    addr[..IP_LEN].copy_from_slice(&ip);
    addr[IP_LEN..].copy_from_slice(&port.to_be_bytes());
    addr
}

/// Returns the place of a peer in the list: its own, that of the oldest of its address, or the end;
/// `None` if there is no room.
fn place<const LEN: usize>(peers: &[Peer<LEN>], addr: &[u8; LEN], full: bool) -> Option<usize> {
    if let Some(at) = peers.iter().position(|peer| peer.addr == *addr) {
        return Some(at);
    }
    let ip_len = LEN - 2;
    let ip = Peer { addr: *addr, is_seed: false, announced: 0 }.addr().ip();
    let is_of_site = |peer: &&Peer<LEN>| compact::site(peer.addr().ip()) == compact::site(ip);
    let of_site = || peers.iter().filter(is_of_site).count();
    if !full && (of_site() < PREFIX_PEER_COUNT_MAX || compact::is_local(ip)) {
        return Some(peers.len());
    }
    let of_ip = peers.iter().enumerate().filter(|(_, peer)| peer.addr[..ip_len] == addr[..ip_len]);
    of_ip.min_by_key(|(_, peer)| peer.announced).map(|(at, _)| at)
}

fn insert<const LEN: usize>(peers: &mut Vec<Peer<LEN>>, peer: Peer<LEN>, full: bool) -> bool {
    let Some(at) = place(peers, &peer.addr, full) else { return false };
    match peers.get_mut(at) {
        Some(kept) => *kept = peer,
        None => peers.push(peer),
    }
    true
}

fn is_expired(now: Second, announced: Second) -> bool {
    Duration::from_secs(now.wrapping_sub(announced).into()) >= PEER_AGE_MAX
}

/// Drops expired peers; returns the time of the oldest announce that is left.
fn drop_expired<const LEN: usize>(peers: &mut Vec<Peer<LEN>>, now: Second) -> Option<Second> {
    peers.retain(|peer| !is_expired(now, peer.announced));
    shrink(peers);
    peers.iter().map(|peer| now.wrapping_sub(peer.announced)).max()
}

/// Frees memory that a much longer list needed.
fn shrink<T>(list: &mut Vec<T>) {
    if list.len() < list.capacity() / 4 {
        list.shrink_to(2 * list.len());
    }
}

/// Returns up to `count` different random peers.
fn sample<const LEN: usize>(
    peers: &[Peer<LEN>],
    now: Second,
    no_seed: bool,
    count: usize,
    rng: &mut Rng,
) -> Vec<SocketAddr> {
    let unwanted = |peer: &Peer<LEN>| is_expired(now, peer.announced) || (no_seed && peer.is_seed);
    let mut sampled: Vec<_> = peers.iter().filter(|peer| !unwanted(peer)).map(Peer::addr).collect();
    for at in 0..count.min(sampled.len()) {
        let other = at + rng.below(sampled.len() - at);
        sampled.swap(at, other);
    }
    sampled.truncate(count);
    sampled
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const TORRENT: NodeId = NodeId([7; 20]);

    fn at(secs: u64) -> Instant {
        Instant::from_micros(1_000_000 * secs + 600_000)
    }

    fn store() -> PeerStore {
        PeerStore::new(Rng::from_number(1))
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Each in a network of its own.
    fn peer(number: u32) -> SocketAddr {
        SocketAddr::new((0x0800_0000 + (number << 8)).to_be_bytes().into(), 6_881)
    }

    fn named(store: &mut PeerStore, secs: u64) -> BTreeSet<SocketAddr> {
        let v4 = store.sample_peers(at(secs), TORRENT, false, false, usize::MAX);
        let v6 = store.sample_peers(at(secs), TORRENT, true, false, usize::MAX);
        v4.into_iter().chain(v6).collect()
    }

    #[test]
    fn a_peer_that_announces_again_is_the_same_peer() {
        let mut store = store();
        for (secs, text, seed) in [(0, "8.8.8.8:1", false), (900, "[::ffff:8.8.8.8]:1", true)] {
            assert!(store.insert(at(secs), TORRENT, addr(text), seed));
            assert_eq!(store.counts(), (1, 1));
        }
        assert_eq!(named(&mut store, 2_699), [addr("8.8.8.8:1")].into());
        assert!(store.sample_peers(at(2_699), TORRENT, false, true, 9).is_empty(), "it is complete");
        assert!(named(&mut store, 2_700).is_empty(), "half an hour after its last announce");
        for nowhere in ["8.8.8.8:0", "0.0.0.0:1", "224.0.0.1:1"] {
            assert!(!store.insert(at(0), TORRENT, addr(nowhere), false), "{nowhere}");
        }
        assert!(!store.insert(at(900), NodeId([9; 20]), addr("8.8.8.8:0"), false));
        assert_eq!(store.counts(), (1, 1));
    }

    #[test]
    fn expired_peers_are_dropped_and_their_memory_is_freed() {
        let mut store = store();
        assert_eq!(store.expires_at(), None);
        for number in 0..1_000 {
            let infohash = NodeId([(number % 100) as u8; 20]);
            assert!(store.insert(at(number), infohash, peer(number as u32), false));
        }
        assert_eq!((store.counts(), store.expires_at()), ((100, 1_000), Some(at(1_800))));
        store.expire(at(1_799));
        assert_eq!(store.counts(), (100, 1_000));
        store.expire(at(1_800));
        assert_eq!((store.counts(), store.expires_at()), ((100, 999), Some(at(1_860))));
        store.expire(at(1_860));
        assert_eq!(store.counts(), (100, 939));
        store.expire(at(2_795));
        assert_eq!((store.counts(), store.expires_at()), ((4, 4), Some(at(2_855))));
        assert!(store.torrents.capacity() <= 8);
        store.expire(at(2_855));
        assert_eq!((store.counts(), store.expires_at()), ((0, 0), None));
        assert_eq!(store.torrents.capacity(), 0);
    }

    #[test]
    fn a_sweep_waits_for_the_next_expiry() {
        let mut store = store();
        assert!(store.insert(at(0), TORRENT, peer(1), false));
        assert!(store.insert(at(1_000), TORRENT, peer(1), false));
        store.expire(at(1_800));
        assert_eq!((store.counts(), store.expires_at()), ((1, 1), Some(at(2_800))));
    }

    #[test]
    fn a_full_torrent_and_a_full_store_accept_only_known_peers() {
        let mut store = store();
        for number in 0..PEER_COUNT_MAX as u32 {
            assert!(store.has_room(TORRENT, peer(number).ip()));
            assert!(store.insert(at(0), TORRENT, peer(number), false));
        }
        for newcomer in [peer(1_000), addr("[2001:db8::1]:1"), addr("10.0.0.1:1")] {
            assert!(!store.has_room(TORRENT, newcomer.ip()));
            assert!(!store.insert(at(0), TORRENT, newcomer, false));
        }
        assert!(store.has_room(TORRENT, peer(5).ip()) && store.insert(at(9), TORRENT, peer(5), true));
        let moved = SocketAddr::new(peer(6).ip(), 1);
        assert!(store.insert(at(9), TORRENT, moved, true), "who comes back at another port replaces itself");
        assert_eq!(store.counts(), (1, PEER_COUNT_MAX));
        assert!(named(&mut store, 9).contains(&moved) && !named(&mut store, 9).contains(&peer(6)));

        for number in 1..TORRENT_COUNT_MAX as u32 {
            let mut infohash = TORRENT;
            infohash.0[..4].copy_from_slice(&number.to_be_bytes());
            assert!(store.has_room(infohash, peer(number).ip()));
            assert!(store.insert(at(0), infohash, peer(number), false));
        }
        assert!(!store.has_room(NodeId([1; 20]), peer(1).ip()));
        assert!(!store.insert(at(0), NodeId([1; 20]), peer(1), false));
        assert_eq!(store.counts(), (TORRENT_COUNT_MAX, PEER_COUNT_MAX + TORRENT_COUNT_MAX - 1));
        assert!(store.insert(at(1_800), NodeId([1; 20]), peer(1), false), "others have expired");
    }

    #[test]
    fn one_network_cannot_fill_the_store() {
        let mut store = store();
        let mut found = |from: u32, count: u32, peer: SocketAddr| {
            let infohashes = (from..from + count).map(|number| {
                let mut infohash = TORRENT;
                infohash.0[..4].copy_from_slice(&number.to_be_bytes());
                infohash
            });
            let kept = infohashes.filter(|&infohash| {
                store.has_room(infohash, peer.ip()) && store.insert(at(0), infohash, peer, false)
            });
            kept.count()
        };
        let half = TORRENT_COUNT_MAX / 2;
        assert_eq!(found(0, 4_096, addr("8.8.8.8:1")), half, "there is room enough");
        assert_eq!(found(10_000, 4_096, addr("8.8.8.9:1")), 0);
        let share = PREFIX_TORRENT_COUNT_MAX as usize;
        assert_eq!(found(20_000, 4_096, addr("[2001:db8::1]:1")), share);
        assert_eq!(found(25_000, 4_096, addr("[2001:db8:0:1::1]:1")), 0, "of the same /48");
        assert_eq!(found(30_000, 1_000, addr("10.0.0.1:1")), 1_000);
        assert_eq!(found(40_000, 4_096, addr("10.0.0.1:1")), half - share - 1_000);
    }

    #[test]
    fn one_network_has_a_few_places_and_local_addresses_any_number() {
        let mut store = store();
        let mut taken = |network: &str| {
            let peers = (0..20).map(|number| addr(&network.replace('N', &(number + 1).to_string())));
            peers
                .filter(|&peer| {
                    store.has_room(TORRENT, peer.ip()) && store.insert(at(0), TORRENT, peer, false)
                })
                .count()
        };
        assert_eq!(taken("8.8.8.N:5"), PREFIX_PEER_COUNT_MAX);
        assert_eq!(taken("8.8.9.N:5"), PREFIX_PEER_COUNT_MAX);
        assert_eq!(taken("[2001:db8::N]:5"), PREFIX_PEER_COUNT_MAX);
        assert_eq!(taken("[2001:db8:0:N::1]:5"), 0, "a /48 has many /64");
        assert_eq!(taken("[2001:db8:1:N::1]:5"), PREFIX_PEER_COUNT_MAX);
        assert_eq!(taken("10.0.0.N:5"), 20);
        assert_eq!(taken("127.0.0.1:N"), 20);
        assert_eq!(taken("[fd00::N]:5"), 20);
        // A single address replaces its own entries in its network's places.
        assert_eq!(taken("9.9.9.9:N"), 20);
        assert_eq!(store.counts(), (1, 5 * PREFIX_PEER_COUNT_MAX + 60));
    }

    #[test]
    fn peers_are_sampled_at_random_without_repetition() {
        let mut store = store();
        (0..100).for_each(|number| assert!(store.insert(at(0), TORRENT, peer(number), number < 50)));
        let mut seen = BTreeMap::<SocketAddr, u32>::new();
        for _ in 0..1_000 {
            let sampled = store.sample_peers(at(0), TORRENT, false, false, 10);
            assert_eq!(sampled.iter().collect::<BTreeSet<_>>().len(), 10);
            sampled.into_iter().for_each(|peer| *seen.entry(peer).or_default() += 1);
        }
        assert!(seen.len() == 100 && seen.values().all(|count| (50..150).contains(count)), "{seen:?}");
        assert_eq!(store.sample_peers(at(0), TORRENT, false, true, 99).len(), 50);
        assert_eq!(store.sample_peers(at(0), TORRENT, true, false, 99), []);
        assert_eq!(store.sample_peers(at(0), NodeId([1; 20]), false, false, 99), []);
    }

    #[test]
    fn infohashes_are_sampled_at_random_without_repetition() {
        let mut store = store();
        assert_eq!(store.sample_infohashes(20), (vec![], 0));
        (0..50).for_each(|number| assert!(store.insert(at(0), NodeId([number; 20]), peer(1), false)));
        assert_eq!(
            store.sample_infohashes(99).0,
            (0..50).map(|number| NodeId([number; 20])).collect::<Vec<_>>()
        );
        let mut seen = [0; 50];
        for _ in 0..1_000 {
            let (sampled, total) = store.sample_infohashes(20);
            assert_eq!((sampled.iter().collect::<BTreeSet<_>>().len(), total), (20, 50));
            sampled.iter().for_each(|infohash| seen[usize::from(infohash.0[0])] += 1);
        }
        assert!(seen.iter().all(|count| (300..500).contains(count)), "{seen:?}");
    }

    #[test]
    fn filters_tell_seeds_from_downloaders() {
        let mut store = store();
        assert_eq!(store.filters(TORRENT), None);
        (0..100).for_each(|number| assert!(store.insert(at(0), TORRENT, peer(number), number < 20)));
        assert!(store.insert(at(0), TORRENT, addr("[2001:db8::1]:1"), true));
        let filters = store.filters(TORRENT).unwrap();
        let sizes = (filters.0.estimate(), filters.1.estimate());
        assert!(sizes.0.abs_diff(21) <= 2 && sizes.1.abs_diff(80) <= 4, "{sizes:?}");
    }

    #[test]
    fn peers_cost_what_the_header_says() {
        assert_eq!((size_of::<Peer<6>>(), size_of::<Peer<18>>(), size_of::<Torrent>()), (12, 24, 80));
    }
}
