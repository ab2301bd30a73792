//! What all tasks of an engine share.
//!
//! Only handles and constants: nothing here has state of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::engine::api::config::Config;
use crate::engine::clock::Clock;
use crate::engine::discovery::dht;
use crate::engine::discovery::http::HttpClient;
use crate::engine::discovery::lsd;
use crate::engine::discovery::turns::Turns;
use crate::engine::discovery::udp;
use crate::engine::disk::DiskQueue;
use crate::engine::network::ourselves::Ourselves;
use crate::engine::network::pool::BlockPool;
use crate::engine::session::input;
use crate::storage::fs::RealFs;
use crate::storage::handles::Handles;

/// Handles to everything that torrents share.
pub(crate) struct Context {
    /// Time.
    pub(crate) clock: Clock,
    /// Buffers for blocks.
    pub(crate) pool: BlockPool,
    /// Disk threads.
    pub(crate) disk: DiskQueue,
    /// Files kept open, of all torrents.
    pub(crate) handles: Arc<Handles>,
    /// Where journals are; None: none are kept.
    pub(crate) journals: Option<Arc<RealFs>>,
    /// Our own addresses.
    pub(crate) ourselves: Ourselves,
    /// Announces by UDP.
    pub(crate) udp: mpsc::Sender<udp::Request>,
    /// The DHT node; None: we take no part.
    pub(crate) dht: Option<mpsc::Sender<dht::Request>>,
    /// Torrents for the local network to know; None: we do not look there.
    pub(crate) lsd: Option<mpsc::Sender<lsd::Request>>,
    /// Announces by HTTP.
    pub(crate) http: HttpClient,
    /// Whose turn it is to announce.
    pub(crate) announces: Turns,
    /// Leases and demands.
    pub(crate) supervisor: mpsc::Sender<input::Input>,
    /// Where we listen, TCP and UDP.
    pub(crate) port: u16,
    /// The user's settings.
    pub(crate) config: Config,
}

impl Context {
    /// Tells the DHT node of another one. A queue that is full has better ones.
    pub(crate) fn hint(&self, addr: SocketAddr) {
        if let Some(dht) = &self.dht {
            let _ = dht.try_send(dht::Request::Hint(addr));
        }
    }
}
