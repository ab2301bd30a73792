//! One torrent: the task that owns its machine, its announcer and the bytes of its pieces.
//!
//! It carries inputs to the machines and does what they decide; it decides nothing. It waits for nothing but
//! inputs: queues of connections are bounded and never waited for, disk jobs and dials are tasks of their
//! own, and while the disk is behind the inbox of the connections is left alone.

mod connections;
mod leave;
mod outputs;
mod pieces;
mod report;
mod start;
mod trackers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Duration, sleep_until};

use super::channels::{CONTROL, EVENT, INBOX};
use super::context::{Context, Control, Established, Incoming, Input};
use super::handle::{Event, Snapshot, Stage, TorrentHandle};
use super::pool::BlockBuf;
use super::send::BlockSource;
use super::supervisor;
use super::task::Tasks;
use super::{AddTorrent, EngineError};
use crate::proto::bitfield::Bitfield;
use crate::proto::peer_id::PeerId;
use crate::proto::rng::Rng;
use crate::proto::session::{Demand, Lease};
use crate::proto::time::Instant;
use crate::proto::torrent::Torrent;
use crate::proto::torrent::event::{ConnId, Receipt, Settings, Source, StorageFault};
use crate::proto::tracker::announcer::{self, Announcer, Progress};
use crate::storage::disk::{DiskContent, Done};
use connections::Connections;
use pieces::PieceBuffers;
use report::Report;
use start::{Plan, Started, Wishes};
use trackers::{Announced, Trackers};

/// Peers wanted of each announce: as many as a torrent connects to by default.
const NUMWANT: u32 = 100;
/// Inputs of connections taken before timers and the user are looked at again.
const INPUT_MAX: usize = 64;
/// Least time between two demands told to the session.
const DEMAND_INTERVAL: Duration = crate::proto::session::LEASE_INTERVAL;
/// Fewer connections than this, and nobody left to dial, is reason to ask trackers for more peers.
const CONNECTIONS_FEW: usize = 10;

/// What a torrent is made of.
pub(crate) struct Spec {
    /// From the user.
    pub(crate) add: AddTorrent,
    /// Our name in the swarm.
    pub(crate) peer_id: PeerId,
    /// Our share of the session's budgets; None: not yet.
    pub(crate) lease: watch::Receiver<Option<Lease>>,
    /// Seed of all chance in it.
    pub(crate) rng: Rng,
}

/// A torrent whose files are open.
struct Opened {
    context: Arc<Context>,
    content: DiskContent,
    plan: Plan,
    peer_id: PeerId,
    lease: watch::Receiver<Option<Lease>>,
    rng: Rng,
}

/// How far the content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completion {
    /// Wanted pieces are missing.
    Missing,
    /// Every wanted piece is there; empty files and durability are under way, or wait for the disk.
    Finishing,
    /// All is there and durable, since then.
    Finished(Instant),
}

/// A task of the torrent has ended.
enum Ended {
    /// A dial.
    Dialled(SocketAddr, io::Result<Established>),
    /// A piece came back from the disk; whether block hashes were asked for.
    Stored(bool, Option<Done<BlockBuf>>),
    /// The content was made complete and durable, or not.
    Finished(Option<Done<BlockBuf>>),
    /// What was written is durable as far as possible.
    Synced,
    /// All peers have hung up, or took too long.
    HungUp,
    /// An announce.
    Announced(Announced),
}

/// The state of a torrent's task.
struct TorrentTask {
    context: Arc<Context>,
    content: DiskContent,
    plan: Plan,
    peer_id: PeerId,
    machine: Torrent,
    trackers: Trackers,
    connections: Connections,
    pieces: PieceBuffers,
    completion: Completion,
    /// Nothing was missing from the start.
    started_complete: bool,
    /// Why the torrent cannot go on, in words.
    failure: Option<String>,
    report: Report,
    demand: (Demand, Instant),
    tasks: Tasks<Ended>,
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
    Told(Duration, Option<tokio::sync::oneshot::Sender<()>>),
    /// Ratio or seeding time is reached.
    GoalReached,
    /// It cannot go on.
    Failed(String),
}

