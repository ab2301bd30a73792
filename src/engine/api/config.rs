//! What a user of the engine can set.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use crate::proto::dht::event::ReadOnly;
pub use crate::proto::session::Limits;

/// Settings of an engine; `Config::default()` is what most want.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port for peers, TCP and UDP; 0: any.
    pub port: u16,
    /// Addresses to listen on; empty: all of IPv4 and IPv6.
    pub listen: Vec<IpAddr>,
    /// Budgets.
    pub limits: Limits,
    /// How often neighbours are told what we gained.
    pub swarming_interval: Duration,
    /// Answer as a UDP tracker on the peer port.
    pub embedded_tracker: bool,
    /// Threads for hashing and disk work; None: as many as cores.
    pub disk_threads: Option<usize>,
    /// Folder for the journals of what is durable of each torrent, made if missing; None: none are
    /// kept, and each start hashes what is there.
    pub resume_dir: Option<PathBuf>,
    /// Folder for the metadata of torrents that were added by magnet link, made if missing; None:
    /// each start fetches it again.
    pub metadata_dir: Option<PathBuf>,
    /// Take part in the DHT; None: do not.
    pub dht: Option<DhtConfig>,
    /// Exchange addresses with peers (BEP 11).
    pub pex: bool,
    /// Look for peers on the local network (BEP 14).
    pub lsd: bool,
}

/// Settings of the DHT node.
#[derive(Clone, Debug)]
pub struct DhtConfig {
    /// Nodes to ask first if none is known: host and port; looked up when needed.
    pub bootstrap: Vec<String>,
    /// Where good nodes are kept from one start to the next; None: nowhere.
    pub state_file: Option<PathBuf>,
    /// Whether others may keep us in their tables (BEP 43).
    pub read_only: ReadOnly,
}

/// The well-known public routers.
pub const BOOTSTRAP: [&str; 4] = [
    "dht.libtorrent.org:25401",
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "router.utorrent.com:6881",
];

impl Default for DhtConfig {
    fn default() -> Self {
        let bootstrap = BOOTSTRAP.iter().map(|&name| name.to_owned()).collect();
        Self { bootstrap, state_file: None, read_only: ReadOnly::Auto }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: 0,
            listen: Vec::new(),
            limits: Limits::default(),
            swarming_interval: Duration::from_secs(1),
            embedded_tracker: false,
            disk_threads: None,
            resume_dir: None,
            metadata_dir: None,
            dht: None,
            pex: true,
            lsd: false,
        }
    }
}
