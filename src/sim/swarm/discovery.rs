//! What the discovery of a host decides, done: announces to the simulated tracker, which may die,
//! and lookups in a DHT that answers at once with what it was told.
//!
//! The DHT is a list here: its own machines are simulated in [`crate::sim::dht`].

use std::net::SocketAddr;

use super::{Event, Swarm};
use crate::proto::dht::event::{Found, Outcome};
use crate::proto::discovery::event::{Event as Told, Output};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::tracker::announcer::RequestId;
use crate::proto::tracker::{Announce, TrackerError};
use crate::sim::network::HostId;

/// How long a host waits for a tracker that is dead.
const TRACKER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a lookup in the DHT takes.
const LOOKUP_TIME: Duration = Duration::from_secs(2);
/// Nodes that answer a lookup and store the announce, as many as BEP 5 asks.
const NODE_COUNT: u32 = 8;
/// Peers that a lookup names at most.
const NAMED_MAX: usize = 50;

/// The hosts that were announced in the DHT, in the order of their first announce.
#[derive(Debug, Default)]
pub(super) struct Dht {
    announced: Vec<SocketAddr>,
}

impl Dht {
    /// Returns some of the announced hosts, and announces `addr`.
    fn look_up(&mut self, addr: SocketAddr, rng: &mut Rng) -> Vec<SocketAddr> {
        let mut named: Vec<_> = self.announced.iter().copied().filter(|other| *other != addr).collect();
        while named.len() > NAMED_MAX {
            named.swap_remove(rng.below(named.len()));
        }
        if !self.announced.contains(&addr) {
            self.announced.push(addr);
        }
        named
    }
}

impl Swarm {
    pub(super) fn discover(&mut self, id: HostId, output: Output) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        match output {
            Output::Found(found) => host.machine.handle_found(now, found),
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
                let may_fail = self.scenario.variations.tracker_dies_at.is_some();
                let seed = self.scenario.seed;
                assert!(may_fail, "seed {seed}: the tracker refuses {}: {error}", host.addr);
            }
            Output::Event(
                Told::TrackerAnswered { .. } | Told::TrackerWarning { .. } | Told::DhtAnswered { .. },
            ) => {}
            // No host has a local network, and none is named.
            Output::Lsd(_) | Output::ResolvePeer(_) | Output::ResolveNode(..) => {}
        }
    }

    /// An announce reached the tracker.
    pub(super) fn announced(&mut self, id: HostId, life: usize, request: RequestId, announce: &Announce) {
        let now = self.now;
        let dies_at = self.scenario.variations.tracker_dies_at;
        let is_dead = dies_at.is_some_and(|span| now >= Instant::ZERO + span);
        let (at, reply) = if is_dead {
            (now + TRACKER_TIMEOUT, Err(TrackerError::Timeout))
        } else {
            let reply = self.tracker.answer(now, self.hosts[id].addr, announce);
            (now + self.scenario.latency, reply)
        };
        self.queue.push(at, Event::Answered { host: id, life, request, reply: Box::new(reply) });
    }

    /// A lookup in the DHT is over.
    pub(super) fn looked_up(&mut self, id: HostId, lookup: u64) {
        let now = self.now;
        if self.hosts[id].lookup_count != lookup {
            return;
        }
        let peers = self.dht.look_up(self.hosts[id].addr, &mut self.dht_rng);
        let outcome = Outcome { answered: NODE_COUNT, stored: NODE_COUNT, ..Outcome::default() };
        for found in [Found::Peers { peers, local: false }, Found::Done(outcome)] {
            self.hosts[id].machine.discovery_mut().handle_found(now, found);
        }
        self.settle(id);
    }
}
