//! One torrent: the task that owns its machines and the bytes of its pieces.
//!
//! Its life has up to three parts: of a magnet the metadata is fetched, then files are opened and
//! what is present is checked (`start`), then content is transferred until the torrent leaves
//! (`leave`). The first and the last part are one task (`transfer`, `outputs`); what the torrent
//! has all along is its `membership`.
//!
//! It carries inputs to the machines and does what they decide; it decides nothing: what is done
//! with the disk is decided by [`crate::storage::lifecycle`]. It waits for nothing but inputs:
//! queues of connections are bounded and never waited for, disk jobs and dials are tasks of their
//! own, and while the disk is behind the inbox of the connections is left alone.
//!
//! A process may seed 100,000 torrents, most of them without connections. Such a torrent, taken on
//! trust, occupies 4.5 KiB: its peer state, inbox, announcer and journal are allocated on first
//! use, the state of only the first or last part is boxed, and its inputs are polled by hand, so
//! that the task's future stays small. It wakes only for its announces.

mod connections;
mod jobs;
mod leave;
mod membership;
mod metadata;
mod outputs;
mod report;
mod sources;
mod start;
mod trackers;
mod transfer;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Duration;

use crate::engine::api::add::{Selection, TorrentSource};
use crate::engine::api::event::{Refusal, Stage};
use crate::engine::api::handle::TorrentHandle;
use crate::engine::api::view::view;
use crate::engine::context::Context;
use crate::engine::inputs::Control;
use crate::engine::mailbox::{Mail, Mailbox, mailbox};
use crate::engine::session::lease::Lessee;
use crate::engine::task;
use crate::engine::{AddTorrent, EngineError};
use crate::proto::bitfield::Bitfield;
use crate::proto::discovery::Discovery;
use crate::proto::discovery::event::{Config, Hints};
use crate::proto::infohash::InfoHash;
use crate::proto::metainfo::magnet::Magnet;
use crate::proto::metainfo::{Info, Metainfo};
use crate::proto::peer_id::PeerId;
use crate::proto::rng::Rng;
use crate::proto::torrent::event::{Command, Source};
use crate::proto::torrent::metadata::LEFT_UNKNOWN;
use crate::proto::torrent::share_goal::ShareGoal;
use crate::proto::tracker::Progress;
use crate::storage::content::StorageError;
use crate::storage::disk::SharedStore;
use crate::storage::kept_metadata;
use crate::storage::lifecycle;
use crate::storage::open::{self, Place};
use connections::{Connections, Inbox};
use membership::Membership;
pub(crate) use metadata::MetadataMemory;
use report::Report;
use sources::Sources;
use start::Started;
use transfer::{Outcome, TorrentTask};

/// Peers wanted of each announce: as many as a torrent connects to by default.
const NUMWANT: u32 = 100;

/// What the user wants, with its files open if they are known.
pub(crate) struct Opened {
    /// Which torrent.
    pub(crate) infohash: InfoHash,
    /// It is known to be for the peers of its trackers only.
    pub(crate) is_private: bool,
    plan: Plan,
    hints: Hints,
    known: Known,
    /// Whom to dial first.
    peers: Vec<SocketAddr>,
}

/// What a torrent is made of.
pub(crate) struct Spec {
    /// From the user.
    pub(crate) opened: Opened,
    /// Our name in the swarm.
    pub(crate) peer_id: PeerId,
    /// Our share of the session's budgets.
    pub(crate) lease: Lessee,
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
    rng: Rng,
}

/// What of the user's wishes matters to the end: of many files there is one list only.
#[derive(Clone)]
struct Plan {
    /// Where the content lies.
    dir: PathBuf,
    /// Pieces in order.
    sequential: bool,
    /// What is known of the content on disk, and what may be done to it.
    storage: lifecycle::Plan,
    /// Read through symbolic links.
    follow_links: bool,
    /// Fetch the description alone.
    describe_only: bool,
    /// When to leave.
    goal: ShareGoal,
}

impl Plan {
    /// Opens the content; it may wait for a disk.
    fn open(&self, context: &Context, info: Info, flags: Vec<bool>) -> Result<SharedStore, StorageError> {
        let (purpose, follow_links) = (self.storage.purpose, self.follow_links);
        let place = Place { dir: &self.dir, purpose, follow_links };
        open::open(place, context.journals.as_ref(), &context.handles, info, flags)
    }
}

