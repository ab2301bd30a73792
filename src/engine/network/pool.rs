//! Buffers for blocks: 16 KiB each, used again, bounded while they travel.
//!
//! A buffer counts against the pool while it is between a socket and its torrent, or between the
//! disk and a socket: then an empty pool makes readers wait, and a socket that is not read is
//! back-pressure. Once a torrent keeps a block for a piece the buffer is [`BlockBuf::settle`]d and
//! counts no longer: it belongs to a piece under way, of which the picker allows few, so that
//! waiting for the pool never waits for a piece that waits for the pool. The one lock on the way of
//! bytes guards the list of idle buffers, for a push or a pop.
//!
//! What comes for one torrent may be as much as is left for all others, not more ([`Intake`]):
//! however many of them wait for disks that stand still, there is room for one more. Of that, one
//! connection may have [`CONNECTION_MAX`] at most, so that one peer cannot fill what a torrent may
//! have. Messages with a payload take places as well, without buffers: the input that is received
//! and not yet handled is bounded in bytes, whatever it consists of.
//!
//! Buffers are zeroed when first made and never again: a reader fills them before their length is
//! set.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::proto::block::BLOCK_LEN;

/// Buffers travelling at once, 64 MiB: at 10 Gbit/s what 50 ms bring. Empty: readers and senders
/// wait.
pub(crate) const TRAVEL_MAX: usize = 4096;
/// Places of what comes on one connection and is not handled yet, 1 MiB: twice what it tells its
/// torrent at once. All taken: its socket is not read.
pub(crate) const CONNECTION_MAX: usize = 64;
/// Memory of messages longer than [`LONG_LEN`] that are being received, KiB, of all connections.
/// None left: the next ones wait, and their sockets are not read.
const LONG_KIB_MAX: usize = 16 << 10;
/// Messages longer than this are paid for before they are buffered: bitfields of half a million
/// pieces.
pub(crate) const LONG_LEN: usize = 64 << 10;
/// Idle buffers kept, 16 MiB; more are given back to the system.
const IDLE_MAX: usize = 1024;
/// Below so many free places a sender takes one buffer at a time, so that peers who read slowly
/// cannot occupy the pool.
const RESERVE: usize = TRAVEL_MAX / 2;

/// All buffers of an engine. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct BlockPool {
    idle: Arc<Mutex<Vec<Box<[u8]>>>>,
    places: Arc<Semaphore>,
    /// KiB of long messages.
    long: Arc<Semaphore>,
}

/// The bytes of one block. Dropping it gives the buffer back.
#[derive(Debug)]
pub(crate) struct BlockBuf {
    /// Empty only while being dropped.
    bytes: Box<[u8]>,
    len: usize,
    pool: BlockPool,
    /// While it travels.
    place: Option<Place>,
}

/// The right to hold some input that is not handled yet; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    permit: OwnedSemaphorePermit,
    /// On which connection it came, if places are counted there.
    connection: Option<Arc<ConnectionHeld>>,
}

/// The places of what comes for one torrent. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    pool: BlockPool,
    held: Arc<Held>,
}

/// The places of what comes on one connection, which are the torrent's too.
#[derive(Debug)]
pub(crate) struct ConnectionIntake {
    pool: BlockPool,
    held: Arc<ConnectionHeld>,
}

#[derive(Debug, Default)]
struct Held {
    count: AtomicUsize,
    /// There are fewer, or somebody has looked: the next one may.
    changed: Notify,
}

#[derive(Debug)]
struct ConnectionHeld {
    connection: Held,
    torrent: Arc<Held>,
}

impl BlockPool {
    /// No buffers yet.
    pub(crate) fn new() -> Self {
        let semaphore = |count| Arc::new(Semaphore::new(count));
        Self { idle: Arc::default(), places: semaphore(TRAVEL_MAX), long: semaphore(LONG_KIB_MAX) }
    }

    /// A buffer for `len` bytes (at most [`BLOCK_LEN`]), its content whatever was in it before;
    /// None: every place is taken.
    pub(crate) fn try_take(&self, len: u32) -> Option<BlockBuf> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        Some(self.buffer(len, Place { permit, connection: None }))
    }

    /// The same, waiting for a place.
    pub(crate) async fn take(&self, len: u32) -> BlockBuf {
        let permit = self.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        self.buffer(len, Place { permit, connection: None })
    }

    /// Waits for memory for a message longer than [`LONG_LEN`].
    pub(crate) async fn reserve_long(&self, len: usize) -> Place {
        let kib = len.div_ceil(1024).min(LONG_KIB_MAX) as u32;
        let permit = self.long.clone().acquire_many_owned(kib).await;
        Place { permit: permit.expect("the semaphore is never closed"), connection: None }
    }

    /// Whether a sender may take several buffers at once.
    pub(crate) fn is_ample(&self) -> bool {
        self.places.available_permits() >= RESERVE
    }

    fn buffer(&self, len: u32, place: Place) -> BlockBuf {
        let bytes = self.idle().pop().unwrap_or_else(|| vec![0; BLOCK_LEN as usize].into_boxed_slice());
        BlockBuf { len: (len as usize).min(bytes.len()), bytes, pool: self.clone(), place: Some(place) }
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

    /// Of a new connection of the torrent.
    pub(crate) fn connection(&self) -> ConnectionIntake {
        let held = ConnectionHeld { connection: Held::default(), torrent: self.held.clone() };
        ConnectionIntake { pool: self.pool.clone(), held: Arc::new(held) }
    }
}

impl ConnectionIntake {
    /// A buffer as [`BlockPool::try_take`] gives; None also if as many of this torrent travel as
    /// there are places left, or too many of this connection.
    pub(crate) fn try_take(&self, len: u32) -> Option<BlockBuf> {
        Some(self.pool.buffer(len, self.try_place(1)?))
    }

