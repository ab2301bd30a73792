//! The engine: sockets, timers, tasks. It moves bytes and messages and decides nothing; what is
//! decided, `proto` decides. The public API is what the command line uses and what others may
//! embed.
//!
//! One task a torrent, one a connection, one for the UDP sockets (trackers and the DHT), one for
//! the local network, one a listening socket, and the supervisor that owns the torrents. Bytes of
//! content travel by ownership in buffers of a bounded pool.
//!
//! ```no_run
//! use std::path::PathBuf;
//!
//! use sprat::engine::{AddTorrent, Config, Engine, EngineError, Metainfo};
//!
//! async fn download(torrent_file: &[u8], dir: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
//!     let engine = Engine::start(Config::default()).await?;
//!     let metainfo = Metainfo::decode(torrent_file)?;
//!     let mut torrent = engine.add(AddTorrent::new(metainfo, dir)).await?;
//!     torrent.completed().await?;
//!     println!("{} bytes received", torrent.snapshot().torrent.traffic.downloaded);
//!     engine.shutdown().await;
//!     Ok(())
//! }
//! ```

mod api;
mod channels;
mod clock;
mod context;
mod discovery;
mod disk;
mod inputs;
mod mailbox;
mod network;
mod registry;
mod session;
mod task;
mod torrent;
mod watched;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::storage::handles::{HANDLE_MAX, Handles};
use crate::storage::journals;
use rustix::process::{Resource, getrlimit};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use discovery::{dht_host, http, lsd, turns, udp};
use network::{listen, ourselves, pool};
use session::{input, supervisor};

pub use crate::proto::bitfield::Bitfield;
pub use crate::proto::infohash::InfoHash;
pub use crate::proto::metainfo::files::{Attributes, File};
pub use crate::proto::metainfo::magnet::{Magnet, MagnetError};
pub use crate::proto::metainfo::{self, Info, Metainfo, MetainfoError};
use crate::proto::rng::Rng;
pub use crate::proto::torrent::dial::refusals::{Evidence, Refused};
pub use crate::proto::torrent::event::{Direction, PeerSnapshot, TorrentSnapshot, TrafficSnapshot};
pub use crate::proto::torrent::metadata::METADATA_LEN_MAX;
pub use crate::storage::handles::is_out_of_descriptors;
use crate::storage::kept_metadata;
pub use crate::storage::{content::StorageError, foreign::Misfit, foreign::Why, fs::Obstacle, make};
pub use api::add::{AddTorrent, Existing, Purpose, Selection, TorrentSource};
pub use api::config::{Config, DhtConfig, Limits};
pub use api::error::EngineError;
pub use api::event::{DhtStatus, Event, Refusal, Snapshot, Stage, StorageFault, TrackerStatus};
pub use api::handle::TorrentHandle;
pub use api::{add, address, config, error, event, fetch, handle, verify};
pub use discovery::dht::{self, DhtHandle};
pub use torrent::kept;

/// Time for good-byes at the end; what is not said by then is left unsaid.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Of it, the part that torrents have; the rest is for telling them and hearing of their end.
const TORRENT_GRACE: Duration = Duration::from_millis(4_700);

/// A running engine. Dropping it stops everything at once; [`Engine::shutdown`] says good-bye
/// first.
#[derive(Debug)]
pub struct Engine {
    port: u16,
    embedded_tracker: bool,
    supervisor: mpsc::Sender<input::Input>,
    dht: Option<DhtHandle>,
    journals_error: Option<StorageError>,
    _tasks: Vec<task::Task>,
}

impl Engine {
    /// Listens, starts the disk threads and the shared UDP socket.
    ///
    /// # Errors
    /// The port is taken, or another failure of the system; the error says what to do.
    pub async fn start(mut config: Config) -> Result<Self, EngineError> {
        let limits = &mut config.limits;
        limits.connection_max = limits.connection_max.min(connections_allowed());
        let sockets = listen::bind(&config.listen, config.port)?;
        let (port, embedded_tracker) = (sockets.port, config.embedded_tracker);
        let clock = clock::Clock::start();
        let mut rng = seed()?;
        let (dht, dht_host) =
            config.dht.clone().map(|dht| start_dht(dht, &sockets, clock, rng.fork("dht"))).unzip();
        let (lsd_sender, lsd_requests) = mpsc::channel(channels::LSD_REQUEST);
        let (udp_sender, udp_requests) = mpsc::channel(channels::UDP_REQUEST);
        let (supervisor_sender, supervisor_inputs) = mpsc::channel(channels::SUPERVISOR);
        let (registry_sender, registry) = watch::channel(Arc::new(BTreeMap::new()));
        let handles = Handles::new(HANDLE_MAX);
        let (resume_dir, its_handles) = (config.resume_dir.clone(), handles.clone());
        let open_journals = move || resume_dir.map(|dir| journals::open(&dir, &its_handles)).transpose();
        let opened = task::blocking(open_journals).await.unwrap_or(Ok(None));
        let (journals, journals_error) = opened.map_or_else(|error| (None, Some(error)), |dir| (dir, None));
        let context = Arc::new(context::Context {
            clock,
            pool: pool::BlockPool::new(),
            ourselves: ourselves::Ourselves::default(),
            disk: disk::DiskQueue::start(config.disk_threads.map_or_else(core_count, |count| count.max(1)))?,
            handles,
            journals,
            udp: udp_sender,
            dht: dht.clone(),
            lsd: config.lsd.then_some(lsd_sender),
            http: http::HttpClient::default(),
            announces: turns::Turns::new(),
            supervisor: supervisor_sender.clone(),
            port,
            config,
        });
        let udp =
            udp::UdpTask::new(clock, sockets.udp, udp_requests, embedded_tracker, dht_host, rng.fork("udp"));
        let mut tasks = vec![task::spawn("udp", udp.run())];
        if context.config.lsd {
            let listen = context.config.listen.clone();
            let lsd = lsd::LsdTask::new(clock, listen, port, lsd_requests, registry.clone(), rng.fork("lsd"));
            tasks.push(task::spawn("lsd", lsd.run()));
        }
        if let Some(dir) = context.config.resume_dir.clone() {
            tasks.push(task::spawn("journals", prune_journals(dir)));
        }
        if let Some(dir) = context.config.metadata_dir.clone() {
            // If the engine ends meanwhile, the next one does it.
            let prune =
                async { task::blocking(move || kept_metadata::prune(&dir)).await.unwrap_or_default() };
            tasks.push(task::spawn("metadata", prune));
        }
        let supervisor = supervisor::Supervisor::new(context, supervisor_inputs, registry_sender, rng);
        tasks.push(task::spawn("supervisor", supervisor.run()));
        let pending = Arc::new(Semaphore::new(listen::PENDING_MAX));
        for listener in sockets.tcp {
            let accepting = listen::accept(listener, pending.clone(), registry.clone());
            tasks.push(task::spawn("listener", accepting));
        }
        Ok(Self {
            port,
            embedded_tracker,
            supervisor: supervisor_sender,
            dht: dht.map(DhtHandle::new),
            journals_error,
            _tasks: tasks,
        })
    }