/// What is known of the content at the start.
enum Known {
    /// Its files are open.
    Content(SharedStore),
    /// A name.
    Magnet(Box<Named>),
}

/// A torrent whose description is to be fetched.
struct Named {
    magnet: Magnet,
    selection: Selection,
    memory: MetadataMemory,
    /// The description, if an earlier run has kept it.
    kept: Option<Info>,
}

/// What the user says before there is a machine to tell.
#[derive(Debug, Default)]
struct Wishes {
    /// In order.
    commands: Vec<Command>,
    /// Peers to dial, and who named them.
    peers: Vec<(Source, Vec<SocketAddr>)>,
}

impl Wishes {
    /// Takes what is told while there is no machine for it, until the torrent is to leave.
    async fn until_told(&mut self, control: &mut Mailbox) -> Leaving {
        loop {
            match control.recv().await {
                Some(Control::Command(command, reply)) => {
                    self.commands.push(command);
                    // Who does not wait any more needs no answer.
                    let _ = reply.send(());
                }
                Some(Control::Peers(source, peers)) => self.peers.push((source, peers)),
                Some(Control::Accepted(turned_away)) => drop(turned_away),
                Some(Control::Encrypted(_)) => {}
                Some(Control::Stop(grace, reply)) => return Leaving::Told(grace, Some(reply)),
                None => return Leaving::Told(Duration::ZERO, None),
            }
        }
    }
}

/// Where a torrent's inputs come from.
struct Inputs {
    control: Mailbox,
    inbox: Inbox,
    lease: Lessee,
}

/// A torrent that has begun.
type Begun = Option<(Box<TorrentTask>, Inputs)>;

/// Why a torrent leaves the swarm.
enum Leaving {
    /// The user says so: how long it may take, and whom to tell by dropping it.
    Told(Duration, Option<oneshot::Sender<()>>),
    /// Ratio or seeding time is reached, or only the description was wanted.
    GoalReached,
    /// It cannot begin.
    Refused(Refusal),
    /// It cannot go on.
    Failed(String),
}

/// Opens the torrent's files, if they are known, which may take as long as a disk or a network
/// likes. The memory of descriptions is shared by all torrents.
///
/// # Errors
/// Its folder cannot be used, or there is nothing to know it by.
pub(crate) fn open(
    context: &Context,
    memory: &MetadataMemory,
    add: AddTorrent,
) -> Result<Opened, EngineError> {
    let AddTorrent { source, selection, peers, trackers, .. } = add;
    let infohash = source.infohash().ok_or(EngineError::NoInfohash)?;
    let mut is_private = source.is_private();
    let plan = Plan {
        dir: add.dir,
        sequential: add.sequential,
        storage: lifecycle::Plan {
            purpose: add.purpose,
            existing: add.existing,
            preallocate: add.preallocate,
        },
        follow_links: add.follow_links,
        describe_only: add.describe_only,
        goal: ShareGoal { ratio: add.ratio_max, seed_time: add.seed_time_max },
    };
    let mut hints = match &source {
        TorrentSource::Metainfo(metainfo) => Hints::of_metainfo(metainfo),
        TorrentSource::Magnet(magnet) => Hints::of_magnet(magnet),
    };
    hints.add_trackers(trackers);
    let known = match source {
        TorrentSource::Metainfo(metainfo) => {
            let flags = selection.flags(&metainfo.info, None).map_err(EngineError::Selection)?;
            Known::Content(plan.open(context, metainfo.info, flags)?)
        }
        TorrentSource::Magnet(magnet) => {
            let metadata_dir = context.config.metadata_dir.as_deref();
            let kept = metadata_dir.and_then(|dir| kept(dir, infohash));
            is_private = kept.as_ref().is_some_and(|info| info.private);
            Known::Magnet(Box::new(Named { magnet, selection, memory: memory.clone(), kept }))
        }
    };
    Ok(Opened { infohash, is_private, plan, hints, known, peers })
}

