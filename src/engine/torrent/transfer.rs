//! The task of a torrent: carries inputs to its machines until the torrent leaves.

use bytes::Bytes;
use tokio::time::{Duration, sleep_until};

use super::connections::Inbox;
use super::jobs::{Ended, Jobs};
use super::membership::{Dialled, Membership};
use super::metadata::{Fetching, MetadataMemory};
use super::report::FileProgress;
use super::sources::Answered;
use super::start::Ready;
use super::{Inputs, Leaving, Plan, Wishes};
use crate::engine::api::event::Stage;
use crate::engine::inputs::{Control, Established, Incoming, Input};
use crate::engine::network::pool::BlockBuf;
use crate::engine::session::input;
use crate::proto::metainfo::Info;
use crate::proto::piece::PieceIndex;
use crate::proto::rng::Rng;
use crate::proto::session::Lease;
use crate::proto::time::Instant;
use crate::proto::torrent::Torrent;
use crate::proto::torrent::event::{ConnId, Receipt, Settings, TorrentSnapshot};
use crate::storage::disk::SharedStore;
use crate::storage::lifecycle::{self, Completion, Lifecycle};

/// Inputs of connections taken before timers and the user are looked at again.
const INPUT_MAX: usize = 64;

/// The task of one torrent.
pub(super) struct TorrentTask {
    pub(super) membership: Membership,
    pub(super) plan: Plan,
    pub(super) machine: Torrent,
    pub(super) part: Part,
    /// Why the torrent cannot go on, in words.
    pub(super) failure: Option<String>,
}

/// What the torrent works on.
pub(super) enum Part {
    /// Its metadata is fetched; boxed, as few torrents of many are magnets.
    Metadata(Box<Fetching>),
    /// Its content is started.
    Content(Box<Content>),
}

/// Content that is started.
pub(super) struct Content {
    pub(super) disk: SharedStore,
    pub(super) storage: Lifecycle<BlockBuf>,
    pub(super) files: FileProgress,
    pub(super) jobs: Jobs,
    /// Everything is on the disk, for the end.
    pub(super) is_closed: bool,
}

/// Why [`TorrentTask::run`] ended.
pub(super) enum Outcome {
    /// The metadata is received.
    Metadata(Box<Info>),
    /// The torrent is to leave.
    Leaving(Leaving),
}

impl Part {
    /// The started content.
    pub(super) fn content(&mut self) -> Option<&mut Content> {
        match self {
            Self::Content(content) => Some(content),
            Self::Metadata(_) => None,
        }
    }

    /// The fetch of the metadata.
    pub(super) fn fetching(&mut self) -> Option<&mut Fetching> {
        match self {
            Self::Metadata(fetching) => Some(fetching),
            Self::Content(_) => None,
        }
    }

    /// Whether blocks may come: the disk keeps up.
    fn has_room(&self) -> bool {
        match self {
            Self::Metadata(_) => true,
            Self::Content(content) => content.storage.has_room(),
        }
    }

    fn completion(&self) -> Completion {
        match self {
            Self::Metadata(_) => Completion::Missing,
            Self::Content(content) => content.storage.completion(),
        }
    }

    /// When everything wanted became durable.
    fn finished_at(&self) -> Option<Instant> {
        match self.completion() {
            Completion::Finished(at) => Some(at),
            Completion::Missing | Completion::Finishing => None,
        }
    }

    /// Whether nothing is left to be written.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Metadata(_) => true,
            Self::Content(content) => content.is_closed,
        }
    }

    /// Returns what has ended; may be dropped and called again.
    pub(super) async fn next(&mut self) -> Ended {
        match self {
            Self::Metadata(fetching) => fetching.next().await,
            Self::Content(content) => content.jobs.next().await,
        }
    }
}

impl Content {
    /// A piece is verified.
    pub(super) fn piece_completed(&mut self, piece: PieceIndex) {
        self.files.add(self.disk.info(), piece);
    }
}

impl TorrentTask {
    /// Makes the task of a torrent of which only the infohash is known.
    pub(super) fn without_metadata(
        membership: Membership,
        plan: Plan,
        memory: MetadataMemory,
        rng: Rng,
    ) -> Self {
        let machine = Torrent::without_metadata(settings(&membership, &plan, None), rng, membership.now());
        let part = Part::Metadata(Box::new(Fetching::new(memory)));
        Self { membership, plan, machine, part, failure: None }
    }

