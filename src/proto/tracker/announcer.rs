//! When to announce to which tracker of one torrent (BEP 3, 12 tiers, 31 retries, backoff).
//!
//! Every tier is announced to, side by side; within a tier one tracker at a time, in an order
//! shuffled once, in which the one that answers moves to the front. Invariants: at most one pending
//! request per tracker; `started` is sent to each tracker until it answers; `completed` goes once
//! to a tracker that received `started`; `stopped` goes to every tracker that may list us, and
//! nothing after it. It does not know the transport.
//!
//! Thousands of torrents that are added together announce `started` together. What follows is
//! spread: the first announce after it comes at a random moment of the second half of the interval
//! ([`FIRST_INTERVAL_MIN`]), the others an interval after the last one.

mod tracker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Announce, AnnounceEvent, AnnounceReply, INTERVAL_MAX, Progress, TrackerError, TrackerStatus};
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use std::net::{IpAddr, SocketAddr};
use tracker::{Seen, Tracker};

/// What does not change between the announces of a torrent.
#[derive(Clone, Debug)]
pub struct Config {
    /// The torrent.
    pub infohash: InfoHash,
    /// Our peer id.
    pub peer_id: PeerId,
    /// Our listening port.
    pub port: u16,
    /// URLs in tiers: `http:`, `https:`, `udp:`; others are reported once by [`Output::Failed`].
    pub tiers: Vec<Vec<String>>,
    /// The number of peers requested per announce.
    pub numwant: u32,
}

/// Identifies a pending announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The announcer's decisions.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Output {
    /// Send this announce to this URL; answered by `handle_reply`.
    Announce {
        /// Identifies the announce in `handle_reply`.
        request: RequestId,
        /// The tracker.
        url: String,
        /// The announce.
        announce: Announce,
    },
    /// Addresses of peers that the tracker of the last answer named.
    Peers(Vec<SocketAddr>),
    /// Our address as a tracker sees it.
    ExternalIp(IpAddr),
    /// An announce went well.
    Announced {
        /// The tracker.
        url: String,
        /// The number of peers that it named.
        peers: usize,
    },
    /// A warning of a tracker, shown to the user.
    Warning {
        /// The tracker.
        url: String,
        /// The text.
        text: String,
    },
    /// The tracker at this URL has not answered for [`SILENCE_MAX`]; the announce is still pending.
    Silent(String),
    /// A tracker failed; others are tried, this one again at `retry_at` (None: never).
    Failed {
        /// The tracker.
        url: String,
        /// The reason.
        error: TrackerError,
        /// When it is tried again.
        retry_at: Option<Instant>,
    },
}

/// First pause after a failure; short, for a tracker that is just starting.
pub const BACKOFF_MIN: Duration = Duration::from_secs(2);
/// Longest pause after failures.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30 * 60);
/// An announce unanswered for this long has failed; a later answer is ignored.
pub const REQUEST_MAX: Duration = Duration::from_secs(90);
/// After this time without an answer a tracker is reported as silent.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Least time from `started` to the next announce, as a share of the tracker's interval.
pub const FIRST_INTERVAL_MIN: f64 = 0.5;
/// An announce that was queued for this long has failed.
pub const TURN_MAX: Duration = Duration::from_secs(30 * 60);
/// Least time between announces for want of peers, of trackers that name none.
pub const MIN_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);
/// Timeout of `stopped`; short, so that a dead tracker does not delay the exit.
pub const STOPPED_WAIT: Duration = Duration::from_secs(2);
/// Leaving: how long an answer to a first announce is waited for, to know whether `stopped` is due.
pub const STARTED_WAIT: Duration = Duration::from_secs(2);
/// Leaving: how long the answer to any other announce is waited for. `stopped` overtaking it, on a
/// connection of its own, would leave us in the swarm for an interval.
pub const IN_FLIGHT_WAIT: Duration = Duration::from_secs(1);
/// Most trackers of one torrent; more are ignored.
pub const TRACKER_MAX: usize = 128;