/// Opens the torrent's files; the future is the torrent's life.
///
/// # Errors
/// Its folder cannot be used.
pub(crate) fn prepare(
    context: Arc<Context>,
    spec: Spec,
) -> Result<(TorrentHandle, mpsc::Sender<Control>, impl Future<Output = ()> + Send + use<>), EngineError> {
    let Spec { add, peer_id, lease, rng } = spec;
    let (content, plan) = start::open(&context, add)?;
    let (control_sender, control) = mpsc::channel(CONTROL);
    let (snapshot_sender, snapshot) = watch::channel(Snapshot::default());
    let (event_sender, events) = broadcast::channel(EVENT);
    let report = Report::new(content.info(), snapshot_sender, event_sender);
    let handle = TorrentHandle::new(content.info().infohash, control_sender.clone(), snapshot, events);
    let opened = Opened { context, content, plan, peer_id, lease, rng };
    Ok((handle, control_sender, live(opened, control, report)))
}

async fn live(opened: Opened, mut control: mpsc::Receiver<Control>, mut report: Report) {
    let Opened { context, content, plan, .. } = &opened;
    let started = if plan.assume_complete {
        let have = Bitfield::full(content.info().geometry.piece_count());
        Started::Ready { have, wishes: Wishes::default() }
    } else {
        start::check(context, &plan.dir, content, &mut control, &mut report).await
    };
    match started {
        Started::Ready { have, wishes } => {
            let (sender, inbox) = mpsc::channel(INBOX);
            let inputs = Inputs { control, inbox, lease: opened.lease.clone() };
            let task = TorrentTask::new(opened, have, sender, report);
            task.run(inputs, wishes).await;
        }
        Started::Stopped(reply) => {
            report.stage(Stage::Stopped);
            report.event(Event::Stopped);
            drop(reply);
        }
        Started::Failed(error) => {
            report.stage(Stage::Failed(error));
            report.event(Event::Stopped);
        }
    }
}

impl TorrentTask {
    fn new(opened: Opened, have: Bitfield, inbox: mpsc::Sender<Input>, mut report: Report) -> Self {
        let Opened { context, content, plan, peer_id, lease: _, mut rng } = opened;
        let (now, info) = (context.clock.now(), content.info());
        report.have(&have);
        let settings = Settings {
            infohash: info.infohash,
            peer_id,
            listen_port: Some(context.port),
            swarming_interval: context.config.swarming_interval,
            sequential: plan.sequential,
            metadata: info.bytes.clone(),
            private: info.private,
            pex: context.config.pex && !info.private,
            dht_port: context.dht.is_some().then_some(context.port),
            connection_max: context.config.limits.torrent_connection_max,
        };
        let geometry = info.geometry;
        let wanted = content.wanted();
        let machine = Torrent::new(settings, geometry, have, wanted, rng.fork("machine"), now);
        let trackers = new_trackers(&context, &plan, &content, peer_id, &machine, rng.fork("announcer"));
        let source =
            BlockSource { disk: context.disk.clone(), content: content.clone(), pool: context.pool.clone() };
        Self {
            connections: Connections::new(geometry.piece_count(), source, inbox),
            pieces: PieceBuffers::new(geometry),
            completion: Completion::Missing,
            failure: None,
            demand: (Demand::default(), now),
            tasks: Tasks::new(),
            context,
            content,
            plan,
            peer_id,
            machine,
            trackers,
            started_complete: false,
            report,
        }
    }

