//! Buffers for blocks: 16 KiB each, used again, bounded while they travel.
//!
//! A buffer counts against the pool while it is between a socket and its torrent, or between the disk and a
//! socket: then an empty pool makes readers wait, and a socket that is not read is back-pressure. Once a
//! torrent keeps a block for a piece the buffer is [`BlockBuf::settle`]d and counts no longer: it belongs to
//! a piece under way, of which the picker allows few, so that waiting for the pool never waits for a piece
//! that waits for the pool. The one lock on the way of bytes guards the list of idle buffers, for a push or a pop.
//!
//! What comes for one torrent may be as much as is left for all others, not more ([`Intake`]): however many of them wait
//! for disks that stand still, there is room for one more.
//!
//! Buffers are zeroed when first made and never again: a reader fills them before their length is set.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::proto::block::BLOCK_LEN;

/// Buffers travelling at once, 64 MiB: at 10 Gbit/s what 50 ms bring. Empty: readers and senders wait.
pub(crate) const TRAVEL_MAX: usize = 4096;
/// Idle buffers kept, 16 MiB; more are given back to the system.
const IDLE_MAX: usize = 1024;
/// Below so many free places a sender takes one buffer at a time, so that peers who read slowly cannot
/// occupy the pool.
const RESERVE: usize = TRAVEL_MAX / 2;

/// All buffers of an engine. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct BlockPool {
    idle: Arc<Mutex<Vec<Box<[u8]>>>>,
    places: Arc<Semaphore>,
}

/// The bytes of one block. Dropping it gives the buffer back.
#[derive(Debug)]
pub(crate) struct BlockBuf {
    /// Empty only while being dropped.
    bytes: Box<[u8]>,
    len: usize,
    pool: BlockPool,
    place: Option<Place>,
}

/// What a buffer has while it travels.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    /// For whom it comes, if it does.
    intake: Option<Arc<Held>>,
}

/// The buffers of what comes for one torrent. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    pool: BlockPool,
    held: Arc<Held>,
}

#[derive(Debug, Default)]
struct Held {
    count: AtomicUsize,
    /// There are fewer, or somebody has looked: the next one may.
    changed: Notify,
}

impl BlockPool {
    /// No buffers yet.
    pub(crate) fn new() -> Self {
        Self { idle: Arc::default(), places: Arc::new(Semaphore::new(TRAVEL_MAX)) }
    }

    /// A buffer for `len` bytes (at most [`BLOCK_LEN`]), its content whatever was in it before; None: every
    /// place is taken.
    pub(crate) fn try_take(&self, len: u32) -> Option<BlockBuf> {
        self.places.clone().try_acquire_owned().ok().map(|permit| self.buffer(len, permit, None))
    }

    /// The same, waiting for a place.
    pub(crate) async fn take(&self, len: u32) -> BlockBuf {
        let permit = self.places.clone().acquire_owned().await;
        self.buffer(len, permit.expect("the semaphore is never closed"), None)
    }

    /// Whether a sender may take several buffers at once.
    pub(crate) fn is_ample(&self) -> bool {
        self.places.available_permits() >= RESERVE
    }

    fn buffer(&self, len: u32, permit: OwnedSemaphorePermit, intake: Option<Arc<Held>>) -> BlockBuf {
        let place = Some(Place { _permit: permit, intake });
        let bytes = self.idle().pop().unwrap_or_else(|| vec![0; BLOCK_LEN as usize].into_boxed_slice());
        BlockBuf { len: (len as usize).min(bytes.len()), bytes, pool: self.clone(), place }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Box<[u8]>>> {
        // A push or a pop leaves nothing half done, so a poisoned list is as good as any.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intake {
    /// Of a torrent for which nothing came yet.
    pub(crate) fn new(pool: &BlockPool) -> Self {
        Self { pool: pool.clone(), held: Arc::default() }
    }

    /// A buffer as [`BlockPool::try_take`] gives; None also if as many of this torrent travel as there are places left.
    pub(crate) fn try_take(&self, len: u32) -> Option<BlockBuf> {
        if !self.is_due() {
            return None;
        }
        let permit = self.pool.places.clone().try_acquire_owned().ok()?;
        Some(self.buffer(len, permit))
    }

    /// The same, waiting for a place.
    pub(crate) async fn take(&self, len: u32) -> BlockBuf {
        while !self.is_due() {
            self.held.changed.notified().await;
        }
        let _next = PassOn(&self.held.changed);
        let permit = self.pool.places.clone().acquire_owned().await;
        self.buffer(len, permit.expect("the semaphore is never closed"))
    }

    /// The first one is always due: it waits for a place as others do.
    fn is_due(&self) -> bool {
        let held = self.held.count.load(Ordering::Relaxed);
        held == 0 || held < self.pool.places.available_permits()
    }

    fn buffer(&self, len: u32, permit: OwnedSemaphorePermit) -> BlockBuf {
        self.held.count.fetch_add(1, Ordering::Relaxed);
        self.pool.buffer(len, permit, Some(self.held.clone()))
    }
}

/// Whoever's turn it was, whether it took a buffer or gave up: the next one may look.
struct PassOn<'a>(&'a Notify);

impl Drop for PassOn<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(held) = &self.intake {
            held.count.fetch_sub(1, Ordering::Relaxed);
            held.changed.notify_one();
        }
    }
}

impl BlockBuf {
    /// It is kept for a piece: it counts no longer as travelling.
    pub(crate) fn settle(&mut self) {
        self.place = None;
    }
}

impl AsRef<[u8]> for BlockBuf {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl AsMut<[u8]> for BlockBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for BlockBuf {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut idle = self.pool.idle();
        if idle.len() < IDLE_MAX {
            idle.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pool_says_so_and_kept_or_dropped_buffers_make_room() {
        let pool = BlockPool::new();
        let mut taken: Vec<_> = (0..TRAVEL_MAX).map(|_| pool.try_take(BLOCK_LEN).unwrap()).collect();
        assert!(pool.try_take(1).is_none() && !pool.is_ample());
        taken[0].settle();
        let short = pool.try_take(100).unwrap();
        assert_eq!(short.as_ref().len(), 100);
        drop(taken);
        assert!(pool.is_ample());
    }

    #[tokio::test]
    async fn what_comes_for_torrents_that_wait_leaves_room_for_one_more() {
        let pool = BlockPool::new();
        let intakes: Vec<_> = (0..3).map(|_| Intake::new(&pool)).collect();
        let fill = |intake: &Intake| std::iter::from_fn(|| intake.try_take(1)).collect::<Vec<_>>();
        let mut taken: Vec<_> = intakes.iter().map(fill).collect();
        let counts: Vec<_> = taken.iter().map(Vec::len).collect();
        assert_eq!(counts, [TRAVEL_MAX / 2, TRAVEL_MAX / 4, TRAVEL_MAX / 8]);
        assert!(Intake::new(&pool).try_take(1).is_some());
        // Two wait for the first one's blocks to move on.
        let waiting = async { tokio::join!(intakes[0].take(1), intakes[0].take(1)) };
        let moving = async {
            tokio::task::yield_now().await;
            taken[0].truncate(TRAVEL_MAX / 4);
            taken[0].iter_mut().take(9).for_each(BlockBuf::settle);
        };
        tokio::join!(waiting, moving);
    }
}
