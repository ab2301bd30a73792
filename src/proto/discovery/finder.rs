//! When one torrent asks the DHT: beside its trackers, and at once where they fail.
//!
//! Without trackers: at once. With trackers: at once when none has answered within [`PATIENCE`] of
//! the start or all have failed since, otherwise at a random moment within some minutes
//! ([`SPREAD`], and [`NEEDY_SPREAD`] while peers are few), so that a thousand torrents do not ask
//! together. Again while peers are few, with growing pauses ([`PAUSES`]), and every quarter of an
//! hour to stay listed ([`RELIST_INTERVAL`]). A complete torrent has nobody to look for: it is
//! found.
//!
//! One lookup at a time; between two lies the pause that the tries so far ask for, whatever
//! happens. It knows no nodes and no peers.

use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// How long trackers have before the DHT is asked at once.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Within so long of the start the DHT is asked beside trackers that work.
pub const SPREAD: Duration = Duration::from_secs(300);
/// The same for a torrent that lacks peers: its trackers work but know too few.
pub const NEEDY_SPREAD: Duration = Duration::from_secs(60);
/// Within so long after it became complete a torrent is announced as such.
pub const COMPLETED_SPREAD: Duration = Duration::from_secs(60);
/// How often a torrent that lacks nothing is announced, and up to a fifth sooner: nodes forget what
/// they were told half an hour ago, some sooner.
pub const RELIST_INTERVAL: Duration = Duration::from_secs(900);
/// Pauses between lookups while peers are few, in seconds; the last one stays. The first is for
/// when no node answered at all, because the DHT itself was only just starting.
const PAUSES: [u64; 7] = [2, 5, 15, 30, 60, 120, 300];
/// Longest pause, as a place in [`PAUSES`], while no node answers: such a lookup costs next to
/// nothing, and the first node may come any moment; in an overlay of two, it is the one who looks
/// for us.
const NOBODY_PAUSE_MAX: usize = 1;
/// After so long without a lookup the pauses are short again.
const CALM: Duration = Duration::from_secs(600);

/// The machine's decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// Look up peers and announce ourselves; answered by [`Finder::handle_done`].
    Lookup,
}

/// How the trackers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trackers {
    /// There are none, or none works.
    Failed,
    /// None has answered yet.
    Unknown,
    /// One answered.
    Working,
}

/// What the machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The next lookup is then.
    Waiting(Instant),
    /// The next decision is a lookup.
    Ready,
    /// For the end of the lookup; afterwards a further one is to be soon if `again`.
    Running { again: bool },
}

/// The machine.
#[derive(Debug)]
pub struct Finder {
    state: State,
    trackers: Trackers,
    needs_peers: bool,
    complete: bool,
    /// When the last lookup ended; None before the first one.
    done_at: Option<Instant>,
    /// Place of the next pause in [`PAUSES`].
    tries: usize,
    rng: Rng,
}

impl Finder {
    /// No lookup yet.
    pub fn new(has_trackers: bool, rng: Rng, now: Instant) -> Self {
        let (trackers, state) = if has_trackers {
            (Trackers::Unknown, State::Waiting(now + PATIENCE))
        } else {
            (Trackers::Failed, State::Ready)
        };
        Self { state, trackers, needs_peers: false, complete: false, done_at: None, tries: 0, rng }
    }

    /// A tracker answered.
    pub fn handle_tracker_answered(&mut self, now: Instant) {
        let before = std::mem::replace(&mut self.trackers, Trackers::Working);
        // It was the trackers' silence that we waited for.
        if before == Trackers::Unknown && self.is_first() {
            let spread = if self.lacks_peers() { NEEDY_SPREAD } else { SPREAD };
            self.state = State::Waiting(now + self.within(spread));
        }
    }

    /// A tracker failed; `all`: no tracker of the torrent works now.
    pub fn handle_tracker_failed(&mut self, now: Instant, all: bool) {
        if all && self.trackers != Trackers::Failed {
            self.trackers = Trackers::Failed;
            self.hasten(now, Duration::ZERO);
        }
    }

    /// The torrent could use more peers (few connections, nobody left to dial), or has enough.
    pub fn handle_need(&mut self, now: Instant, needs_peers: bool) {
        let began = needs_peers && !std::mem::replace(&mut self.needs_peers, needs_peers);
        if !began || self.complete {
            return;
        }
        match (self.is_first(), self.trackers) {
            // The trackers' time is not over, or they have failed, and the first lookup is due as
            // it is.
            (true, Trackers::Unknown | Trackers::Failed) => {}
            (true, Trackers::Working) => {
                let within = self.within(NEEDY_SPREAD);
                self.hasten(now, within);
            }
            (false, _) => self.hasten(now, Duration::ZERO),
        }
    }

