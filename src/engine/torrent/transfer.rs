//! The task of a torrent: carries inputs to its machines until the torrent leaves.

use tokio::time::{Duration, sleep_until};

use super::connections::Inbox;
use super::jobs::{Ended, Jobs};
use super::membership::{Dialled, Membership};
use super::metadata::{Fetching, MetadataMemory};
use super::sources::Answered;
use super::start::Ready;
use super::{Inputs, Leaving, Plan, Wishes};
use crate::engine::api::event::{Snapshot, Stage};
use crate::engine::inputs::{Control, Established, Incoming, Input};
use crate::engine::network::pool::BlockBuf;
use crate::engine::session::input;
use crate::proto::discovery::Discovery;
use crate::proto::metainfo::Info;
use crate::proto::rng::Rng;
use crate::proto::session::Lease;
use crate::proto::time::Instant;
use crate::proto::torrent::Torrent;
use crate::proto::torrent::event::{ConnId, Settings, TorrentSnapshot};
use crate::storage::disk::SharedStore;
use crate::storage::file_progress::FileProgress;
use crate::storage::lifecycle::{self, Completion};
use crate::transfer::Transfer;

/// Inputs of connections taken before timers and the user are looked at again.
const INPUT_MAX: usize = 64;

/// The task of one torrent.
pub(super) struct TorrentTask {
    pub(super) membership: Membership,
    pub(super) plan: Plan,
    pub(super) machine: Transfer<BlockBuf>,
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
    pub(super) files: FileProgress,
    pub(super) jobs: Jobs,
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

    /// Returns what has ended; may be dropped and called again.
    pub(super) async fn next(&mut self) -> Ended {
        match self {
            Self::Metadata(fetching) => fetching.next().await,
            Self::Content(content) => content.jobs.next().await,
        }
    }
}

impl TorrentTask {
    /// Makes the task of a torrent of which only the infohash is known.
    pub(super) fn without_metadata(
        membership: Membership,
        discovery: Discovery,
        plan: Plan,
        memory: MetadataMemory,
        rng: Rng,
    ) -> Self {
        let now = membership.now();
        let torrent = Torrent::without_metadata(settings(&membership, &plan, None), rng, now);
        let machine = Transfer::new(torrent, discovery, None, &[], plan.goal, now);
        let part = Part::Metadata(Box::new(Fetching::new(memory)));
        Self { membership, plan, machine, part, failure: None }
    }

    /// Makes the task of a torrent whose content is started.
    pub(super) fn new(
        membership: Membership,
        discovery: Discovery,
        plan: Plan,
        ready: Ready,
        rng: Rng,
    ) -> Self {
        let Ready { content, storage, jobs, found } = ready;
        let (now, info) = (membership.now(), content.info());
        let (settings, wanted) = (settings(&membership, &plan, Some(info)), content.content().wanted());
        let torrent = Torrent::new(settings, info.geometry, found.have.clone(), wanted, rng, now);
        let machine = Transfer::new(torrent, discovery, Some(storage), &found.partial, plan.goal, now);
        let part = Part::Content(Box::new(Content::new(content, jobs, &found)));
        Self { membership, plan, machine, part, failure: None }
    }

    /// The content of the metadata that was fetched is started.
    pub(super) fn begin_content(&mut self, ready: Ready) {
        let Ready { content, storage, jobs, found } = ready;
        let (now, info) = (self.membership.now(), content.info());
        let settings = settings(&self.membership, &self.plan, Some(info));
        let (have, wanted) = (found.have.clone(), content.content().wanted());
        self.machine.torrent.handle_content(now, settings, info.geometry, have, wanted);
        self.machine.begin_content(now, storage, &found.partial);
        self.part = Part::Content(Box::new(Content::new(content, jobs, &found)));
    }

