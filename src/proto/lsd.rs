//! Local service discovery (BEP 14): who on the local network has the same torrents.
//!
//! One machine for all torrents of a process: each is announced soon after it is added and then
//! every five minutes ([`INTERVAL`]), several in one datagram, to one multicast group a family.
//! When a new peer announces a torrent of ours, our own announce of it comes sooner, so that late
//! comers find us even if we cannot reach them.
//!
//! The BEP wants no more than one announce a minute. We keep that for each swarm
//! ([`TORRENT_SPACING`]), and for the whole with up to a hundred torrents or so; a client with
//! thousands would then need hours to say once what it has. So datagrams with torrents that were
//! never announced go once a second ([`FIRST_SPACING`]), all others every ten seconds at most
//! ([`REPEAT_SPACING`]): ten thousand torrents, 400 datagrams, are known after seven minutes and
//! repeated in little more than an hour.
//!
//! Only senders with a local address are heard. The groups do not leave the site, but a datagram
//! may come to our port from anywhere, and its sender's address may be false: whoever it names
//! would be dialled as a neighbour. Link-local IPv6 is not heard either, as its addresses mean
//! nothing without their interface, nor is a neighbour's global IPv6 address, which from here
//! cannot be told from a stranger's: such hosts hear each other over IPv4. What a neighbour can
//! cause is bounded by source ([`PORTS_MAX`], [`SOURCES_MAX`]) and then by the gate of candidates.
//! It knows no sockets.

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
/// How often a torrent is announced, and up to a tenth later.
pub const INTERVAL: Duration = Duration::from_secs(300);
/// Least time between two announces of one torrent: the BEP's minute.
pub const TORRENT_SPACING: Duration = Duration::from_secs(60);
/// Least time between two datagrams to a group if the later one has a torrent that was never
/// announced; others wait.
pub const FIRST_SPACING: Duration = Duration::from_secs(1);
/// Least time before a datagram that only repeats, or answers; torrents wait for the next one.
pub const REPEAT_SPACING: Duration = Duration::from_secs(10);
/// Within so long a torrent is announced that was added, or that a newcomer announced.
const SOON: Duration = Duration::from_secs(1);
/// Torrents that are due so much later go with those that are due now, if there is room in the
/// datagram.
const AHEAD: Duration = Duration::from_secs(60);
/// Ports heard of one source within [`HEARD_FOR`], as many processes share a host; of more we hear
/// nothing.
pub const PORTS_MAX: usize = 16;
/// Sources heard within [`HEARD_FOR`], more than a local network has; of more we hear nothing.
pub const SOURCES_MAX: usize = 1_024;
/// Pairs of a torrent and a peer that are remembered, some 600 KiB at most; beyond it nobody counts
/// as new, and our announces keep their own pace.
const KNOWN_MAX: usize = 8_192;
/// After so long of silence a peer is forgotten: three announces were missed.
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
    /// Where its datagrams go.
    pub fn addr(self) -> SocketAddr {
        let ip: IpAddr = match self {
            Self::V4 => Ipv4Addr::new(239, 192, 152, 143).into(),
            Self::V6 => Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f).into(),
        };
        SocketAddr::new(ip, LSD_PORT)
    }
}

/// The machine's decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// Send a datagram to a group, from every interface.
    Announce(Group, Vec<u8>),
    /// A peer of a torrent of ours.
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
    /// Tells our own datagrams from others'.
    cookie: String,
    torrents: BTreeMap<InfoHash, Plan>,
    /// The torrents that were never announced by their `due_at`.
    fresh: BTreeSet<(Instant, InfoHash)>,
    /// All others by their `due_at`.
    due: BTreeSet<(Instant, InfoHash)>,
    /// When the last datagram went, or it all began.
    sent_at: Instant,
    heard: Heard,
    out: VecDeque<Output>,
    rng: Rng,
}

impl Lsd {
    /// No torrents. `port`: where we take connections.
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

    /// A public torrent runs.
    pub fn handle_added(&mut self, now: Instant, infohash: InfoHash) {
        if !self.torrents.contains_key(&infohash) {
            let due_at = now + SOON.mul_f64(self.rng.unit());
            self.plan(infohash, Plan { announced_at: None, due_at });
        }
        #[cfg(debug_assertions)]
        self.check_invariant();
    }

    /// A torrent has left.
    pub fn handle_removed(&mut self, infohash: InfoHash) {
        if let Some(plan) = self.torrents.remove(&infohash) {
            self.queue_of(plan).remove(&(plan.due_at, infohash));
        }
        self.heard.forget(infohash);
        #[cfg(debug_assertions)]
        self.check_invariant();
    }

