//! Addresses of peers that we might dial: the one gate for all sources.
//!
//! An address enters in its one form, if anybody can be there, if its source may name it, and if
//! its host is not banned; it leaves by [`Candidates::next_dial`], one dial at a time and at most
//! one a minute to one host (to what the user named sooner: that peer may be only just starting),
//! the user's and the link's first and gossip last, then those that failed least, then in the
//! canonical order of BEP 40 (or at random as long as our own address is unknown). Of a private
//! torrent (BEP 27) only what trackers, the link or the user named enters.
//!
//! Who poisons trackers, DHT, gossip or links with a victim's address gets it at most one dial a
//! minute from us, whatever ports it is listed with; strangers none if the victim is on our local
//! network, gossips none if the port is a well-known service's. On a local network many peers may
//! share a host, and only neighbours can name it: there the minute counts for each port by itself.
//!
//! Invariants: `ready` holds exactly the addresses in state `Ready`, `waiting` those in `Waiting`;
//! no banned host is known; [`KNOWN_MAX`] is kept. It opens no connection and knows no pieces.

mod priority;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use crate::proto::compact;
use crate::proto::rng::Rng;
use crate::proto::scope::Scope;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event::Source;
use priority::canonical_priority;

/// Addresses known at once, about 200 KiB; beyond it the worst that is not connected makes room, or
/// the new one is dropped.
pub const KNOWN_MAX: usize = 2_000;
/// Addresses that may still be dialled, or are, of those that one teller of gossip named; more are
/// dropped. So no single peer decides whom we meet.
const PER_TELLER_MAX: usize = 200;
/// Addresses known of one public host, so that no list can point us all at one victim.
const PER_HOST_MAX: usize = 8;
/// Hosts remembered as dialled within [`REDIAL_INTERVAL`], about 200 KiB; at so many the next dial
/// waits.
const DIALLED_MAX: usize = 2_000;
/// Gossip may not name lower ports of public hosts: those of mail, names, web and shells, where an
/// unexpected connection is an attack, and where a peer hardly ever listens. Trackers may, for they
/// saw whom they list.
const GOSSIP_PORT_MIN: u16 = 1_024;
/// Hosts remembered as banned; beyond it the first one is forgotten.
const BANNED_MAX: usize = 10_000;
/// Own addresses remembered; more are not, and would be noticed again on connecting.
const OURSELVES_MAX: usize = 16;
/// Least time between two dials of one host, or of one local address, that was not given by the
/// user.
pub const REDIAL_INTERVAL: Duration = Duration::from_secs(60);
/// Least time between two dials of one address of the user's; doubles up to [`REDIAL_INTERVAL`] and
/// is never given up.
pub const USER_REDIAL_INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait after failures, and the rest that an address gets after [`TRIES_MAX`].
const BACKOFF_MAX: Duration = Duration::from_secs(3_600);
/// Dials and connections in a row that brought nothing, after which an address is only dialled if a
/// source names it again later.
const TRIES_MAX: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Waiting(Instant),
    Dialling,
    Connected,
    /// Failed too often; may be named again from then on.
    Spent(Instant),
}

#[derive(Clone, Copy, Debug)]
struct Known {
    source: Source,
    state: State,
    failures: u32,
    /// BEP 40: higher first.
    priority: u32,
    /// A tracker, the link or the user named it, whoever else did.
    named: bool,
    /// Who told of it first, if gossip did.
    teller: Option<IpAddr>,
    /// To be dialled although its host rests: we left only to begin anew.
    prompt: bool,
}

/// Lower is dialled earlier.
type Rank = (u8, u32, Reverse<u32>);

impl Known {
    fn rank(&self) -> Rank {
        (source_rank(self.source), self.failures, Reverse(self.priority))
    }

    fn is_busy(&self) -> bool {
        match self.state {
            State::Dialling | State::Connected => true,
            State::Ready | State::Waiting(_) | State::Spent(_) => false,
        }
    }
}

fn source_rank(source: Source) -> u8 {
    match source {
        Source::User | Source::Magnet => 0,
        Source::Lsd => 1,
        Source::Tracker { .. } | Source::Dht { .. } => 2,
        Source::Pex { .. } => 3,
    }
}

