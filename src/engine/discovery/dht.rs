//! The DHT node as the engine's user and its tasks see it: requests to it, findings back, figures.
//!
//! Knows the node by its channel alone; `dht_host` is at the other end of it.

use std::net::SocketAddr;

use tokio::sync::{mpsc, oneshot};

use crate::engine::EngineError;
pub use crate::proto::dht::event::{
    Announce, Found, Outcome, OverlaySnapshot, ReadOnly, Request as DhtRequest, Snapshot,
};
pub use crate::proto::dht::item::{Item, ItemKey, SecretKey};
pub use crate::proto::dht::node_id::{Node, NodeId};

/// A new key for mutable items.
///
/// # Errors
/// The system gives no randomness.
pub fn generate_key() -> std::io::Result<SecretKey> {
    Ok(SecretKey::generate(&mut crate::engine::seed()?))
}

/// What tasks tell the DHT node.
#[derive(Debug)]
pub(crate) enum Request {
    /// Start this; findings go to the channel, whose closing cancels. A full channel loses
    /// findings, never the end.
    Start(DhtRequest, mpsc::Sender<Found>),
    /// There may be a node there.
    Hint(SocketAddr),
    /// Figures.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Write the good nodes to the state file; the sender is dropped when that is done.
    Save(oneshot::Sender<()>),
}

/// The DHT node of a running engine.
#[derive(Clone, Debug)]
pub struct DhtHandle {
    requests: mpsc::Sender<Request>,
}

/// A request under way; dropping it cancels.
#[derive(Debug)]
pub struct Search {
    found: mpsc::Receiver<Found>,
}

impl Search {
    /// The next finding; None after [`Found::Done`], or if the engine is gone.
    pub async fn next(&mut self) -> Option<Found> {
        self.found.recv().await
    }
}

impl DhtHandle {
    /// For the node that reads these requests.
    pub(crate) fn new(requests: mpsc::Sender<Request>) -> Self {
        Self { requests }
    }

    /// Starts a request.
    ///
    /// # Errors
    /// The engine is gone.
    pub async fn start(&self, request: DhtRequest) -> Result<Search, EngineError> {
        let (sender, found) = mpsc::channel(crate::engine::channels::FOUND);
        let start = Request::Start(request, sender);
        self.requests.send(start).await.map_err(|_| EngineError::Stopped)?;
        Ok(Search { found })
    }

    /// Tells of a node.
    ///
    /// # Errors
    /// The engine is gone.
    pub async fn hint(&self, addr: SocketAddr) -> Result<(), EngineError> {
        self.requests.send(Request::Hint(addr)).await.map_err(|_| EngineError::Stopped)
    }

    /// Figures.
    ///
    /// # Errors
    /// The engine is gone.
    pub async fn snapshot(&self) -> Result<Snapshot, EngineError> {
        let (sender, snapshot) = oneshot::channel();
        self.requests.send(Request::Snapshot(sender)).await.map_err(|_| EngineError::Stopped)?;
        snapshot.await.map_err(|_| EngineError::Stopped)
    }

    /// Waits until the good nodes are in the state file, or cannot be.
    pub(crate) async fn save(&self) {
        let (sender, done) = oneshot::channel();
        if self.requests.send(Request::Save(sender)).await.is_ok() {
            // The node drops its end when it is done.
            let _ = done.await;
        }
    }
}