    /// A datagram came to a group. Our own are known by their cookie; nonsense is dropped.
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

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.announce(now);
        }
        #[cfg(debug_assertions)]
        self.check_invariant();
    }

    /// The next decision.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to call [`Lsd::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let after = |queue: &BTreeSet<(Instant, InfoHash)>, spacing| {
            queue.first().map(|&(due_at, _)| due_at.max(self.sent_at + spacing))
        };
        let first_at = after(&self.fresh, FIRST_SPACING);
        first_at.into_iter().chain(after(&self.due, REPEAT_SPACING)).min()
    }

    /// One datagram with the torrents that are due, the new ones first, and those that may go with
    /// them.
    fn announce(&mut self, now: Instant) {
        let may_go = |at: Instant, infohash: &InfoHash| {
            let announced_at = self.torrents.get(infohash).and_then(|plan| plan.announced_at);
            at <= now || announced_at.is_none_or(|announced_at| now - announced_at >= TORRENT_SPACING)
        };
        let end = (now + AHEAD, InfoHash([0xff; 20]));
        let ready = self.fresh.range(..=end).chain(self.due.range(..=end));
        let ready = ready.filter(|(at, infohash)| may_go(*at, infohash));
        let infohashes: Vec<_> = ready.map(|&(_, infohash)| infohash).take(INFOHASH_MAX).collect();
        // One moment for all, so that they go together the next time too.
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

    /// Somebody new announced this torrent: it hears of us soon.
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

    /// Says whether the books agree.
    #[cfg(debug_assertions)]
    fn check_invariant(&self) {
        debug_assert_eq!(self.torrents.len(), self.fresh.len() + self.due.len());
        debug_assert!(self.heard.sources.len() <= SOURCES_MAX && self.heard.peers.len() <= KNOWN_MAX);
    }
}

/// The host of a sender that we hear: local, and an address that means something without its
/// interface.
fn neighbour(from: SocketAddr) -> Option<IpAddr> {
    let ip = from.ip().to_canonical();
    let is_link_local = match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    (compact::is_local(ip) && !is_link_local).then_some(ip)
}

/// Who announced what lately.
#[derive(Debug, Default)]
struct Heard {
    /// The ports of each host, with when each was heard last.
    sources: BTreeMap<IpAddr, BTreeMap<u16, Instant>>,
    /// When the oldest source may be forgotten: until then a full table stays full.
    swept_at: Instant,
    /// When each peer of each torrent was heard last.
    peers: BTreeMap<(InfoHash, SocketAddr), Instant>,
}

impl Heard {
    /// Whether this peer is within what its host, and all hosts together, may name.
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

    /// Whether this is somebody new for this torrent.
    fn note(&mut self, now: Instant, infohash: InfoHash, addr: SocketAddr) -> bool {
        let key = (infohash, addr);
        if self.peers.len() >= KNOWN_MAX && !self.peers.contains_key(&key) {
            return false;
        }
        self.peers.insert(key, now).is_none()
    }

    /// Forgets who was silent for long.
    fn sweep(&mut self, now: Instant) {
        self.swept_at = now;
        let is_fresh = |at: Instant| now - at < HEARD_FOR;
        self.peers.retain(|_, at| is_fresh(*at));
        self.sources.retain(|_, ports| {
            ports.retain(|_, at| is_fresh(*at));
            !ports.is_empty()
        });
    }

    /// The torrent has left.
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

    /// A stranger's announce of these torrents.
    fn announce(port: u16, torrents: &[u32]) -> Vec<u8> {
        let infohashes = torrents.iter().copied().map(infohash).collect();
        Search { port, infohashes, cookie: Some("stranger".to_owned()) }.encode(Group::V4)
    }

    fn peers(lsd: &mut Lsd) -> Vec<(InfoHash, SocketAddr)> {
        let peer =
            |output| if let Output::Peer(infohash, addr) = output { Some((infohash, addr)) } else { None };
        std::iter::from_fn(|| lsd.poll_output()).filter_map(peer).collect()
    }

    /// All datagrams to the group of IPv4 until `end`: when, and what they announce.
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
    fn a_neighbour_s_torrents_of_ours_give_peers_and_nothing_else_does() {
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
    fn our_own_announces_are_not_heard_and_another_process_of_our_host_is() {
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
    fn a_late_comer_hears_of_us_soon_but_not_twice_a_minute() {
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
    fn nobody_can_name_peers_without_end() {
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
