//! Where a torrent's peers come from: its trackers, the DHT, the local network, and names that the
//! user gave.
//!
//! It carries questions out and answers back; when to ask whom, the announcer and the finder
//! decide. What was found is told by [`Sources::poll`], to whichever machine the torrent has just
//! then. A private torrent has trackers and what its user named, nothing else (BEP 27).

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{self, Poll};

use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

use super::report::Report;
use super::swarm::News;
use super::trackers::{Announced, Asked, Trackers, announce};
use crate::engine::add::TorrentSource;
use crate::engine::channels::FOUND;
use crate::engine::context::Context;
use crate::engine::dht::{self, DhtRequest, Found, Outcome};
use crate::engine::handle::{DhtStatus, Event, TrackerStatus};
use crate::engine::lsd;
use crate::engine::task::Tasks;
use crate::engine::turns::Turn;
use crate::proto::compact;
use crate::proto::discovery::finder::{self, Finder};
use crate::proto::infohash::InfoHash;
use crate::proto::rng::Rng;
use crate::proto::time::Instant;
use crate::proto::torrent::event::Source;
use crate::proto::tracker::AnnounceEvent;
use crate::proto::tracker::TrackerError;
use crate::proto::tracker::announcer::{self, Announcer, Progress, RequestId};

/// Time for looking up the name of a peer or node; then it is left out.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Names of peers and of nodes that are looked up, of each so many; more are left out. Links and
/// torrents name a few.
const NAME_MAX: usize = 32;
/// Different peers of one lookup that are counted for people; more are found and not counted.
const COUNTED_MAX: usize = 10_000;

/// What is told of a torrent that wants peers.
#[derive(Default)]
pub(super) struct Hints {
    /// Trackers.
    pub(super) tiers: Vec<Vec<String>>,
    /// Peers by name, `host:port`.
    pub(super) peer_names: Vec<String>,
    /// Nodes of the DHT, host and port.
    pub(super) nodes: Vec<(String, u16)>,
}

impl Hints {
    /// Those of the torrent itself; the user's `trackers` have a tier of their own each.
    pub(super) fn new(source: &TorrentSource, trackers: Vec<String>) -> Self {
        let own_tier = |url: String| vec![url];
        let (mut tiers, peer_names, nodes) = match source {
            TorrentSource::Metainfo(metainfo) => {
                (metainfo.trackers.clone(), Vec::new(), metainfo.nodes.clone())
            }
            TorrentSource::Magnet(magnet) => {
                let tiers = magnet.trackers.iter().cloned().map(own_tier).collect();
                (tiers, magnet.peers.clone(), Vec::new())
            }
        };
        tiers.extend(trackers.into_iter().map(own_tier));
        Self { tiers, peer_names, nodes }
    }
}

/// All sources of one torrent.
pub(super) struct Sources {
    context: Arc<Context>,
    infohash: InfoHash,
    trackers: Trackers,
    /// None: the torrent is private, or it is leaving.
    public: Option<Public>,
    /// What is complete is announced as a seed.
    is_seed: bool,
    tasks: Tasks<Arrived>,
    found: VecDeque<News>,
}

/// What only public torrents have.
struct Public {
    /// None: we take no part in the DHT.
    dht: Option<Box<Dht>>,
    /// None: we do not look on the local network.
    lsd: Option<mpsc::Sender<lsd::Request>>,
}

/// The DHT for this torrent.
struct Dht {
    requests: mpsc::Sender<dht::Request>,
    finder: Finder,
    /// Findings of the lookup under way.
    search: Option<mpsc::Receiver<Found>>,
    /// Held until the lookup is over.
    turn: Option<Turn>,
    named: BTreeSet<SocketAddr>,
    status: DhtStatus,
}

/// Something came, for [`Sources::handle`].
pub(super) enum Arrived {
    /// An announce that waited may leave.
    Turn(RequestId, Turn),
    /// The answer to an announce.
    Announced(Box<Announced>),
    /// The DHT is being asked.
    Searching(Turn),
    /// The addresses of a peer's name.
    Resolved(Vec<SocketAddr>),
    /// Somebody was told something.
    Told,
    /// From the DHT; None: the lookup ended without a word.
    Found(Option<Box<Found>>),
}

