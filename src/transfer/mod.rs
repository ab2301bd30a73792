//! One torrent as a whole: its peers ([`Torrent`]), the sources of their addresses ([`Discovery`])
//! and its content ([`Lifecycle`]), joined into one state machine.
//!
//! The three do not know each other. What one of them decides and another has to know is passed on
//! here, in one order, for the engine and the simulator alike. An input that concerns one machine
//! goes to that machine; after each input the caller drains [`Transfer::poll_output`] to `None`.

#[cfg(test)]
mod tests;

use crate::proto::block::Block;
use crate::proto::discovery::event::DiscoveryEvent;
use crate::proto::discovery::{self, Discovery};
use crate::proto::metainfo::{Info, MetainfoError};
use crate::proto::session::{Demand, LEASE_INTERVAL};
use crate::proto::time::Instant;
use crate::proto::torrent::Torrent;
use crate::proto::torrent::event::{self, Command, ConnId, Receipt};
use crate::proto::torrent::share_goal::ShareGoal;
use crate::storage::lifecycle::{self, Completion, Job, Lifecycle};
use crate::storage::pieces::PartialPiece;

/// The machine. `B` is a block's buffer.
#[derive(Debug)]
pub struct Transfer<B> {
    /// The peers, and what is exchanged with them.
    pub torrent: Torrent,
    discovery: Discovery,
    /// The content, once it is started.
    pub storage: Option<Lifecycle<B>>,
    goal: ShareGoal,
    /// The demand that the session was told last, and when; None: it could not be told.
    demand: (Option<Demand>, Instant),
    is_leaving: bool,
}

/// What the shell has to do.
#[derive(Debug)]
#[must_use]
pub enum Output<B> {
    /// A decision about peers. [`event::Output::Metadata`] comes as [`Output::Metadata`]; without
    /// storage, what it should do comes here.
    Torrent(event::Output),
    /// A question to a source of peers; [`discovery::event::Output::Found`] is answered by
    /// [`Transfer::handle_found`].
    Discovery(discovery::event::Output),
    /// Work for the disk.
    Job(Job<B>),
    /// Something that happened to the content, of which the torrent was told.
    Storage(lifecycle::Event),
    /// The metadata was received: the content is to be started, and then given to
    /// [`Transfer::begin_content`]. Or its hash is right, but it describes no content.
    Metadata(Result<Box<Info>, MetainfoError>),
}

impl<B> Transfer<B> {
    /// Joins the machines of a torrent that begins; of incomplete pieces these blocks are present.
    pub fn new(
        torrent: Torrent,
        discovery: Discovery,
        storage: Option<Lifecycle<B>>,
        partial: &[PartialPiece],
        goal: ShareGoal,
        now: Instant,
    ) -> Self {
        let demand = (Some(Demand::default()), now);
        let mut this = Self { torrent, discovery, storage, goal, demand, is_leaving: false };
        this.restore(now, partial);
        this
    }

    /// The content whose metadata was received is started; the torrent was told
    /// ([`Torrent::handle_content`]).
    pub fn begin_content(&mut self, now: Instant, storage: Lifecycle<B>, partial: &[PartialPiece]) {
        self.storage = Some(storage);
        self.restore(now, partial);
    }

    fn restore(&mut self, now: Instant, partial: &[PartialPiece]) {
        for partial in partial {
            let blocks: Vec<u32> = partial.blocks.iter().map(|block| block.index).collect();
            self.torrent.handle_restored(now, partial.piece, &blocks);
        }
        self.discovery.handle_lack(now, !self.torrent.is_complete());
    }

    /// Returns the sources of peers.
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Returns the sources of peers for an input; they know the torrent's counters, which announces
    /// say.
    pub fn discovery_mut(&mut self) -> &mut Discovery {
        self.discovery.handle_progress(self.torrent.progress());
        &mut self.discovery
    }

