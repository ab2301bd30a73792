//! Where the peers of one torrent come from: its trackers (BEP 3, 12), the DHT (BEP 5), the local
//! network (BEP 14), and addresses that the user, the torrent or its link names.
//!
//! One machine a torrent decides when to ask which source. The announcer and the finder are its
//! parts: the announcer is made only for a torrent with trackers, the finder only where there is a
//! DHT node, so that a torrent that waits takes little memory. The rules that concern more than one
//! source:
//!
//! - A torrent needs peers while it lacks pieces, has fewer than [`CONNECTIONS_FEW`] connections
//!   and knows no address to dial. Then its trackers are asked before their interval is over, and
//!   the DHT is asked again soon.
//! - When every tracker has failed, each at its last announce, the DHT is asked at once.
//! - Of a private torrent (BEP 27), peers come from its trackers, the user and the link alone: it
//!   is neither looked up in the DHT nor announced on the local network, also if it turns out to be
//!   private later.
//! - `completed` is announced once, and only if pieces were fetched. On leaving, `stopped` goes to
//!   each tracker that knows us, and nothing else is asked or told.
//!
//! The machine knows no socket, and neither which addresses are worth dialling nor who is
//! connected.

pub mod event;
pub mod finder;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use super::dht::event as dht;
use super::infohash::InfoHash;
use super::rng::Rng;
use super::session::Demand;
use super::time::Instant;
use super::torrent::event::Source;
use super::tracker::announcer::{self, Announcer, RequestId};
use super::tracker::{AnnounceReply, Progress, TrackerError, TrackerStatus};
use event::{Config, DhtStatus, DiscoveryEvent, Event, Hints, Output};
use finder::Finder;

/// A torrent with this many connections has enough peers.
pub const CONNECTIONS_FEW: usize = 10;
/// Names of peers that are looked up, and as many of nodes; more are left out. Links and torrents
/// name a few.
const NAME_MAX: usize = 32;
/// Different peers of one lookup that are counted for people; more are found and not counted.
const COUNTED_MAX: usize = 10_000;

/// The discovery of one torrent.
///
/// After each `handle_*` drain [`Discovery::poll_output`]; then wait until
/// [`Discovery::poll_timeout`].
#[derive(Debug)]
pub struct Discovery {
    infohash: InfoHash,
    port: u16,
    reach: Reach,
    /// None: there are no trackers.
    announcer: Option<Box<Announcer>>,
    /// None: the DHT is not asked.
    dht: Option<Box<Dht>>,
    /// Whether the torrent is announced on the local network.
    lsd: bool,
    /// Every piece is there: the DHT is told that we are a seed.
    complete: bool,
    outputs: VecDeque<Output>,
}

/// Which sources may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// All.
    Public,
    /// Those of a private torrent (BEP 27).
    Private,
    /// None: the torrent leaves.
    Leaving,
}

/// The DHT's part.
#[derive(Debug)]
struct Dht {
    finder: Finder,
    /// Peers of the lookup under way, or else of the last one.
    named: BTreeSet<SocketAddr>,
    status: DhtStatus,
}

impl Discovery {
    /// Asks nothing before the first [`Discovery::handle_timeout`]. A torrent without anything
    /// missing, by `progress`, never announces `completed`.
    pub fn new(config: Config, progress: Progress, mut rng: Rng, now: Instant) -> Self {
        let Config { infohash, peer_id, port, numwant, private, dht, lsd, hints } = config;
        let Hints { tiers, peers, nodes } = hints;
        let has_trackers = tiers.iter().any(|tier| !tier.is_empty());
        let dht = (dht && !private).then(|| {
            let finder = Finder::new(has_trackers, rng.fork("finder"), now);
            Box::new(Dht { finder, named: BTreeSet::new(), status: DhtStatus::default() })
        });
        rng.compact();
        let config = announcer::Config { infohash, peer_id, port, tiers, numwant };
        let announcer = has_trackers.then(|| Box::new(Announcer::new(config, progress, rng, now)));
        let mut discovery = Self {
            infohash,
            port,
            reach: if private { Reach::Private } else { Reach::Public },
            announcer,
            dht,
            lsd: lsd && !private,
            complete: progress.left == 0,
            outputs: VecDeque::new(),
        };
        discovery.begin(now, peers, nodes);
        discovery
    }

    /// Uses what is told of the torrent, and announces it on the local network.
    fn begin(&mut self, now: Instant, peers: Vec<String>, nodes: Vec<(String, u16)>) {
        let is_written = |name: &String| name.parse::<SocketAddr>().is_ok();
        let (written, names): (Vec<_>, Vec<_>) = peers.into_iter().partition(is_written);
        self.find(Source::Magnet, written.iter().filter_map(|name| name.parse().ok()).collect());
        self.outputs.extend(names.into_iter().take(NAME_MAX).map(Output::ResolvePeer));
        if self.dht.is_some() {
            let resolve = |(host, port)| Output::ResolveNode(host, port);
            self.outputs.extend(nodes.into_iter().take(NAME_MAX).map(resolve));
        }
        if self.lsd {
            self.outputs.push_back(Output::Lsd(true));
        }
        self.take_announcer(now, false);
    }