/// Returns whether a source may name this address. A source that is not local may not name local
/// addresses, and no source, the user included, may name an address without a [`Scope`].
fn may_name(source: Source, addr: SocketAddr) -> bool {
    match (source, Scope::of(addr.ip())) {
        (_, None) => false,
        (Source::User | Source::Magnet | Source::Lsd, Some(_)) => true,
        (Source::Tracker { .. }, Some(Scope::Public)) => true,
        (Source::Dht { .. } | Source::Pex { .. }, Some(Scope::Public)) => addr.port() >= GOSSIP_PORT_MIN,
        (
            Source::Tracker { local } | Source::Dht { local } | Source::Pex { local },
            Some(Scope::Private | Scope::LinkLocal | Scope::Loopback),
        ) => local,
    }
}

/// What rests between two dials: a public host with all its ports, a local address by itself.
fn rest_key(addr: SocketAddr) -> SocketAddr {
    if compact::is_local(addr.ip()) { addr } else { SocketAddr::new(addr.ip(), 0) }
}

/// What is banned for an address that lied: its host, whatever the port, for a new port costs
/// nothing. On loopback the address itself, where all peers are of one host and who may lie there
/// can do worse.
fn ban_key(addr: SocketAddr) -> SocketAddr {
    let addr = compact::canonical(addr);
    if addr.ip().is_loopback() { addr } else { SocketAddr::new(addr.ip(), 0) }
}

/// Until when hosts rest that were dialled, by [`rest_key`].
#[derive(Debug, Default)]
struct Rests {
    until: BTreeMap<SocketAddr, Instant>,
    order: BTreeSet<(Instant, SocketAddr)>,
}

impl Rests {
    /// Until when this address must not be dialled; None: it may be now.
    fn until(&mut self, now: Instant, addr: SocketAddr) -> Option<Instant> {
        while let Some(&(until, key)) = self.order.first()
            && until <= now
        {
            self.order.pop_first();
            self.until.remove(&key);
        }
        let full = || self.order.first().filter(|_| self.order.len() >= DIALLED_MAX).map(|first| first.0);
        self.until.get(&rest_key(addr)).copied().or_else(full)
    }

    /// It is dialled now.
    fn begin(&mut self, now: Instant, addr: SocketAddr) {
        let (key, until) = (rest_key(addr), now + REDIAL_INTERVAL);
        if let Some(earlier) = self.until.insert(key, until) {
            self.order.remove(&(earlier, key));
        }
        self.order.insert((until, key));
    }
}

/// Known addresses.
#[derive(Debug)]
pub struct Candidates {
    known: BTreeMap<SocketAddr, Known>,
    ready: BTreeSet<(Rank, SocketAddr)>,
    waiting: BTreeSet<(Instant, SocketAddr)>,
    rests: Rests,
    /// By [`ban_key`].
    banned: BTreeSet<SocketAddr>,
    banned_order: VecDeque<SocketAddr>,
    ourselves: BTreeSet<SocketAddr>,
    external: Option<SocketAddr>,
    /// Only what [`Source::may_be_private`] enters.
    private: bool,
    rng: Rng,
}

impl Candidates {
    /// Nobody known.
    pub fn new(rng: Rng) -> Self {
        Self {
            known: BTreeMap::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            rests: Rests::default(),
            banned: BTreeSet::new(),
            banned_order: VecDeque::new(),
            ourselves: BTreeSet::new(),
            external: None,
            private: false,
            rng,
        }
    }

    /// An address from a source; true if it is new.
    pub fn add(&mut self, now: Instant, source: Source, addr: SocketAddr) -> bool {
        let addr = compact::canonical(addr);
        if !self.may_know(addr, source) {
            return false;
        }
        if let Some(&known) = self.known.get(&addr) {
            self.named_again(now, source, addr, known);
            return false;
        }
        !self.is_crowded(addr, source) && self.insert(addr, source, State::Ready)
    }

    /// Addresses that somebody at `teller` told by gossip.
    pub fn add_gossip(&mut self, now: Instant, teller: IpAddr, addrs: &[SocketAddr]) {
        let source = Source::Pex { local: compact::is_local(teller) };
        let counts = |known: &&Known| known.teller == Some(teller) && !matches!(known.state, State::Spent(_));
        let mut kept = self.known.values().filter(counts).count();
        for &addr in addrs {
            if (kept < PER_TELLER_MAX || self.is_known(addr))
                && self.add(now, source, addr)
                && let Some(known) = self.known.get_mut(&compact::canonical(addr))
            {
                known.teller = Some(teller);
                kept += 1;
            }
        }
    }

