//! How the session's shares reach their torrents: only the latest counts, and nobody waits for the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::proto::session::Lease;

/// Both ends of a torrent's share.
pub(crate) fn channel() -> (Lessor, Lessee) {
    let place = Arc::new(Place { lease: Mutex::new(None), changed: Notify::new() });
    (Lessor(Arc::clone(&place)), Lessee { place, latest: None })
}

/// The session's end.
#[derive(Debug)]
pub(crate) struct Lessor(Arc<Place>);

/// The torrent's end.
#[derive(Debug)]
pub(crate) struct Lessee {
    place: Arc<Place>,
    latest: Option<Lease>,
}

#[derive(Debug)]
struct Place {
    /// Not taken yet. The lock is held for a copy.
    lease: Mutex<Option<Lease>>,
    changed: Notify,
}

impl Place {
    fn lease(&self) -> MutexGuard<'_, Option<Lease>> {
        // A copy is whole or was not made.
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lessor {
    /// The share is this from now on.
    pub(crate) fn lease(&self, lease: Lease) {
        *self.0.lease() = Some(lease);
        self.0.changed.notify_one();
    }
}

impl Lessee {
    /// The next share; may be dropped and called again.
    pub(crate) async fn next(&mut self) -> Lease {
        loop {
            let lease = self.place.lease().take();
            if let Some(lease) = lease {
                self.latest = Some(lease);
                return lease;
            }
            self.place.changed.notified().await;
        }
    }

    /// The share that there is, for a machine that was not told; None: there is none yet.
    pub(crate) fn latest(&self) -> Option<Lease> {
        self.latest
    }
}
