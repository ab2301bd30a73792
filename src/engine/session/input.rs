//! What the supervisor is told.

use tokio::sync::oneshot;
use tokio::time::Duration;

use crate::engine::api::add::AddTorrent;
use crate::engine::api::error::EngineError;
use crate::engine::api::handle::TorrentHandle;
use crate::proto::infohash::InfoHash;
use crate::proto::session::Demand;

/// Where it is told what came of added torrents.
pub(crate) type Reply = oneshot::Sender<Vec<Result<TorrentHandle, EngineError>>>;

/// What the engine and the torrents tell the supervisor.
pub(crate) enum Input {
    /// Add torrents; answered for each in order.
    Add(Vec<AddTorrent>, Reply),
    /// What a torrent could use.
    Demand(InfoHash, Demand),
    /// A torrent turned out to be private: who dials us there is not told of the DHT.
    Private(InfoHash),
    /// End all torrents within this time; the sender is dropped when that is done.
    Shutdown(Duration, oneshot::Sender<()>),
}