    fn may_know(&self, addr: SocketAddr, source: Source) -> bool {
        let is_somebody = compact::is_dialable(addr) && !self.ourselves.contains(&addr);
        let may_name = may_name(source, addr) && (!self.private || source.may_be_private());
        is_somebody && may_name && !self.is_banned(addr)
    }

    /// Whether enough is known of a public host.
    fn is_crowded(&self, addr: SocketAddr, source: Source) -> bool {
        let counts = source != Source::User && !compact::is_local(addr.ip());
        counts && self.of_host(addr.ip()).count() >= PER_HOST_MAX
    }

    fn named_again(&mut self, now: Instant, source: Source, addr: SocketAddr, known: Known) {
        let mut again = known;
        let is_wish = source == Source::User && known.source != Source::User;
        if is_wish || source_rank(source) < source_rank(known.source) {
            again.source = source;
        }
        again.named |= source.may_be_private();
        match known.state {
            // The user's word counts more than our experience: once.
            State::Waiting(_) | State::Spent(_) if is_wish => again.state = State::Ready,
            State::Spent(until) if until <= now => again.state = State::Ready,
            State::Ready | State::Waiting(_) | State::Dialling | State::Connected | State::Spent(_) => {}
        }
        self.put(addr, again);
    }

    fn insert(&mut self, addr: SocketAddr, source: Source, state: State) -> bool {
        let (priority, named) = (self.priority(addr), source.may_be_private());
        let known = Known { source, state, failures: 0, priority, named, teller: None, prompt: false };
        if self.known.len() >= KNOWN_MAX {
            let idle = self.known.iter().filter(|(_, known)| !known.is_busy());
            let worst = idle.max_by_key(|(addr, known)| (known.failures, known.rank(), **addr));
            let Some((&worst_addr, worst)) = worst else { return false };
            if (worst.failures, worst.rank()) <= (known.failures, known.rank()) {
                return false;
            }
            self.remove(worst_addr);
        }
        self.put(addr, known);
        true
    }

    /// Keeps the queues in step with the state.
    fn put(&mut self, addr: SocketAddr, known: Known) {
        self.remove(addr);
        match known.state {
            State::Ready => {
                self.ready.insert((known.rank(), addr));
            }
            State::Waiting(until) => {
                self.waiting.insert((until, addr));
            }
            State::Dialling | State::Connected | State::Spent(_) => {}
        }
        self.known.insert(addr, known);
    }

    fn remove(&mut self, addr: SocketAddr) {
        if let Some(known) = self.known.remove(&addr) {
            self.ready.remove(&(known.rank(), addr));
            if let State::Waiting(until) = known.state {
                self.waiting.remove(&(until, addr));
            }
        }
    }

    fn set_state(&mut self, addr: SocketAddr, failures: u32, state: State) {
        if let Some(&known) = self.known.get(&addr) {
            self.put(addr, Known { failures, state, ..known });
        }
    }

    fn of_host(&self, ip: IpAddr) -> impl Iterator<Item = SocketAddr> {
        let ports = SocketAddr::new(ip, 0)..=SocketAddr::new(ip, u16::MAX);
        self.known.range(ports).map(|(addr, _)| *addr)
    }

    /// The best address to dial now, marked as being dialled; None if nobody is due or `room` is 0.
    pub fn next_dial(&mut self, now: Instant, room: usize) -> Option<SocketAddr> {
        if room == 0 {
            return None;
        }
        while let Some(&(until, addr)) = self.waiting.first()
            && until <= now
        {
            let failures = self.known.get(&addr).map_or(0, |known| known.failures);
            self.set_state(addr, failures, State::Ready);
        }
        while let Some(&((_, failures, _), addr)) = self.ready.first() {
            let known = self.known.get(&addr);
            let rests = known.is_some_and(|known| known.source != Source::User && !known.prompt);
            if let Some(until) = self.rests.until(now, addr).filter(|_| rests) {
                self.set_state(addr, failures, State::Waiting(until));
                continue;
            }
            self.rests.begin(now, addr);
            self.set_state(addr, failures, State::Dialling);
            if let Some(known) = self.known.get_mut(&addr) {
                known.prompt = false;
            }
            return Some(addr);
        }
        None
    }

    /// When [`Candidates::next_dial`] may have somebody; in the past if it has already.
    pub fn next_at(&self) -> Option<Instant> {
        if self.ready.is_empty() { self.waiting.first().map(|first| first.0) } else { Some(Instant::ZERO) }
    }

