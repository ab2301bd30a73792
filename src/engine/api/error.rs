//! What the engine tells its user when something cannot be done.

use std::io;
use std::net::SocketAddr;

use crate::storage::content::StorageError;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another program listens there.
    #[error("{0} is in use by another program")]
    PortTaken(SocketAddr),
    /// Listening failed otherwise.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The torrent is there already.
    #[error("this torrent is already running")]
    Duplicate,
    /// A magnet that has no infohash of the first version.
    #[error("the magnet link names only a v2 torrent, which is not spoken here yet")]
    NoInfohash,
    /// None of the files that the user selects is there, in words.
    #[error("{0}")]
    Selection(String),
    /// The folder or a file cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The system refused something else.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The engine or the torrent has stopped.
    #[error("stopped")]
    Stopped,
}
