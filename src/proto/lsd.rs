//! Local service discovery (BEP 14): finds peers of the same torrents on the local network.
//!
//! One machine for all torrents of a process: each is announced soon after it is added and then
//! every five minutes ([`INTERVAL`]), several in one datagram, to one multicast group for each
//! family. When a new peer announces one of our torrents, our own announce of it is brought
//! forward, so that it finds us even if we cannot reach it.
//!
//! The BEP asks for at most one announce a minute. This holds for each swarm ([`TORRENT_SPACING`]),
//! and for the whole with up to about a hundred torrents; a client with thousands would need hours
//! to announce each once. So datagrams with torrents that were never announced are sent once a
//! second ([`FIRST_SPACING`]), all others at most every ten seconds ([`REPEAT_SPACING`]): ten
//! thousand torrents, 400 datagrams, are announced within seven minutes and repeated in little more
//! than an hour.
//!
//! Only senders with a local address are accepted. The groups do not leave the site, but any host
//! may send a datagram to the port, and its source may be forged: the named peer would be dialled
//! as a local one. Link-local IPv6 addresses are not accepted, because they mean nothing without
//! their interface, nor are global IPv6 addresses of local hosts, which cannot be distinguished
//! from remote ones: such hosts find each other over IPv4. The effect of a host is bounded by
//! source ([`PORTS_MAX`], [`SOURCES_MAX`]) and then by the candidates' limits. Knows no sockets.

mod datagram;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::compact;
use super::infohash::InfoHash;
use super::rng::Rng;
use super::time::{Duration, Instant};
pub use datagram::{BadDatagram, DATAGRAM_LEN_MAX, INFOHASH_MAX, Search};

/// The port of both groups.
pub const LSD_PORT: u16 = 6_771;
/// Interval between announces of a torrent, plus up to a tenth.
pub const INTERVAL: Duration = Duration::from_secs(300);
/// Least time between two announces of one torrent: the BEP's minute.
pub const TORRENT_SPACING: Duration = Duration::from_secs(60);
/// Least time between two datagrams to a group if the later one has a torrent that was never
/// announced.
pub const FIRST_SPACING: Duration = Duration::from_secs(1);
/// Least time before a datagram that only repeats or answers; torrents wait for the next one.
pub const REPEAT_SPACING: Duration = Duration::from_secs(10);
/// Most time until a torrent is announced that was added, or that a new peer announced.
const SOON: Duration = Duration::from_secs(1);
/// Torrents that are due within this time join a datagram that is due, if it has room.
const AHEAD: Duration = Duration::from_secs(60);
/// Most ports accepted of one source within [`HEARD_FOR`], because several processes may share a
/// host; further ones are ignored.
pub const PORTS_MAX: usize = 16;
/// Most sources accepted within [`HEARD_FOR`], more than a local network has; further ones are
/// ignored.
pub const SOURCES_MAX: usize = 1_024;
/// Most pairs of torrent and peer that are remembered, some 600 KiB; beyond it no peer counts as
/// new, and announces keep their interval.
const KNOWN_MAX: usize = 8_192;
/// Silence after which a peer is forgotten: three announces were missed.
const HEARD_FOR: Duration = Duration::from_secs(900);

/// A multicast group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// 239.192.152.143
    V4,
    /// ff15::efc0:988f
    V6,
}

impl Group {
    /// Returns its address and port.
    pub fn addr(self) -> SocketAddr {
        let ip: IpAddr = match self {
            Self::V4 => Ipv4Addr::new(239, 192, 152, 143).into(),
            Self::V6 => Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f).into(),
        };
        SocketAddr::new(ip, LSD_PORT)
    }
}

/// An output of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// Send a datagram to a group, from every interface.
    Announce(Group, Vec<u8>),
    /// A peer of one of our torrents.
    Peer(InfoHash, SocketAddr),
}

/// When a torrent was announced, and will be.
#[derive(Clone, Copy, Debug)]
struct Plan {
    announced_at: Option<Instant>,
    due_at: Instant,
}

