//! What the engine's user holds of a torrent: figures, events, wishes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::engine::EngineError;
use crate::engine::api::event::{Event, Snapshot, Stage};
use crate::engine::api::view::Viewer;
use crate::engine::inputs::Control;
use crate::engine::mailbox::Mail;
use crate::proto::infohash::InfoHash;
use crate::proto::metainfo::Metainfo;
use crate::proto::torrent::event::{Command, Source};

/// A running torrent. Cheap to clone; dropping it leaves the torrent running. A clone reads all
/// events from its making on.
#[derive(Clone, Debug)]
pub struct TorrentHandle {
    infohash: InfoHash,
    control: Mail,
    viewer: Viewer,
}

impl TorrentHandle {
    pub(crate) fn new(infohash: InfoHash, control: Mail, viewer: Viewer) -> Self {
        Self { infohash, control, viewer }
    }

    /// Which torrent.
    pub fn infohash(&self) -> InfoHash {
        self.infohash
    }

    /// A magnet's description, from its peers, with the link's trackers and web seeds; None: not
    /// there yet. Of a torrent that was added by its description always None: who added it has it,
    /// and it is not kept twice.
    pub fn metainfo(&self) -> Option<Arc<Metainfo>> {
        self.viewer.metainfo()
    }

    /// Waits for a magnet's description.
    ///
    /// # Errors
    /// The torrent ended before, or was added by its description.
    pub async fn described(&mut self) -> Result<Arc<Metainfo>, EngineError> {
        self.viewer.described().await.ok_or(EngineError::Stopped)
    }

    /// The latest figures.
    pub fn snapshot(&self) -> Snapshot {
        self.viewer.snapshot()
    }

    /// Waits for newer figures (at most five times a second); false: the torrent ended.
    pub async fn changed(&mut self) -> bool {
        self.viewer.changed().await
    }

    /// The next event for this handle's reader (each clone made by [`TorrentHandle::subscribe`]
    /// reads all events from then on); None: the torrent ended.
    pub async fn next_event(&mut self) -> Option<Event> {
        self.viewer.next_event().await
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
        let end = |snapshot: &Snapshot| match &snapshot.stage {
            _ if snapshot.finished => Some(Ok(())),
            Stage::Failed(error) => Some(Err(EngineError::System(io::Error::other(error.clone())))),
            Stage::Refused(refusal) => Some(Err(EngineError::System(io::Error::other(refusal.clone())))),
            Stage::Stopped => Some(Err(EngineError::Stopped)),
            Stage::Starting
            | Stage::FindingPeers { .. }
            | Stage::FetchingDescription { .. }
            | Stage::Checking { .. }
            | Stage::Downloading
            | Stage::Seeding
            | Stage::Waiting(_)
            | Stage::Paused => None,
        };
        self.viewer.find(end).await.unwrap_or(Err(EngineError::Stopped))
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
