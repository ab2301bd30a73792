//! The peers of each torrent of a tracker: storage, selection, expiry.
//!
//! One [`Swarms`] is one shard: a server with several threads has many, selected by infohash. IPv4
//! and IPv6 peers of a torrent are two lists of one swarm, because replies carry them apart.
//! Torrents are a dense list with an index: 72 bytes and 6 to 11 of index each, a peer 12 bytes and
//! up to a quarter more (IPv4). A million peers took at most 24 bytes each, in 100,000 torrents of
//! ten as in ten of 100,000. All hashes have secret keys, so that an attacker cannot cause
//! collisions. `service` validates announces before.

mod index;
mod peers;

use std::net::{IpAddr, SocketAddr};

use siphasher::sip::SipHasher13;

use super::AnnounceEvent;
use super::scrape::Scraped;
use crate::proto::compact::{V4_LEN, V6_LEN};
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use index::Index;
use peers::{Change, Entry, Peers, Standing, Tick};

/// Resolution of stored times: a 16-bit count of it wraps after three days.
const TICK: Duration = Duration::from_secs(4);
/// Interval between searches for expired peers.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Random torrents examined for one that a new torrent can replace.
const EVICTION_SAMPLE: u32 = 8;

/// The limits of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Torrents. When hit, a torrent with a single peer is replaced if a few tries find one,
    /// otherwise the new one is answered but not stored.
    pub torrent_max: usize,
    /// Peers of one torrent and family. When hit, one that has long been silent is replaced.
    pub torrent_peer_max: usize,
    /// Peers of all torrents. When hit, new ones are answered but not stored.
    pub peer_max: usize,
    /// Silence after which a peer expires.
    pub peer_age_max: Duration,
    /// Time after its last announce during which an address belongs to its peer, whatever senders
    /// at other addresses announce.
    pub owned: Duration,
}

/// One announce as the store needs it.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    /// The torrent.
    pub infohash: InfoHash,
    /// The peer.
    pub peer_id: PeerId,
    /// A secret of peer and tracker; 0 if none.
    pub key: u32,
    /// The peer's address; canonical, dialable.
    pub addr: SocketAddr,
    /// Whether the announce came from that address, and does not only name it.
    pub at_sender: bool,
    /// The event.
    pub event: AnnounceEvent,
    /// Whether `left` is 0: the sender has everything, or does not know yet what is left.
    pub nothing_left: bool,
    /// Most IPv4 peers to name.
    pub v4_max: usize,
    /// Most IPv6 peers to name.
    pub v6_max: usize,
    /// 64 random bits.
    pub draw: u64,
}

/// Compact peers of an answer, in buffers for repeated use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// 6 bytes each.
    pub v4: Vec<u8>,
    /// 18 bytes each.
    pub v6: Vec<u8>,
}

/// The totals of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Torrents with peers or with completed downloads.
    pub torrents: u64,
    /// Peers.
    pub peers: u64,
    /// Peers with nothing left.
    pub seeders: u64,
}

#[derive(Debug)]
struct Torrent {
    infohash: InfoHash,
    completed: u32,
    v4: Peers<V4_LEN>,
    /// `None` in most swarms.
    v6: Option<Box<Peers<V6_LEN>>>,
}

impl Torrent {
    fn peer_count(&self) -> u32 {
        self.v4.len() + self.v6.as_ref().map_or(0, |peers| peers.len())
    }

    fn seed_count(&self) -> u32 {
        self.v4.seed_count() + self.v6.as_ref().map_or(0, |peers| peers.seed_count())
    }

    fn scraped(&self) -> Scraped {
        let seeders = self.seed_count();
        Scraped { seeders, completed: self.completed, leechers: self.peer_count() - seeders }
    }
}

/// The torrents of one shard.
#[derive(Debug)]
pub struct Swarms {
    limits: Limits,
    hasher: SipHasher13,
    torrents: Vec<Torrent>,
    index: Index,
    peer_count: usize,
    seed_count: usize,
    sweep_at: Instant,
}

/// Returns a point in time as the lists store it.
fn tick(now: Instant) -> Tick {
    (now.as_micros() / TICK.as_micros() as u64) as Tick
}

/// Returns a span as the lists compare it.
fn ticks(span: Duration) -> Tick {
    Tick::try_from(span.as_micros() / TICK.as_micros()).unwrap_or(Tick::MAX / 2).min(Tick::MAX / 2)
}