    /// A source of peers found something.
    pub fn handle_found(&mut self, now: Instant, found: DiscoveryEvent) {
        match found {
            DiscoveryEvent::Peers(source, peers) => self.torrent.handle_candidates(now, source, &peers),
            DiscoveryEvent::ExternalIp(ip) => self.torrent.handle_external_ip(now, ip),
        }
    }

    /// A block came whole; `content` gives its bytes if they are kept.
    pub fn handle_block(&mut self, now: Instant, conn: ConnId, block: Block, content: impl FnOnce() -> B) {
        let receipt = self.torrent.handle_block(now, conn, block);
        if let (Receipt::Keep, Some(storage)) = (receipt, &mut self.storage) {
            storage.handle_block(now, block, content());
        }
    }

    /// The torrent leaves: see [`Transfer::has_left`]. Connections end without another message.
    pub fn handle_leave(&mut self, now: Instant) {
        self.is_leaving = true;
        self.discovery_mut().handle_stopped(now);
        self.torrent.handle_command(now, Command::Pause);
        if let Some(storage) = &mut self.storage {
            storage.handle_leave();
        }
    }

    /// Returns whether each `stopped` is answered or given up, and the content is closed.
    pub fn has_left(&self) -> bool {
        let is_closed = self.storage.as_ref().is_none_or(Lifecycle::is_ended);
        self.is_leaving && self.discovery.is_done() && is_closed
    }

    /// Returns the demand that the session is to be told, if it has changed and the last one was
    /// told long enough ago; the sources of peers hear of it, too.
    pub fn poll_demand(&mut self, now: Instant) -> Option<Demand> {
        let (demand, (last, at)) = (self.torrent.demand(), self.demand);
        if Some(demand) == last || now < at + LEASE_INTERVAL {
            return None;
        }
        self.demand = (Some(demand), now);
        let lacks_pieces = self.completion() == Completion::Missing;
        self.discovery_mut().handle_demand(now, &demand, lacks_pieces);
        Some(demand)
    }

    /// The session could not be told the last demand: it is told again.
    pub fn handle_demand_untold(&mut self) {
        self.demand.0 = None;
    }

    /// Returns whether blocks may come: the disk keeps up.
    pub fn has_room(&self) -> bool {
        self.storage.as_ref().is_none_or(Lifecycle::has_room)
    }

    /// Returns how complete the content is.
    pub fn completion(&self) -> Completion {
        match &self.storage {
            Some(storage) => storage.completion(),
            None if self.torrent.is_complete() => Completion::Finishing,
            None => Completion::Missing,
        }
    }

    /// Returns when everything wanted became durable.
    pub fn finished_at(&self) -> Option<Instant> {
        match self.completion() {
            Completion::Finished(at) => Some(at),
            Completion::Missing | Completion::Finishing => None,
        }
    }

    /// Returns whether the torrent has shared as much as its user wants.
    pub fn is_goal_reached(&self, now: Instant) -> bool {
        let (uploaded, wanted_len) = (self.torrent.progress().uploaded, self.torrent.wanted_len());
        let is_reached = |at| self.goal.is_reached(now, at, uploaded, wanted_len);
        self.finished_at().is_some_and(is_reached)
    }

    /// Returns the next decision.
    pub fn poll_output(&mut self, now: Instant) -> Option<Output<B>> {
        loop {
            let output = if let Some(output) = self.torrent.poll_output() {
                self.pass_on(now, output)
            } else if let Some(output) = self.storage.as_mut().and_then(Lifecycle::poll_output) {
                match output {
                    lifecycle::Output::Job(job) => Some(Output::Job(job)),
                    lifecycle::Output::Event(event) => self.pass_on_stored(now, event),
                }
            } else {
                return self.discovery.poll_output().map(Output::Discovery);
            };
            if output.is_some() {
                return output;
            }
        }
    }

