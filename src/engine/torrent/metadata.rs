//! Memory for metadata that is being fetched, of all torrents of an engine together.
//!
//! Sizes are what peers claim. Small and large metadata have budgets of their own, so that a lie
//! about large metadata does not make ordinary metadata wait.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::jobs::Ended;
use crate::engine::task::Tasks;
use crate::proto::metainfo::Info;

/// Longest metadata that counts as small, bytes: at 20 bytes a piece, one of 50,000 pieces.
const SMALL_LEN_MAX: u32 = 1 << 20;
/// Memory of small metadata, KiB; further ones wait for those under way.
const SMALL_KIB_MAX: u32 = 16 << 10;
/// Memory of large metadata, KiB, so that there is room for one of the greatest length; further
/// ones wait.
const LARGE_KIB_MAX: u32 = 48 << 10;

/// The budgets. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct MetadataMemory {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// Room for one assembly of metadata; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Room {
    /// Bytes asked for.
    pub(super) len: u32,
    _permit: OwnedSemaphorePermit,
}

/// What a torrent has while its metadata is fetched.
pub(super) struct Fetching {
    memory: MetadataMemory,
    /// Room that is waited for.
    reserving: Tasks<Ended>,
    /// Room that is ours, at most until the metadata is received.
    reserved: Vec<Room>,
    /// The metadata.
    pub(super) received: Option<Box<Info>>,
}

impl Fetching {
    /// Nothing is reserved.
    pub(super) fn new(memory: MetadataMemory) -> Self {
        Self { memory, reserving: Tasks::new(), reserved: Vec::new(), received: None }
    }

    /// Waits for room; [`Fetching::next`] tells when there is.
    pub(super) fn reserve(&mut self, len: u32) {
        let memory = self.memory.clone();
        self.reserving.spawn("reserve", async move { Ended::Reserved(memory.reserve(len).await) });
    }

    /// Keeps room until it is released.
    pub(super) fn keep(&mut self, room: Room) {
        self.reserved.push(room);
    }

    /// Gives room back.
    pub(super) fn release(&mut self, len: u32) {
        if let Some(at) = self.reserved.iter().position(|room| room.len == len) {
            self.reserved.swap_remove(at);
        }
    }

    /// Returns room when it is granted; may be dropped and called again.
    pub(super) fn next(&mut self) -> impl Future<Output = Ended> {
        self.reserving.next()
    }
}

impl MetadataMemory {
    /// All of it free.
    pub(crate) fn new() -> Self {
        let semaphore = |kib: u32| Arc::new(Semaphore::new(kib as usize));
        Self { small: semaphore(SMALL_KIB_MAX), large: semaphore(LARGE_KIB_MAX) }
    }

    /// Waits for room, in the order of asking.
    pub(super) async fn reserve(&self, len: u32) -> Room {
        let (semaphore, kib_max) =
            if len <= SMALL_LEN_MAX { (&self.small, SMALL_KIB_MAX) } else { (&self.large, LARGE_KIB_MAX) };
        let permit = semaphore.clone().acquire_many_owned(len.div_ceil(1024).min(kib_max)).await;
        Room { len, _permit: permit.expect("the semaphore is never closed") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn is_granted(room: impl Future<Output = Room>) -> Option<Room> {
        match pin!(room).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(room) => Some(room),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_claims_much_waits_and_keeps_nobody_who_claims_little() {
        let memory = MetadataMemory::new();
        let first = is_granted(memory.reserve(32 << 20)).unwrap();
        assert!(is_granted(memory.reserve(32 << 20)).is_none(), "the budget is used up");
        let small: Vec<_> = (0..16).map(|_| is_granted(memory.reserve(1 << 20)).unwrap()).collect();
        assert!(is_granted(memory.reserve(1)).is_none());
        drop((first, small));
        assert!(is_granted(memory.reserve(32 << 20)).is_some() && is_granted(memory.reserve(1)).is_some());
    }
}