/// Trackers of which one is used at a time (BEP 12).
#[derive(Debug)]
struct Tier {
    /// Positions in `trackers`, the preferred first.
    order: Vec<usize>,
    next: Next,
    /// The earliest announce for want of peers.
    earliest_at: Instant,
}

/// What a tier waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The time of the next announce.
    At(Instant),
    /// An answer.
    Answer,
    /// Nothing: the tier is done.
    Never,
}

/// A pending announce.
#[derive(Debug)]
struct Request {
    tracker: usize,
    event: AnnounceEvent,
    give_up_at: Instant,
    /// When it is said that the tracker is silent; None: it was, or need not be.
    silent_at: Option<Instant>,
}

/// The tracker client of one torrent.
///
/// After each `handle_*` drain `poll_output`; then wait until `poll_timeout`.
#[derive(Debug)]
pub struct Announcer {
    config: Config,
    progress: Progress,
    rng: Rng,
    /// None: not needed yet.
    key: Option<u32>,
    trackers: Vec<Tracker>,
    tiers: Vec<Tier>,
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    /// The download is complete, or was at the start: no further `completed`.
    complete: bool,
    leaving: bool,
    outputs: VecDeque<Output>,
}

impl Announcer {
    /// Returns an announcer that sends `started` at the first `handle_timeout`.
    pub fn new(config: Config, progress: Progress, rng: Rng, now: Instant) -> Self {
        let mut announcer = Self {
            config,
            progress,
            rng,
            key: None,
            trackers: Vec::new(),
            tiers: Vec::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            complete: progress.left == 0,
            leaving: false,
            outputs: VecDeque::new(),
        };
        let mut seen = BTreeSet::new();
        for mut urls in std::mem::take(&mut announcer.config.tiers) {
            urls.retain(|url| seen.len() < TRACKER_MAX && seen.insert(url.clone()));
            announcer.add_tier(urls, now);
        }
        announcer
    }

    /// Adds the trackers of a tier; those that speak a protocol of ours are asked in random order.
    fn add_tier(&mut self, urls: Vec<String>, now: Instant) {
        let mut order = Vec::new();
        for url in urls {
            let mut tracker = Tracker::new(url, now);
            if tracker.is_spoken() {
                order.push(self.trackers.len());
            } else {
                let error = TrackerError::Unreachable("its URL is of a kind that is not spoken here".into());
                tracker.handle_failure(now, AnnounceEvent::None, &TrackerError::Gone, 0.0);
                tracker.seen.error = Some(error.clone());
                self.outputs.push_back(Output::Failed { url: tracker.url.clone(), error, retry_at: None });
            }
            self.trackers.push(tracker);
        }
        if !order.is_empty() {
            self.rng.shuffle(&mut order);
            self.tiers.push(Tier { order, next: Next::At(now), earliest_at: now });
        }
    }

    /// Sets the counters; cheap, to be called before every other input.
    pub fn handle_progress(&mut self, progress: Progress) {
        self.progress = progress;
    }

    /// Sends `completed`, exactly once, to each tracker that received `started`.
    pub fn handle_completed(&mut self, now: Instant) {
        if self.leaving || std::mem::replace(&mut self.complete, true) {
            return;
        }
        for tracker in &mut self.trackers {
            tracker.handle_completed();
        }
        for at in 0..self.tiers.len() {
            if matches!(self.tiers[at].next, Next::At(_)) && self.owes_completed(at) {
                self.tiers[at].next = Next::At(now);
                self.announce(at, now);
            }
        }
        self.check_invariant();
    }

    /// Sends `stopped` to every tracker that may list us; nothing after it.
    pub fn handle_stopped(&mut self, now: Instant) {
        if std::mem::replace(&mut self.leaving, true) {
            return;
        }
        for tier in &mut self.tiers {
            tier.next = Next::Never;
        }
        for at in 0..self.trackers.len() {
            let Some(request) = self.trackers[at].request else {
                self.leave(at, now);
                continue;
            };
            let request = self.requests.get_mut(&request).expect("a tracker's request is under way");
            request.silent_at = None;
            let wait = if self.trackers[at].knows_us() { IN_FLIGHT_WAIT } else { STARTED_WAIT };
            request.give_up_at = request.give_up_at.min(now + wait);
        }
        self.check_invariant();
    }

