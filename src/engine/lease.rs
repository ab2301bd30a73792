//! How the session's shares reach their torrents: only the latest counts, and nobody waits for the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::proto::session::Lease;

/// Both ends of a torrent's share.
pub(crate) fn channel() -> (Lessor, Lessee) {
    let place = Arc::new(Place { share: Mutex::default(), changed: Notify::new() });
    (Lessor(Arc::clone(&place)), Lessee(place))
}

/// The session's end.
#[derive(Debug)]
pub(crate) struct Lessor(Arc<Place>);

/// The torrent's end.
#[derive(Debug)]
pub(crate) struct Lessee(Arc<Place>);

#[derive(Debug)]
struct Place {
    /// The lock is held for a copy.
    share: Mutex<Share>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Share {
    latest: Option<Lease>,
    /// Not told yet.
    is_news: bool,
}

impl Place {
    fn share(&self) -> MutexGuard<'_, Share> {
        // A copy is whole or was not made.
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lessor {
    /// The share is this from now on.
    pub(crate) fn lease(&self, lease: Lease) {
        *self.0.share() = Share { latest: Some(lease), is_news: true };
        self.0.changed.notify_one();
    }
}

impl Lessee {
    /// The next share; may be dropped and called again.
    pub(crate) async fn next(&mut self) -> Lease {
        loop {
            if let Some(lease) = self.0.share().news() {
                return lease;
            }
            self.0.changed.notified().await;
        }
    }

    /// The share that there is, for a machine that was not told; None: there is none yet.
    pub(crate) fn latest(&self) -> Option<Lease> {
        self.0.share().latest
    }
}

impl Share {
    fn news(&mut self) -> Option<Lease> {
        self.latest.filter(|_| std::mem::take(&mut self.is_news))
    }
}
