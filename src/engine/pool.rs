//! Buffers for blocks: 16 KiB each, used again, bounded while they travel.
//!
//! A buffer counts against the pool while it is between a socket and its torrent, or between the disk and a
//! socket: then an empty pool makes readers wait, and a socket that is not read is back-pressure. Once a
//! torrent keeps a block for a piece the buffer is [`BlockBuf::settle`]d and counts no longer: it belongs to
//! a piece under way, of which the picker allows few, so that waiting for the pool never waits for a piece
//! that waits for the pool. The one lock on the way of bytes guards the list of idle buffers, for a push or a pop.
//!
//! Buffers are zeroed when first made and never again: a reader fills them before their length is set.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    place: Option<OwnedSemaphorePermit>,
}

impl BlockPool {
    /// No buffers yet.
    pub(crate) fn new() -> Self {
        Self { idle: Arc::default(), places: Arc::new(Semaphore::new(TRAVEL_MAX)) }
    }

    /// A buffer for `len` bytes (at most [`BLOCK_LEN`]), its content whatever was in it before; None: every
    /// place is taken.
    pub(crate) fn try_take(&self, len: u32) -> Option<BlockBuf> {
        self.places.clone().try_acquire_owned().ok().map(|place| self.buffer(len, place))
    }

    /// The same, waiting for a place.
    pub(crate) async fn take(&self, len: u32) -> BlockBuf {
        let place = self.places.clone().acquire_owned().await;
        self.buffer(len, place.expect("the semaphore is never closed"))
    }

    /// Whether a sender may take several buffers at once.
    pub(crate) fn is_ample(&self) -> bool {
        self.places.available_permits() >= RESERVE
    }

    fn buffer(&self, len: u32, place: OwnedSemaphorePermit) -> BlockBuf {
        let bytes = self.idle().pop().unwrap_or_else(|| vec![0; BLOCK_LEN as usize].into_boxed_slice());
        BlockBuf { len: (len as usize).min(bytes.len()), bytes, pool: self.clone(), place: Some(place) }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Box<[u8]>>> {
        // A push or a pop leaves nothing half done, so a poisoned list is as good as any.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
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
}