    /// Adds a torrent; checking of existing data begins in the background.
    ///
    /// # Errors
    /// It is there already, or its folder cannot be used.
    pub async fn add(&self, torrent: AddTorrent) -> Result<TorrentHandle, EngineError> {
        self.add_all(vec![torrent]).await.pop().unwrap_or(Err(EngineError::Stopped))
    }

    /// Adds several, as [`Engine::add`] does one; what came of each, in order, when all are there:
    /// one whose folder is on a disk that does not answer holds up those that are added with it.
    /// Cheaper for many; the engine does little else meanwhile, so some dozens at a time are best.
    pub async fn add_all(&self, torrents: Vec<AddTorrent>) -> Vec<Result<TorrentHandle, EngineError>> {
        let count = torrents.len();
        let (reply, added) = oneshot::channel();
        // An engine that has ended drops the reply.
        let _ = self.supervisor.send(input::Input::Add(torrents, reply)).await;
        let stopped = |_| (0..count).map(|_| Err(EngineError::Stopped)).collect();
        added.await.unwrap_or_else(stopped)
    }

    /// Where peers reach us: the port is the same for TCP and UDP, IPv4 and IPv6.
    pub fn listen_port(&self) -> u16 {
        self.port
    }

    /// Why no journals are kept although `Config::resume_dir` is set: each start then hashes what
    /// is there.
    pub fn journals_error(&self) -> Option<&StorageError> {
        self.journals_error.as_ref()
    }

    /// The DHT node; None: `Config::dht` is.
    pub fn dht(&self) -> Option<DhtHandle> {
        self.dht.clone()
    }

    /// With `Config::embedded_tracker`: the announce URL for peers that reach us at `host`.
    pub fn tracker_url(&self, host: IpAddr) -> Option<String> {
        let addr = SocketAddr::new(host, self.port);
        self.embedded_tracker.then(|| format!("udp://{addr}/announce"))
    }

    /// Announces `stopped`, flushes, keeps the good DHT nodes and closes everything; at most 5 s.
    pub async fn shutdown(self) {
        let (reply, done) = oneshot::channel();
        let goodbye = async {
            let input = input::Input::Shutdown(TORRENT_GRACE, reply);
            if self.supervisor.send(input).await.is_ok() {
                // The supervisor drops its end when all torrents have ended.
                let _ = done.await;
            }
        };
        let keep_nodes = async {
            if let Some(dht) = &self.dht {
                dht.save().await;
            }
        };
        if timeout(SHUTDOWN_TIMEOUT, async { tokio::join!(goodbye, keep_nodes) }).await.is_err() {
            tracing::warn!("stopped without every good-bye");
        }
    }
}

/// The DHT node for these sockets, and the way to it.
fn start_dht(
    config: DhtConfig,
    sockets: &listen::Sockets,
    clock: clock::Clock,
    rng: Rng,
) -> (mpsc::Sender<dht::Request>, dht_host::DhtHost) {
    let (sender, requests) = mpsc::channel(channels::DHT_REQUEST);
    let has = |is_v4: bool| {
        let of_family =
            |socket: &tokio::net::UdpSocket| socket.local_addr().is_ok_and(|local| local.is_ipv4() == is_v4);
        sockets.udp.iter().any(of_family)
    };
    let families = [has(true), has(false)];
    let host = dht_host::DhtHost::new(config, families, sockets.port, requests, rng, clock.now());
    (sender, host)
}

/// The engine's only draw of entropy.
fn seed() -> io::Result<Rng> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Rng::from_seed(seed))
}

/// Removes old journals. If the engine ends meanwhile, the next one does it.
async fn prune_journals(dir: PathBuf) {
    #[expect(clippy::disallowed_methods, reason = "files carry the wall clock")]
    let now = SystemTime::now();
    task::blocking(move || journals::prune(&dir, now)).await.unwrap_or_default();
}

/// Half of the files that the process may open: the rest is for content, journals and requests to
/// trackers.
fn connections_allowed() -> usize {
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2;
    usize::try_from(allowed).unwrap_or(usize::MAX).max(1)
}

fn core_count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