impl Swarms {
    /// Creates an empty store; its secret comes from `rng`.
    pub fn new(limits: Limits, rng: &mut Rng, now: Instant) -> Self {
        Self {
            limits,
            hasher: SipHasher13::new_with_keys(rng.bits(), rng.bits()),
            torrents: Vec::new(),
            index: Index::default(),
            peer_count: 0,
            seed_count: 0,
            sweep_at: now + SWEEP_INTERVAL,
        }
    }

    /// Stores an announce and replaces `chosen` by peers for its sender. Returns the present
    /// figures of the torrent.
    pub fn handle_announce(&mut self, now: Instant, announced: &Announced, chosen: &mut Chosen) -> Scraped {
        chosen.v4.clear();
        chosen.v6.clear();
        let leaving = announced.event == AnnounceEvent::Stopped;
        let at = match self.find(&announced.infohash) {
            Some(at) => at,
            None if leaving => return Scraped::default(),
            None => match self.admit(announced) {
                Some(at) => at,
                // Not stored; the figures are those of a swarm without other peers.
                None => return Scraped::default(),
            },
        };
        let standing = self.apply(now, at, announced);
        if !leaving {
            self.choose(at, announced, standing, chosen);
        }
        let scraped = self.torrents[at].scraped();
        if self.torrents[at].peer_count() == 0 && scraped.completed == 0 {
            self.remove_torrent(at);
        }
        scraped
    }

    /// Returns the figures of a torrent; zeros if it is unknown.
    pub fn scrape(&self, infohash: &InfoHash) -> Scraped {
        self.find(infohash).map_or_else(Scraped::default, |at| self.torrents[at].scraped())
    }

    /// Returns the totals.
    pub fn totals(&self) -> Totals {
        Totals {
            torrents: self.torrents.len() as u64,
            peers: self.peer_count as u64,
            seeders: self.seed_count as u64,
        }
    }