impl Sources {
    /// Those of a torrent; `private`: it may ask its trackers alone; `is_seed`: nothing is missing.
    pub(super) fn new(
        context: &Arc<Context>,
        infohash: InfoHash,
        hints: Hints,
        private: bool,
        is_seed: bool,
        announcer: Announcer,
        mut rng: Rng,
    ) -> Self {
        let now = context.clock.now();
        let Hints { tiers, peer_names, nodes } = hints;
        let has_trackers = tiers.iter().any(|tier| !tier.is_empty());
        let dht = |requests| Dht {
            requests,
            finder: Finder::new(has_trackers, false, rng.fork("finder"), now),
            search: None,
            turn: None,
            named: BTreeSet::new(),
            status: DhtStatus::default(),
        };
        let public = (!private)
            .then(|| Public { dht: context.dht.clone().map(dht).map(Box::new), lsd: context.lsd.clone() });
        let mut sources = Self {
            context: context.clone(),
            infohash,
            trackers: Trackers::new(announcer, &tiers),
            public,
            is_seed,
            tasks: Tasks::new(),
            found: VecDeque::new(),
        };
        sources.resolve_peers(peer_names);
        if !private {
            sources.hint(nodes);
            sources.tell_lsd(lsd::Request::Add(infohash));
        }
        sources
    }

    /// Whether peers may know that we take part in the DHT.
    pub(super) fn speaks_dht(&self) -> bool {
        self.public.as_ref().is_some_and(|public| public.dht.is_some())
    }

    /// Whether addresses from this source may be used.
    pub(super) fn admits(&self, source: Source) -> bool {
        self.public.is_some() || source.may_be_private()
    }

    /// The torrent turned out to be private, or it leaves: trackers alone from now on.
    pub(super) fn restrict(&mut self) {
        self.tell_lsd(lsd::Request::Remove(self.infohash));
        self.public = None;
        // What was found and not told yet is not told any more.
        self.found.retain(|news| match news {
            News::Peers(source, _) => source.may_be_private(),
            News::Connected(_) | News::DialFailed(_) | News::ExternalIp(_) => true,
        });
    }

    /// The announcer, with the newest figures; None: there are no trackers.
    pub(super) fn announcer(&mut self, progress: Progress) -> Option<&mut Announcer> {
        self.trackers.announcer(progress)
    }

    /// The torrent could use more peers, or has enough.
    pub(super) fn handle_need(&mut self, now: Instant, needs_peers: bool) {
        if let Some(dht) = self.dht() {
            dht.finder.handle_need(now, needs_peers);
        }
    }

    /// Every piece is there: from the start, or `news`.
    pub(super) fn handle_completed(&mut self, now: Instant, news: Option<Progress>) {
        self.is_seed = true;
        if let Some(dht) = self.dht() {
            dht.finder.handle_completed(now);
        }
        if let Some(announcer) = news.and_then(|progress| self.trackers.announcer(progress)) {
            announcer.handle_completed(now);
        }
    }