    /// New counters for announces; cheap, to be called before every other input.
    pub fn handle_progress(&mut self, progress: Progress) {
        if let Some(announcer) = &mut self.announcer {
            announcer.handle_progress(progress);
        }
    }

    /// The torrent begins to lack pieces, or lacks none any more.
    pub fn handle_lack(&mut self, now: Instant, lacks_pieces: bool) {
        if let Some(dht) = &mut self.dht {
            dht.finder.handle_need(now, lacks_pieces);
        }
    }

    /// What the torrent could use has changed, as it is told to the session; it may lack pieces.
    pub fn handle_demand(&mut self, now: Instant, demand: &Demand, lacks_pieces: bool) {
        let needs_peers = lacks_pieces && demand.candidates == 0 && demand.connections < CONNECTIONS_FEW;
        if needs_peers && let Some(announcer) = &mut self.announcer {
            announcer.handle_need_peers(now);
        }
        if let Some(dht) = &mut self.dht {
            dht.finder.handle_need(now, needs_peers);
        }
        self.take_announcer(now, false);
    }

    /// Every piece is there; `was_fetched`: some came from peers, so trackers are told `completed`.
    pub fn handle_completed(&mut self, now: Instant, was_fetched: bool) {
        self.complete = true;
        if let Some(dht) = &mut self.dht {
            dht.finder.handle_completed(now);
        }
        if was_fetched && let Some(announcer) = &mut self.announcer {
            announcer.handle_completed(now);
        }
        self.take_announcer(now, false);
    }

    /// The metadata says that the torrent is private (BEP 27): what was found and is not told yet
    /// is told only if a source that may name its peers named it.
    pub fn handle_private(&mut self) {
        self.restrict(Reach::Private);
    }

    /// The torrent leaves: `stopped` to each tracker that knows us; see [`Discovery::is_done`].
    pub fn handle_stopped(&mut self, now: Instant) {
        self.restrict(Reach::Leaving);
        if let Some(announcer) = &mut self.announcer {
            announcer.handle_stopped(now);
        }
        self.take_announcer(now, false);
    }

    /// Peers that the user, the link or the local network names.
    pub fn handle_peers(&mut self, source: Source, peers: Vec<SocketAddr>) {
        self.find(source, peers);
    }

    /// An announce is to wait for those of other torrents; then [`Discovery::handle_turn`] follows.
    /// Returns whether it may wait.
    pub fn handle_queued(&mut self, now: Instant, request: RequestId) -> bool {
        self.announcer.as_mut().is_some_and(|announcer| announcer.handle_queued(now, request))
    }

    /// An announce that waited may be sent now; returns whether it still is to be.
    pub fn handle_turn(&mut self, now: Instant, request: RequestId) -> bool {
        self.announcer.as_mut().is_some_and(|announcer| announcer.handle_sent(now, request))
    }

    /// The answer to an announce; `local`: from a loopback or private address, which may name such
    /// peers.
    pub fn handle_reply(
        &mut self,
        now: Instant,
        request: RequestId,
        reply: Result<AnnounceReply, TrackerError>,
        local: bool,
    ) {
        if let Some(announcer) = &mut self.announcer {
            announcer.handle_reply(now, request, reply);
        }
        self.take_announcer(now, local);
    }

    /// What the lookup under way found.
    pub fn handle_found(&mut self, now: Instant, found: dht::Found) {
        let Some(dht) = &mut self.dht else { return };
        match found {
            dht::Found::Peers { peers, local } => {
                let room = COUNTED_MAX.saturating_sub(dht.named.len());
                dht.named.extend(peers.iter().take(room));
                dht.status.peers = dht.named.len();
                self.find(Source::Dht { local }, peers);
            }
            // A lookup of peers finds none.
            dht::Found::Item(_) => {}
            dht::Found::Done(outcome) => {
                let (nodes, peers) = (outcome.answered, dht.status.peers);
                dht.status.asking = false;
                dht.status.lookups += 1;
                dht.status.answered = nodes;
                dht.status.announced = outcome.stored;
                dht.finder.handle_done(now, nodes, peers);
                self.outputs.push_back(Output::Event(Event::DhtAnswered { nodes, peers }));
            }
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(announcer) = &mut self.announcer {
            announcer.handle_timeout(now);
        }
        if let Some(dht) = &mut self.dht {
            dht.finder.handle_timeout(now);
        }
        self.take_announcer(now, false);
    }

    /// The next decision; drain to None after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        // The next ones are minutes away: no room is kept for them.
        self.outputs = VecDeque::new();
        let dht = self.dht.as_mut()?;
        let finder::Output::Lookup = dht.finder.poll_output()?;
        dht.named.clear();
        dht.status.asking = true;
        dht.status.peers = 0;
        let announce = dht::Announce { port: Some(self.port), seed: self.complete };
        let (infohash, announce) = (self.infohash, Some(announce));
        Some(Output::Lookup(dht::Request::Peers { infohash, announce, scrape: false }))
    }