/// The machine.
#[derive(Debug)]
pub struct Lsd {
    port: u16,
    /// Identifies our own datagrams.
    cookie: String,
    torrents: BTreeMap<InfoHash, Plan>,
    /// Torrents that were never announced, by their `due_at`.
    fresh: BTreeSet<(Instant, InfoHash)>,
    /// All other torrents, by their `due_at`.
    due: BTreeSet<(Instant, InfoHash)>,
    /// When the last datagram was sent, or the machine created.
    sent_at: Instant,
    heard: Heard,
    out: VecDeque<Output>,
    rng: Rng,
}

impl Lsd {
    /// Creates it without torrents. `port` is our listening port.
    pub fn new(port: u16, mut rng: Rng, now: Instant) -> Self {
        let cookie = format!("{:016x}", rng.bits());
        Self {
            port,
            cookie,
            torrents: BTreeMap::new(),
            fresh: BTreeSet::new(),
            due: BTreeSet::new(),
            sent_at: now,
            heard: Heard::default(),
            out: VecDeque::new(),
            rng,
        }
    }

    /// Adds a public torrent.
    pub fn handle_added(&mut self, now: Instant, infohash: InfoHash) {
        if !self.torrents.contains_key(&infohash) {
            let due_at = now + SOON.mul_f64(self.rng.unit());
            self.plan(infohash, Plan { announced_at: None, due_at });
        }
        #[cfg(debug_assertions)]
        self.check_invariant();
    }

    /// Removes a torrent.
    pub fn handle_removed(&mut self, infohash: InfoHash) {
        if let Some(plan) = self.torrents.remove(&infohash) {
            self.queue_of(plan).remove(&(plan.due_at, infohash));
        }
        self.heard.forget(infohash);
        #[cfg(debug_assertions)]
        self.check_invariant();
    }

    /// Handles a datagram to a group. Our own have our cookie; invalid ones are dropped.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let Some(host) = neighbour(from) else { return };
        let Ok(search) = Search::decode(bytes) else { return };
        if search.cookie.as_deref() == Some(&self.cookie) {
            return;
        }
        let addr = SocketAddr::new(host, search.port);
        for infohash in search.infohashes {
            let Some(&plan) = self.torrents.get(&infohash) else { continue };
            if !self.heard.admit(now, addr) {
                return;
            }
            if self.heard.note(now, infohash, addr) {
                self.answer(now, infohash, plan);
            }
            self.out.push_back(Output::Peer(infohash, addr));
        }
        #[cfg(debug_assertions)]
        self.check_invariant();
    }

    /// Applies the passage of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.announce(now);
        }
        #[cfg(debug_assertions)]
        self.check_invariant();
    }

    /// Returns the next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Returns when to call [`Lsd::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let after = |queue: &BTreeSet<(Instant, InfoHash)>, spacing| {
            queue.first().map(|&(due_at, _)| due_at.max(self.sent_at + spacing))
        };
        let first_at = after(&self.fresh, FIRST_SPACING);
        first_at.into_iter().chain(after(&self.due, REPEAT_SPACING)).min()
    }

    /// Sends one datagram with the torrents that are due, new ones first, and others that may join.
    fn announce(&mut self, now: Instant) {
        let may_go = |at: Instant, infohash: &InfoHash| {
            let announced_at = self.torrents.get(infohash).and_then(|plan| plan.announced_at);
            at <= now || announced_at.is_none_or(|announced_at| now - announced_at >= TORRENT_SPACING)
        };
        let end = (now + AHEAD, InfoHash([0xff; 20]));
        let ready = self.fresh.range(..=end).chain(self.due.range(..=end));
        let ready = ready.filter(|(at, infohash)| may_go(*at, infohash));
        let infohashes: Vec<_> = ready.map(|&(_, infohash)| infohash).take(INFOHASH_MAX).collect();
        // The same time for all, so that they share the next datagram too.
        let due_at = now + INTERVAL + (INTERVAL / 10).mul_f64(self.rng.unit());
        for &infohash in &infohashes {
            self.plan(infohash, Plan { announced_at: Some(now), due_at });
        }
        self.sent_at = now;
        let search = Search { port: self.port, infohashes, cookie: Some(self.cookie.clone()) };
        for group in [Group::V4, Group::V6] {
            self.out.push_back(Output::Announce(group, search.encode(group)));
        }
    }

    /// A new peer announced this torrent: brings our announce forward.
    fn answer(&mut self, now: Instant, infohash: InfoHash, plan: Plan) {
        let soon = now + SOON.mul_f64(self.rng.unit());
        let spaced = plan.announced_at.map_or(soon, |announced_at| soon.max(announced_at + TORRENT_SPACING));
        if spaced < plan.due_at {
            self.plan(infohash, Plan { due_at: spaced, ..plan });
        }
    }

    fn plan(&mut self, infohash: InfoHash, plan: Plan) {
        if let Some(earlier) = self.torrents.insert(infohash, plan) {
            self.queue_of(earlier).remove(&(earlier.due_at, infohash));
        }
        self.queue_of(plan).insert((plan.due_at, infohash));
    }

    fn queue_of(&mut self, plan: Plan) -> &mut BTreeSet<(Instant, InfoHash)> {
        if plan.announced_at.is_none() { &mut self.fresh } else { &mut self.due }
    }

    /// Asserts that the queues agree with the plans.
    #[cfg(debug_assertions)]
    fn check_invariant(&self) {
        debug_assert_eq!(self.torrents.len(), self.fresh.len() + self.due.len());
        debug_assert!(self.heard.sources.len() <= SOURCES_MAX && self.heard.peers.len() <= KNOWN_MAX);
    }
}

