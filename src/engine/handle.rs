//! What the engine's user holds of a torrent: figures, events, wishes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::EngineError;
use super::context::Control;
use crate::proto::infohash::InfoHash;
use crate::proto::metainfo::Metainfo;
use crate::proto::torrent::event::{Command, Source, StorageFault, TorrentSnapshot};

/// A running torrent. Cheap to clone; dropping it leaves the torrent running. A clone reads all events from
/// its making on.
#[derive(Debug)]
pub struct TorrentHandle {
    infohash: InfoHash,
    control: mpsc::Sender<Control>,
    snapshot: watch::Receiver<Snapshot>,
    described: watch::Receiver<Option<Arc<Metainfo>>>,
    events: broadcast::Receiver<Event>,
}

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

/// How things stand with one tracker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrackerStatus {
    /// Its URL.
    pub url: String,
    /// Complete peers it knows.
    pub seeders: Option<u32>,
    /// Incomplete peers it knows.
    pub leechers: Option<u32>,
    /// Why the last announce failed.
    pub error: Option<String>,
}

/// How things stand with the DHT for one torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DhtStatus {
    /// A lookup is under way.
    pub asking: bool,
    /// Lookups that are over.
    pub lookups: u32,
    /// Nodes that answered the last of these.
    pub answered: u32,
    /// Different peers that nodes named in the lookup under way, or else in the last one.
    pub peers: usize,
    /// Nodes that took down in the last lookup that we are here.
    pub announced: u32,
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
    /// A piece came and is on disk.
    Piece(u32),
    /// A piece failed its hash and is fetched again.
    PieceFailed(u32),
    /// A piece that was there is there no more: somebody changed the file.
    PieceLost {
        /// Which.
        piece: u32,
        /// What happened to which file.
        why: String,
        /// Whether it is fetched again: not once everything was complete, when who changed it may have meant to.
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
    /// The disk holds things up, or does no longer (None).
    Storage(Option<StorageFault>),
    /// The torrent ended: see [`Snapshot::stage`].
    Stopped,
    /// The reader was too slow and so many events were skipped.
    Skipped(u64),
}

impl Clone for TorrentHandle {
    fn clone(&self) -> Self {
        Self {
            infohash: self.infohash,
            control: self.control.clone(),
            snapshot: self.snapshot.clone(),
            described: self.described.clone(),
            events: self.events.resubscribe(),
        }
    }
}

impl TorrentHandle {
    pub(crate) fn new(
        infohash: InfoHash,
        control: mpsc::Sender<Control>,
        snapshot: watch::Receiver<Snapshot>,
        described: watch::Receiver<Option<Arc<Metainfo>>>,
        events: broadcast::Receiver<Event>,
    ) -> Self {
        Self { infohash, control, snapshot, described, events }
    }

    /// Which torrent.
    pub fn infohash(&self) -> InfoHash {
        self.infohash
    }

    /// A magnet's description, from its peers, with the link's trackers and web seeds; None: not there yet. Of a
    /// torrent that was added by its description always None: who added it has it, and it is not kept twice.
    pub fn metainfo(&self) -> Option<Arc<Metainfo>> {
        self.described.borrow().clone()
    }

    /// Waits for a magnet's description.
    ///
    /// # Errors
    /// The torrent ended before, or was added by its description.
    pub async fn described(&mut self) -> Result<Arc<Metainfo>, EngineError> {
        let described = self.described.wait_for(Option::is_some).await.map_err(|_| EngineError::Stopped)?;
        described.clone().ok_or(EngineError::Stopped)
    }

    /// The latest figures.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// Waits for newer figures (at most five times a second); false: the torrent ended.
    pub async fn changed(&mut self) -> bool {
        self.snapshot.changed().await.is_ok()
    }

    /// The next event for this handle's reader (each clone made by [`TorrentHandle::subscribe`] reads all
    /// events from then on); None: the torrent ended.
    pub async fn next_event(&mut self) -> Option<Event> {
        match self.events.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(count)) => Some(Event::Skipped(count)),
            Err(RecvError::Closed) => None,
        }
    }

    /// Another reader of events.
    pub fn subscribe(&self) -> Self {
        self.clone()
    }

    /// Waits until every wanted piece is there and synced.
    ///
    /// # Errors
    /// The torrent failed or was stopped before.
    pub async fn completed(&mut self) -> Result<(), EngineError> {
        let ended = |snapshot: &Snapshot| {
            snapshot.finished || matches!(snapshot.stage, Stage::Stopped | Stage::Failed(_))
        };
        let snapshot = self.snapshot.wait_for(ended).await.map_err(|_| EngineError::Stopped)?;
        match &snapshot.stage {
            _ if snapshot.finished => Ok(()),
            Stage::Failed(error) => Err(EngineError::System(io::Error::other(error.clone()))),
            Stage::Starting
            | Stage::FindingPeers { .. }
            | Stage::FetchingDescription { .. }
            | Stage::Checking { .. }
            | Stage::Downloading
            | Stage::Seeding
            | Stage::Waiting(_)
            | Stage::Paused
            | Stage::Stopped => Err(EngineError::Stopped),
        }
    }

    /// Stops transferring.
    ///
    /// # Errors
    /// The torrent has ended.
    pub async fn pause(&self) -> Result<(), EngineError> {
        self.command(Command::Pause).await
    }

    /// Goes on.
    ///
    /// # Errors
    /// The torrent has ended.
    pub async fn resume(&self) -> Result<(), EngineError> {
        self.command(Command::Resume).await
    }

    /// This torrent's own limits in bytes per second.
    ///
    /// # Errors
    /// The torrent has ended.
    pub async fn limit(
        &self,
        upload_rate: Option<u64>,
        download_rate: Option<u64>,
    ) -> Result<(), EngineError> {
        self.command(Command::Limit { upload_rate, download_rate }).await
    }

    /// Dials these peers.
    ///
    /// # Errors
    /// The torrent has ended.
    pub async fn add_peers(&self, peers: Vec<SocketAddr>) -> Result<(), EngineError> {
        self.tell(Control::Peers(Source::User, peers)).await
    }

    /// Leaves the swarm: announces `stopped`, flushes, at most 5 s (`grace`).
    ///
    /// # Errors
    /// The torrent has ended already.
    pub async fn stop(&self, grace: Duration) -> Result<(), EngineError> {
        let (reply, done) = oneshot::channel();
        self.tell(Control::Stop(grace, reply)).await?;
        // The torrent drops its end when it is done.
        let _ = done.await;
        Ok(())
    }

    async fn command(&self, command: Command) -> Result<(), EngineError> {
        let (reply, done) = oneshot::channel();
        self.tell(Control::Command(command, reply)).await?;
        done.await.map_err(|_| EngineError::Stopped)
    }

    async fn tell(&self, control: Control) -> Result<(), EngineError> {
        self.control.send(control).await.map_err(|_| EngineError::Stopped)
    }
}