    /// A dial failed: backoff.
    pub fn dial_failed(&mut self, now: Instant, addr: SocketAddr) {
        let addr = compact::canonical(addr);
        let Some(&known) = self.known.get(&addr) else { return };
        let failures = known.failures.saturating_add(1);
        let state = if failures >= TRIES_MAX && known.source != Source::User {
            State::Spent(now + BACKOFF_MAX)
        } else {
            State::Waiting(now + self.backoff(known.source, failures))
        };
        self.set_state(addr, failures, state);
    }

    /// Doubles with each failure, with up to half as much again at random, so that not all come
    /// back at once.
    fn backoff(&mut self, source: Source, failures: u32) -> Duration {
        let (least, most) = match source {
            Source::User => (USER_REDIAL_INTERVAL, REDIAL_INTERVAL),
            Source::Magnet
            | Source::Lsd
            | Source::Tracker { .. }
            | Source::Dht { .. }
            | Source::Pex { .. } => (REDIAL_INTERVAL, BACKOFF_MAX),
        };
        let doubled = least * (1 << failures.saturating_sub(1).min(10));
        doubled.min(most).mul_f64(1.0 + self.rng.unit() / 2.0)
    }

    /// A connection that we dialled is up. Earlier failures stand until it was useful: two seeds
    /// would meet and part for ever.
    pub fn dialled(&mut self, addr: SocketAddr) {
        self.connected(compact::canonical(addr));
    }

    fn connected(&mut self, addr: SocketAddr) {
        let failures = self.known.get(&addr).map_or(0, |known| known.failures);
        self.set_state(addr, failures, State::Connected);
    }

    /// A connected peer listens at this address (extension handshake `p`): not dialled while it is
    /// connected. It says so itself, so that new addresses enter as gossip does.
    pub fn listens_at(&mut self, addr: SocketAddr) {
        let addr = compact::canonical(addr);
        match self.known.get(&addr).map(|known| known.state) {
            // The dial's own end decides.
            Some(State::Dialling) => {}
            Some(_) => self.connected(addr),
            None => {
                let source = Source::Pex { local: compact::is_local(addr.ip()) };
                if self.may_know(addr, source) && !self.is_crowded(addr, source) {
                    self.insert(addr, source, State::Connected);
                }
            }
        }
    }

    /// We closed the connection to this address only to begin anew, or because of a pause: it may
    /// be dialled at once, and once.
    pub fn anew(&mut self, addr: SocketAddr) {
        let addr = compact::canonical(addr);
        if let Some(&known) = self.known.get(&addr).filter(|known| known.state == State::Connected) {
            self.put(addr, Known { state: State::Ready, failures: 0, prompt: true, ..known });
        }
    }

    /// A connection to a dialled or listening address is gone; `useful` if it was worth coming back
    /// to.
    pub fn disconnected(&mut self, now: Instant, addr: SocketAddr, useful: bool) {
        let addr = compact::canonical(addr);
        let Some(&known) = self.known.get(&addr) else { return };
        if useful && known.state == State::Connected {
            let rest = self.backoff(known.source, 0);
            self.set_state(addr, 0, State::Waiting(now + rest));
        } else if known.is_busy() {
            self.dial_failed(now, addr);
        }
    }

    /// That was ourselves: never again.
    pub fn ourselves(&mut self, addr: SocketAddr) {
        let addr = compact::canonical(addr);
        self.remove(addr);
        if self.ourselves.len() < OURSELVES_MAX {
            self.ourselves.insert(addr);
        }
    }

    /// Nothing more to do with the host of this address.
    pub fn ban(&mut self, addr: SocketAddr) {
        let key = ban_key(addr);
        let of_host: Vec<SocketAddr> = self.of_host(key.ip()).collect();
        of_host.into_iter().filter(|addr| ban_key(*addr) == key).for_each(|addr| self.remove(addr));
        if self.banned.insert(key) {
            self.banned_order.push_back(key);
        }
        if self.banned_order.len() > BANNED_MAX
            && let Some(first) = self.banned_order.pop_front()
        {
            self.banned.remove(&first);
        }
    }

    /// Whether the host of this address is banned: for incoming connections too.
    pub fn is_banned(&self, addr: SocketAddr) -> bool {
        self.banned.contains(&ban_key(addr))
    }

    /// The torrent is private: forgets whom no tracker, no link and no user named, and nobody else
    /// comes in.
    pub fn keep_named(&mut self) {
        self.private = true;
        let others = self.known.iter().filter(|(_, known)| !known.named);
        let others: Vec<SocketAddr> = others.map(|(addr, _)| *addr).collect();
        others.into_iter().for_each(|addr| self.remove(addr));
    }

