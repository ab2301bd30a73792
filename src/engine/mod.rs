//! The engine: sockets, timers, tasks. It moves bytes and messages and decides nothing; what is decided,
//! `proto` decides. The public API is what the command line uses and what others may embed.

pub mod address;
pub mod config;
pub mod error;
pub mod fetch;
pub mod handle;
pub mod verify;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use crate::proto::bitfield::Bitfield;
pub use crate::proto::infohash::InfoHash;
pub use crate::proto::metainfo::files::{Attributes, File};
pub use crate::proto::metainfo::magnet::{Magnet, MagnetError};
pub use crate::proto::metainfo::{self, Info, Metainfo, MetainfoError};
pub use crate::proto::torrent::event::{Direction, PeerSnapshot, StorageFault};
pub use crate::storage::{content::StorageError, make};
pub use config::{Config, Limits};
pub use error::EngineError;
pub use handle::{Event, Snapshot, Stage, TorrentHandle, TrackerStatus};

/// A torrent to add.
#[derive(Clone, Debug)]
pub struct AddTorrent {
    /// Its description.
    pub metainfo: Metainfo,
    /// The folder that holds, or shall hold, its file or folder.
    pub dir: PathBuf,
    /// Which files of `metainfo.info.files` to fetch; None: all.
    pub selected: Option<Vec<bool>>,
    /// Peers to dial at once.
    pub peers: Vec<SocketAddr>,
    /// Trackers beside the torrent's own, one tier each.
    pub trackers: Vec<String>,
    /// Pieces in order instead of rarest first.
    pub sequential: bool,
    /// Take the content for complete without reading it.
    pub assume_complete: bool,
    /// Leave when everything wanted is there and this ratio of sent to size is reached...
    pub ratio_max: Option<f64>,
    /// ...or after seeding for so long, whichever is first; both None: seed until told to stop.
    pub seed_time_max: Option<std::time::Duration>,
}

/// A running engine. Dropping it stops everything at once; [`Engine::shutdown`] says good-bye first.
#[derive(Debug)]
pub struct Engine {
    _skeleton: (),
}

impl Engine {
    /// Listens, starts the disk threads and the shared UDP socket.
    ///
    /// # Errors
    /// The port is taken, or another failure of the system; the error says what to do.
    pub async fn start(config: Config) -> Result<Self, EngineError> {
        let _ = config;
        todo!()
    }

    /// Adds a torrent; checking of existing data begins in the background.
    ///
    /// # Errors
    /// It is there already, or its folder cannot be used.
    pub async fn add(&self, torrent: AddTorrent) -> Result<TorrentHandle, EngineError> {
        let _ = torrent;
        todo!()
    }

    /// Where peers reach us: the port is the same for TCP and UDP, IPv4 and IPv6.
    pub fn listen_port(&self) -> u16 {
        todo!()
    }

    /// With `Config::embedded_tracker`: the announce URL for peers that reach us at `host`.
    pub fn tracker_url(&self, host: std::net::IpAddr) -> Option<String> {
        let _ = host;
        todo!()
    }

    /// Announces `stopped`, flushes and closes everything; at most 5 s.
    pub async fn shutdown(self) {
        todo!()
    }
}
