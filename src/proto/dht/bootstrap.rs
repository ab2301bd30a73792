//! Addresses of possible nodes: nodes of the last run, hints, nodes that answered long ago, and the
//! bootstrap names as the last resort.
//!
//! None counts as a node before it answers. Saved nodes are tried first, a few at a time, until
//! enough are known. Hints are queried at a bounded rate, each once, because a hint may name a
//! victim. Some nodes that answered long ago are kept beside the table and queried now and then:
//! the table forgets silent nodes, and after a partition of the network no other record of the
//! other half would remain. Sends nothing itself.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::saved::SAVED_COUNT_MAX;
use super::throttle::Throttle;
use super::transactions::FAILED_AFTER;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// Most pending queries to saved nodes.
const SAVED_AT_ONCE: usize = 8;
/// Nodes known in an overlay from which its saved nodes are no longer tried.
pub(super) const SAVED_ENOUGH: usize = 32;
/// Time for saved nodes to answer before the bootstrap names are looked up too.
const SAVED_PATIENCE: Duration = Duration::from_secs(2);
/// Most waiting hints; further ones are dropped.
const HINT_COUNT_MAX: usize = 64;
/// Hints queried without a pause: those of all bootstrap names and of a torrent's `nodes`.
const HINT_BURST: u32 = 16;
/// The pause between two hints after that.
const HINT_PAUSE: Duration = Duration::from_millis(500);
/// Most addresses of hints remembered, so that each is queried once; about 6 KiB.
const ASKED_COUNT_MAX: usize = 128;
/// Time during which an address is not queried again because of a hint.
const ASKED_FOR: Duration = Duration::from_secs(600);
/// The same while no node is known: until the earlier query has failed.
const ASKED_FOR_ALONE: Duration = FAILED_AFTER;
/// Most old nodes kept.
const OLD_COUNT_MAX: usize = 32;
/// One in this many answers replaces an old node: about eight an hour in an idle node.
const OLD_ODDS: usize = 64;
/// Time between two queries to old nodes, varied from a half to one and a half of it.
const OLD_PAUSE: Duration = Duration::from_secs(600);
/// First pause between two lookups of the bootstrap names; doubles.
const BOOTSTRAP_PAUSE_MIN: Duration = Duration::from_secs(5);
/// Longest of these pauses, and the pause where only one of two overlays is empty, because the
/// other family may have no route.
const BOOTSTRAP_PAUSE_MAX: Duration = Duration::from_secs(600);

/// How many overlays know no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Empty {
    /// None.
    None,
    /// One of two.
    One,
    /// All.
    All,
}

/// A node that answered some time ago.
#[derive(Clone, Copy, Debug)]
struct Old {
    addr: SocketAddr,
    /// Whether the last query to it failed.
    is_silent: bool,
}

/// The addresses of possible nodes.
#[derive(Debug)]
pub(super) struct BootstrapSources {
    saved: VecDeque<SocketAddr>,
    saved_under_way: usize,
    hints: VecDeque<SocketAddr>,
    asked: VecDeque<(SocketAddr, Instant)>,
    throttle: Throttle,
    old: Vec<Old>,
    old_at: Instant,
    bootstrap: Bootstrap,
    rng: Rng,
}

impl BootstrapSources {
    /// Creates it without addresses: the bootstrap names are looked up at once.
    pub(super) fn new(mut rng: Rng, now: Instant) -> Self {
        let old_at = now + OLD_PAUSE.mul_f64(0.5 + rng.unit());
        Self {
            saved: VecDeque::new(),
            saved_under_way: 0,
            hints: VecDeque::new(),
            asked: VecDeque::new(),
            throttle: Throttle::new(HINT_PAUSE, HINT_BURST),
            old: Vec::new(),
            old_at,
            bootstrap: Bootstrap { start_at: now, asked_at: None, pause: BOOTSTRAP_PAUSE_MIN },
            rng,
        }
    }

    /// Adds the nodes of the last run.
    pub(super) fn save(&mut self, now: Instant, addrs: impl Iterator<Item = SocketAddr>) {
        let room = SAVED_COUNT_MAX - self.saved.len();
        self.saved.extend(addrs.take(room));
        if !self.saved.is_empty() {
            self.bootstrap.start_at = now + SAVED_PATIENCE;
        }
    }

    /// Takes the next saved node to query now; the caller reports its end to
    /// [`BootstrapSources::saved_ended`].
    pub(super) fn next_saved(&mut self) -> Option<SocketAddr> {
        let next = (self.saved_under_way < SAVED_AT_ONCE).then(|| self.saved.pop_front()).flatten()?;
        self.saved_under_way += 1;
        Some(next)
    }