    /// Makes the task of a torrent whose content is started.
    pub(super) fn new(membership: Membership, plan: Plan, ready: Ready, rng: Rng) -> Self {
        let Ready { content, storage, jobs, found } = ready;
        let info = content.info();
        let (settings, have) = (settings(&membership, &plan, Some(info)), found.have.clone());
        let wanted = content.content().wanted();
        let machine = Torrent::new(settings, info.geometry, have, wanted, rng, membership.now());
        let part = Part::Content(Box::new(Content::new(content, storage, jobs, &found)));
        let mut task = Self { membership, plan, machine, part, failure: None };
        task.restore(&found);
        task
    }

    /// The content of the metadata that was fetched is started.
    pub(super) fn begin_content(&mut self, ready: Ready) {
        let Ready { content, storage, jobs, found } = ready;
        let (now, info) = (self.membership.now(), content.info());
        let settings = settings(&self.membership, &self.plan, Some(info));
        let (have, wanted) = (found.have.clone(), content.content().wanted());
        self.machine.handle_content(now, settings, info.geometry, have, wanted);
        self.part = Part::Content(Box::new(Content::new(content, storage, jobs, &found)));
        self.restore(&found);
    }

    /// Tells the machine which blocks of incomplete pieces are present.
    fn restore(&mut self, found: &lifecycle::Started) {
        for partial in &found.partial {
            let blocks: Vec<u32> = partial.blocks.iter().map(|block| block.index).collect();
            self.machine.handle_restored(self.membership.now(), partial.piece, &blocks);
        }
    }

    /// Runs until the metadata is received, if it is fetched, or the torrent is to leave.
    pub(super) async fn run(&mut self, inputs: &mut Inputs) -> Outcome {
        loop {
            let now = self.membership.now();
            self.drain(now);
            if let Some(failure) = self.failure.take() {
                return Outcome::Leaving(Leaving::Failed(failure));
            }
            if let Some(bytes) = self.part.fetching().and_then(|fetching| fetching.received.take()) {
                return self.handle_metadata(now, bytes);
            }
            if self.is_goal_reached(now) {
                return Outcome::Leaving(Leaving::GoalReached);
            }
            self.tell_demand(now);
            self.publish(now);
            inputs.inbox.attend(&mut self.membership.connections);
            let deadline = self.deadline();
            let timer = self.membership.context.clock.timer(deadline.unwrap_or_default());
            let has_room = self.part.has_room();
            tokio::select! {
                control = inputs.control.recv() => match control {
                    Some(Control::Stop(grace, reply)) => {
                        return Outcome::Leaving(Leaving::Told(grace, Some(reply)));
                    }
                    Some(control) => self.handle_control(control),
                    None => return Outcome::Leaving(Leaving::Told(Duration::ZERO, None)),
                },
                input = inputs.inbox.recv(), if has_room => self.handle_inputs(input, &mut inputs.inbox),
                ended = self.part.next() => self.handle_ended(ended),
                dialled = self.membership.dials.next() => self.handle_dialled(dialled),
                answered = self.membership.sources.next() => self.handle_answered(answered),
                lease = inputs.lease.next() => self.machine.handle_lease(self.membership.now(), lease),
                () = sleep_until(timer), if deadline.is_some() => self.handle_timeout(),
            }
        }
    }

    /// The metadata is received and its hash is right; whether it describes any content is another
    /// matter.
    fn handle_metadata(&mut self, now: Instant, bytes: Bytes) -> Outcome {
        let info = match Info::decode(bytes) {
            Ok(info) => info,
            Err(error) => {
                let failure = format!("the torrent's description is of no use: {error}");
                return Outcome::Leaving(Leaving::Failed(failure));
            }
        };
        if info.private {
            self.membership.sources.machine.handle_private();
            self.machine.handle_private(now);
            self.drain(now);
            // A supervisor that is behind lets the handshakes of others know that we have a DHT
            // node, no more.
            let told = input::Input::Private(self.membership.infohash);
            let _ = self.membership.context.supervisor.try_send(told);
        }
        Outcome::Metadata(Box::new(info))
    }