    /// Applies the passage of time: drops peers that were silent for too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + SWEEP_INTERVAL;
        let age_max = ticks(self.limits.peer_age_max);
        let mut at = self.torrents.len();
        while at > 0 {
            at -= 1;
            let torrent = &mut self.torrents[at];
            let before = torrent.seed_count();
            let mut gone = torrent.v4.expire(&self.hasher, tick(now), age_max);
            if let Some(peers) = &mut torrent.v6 {
                gone += peers.expire(&self.hasher, tick(now), age_max);
                if peers.len() == 0 {
                    torrent.v6 = None;
                }
            }
            self.peer_count -= gone as usize;
            self.seed_count -= (before - torrent.seed_count()) as usize;
            if torrent.peer_count() == 0 {
                self.remove_torrent(at);
            }
        }
        if self.torrents.len() * 2 < self.torrents.capacity() {
            self.torrents.shrink_to_fit();
        }
        self.check_invariant();
    }

    /// Returns when to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.torrents.is_empty()).then_some(self.sweep_at)
    }

    fn choose(&self, at: usize, announced: &Announced, standing: Standing, chosen: &mut Chosen) {
        let torrent = &self.torrents[at];
        let draw = announced.draw;
        let (asker_v4, asker_v6) = match announced.addr.ip() {
            IpAddr::V4(ip) => (Some(compact(ip.octets(), announced.addr.port())), None),
            IpAddr::V6(ip) => (None, Some(compact(ip.octets(), announced.addr.port()))),
        };
        torrent.v4.choose(asker_v4.as_ref(), standing, announced.v4_max, draw, &mut chosen.v4);
        if let Some(peers) = &torrent.v6 {
            peers.choose(asker_v6.as_ref(), standing, announced.v6_max, draw, &mut chosen.v6);
        }
    }

    /// Adds or removes the sender; returns its standing.
    fn apply(&mut self, now: Instant, at: usize, announced: &Announced) -> Standing {
        let room = self.peer_count < self.limits.peer_max;
        let port = announced.addr.port();
        let before = self.torrents[at].seed_count();
        let (change, standing) = match announced.addr.ip() {
            IpAddr::V4(ip) => {
                let entry = self.entry(now, announced, compact(ip.octets(), port));
                update(&mut self.torrents[at].v4, &self.hasher, &self.limits, entry, announced, room)
            }
            IpAddr::V6(ip) => {
                let entry = self.entry(now, announced, compact(ip.octets(), port));
                let mut peers = self.torrents[at].v6.take().unwrap_or_default();
                let updated = update(&mut peers, &self.hasher, &self.limits, entry, announced, room);
                self.torrents[at].v6 = (peers.len() > 0).then_some(peers);
                updated
            }
        };
        let torrent = &mut self.torrents[at];
        self.seed_count = self.seed_count + torrent.seed_count() as usize - before as usize;
        match change {
            Change::Added => self.peer_count += 1,
            Change::Removed => self.peer_count -= 1,
            Change::Completed if announced.event == AnnounceEvent::Completed => {
                torrent.completed = torrent.completed.saturating_add(1);
            }
            Change::None | Change::Replaced | Change::Completed => (),
        }
        self.check_invariant();
        standing
    }

    fn entry<const LEN: usize>(&self, now: Instant, announced: &Announced, addr: [u8; LEN]) -> Entry<LEN> {
        let Announced { peer_id, key, at_sender, event, nothing_left, .. } = *announced;
        let mut named = [0; 24];
        named[..20].copy_from_slice(&peer_id.0);
        named[20..].copy_from_slice(&key.to_be_bytes());
        let identity = (self.hasher.hash(&named) as u32).to_be_bytes();
        Entry { addr, identity, has_key: key != 0, at_sender, event, nothing_left, now: tick(now) }
    }

    fn find(&self, infohash: &InfoHash) -> Option<usize> {
        let is_it = |at: u32| self.torrents[at as usize].infohash == *infohash;
        self.index.find(self.hasher.hash(&infohash.0), is_it).map(|at| at as usize)
    }

    /// Makes room for a new torrent; `None` if there is none.
    fn admit(&mut self, announced: &Announced) -> Option<usize> {
        if self.peer_count >= self.limits.peer_max {
            return None;
        }
        if self.torrents.len() >= self.limits.torrent_max {
            let len = self.torrents.len() as u64;
            let sample = (0..EVICTION_SAMPLE)
                .map(|step| (announced.draw.rotate_left(8 * step).checked_rem(len).unwrap_or(0)) as usize);
            let lonely =
                sample.into_iter().find(|&at| self.torrents.get(at).is_some_and(|t| t.peer_count() <= 1));
            self.remove_torrent(lonely?);
        }
        let at = self.torrents.len();
        if at == self.torrents.capacity() {
            self.torrents.reserve_exact((at / 4).max(4));
        }
        let Announced { infohash, .. } = *announced;
        self.torrents.push(Torrent { infohash, completed: 0, v4: Peers::default(), v6: None });
        let (torrents, hasher) = (&self.torrents, &self.hasher);
        self.index
            .insert(hasher.hash(&infohash.0), at as u32, |at| hasher.hash(&torrents[at as usize].infohash.0));
        Some(at)
    }

    fn remove_torrent(&mut self, at: usize) {
        let (torrents, hasher) = (&self.torrents, &self.hasher);
        let hash_of = |at: u32| hasher.hash(&torrents[at as usize].infohash.0);
        let last = torrents.len() - 1;
        self.index.remove(hash_of(at as u32), at as u32, hash_of);
        if at != last {
            self.index.relocate(hash_of(last as u32), last as u32, at as u32);
        }
        let gone = self.torrents.swap_remove(at);
        self.peer_count -= gone.peer_count() as usize;
        self.seed_count -= gone.seed_count() as usize;
    }

    fn check_invariant(&self) {
        debug_assert!(self.seed_count <= self.peer_count);
        debug_assert!(self.torrents.len() <= self.limits.torrent_max);
    }
}

fn update<const LEN: usize>(
    peers: &mut Peers<LEN>,
    hasher: &SipHasher13,
    limits: &Limits,
    entry: Entry<LEN>,
    announced: &Announced,
    room: bool,
) -> (Change, Standing) {
    if announced.event == AnnounceEvent::Stopped {
        return (peers.stop(hasher, &entry.addr, entry.identity), entry.standing(None));
    }
    // In a full store a new peer replaces another peer of its torrent.
    let peer_max =
        if room { limits.torrent_peer_max } else { (peers.len() as usize).min(limits.torrent_peer_max) };
    if peer_max == 0 {
        return (Change::None, entry.standing(None));
    }
    peers.announce(hasher, entry, ticks(limits.owned), peer_max, announced.draw)
}

