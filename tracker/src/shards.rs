//! The swarms, distributed over locks so that workers rarely wait for each other.
//!
//! A hash with a secret key selects a torrent's shard, so that an attacker cannot overload one. A
//! lock is held for one announce (some hundred nanoseconds), or for one sweep of one shard; no
//! thread holds two.

use std::hash::{BuildHasher as _, RandomState};
use std::ops::DerefMut;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sprat::proto::infohash::InfoHash;
use sprat::proto::rng::Rng;
use sprat::proto::time::Instant;
use sprat::proto::tracker::service::{self, LIMITS};
use sprat::proto::tracker::swarm::{Limits, Swarms, Totals};

use crate::clock::Clock;

/// Number of locks: several for each core of a large machine.
const SHARD_COUNT: usize = 32;

/// All swarms of the tracker.
#[derive(Debug)]
pub(crate) struct Shards {
    placement: RandomState,
    shards: Vec<Mutex<Swarms>>,
}

fn lock(shard: &Mutex<Swarms>) -> MutexGuard<'_, Swarms> {
    // A worker that panics ends the process; until then its figures remain usable.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shards {
    /// Creates empty shards.
    pub(crate) fn new(rng: &mut Rng, now: Instant) -> Self {
        let limits = Limits {
            torrent_max: LIMITS.torrent_max / SHARD_COUNT,
            peer_max: LIMITS.peer_max / SHARD_COUNT,
            ..LIMITS
        };
        let shards = (0..SHARD_COUNT).map(|_| Mutex::new(Swarms::new(limits, rng, now))).collect();
        Self { placement: RandomState::new(), shards }
    }

    /// Applies the passage of time: expires silent peers, shard by shard.
    pub(crate) fn handle_timeout(&self, clock: &Clock) {
        for shard in &self.shards {
            lock(shard).handle_timeout(clock.now());
        }
    }

    /// Returns the totals of all shards.
    pub(crate) fn totals(&self) -> Totals {
        self.shards.iter().fold(Totals::default(), |sum, shard| {
            let totals = lock(shard).totals();
            Totals {
                torrents: sum.torrents + totals.torrents,
                peers: sum.peers + totals.peers,
                seeders: sum.seeders + totals.seeders,
            }
        })
    }
}

impl service::Shards for &Shards {
    fn shard(&mut self, infohash: &InfoHash) -> impl DerefMut<Target = Swarms> {
        lock(&self.shards[self.placement.hash_one(infohash.0) as usize % SHARD_COUNT])
    }
}