    /// When to call [`Discovery::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let announce_at = self.announcer.as_ref().and_then(|announcer| announcer.poll_timeout());
        let lookup_at = self.dht.as_ref().and_then(|dht| dht.finder.poll_timeout());
        announce_at.into_iter().chain(lookup_at).min()
    }

    /// Returns whether the torrent's peers may know that we are a node of the DHT.
    pub fn speaks_dht(&self) -> bool {
        self.dht.is_some()
    }

    /// After [`Discovery::handle_stopped`]: whether each `stopped` is answered or given up.
    pub fn is_done(&self) -> bool {
        self.announcer.as_ref().is_none_or(|announcer| announcer.is_done())
    }

    /// How things stand with each tracker, for people.
    pub fn tracker_statuses(&self) -> Vec<TrackerStatus> {
        self.announcer.iter().flat_map(|announcer| announcer.statuses()).collect()
    }

    /// How things stand with the DHT, for people; None: it is not asked.
    pub fn dht_status(&self) -> Option<DhtStatus> {
        self.dht.as_ref().map(|dht| dht.status)
    }

    /// Whether addresses from this source may be used.
    fn admits(&self, source: Source) -> bool {
        match self.reach {
            Reach::Public => true,
            Reach::Private => source.may_be_private(),
            Reach::Leaving => false,
        }
    }

    fn find(&mut self, source: Source, peers: Vec<SocketAddr>) {
        if self.admits(source) && !peers.is_empty() {
            self.outputs.push_back(Output::Found(DiscoveryEvent::Peers(source, peers)));
        }
    }

    /// Fewer sources may be used from now on.
    fn restrict(&mut self, reach: Reach) {
        self.reach = reach;
        let is_asking = self.dht.take().is_some_and(|dht| dht.status.asking);
        let outputs = std::mem::take(&mut self.outputs);
        self.outputs = outputs.into_iter().filter(|output| self.may_tell(output)).collect();
        if is_asking {
            self.outputs.push_back(Output::CancelLookup);
        }
        if std::mem::take(&mut self.lsd) {
            self.outputs.push_back(Output::Lsd(false));
        }
    }

    /// Whether a decision that was not told yet still holds.
    fn may_tell(&self, output: &Output) -> bool {
        match output {
            Output::Found(DiscoveryEvent::Peers(source, _)) => self.admits(*source),
            Output::Found(DiscoveryEvent::ExternalIp(_)) | Output::ResolvePeer(_) => {
                self.reach != Reach::Leaving
            }
            Output::ResolveNode(..) => false,
            Output::Announce { .. }
            | Output::Lookup(_)
            | Output::CancelLookup
            | Output::Lsd(_)
            | Output::Event(_) => true,
        }
    }

    /// Takes over what the announcer decided; `local`: what a tracker says comes from a local
    /// address.
    fn take_announcer(&mut self, now: Instant, local: bool) {
        while let Some(output) = self.announcer.as_mut().and_then(|announcer| announcer.poll_output()) {
            match output {
                announcer::Output::Announce { request, url, announce } => {
                    self.outputs.push_back(Output::Announce { request, url, announce });
                }
                announcer::Output::Peers(peers) => self.find(Source::Tracker { local }, peers),
                announcer::Output::ExternalIp(ip) => {
                    self.outputs.push_back(Output::Found(DiscoveryEvent::ExternalIp(ip)));
                }
                announcer::Output::Announced { url, peers } => {
                    if let Some(dht) = &mut self.dht {
                        dht.finder.handle_tracker_answered(now);
                    }
                    self.outputs.push_back(Output::Event(Event::TrackerAnswered { url, peers }));
                }
                announcer::Output::Warning { url, text } => {
                    self.outputs.push_back(Output::Event(Event::TrackerWarning { url, text }));
                }
                // Whether it has failed is not known yet: nothing follows from it.
                announcer::Output::Silent(url) => {
                    let error = TrackerError::Timeout;
                    self.outputs.push_back(Output::Event(Event::TrackerFailed { url, error }));
                }
                announcer::Output::Failed { url, error, retry_at: _ } => {
                    self.tracker_failed(now);
                    self.outputs.push_back(Output::Event(Event::TrackerFailed { url, error }));
                }
            }
        }
    }

    fn tracker_failed(&mut self, now: Instant) {
        let have_all_failed = self.announcer.as_ref().is_none_or(|announcer| announcer.have_all_failed());
        if let Some(dht) = &mut self.dht {
            dht.finder.handle_tracker_failed(now, have_all_failed);
        }
    }
}

#[cfg(test)]
mod tests;
