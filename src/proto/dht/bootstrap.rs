//! Addresses where a node may be: those of our last run, those from hints, old ones,
//! and the bootstrap names as the last resort.
//!
//! None of them counts as a node before it answers. Saved ones are tried first, some at a time,
//! until enough are known; hints at a bounded rate, each once, for whoever gives them may want us
//! to ask a victim. Some nodes that answered long ago are kept beside the table and asked now and
//! then: the table forgets who is silent, and after a partition of the network nothing else would
//! know the other half. It sends nothing itself.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::event::SAVED_COUNT_MAX;
use super::throttle::Throttle;
use super::transactions::FAILED_AFTER;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// Saved nodes asked at once.
const SAVED_AT_ONCE: usize = 8;
/// Known nodes of an overlay beyond which its saved ones are no longer tried.
pub(super) const SAVED_ENOUGH: usize = 32;
/// How long saved nodes have before the bootstrap names are looked up too.
const SAVED_PATIENCE: Duration = Duration::from_secs(2);
/// Hints that wait; more are dropped.
const HINT_COUNT_MAX: usize = 64;
/// Hints asked at once: those of all bootstrap names and of a torrent's `nodes`.
const HINT_BURST: u32 = 16;
/// Afterwards, time between two of them.
const HINT_PAUSE: Duration = Duration::from_millis(500);
/// Addresses of hints remembered, so that each is asked once; about 6 KiB.
const ASKED_COUNT_MAX: usize = 128;
/// How long an address is not asked again because of a hint.
const ASKED_FOR: Duration = Duration::from_secs(600);
/// The same while nobody is known: until the query before has failed.
const ASKED_FOR_ALONE: Duration = FAILED_AFTER;
/// Old nodes kept.
const OLD_COUNT_MAX: usize = 32;
/// One in so many answers replaces an old node: at rest some eight an hour.
const OLD_ODDS: usize = 64;
/// Time between two questions to old nodes, half to one and a half times.
const OLD_PAUSE: Duration = Duration::from_secs(600);
/// First pause between two lookups of the bootstrap names; doubles.
const BOOTSTRAP_PAUSE_MIN: Duration = Duration::from_secs(5);
/// Longest of these pauses, also where only one of two overlays is empty: the other family may have
/// no way out.
const BOOTSTRAP_PAUSE_MAX: Duration = Duration::from_secs(600);

/// How many overlays know nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Empty {
    /// None.
    None,
    /// One of two.
    One,
    /// All.
    All,
}

/// A node that answered once.
#[derive(Clone, Copy, Debug)]
struct Old {
    addr: SocketAddr,
    /// It did not answer when asked last.
    is_silent: bool,
}

/// Where nodes may be.
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
    /// None: the bootstrap names are looked up at once.
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

    /// Nodes of our last run.
    pub(super) fn save(&mut self, now: Instant, addrs: impl Iterator<Item = SocketAddr>) {
        let room = SAVED_COUNT_MAX - self.saved.len();
        self.saved.extend(addrs.take(room));
        if !self.saved.is_empty() {
            self.bootstrap.start_at = now + SAVED_PATIENCE;
        }
    }

    /// The next saved node to be asked now; whoever takes it reports its end by
    /// [`BootstrapSources::saved_ended`].
    pub(super) fn next_saved(&mut self) -> Option<SocketAddr> {
        let next = (self.saved_under_way < SAVED_AT_ONCE).then(|| self.saved.pop_front()).flatten()?;
        self.saved_under_way += 1;
        Some(next)
    }

    /// A saved node answered or is late.
    pub(super) fn saved_ended(&mut self) {
        self.saved_under_way = self.saved_under_way.saturating_sub(1);
    }

    /// Whether saved nodes are left.
    pub(super) fn has_saved(&self) -> bool {
        !self.saved.is_empty()
    }

    /// A hint, if there is room and it was not followed lately.
    pub(super) fn hint(&mut self, now: Instant, addr: SocketAddr, is_alone: bool) {
        let asked_for = if is_alone { ASKED_FOR_ALONE } else { ASKED_FOR };
        let was_asked = |&(asked, at): &(SocketAddr, Instant)| asked == addr && now.since(at) < asked_for;
        let known = self.hints.contains(&addr) || self.asked.iter().any(was_asked);
        if !known && self.hints.len() < HINT_COUNT_MAX {
            self.hints.push_back(addr);
        }
    }

    /// The next hint to be followed now.
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

    /// A node answered: known for later times, perhaps.
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

    /// An old node to be asked now, and its place.
    pub(super) fn next_old(&mut self, now: Instant) -> Option<(usize, SocketAddr)> {
        if now < self.old_at {
            return None;
        }
        self.old_at = now + OLD_PAUSE.mul_f64(0.5 + self.rng.unit());
        let place = self.rng.below(self.old.len());
        self.old.get(place).map(|old| (place, old.addr))
    }

    /// The old node at a place answered or not. Whether it is back after a silence.
    pub(super) fn old_ended(&mut self, place: usize, addr: SocketAddr, is_silent: bool) -> bool {
        let Some(old) = self.old.get_mut(place).filter(|old| old.addr == addr) else { return false };
        let was_silent = std::mem::replace(&mut old.is_silent, is_silent);
        was_silent && !is_silent
    }

    /// Somebody waits for nodes: the pauses begin anew.
    pub(super) fn hasten(&mut self) {
        self.bootstrap.pause = BOOTSTRAP_PAUSE_MIN;
    }

    /// Whether the bootstrap names are to be looked up now; old nodes are then tried again too.
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

    /// When something is due.
    pub(super) fn due_at(&self, empty: Empty) -> Instant {
        let hint_at = (!self.hints.is_empty()).then(|| self.throttle.ready_at());
        let bootstrap_at = self.bootstrap.due_at(empty);
        [hint_at, bootstrap_at].into_iter().flatten().fold(self.old_at, Instant::min)
    }
}

/// When the names are looked up.
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
