//! The torrents that can be reached, as the listener and the local network know them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::engine::mailbox::Mail;
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;

/// The torrents that accept connections, by infohash; replaced whole when one comes or goes.
pub(crate) type Registry = watch::Receiver<Arc<BTreeMap<InfoHash, Entry>>>;

/// How to reach a torrent.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Our name in its swarm.
    pub(crate) peer_id: PeerId,
    /// Whether its peers may know that we are a node of the DHT: not those of a private torrent.
    pub(crate) dht: bool,
    /// Where accepted connections go.
    pub(crate) control: Mail,
}