    /// Runs until the metadata is received, if it is fetched, or the torrent is to leave.
    pub(super) async fn run(&mut self, inputs: &mut Inputs) -> Outcome {
        loop {
            let now = self.membership.now();
            self.drain(now);
            if let Some(failure) = self.failure.take() {
                return Outcome::Leaving(Leaving::Failed(failure));
            }
            if let Some(info) = self.part.fetching().and_then(|fetching| fetching.received.take()) {
                return self.handle_metadata(info);
            }
            if self.machine.is_goal_reached(now) {
                return Outcome::Leaving(Leaving::GoalReached);
            }
            self.tell_demand(now);
            self.publish(now);
            inputs.inbox.attend(&mut self.membership.connections);
            let deadline =
                self.machine.poll_timeout().into_iter().chain(self.membership.poll_timeout()).min();
            let timer = self.membership.context.clock.timer(deadline.unwrap_or_default());
            let has_room = self.machine.has_room();
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
                lease = inputs.lease.next() => self.machine.torrent.handle_lease(self.membership.now(), lease),
                () = sleep_until(timer), if deadline.is_some() => self.handle_timeout(),
            }
        }
    }

    /// The metadata is received.
    fn handle_metadata(&mut self, info: Box<Info>) -> Outcome {
        if info.private {
            // A supervisor that is behind lets the handshakes of others know that we have a DHT
            // node, no more.
            let told = input::Input::Private(self.membership.infohash);
            let _ = self.membership.context.supervisor.try_send(told);
        }
        Outcome::Metadata(info)
    }

    /// The first inputs of a part: our share, if it was told already, and what the user gave.
    pub(super) fn begin(&mut self, lease: Option<Lease>, wishes: Wishes) {
        let now = self.membership.now();
        self.tell_journal();
        self.drain(now);
        if let Some(lease) = lease {
            self.machine.torrent.handle_lease(now, lease);
            self.drain(now);
        }
        for command in wishes.commands {
            self.machine.torrent.handle_command(now, command);
            self.drain(now);
        }
        for (source, peers) in wishes.peers {
            self.machine.discovery_mut().handle_peers(source, peers);
            self.drain(now);
        }
        self.membership.report.hurry();
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
                self.machine.torrent.handle_command(now, command);
                self.drain(now);
                self.membership.report.hurry();
                // Who does not wait any more needs no answer.
                let _ = reply.send(());
            }
            Control::Peers(source, peers) => self.machine.discovery_mut().handle_peers(source, peers),
            // Taken out before.
            Control::Stop(_, reply) => drop(reply),
        }
    }

    pub(super) fn connected(&mut self, now: Instant, established: Established) {
        let connected = established.connected;
        let conn = self.membership.connections.open(established);
        self.machine.torrent.handle_connected(now, conn, connected);
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
            next = if self.machine.has_room() { inbox.try_recv() } else { None };
        }
        if let Some(input) = next {
            self.handle_input(now, input);
        }
    }

    fn handle_input(&mut self, now: Instant, input: Input) {
        let (torrent, storage) = (&mut self.machine.torrent, &mut self.machine.storage);
        let is_open = |conn| self.membership.connections.is_open(conn);
        match input {
            Input::Received(conn, batch) => self.handle_received(now, conn, batch),
            Input::Sent(conn, count, len) if is_open(conn) => {
                torrent.handle_blocks_sent(now, conn, count, len);
            }
            Input::MetadataSent(conn, count) if is_open(conn) => {
                torrent.handle_metadata_sent(now, conn, count);
            }
            Input::Unsent(conn, blocks) if is_open(conn) => torrent.handle_blocks_unsent(now, conn, &blocks),
            Input::Sent(..) | Input::MetadataSent(..) | Input::Unsent(..) => {}
            Input::ReadFailed(error) => {
                if let Some(storage) = storage {
                    storage.handle_read_failed(now, error);
                }
            }
            Input::PiecesLost(lost) => {
                if let Some(storage) = storage {
                    storage.handle_lost(lost);
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
                Incoming::Message(message, _place) => {
                    self.machine.torrent.handle_message(now, conn, message);
                }
                Incoming::Block(block, mut bytes) => self.machine.handle_block(now, conn, block, || {
                    bytes.settle();
                    bytes
                }),
            }
            self.drain(now);
        }
    }

    pub(super) fn disconnected(&mut self, now: Instant, conn: ConnId) {
        if self.membership.connections.close(conn) {
            self.machine.torrent.handle_disconnected(now, conn);
        }
    }

    fn handle_dialled(&mut self, dialled: Dialled) {
        let now = self.membership.now();
        match self.membership.handle_dialled(now, dialled) {
            Ok(established) => self.connected(now, established),
            Err(addr) => self.machine.torrent.handle_dial_failed(now, addr),
        }
    }

    pub(super) fn handle_answered(&mut self, answered: Answered) {
        self.membership.report.touch();
        let now = self.membership.now();
        self.membership.sources.handle(now, self.machine.discovery_mut(), answered);
    }

    pub(super) fn handle_timeout(&mut self) {
        let now = self.membership.now();
        if self.machine.handle_timeout(now) {
            self.membership.report.touch();
        }
        self.membership.handle_timeout(now);
    }

    fn tell_demand(&mut self, now: Instant) {
        if let Some(demand) = self.machine.poll_demand(now) {
            if !self.membership.tell_demand(demand) {
                self.machine.handle_demand_untold();
            }
            self.drain(now);
        }
    }

    pub(super) fn publish(&mut self, now: Instant) {
        if self.membership.report.due_at().is_none_or(|at| at > now) {
            return;
        }
        let torrent = self.machine.torrent.snapshot(now);
        let done_lens = self.part.content().map(|content| content.files.done_lens().to_vec());
        let discovery = self.machine.discovery();
        let snapshot = Snapshot {
            stage: self.stage(&torrent),
            torrent,
            trackers: discovery.tracker_statuses(),
            dht: discovery.dht_status(),
            file_done_lens: done_lens.unwrap_or_default(),
            finished: self.machine.finished_at().is_some(),
        };
        self.membership.report.publish(now, snapshot);
    }

    /// As the user sees it.
    fn stage(&self, figures: &TorrentSnapshot) -> Stage {
        if figures.paused {
            return Stage::Paused;
        }
        let Some(storage) = &self.machine.storage else { return self.metadata_stage(figures) };
        match (storage.completion(), storage.fault()) {
            (_, Some(fault)) => Stage::Waiting(fault.clone()),
            (Completion::Finished(_), None) => Stage::Seeding,
            (Completion::Missing | Completion::Finishing, None) => Stage::Downloading,
        }
    }

    fn metadata_stage(&self, figures: &TorrentSnapshot) -> Stage {
        let progress = self.machine.torrent.metadata_progress().unwrap_or_default();
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
    fn new(disk: SharedStore, jobs: Jobs, found: &lifecycle::Started) -> Self {
        let files = FileProgress::new(disk.info(), &found.have);
        Self { disk, files, jobs }
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