    /// Tells the other machines what the torrent decided; returns what the shell has to do.
    fn pass_on(&mut self, now: Instant, output: event::Output) -> Option<Output<B>> {
        match (output, &mut self.storage) {
            (event::Output::VerifyPiece { piece, block_hashes }, Some(storage)) => {
                storage.handle_whole(piece, block_hashes);
            }
            (event::Output::DropPiece(piece), Some(storage)) => storage.handle_dropped(piece),
            // Reported when it is durable.
            (event::Output::Event(event::Event::Completed), Some(storage)) => storage.handle_complete(),
            (event::Output::Event(event::Event::Completed), None) => {
                self.completed(now);
                return Some(Output::Torrent(event::Output::Event(event::Event::Completed)));
            }
            (event::Output::Metadata(bytes), _) => {
                let info = Info::decode(bytes);
                if info.as_ref().is_ok_and(|info| info.private) {
                    self.discovery.handle_private();
                    self.torrent.handle_private(now);
                }
                return Some(Output::Metadata(info.map(Box::new)));
            }
            (output, _) => return Some(Output::Torrent(output)),
        }
        None
    }

    /// Tells the other machines what happened to the content; returns what the shell has to know.
    fn pass_on_stored(&mut self, now: Instant, event: lifecycle::Event) -> Option<Output<B>> {
        match &event {
            lifecycle::Event::Piece(..) => {}
            lifecycle::Event::Lost { lost, is_fetching } => {
                let pieces = lost.iter().map(|lost| lost.piece).collect();
                self.torrent.handle_lost(now, pieces, *is_fetching);
            }
            lifecycle::Event::LossNoted(pieces) => self.torrent.handle_loss_noted(now, pieces),
            lifecycle::Event::Storage(fault) => self.torrent.handle_storage(now, fault.is_some()),
            lifecycle::Event::Completed => self.completed(now),
            lifecycle::Event::Started(_)
            | lifecycle::Event::Refused(_)
            | lifecycle::Event::Failed(_)
            | lifecycle::Event::Ignored(_)
            | lifecycle::Event::Closed(_) => {}
        }
        let lifecycle::Event::Piece(piece, result) = event else { return Some(Output::Storage(event)) };
        self.torrent.handle_piece_result(now, piece, result);
        None
    }

    /// Everything wanted is present and durable.
    fn completed(&mut self, now: Instant) {
        if self.torrent.have().is_full() {
            let was_fetched = self.storage.as_ref().is_none_or(|storage| !storage.started_complete());
            self.discovery_mut().handle_completed(now, was_fetched);
        }
        self.discovery.handle_lack(now, false);
    }

    /// Returns when to call [`Transfer::handle_timeout`] or [`Transfer::poll_demand`], or to look
    /// at [`Transfer::is_goal_reached`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_leaving {
            return self.discovery.poll_timeout();
        }
        let (last, at) = self.demand;
        let demand_at = (Some(self.torrent.demand()) != last).then_some(at + LEASE_INTERVAL);
        let goal_at = self.finished_at().and_then(|at| self.goal.due_at(at));
        let storage = self.storage.as_ref().and_then(Lifecycle::poll_timeout);
        let machines = [self.torrent.poll_timeout(), self.discovery.poll_timeout(), storage];
        machines.into_iter().chain([demand_at, goal_at]).flatten().min()
    }

    /// Time passed. Returns whether a machine had to do with it.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let (torrent, discovery) =
            (is_due(self.torrent.poll_timeout()), is_due(self.discovery.poll_timeout()));
        if torrent {
            self.torrent.handle_timeout(now);
        }
        if discovery {
            self.discovery_mut().handle_timeout(now);
        }
        let storage = self.storage.as_mut().filter(|storage| is_due(storage.poll_timeout()));
        let is_any = torrent || discovery || storage.is_some();
        if let Some(storage) = storage {
            storage.handle_timeout(now);
        }
        is_any
    }
}