/// A handle, the way to it, and the torrent's life, which tells at its end whose it was.
pub(crate) fn prepare(
    context: Arc<Context>,
    spec: Spec,
) -> (TorrentHandle, Mail, impl Future<Output = InfoHash> + Send + use<>) {
    let Spec { opened, peer_id, lease, rng } = spec;
    let Opened { infohash, is_private: _, plan, hints, known, peers } = opened;
    let (mail, control) = mailbox();
    let (teller, viewer) = view(matches!(known, Known::Magnet(_)));
    let handle = TorrentHandle::new(infohash, mail.clone(), viewer);
    let report = Report::new(teller);
    let wishes = Wishes { commands: Vec::new(), peers: vec![(Source::User, peers)] };
    let inputs = Inputs { control, inbox: Inbox::default(), lease };
    let origin = Origin { context, infohash, peer_id, plan, hints, rng };
    // Boxed, so that what only the beginning needs is given back after it.
    let beginning: Pin<Box<dyn Future<Output = Begun> + Send>> = match known {
        Known::Content(content) => Box::pin(origin.begin(content, inputs, report, wishes)),
        Known::Magnet(mut named) => match named.kept.take() {
            Some(info) => Box::pin(origin.begin_from_kept(*named, info, inputs, report, wishes)),
            None => Box::pin(origin.begin_from_name(*named, inputs, report, wishes)),
        },
    };
    let life = async move {
        // Not by `if let`, which keeps what it looks at until its end.
        let Some((mut task, mut inputs)) = beginning.await else { return infohash };
        match task.run(&mut inputs).await {
            // Boxed, so that a torrent has no room for its end all its life.
            Outcome::Leaving(leaving) => Box::pin(task.leave(leaving, inputs)).await,
            // Cannot happen: a torrent that has begun has its metadata.
            Outcome::Metadata(_) => {}
        }
        infohash
    };
    (handle, mail, life)
}

impl Origin {
    /// The beginning of a torrent whose files are open.
    async fn begin(
        mut self,
        content: SharedStore,
        mut inputs: Inputs,
        mut report: Report,
        wishes: Wishes,
    ) -> Begun {
        let control = &mut inputs.control;
        let started = start::start(&self.context, &self.plan, &content, control, &mut report, wishes);
        match Box::pin(started).await {
            Started::Ready(ready, wishes) => {
                let progress =
                    Progress { uploaded: 0, downloaded: 0, left: left(&content, &ready.found.have) };
                let (membership, discovery) = self.join(content.info().private, progress, report);
                membership.connections.describe(&content);
                let task = TorrentTask::new(membership, discovery, self.plan, *ready, self.rng);
                let mut task = Box::new(task);
                task.begin(None, wishes);
                return Some((task, inputs));
            }
            Started::Stopped(leaving) => {
                report.end(Stage::Stopped);
                // Who waits for the end is told by that.
                drop(leaving);
            }
            Started::Refused(refusal) => report.end(Stage::Refused(refusal)),
            Started::Failed(error) => report.end(Stage::Failed(error)),
        }
        None
    }

    /// The beginning of a torrent of which only the name is known.
    async fn begin_from_name(
        mut self,
        named: Named,
        mut inputs: Inputs,
        report: Report,
        wishes: Wishes,
    ) -> Begun {
        let Named { magnet, selection, memory, kept: _ } = named;
        let progress = Progress { uploaded: 0, downloaded: 0, left: LEFT_UNKNOWN };
        let (membership, discovery) = self.join(false, progress, report);
        let (plan, rng) = (self.plan.clone(), self.rng.fork("machine"));
        let task = TorrentTask::without_metadata(membership, discovery, plan, memory, rng);
        let mut task = Box::new(task);
        task.begin(None, wishes);
        let leaving = match task.run(&mut inputs).await {
            Outcome::Leaving(leaving) => leaving,
            Outcome::Metadata(info) => {
                match self.begin_fetched(&mut task, *info, selection, &magnet, &mut inputs).await {
                    Ok(()) => return Some((task, inputs)),
                    Err(leaving) => leaving,
                }
            }
        };
        task.leave(leaving, inputs).await;
        None
    }

    /// Goes on with the content when the metadata is received.
    async fn begin_fetched(
        &mut self,
        task: &mut TorrentTask,
        info: Info,
        selection: Selection,
        magnet: &Magnet,
        inputs: &mut Inputs,
    ) -> Result<(), Leaving> {
        task.membership.report.describe(metainfo(magnet, info.clone()));
        let mut wishes = Wishes::default();
        let nonce = self.rng.fork("metadata").bits();
        let keeping = keep(&self.context, info.clone(), nonce);
        let opening = async { tokio::join!(keeping, self.open_described(selection, magnet, info)).1 };
        let content = tokio::select! {
            opened = opening => opened?,
            leaving = wishes.until_told(&mut inputs.control) => return Err(leaving),
        };
        task.membership.connections.describe(&content);
        let (control, report) = (&mut inputs.control, &mut task.membership.report);
        match start::start(&self.context, &self.plan, &content, control, report, wishes).await {
            Started::Ready(ready, wishes) => {
                task.begin_content(*ready);
                task.begin(inputs.lease.latest(), wishes);
                Ok(())
            }
            Started::Stopped(leaving) => Err(leaving),
            Started::Refused(refusal) => Err(Leaving::Refused(refusal)),
            Started::Failed(error) => Err(Leaving::Failed(error)),
        }
    }