    /// The same, waiting for a place.
    pub(crate) async fn take(&self, len: u32) -> BlockBuf {
        self.pool.buffer(len, self.place(1).await)
    }

    /// Places for a message of so many bytes, on the same terms as for a block.
    pub(crate) fn try_reserve(&self, len: usize) -> Option<Place> {
        self.try_place(place_count(len))
    }

    /// The same, waiting for places.
    pub(crate) async fn reserve(&self, len: usize) -> Place {
        self.place(place_count(len)).await
    }

    fn try_place(&self, count: u32) -> Option<Place> {
        if !self.is_due() || !self.is_torrent_due() {
            return None;
        }
        let permit = self.pool.places.clone().try_acquire_many_owned(count).ok()?;
        Some(self.hold(permit))
    }

    async fn place(&self, count: u32) -> Place {
        let ConnectionHeld { connection, torrent } = &*self.held;
        while !self.is_due() {
            connection.changed.notified().await;
        }
        while !self.is_torrent_due() {
            torrent.changed.notified().await;
        }
        let _next = PassOn(&torrent.changed);
        let permit = self.pool.places.clone().acquire_many_owned(count).await;
        self.hold(permit.expect("the semaphore is never closed"))
    }

    /// Nothing but this connection takes its places, so what is due stays due.
    fn is_due(&self) -> bool {
        self.held.connection.count.load(Ordering::Relaxed) < CONNECTION_MAX
    }

    /// The first one is always due: it waits for a place as others do.
    fn is_torrent_due(&self) -> bool {
        let held = self.held.torrent.count.load(Ordering::Relaxed);
        held == 0 || held < self.pool.places.available_permits()
    }

    fn hold(&self, permit: OwnedSemaphorePermit) -> Place {
        let count = permit.num_permits();
        self.held.connection.count.fetch_add(count, Ordering::Relaxed);
        self.held.torrent.count.fetch_add(count, Ordering::Relaxed);
        Place { permit, connection: Some(self.held.clone()) }
    }
}

/// Places that so many bytes take: as many as blocks of the same length, at most half of what a
/// connection may have.
fn place_count(len: usize) -> u32 {
    len.div_ceil(BLOCK_LEN as usize).clamp(1, CONNECTION_MAX / 2) as u32
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
        if let Some(held) = &self.connection {
            let count = self.permit.num_permits();
            let was_full = held.connection.count.fetch_sub(count, Ordering::Relaxed) >= CONNECTION_MAX;
            if was_full {
                held.connection.changed.notify_one();
            }
            held.torrent.count.fetch_sub(count, Ordering::Relaxed);
            held.torrent.changed.notify_one();
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

    /// All that a connection may hold of blocks.
    fn fill(intake: &Intake) -> Vec<BlockBuf> {
        let connection = intake.connection();
        std::iter::from_fn(|| connection.try_take(1)).collect()
    }

    #[tokio::test]
    async fn what_comes_for_torrents_that_wait_leaves_room_for_one_more() {
        let pool = BlockPool::new();
        let intakes: Vec<_> = (0..3).map(|_| Intake::new(&pool)).collect();
        let fill_all = |intake: &Intake| {
            let filled = std::iter::repeat_with(|| fill(intake)).take_while(|taken| !taken.is_empty());
            filled.flatten().collect::<Vec<_>>()
        };
        let mut taken: Vec<_> = intakes.iter().map(fill_all).collect();
        let counts: Vec<_> = taken.iter().map(Vec::len).collect();
        assert_eq!(counts, [TRAVEL_MAX / 2, TRAVEL_MAX / 4, TRAVEL_MAX / 8]);
        assert!(Intake::new(&pool).connection().try_take(1).is_some());
        // Two wait for the first one's blocks to move on.
        let (one, other) = (intakes[0].connection(), intakes[0].connection());
        let waiting = async { tokio::join!(one.take(1), other.reserve(1)) };
        let moving = async {
            tokio::task::yield_now().await;
            taken[0].truncate(TRAVEL_MAX / 4);
            taken[0].iter_mut().take(9).for_each(BlockBuf::settle);
        };
        tokio::join!(waiting, moving);
    }

    #[tokio::test]
    async fn a_connection_has_few_places_and_the_next_one_as_many() {
        let pool = BlockPool::new();
        let intake = Intake::new(&pool);
        let first = intake.connection();
        let mut taken: Vec<_> = std::iter::from_fn(|| first.try_take(1)).collect();
        assert_eq!((taken.len(), fill(&intake).len()), (CONNECTION_MAX, CONNECTION_MAX));
        assert!(first.try_reserve(1).is_none());
        let moving = async {
            tokio::task::yield_now().await;
            taken.pop();
        };
        let (place, ()) = tokio::join!(first.reserve(17_000), moving);
        assert!(first.try_take(1).is_none(), "the message took two");
        drop((place, taken));
        let whole: Vec<_> = std::iter::from_fn(|| first.try_reserve(600_000)).collect();
        assert_eq!(whole.len(), 2);
    }

    #[tokio::test]
    async fn long_messages_wait_for_each_other() {
        let pool = BlockPool::new();
        let mut held = Vec::new();
        for _ in 0..LONG_KIB_MAX / 512 {
            held.push(pool.reserve_long(512 << 10).await);
        }
        let waits = pool.reserve_long(LONG_LEN + 1);
        tokio::pin!(waits);
        assert!(futures_are_pending(&mut waits));
        held.pop();
        waits.await;
    }

    fn futures_are_pending(future: &mut std::pin::Pin<&mut impl Future<Output = Place>>) -> bool {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut cx).is_pending()
    }
}