/// Returns the host of an accepted sender: a local address with a meaning outside its interface.
fn neighbour(from: SocketAddr) -> Option<IpAddr> {
    let ip = from.ip().to_canonical();
    let is_link_local = match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    (compact::is_local(ip) && !is_link_local).then_some(ip)
}

/// The peers that announced recently.
#[derive(Debug, Default)]
struct Heard {
    /// The ports of each host, with the time of the last announce.
    sources: BTreeMap<IpAddr, BTreeMap<u16, Instant>>,
    /// When the oldest source may be forgotten; until then a full table stays full.
    swept_at: Instant,
    /// The last announce of each peer for each torrent.
    peers: BTreeMap<(InfoHash, SocketAddr), Instant>,
}

impl Heard {
    /// Whether this peer is within the limits of its host and of all hosts.
    fn admit(&mut self, now: Instant, addr: SocketAddr) -> bool {
        if now - self.swept_at >= TORRENT_SPACING {
            self.sweep(now);
        }
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&addr.ip()) {
            return false;
        }
        let ports = self.sources.entry(addr.ip()).or_default();
        let admits = ports.len() < PORTS_MAX || ports.contains_key(&addr.port());
        if admits {
            ports.insert(addr.port(), now);
        }
        admits
    }

    /// Notes an announce; returns whether the peer is new for this torrent.
    fn note(&mut self, now: Instant, infohash: InfoHash, addr: SocketAddr) -> bool {
        let key = (infohash, addr);
        if self.peers.len() >= KNOWN_MAX && !self.peers.contains_key(&key) {
            return false;
        }
        self.peers.insert(key, now).is_none()
    }

    /// Forgets peers after a long silence.
    fn sweep(&mut self, now: Instant) {
        self.swept_at = now;
        let is_fresh = |at: Instant| now - at < HEARD_FOR;
        self.peers.retain(|_, at| is_fresh(*at));
        self.sources.retain(|_, ports| {
            ports.retain(|_, at| is_fresh(*at));
            !ports.is_empty()
        });
    }

    /// Forgets a torrent.
    fn forget(&mut self, infohash: InfoHash) {
        let least = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let of_torrent = self.peers.range((infohash, least)..).map(|(key, _)| *key);
        let of_torrent: Vec<_> = of_torrent.take_while(|key| key.0 == infohash).collect();
        of_torrent.iter().for_each(|key| _ = self.peers.remove(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Instant = Instant::from_micros(1_000_000);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn infohash(number: u32) -> InfoHash {
        InfoHash::of(&number.to_be_bytes())
    }

    fn lsd(seed: u64) -> Lsd {
        Lsd::new(6881, Rng::from_number(seed), T0)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Another client's announce of these torrents.
    fn announce(port: u16, torrents: &[u32]) -> Vec<u8> {
        let infohashes = torrents.iter().copied().map(infohash).collect();
        Search { port, infohashes, cookie: Some("stranger".to_owned()) }.encode(Group::V4)
    }

    fn peers(lsd: &mut Lsd) -> Vec<(InfoHash, SocketAddr)> {
        let peer =
            |output| if let Output::Peer(infohash, addr) = output { Some((infohash, addr)) } else { None };
        std::iter::from_fn(|| lsd.poll_output()).filter_map(peer).collect()
    }

    /// All datagrams to the IPv4 group until `end`: time and torrents.
    fn run(lsd: &mut Lsd, end: Instant) -> Vec<(Instant, Vec<InfoHash>)> {
        let mut sent = Vec::new();
        while let Some(at) = lsd.poll_timeout().filter(|at| *at <= end) {
            lsd.handle_timeout(at);
            while let Some(output) = lsd.poll_output() {
                if let Output::Announce(Group::V4, bytes) = output {
                    assert!(bytes.len() <= DATAGRAM_LEN_MAX);
                    sent.push((at, Search::decode(&bytes).unwrap().infohashes));
                }
            }
        }
        sent
    }

    #[test]
    fn a_torrent_is_announced_within_a_second_to_both_groups_and_then_every_five_minutes() {
        let mut lsd = lsd(1);
        assert_eq!(lsd.poll_timeout(), None, "without torrents there is nothing to wait for");
        lsd.handle_added(T0, infohash(1));
        let at = lsd.poll_timeout().unwrap();
        assert!(at - T0 <= secs(1));
        lsd.handle_timeout(at);
        let sent: Vec<_> = std::iter::from_fn(|| lsd.poll_output()).collect();
        assert!(matches!(&sent[..], [Output::Announce(Group::V4, _), Output::Announce(Group::V6, _)]));
        lsd.handle_added(at, infohash(1));
        let later = run(&mut lsd, T0 + secs(3_600));
        assert!((10..=12).contains(&later.len()), "{later:?}");
        lsd.handle_removed(infohash(1));
        assert_eq!(lsd.poll_timeout(), None);
    }

    #[test]
    fn many_torrents_share_datagrams_and_the_plan_spreads() {
        let mut lsd = lsd(1);
        (0..10_000).for_each(|number| lsd.handle_added(T0, infohash(number)));
        let sent = run(&mut lsd, T0 + secs(3 * 3_600));
        let mut known = BTreeSet::new();
        let mut sent_at: Option<Instant> = None;
        for (at, infohashes) in &sent {
            let has_new = infohashes.iter().filter(|infohash| known.insert(**infohash)).count() > 0;
            let spacing = if has_new { FIRST_SPACING } else { REPEAT_SPACING };
            assert!(sent_at.is_none_or(|sent_at| *at - sent_at >= spacing));
            assert!(!has_new || *at - T0 <= secs(450), "all are known soon");
            sent_at = Some(*at);
        }
        let mut announced: BTreeMap<InfoHash, Vec<Instant>> = BTreeMap::new();
        for (at, infohashes) in &sent {
            infohashes.iter().for_each(|infohash| announced.entry(*infohash).or_default().push(*at));
        }
        assert_eq!(announced.len(), 10_000);
        for times in announced.values() {
            assert!(times.len() >= 3, "{times:?}");
            assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= TORRENT_SPACING), "{times:?}");
        }
        let full = sent.iter().filter(|(_, infohashes)| infohashes.len() == INFOHASH_MAX).count();
        assert!(full * 10 > sent.len() * 9, "{full} of {}", sent.len());
    }

    #[test]
    fn only_a_local_host_s_announce_of_our_torrents_gives_peers() {
        let mut lsd = lsd(1);
        lsd.handle_added(T0, infohash(1));
        lsd.handle_added(T0, infohash(2));
        let from = addr("192.168.1.7:50000");
        lsd.handle_datagram(T0, from, &announce(7000, &[1, 9, 2]));
        let theirs = addr("192.168.1.7:7000");
        assert_eq!(peers(&mut lsd), [(infohash(1), theirs), (infohash(2), theirs)]);
        for stranger in ["8.8.8.8:6771", "[2001:db8::1]:6771", "[fe80::1]:6771", "[::ffff:8.8.8.8]:6771"] {
            lsd.handle_datagram(T0, addr(stranger), &announce(7000, &[1]));
        }
        lsd.handle_datagram(T0, from, &announce(7000, &[9]));
        lsd.handle_datagram(T0, from, b"BT-SEARCH * HTTP/1.1\r\nnonsense");
        assert_eq!(peers(&mut lsd), []);
        lsd.handle_datagram(T0, addr("[fd00::7]:6771"), &announce(7000, &[1]));
        assert_eq!(peers(&mut lsd), [(infohash(1), addr("[fd00::7]:7000"))]);
    }

    #[test]
    fn our_own_announces_are_ignored_and_those_of_another_process_are_not() {
        let (mut one, mut other) = (lsd(1), lsd(2));
        one.handle_added(T0, infohash(1));
        other.handle_added(T0, infohash(1));
        let at = one.poll_timeout().unwrap();
        one.handle_timeout(at);
        let Some(Output::Announce(_, bytes)) = one.poll_output() else { panic!("an announce is due") };
        let _ = one.poll_output();
        for lsd in [&mut one, &mut other] {
            lsd.handle_datagram(at, addr("192.168.1.7:6771"), &bytes);
        }
        assert_eq!(one.poll_output(), None);
        assert_eq!(peers(&mut other), [(infohash(1), addr("192.168.1.7:6881"))]);
    }

    #[test]
    fn a_new_peer_gets_an_announce_soon_but_not_twice_a_minute() {
        let mut lsd = lsd(1);
        lsd.handle_added(T0, infohash(1));
        let first = run(&mut lsd, T0 + secs(1))[0].0;
        let mut now = first + secs(10);
        lsd.handle_datagram(now, addr("192.168.1.7:6771"), &announce(7000, &[1]));
        let second = run(&mut lsd, first + secs(70))[0].0;
        assert!(second - first >= TORRENT_SPACING && second - first < secs(62), "{:?}", second - first);
        now = second + secs(100);
        lsd.handle_datagram(now, addr("192.168.1.7:6771"), &announce(7000, &[1]));
        assert_eq!(run(&mut lsd, now + secs(100)), [], "it is known, and announces are no conversation");
        now += secs(101);
        lsd.handle_datagram(now, addr("192.168.1.8:6771"), &announce(7000, &[1]));
        assert_eq!(run(&mut lsd, now + secs(1)).len(), 1, "somebody new");
    }

    #[test]
    fn named_peers_are_bounded() {
        let mut lsd = lsd(1);
        lsd.handle_added(T0, infohash(1));
        let mut named = BTreeSet::new();
        for port in 1..2_000 {
            lsd.handle_datagram(T0, addr("192.168.1.7:6771"), &announce(port, &[1]));
            named.extend(peers(&mut lsd));
        }
        assert_eq!(named.len(), PORTS_MAX);
        for host in 0..20_000_u32 {
            let from = SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + host).into(), 6771);
            lsd.handle_datagram(T0, from, &announce(7000, &[1]));
            named.extend(peers(&mut lsd));
        }
        assert_eq!(named.len(), PORTS_MAX + SOURCES_MAX - 1);
        lsd.handle_datagram(T0 + HEARD_FOR, addr("10.9.9.9:6771"), &announce(7000, &[1]));
        assert_eq!(peers(&mut lsd).len(), 1, "the silent are forgotten");
    }
}