    /// The first inputs of a part: our share, if it was told already, what the user gave, and
    /// completion if nothing is missing.
    pub(super) fn begin(&mut self, lease: Option<Lease>, wishes: Wishes) {
        let now = self.membership.now();
        self.tell_journal();
        self.drain(now);
        if let Some(lease) = lease {
            self.machine.handle_lease(now, lease);
            self.drain(now);
        }
        for command in wishes.commands {
            self.machine.handle_command(now, command);
            self.drain(now);
        }
        for (source, peers) in wishes.peers {
            self.membership.sources.machine.handle_peers(source, peers);
            self.drain(now);
        }
        let lacks_pieces = self.lacked_at_start();
        self.membership.sources.machine.handle_lack(now, lacks_pieces);
        self.drain(now);
        self.membership.report.hurry();
    }

    /// Whether pieces were missing when the content was started.
    pub(super) fn lacked_at_start(&mut self) -> bool {
        self.part.content().is_none_or(|content| !content.storage.started_complete())
    }

    fn handle_control(&mut self, control: Control) {
        let now = self.membership.now();
        self.membership.report.touch();
        match control {
            Control::Accepted(established) => self.connected(now, established),
            Control::Encrypted(ip) => {
                self.membership.refusals.get_or_insert_default().handle_encrypted(now, ip)
            }
            Control::Command(command, reply) => {
                self.machine.handle_command(now, command);
                self.drain(now);
                self.membership.report.hurry();
                // Who does not wait any more needs no answer.
                let _ = reply.send(());
            }
            Control::Peers(source, peers) => self.membership.sources.machine.handle_peers(source, peers),
            // Taken out before.
            Control::Stop(_, reply) => drop(reply),
        }
    }

    pub(super) fn connected(&mut self, now: Instant, established: Established) {
        let connected = established.connected;
        let conn = self.membership.connections.open(established);
        self.machine.handle_connected(now, conn, connected);
        self.drain(now);
    }