    /// When to call [`Sources::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let dht = self.public.as_ref().and_then(|public| public.dht.as_ref());
        let finder = dht.and_then(|dht| dht.finder.poll_timeout());
        self.trackers.poll_timeout().into_iter().chain(finder).min()
    }

    /// Time passed; whether something was due.
    pub(super) fn handle_timeout(&mut self, now: Instant, progress: impl FnOnce() -> Progress) -> bool {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let is_tracker_due = due(self.trackers.poll_timeout());
        if is_tracker_due && let Some(announcer) = self.trackers.announcer(progress()) {
            announcer.handle_timeout(now);
        }
        let mut is_finder_due = false;
        if let Some(dht) = self.dht().filter(|dht| due(dht.finder.poll_timeout())) {
            dht.finder.handle_timeout(now);
            is_finder_due = true;
        }
        is_tracker_due || is_finder_due
    }

    /// After `stopped`: whether all is said.
    pub(super) fn is_done(&self) -> bool {
        self.trackers.is_done()
    }

    /// What people see of the trackers.
    pub(super) fn tracker_statuses(&self) -> Vec<TrackerStatus> {
        self.trackers.statuses().to_vec()
    }

    /// What people see of the DHT; None: it is not asked.
    pub(super) fn dht_status(&self) -> Option<DhtStatus> {
        self.public.as_ref()?.dht.as_ref().map(|dht| dht.status)
    }

    /// The next thing that comes.
    pub(super) fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Arrived> {
        let arrived = self.tasks.poll_next(cx);
        match self.dht().and_then(|dht| dht.search.as_mut()) {
            Some(search) if arrived.is_pending() => {
                search.poll_recv(cx).map(|found| Arrived::Found(found.map(Box::new)))
            }
            Some(_) | None => arrived,
        }
    }

    /// Something came.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        arrived: Arrived,
        progress: impl FnOnce() -> Progress,
        report: &Report,
    ) {
        match arrived {
            Arrived::Announced(announced) => {
                if let Some((url, peers)) = self.trackers.answered(now, progress(), *announced) {
                    report.event(Event::TrackerOk { url, peers });
                }
            }
            Arrived::Turn(request, turn) => {
                if let Some(asked) = self.trackers.leaves(now, request) {
                    self.send(request, asked, Some(turn));
                }
            }
            Arrived::Searching(turn) => {
                if let Some(dht) = self.dht().filter(|dht| dht.search.is_some()) {
                    dht.turn = Some(turn);
                }
            }
            Arrived::Resolved(addrs) => self.found.push_back(News::Peers(Source::Magnet, addrs)),
            Arrived::Told => {}
            Arrived::Found(Some(found)) => match *found {
                Found::Peers { peers, local } => self.named(peers, local),
                // Nobody asked for one.
                Found::Item(_) => {}
                Found::Done(outcome) => self.searched(now, &outcome, report),
            },
            Arrived::Found(None) => self.searched(now, &Outcome::default(), report),
        }
    }

    /// The next thing that the torrent's machine is to hear; what is to be asked is asked. Drain to
    /// None.
    pub(super) fn poll(&mut self, now: Instant, report: &Report) -> Option<News> {
        loop {
            if let Some(news) = self.found.pop_front() {
                return Some(news);
            }
            self.found = VecDeque::new();
            if let Some(output) = self.trackers.poll_output() {
                self.handle_announcer(now, output, report);
                continue;
            }
            let finder::Output::Lookup = self.dht()?.finder.poll_output()?;
            self.search();
        }
    }

    fn dht(&mut self) -> Option<&mut Dht> {
        self.public.as_mut()?.dht.as_deref_mut()
    }

    fn handle_announcer(&mut self, now: Instant, output: announcer::Output, report: &Report) {
        match output {
            announcer::Output::Announce { request, url, announce } => {
                self.announce(now, request, Asked { url, announce });
            }
            announcer::Output::Peers { url, peers } => {
                let source = Source::Tracker { local: self.trackers.is_local(&url) };
                self.found.push_back(News::Peers(source, peers));
            }
            announcer::Output::ExternalIp(ip) => self.found.push_back(News::ExternalIp(ip)),
            announcer::Output::Announced { url, seeders, leechers } => {
                if let Some(status) = self.trackers.status(&url) {
                    (status.seeders, status.leechers, status.error) = (seeders, leechers, None);
                }
                if let Some(dht) = self.dht() {
                    dht.finder.handle_tracker_answered(now);
                }
            }
            announcer::Output::Warning { url, text } => report.event(Event::TrackerWarning { url, text }),
            // Whether it has failed is not known yet: nothing follows from it.
            announcer::Output::Silent(url) => {
                report.event(Event::TrackerFailed { url, error: TrackerError::Timeout.to_string() });
            }
            announcer::Output::Failed { url, error, retry_at: _ } => {
                let error = error.to_string();
                if let Some(status) = self.trackers.status(&url) {
                    status.error = Some(error.clone());
                }
                let all = self.trackers.all_failed();
                if let Some(dht) = self.dht() {
                    dht.finder.handle_tracker_failed(now, all);
                }
                report.event(Event::TrackerFailed { url, error });
            }
        }
    }

    /// Sends an announce, when it is its turn. Who leaves does not wait.
    fn announce(&mut self, now: Instant, request: RequestId, asked: Asked) {
        let is_farewell = asked.announce.event == AnnounceEvent::Stopped;
        let turn = self.context.announces.take(self.is_seed);
        let waits = turn.is_none() && !is_farewell;
        self.trackers.asked(now, request, asked.clone(), waits);
        if !waits {
            return self.send(request, asked, turn);
        }
        let (turns, is_seed) = (self.context.announces.clone(), self.is_seed);
        self.tasks.spawn("turn", async move { Arrived::Turn(request, turns.wait(is_seed).await) });
    }

    fn send(&mut self, request: RequestId, asked: Asked, turn: Option<Turn>) {
        let context = self.context.clone();
        self.tasks.spawn("announce", async move {
            let announced = announce(context, request, asked).await;
            drop(turn);
            Arrived::Announced(Box::new(announced))
        });
    }

    /// Asks the DHT for peers, and has it say that we are one.
    fn search(&mut self) {
        let announce = dht::Announce { port: Some(self.context.port), seed: self.is_seed };
        let (infohash, is_seed) = (self.infohash, self.is_seed);
        let turns = self.context.lookups.clone();
        let Some(dht) = self.dht() else { return };
        let (sender, findings) = mpsc::channel(FOUND);
        dht.search = Some(findings);
        dht.named.clear();
        dht.status.asking = true;
        dht.status.peers = 0;
        let requests = dht.requests.clone();
        self.tasks.spawn("lookup", async move {
            let turn = turns.wait(is_seed).await;
            let request = DhtRequest::Peers { infohash, announce: Some(announce), scrape: false };
            // An engine that has ended drops the sender, which ends the lookup.
            let _ = requests.send(dht::Request::Start(request, sender)).await;
            Arrived::Searching(turn)
        });
    }

    /// A node named peers.
    fn named(&mut self, peers: Vec<SocketAddr>, local: bool) {
        let Some(dht) = self.dht() else { return };
        let room = COUNTED_MAX.saturating_sub(dht.named.len());
        dht.named.extend(peers.iter().take(room));
        dht.status.peers = dht.named.len();
        self.found.push_back(News::Peers(Source::Dht { local }, peers));
    }

    /// A lookup is over.
    fn searched(&mut self, now: Instant, outcome: &Outcome, report: &Report) {
        let Some(dht) = self.dht() else { return };
        (dht.search, dht.turn) = (None, None);
        dht.status.asking = false;
        dht.status.lookups += 1;
        dht.status.answered = outcome.answered;
        dht.status.announced = outcome.stored;
        let peers = dht.status.peers;
        dht.finder.handle_done(now, outcome.answered, peers);
        report.event(Event::DhtAnswered { nodes: outcome.answered, peers });
    }

    fn tell_lsd(&mut self, request: lsd::Request) {
        let Some(lsd) = self.public.as_ref().and_then(|public| public.lsd.clone()) else { return };
        // A queue that is full is waited for elsewhere; an engine that has ended announces nothing
        // more.
        if let Err(mpsc::error::TrySendError::Full(request)) = lsd.try_send(request) {
            self.tasks.spawn("lsd", async move {
                let _ = lsd.send(request).await;
                Arrived::Told
            });
        }
    }

    fn resolve_peers(&mut self, names: Vec<String>) {
        let is_written = |name: &String| name.parse::<SocketAddr>().is_ok();
        let (written, names): (Vec<_>, Vec<_>) = names.into_iter().partition(is_written);
        if !written.is_empty() {
            let addrs = written.iter().filter_map(|name| name.parse().ok()).collect();
            self.found.push_back(News::Peers(Source::Magnet, addrs));
        }
        for name in names.into_iter().take(NAME_MAX) {
            self.tasks.spawn("peer name", async move {
                Arrived::Resolved(resolve(tokio::net::lookup_host(name)).await)
            });
        }
    }

    /// Tells the DHT of nodes that the torrent names.
    fn hint(&mut self, nodes: Vec<(String, u16)>) {
        if self.context.dht.is_none() {
            return;
        }
        for node in nodes.into_iter().take(NAME_MAX) {
            let context = self.context.clone();
            self.tasks.spawn("node name", async move {
                resolve(tokio::net::lookup_host(node)).await.into_iter().for_each(|addr| context.hint(addr));
                Arrived::Told
            });
        }
    }
}

/// The addresses that a lookup gives in time.
async fn resolve<I: Iterator<Item = SocketAddr>>(
    lookup: impl Future<Output = std::io::Result<I>>,
) -> Vec<SocketAddr> {
    match timeout(LOOKUP_TIMEOUT, lookup).await {
        Ok(Ok(addrs)) => addrs.map(compact::canonical).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}
