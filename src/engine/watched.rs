//! A shared value that one side changes while the other waits for it to become of interest.
//!
//! The state of the three channels of a torrent that live as long as it does (`mailbox`, `view`,
//! `lease`). One allocation that grows with what is in it, because most of a hundred thousand
//! torrents never use them: a lease takes 112 bytes, and 392 in tokio's `watch`, which spreads its
//! waiters over eight lists; the queue of `mailbox` takes 136, and 344 as a channel of flume with a
//! waiting receiver. The lock is held to copy one thing in or out, never across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The value and those that wait for it.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Watched<T> {
    /// A value that nothing waits for yet.
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    /// Locks the value, to read it or to change what nothing waits for.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        // Every change leaves the value whole, so a task that panicked with the lock did no harm.
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the value and wakes all that wait.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_waiters();
        result
    }

    /// Waits until `look` finds something. May be dropped and called again.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice in every torrent's future"
    )]
    pub(crate) fn until<R>(&self, mut look: impl FnMut(&mut T) -> Option<R>) -> impl Future<Output = R> {
        async move {
            loop {
                // Made before the look, so that a change in between wakes it.
                let changed = self.changed.notified();
                if let Some(found) = look(&mut self.lock()) {
                    return found;
                }
                changed.await;
            }
        }
    }
}
