//! How the session's shares reach their torrents: only the latest counts, and neither side waits
//! for the other.

use std::sync::Arc;

use crate::engine::watched::Watched;
use crate::proto::session::Lease;

/// Returns both ends of a torrent's share.
pub(crate) fn channel() -> (Lessor, Lessee) {
    let share = Arc::new(Watched::new(Share::default()));
    (Lessor(Arc::clone(&share)), Lessee(share))
}

/// The session's end.
#[derive(Debug)]
pub(crate) struct Lessor(Arc<Watched<Share>>);

/// The torrent's end.
#[derive(Debug)]
pub(crate) struct Lessee(Arc<Watched<Share>>);

#[derive(Debug, Default)]
struct Share {
    latest: Option<Lease>,
    /// Not received yet.
    is_new: bool,
}

impl Lessor {
    /// Replaces the share.
    pub(crate) fn lease(&self, lease: Lease) {
        self.0.change(|share| *share = Share { latest: Some(lease), is_new: true });
    }
}

impl Lessee {
    /// Waits for the next share; may be dropped and called again.
    pub(crate) fn next(&mut self) -> impl Future<Output = Lease> {
        self.0.until(|share| share.latest.filter(|_| std::mem::take(&mut share.is_new)))
    }

    /// Returns the current share, for a machine that did not receive it; None: there is none yet.
    pub(crate) fn latest(&self) -> Option<Lease> {
        self.0.lock().latest
    }
}