    /// The beginning of a torrent whose description an earlier run has kept: nobody is asked for
    /// it.
    async fn begin_from_kept(
        self,
        named: Named,
        info: Info,
        mut inputs: Inputs,
        report: Report,
        mut wishes: Wishes,
    ) -> Begun {
        let Named { magnet, selection, .. } = named;
        report.describe(metainfo(&magnet, info.clone()));
        let opened = tokio::select! {
            opened = self.open_described(selection, &magnet, info) => opened,
            leaving = wishes.until_told(&mut inputs.control) => Err(leaving),
        };
        match opened {
            Ok(content) => self.begin(content, inputs, report, wishes).await,
            Err(leaving) => {
                leaving.conclude(inputs, report);
                None
            }
        }
    }

    /// The files that a description names, unless it was wanted alone.
    async fn open_described(
        &self,
        selection: Selection,
        magnet: &Magnet,
        info: Info,
    ) -> Result<SharedStore, Leaving> {
        if self.plan.describe_only {
            return Err(Leaving::GoalReached);
        }
        let flags = selection.flags(&info, Some(magnet)).map_err(Leaving::Failed)?;
        let (context, plan) = (self.context.clone(), self.plan.clone());
        let open = move || plan.open(&context, info, flags);
        let opened = task::blocking(open).await;
        let failed = |error: StorageError| Leaving::Failed(error.to_string());
        // Without threads for it the engine ends.
        opened.ok_or(Leaving::Told(Duration::ZERO, None))?.map_err(failed)
    }

    /// Joins the swarm.
    fn join(&mut self, private: bool, progress: Progress, report: Report) -> (Membership, Discovery) {
        let context = &self.context;
        let config = Config {
            infohash: self.infohash,
            peer_id: self.peer_id,
            port: context.port,
            numwant: NUMWANT,
            private,
            dht: context.dht.is_some(),
            lsd: context.lsd.is_some(),
            hints: std::mem::take(&mut self.hints),
        };
        let discovery = Discovery::new(config, progress, self.rng.fork("discovery"), context.clock.now());
        let sources = Sources::new(context.clone(), self.infohash);
        let connections = Connections::new(context);
        let (context, infohash, peer_id) = (context.clone(), self.infohash, self.peer_id);
        (Membership::new(context, infohash, peer_id, connections, sources, report), discovery)
    }
}

/// The metadata that an earlier run has kept in the folder `dir`, if it can be used.
pub fn kept(dir: &Path, infohash: InfoHash) -> Option<Info> {
    kept_metadata::load(dir, infohash).unwrap_or_else(|error| {
        tracing::warn!(dir = %dir.display(), %infohash, %error, "kept metadata cannot be used");
        None
    })
}

/// Has a thread keep the description for the next start.
async fn keep(context: &Context, info: Info, nonce: u64) {
    if let Some(dir) = context.config.metadata_dir.clone() {
        // Without threads for it the engine ends.
        let keep = move || (kept_metadata::keep(&dir, &info, nonce), dir);
        if let Some((Err(error), dir)) = task::blocking(keep).await {
            let dir = dir.display();
            tracing::warn!(%dir, %error, "metadata is not kept: the next start fetches it again");
        }
    }
}

/// What a magnet and its metadata say together.
fn metainfo(magnet: &Magnet, info: Info) -> Metainfo {
    Metainfo {
        info,
        trackers: magnet.trackers.iter().map(|url| vec![url.clone()]).collect(),
        web_seeds: magnet.web_seeds.clone(),
        nodes: Vec::new(),
        comment: None,
        created_by: None,
        creation_date: None,
        oddities: Vec::new(),
    }
}

/// Bytes of the pieces that are not there.
fn left(content: &SharedStore, have: &Bitfield) -> u64 {
    let geometry = content.info().geometry;
    let there: u64 = have.iter_set().map(|piece| u64::from(geometry.len_of(piece))).sum();
    geometry.total_len() - there
}