    /// Takes what the connections said, some of it at a time.
    fn handle_inputs(&mut self, first: Option<Input>, inbox: &mut Inbox) {
        let now = self.membership.now();
        self.membership.report.touch();
        let mut next = first;
        for _ in 0..INPUT_MAX {
            let Some(input) = next.take() else { break };
            self.handle_input(now, input);
            next = if self.part.has_room() { inbox.try_recv() } else { None };
        }
        if let Some(input) = next {
            self.handle_input(now, input);
        }
    }

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Received(conn, batch) => self.handle_received(now, conn, batch),
            Input::Sent(conn, count, len) => {
                if self.membership.connections.is_open(conn) {
                    self.machine.handle_blocks_sent(now, conn, count, len);
                }
            }
            Input::MetadataSent(conn, count) => {
                if self.membership.connections.is_open(conn) {
                    self.machine.handle_metadata_sent(now, conn, count);
                }
            }
            Input::ReadFailed(error) => {
                if let Some(content) = self.part.content() {
                    content.storage.handle_read_failed(now, error);
                }
            }
            Input::PiecesLost(lost) => {
                if let Some(content) = self.part.content() {
                    content.storage.handle_lost(lost);
                }
            }
            Input::Unsent(conn, blocks) => {
                if self.membership.connections.is_open(conn) {
                    self.machine.handle_blocks_unsent(now, conn, &blocks);
                }
            }
            Input::Closed(conn) => self.disconnected(now, conn),
        }
        self.drain(now);
    }

    fn handle_received(&mut self, now: Instant, conn: ConnId, batch: Vec<Incoming>) {
        for incoming in batch {
            if !self.membership.connections.is_open(conn) {
                return;
            }
            match incoming {
                Incoming::Message(message, _place) => self.machine.handle_message(now, conn, message),
                Incoming::Block(block, mut bytes) => {
                    let receipt = self.machine.handle_block(now, conn, block);
                    if let (Receipt::Keep, Some(content)) = (receipt, self.part.content()) {
                        bytes.settle();
                        content.storage.handle_block(now, block, bytes);
                    }
                }
            }
            self.drain(now);
        }
    }

    pub(super) fn disconnected(&mut self, now: Instant, conn: ConnId) {
        if self.membership.connections.close(conn) {
            self.machine.handle_disconnected(now, conn);
        }
    }

    fn handle_dialled(&mut self, dialled: Dialled) {
        let now = self.membership.now();
        match self.membership.handle_dialled(now, dialled) {
            Ok(established) => self.connected(now, established),
            Err(addr) => self.machine.handle_dial_failed(now, addr),
        }
    }

    fn handle_answered(&mut self, answered: Answered) {
        self.report_progress();
        self.membership.handle_answered(self.membership.now(), answered);
    }

    /// Counters for announces.
    pub(super) fn report_progress(&mut self) {
        self.membership.sources.machine.handle_progress(self.machine.progress());
    }

    fn handle_timeout(&mut self) {
        let now = self.membership.now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.machine.poll_timeout()) {
            self.machine.handle_timeout(now);
            self.membership.report.touch();
        }
        self.report_progress();
        self.membership.handle_timeout(now);
        if let Some(content) = self.part.content()
            && due(content.storage.poll_timeout())
        {
            content.storage.handle_timeout(now);
            self.drain(now);
            self.membership.report.touch();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let goal_at = self.part.finished_at().and_then(|at| self.plan.goal.due_at(at));
        let membership = self.membership.poll_timeout(self.machine.demand());
        let storage = match &self.part {
            Part::Metadata(_) => None,
            Part::Content(content) => content.storage.poll_timeout(),
        };
        [self.machine.poll_timeout(), membership, goal_at, storage].into_iter().flatten().min()
    }

    /// Whether seeding has done what the user wants of it.
    fn is_goal_reached(&self, now: Instant) -> bool {
        let reached = |finished_at| {
            let (uploaded, wanted_len) = (self.machine.progress().uploaded, self.machine.wanted_len());
            self.plan.goal.is_reached(now, finished_at, uploaded, wanted_len)
        };
        self.part.finished_at().is_some_and(reached)
    }

    fn tell_demand(&mut self, now: Instant) {
        let lacks = self.part.completion() == Completion::Missing;
        self.report_progress();
        self.membership.tell_demand(now, self.machine.demand(), lacks);
        self.drain(now);
    }

    pub(super) fn publish(&mut self, now: Instant) {
        if self.membership.report.due_at().is_none_or(|at| at > now) {
            return;
        }
        let figures = self.machine.snapshot(now);
        let stage = self.stage(&figures);
        let finished = self.part.finished_at().is_some();
        let done_lens = self.part.content().map(|content| content.files.done_lens().to_vec());
        self.membership.publish(now, stage, finished, figures, done_lens.unwrap_or_default());
    }

    /// As the user sees it.
    fn stage(&self, figures: &TorrentSnapshot) -> Stage {
        if figures.paused {
            return Stage::Paused;
        }
        let storage = match &self.part {
            Part::Metadata(_) => return self.metadata_stage(figures),
            Part::Content(content) => &content.storage,
        };
        match (storage.completion(), storage.fault()) {
            (_, Some(fault)) => Stage::Waiting(fault.clone()),
            (Completion::Finished(_), None) => Stage::Seeding,
            (Completion::Missing | Completion::Finishing, None) => Stage::Downloading,
        }
    }

    fn metadata_stage(&self, figures: &TorrentSnapshot) -> Stage {
        let progress = self.machine.metadata_progress().unwrap_or_default();
        if progress.source_count > 0 && progress.total_len > 0 {
            let (done, total, peers) = (progress.done_len, progress.total_len, progress.source_count);
            Stage::FetchingDescription { done, total, peers }
        } else {
            let connected = figures.peers.len();
            Stage::FindingPeers { known: figures.candidate_count.max(connected), connected }
        }
    }
}

impl Content {
    fn new(disk: SharedStore, storage: Lifecycle<BlockBuf>, jobs: Jobs, found: &lifecycle::Started) -> Self {
        let files = FileProgress::new(disk.info(), &found.have);
        Self { disk, storage, files, jobs, is_closed: false }
    }
}

/// The machine's settings; `info`: the metadata, if it is known.
fn settings(membership: &Membership, plan: &Plan, info: Option<&Info>) -> Settings {
    let context = &membership.context;
    let private = info.is_some_and(|info| info.private);
    Settings {
        infohash: membership.infohash,
        peer_id: membership.peer_id,
        listen_port: Some(context.port),
        swarming_interval: context.config.swarming_interval,
        sequential: plan.sequential,
        metadata: info.map(|info| info.bytes.clone()).unwrap_or_default(),
        private,
        pex: context.config.pex && !private,
        dht_port: context.dht.is_some().then_some(context.port),
        connection_max: context.config.limits.torrent_connection_max,
    }
}