    /// The lookup is over: how many nodes answered and peers were named.
    pub fn handle_done(&mut self, now: Instant, answered: u32, peers: usize) {
        let State::Running { again } = self.state else { return };
        let is_calm = self.done_at.is_none_or(|done_at| now - done_at >= CALM);
        self.done_at = Some(now);
        // A lookup that nobody answered was none; one that found somebody gives them time to
        // connect.
        self.tries = match (answered, is_calm) {
            (0, true) => 0,
            (0, false) => (self.tries + 1).min(NOBODY_PAUSE_MAX),
            (_, true) => 1,
            (_, false) => (self.tries + 1).min(PAUSES.len() - 1),
        };
        let finds_nobody = answered == 0 && peers == 0;
        let wait = if finds_nobody || self.lacks_peers() {
            self.pause().mul_f64(1.0 + self.rng.unit() / 4.0)
        } else {
            RELIST_INTERVAL.mul_f64(1.0 - self.rng.unit() / 5.0)
        };
        self.state = State::Waiting(now + wait);
        if again {
            self.hasten(now, Duration::ZERO);
        }
    }

    /// The torrent is complete: it needs nobody any more. If it was announced before, it is again
    /// soon, as a seed.
    pub fn handle_completed(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.complete, true) && !self.is_first() {
            let within = self.within(COMPLETED_SPREAD);
            self.hasten(now, within);
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let State::Waiting(at) = self.state
            && at <= now
        {
            self.state = State::Ready;
        }
    }

