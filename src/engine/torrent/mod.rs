//! One torrent: the task that owns its machines and the bytes of its pieces.
//!
//! Its life has up to three parts: who has only a magnet's name fetches the description (`describe`), then files
//! are opened and what is there is checked (`start`), then content is transferred (`transfer`, `outputs`) until
//! the torrent leaves (`leave`). What it has all along is its `swarm`.
//!
//! It carries inputs to the machines and does what they decide; it decides nothing. It waits for nothing but
//! inputs: queues of connections are bounded and never waited for, disk jobs and dials are tasks of their
//! own, and while the disk is behind the inbox of the connections is left alone.

mod connections;
mod describe;
mod fault;
mod leave;
mod memory;
mod outputs;
mod report;
mod sources;
mod start;
mod swarm;
mod trackers;
mod transfer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Duration;

use super::add::{Selection, TorrentSource};
use super::channels::{CONTROL, EVENT, INBOX};
use super::context::{Context, Control, Input};
use super::handle::{Event, Snapshot, Stage, TorrentHandle};
use super::{AddTorrent, EngineError};
use crate::proto::bitfield::Bitfield;
use crate::proto::infohash::InfoHash;
use crate::proto::metainfo::Metainfo;
use crate::proto::metainfo::magnet::Magnet;
use crate::proto::peer_id::PeerId;
use crate::proto::rng::Rng;
use crate::proto::session::Lease;
use crate::proto::torrent::event::Command;
use crate::proto::tracker::announcer::{self, Announcer, Progress};
use crate::storage::disk::DiskContent;
use connections::Connections;
use describe::{DescriptionTask, Outcome};
pub(crate) use memory::DescriptionMemory;
use report::Report;
use sources::{Hints, Sources};
use start::Started;
use swarm::Swarm;
use transfer::TorrentTask;

/// Peers wanted of each announce: as many as a torrent connects to by default.
const NUMWANT: u32 = 100;
/// Bytes missing, as trackers are told while nobody knows how many there are: not 0, which would make us a seed.
const LEFT_UNKNOWN: u64 = 16 << 10;

/// What a torrent is made of.
pub(crate) struct Spec {
    /// Which.
    pub(crate) infohash: InfoHash,
    /// From the user.
    pub(crate) add: AddTorrent,
    /// Our name in the swarm.
    pub(crate) peer_id: PeerId,
    /// Our share of the session's budgets; None: not yet.
    pub(crate) lease: watch::Receiver<Option<Lease>>,
    /// Shared by all torrents.
    pub(crate) memory: DescriptionMemory,
    /// Seed of all chance in it.
    pub(crate) rng: Rng,
}

/// What a torrent has when it begins.
struct Origin {
    context: Arc<Context>,
    infohash: InfoHash,
    peer_id: PeerId,
    plan: Plan,
    hints: Hints,
    lease: watch::Receiver<Option<Lease>>,
    rng: Rng,
}

/// What of the user's wishes matters to the end: of many files there is one list only.
struct Plan {
    /// Where the content lies.
    dir: PathBuf,
    /// Pieces in order.
    sequential: bool,
    /// Do not check.
    assume_complete: bool,
    /// Set apart the room for all files first.
    preallocate: bool,
    /// Fetch the description alone.
    describe_only: bool,
    /// Leave at this ratio of sent to size.
    ratio_max: Option<f64>,
    /// Leave after seeding for so long.
    seed_time_max: Option<Duration>,
}

/// What is known of the content at the start.
enum Known {
    /// Its files are open.
    Content(DiskContent),
    /// A name.
    Magnet(Box<Named>),
}

/// A torrent whose description is to be fetched.
struct Named {
    magnet: Magnet,
    selection: Selection,
    memory: DescriptionMemory,
    /// For the user.
    described: watch::Sender<Option<Arc<Metainfo>>>,
}

/// What the user says before there is a machine to tell.
#[derive(Debug, Default)]
struct Wishes {
    /// In order.
    commands: Vec<Command>,
    /// Peers to dial.
    peers: Vec<SocketAddr>,
}

/// Where a torrent's inputs come from.
struct Inputs {
    control: mpsc::Receiver<Control>,
    inbox: mpsc::Receiver<Input>,
    lease: watch::Receiver<Option<Lease>>,
}

/// Why a torrent leaves the swarm.
enum Leaving {
    /// The user says so: how long it may take, and whom to tell by dropping it.
    Told(Duration, Option<oneshot::Sender<()>>),
    /// Ratio or seeding time is reached, or only the description was wanted.
    GoalReached,
    /// It cannot go on.
    Failed(String),
}

