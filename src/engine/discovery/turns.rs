//! Whose turn it is to ask a tracker: of thousands of torrents in one process only some do at once.
//!
//! Those that are complete wait among themselves, in order of asking: they want to be listed, and
//! nobody waits for them. So a torrent that lacks pieces never waits behind a thousand that lack
//! nothing.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Torrents of each kind with an announce to a tracker under way: each by HTTP is a connection.
/// More wait.
const ANNOUNCE_MAX: usize = 48;

/// A turn; dropping it gives it to the next one.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// The turns of all torrents.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    complete: Arc<Semaphore>,
    lacking: Arc<Semaphore>,
}

impl Turns {
    /// All free.
    pub(crate) fn new() -> Self {
        let turns = || Arc::new(Semaphore::new(ANNOUNCE_MAX));
        Self { complete: turns(), lacking: turns() }
    }

    fn of(&self, is_complete: bool) -> Arc<Semaphore> {
        Arc::clone(if is_complete { &self.complete } else { &self.lacking })
    }

    /// A turn, if one is free and nobody waits.
    pub(crate) fn take(&self, is_complete: bool) -> Option<Turn> {
        self.of(is_complete).try_acquire_owned().ok().map(|permit| Turn { _permit: permit })
    }

    /// Waits for a turn.
    pub(crate) async fn wait(&self, is_complete: bool) -> Turn {
        let permit = self.of(is_complete).acquire_owned().await;
        Turn { _permit: permit.expect("the semaphore is never closed") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_lacks_something_does_not_wait_for_those_who_do_not() {
        let turns = Turns::new();
        let mut taken: Vec<_> = std::iter::from_fn(|| turns.take(true)).collect();
        assert_eq!(taken.len(), ANNOUNCE_MAX);
        assert!(turns.take(false).is_some());
        let waiting = turns.wait(true);
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("all turns are taken"),
            () = std::future::ready(()) => {}
        }
        taken.pop();
        assert!(turns.take(true).is_none(), "it is the turn of the one that waits");
        waiting.await;
    }
}