    /// The next decision.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.state != State::Ready {
            return None;
        }
        self.state = State::Running { again: false };
        Some(Output::Lookup)
    }

    /// When to call [`Finder::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) => Some(at),
            State::Ready | State::Running { .. } => None,
        }
    }

    /// Whether no lookup has begun yet.
    fn is_first(&self) -> bool {
        match self.state {
            State::Waiting(_) => self.done_at.is_none(),
            State::Ready | State::Running { .. } => false,
        }
    }

    fn lacks_peers(&self) -> bool {
        self.needs_peers && !self.complete
    }

    fn pause(&self) -> Duration {
        Duration::from_secs(PAUSES[self.tries.min(PAUSES.len() - 1)])
    }

    /// A random part of a span.
    fn within(&mut self, span: Duration) -> Duration {
        span.mul_f64(self.rng.unit())
    }

    /// The next lookup is after so long at the latest, or when the pause after the last one is
    /// over.
    fn hasten(&mut self, now: Instant, wait: Duration) {
        match &mut self.state {
            State::Ready => {}
            State::Running { again } => *again = true,
            State::Waiting(at) => {
                let is_calm = self.done_at.is_some_and(|done_at| now - done_at >= CALM);
                let pause = Duration::from_secs(PAUSES[if is_calm { 0 } else { self.tries }]);
                let rested_at = self.done_at.map_or(now, |done_at| done_at + pause);
                *at = (*at).min(rested_at.max(now + wait));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Instant = Instant::from_micros(1_000_000);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn finder(has_trackers: bool) -> Finder {
        Finder::new(has_trackers, Rng::from_number(7), T0)
    }

    /// When the next lookup begins; the clock goes there.
    fn lookup(finder: &mut Finder, now: &mut Instant) -> Option<Duration> {
        let before = *now;
        if let Some(at) = finder.poll_timeout() {
            *now = at.max(*now);
            finder.handle_timeout(*now);
        }
        finder.poll_output().map(|Output::Lookup| *now - before)
    }

    /// The waits before so many further lookups, each of which ends at once.
    fn waits(finder: &mut Finder, now: &mut Instant, answered: u32, count: usize) -> Vec<Duration> {
        let wait = |_| {
            let wait = lookup(finder, now).unwrap();
            finder.handle_done(*now, answered, 0);
            wait
        };
        (0..count).map(wait).collect()
    }

    #[test]
    fn without_trackers_the_dht_is_asked_at_once() {
        assert_eq!(lookup(&mut finder(false), &mut T0.clone()), Some(Duration::ZERO));
    }

    #[test]
    fn silent_trackers_have_ten_seconds_and_failed_ones_none() {
        assert_eq!(lookup(&mut finder(true), &mut T0.clone()), Some(PATIENCE));
        let mut failing = finder(true);
        failing.handle_need(T0, true);
        failing.handle_tracker_failed(T0 + secs(1), false);
        assert_eq!(failing.poll_timeout(), Some(T0 + PATIENCE), "another one may answer yet");
        failing.handle_tracker_failed(T0 + secs(1), true);
        assert_eq!(lookup(&mut failing, &mut (T0 + secs(1))), Some(Duration::ZERO));
    }

    #[test]
    fn beside_working_trackers_lookups_spread() {
        for (needs_peers, spread) in [(false, SPREAD), (true, NEEDY_SPREAD)] {
            let first = |seed: u64| {
                let mut finder = Finder::new(true, Rng::from_number(seed), T0);
                finder.handle_need(T0, needs_peers);
                finder.handle_tracker_answered(T0 + secs(1));
                finder.handle_tracker_answered(T0 + secs(2));
                lookup(&mut finder, &mut (T0 + secs(1))).unwrap()
            };
            let firsts: Vec<Duration> = (0..1_000).map(first).collect();
            let early = firsts.iter().filter(|&&first| first < spread / 10).count();
            assert!((50..200).contains(&early), "{early}");
            assert!(firsts.iter().all(|&first| first <= spread));
        }
        let mut finder = finder(true);
        finder.handle_tracker_answered(T0);
        finder.handle_need(T0 + secs(1), true);
        assert!(finder.poll_timeout().unwrap() <= T0 + secs(1) + NEEDY_SPREAD, "it turned out too few");
    }

    #[test]
    fn trackers_that_die_in_the_middle_are_replaced_at_once_and_once() {
        let (mut finder, mut now) = (finder(true), T0);
        finder.handle_tracker_answered(now);
        lookup(&mut finder, &mut now).unwrap();
        finder.handle_done(now, 20, 5);
        now += secs(400);
        finder.handle_tracker_failed(now, true);
        assert_eq!(lookup(&mut finder, &mut now), Some(Duration::ZERO));
        finder.handle_done(now, 20, 5);
        now += secs(100);
        finder.handle_tracker_failed(now, true);
        assert!(finder.poll_timeout().unwrap() - now > secs(500), "no news");
        // One that comes and goes brings no more lookups than the pauses allow.
        let (end, mut count) = (now + secs(600), 0);
        while now < end {
            finder.handle_tracker_answered(now);
            finder.handle_tracker_failed(now, true);
            finder.handle_timeout(now);
            if finder.poll_output().is_some() {
                count += 1;
                finder.handle_done(now, 20, 5);
            }
            now += secs(1);
        }
        assert!((3..=8).contains(&count), "{count}");
    }

    #[test]
    fn while_peers_are_few_the_pauses_grow() {
        let (mut few, mut now) = (finder(false), T0);
        few.handle_need(now, true);
        let waited = waits(&mut few, &mut now, 20, 9);
        for (wait, pause) in waited.iter().zip([0, 5, 15, 30, 60, 120, 300, 300, 300]) {
            assert!(*wait >= secs(pause) && *wait <= secs(pause) * 5 / 4, "{waited:?}");
        }
        few.handle_need(now, false);
        few.handle_need(now, true);
        assert!(few.poll_timeout().unwrap() - now >= secs(290), "need that comes and goes hastens nothing");
    }

    #[test]
    fn a_dht_that_has_just_begun_is_asked_again_soon() {
        let (mut finder, mut now) = (finder(false), T0);
        let waited = waits(&mut finder, &mut now, 0, 8);
        for (wait, pause) in waited.iter().zip([0, 2, 5, 5, 5, 5, 5, 5]) {
            assert!(*wait >= secs(pause) && *wait <= secs(pause) * 5 / 4, "{waited:?}");
        }
    }

    #[test]
    fn who_lacks_nothing_is_listed_anew_each_quarter_of_an_hour() {
        let (mut finder, mut now) = (finder(false), T0);
        let waited = waits(&mut finder, &mut now, 20, 20);
        assert!(waited[1..].iter().all(|wait| (secs(720)..=RELIST_INTERVAL).contains(wait)), "{waited:?}");
        assert!(waited[1..].iter().any(|wait| *wait != waited[1]), "not all at the same moment");
        now += secs(650);
        finder.handle_need(now, true);
        assert_eq!(lookup(&mut finder, &mut now), Some(Duration::ZERO), "peers became few");
        finder.handle_done(now, 20, 0);
        assert!(lookup(&mut finder, &mut now).unwrap() < secs(7), "the pauses are short again");
    }

    #[test]
    fn a_new_seed_is_announced_soon_and_looks_for_nobody() {
        let (mut finder, mut now) = (finder(false), T0);
        finder.handle_need(now, true);
        lookup(&mut finder, &mut now).unwrap();
        finder.handle_completed(now);
        finder.handle_done(now, 20, 0);
        assert!(lookup(&mut finder, &mut now).unwrap() <= COMPLETED_SPREAD);
        finder.handle_completed(now);
        finder.handle_done(now, 20, 0);
        assert!(lookup(&mut finder, &mut now).unwrap() >= secs(720), "though it has no peers");
        let mut seed = Finder::new(true, Rng::from_number(7), T0);
        seed.handle_completed(T0);
        assert_eq!(seed.poll_timeout(), Some(T0 + PATIENCE), "its first announce says so anyway");
    }
}