/// Opens the torrent's files, if they are known; the future is the torrent's life.
///
/// # Errors
/// Its folder cannot be used.
pub(crate) fn prepare(
    context: Arc<Context>,
    spec: Spec,
) -> Result<(TorrentHandle, mpsc::Sender<Control>, impl Future<Output = ()> + Send + use<>), EngineError> {
    let Spec { infohash, add, peer_id, lease, memory, rng } = spec;
    let (described_sender, described) = watch::channel(None);
    let AddTorrent { source, selection, peers, trackers, .. } = add;
    let plan = Plan {
        dir: add.dir,
        sequential: add.sequential,
        assume_complete: add.assume_complete,
        preallocate: add.preallocate,
        describe_only: add.describe_only,
        ratio_max: add.ratio_max,
        seed_time_max: add.seed_time_max,
    };
    let hints = Hints::new(&source, trackers);
    let known = match source {
        TorrentSource::Metainfo(metainfo) => {
            let flags = selection.flags(&metainfo.info, &[]).map_err(EngineError::Selection)?;
            Known::Content(start::open(&context, &plan.dir, metainfo.info, flags)?)
        }
        TorrentSource::Magnet(magnet) => {
            Known::Magnet(Box::new(Named { magnet, selection, memory, described: described_sender }))
        }
    };
    let (control_sender, control) = mpsc::channel(CONTROL);
    let (snapshot_sender, snapshot) = watch::channel(Snapshot::default());
    let (event_sender, events) = broadcast::channel(EVENT);
    let handle = TorrentHandle::new(infohash, control_sender.clone(), snapshot, described, events);
    let report = Report::new(snapshot_sender, event_sender);
    let wishes = Wishes { commands: Vec::new(), peers };
    let origin = Origin { context, infohash, peer_id, plan, hints, lease, rng };
    let life = async move {
        match known {
            Known::Content(content) => origin.live(content, control, report, wishes).await,
            // Boxed, so that the many torrents that need none of it do not have room for it.
            Known::Magnet(named) => Box::pin(origin.live_from_name(*named, control, report, wishes)).await,
        }
    };
    Ok((handle, control_sender, life))
}

impl Origin {
    /// The life of a torrent whose files are open.
    async fn live(
        mut self,
        content: DiskContent,
        mut control: mpsc::Receiver<Control>,
        mut report: Report,
        wishes: Wishes,
    ) {
        let checked = start::check(&self.context, &self.plan, &content, &mut control, &mut report, wishes);
        match checked.await {
            Started::Ready { have, wishes } => {
                let progress = Progress { uploaded: 0, downloaded: 0, left: left(&content, &have) };
                let (swarm, inputs) = self.join(content.info().private, progress, control, report);
                swarm.connections.describe(&content);
                let task = TorrentTask::new(swarm, content, self.plan, have, self.rng);
                task.run(inputs, None, wishes).await;
            }
            Started::Stopped(reply) => {
                report.end(Stage::Stopped);
                drop(reply);
            }
            Started::Failed(error) => report.end(Stage::Failed(error)),
        }
    }

    /// The life of a torrent of which only the name is known.
    async fn live_from_name(
        mut self,
        named: Named,
        control: mpsc::Receiver<Control>,
        report: Report,
        wishes: Wishes,
    ) {
        let Named { magnet, selection, memory, described } = named;
        let progress = Progress { uploaded: 0, downloaded: 0, left: LEFT_UNKNOWN };
        let (swarm, mut inputs) = self.join(false, progress, control, report);
        let task = DescriptionTask::new(swarm, memory, self.rng.fork("description"));
        let (mut swarm, info, handover, wishes) = match task.run(&mut inputs, wishes).await {
            Outcome::Described { swarm, info, handover, wishes } => (*swarm, *info, *handover, wishes),
            Outcome::Left { swarm, leaving } => return swarm.leave(leaving, inputs, progress).await,
        };
        described.send_replace(Some(Arc::new(describe::metainfo(&magnet, info.clone()))));
        swarm.report.event(Event::Described);
        if self.plan.describe_only {
            return swarm.leave(Leaving::GoalReached, inputs, progress).await;
        }
        let opened = selection.flags(&info, &magnet.select).and_then(|flags| {
            start::open(&self.context, &self.plan.dir, info, flags).map_err(|error| error.to_string())
        });
        let content = match opened {
            Ok(content) => content,
            Err(error) => return swarm.leave(Leaving::Failed(error), inputs, progress).await,
        };
        swarm.connections.describe(&content);
        let (control, report) = (&mut inputs.control, &mut swarm.report);
        match start::check(&self.context, &self.plan, &content, control, report, wishes).await {
            Started::Ready { have, wishes } => {
                let task = TorrentTask::new(swarm, content, self.plan, have, self.rng);
                task.run(inputs, Some(handover), wishes).await;
            }
            Started::Stopped(reply) => {
                swarm.leave(Leaving::Told(leave::GRACE, reply), inputs, progress).await;
            }
            Started::Failed(error) => swarm.leave(Leaving::Failed(error), inputs, progress).await,
        }
    }

    /// Joins the swarm.
    fn join(
        &mut self,
        private: bool,
        progress: Progress,
        control: mpsc::Receiver<Control>,
        report: Report,
    ) -> (Swarm, Inputs) {
        let context = &self.context;
        let (sender, inbox) = mpsc::channel(INBOX);
        let hints = std::mem::take(&mut self.hints);
        let config = announcer::Config {
            infohash: self.infohash,
            peer_id: self.peer_id,
            port: context.port,
            tiers: hints.tiers.clone(),
            numwant: NUMWANT,
        };
        let announcer = Announcer::new(config, progress, self.rng.fork("announcer"), context.clock.now());
        let sources =
            Sources::new(context, self.infohash, hints, private, announcer, self.rng.fork("sources"));
        let connections = Connections::new(context, sender);
        let swarm = Swarm::new(context.clone(), self.infohash, self.peer_id, connections, sources, report);
        (swarm, Inputs { control, inbox, lease: self.lease.clone() })
    }
}

/// Bytes of the pieces that are not there.
fn left(content: &DiskContent, have: &Bitfield) -> u64 {
    let geometry = content.info().geometry;
    let there: u64 = have.iter_set().map(|piece| u64::from(geometry.len_of(piece))).sum();
    geometry.total_len() - there
}