    /// Begins, and lives until the torrent leaves.
    async fn run(mut self, mut inputs: Inputs, wishes: Wishes) {
        self.begin(wishes);
        let leaving = loop {
            let now = self.context.clock.now();
            self.drain(now);
            if let Some(failure) = self.failure.take() {
                break Leaving::Failed(failure);
            }
            if self.is_goal_reached(now) {
                break Leaving::GoalReached;
            }
            self.tell_demand(now);
            self.publish(now);
            let deadline = self.deadline();
            let timer = self.context.clock.timer(deadline.unwrap_or_default());
            tokio::select! {
                control = inputs.control.recv() => match control {
                    Some(Control::Stop(grace, reply)) => break Leaving::Told(grace, Some(reply)),
                    Some(control) => self.handle_control(control),
                    None => break Leaving::Told(Duration::ZERO, None),
                },
                Some(input) = inputs.inbox.recv(), if self.pieces.has_room() => {
                    self.handle_inputs(input, &mut inputs.inbox);
                }
                ended = self.tasks.next() => self.handle_ended(ended),
                Ok(()) = inputs.lease.changed() => {
                    let lease = *inputs.lease.borrow_and_update();
                    if let Some(lease) = lease {
                        self.machine.handle_lease(self.context.clock.now(), lease);
                    }
                }
                () = sleep_until(timer), if deadline.is_some() => self.handle_timeout(),
            }
        };
        self.leave(leaving, inputs).await;
    }

    /// The first inputs: what the user gave, and completion if nothing is missing.
    fn begin(&mut self, wishes: Wishes) {
        let now = self.context.clock.now();
        let peers: Vec<_> = std::mem::take(&mut self.plan.peers).into_iter().chain(wishes.peers).collect();
        for command in wishes.commands {
            self.machine.handle_command(now, command);
            self.drain(now);
        }
        self.machine.handle_candidates(now, Source::User, &peers);
        self.drain(now);
        self.started_complete = self.machine.snapshot(now).complete;
        if self.plan.assume_complete {
            self.finished(now);
        } else if self.started_complete {
            self.complete();
        }
        self.report.hurry();
    }

    fn handle_control(&mut self, control: Control) {
        let now = self.context.clock.now();
        self.report.touch();
        match control {
            Control::Accepted(established) => self.connected(now, *established),
            Control::Command(command, reply) => {
                self.machine.handle_command(now, command);
                self.drain(now);
                self.report.hurry();
                // Who does not wait any more needs no answer.
                let _ = reply.send(());
            }
            Control::Peers(source, peers) => self.machine.handle_candidates(now, source, &peers),
            // Taken out before.
            Control::Stop(_, reply) => drop(reply),
        }
    }

    fn connected(&mut self, now: Instant, established: Established) {
        let connected = established.connected;
        let conn = self.connections.open(established);
        self.machine.handle_connected(now, conn, connected);
        self.drain(now);
    }

