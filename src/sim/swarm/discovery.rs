//! What the discovery of a host decides, done: announces to the simulated tracker, which may die,
//! and lookups in a DHT that answers at once with what it was told.
//!
//! The DHT is a list here: its own machines are simulated in [`crate::sim::dht`].

use std::net::SocketAddr;

use super::{Event, Swarm};
use crate::proto::dht::event::{Found, Outcome};
use crate::proto::discovery::event::{Event as Told, Output};
use crate::proto::infohash::InfoHash;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::tracker::announcer::RequestId;
use crate::proto::tracker::{Announce, TrackerError};
use crate::sim::network::HostId;
use crate::sim::scenario::Scenario;

/// How long a host waits for a tracker that is dead.
const TRACKER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a lookup in the DHT takes.
const LOOKUP_TIME: Duration = Duration::from_secs(2);
/// Nodes that answer a lookup and store the announce, as many as BEP 5 asks.
const NODE_COUNT: u32 = 8;
/// Peers that a lookup names at most.
const NAMED_MAX: usize = 50;

/// The hosts that were announced in the DHT, in the order of their first announce.
#[derive(Debug)]
pub(super) struct Dht {
    announced: Vec<(InfoHash, SocketAddr)>,
    rng: Rng,
}

impl Dht {
    pub(super) fn new(seed: u64) -> Self {
        Self { announced: Vec::new(), rng: Rng::from_number(seed) }
    }

    /// Returns some of the hosts that were announced for this torrent, and announces `addr`.
    fn look_up(&mut self, infohash: InfoHash, addr: SocketAddr) -> Vec<SocketAddr> {
        let others = self.announced.iter().filter(|(of, other)| *of == infohash && *other != addr);
        let mut named: Vec<_> = others.map(|(_, other)| *other).collect();
        while named.len() > NAMED_MAX {
            named.swap_remove(self.rng.below(named.len()));
        }
        if !self.announced.contains(&(infohash, addr)) {
            self.announced.push((infohash, addr));
        }
        named
    }
}

impl Swarm {
    pub(super) fn discover(&mut self, id: HostId, output: Output) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        match output {
            Output::Found(found) => host.machine.handle_found(now, found),
            Output::Announce { request, announce, url: _ } if self.scenario.variations.tracker.udp => {
                self.announce_by_udp(id, request, announce);
            }
            Output::Announce { request, announce, url: _ } => {
                let (life, announce) = (host.life_number(), Box::new(announce));
                let at = now + self.scenario.latency;
                self.queue.push(at, Event::Announced { host: id, life, request, announce });
            }
            Output::Lookup(_) => {
                host.lookup_count += 1;
                let (life, lookup) = (host.life_number(), host.lookup_count);
                self.queue.push(now + LOOKUP_TIME, Event::LookedUp { host: id, life, lookup });
            }
            // What it finds is of an older lookup then.
            Output::CancelLookup => host.lookup_count += 1,
            Output::Event(Told::TrackerFailed { error, .. }) => {
                let Scenario { seed, loss, variations, .. } = &self.scenario;
                let is_lossy = variations.tracker.udp && *loss > 0.0;
                let may_fail = variations.tracker.dies_at.is_some() || is_lossy;
                assert!(may_fail, "seed {seed}: the tracker refuses {}: {error}", host.addr);
            }
            Output::Event(
                Told::TrackerAnswered { .. } | Told::TrackerWarning { .. } | Told::DhtAnswered { .. },
            ) => {}
            Output::Lsd(is_on) => self.announce_locally(id, is_on),
            // None is named.
            Output::ResolvePeer(_) | Output::ResolveNode(..) => {}
        }
    }

    /// An announce reached the tracker.
    pub(super) fn announced(&mut self, id: HostId, life: usize, request: RequestId, announce: &Announce) {
        let now = self.now;
        let (at, reply) = if self.is_tracker_dead() {
            (now + TRACKER_TIMEOUT, Err(TrackerError::Timeout))
        } else {
            let reply = self.tracker.answer(now, self.hosts[id].addr, announce);
            (now + self.scenario.latency, reply)
        };
        self.queue.push(at, Event::Answered { host: id, life, request, reply: Box::new(reply) });
    }

    /// Whether the tracker answers nobody.
    pub(super) fn is_tracker_dead(&self) -> bool {
        let dies_at = self.scenario.variations.tracker.dies_at;
        dies_at.is_some_and(|span| self.now >= Instant::ZERO + span)
    }

    /// A lookup in the DHT is over.
    pub(super) fn looked_up(&mut self, id: HostId, lookup: u64) {
        let now = self.now;
        if self.hosts[id].lookup_count != lookup {
            return;
        }
        let host = &self.hosts[id];
        let peers = self.dht.look_up(host.common.infohash, host.addr);
        let outcome = Outcome { answered: NODE_COUNT, stored: NODE_COUNT, ..Outcome::default() };
        for found in [Found::Peers { peers, local: false }, Found::Done(outcome)] {
            self.hosts[id].machine.discovery_mut().handle_found(now, found);
        }
        self.settle(id);
    }
}
