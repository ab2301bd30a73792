//! The content of a torrent: the task's part that has its machine and the bytes of its pieces.

use tokio::time::{Duration, sleep_until};

use super::connections::Inbox;
use super::jobs::Jobs;
use super::report::FileProgress;
use super::sources::Answered;
use super::start::Ready;
use super::swarm::{Dialled, Swarm};
use super::{Inputs, Leaving, Plan, Wishes};
use crate::engine::context::{Control, Established, Incoming, Input};
use crate::engine::handle::Stage;
use crate::engine::pool::BlockBuf;
use crate::proto::rng::Rng;
use crate::proto::session::Lease;
use crate::proto::time::Instant;
use crate::proto::torrent::Torrent;
use crate::proto::torrent::description::Handover;
use crate::proto::torrent::event::{ConnId, Receipt, Settings};
use crate::storage::disk::DiskContent;
use crate::storage::lifecycle::{Completion, Lifecycle};

/// Inputs of connections taken before timers and the user are looked at again.
const INPUT_MAX: usize = 64;

/// The state of the task in this part.
pub(super) struct TorrentTask {
    pub(super) swarm: Swarm,
    pub(super) content: DiskContent,
    pub(super) plan: Plan,
    pub(super) machine: Torrent,
    pub(super) storage: Lifecycle<BlockBuf>,
    pub(super) files: FileProgress,
    /// Why the torrent cannot go on, in words.
    pub(super) failure: Option<String>,
    pub(super) jobs: Jobs,
    /// The content is closed, for the end.
    pub(super) is_closed: bool,
}

impl TorrentTask {
    /// A member of its swarm that has what was found.
    pub(super) fn new(swarm: Swarm, plan: Plan, ready: Ready, mut rng: Rng) -> (Self, Wishes) {
        let Ready { content, storage, jobs, found, wishes } = ready;
        let have = found.have;
        let (context, info) = (&swarm.context, content.info());
        let (geometry, now) = (info.geometry, swarm.now());
        let files = FileProgress::new(info, &have);
        let settings = Settings {
            infohash: info.infohash,
            peer_id: swarm.peer_id,
            listen_port: Some(context.port),
            swarming_interval: context.config.swarming_interval,
            sequential: plan.sequential,
            metadata: info.bytes.clone(),
            private: info.private,
            pex: context.config.pex && !info.private,
            dht_port: context.dht.is_some().then_some(context.port),
            connection_max: context.config.limits.torrent_connection_max,
        };
        let mut machine =
            Torrent::new(settings, geometry, have, content.content().wanted(), rng.fork("machine"), now);
        for partial in &found.partial {
            let blocks: Vec<u32> = partial.blocks.iter().map(|block| block.index).collect();
            machine.handle_restored(now, partial.piece, &blocks);
        }
        let (failure, is_closed) = (None, false);
        let task = Self { swarm, content, plan, machine, storage, files, failure, jobs, is_closed };
        (task, wishes)
    }

    /// Lives until the torrent leaves.
    pub(super) async fn run(mut self: Box<Self>, mut inputs: Inputs) {
        let leaving = loop {
            let now = self.swarm.now();
            self.drain(now);
            if let Some(failure) = self.failure.take() {
                break Leaving::Failed(failure);
            }
            if self.is_goal_reached(now) {
                break Leaving::GoalReached;
            }
            self.tell_demand(now);
            self.publish(now);
            inputs.inbox.attend(&mut self.swarm.connections);
            let deadline = self.deadline();
            let timer = self.swarm.context.clock.timer(deadline.unwrap_or_default());
            tokio::select! {
                control = inputs.control.recv() => match control {
                    Some(Control::Stop(grace, reply)) => break Leaving::Told(grace, Some(reply)),
                    Some(control) => self.handle_control(control),
                    None => break Leaving::Told(Duration::ZERO, None),
                },
                input = inputs.inbox.recv(), if self.storage.has_room() => {
                    self.handle_inputs(input, &mut inputs.inbox);
                }
                ended = self.jobs.next() => self.handle_ended(ended),
                dialled = self.swarm.dials.next() => self.handle_dialled(dialled),
                answered = self.swarm.sources.next() => self.handle_answered(answered),
                lease = inputs.lease.next() => self.machine.handle_lease(self.swarm.now(), lease),
                () = sleep_until(timer), if deadline.is_some() => self.handle_timeout(),
            }
        };
        // Boxed, so that a torrent has no room for its end all its life.
        Box::pin(self.leave(leaving, inputs)).await;
    }

    /// The first inputs: our share, if it was told already, whom we know from fetching the
    /// description, what the user gave, and completion if nothing is missing.
    pub(super) fn begin(&mut self, lease: Option<Lease>, handover: Option<Handover>, wishes: Wishes) {
        let now = self.swarm.now();
        self.tell_journal();
        if let Some(handover) = handover {
            self.machine.handle_handover(now, handover);
            self.drain(now);
        }
        if let Some(lease) = lease {
            self.machine.handle_lease(now, lease);
            self.drain(now);
        }
        for command in wishes.commands {
            self.machine.handle_command(now, command);
            self.drain(now);
        }
        for (source, peers) in wishes.peers {
            self.swarm.sources.machine.handle_peers(source, peers);
            self.drain(now);
        }
        self.swarm.sources.machine.handle_lack(now, !self.storage.started_complete());
        self.drain(now);
        self.swarm.report.hurry();
    }