    /// Takes what the connections said, some of it at a time.
    fn handle_inputs(&mut self, first: Input, inbox: &mut mpsc::Receiver<Input>) {
        let now = self.context.clock.now();
        self.report.touch();
        let mut next = Some(first);
        for _ in 0..INPUT_MAX {
            let Some(input) = next.take() else { break };
            self.handle_input(now, input);
            next = if self.pieces.has_room() { inbox.try_recv().ok() } else { None };
        }
        if let Some(input) = next {
            self.handle_input(now, input);
        }
    }

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Received(conn, batch) => self.handle_received(now, conn, batch),
            Input::Sent(conn, count, len) => {
                if self.connections.is_open(conn) {
                    self.machine.handle_blocks_sent(now, conn, count, len);
                }
            }
            Input::ReadFailed(error) => self.storage_failed(now, error),
            Input::Closed(conn) => self.disconnected(now, conn),
        }
        self.drain(now);
    }

    fn handle_received(&mut self, now: Instant, conn: ConnId, batch: Vec<Incoming>) {
        for incoming in batch {
            if !self.connections.is_open(conn) {
                return;
            }
            match incoming {
                Incoming::Message(message) => self.machine.handle_message(now, conn, message),
                Incoming::Block(block, content) => match self.machine.handle_block(now, conn, block) {
                    Receipt::Keep => self.pieces.keep(block, content),
                    Receipt::Discard => drop(content),
                },
            }
            self.drain(now);
        }
    }

    fn disconnected(&mut self, now: Instant, conn: ConnId) {
        if self.connections.close(conn) {
            self.machine.handle_disconnected(now, conn);
        }
    }

    fn handle_timeout(&mut self) {
        let now = self.context.clock.now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.machine.poll_timeout()) {
            self.machine.handle_timeout(now);
            self.report.touch();
        }
        if due(self.trackers.poll_timeout()) {
            let progress = self.progress(now);
            self.trackers.announcer(progress).handle_timeout(now);
            self.report.touch();
        }
        self.retry_storage(now);
    }

    fn deadline(&self) -> Option<Instant> {
        let seed_until = match (self.completion, self.plan.seed_time_max) {
            (Completion::Finished(at), Some(span)) => Some(at + span),
            (Completion::Missing | Completion::Finishing | Completion::Finished(_), _) => None,
        };
        let machines = [self.machine.poll_timeout(), self.trackers.poll_timeout()];
        let (told, told_at) = self.demand;
        let demand_at = (told != self.machine.demand()).then(|| told_at + DEMAND_INTERVAL);
        let others = [self.pieces.retry_at(), self.report.due_at(), seed_until, demand_at];
        machines.into_iter().chain(others).flatten().min()
    }

    /// Whether seeding has done what the user wanted of it.
    fn is_goal_reached(&self, now: Instant) -> bool {
        let Completion::Finished(at) = self.completion else { return false };
        let time_is_over = self.plan.seed_time_max.is_some_and(|span| now - at >= span);
        time_is_over
            || self.plan.ratio_max.is_some_and(|ratio| {
                let figures = self.machine.snapshot(now);
                figures.traffic.uploaded as f64 >= ratio * figures.wanted_len as f64
            })
    }

    fn tell_demand(&mut self, now: Instant) {
        let (last, at) = self.demand;
        let demand = self.machine.demand();
        if demand == last || now - at < DEMAND_INTERVAL {
            return;
        }
        let told = supervisor::Input::Demand(self.content.info().infohash, demand);
        // A supervisor that is behind is told again after another interval.
        let is_told = self.context.supervisor.try_send(told).is_ok();
        self.demand = (if is_told { demand } else { last }, now);
        let alone = demand.candidates == 0 && demand.connections < CONNECTIONS_FEW;
        if alone && self.completion == Completion::Missing {
            let progress = self.progress(now);
            self.trackers.announcer(progress).handle_need_peers(now);
            self.drain(now);
        }
    }

    fn publish(&mut self, now: Instant) {
        if self.report.due_at().is_some_and(|at| at <= now) {
            let figures = self.machine.snapshot(now);
            let stage = self.stage(figures.paused, figures.storage_fault.clone());
            let finished = matches!(self.completion, Completion::Finished(_));
            self.report.publish(now, stage, finished, figures, self.trackers.statuses().to_vec());
        }
    }

    fn stage(&self, paused: bool, fault: Option<StorageFault>) -> Stage {
        match (self.completion, fault) {
            _ if paused => Stage::Paused,
            (_, Some(fault)) => Stage::Waiting(fault),
            (Completion::Finished(_), None) => Stage::Seeding,
            (Completion::Missing | Completion::Finishing, None) => Stage::Downloading,
        }
    }

    /// Counters for announces.
    fn progress(&self, now: Instant) -> Progress {
        progress(&self.machine, now)
    }
}

fn progress(machine: &Torrent, now: Instant) -> Progress {
    let figures = machine.snapshot(now);
    Progress {
        uploaded: figures.traffic.uploaded,
        downloaded: figures.traffic.downloaded,
        left: figures.left,
    }
}

fn new_trackers(
    context: &Context,
    plan: &Plan,
    content: &DiskContent,
    peer_id: PeerId,
    machine: &Torrent,
    rng: Rng,
) -> Trackers {
    let now = context.clock.now();
    let config = announcer::Config {
        infohash: content.info().infohash,
        peer_id,
        port: context.port,
        tiers: plan.tiers.clone(),
        numwant: NUMWANT,
    };
    Trackers::new(Announcer::new(config, progress(machine, now), rng, now), &plan.tiers)
}