    /// The torrent needs more peers: earlier than the interval, never earlier than `min interval`.
    pub fn handle_need_peers(&mut self, now: Instant) {
        for tier in &mut self.tiers {
            if let Next::At(at) = tier.next {
                tier.next = Next::At(at.min(tier.earliest_at.max(now)));
            }
        }
        self.handle_timeout(now);
    }

    /// The announce is to wait for others of this process before it leaves; then
    /// [`Announcer::handle_sent`] follows. Returns whether it may wait: while leaving none does.
    pub fn handle_queued(&mut self, now: Instant, request: RequestId) -> bool {
        let Some(request) = self.requests.get_mut(&request).filter(|_| !self.leaving) else { return false };
        request.give_up_at = now + TURN_MAX;
        request.silent_at = None;
        true
    }

    /// Handles that a queued announce is sent now. Returns false if it is obsolete.
    pub fn handle_sent(&mut self, now: Instant, request: RequestId) -> bool {
        let Some(request) = self.requests.get_mut(&request).filter(|_| !self.leaving) else { return false };
        request.give_up_at = now + REQUEST_MAX;
        request.silent_at = Some(now + SILENCE_MAX);
        true
    }

    /// Handles the answer to an announce.
    pub fn handle_reply(
        &mut self,
        now: Instant,
        request: RequestId,
        reply: Result<AnnounceReply, TrackerError>,
    ) {
        let Some(Request { tracker, event, .. }) = self.requests.remove(&request) else {
            return;
        };
        self.trackers[tracker].request = None;
        match reply {
            Ok(reply) => self.handle_answer(now, tracker, event, reply),
            Err(error) => self.handle_failure(now, tracker, event, error),
        }
        self.check_invariant();
    }

    fn handle_answer(&mut self, now: Instant, at: usize, event: AnnounceEvent, mut reply: AnnounceReply) {
        let tracker = &mut self.trackers[at];
        tracker.handle_answer(now, event, reply.tracker_id.take());
        let url = tracker.url.clone();
        self.outputs.push_back(Output::Announced { url: url.clone(), peers: reply.peers.len() });
        if self.leaving {
            return self.leave(at, now);
        }
        tracker.seen = Seen { seeders: reply.seeders, leechers: reply.leechers, error: None };
        let interval = reply.interval.clamp(BACKOFF_MIN, INTERVAL_MAX);
        let min_interval = reply.min_interval.unwrap_or(MIN_INTERVAL_DEFAULT).min(interval);
        self.tell(url, reply);
        let tier = self.tier_of(at);
        let order = &mut self.tiers[tier].order;
        let place = order.iter().position(|&tracker| tracker == at).expect("a tier holds its trackers");
        order[..=place].rotate_right(1);
        self.tiers[tier].earliest_at = now + min_interval;
        let wait = match event {
            AnnounceEvent::Started => interval.mul_f64(1.0 - FIRST_INTERVAL_MIN * self.rng.unit()),
            AnnounceEvent::None | AnnounceEvent::Completed | AnnounceEvent::Stopped => interval,
        };
        self.tiers[tier].next = Next::At(now + wait.max(min_interval));
        self.rng.compact();
        if self.owes_completed(tier) {
            self.tiers[tier].next = Next::At(now);
            self.announce(tier, now);
        }
    }

    /// Outputs the content of an answer.
    fn tell(&mut self, url: String, reply: AnnounceReply) {
        let AnnounceReply { peers, warning, external_ip, .. } = reply;
        if let Some(text) = warning {
            self.outputs.push_back(Output::Warning { url, text });
        }
        if let Some(ip) = external_ip {
            self.outputs.push_back(Output::ExternalIp(ip));
        }
        if !peers.is_empty() {
            self.outputs.push_back(Output::Peers(peers));
        }
    }