    /// Whether a tracker, the link or the user named this address.
    pub fn is_named(&self, addr: SocketAddr) -> bool {
        self.known.get(&compact::canonical(addr)).is_some_and(|known| known.named)
    }

    /// Whether the address is known, in whatever state.
    pub fn is_known(&self, addr: SocketAddr) -> bool {
        self.known.contains_key(&compact::canonical(addr))
    }

    /// Our own address as others see it, for the canonical order (BEP 40).
    pub fn external_addr(&mut self, addr: SocketAddr) {
        let addr = compact::canonical(addr);
        if self.external == Some(addr) {
            return;
        }
        self.external = Some(addr);
        let all: Vec<(SocketAddr, Known)> = self.known.iter().map(|(addr, known)| (*addr, *known)).collect();
        for (addr, known) in all {
            let priority = self.priority(addr);
            self.put(addr, Known { priority, ..known });
        }
    }

    fn priority(&mut self, addr: SocketAddr) -> u32 {
        let canonical = self.external.and_then(|external| canonical_priority(external, addr));
        canonical.unwrap_or_else(|| self.rng.bits() as u32)
    }

    /// Addresses that may be dialled now or later.
    pub fn len(&self) -> usize {
        self.ready.len() + self.waiting.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const T0: Instant = Instant::from_micros(1_000_000);
    const OPEN: Source = Source::Tracker { local: false };
    const PEX: Source = Source::Pex { local: false };
    const DHT: Source = Source::Dht { local: false };

    fn candidates() -> Candidates {
        Candidates::new(Rng::from_number(1))
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    #[test]
    fn strangers_name_no_address_of_the_local_network_however_it_is_written() {
        let local = [
            "127.0.0.1:6881",
            "10.0.0.1:6881",
            "100.64.0.1:6881",
            "[::ffff:192.168.0.1]:6881",
            "[64:ff9b::10.0.0.1]:6881",
            "[2002:7f00:1::1]:6881",
            "[fe80::1]:6881",
        ];
        let never = ["169.254.169.254:6881", "[fd00:ec2::254]:6881", "240.0.0.1:6881", "[::127.0.0.1]:6881"];
        for (source, neighbour) in [
            (OPEN, Source::Tracker { local: true }),
            (PEX, Source::Pex { local: true }),
            (DHT, Source::Dht { local: true }),
        ] {
            for text in local {
                assert!(!candidates().add(T0, source, addr(text)), "{source:?} {text}");
                assert!(candidates().add(T0, neighbour, addr(text)), "{neighbour:?} {text}");
            }
            for text in never {
                assert!(!candidates().add(T0, source, addr(text)), "{source:?} {text}");
                assert!(!candidates().add(T0, neighbour, addr(text)), "{neighbour:?} {text}");
            }
        }
        for source in [Source::User, Source::Magnet, Source::Lsd] {
            for text in local {
                assert!(candidates().add(T0, source, addr(text)), "{source:?} {text}");
            }
            for text in never {
                assert!(!candidates().add(T0, source, addr(text)), "{source:?} {text}");
            }
        }
    }

    #[test]
    fn a_link_s_peers_come_first_and_cost_a_victim_no_more_than_others() {
        let mut candidates = candidates();
        let victim = |port| SocketAddr::from(([9, 9, 9, 9], port));
        let crowd = (1..100).filter(|&port| candidates.add(T0, Source::Magnet, victim(port)));
        assert_eq!(crowd.count(), PER_HOST_MAX);
        candidates.add(T0, OPEN, addr("8.8.8.8:6881"));
        let (mut now, mut dialled_at) = (T0, Vec::new());
        while let Some(due) = candidates.next_at().filter(|_| dialled_at.len() < 1_000) {
            now = now.max(due);
            let Some(dialled) = candidates.next_dial(now, 9) else { continue };
            dialled_at.extend((dialled.ip() == victim(1).ip()).then_some(now));
            assert!(!dialled_at.is_empty(), "before what a tracker named");
            candidates.dial_failed(now, dialled);
        }
        assert_eq!(dialled_at.len(), PER_HOST_MAX * TRIES_MAX as usize, "and then given up");
        assert!(dialled_at.windows(2).all(|pair| pair[1] - pair[0] >= REDIAL_INTERVAL), "{dialled_at:?}");
        candidates.add(now, Source::User, victim(1));
        assert_eq!(candidates.next_dial(now, 9), Some(victim(1)), "the user's word counts more");
        candidates.dial_failed(now, victim(1));
        assert!(candidates.next_at().is_some(), "and for ever");
        assert!(candidates.add(now, Source::Magnet, addr("10.0.0.1:6881")), "a link for the office");
    }

    #[test]
    fn only_addresses_that_their_source_may_name_come_in() {
        let mut candidates = candidates();
        for nobody in ["1.2.3.4:0", "224.0.0.1:5", "0.0.0.0:5", "10.0.0.1:5", "127.0.0.1:5", "[fe80::1]:5"] {
            assert!(!candidates.add(T0, OPEN, addr(nobody)), "{nobody}");
        }
        assert!(candidates.add(T0, Source::Tracker { local: true }, addr("10.0.0.1:5")));
        assert!(candidates.add(T0, Source::Lsd, addr("192.168.0.1:5")));
        assert!(candidates.add(T0, Source::User, addr("127.0.0.1:5")));
        assert!(candidates.add(T0, PEX, addr("[::ffff:1.2.3.4]:5005")));
        assert!(!candidates.add(T0, OPEN, addr("1.2.3.4:5005")), "known in its other form");
        assert_eq!(candidates.next_dial(T0, 1), Some(addr("127.0.0.1:5")), "the user's first");
        candidates.ourselves(addr("127.0.0.1:5"));
        assert!(!candidates.add(T0, Source::User, addr("127.0.0.1:5")));
        let crowd = (1..100).filter(|&port| candidates.add(T0, OPEN, SocketAddr::from(([9, 9, 9, 9], port))));
        assert_eq!(crowd.count(), PER_HOST_MAX);
    }

    #[test]
    fn gossip_names_no_local_address_to_strangers_and_no_well_known_port() {
        let mut candidates = candidates();
        for refused in ["10.0.0.1:6881", "127.0.0.1:6881", "[fd00::1]:6881", "8.8.8.8:53", "[2001:db8::1]:25"]
        {
            assert!(!candidates.add(T0, PEX, addr(refused)), "{refused}");
            assert!(!candidates.add(T0, DHT, addr(refused)), "{refused}");
        }
        let local = [Source::Pex { local: true }, Source::Dht { local: true }];
        for (source, host) in local.into_iter().zip(["10.0.0.1:6881", "10.0.0.2:6881"]) {
            assert!(!candidates.add(T0, source, addr("8.8.8.8:53")));
            assert!(candidates.add(T0, source, addr(host)));
        }
        assert!(candidates.add(T0, OPEN, addr("8.8.8.8:443")), "a tracker saw who it lists");
    }

    #[test]
    fn peers_that_share_a_public_host_are_dialled_in_turn_and_local_ones_together() {
        let mut candidates = candidates();
        let shared = ["9.9.9.9:6881", "9.9.9.9:6882", "8.8.8.8:6881"].map(addr);
        shared.iter().for_each(|&addr| _ = candidates.add(T0, OPEN, addr));
        let first: Vec<_> = std::iter::from_fn(|| candidates.next_dial(T0, 9)).collect();
        assert_eq!(first.len(), 2, "{first:?}");
        let next_at = candidates.next_at().unwrap();
        assert_eq!(next_at, T0 + REDIAL_INTERVAL);
        let second = candidates.next_dial(next_at, 9).unwrap();
        assert!(second.ip() == addr("9.9.9.9:1").ip() && !first.contains(&second));
        let local = ["127.0.0.1:6881", "127.0.0.1:6882"].map(addr);
        local.iter().for_each(|&addr| _ = candidates.add(T0, Source::Lsd, addr));
        assert_eq!(std::iter::from_fn(|| candidates.next_dial(T0, 9)).count(), 2);
        candidates.add(T0, Source::User, addr("8.8.8.8:7000"));
        assert_eq!(candidates.next_dial(T0, 9), Some(addr("8.8.8.8:7000")), "the user's wish is not held up");
    }

    #[test]
    fn more_hosts_than_are_remembered_wait() {
        let mut candidates = candidates();
        let mut dialled = 0;
        for host in 0..3_000_u32 {
            candidates.add(T0, PEX, SocketAddr::new(Ipv4Addr::from(0x0800_0000 + host).into(), 6881));
            if let Some(addr) = candidates.next_dial(T0, 9) {
                candidates.dial_failed(T0, addr);
                dialled += 1;
            }
        }
        assert_eq!(dialled, DIALLED_MAX);
        assert_eq!(candidates.next_at(), Some(T0 + REDIAL_INTERVAL));
        assert!(candidates.next_dial(T0 + REDIAL_INTERVAL, 9).is_some());
    }

    #[test]
    fn one_dial_at_a_time_and_at_most_one_a_minute_ever_rarer() {
        let mut candidates = candidates();
        let peer = addr("1.2.3.4:5");
        candidates.add(T0, OPEN, peer);
        assert_eq!(candidates.next_dial(T0, 0), None);
        let (mut now, mut dialled_at) = (T0, Vec::new());
        while let Some(due) = candidates.next_at() {
            now = now.max(due);
            assert_eq!(candidates.next_dial(now, 9), Some(peer));
            assert_eq!(candidates.next_dial(now + minutes(600), 9), None, "one at a time");
            dialled_at.push(now);
            candidates.dial_failed(now, peer);
        }
        assert_eq!(dialled_at.len(), TRIES_MAX as usize);
        for (gap, pair) in dialled_at.windows(2).enumerate() {
            assert!(pair[1] - pair[0] >= minutes(1 << gap), "{dialled_at:?}");
        }
        candidates.add(now, OPEN, peer);
        assert_eq!(candidates.next_dial(now + minutes(30), 9), None);
        candidates.add(now + minutes(61), OPEN, peer);
        assert_eq!(candidates.next_dial(now + minutes(61), 9), Some(peer), "named again after a rest");
    }

    #[test]
    fn a_peer_of_the_users_is_dialled_soon_again_and_for_ever() {
        let mut candidates = candidates();
        let peer = addr("127.0.0.1:5");
        candidates.add(T0, Source::User, peer);
        let (mut now, mut gaps) = (T0, Vec::new());
        for _ in 0..20 {
            let due = now.max(candidates.next_at().unwrap());
            gaps.push((due - now).as_secs());
            now = due;
            assert_eq!(candidates.next_dial(now, 9), Some(peer));
            candidates.dial_failed(now, peer);
        }
        assert!(gaps[1] <= 3 && gaps[2] <= 6 && (60..=90).contains(&gaps[19]), "{gaps:?}");
        // It comes up, serves, and is gone: it may be back soon.
        now = candidates.next_at().unwrap();
        assert_eq!(candidates.next_dial(now, 9), Some(peer));
        candidates.dialled(peer);
        candidates.disconnected(now, peer, true);
        assert!(candidates.next_at().unwrap() - now <= Duration::from_secs(3));
        // It comes up and has nothing to give, again and again: ever rarer.
        for _ in 0..9 {
            now = candidates.next_at().unwrap();
            assert_eq!(candidates.next_dial(now, 9), Some(peer));
            candidates.dialled(peer);
            candidates.disconnected(now, peer, false);
        }
        assert!(candidates.next_at().unwrap() - now >= REDIAL_INTERVAL);
    }

    #[test]
    fn the_user_s_word_ends_a_wait() {
        let mut candidates = candidates();
        let peer = addr("1.2.3.4:5");
        candidates.add(T0, OPEN, peer);
        assert_eq!(candidates.next_dial(T0, 9), Some(peer));
        candidates.dial_failed(T0, peer);
        assert_eq!(candidates.next_dial(T0, 9), None);
        candidates.add(T0, Source::User, peer);
        assert_eq!(candidates.next_dial(T0, 9), Some(peer));
        candidates.dial_failed(T0, peer);
        candidates.add(T0, Source::User, peer);
        assert_eq!(candidates.next_dial(T0, 9), None, "once");
    }

    #[test]
    fn connected_peers_are_not_dialled_and_come_back_later() {
        let mut candidates = candidates();
        let peer = addr("1.2.3.4:5");
        candidates.add(T0, OPEN, peer);
        candidates.listens_at(peer);
        assert_eq!((candidates.next_dial(T0, 9), candidates.len()), (None, 0));
        candidates.disconnected(T0, peer, true);
        assert_eq!(candidates.next_dial(T0 + Duration::from_secs(59), 9), None);
        assert_eq!(candidates.next_dial(T0 + minutes(2), 9), Some(peer));
        candidates.dialled(peer);
        candidates.ban(peer);
        assert!(candidates.is_banned(addr("[::ffff:1.2.3.4]:77")));
        candidates.disconnected(T0, peer, true);
        assert!(!candidates.add(T0, Source::User, peer) && candidates.next_at().is_none());
    }

    #[test]
    fn a_ban_on_loopback_shuts_out_one_peer() {
        let mut candidates = candidates();
        let (liar, other) = (addr("127.0.0.1:5"), addr("127.0.0.1:6"));
        candidates.add(T0, Source::User, liar);
        candidates.add(T0, Source::User, other);
        candidates.ban(liar);
        assert!(candidates.is_banned(liar) && !candidates.is_banned(other));
        assert!(!candidates.add(T0, Source::User, liar));
        assert_eq!((candidates.len(), candidates.next_dial(T0, 9)), (1, Some(other)));
    }

    #[test]
    fn one_teller_names_only_so_many_and_trackers_come_before_gossip() {
        let mut candidates = candidates();
        let crowd: Vec<_> = (0..1_000)
            .map(|host| SocketAddr::from(([80, 1, (host / 250) as u8, (host % 250) as u8], 6881)))
            .collect();
        let teller = addr("7.7.7.7:1").ip();
        crowd.chunks(50).for_each(|told| candidates.add_gossip(T0, teller, told));
        assert_eq!(candidates.len(), PER_TELLER_MAX);
        candidates.add_gossip(T0, addr("7.7.7.8:1").ip(), &crowd[900..950]);
        assert_eq!(candidates.len(), PER_TELLER_MAX + 50);
        candidates.add(T0, OPEN, addr("8.8.8.8:6881"));
        assert_eq!(candidates.next_dial(T0, 9), Some(addr("8.8.8.8:6881")));
    }

    #[test]
    fn who_says_where_it_listens_is_known_as_gossip_is() {
        let mut candidates = candidates();
        let (host, smtp) = ([9, 9, 9, 9], addr("8.8.8.8:25"));
        (2_000..2_100).for_each(|port| candidates.listens_at(SocketAddr::from((host, port))));
        candidates.listens_at(smtp);
        assert_eq!((candidates.known.len(), candidates.is_known(smtp)), (PER_HOST_MAX, false));
    }

    #[test]
    fn who_is_left_only_to_begin_anew_is_dialled_at_once_and_once() {
        let mut candidates = candidates();
        let peer = addr("1.2.3.4:5005");
        candidates.add(T0, OPEN, peer);
        assert_eq!(candidates.next_dial(T0, 9), Some(peer));
        candidates.anew(peer);
        candidates.dialled(peer);
        candidates.anew(peer);
        assert_eq!(candidates.next_dial(T0, 9), Some(peer));
        candidates.dialled(peer);
        candidates.disconnected(T0, peer, true);
        assert_eq!(candidates.next_dial(T0 + Duration::from_secs(59), 9), None);
    }

    #[test]
    fn a_private_torrent_forgets_whom_no_tracker_and_no_user_named() {
        let mut candidates = candidates();
        let addrs: Vec<_> = (1..=5).map(|host| SocketAddr::from(([80, 1, 1, host], 6881))).collect();
        let sources = [Source::User, OPEN, DHT, PEX, Source::Lsd];
        for (&addr, source) in addrs.iter().zip(sources) {
            candidates.add(T0, source, addr);
        }
        candidates.add(T0, OPEN, addrs[2]);
        candidates.keep_named();
        let kept: Vec<_> = addrs.iter().map(|&addr| candidates.is_known(addr)).collect();
        assert_eq!(kept, [true, true, true, false, false]);
        [DHT, PEX, Source::Lsd].into_iter().for_each(|source| _ = candidates.add(T0, source, addrs[4]));
        candidates.listens_at(addrs[3]);
        assert_eq!(candidates.len(), 3, "and nobody else comes in");
        assert!(candidates.add(T0, OPEN, addrs[4]) && candidates.is_named(addrs[4]));
    }

    #[test]
    fn memory_is_bounded_and_the_worst_make_room() {
        let mut candidates = candidates();
        for host in 0..3_000_u32 {
            candidates.add(T0, PEX, SocketAddr::new(Ipv4Addr::from(0x0800_0000 + host).into(), 6881));
        }
        assert_eq!(candidates.known.len(), KNOWN_MAX);
        assert!(candidates.add(T0, Source::User, addr("10.0.0.1:1")));
        assert_eq!((candidates.known.len(), candidates.len()), (KNOWN_MAX, KNOWN_MAX));
        candidates.external_addr(addr("123.213.32.10:1"));
        assert_eq!(candidates.len(), KNOWN_MAX);
    }
}