/// Returns address and port in compact form: `LEN` is the address's length and two.
fn compact<const IP_LEN: usize, const LEN: usize>(ip: [u8; IP_LEN], port: u16) -> [u8; LEN] {
    const { assert!(LEN == IP_LEN + 2) };
    let mut addr = [0; LEN];
    addr[..IP_LEN].copy_from_slice(&ip);
    addr[IP_LEN..].copy_from_slice(&port.to_be_bytes());
    addr
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::compact;

    const MINUTE: u64 = 60;

    fn limits() -> Limits {
        Limits {
            torrent_max: 100,
            torrent_peer_max: 1000,
            peer_max: 10_000,
            peer_age_max: Duration::from_secs(45 * MINUTE),
            owned: Duration::from_secs(30 * MINUTE),
        }
    }

    fn swarms(limits: Limits) -> Swarms {
        Swarms::new(limits, &mut Rng::from_number(1), Instant::ZERO)
    }

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn announced(torrent: u32, addr: &str, nothing_left: bool) -> Announced {
        let mut infohash = InfoHash([0; 20]);
        infohash.0[..4].copy_from_slice(&torrent.to_be_bytes());
        Announced {
            infohash,
            peer_id: PeerId([7; 20]),
            key: 0,
            addr: addr.parse().unwrap(),
            at_sender: true,
            event: AnnounceEvent::None,
            nothing_left,
            v4_max: 50,
            v6_max: 50,
            draw: 0x0123_4567_89ab_cdef,
        }
    }

    fn peers(swarms: &mut Swarms, now: Instant, announced: &Announced) -> Vec<String> {
        let mut chosen = Chosen::default();
        swarms.handle_announce(now, announced, &mut chosen);
        let all = compact::decode_v4(&chosen.v4).chain(compact::decode_v6(&chosen.v6));
        all.map(|addr| addr.to_string()).collect()
    }

    #[test]
    fn torrents_cost_what_the_header_says() {
        assert!(size_of::<Torrent>() <= 72, "{}", size_of::<Torrent>());
    }

    #[test]
    fn both_families_are_one_swarm() {
        let mut swarms = swarms(limits());
        let (v4, v6) = (announced(1, "1.2.3.4:5", true), announced(1, "[2001:db8::1]:6", false));
        assert!(peers(&mut swarms, at(0), &v4).is_empty());
        assert_eq!(peers(&mut swarms, at(0), &v6), ["1.2.3.4:5"]);
        assert_eq!(peers(&mut swarms, at(0), &v4), ["[2001:db8::1]:6"]);
        let expected = Scraped { seeders: 1, completed: 0, leechers: 1 };
        assert_eq!(swarms.scrape(&v4.infohash), expected);
        let other = announced(2, "1.2.3.4:5", true);
        assert!(peers(&mut swarms, at(0), &other).is_empty(), "another torrent");
        assert_eq!(swarms.totals(), Totals { torrents: 2, peers: 3, seeders: 2 });
    }

    fn stopped(peer: Announced) -> Announced {
        Announced { event: AnnounceEvent::Stopped, ..peer }
    }

    #[test]
    fn only_the_owner_of_an_address_removes_it() {
        let mut swarms = swarms(limits());
        let peer = Announced { key: 5, ..announced(1, "1.2.3.4:5", false) };
        peers(&mut swarms, at(0), &peer);
        let other = Announced { peer_id: PeerId([8; 20]), ..peer };
        for forged in [other, Announced { key: 6, ..peer }, Announced { key: 0, ..peer }] {
            peers(&mut swarms, at(1), &stopped(forged));
        }
        // A sender elsewhere that only names the address does not own it after an announce either.
        let elsewhere = Announced { at_sender: false, ..other };
        peers(&mut swarms, at(1), &elsewhere);
        peers(&mut swarms, at(1), &stopped(elsewhere));
        assert_eq!(swarms.totals().peers, 1);
        peers(&mut swarms, at(2), &stopped(peer));
        assert_eq!(swarms.totals(), Totals::default());
        // It does once the owner is silent.
        peers(&mut swarms, at(3), &peer);
        peers(&mut swarms, at(3 + 31 * MINUTE), &elsewhere);
        peers(&mut swarms, at(4 + 31 * MINUTE), &stopped(elsewhere));
        assert_eq!(swarms.totals().peers, 0);
    }

    #[test]
    fn a_killed_peer_that_returns_with_another_id_leaves_no_ghost() {
        let mut swarms = swarms(limits());
        let killed = announced(1, "1.2.3.4:5", true);
        let restarted = Announced { peer_id: PeerId([8; 20]), key: 9, ..killed };
        peers(&mut swarms, at(0), &killed);
        peers(&mut swarms, at(1), &Announced { nothing_left: false, ..restarted });
        let expected = Scraped { seeders: 0, completed: 0, leechers: 1 };
        assert_eq!(swarms.scrape(&killed.infohash), expected);
        peers(&mut swarms, at(2), &stopped(killed));
        assert_eq!(swarms.totals().peers, 1, "the address is not the killed one's any more");
        // It keeps the address alive, which the killed one does not.
        for minutes in [25, 50, 75] {
            peers(&mut swarms, at(minutes * MINUTE), &restarted);
            swarms.handle_timeout(at(minutes * MINUTE));
        }
        assert_eq!(swarms.totals().peers, 1);
        peers(&mut swarms, at(76 * MINUTE), &stopped(restarted));
        assert_eq!(swarms.totals(), Totals::default());
    }

    #[test]
    fn a_peer_that_moved_counts_once_if_its_key_matches() {
        let mut swarms = swarms(limits());
        let peer = Announced { key: 7, ..announced(1, "1.2.3.4:5", false) };
        let moved = Announced { addr: "1.2.3.9:6".parse().unwrap(), nothing_left: true, ..peer };
        let v6 = Announced { addr: "[2001:db8::1]:6".parse().unwrap(), ..peer };
        peers(&mut swarms, at(0), &peer);
        peers(&mut swarms, at(0), &v6);
        assert_eq!(swarms.totals().peers, 2, "a host of two families is reached by both");
        peers(&mut swarms, at(1), &moved);
        let asking = Announced { peer_id: PeerId([1; 20]), ..announced(1, "8.8.8.8:8", false) };
        assert_eq!(peers(&mut swarms, at(1), &asking), ["1.2.3.9:6", "[2001:db8::1]:6"]);
        assert_eq!(peers(&mut swarms, at(1), &moved), ["8.8.8.8:8", "[2001:db8::1]:6"], "a seed for certain");
        assert_eq!(swarms.totals(), Totals { torrents: 1, peers: 3, seeders: 1 });
        // Without its key, or with none, any sender could claim it: peer ids are public.
        for (number, key) in [(1, 8), (2, 0)] {
            let forged = Announced { key, addr: format!("6.6.6.6:{number}").parse().unwrap(), ..peer };
            peers(&mut swarms, at(2), &forged);
        }
        assert_eq!(swarms.totals().peers, 5);
    }

    #[test]
    fn silent_peers_are_forgotten_and_with_them_their_torrent() {
        let mut swarms = swarms(limits());
        for torrent in 0..50 {
            peers(&mut swarms, at(0), &announced(torrent, "1.2.3.4:5", true));
            peers(&mut swarms, at(0), &announced(torrent, "[2001:db8::1]:6", false));
        }
        peers(&mut swarms, at(30 * MINUTE), &announced(7, "1.2.3.4:5", true));
        swarms.handle_timeout(at(45 * MINUTE));
        assert_eq!(swarms.totals().peers, 100);
        swarms.handle_timeout(at(47 * MINUTE));
        assert_eq!(swarms.totals(), Totals { torrents: 1, peers: 1, seeders: 1 });
        swarms.handle_timeout(at(80 * MINUTE));
        assert_eq!((swarms.totals(), swarms.poll_timeout()), (Totals::default(), None));
    }

    #[test]
    fn completed_downloads_are_counted_once() {
        let mut swarms = swarms(limits());
        let peer = announced(1, "1.2.3.4:5", false);
        peers(&mut swarms, at(0), &peer);
        let completed = Announced { event: AnnounceEvent::Completed, nothing_left: true, ..peer };
        for _ in 0..3 {
            peers(&mut swarms, at(1), &completed);
        }
        assert_eq!(swarms.scrape(&peer.infohash), Scraped { seeders: 1, completed: 1, leechers: 0 });
    }

    #[test]
    fn floods_of_torrents_cannot_push_out_those_with_peers() {
        let mut swarms = swarms(limits());
        let mut rng = Rng::from_number(2);
        for number in 0..40 {
            peers(&mut swarms, at(0), &announced(number, "1.2.3.4:5", true));
            peers(&mut swarms, at(0), &announced(number, "1.2.3.4:6", true));
        }
        for number in 1000..5000 {
            let draw = rng.bits();
            peers(&mut swarms, at(1), &Announced { draw, ..announced(number, "5.6.7.8:9", false) });
        }
        assert_eq!(swarms.totals().torrents, 100);
        for number in 0..40 {
            assert_eq!(swarms.scrape(&announced(number, "1.2.3.4:5", true).infohash).seeders, 2);
        }
        // A new one still gets in.
        peers(&mut swarms, at(2), &announced(9999, "1.2.3.4:5", true));
        assert_eq!(swarms.scrape(&announced(9999, "1.2.3.4:5", true).infohash).seeders, 1);
    }

    #[test]
    fn floods_of_peers_end_at_the_limit() {
        let mut swarms = swarms(Limits { peer_max: 100, ..limits() });
        for port in 1..1000_u32 {
            let torrent = port % 3;
            peers(&mut swarms, at(0), &announced(torrent, &format!("1.2.3.4:{port}"), false));
        }
        assert_eq!(swarms.totals(), Totals { torrents: 3, peers: 100, seeders: 0 });
    }
}