    fn handle_control(&mut self, control: Control) {
        let now = self.swarm.now();
        self.swarm.report.touch();
        match control {
            Control::Accepted(established) => self.connected(now, established),
            Control::Encrypted(ip) => self.swarm.refusals.get_or_insert_default().handle_encrypted(now, ip),
            Control::Command(command, reply) => {
                self.machine.handle_command(now, command);
                self.drain(now);
                self.swarm.report.hurry();
                // Who does not wait any more needs no answer.
                let _ = reply.send(());
            }
            Control::Peers(source, peers) => self.swarm.sources.machine.handle_peers(source, peers),
            // Taken out before.
            Control::Stop(_, reply) => drop(reply),
        }
    }

    pub(super) fn connected(&mut self, now: Instant, established: Established) {
        let connected = established.connected;
        let conn = self.swarm.connections.open(established);
        self.machine.handle_connected(now, conn, connected);
        self.drain(now);
    }

    /// Takes what the connections said, some of it at a time.
    fn handle_inputs(&mut self, first: Option<Input>, inbox: &mut Inbox) {
        let now = self.swarm.now();
        self.swarm.report.touch();
        let mut next = first;
        for _ in 0..INPUT_MAX {
            let Some(input) = next.take() else { break };
            self.handle_input(now, input);
            next = if self.storage.has_room() { inbox.try_recv() } else { None };
        }
        if let Some(input) = next {
            self.handle_input(now, input);
        }
    }

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Received(conn, batch) => self.handle_received(now, conn, batch),
            Input::Sent(conn, count, len) => {
                if self.swarm.connections.is_open(conn) {
                    self.machine.handle_blocks_sent(now, conn, count, len);
                }
            }
            Input::MetadataSent(conn, count) => {
                if self.swarm.connections.is_open(conn) {
                    self.machine.handle_metadata_sent(now, conn, count);
                }
            }
            Input::ReadFailed(error) => {
                self.storage.handle_read_failed(now, error);
            }
            Input::PiecesLost(lost) => self.storage.handle_lost(lost),
            Input::Unsent(conn, blocks) => {
                if self.swarm.connections.is_open(conn) {
                    self.machine.handle_blocks_unsent(now, conn, &blocks);
                }
            }
            Input::Closed(conn) => self.disconnected(now, conn),
        }
        self.drain(now);
    }

    fn handle_received(&mut self, now: Instant, conn: ConnId, batch: Vec<Incoming>) {
        for incoming in batch {
            if !self.swarm.connections.is_open(conn) {
                return;
            }
            match incoming {
                Incoming::Message(message, _place) => self.machine.handle_message(now, conn, message),
                Incoming::Block(block, mut content) => match self.machine.handle_block(now, conn, block) {
                    Receipt::Keep => {
                        content.settle();
                        self.storage.handle_block(now, block, content);
                    }
                    Receipt::Discard => drop(content),
                },
            }
            self.drain(now);
        }
    }

    pub(super) fn disconnected(&mut self, now: Instant, conn: ConnId) {
        if self.swarm.connections.close(conn) {
            self.machine.handle_disconnected(now, conn);
        }
    }

    fn handle_dialled(&mut self, dialled: Dialled) {
        let now = self.swarm.now();
        match self.swarm.handle_dialled(now, dialled) {
            Ok(established) => self.connected(now, established),
            Err(addr) => self.machine.handle_dial_failed(now, addr),
        }
    }

    fn handle_answered(&mut self, answered: Answered) {
        self.report_progress();
        self.swarm.handle_answered(self.swarm.now(), answered);
    }

    /// Counters for announces.
    pub(super) fn report_progress(&mut self) {
        self.swarm.sources.machine.handle_progress(self.machine.progress());
    }

    fn handle_timeout(&mut self) {
        let now = self.swarm.now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.machine.poll_timeout()) {
            self.machine.handle_timeout(now);
            self.swarm.report.touch();
        }
        self.report_progress();
        self.swarm.handle_timeout(now);
        if due(self.storage.poll_timeout()) {
            self.storage.handle_timeout(now);
            self.drain(now);
            self.swarm.report.touch();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let seed_until = match (self.storage.completion(), self.plan.seed_time_max) {
            (Completion::Finished(at), Some(span)) => Some(at + span),
            (Completion::Missing | Completion::Finishing | Completion::Finished(_), _) => None,
        };
        let swarm = self.swarm.poll_timeout(self.machine.demand());
        let storage = self.storage.poll_timeout();
        [self.machine.poll_timeout(), swarm, seed_until, storage].into_iter().flatten().min()
    }

    /// Whether seeding has done what the user wanted of it.
    fn is_goal_reached(&self, now: Instant) -> bool {
        let Completion::Finished(at) = self.storage.completion() else { return false };
        let time_is_over = self.plan.seed_time_max.is_some_and(|span| now - at >= span);
        time_is_over
            || self.plan.ratio_max.is_some_and(|ratio| {
                self.machine.progress().uploaded as f64 >= ratio * self.machine.wanted_len() as f64
            })
    }

    fn tell_demand(&mut self, now: Instant) {
        let lacks = self.storage.completion() == Completion::Missing;
        self.report_progress();
        self.swarm.tell_demand(now, self.machine.demand(), lacks);
        self.drain(now);
    }

    pub(super) fn publish(&mut self, now: Instant) {
        if self.swarm.report.due_at().is_some_and(|at| at <= now) {
            let figures = self.machine.snapshot(now);
            let stage = self.stage(figures.paused);
            let finished = matches!(self.storage.completion(), Completion::Finished(_));
            self.swarm.publish(now, stage, finished, figures, self.files.done_lens().to_vec());
        }
    }

    /// As the user sees it.
    fn stage(&self, paused: bool) -> Stage {
        match (self.storage.completion(), self.storage.fault()) {
            _ if paused => Stage::Paused,
            (_, Some(fault)) => Stage::Waiting(fault.clone()),
            (Completion::Finished(_), None) => Stage::Seeding,
            (Completion::Missing | Completion::Finishing, None) => Stage::Downloading,
        }
    }
}