    fn handle_failure(&mut self, now: Instant, at: usize, event: AnnounceEvent, error: TrackerError) {
        let tracker = &mut self.trackers[at];
        tracker.handle_failure(now, event, &error, self.rng.unit());
        let retry_at = tracker.retry_at();
        if self.leaving {
            return self.send_stopped(at, now);
        }
        tracker.seen.error = Some(error.clone());
        let url = tracker.url.clone();
        self.outputs.push_back(Output::Failed { url, error, retry_at });
        let tier = self.tier_of(at);
        self.tiers[tier].next = self.earliest_retry(tier).map_or(Next::Never, Next::At);
        self.announce(tier, now);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<_> =
            self.requests.iter().filter(|(_, r)| r.give_up_at <= now).map(|(&id, _)| id).collect();
        for request in late {
            self.handle_reply(now, request, Err(TrackerError::Timeout));
        }
        let silent =
            |request: &mut Request| request.silent_at.take_if(|at| *at <= now).map(|_| request.tracker);
        let silent = self.requests.values_mut().filter_map(silent);
        self.outputs.extend(silent.map(|at| Output::Silent(self.trackers[at].url.clone())));
        for tier in 0..self.tiers.len() {
            self.announce(tier, now);
        }
        self.check_invariant();
    }

    /// Returns the next output; drain to None after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() {
            // The next output is half an hour away: free the buffer.
            self.outputs = VecDeque::new();
        }
        output
    }

    /// Returns when to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let tiers = self.tiers.iter().filter_map(|tier| match tier.next {
            Next::At(at) => Some(at),
            Next::Answer | Next::Never => None,
        });
        let due = |request: &Request| request.silent_at.into_iter().chain([request.give_up_at]);
        tiers.chain(self.requests.values().flat_map(due)).min()
    }

    /// Returns whether, after `handle_stopped`, every `stopped` is answered or has failed.
    pub fn is_done(&self) -> bool {
        self.leaving && self.requests.is_empty()
    }

    /// Returns how things stand with each tracker, in the order of the tiers.
    pub fn statuses(&self) -> impl Iterator<Item = TrackerStatus> {
        self.trackers.iter().map(Tracker::status)
    }

    /// Returns whether every tracker has failed, each at its last announce.
    pub fn have_all_failed(&self) -> bool {
        self.trackers.iter().all(|tracker| tracker.seen.error.is_some())
    }

    /// Announces to the first tracker of the tier that may be asked, if it is time.
    fn announce(&mut self, tier: usize, now: Instant) {
        match self.tiers[tier].next {
            Next::At(at) if at <= now => (),
            Next::At(_) | Next::Answer | Next::Never => return,
        }
        let ready = |&at: &usize| self.trackers[at].retry_at().is_some_and(|retry_at| retry_at <= now);
        match self.tiers[tier].order.iter().copied().find(ready) {
            Some(tracker) => {
                self.send(now, tracker, self.trackers[tracker].event(), REQUEST_MAX);
                self.tiers[tier].next = Next::Answer;
            }
            None => self.tiers[tier].next = self.earliest_retry(tier).map_or(Next::Never, Next::At),
        }
    }

    /// Sends the last announces to a tracker: `completed` if it is outstanding, then `stopped`.
    fn leave(&mut self, tracker: usize, now: Instant) {
        if self.trackers[tracker].event() == AnnounceEvent::Completed {
            self.send(now, tracker, AnnounceEvent::Completed, IN_FLIGHT_WAIT);
        } else {
            self.send_stopped(tracker, now);
        }
    }

    fn send_stopped(&mut self, tracker: usize, now: Instant) {
        if self.trackers[tracker].knows_us() {
            self.send(now, tracker, AnnounceEvent::Stopped, STOPPED_WAIT);
        }
    }

    fn send(&mut self, now: Instant, tracker: usize, event: AnnounceEvent, wait: Duration) {
        let give_up_at = now + wait;
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let Tracker { url, tracker_id, request: under_way, .. } = &mut self.trackers[tracker];
        *under_way = Some(request);
        let numwant = if event == AnnounceEvent::Stopped { 0 } else { self.config.numwant };
        let announce = Announce {
            uploaded: self.progress.uploaded,
            downloaded: self.progress.downloaded,
            left: self.progress.left,
            event,
            numwant: Some(numwant),
            key: *self.key.get_or_insert_with(|| self.rng.bits() as u32),
            tracker_id: tracker_id.clone(),
            ..Announce::new(self.config.infohash, self.config.peer_id, self.config.port)
        };
        self.outputs.push_back(Output::Announce { request, url: url.clone(), announce });
        let silent_at = (!self.leaving).then_some(now + SILENCE_MAX);
        self.requests.insert(request, Request { tracker, event, give_up_at, silent_at });
    }

    fn tier_of(&self, tracker: usize) -> usize {
        let holds = |tier: &Tier| tier.order.contains(&tracker);
        self.tiers.iter().position(holds).expect("every tracker that was asked is in a tier")
    }

    /// Returns when a tracker of the tier may be announced to again.
    fn earliest_retry(&self, tier: usize) -> Option<Instant> {
        self.tiers[tier].order.iter().filter_map(|&at| self.trackers[at].retry_at()).min()
    }

    /// Returns whether the next tracker of the tier has not received `completed` yet.
    fn owes_completed(&self, tier: usize) -> bool {
        let mut alive = self.tiers[tier].order.iter().map(|&at| &self.trackers[at]);
        let next = alive.find(|tracker| tracker.retry_at().is_some());
        next.is_some_and(|tracker| tracker.event() == AnnounceEvent::Completed)
    }

    fn check_invariant(&self) {
        #[cfg(debug_assertions)]
        {
            for (id, request) in &self.requests {
                assert_eq!(self.trackers[request.tracker].request, Some(*id), "one request a tracker");
            }
            let under_way = self.trackers.iter().filter(|tracker| tracker.request.is_some()).count();
            assert_eq!(under_way, self.requests.len());
            for tier in &self.tiers {
                let asked = tier.order.iter().filter(|&&at| self.trackers[at].request.is_some()).count();
                match tier.next {
                    Next::Answer => assert_eq!(asked, 1, "a waiting tier has asked one tracker"),
                    Next::At(_) => assert_eq!(asked, 0),
                    Next::Never => assert!(self.leaving || asked == 0),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tracker::RetryIn;

    const A: &str = "http://a/announce";
    const B: &str = "udp://b:1";
    const C: &str = "https://c/announce";

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn announcer(tiers: &[&[&str]], left: u64) -> Announcer {
        let tiers = tiers.iter().map(|tier| tier.iter().map(|url| url.to_string()).collect()).collect();
        let config =
            Config { infohash: InfoHash([1; 20]), peer_id: PeerId([2; 20]), port: 3, tiers, numwant: 50 };
        Announcer::new(config, Progress { left, ..Progress::default() }, Rng::from_number(1), at(0))
    }

    fn announces(announcer: &mut Announcer) -> Vec<(RequestId, String, AnnounceEvent)> {
        let outputs = std::iter::from_fn(|| announcer.poll_output());
        outputs
            .filter_map(|output| match output {
                Output::Announce { request, url, announce } => Some((request, url, announce.event)),
                Output::Peers(_)
                | Output::ExternalIp(_)
                | Output::Announced { .. }
                | Output::Warning { .. }
                | Output::Silent(_)
                | Output::Failed { .. } => None,
            })
            .collect()
    }

    fn one(announcer: &mut Announcer) -> (RequestId, String, AnnounceEvent) {
        let mut all = announces(announcer);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn reply(interval: u64) -> Result<AnnounceReply, TrackerError> {
        Ok(AnnounceReply { interval: Duration::from_secs(interval), ..AnnounceReply::default() })
    }

    #[test]
    fn started_completed_and_stopped_come_once_each() {
        let mut machine = announcer(&[&[A]], 9);
        machine.handle_timeout(at(0));
        let (request, _, event) = one(&mut machine);
        assert_eq!(event, AnnounceEvent::Started);
        machine.handle_reply(at(1), request, reply(1800));
        assert!((at(901)..=at(1801)).contains(&machine.poll_timeout().unwrap()));
        machine.handle_completed(at(5));
        let (request, _, event) = one(&mut machine);
        assert_eq!(event, AnnounceEvent::Completed);
        machine.handle_reply(at(6), request, reply(1800));
        machine.handle_timeout(at(1806));
        let (request, _, event) = one(&mut machine);
        assert_eq!(event, AnnounceEvent::None);
        machine.handle_reply(at(1807), request, reply(1800));
        machine.handle_stopped(at(1900));
        let (request, _, event) = one(&mut machine);
        assert_eq!(event, AnnounceEvent::Stopped);
        assert!(!machine.is_done());
        machine.handle_reply(at(1901), request, reply(1800));
        machine.handle_timeout(at(9999));
        assert_eq!(announces(&mut machine), []);
        assert!(machine.is_done());
    }

    #[test]
    fn a_silent_tracker_is_mentioned_once_an_announce_and_waited_for() {
        let silent = |machine: &mut Announcer| {
            let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
            outputs.into_iter().filter(|output| matches!(output, Output::Silent(url) if url == B)).count()
        };
        let mut machine = announcer(&[&[B]], 9);
        machine.handle_timeout(at(0));
        let (request, ..) = one(&mut machine);
        assert_eq!(machine.poll_timeout(), Some(at(0) + SILENCE_MAX));
        machine.handle_timeout(at(0) + SILENCE_MAX);
        assert_eq!(silent(&mut machine), 1);
        machine.handle_timeout(at(30));
        assert_eq!((silent(&mut machine), machine.poll_timeout()), (0, Some(at(0) + REQUEST_MAX)));
        machine.handle_reply(at(31), request, reply(60));
        machine.handle_timeout(at(91));
        let (request, ..) = one(&mut machine);
        machine.handle_queued(at(91), request);
        machine.handle_timeout(at(200));
        assert_eq!(silent(&mut machine), 0, "it was not asked yet");
        assert!(machine.handle_sent(at(200), request));
        machine.handle_timeout(at(205));
        assert_eq!(silent(&mut machine), 1);
        machine.handle_stopped(at(206));
        machine.handle_timeout(at(230));
        assert_eq!(silent(&mut machine), 0, "who leaves is not interested");
    }

    #[test]
    fn completed_waits_for_the_first_answer() {
        let mut machine = announcer(&[&[A]], 9);
        machine.handle_timeout(at(0));
        let (request, ..) = one(&mut machine);
        machine.handle_completed(at(1));
        assert_eq!(announces(&mut machine), []);
        machine.handle_reply(at(2), request, reply(1800));
        assert_eq!(one(&mut machine).2, AnnounceEvent::Completed);
    }

    #[test]
    fn a_tracker_that_never_heard_of_the_download_is_not_told_of_its_end() {
        let mut machine = announcer(&[&[A]], 9);
        machine.handle_timeout(at(0));
        let (request, ..) = one(&mut machine);
        machine.handle_completed(at(1));
        machine.handle_reply(at(2), request, Err(TrackerError::Timeout));
        machine.handle_timeout(machine.poll_timeout().unwrap());
        let (request, _, event) = one(&mut machine);
        assert_eq!(event, AnnounceEvent::Started);
        machine.handle_reply(at(5), request, reply(60));
        assert_eq!(announces(&mut machine), []);
        machine.handle_timeout(at(65));
        assert_eq!(one(&mut machine).2, AnnounceEvent::None);
    }

    #[test]
    fn a_failed_tracker_hands_over_within_its_tier_and_the_winner_comes_first() {
        let mut machine = announcer(&[&[A, B], &[C]], 9);
        machine.handle_timeout(at(0));
        let all = announces(&mut machine);
        assert_eq!(all.len(), 2, "each tier is announced to");
        let (request, first, _) = all.into_iter().find(|(_, url, _)| url != C).unwrap();
        machine.handle_reply(at(1), request, Err(TrackerError::Timeout));
        let (request, second, event) = one(&mut machine);
        assert_eq!(event, AnnounceEvent::Started);
        assert_ne!(first, second);
        machine.handle_reply(at(2), request, reply(60));
        machine.handle_timeout(at(62));
        assert!(announces(&mut machine).iter().any(|(_, url, _)| *url == second));
    }

    #[test]
    fn thousands_that_begin_together_are_spread_over_the_interval_from_then_on() {
        let mut announced = BTreeMap::<u64, u32>::new();
        for seed in 0..5_000 {
            let config = Config {
                infohash: InfoHash([1; 20]),
                peer_id: PeerId([2; 20]),
                port: 3,
                tiers: vec![vec![A.to_owned()]],
                numwant: 50,
            };
            let mut machine = Announcer::new(config, Progress::default(), Rng::from_number(seed), at(0));
            let mut now = at(0);
            while now < at(4 * 3_600) {
                machine.handle_timeout(now);
                let (request, ..) = one(&mut machine);
                machine.handle_reply(now, request, reply(1800));
                now = machine.poll_timeout().unwrap();
                *announced.entry(now.as_micros() / 60_000_000).or_default() += 1;
            }
        }
        let first = *announced.first_key_value().unwrap().0;
        let busiest = *announced.values().max().unwrap();
        // Spread evenly over half an interval, a minute has 333 of them.
        assert!(first >= 15 && busiest < 420, "from minute {first} on, up to {busiest} a minute");
    }

    #[test]
    fn the_time_of_an_announce_that_waits_for_its_turn_begins_when_it_leaves() {
        let mut machine = announcer(&[&[A]], 9);
        machine.handle_timeout(at(0));
        let (request, ..) = one(&mut machine);
        assert!(machine.handle_queued(at(0), request));
        machine.handle_timeout(at(600));
        assert!(machine.poll_output().is_none(), "it has not failed");
        assert!(machine.handle_sent(at(600), request));
        assert_eq!(machine.poll_timeout(), Some(at(600) + SILENCE_MAX));
        machine.handle_timeout(at(600) + SILENCE_MAX);
        assert_eq!(machine.poll_timeout(), Some(at(600) + REQUEST_MAX));
        machine.handle_stopped(at(606));
        assert!(!machine.handle_sent(at(607), request), "who leaves announces nothing that waited");
        machine.handle_timeout(at(606) + STARTED_WAIT);
        assert!(machine.is_done());
    }

    #[test]
    fn failures_are_retried_soon_then_ever_later() {
        let mut machine = announcer(&[&[A]], 9);
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..14 {
            machine.handle_timeout(now);
            let (request, ..) = one(&mut machine);
            machine.handle_reply(now, request, Err(TrackerError::Timeout));
            let next = machine.poll_timeout().unwrap();
            pauses.push(next - now);
            now = next;
        }
        assert!(pauses[0] <= BACKOFF_MIN && pauses[1] <= 2 * BACKOFF_MIN, "{pauses:?}");
        assert!(pauses.windows(2).all(|pair| pair[0] < pair[1] * 2), "{pauses:?}");
        assert!(pauses[13] > BACKOFF_MAX / 2 && pauses[13] <= BACKOFF_MAX);
    }

    #[test]
    fn gone_and_never_are_for_ever() {
        let never = TrackerError::Refused { reason: "no".into(), retry_in: Some(RetryIn::Never) };
        for error in [TrackerError::Gone, never] {
            let mut machine = announcer(&[&[A]], 9);
            machine.handle_timeout(at(0));
            let (request, url, _) = one(&mut machine);
            machine.handle_reply(at(1), request, Err(error.clone()));
            assert_eq!(machine.poll_output(), Some(Output::Failed { url, error, retry_at: None }));
            assert_eq!(machine.poll_timeout(), None);
            machine.handle_need_peers(at(99));
            assert_eq!(announces(&mut machine), []);
        }
    }

    #[test]
    fn unknown_schemes_are_told_once_and_never_asked() {
        let mut machine = announcer(&[&["wss://x/announce"], &["wss://x/announce"]], 9);
        let first = machine.poll_output();
        assert!(matches!(&first, Some(Output::Failed { retry_at: None, .. })), "{first:?}");
        machine.handle_timeout(at(1));
        assert_eq!((machine.poll_output(), machine.poll_timeout()), (None, None));
        machine.handle_stopped(at(2));
        assert!(machine.is_done());
    }

    #[test]
    fn need_of_peers_respects_the_min_interval() {
        let mut machine = announcer(&[&[A]], 9);
        machine.handle_timeout(at(0));
        let (request, ..) = one(&mut machine);
        let min_interval = Some(Duration::from_secs(300));
        machine.handle_reply(at(0), request, reply(1800).map(|r| AnnounceReply { min_interval, ..r }));
        machine.handle_need_peers(at(100));
        assert_eq!(announces(&mut machine), []);
        assert_eq!(machine.poll_timeout(), Some(at(300)));
        machine.handle_timeout(at(300));
        assert_eq!(one(&mut machine).2, AnnounceEvent::None);
    }

    #[test]
    fn leaving_tells_only_those_who_know_us_and_waits_a_bounded_time() {
        let mut machine = announcer(&[&[A], &[B], &[C]], 9);
        machine.handle_timeout(at(0));
        let all = announces(&mut machine);
        let of = |name: &str| all.iter().find(|(_, url, _)| url == name).unwrap().0;
        machine.handle_reply(at(1), of(A), reply(1800));
        machine.handle_reply(at(1), of(B), Err(TrackerError::Timeout));
        machine.handle_stopped(at(2));
        let (_, url, event) = one(&mut machine);
        assert_eq!((url.as_str(), event), (A, AnnounceEvent::Stopped));
        machine.handle_reply(at(3), of(C), reply(1800));
        let (_, url, event) = one(&mut machine);
        assert_eq!((url.as_str(), event), (C, AnnounceEvent::Stopped));
        machine.handle_timeout(at(2) + STOPPED_WAIT);
        assert!(!machine.is_done());
        machine.handle_timeout(at(3) + STOPPED_WAIT);
        assert!(machine.is_done());
    }

    #[test]
    fn stopped_does_not_overtake_what_is_under_way() {
        let mut machine = announcer(&[&[A]], 9);
        machine.handle_timeout(at(0));
        let started = one(&mut machine).0;
        machine.handle_completed(at(1));
        machine.handle_stopped(at(1));
        assert_eq!(announces(&mut machine), []);
        machine.handle_reply(at(2), started, reply(1800));
        let (completed, _, event) = one(&mut machine);
        assert_eq!(event, AnnounceEvent::Completed);
        machine.handle_reply(at(2), completed, reply(1800));
        let (stopped, _, event) = one(&mut machine);
        assert_eq!(event, AnnounceEvent::Stopped);
        machine.handle_reply(at(3), stopped, reply(1800));
        assert!(machine.is_done() && announces(&mut machine).is_empty());
    }

    #[test]
    fn a_tracker_that_has_gone_silent_still_hears_stopped() {
        let mut machine = announcer(&[&[A]], 9);
        machine.handle_timeout(at(0));
        let started = one(&mut machine).0;
        machine.handle_reply(at(0), started, reply(1800));
        machine.handle_timeout(at(1800));
        assert_eq!(one(&mut machine).2, AnnounceEvent::None);
        machine.handle_stopped(at(1801));
        machine.handle_timeout(at(1801) + IN_FLIGHT_WAIT);
        assert_eq!(one(&mut machine).2, AnnounceEvent::Stopped);
        machine.handle_timeout(at(1801) + IN_FLIGHT_WAIT + STOPPED_WAIT);
        assert!(machine.is_done());
    }

    #[test]
    fn tracker_ids_go_back_to_the_tracker_that_gave_them() {
        let mut machine = announcer(&[&[A], &[C]], 9);
        machine.handle_timeout(at(0));
        for (request, url, _) in announces(&mut machine) {
            let tracker_id = (url == A).then(|| "id".to_owned());
            machine.handle_reply(at(0), request, reply(60).map(|r| AnnounceReply { tracker_id, ..r }));
        }
        while machine.poll_output().is_some() {}
        machine.handle_timeout(at(60));
        while let Some(output) = machine.poll_output() {
            let Output::Announce { url, announce, .. } = output else { panic!("{output:?}") };
            assert_eq!(announce.tracker_id.as_deref(), (url == A).then_some("id"));
        }
    }
}