    /// A query to a saved node was answered or is late.
    pub(super) fn saved_ended(&mut self) {
        self.saved_under_way = self.saved_under_way.saturating_sub(1);
    }

    /// Whether saved nodes are left.
    pub(super) fn has_saved(&self) -> bool {
        !self.saved.is_empty()
    }

    /// Adds a hint, if there is room and it was not followed recently.
    pub(super) fn hint(&mut self, now: Instant, addr: SocketAddr, is_alone: bool) {
        let asked_for = if is_alone { ASKED_FOR_ALONE } else { ASKED_FOR };
        let was_asked = |&(asked, at): &(SocketAddr, Instant)| asked == addr && now.since(at) < asked_for;
        let known = self.hints.contains(&addr) || self.asked.iter().any(was_asked);
        if !known && self.hints.len() < HINT_COUNT_MAX {
            self.hints.push_back(addr);
        }
    }

    /// Takes the next hint to query now.
    pub(super) fn next_hint(&mut self, now: Instant) -> Option<SocketAddr> {
        if self.hints.is_empty() || !self.throttle.take(now) {
            return None;
        }
        let addr = self.hints.pop_front()?;
        self.asked.retain(|&(asked, _)| asked != addr);
        if self.asked.len() == ASKED_COUNT_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back((addr, now));
        Some(addr)
    }

    /// A node answered: sometimes keeps it as an old node.
    pub(super) fn met(&mut self, addr: SocketAddr) {
        self.bootstrap.pause = BOOTSTRAP_PAUSE_MIN;
        let is_full = self.old.len() == OLD_COUNT_MAX;
        if (is_full && self.rng.below(OLD_ODDS) != 0) || self.old.iter().any(|old| old.addr == addr) {
            return;
        }
        let old = Old { addr, is_silent: false };
        if is_full {
            let place = self.rng.below(OLD_COUNT_MAX);
            self.old[place] = old;
        } else {
            self.old.push(old);
        }
    }

    /// Returns an old node to query now, with its place.
    pub(super) fn next_old(&mut self, now: Instant) -> Option<(usize, SocketAddr)> {
        if now < self.old_at {
            return None;
        }
        self.old_at = now + OLD_PAUSE.mul_f64(0.5 + self.rng.unit());
        let place = self.rng.below(self.old.len());
        self.old.get(place).map(|old| (place, old.addr))
    }

    /// The query to the old node at a place ended. Returns whether the node is back after a
    /// silence.
    pub(super) fn old_ended(&mut self, place: usize, addr: SocketAddr, is_silent: bool) -> bool {
        let Some(old) = self.old.get_mut(place).filter(|old| old.addr == addr) else { return false };
        let was_silent = std::mem::replace(&mut old.is_silent, is_silent);
        was_silent && !is_silent
    }

    /// A request waits for nodes: resets the pauses.
    pub(super) fn hasten(&mut self) {
        self.bootstrap.pause = BOOTSTRAP_PAUSE_MIN;
    }

    /// Whether to look up the bootstrap names now; old nodes are then tried again too.
    pub(super) fn begin_bootstrap(&mut self, now: Instant, empty: Empty) -> bool {
        let due = self.bootstrap.due_at(empty).is_some_and(|at| at <= now);
        if due {
            self.bootstrap.asked_at = Some(now);
            let jitter = 1.5 + self.rng.unit();
            self.bootstrap.pause = self.bootstrap.pause.mul_f64(jitter).min(BOOTSTRAP_PAUSE_MAX);
            if empty == Empty::All && self.saved.is_empty() {
                self.saved.extend(self.old.iter().map(|old| old.addr));
            }
        }
        due
    }

    /// Returns when something is due.
    pub(super) fn due_at(&self, empty: Empty) -> Instant {
        let hint_at = (!self.hints.is_empty()).then(|| self.throttle.ready_at());
        let bootstrap_at = self.bootstrap.due_at(empty);
        [hint_at, bootstrap_at].into_iter().flatten().fold(self.old_at, Instant::min)
    }
}

/// The schedule of bootstrap lookups.
#[derive(Debug)]
struct Bootstrap {
    start_at: Instant,
    asked_at: Option<Instant>,
    pause: Duration,
}

impl Bootstrap {
    fn due_at(&self, empty: Empty) -> Option<Instant> {
        let pause = match empty {
            Empty::None => return None,
            Empty::One => BOOTSTRAP_PAUSE_MAX,
            Empty::All => self.pause,
        };
        Some(self.asked_at.map_or(self.start_at, |asked_at| asked_at + pause))
    }
}
