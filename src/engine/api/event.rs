//! What users see of a torrent: its stage, its figures and its events.

use std::net::SocketAddr;
use std::path::PathBuf;

pub use crate::proto::discovery::event::DhtStatus;
use crate::proto::torrent::dial::refusals::Refused;
use crate::proto::torrent::event::TorrentSnapshot;
pub use crate::proto::tracker::TrackerStatus;
pub use crate::storage::fault::StorageFault;
use crate::storage::foreign::Misfit;
pub use crate::storage::lifecycle::Refusal;

/// What a torrent is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Stage {
    /// Just added.
    #[default]
    Starting,
    /// Only its name is known, and nobody who has its description.
    FindingPeers {
        /// Addresses known.
        known: usize,
        /// Of these, connected.
        connected: usize,
    },
    /// Fetching its description from peers.
    FetchingDescription {
        /// Bytes received.
        done: u32,
        /// Bytes in all, as peers say.
        total: u32,
        /// Peers that have it.
        peers: usize,
    },
    /// Hashing existing data.
    Checking {
        /// Pieces looked at.
        checked: u32,
        /// Of these, good.
        good: u32,
    },
    /// Fetching.
    Downloading,
    /// Every wanted piece is there.
    Seeding,
    /// The disk is full or failing; goes on by itself when it can.
    Waiting(StorageFault),
    /// Paused by the user.
    Paused,
    /// Left the swarm: told to, or ratio or seeding time reached.
    Stopped,
    /// Cannot begin, because of what is on the disk.
    Refused(Refusal),
    /// Cannot go on.
    Failed(String),
}

/// Figures of a torrent at one moment, at most 200 ms old.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What it is doing.
    pub stage: Stage,
    /// Figures of the swarm.
    pub torrent: TorrentSnapshot,
    /// Each tracker.
    pub trackers: Vec<TrackerStatus>,
    /// The DHT, for this torrent; None: it is not asked, as for private torrents.
    pub dht: Option<DhtStatus>,
    /// Bytes of each file of `info.files` that are verified.
    pub file_done_lens: Vec<u64>,
    /// Whether every wanted piece is there and durable; stays true when the torrent stops.
    pub finished: bool,
}

/// What happened, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A magnet's description is there: see [`TorrentHandle::metainfo`].
    Described,
    /// Existing data is checked: pieces good, pieces in all.
    Checked {
        /// Good.
        good: u32,
        /// In all.
        total: u32,
    },
    /// These files, which are to be seeded, are longer than the torrent says.
    Longer(Vec<Misfit>),
    /// Files lie under other names than in the torrent: its path of each, and the one that is used.
    OtherNames(Vec<(String, String)>),
    /// A piece came and is on disk.
    Piece(u32),
    /// A piece failed its hash and is fetched again.
    PieceFailed(u32),
    /// A piece that was there is there no more: somebody changed the file.
    PieceLost {
        /// Which.
        piece: u32,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, in words.
        why: String,
        /// Whether it is fetched again: not once everything was complete, when who changed it may
        /// have meant to.
        is_fetching: bool,
    },
    /// Every wanted piece is there and synced.
    Completed,
    /// A tracker answered.
    TrackerOk {
        /// Its URL.
        url: String,
        /// Peers it named.
        peers: usize,
    },
    /// A tracker said something for the user.
    TrackerWarning {
        /// Its URL.
        url: String,
        /// Its words.
        text: String,
    },
    /// A tracker failed; others go on.
    TrackerFailed {
        /// Its URL.
        url: String,
        /// Why.
        error: String,
    },
    /// A lookup in the DHT is over.
    DhtAnswered {
        /// Nodes that answered.
        nodes: u32,
        /// Different peers that they named.
        peers: usize,
    },
    /// A peer is connected.
    PeerConnected(SocketAddr),
    /// A peer is gone.
    PeerDisconnected(SocketAddr, Option<String>),
    /// A peer lied and is banned.
    PeerBanned(SocketAddr),
    /// A peer says that the metadata is longer than what is fetched.
    MetadataTooLong {
        /// Where it is.
        addr: SocketAddr,
        /// Bytes that it says.
        len: u32,
    },
    /// No peer shook hands so far, and these seem to require encryption.
    PeersRefused(Refused),
    /// The disk holds things up, or does no longer (None).
    Storage(Option<StorageFault>),
    /// The torrent's journal cannot be written, for this reason: until it can, the next start has
    /// to hash more.
    JournalLapsed(String),
    /// The torrent's journal cannot be used, for this reason. The torrent does not begin, so the
    /// journal is left as it is.
    JournalUnusable(String),
    /// The torrent's journal cannot be used, and a new one is begun.
    JournalSetAside {
        /// Why.
        error: String,
        /// What it is called as soon as the new one is.
        path: PathBuf,
    },
    /// The torrent ended: see [`Snapshot::stage`].
    Stopped,
    /// The reader was too slow and so many events were skipped.
    Skipped(u64),
}
