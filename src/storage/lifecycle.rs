//! The lifecycle of one torrent's content as one state machine: start, store, lose, retry, finish,
//! close.
//!
//! The engine runs its jobs on disk threads, the simulator in virtual time. It has the contract of
//! every machine: only the `handle_*` methods change it; after each of them the caller drains
//! [`Lifecycle::poll_output`] to `None`, and it calls [`Lifecycle::handle_timeout`] at
//! [`Lifecycle::poll_timeout`].
//!
//! `start` opens the journal, hashes the pieces that it does not name and prepares for writing
//! ([`Event::Started`]); until then no blocks are accepted. Then `ready` decides what is stored,
//! committed and tried again. Lost pieces are removed from the journal before they become
//! requestable ([`Event::LossNoted`]), so that the journal never claims a piece whose bytes are
//! being overwritten. At the end ([`Lifecycle::handle_leave`]) blocks in memory are written, losses
//! are recorded and the content is closed.

mod now;
mod output;
mod ready;
mod start;
mod step;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::SystemTime;

use super::content::LostPiece;
use super::fault::{JobError, StorageFault};
use super::foreign::Misfit;
use super::fs::{FileSystem, Obstacle};
use super::pieces::{PartialPiece, Spill, WholePiece};
use super::store::Store;
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::piece::{Geometry, PieceIndex, PieceResult};
use crate::proto::time::Instant;
pub use output::{Event, Job, Output};
pub(in crate::storage) use ready::STORAGE_RETRY;
use ready::{Finish, Work};
use start::Start;
pub(in crate::storage) use step::folder_gone;
pub use step::{Begun, Compared, Prepared, Step, StepDone};

/// What is known about a torrent's content on disk before its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Nothing: pieces that the journal does not record are hashed.
    #[default]
    Unknown,
    /// All of it was hashed, beginning at this time. Pieces of files that have changed since are
    /// hashed again.
    Hashed(SystemTime),
    /// It is complete, on the user's word; its files are first looked at when a block of them is
    /// requested.
    Assumed,
}

/// How complete the content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Wanted pieces are missing.
    Missing,
    /// Every wanted piece is present; empty files and durability are in progress, or wait for the
    /// disk.
    Finishing,
    /// Everything has been present and durable since this time.
    Finished(Instant),
}

/// The purpose of a torrent, which decides what may be done to existing files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To download it. Existing files are untouched, and the torrent does not start, unless they
    /// are an earlier download of it.
    #[default]
    Download,
    /// To download it; any existing file in its place may be overwritten and truncated.
    Overwrite,
    /// To upload it. No file is written, and the torrent does not start if anything is missing.
    Seed,
}

/// How a torrent is to be started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// What may be done to files.
    pub purpose: Purpose,
    /// What is known about them.
    pub existing: Existing,
    /// Whether disk space for all files is preallocated.
    pub preallocate: bool,
}

/// Why a torrent does not start with the files on the disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Files in the place of the torrent's are not an earlier download; none was touched.
    #[error("files that were there before are not touched")]
    Foreign(Vec<Misfit>),
    /// Something else stands in the place of a file or folder.
    #[error("{path}: {obstacle}", path = path.display())]
    Obstacle {
        /// The place.
        path: PathBuf,
        /// What stands there.
        obstacle: Obstacle,
    },
    /// Content to be seeded is missing or damaged.
    #[error("content is missing or damaged")]
    Incomplete {
        /// Missing bytes.
        missing_len: u64,
        /// Files that do not fit the torrent.
        misfits: Vec<Misfit>,
    },
}

/// The result of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Pieces that are present.
    pub have: Bitfield,
    /// Blocks of incomplete pieces.
    pub partial: Vec<PartialPiece>,
    /// Files of a seed that are longer than the torrent says.
    pub longer: Vec<Misfit>,
}

/// The content of one torrent. `B` is a block's buffer.
#[derive(Debug)]
pub struct Lifecycle<B> {
    plan: Plan,
    geometry: Geometry,
    /// Wanted pieces; `None` if all are wanted.
    wanted: Option<Box<Bitfield>>,
    /// Pieces that are present.
    have: Bitfield,
    phase: Phase,
    /// Allocated by the first write or fault: most torrents of many only seed.
    work: Option<Box<Work<B>>>,
    completion: Completion,
    finish: Finish,
    /// Whether no wanted piece was missing at the start.
    started_complete: bool,
    has_failed: bool,
    /// Running [`Step::Lose`] steps.
    losing_count: u32,
    outputs: VecDeque<Output<B>>,
}

#[derive(Debug)]
enum Phase {
    Starting(Box<Start>),
    Ready,
    Leaving {
        /// Whether [`Step::Close`] is running.
        is_closing: bool,
    },
    Ended,
}

impl<B> Lifecycle<B> {
    /// Starts; the first outputs are available at once.
    pub fn new<F: FileSystem>(store: &Store<F>, plan: Plan, now: Instant) -> Self {
        let (content, geometry) = (store.content(), store.info().geometry);
        let wanted = Some(content.wanted()).filter(|wanted| !wanted.is_full()).map(Box::new);
        let mut this = Self::idle(plan, geometry, wanted);
        // A single file with a plain name needs no lookup.
        let is_plain = store.info().files.len() == 1 && !content.has_delicate_names();
        if plan.existing == Existing::Assumed && is_plain {
            this.assume_complete(now);
        } else {
            this.request();
        }
        this
    }

    fn idle(plan: Plan, geometry: Geometry, wanted: Option<Box<Bitfield>>) -> Self {
        Self {
            plan,
            geometry,
            wanted,
            have: Bitfield::new(geometry.piece_count()),
            phase: Phase::Starting(Box::new(Start::new(plan))),
            work: None,
            completion: Completion::Missing,
            finish: Finish::default(),
            started_complete: false,
            has_failed: false,
            losing_count: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Returns the pieces that are present.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Returns how complete the content is.
    pub fn completion(&self) -> Completion {
        self.completion
    }

    /// Whether no wanted piece was missing at the start.
    pub fn started_complete(&self) -> bool {
        self.started_complete
    }

    /// Whether the content is closed, or did not start.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Returns why the disk accepts no data now.
    pub fn fault(&self) -> Option<&StorageFault> {
        self.work.as_ref()?.fault.as_ref()
    }

    /// Returns the bytes of wanted pieces, and of those that are present.
    pub fn wanted_lens(&self) -> (u64, u64) {
        let wanted_len = self.missing_len(&Bitfield::new(self.geometry.piece_count()));
        (wanted_len, wanted_len - self.missing_len(&self.have))
    }

    /// Whether the disk keeps up; otherwise connections must not be read.
    pub fn has_room(&self) -> bool {
        self.work.as_ref().is_none_or(|work| work.pieces.has_room())
    }

    /// Returns the next output.
    pub fn poll_output(&mut self) -> Option<Output<B>> {
        let output = self.outputs.pop_front();
        if self.outputs.is_empty() {
            // Most torrents of many are idle: they keep no room for outputs.
            self.outputs = VecDeque::new();
        }
        output
    }

    /// Returns when [`Lifecycle::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Starting(start) => start.retry_at,
            Phase::Ready => self.retry_at(),
            Phase::Leaving { .. } | Phase::Ended => None,
        }
    }

    /// Tries again what failed, and commits what is old enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Starting(start) => {
                if start.retry_at.take_if(|at| *at <= now).is_some() {
                    self.request();
                }
            }
            Phase::Ready => self.retry(now),
            Phase::Leaving { .. } | Phase::Ended => {}
        }
    }

    /// Keeps a block for its piece.
    pub fn handle_block(&mut self, now: Instant, block: Block, content: B) {
        self.keep(now, block, content);
    }

    /// All blocks of a piece were received: stores it. `block_hashes` says whether the hash of each
    /// block is wanted.
    pub fn handle_whole(&mut self, piece: PieceIndex, block_hashes: bool) {
        self.work().pieces.complete(piece, block_hashes);
        self.store_if_ready(piece);
    }

    /// Drops the blocks of a piece that are no longer needed.
    pub fn handle_dropped(&mut self, piece: PieceIndex) {
        self.work().pieces.discard(piece);
    }

    /// Every wanted piece is present: finishes the content, once.
    pub fn handle_complete(&mut self) {
        self.complete();
    }

    /// A piece came back from the disk.
    pub fn handle_stored(
        &mut self,
        now: Instant,
        whole: WholePiece<B>,
        result: Result<PieceResult, JobError>,
    ) {
        let piece = whole.piece;
        match result {
            Ok(result) => {
                drop(whole);
                let is_good = matches!(result, PieceResult::Good(_));
                self.report(Event::Piece(piece, result));
                if is_good {
                    self.have.set(piece);
                    self.stored(now, piece);
                } else {
                    self.work().pieces.stored(piece);
                }
            }
            Err(error) => {
                let fault = self.fail(&error);
                self.not_stored(now, whole, fault);
            }
        }
        self.advance_leave();
    }

    /// Blocks came back from the disk, with the CRC-32 of each, or were not written.
    pub fn handle_spilled(&mut self, now: Instant, spill: Spill<B>, written: Result<Vec<u32>, JobError>) {
        match written {
            Ok(crcs) => self.spilled(now, spill, &crcs),
            Err(error) => {
                let fault = self.fail(&error);
                self.not_spilled(now, spill, fault);
            }
        }
        self.advance_leave();
    }

    /// A block could not be read for upload; `error` says why.
    pub fn handle_read_failed(&mut self, now: Instant, error: String) {
        self.failed(now, StorageFault::Failed(error));
    }

    /// Pieces turned out to be lost: another program changed files, or the disk lost written bytes.
    /// They are downloaded again only while the content is incomplete; complete content stays as
    /// the other program left it.
    pub fn handle_lost(&mut self, lost: Vec<LostPiece>) {
        let lost: Vec<_> = lost.into_iter().filter(|lost| self.have.clear(lost.piece)).collect();
        if lost.is_empty() {
            return;
        }
        let pieces = lost.iter().map(|lost| lost.piece).collect();
        let is_fetching = self.reopen() && self.plan.purpose != Purpose::Seed;
        self.report(Event::Lost { lost, is_fetching });
        self.ask(Job::Run(Step::Lose(pieces)));
        self.losing_count += 1;
        if !self.is_missing() {
            // The lost pieces are not wanted.
            self.complete();
        }
    }

    /// A step ended.
    pub fn handle_step(&mut self, now: Instant, done: StepDone) {
        match done {
            StepDone::NamesFound => self.names_found(now),
            StepDone::Begun(begun) => self.begun(now, begun),
            StepDone::Compared(compared) => self.compared(now, compared),
            StepDone::Prepared(prepared) => self.prepared(now, prepared),
            StepDone::Committed(committed) => {
                let result = self.unless_lost(committed);
                self.committed(now, result);
            }
            StepDone::Finished(Err(error)) if self.started_complete => {
                // Complete content may lie in a read-only folder.
                self.report(Event::Ignored(error));
                self.finished(now, Ok(()));
            }
            StepDone::Finished(finished) => {
                let result = self.unless_lost(finished);
                self.finished(now, result);
            }
            StepDone::Lost(pieces, noted) => {
                self.losing_count = self.losing_count.saturating_sub(1);
                self.outputs.extend(noted.err().map(Event::Ignored).map(Output::Event));
                self.report(Event::LossNoted(pieces));
            }
            StepDone::Noted(Ok(lost)) => self.handle_lost(lost),
            StepDone::Noted(Err(error)) => self.report(Event::Ignored(error)),
            StepDone::Closed(closed) => self.closed(closed),
        }
        self.advance_leave();
    }

    /// The torrent leaves: [`Event::Closed`] follows when all jobs have ended and everything is
    /// durable.
    pub fn handle_leave(&mut self) {
        self.phase = Phase::Leaving { is_closing: false };
        self.advance_leave();
    }

    fn closed(&mut self, closed: Result<Vec<LostPiece>, JobError>) {
        match closed {
            Ok(lost) if !lost.is_empty() => {
                // Closed again once the journal no longer names them.
                self.phase = Phase::Leaving { is_closing: false };
                self.handle_lost(lost);
            }
            closed => {
                self.phase = Phase::Ended;
                self.report(Event::Closed(closed.err()));
            }
        }
    }

    /// Returns the result of a commit or a finish, after reporting lost pieces.
    fn unless_lost(&mut self, result: Result<Vec<LostPiece>, JobError>) -> Result<(), StorageFault> {
        match result {
            Ok(lost) => {
                self.handle_lost(lost);
                Ok(())
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Returns the fault of an error. A full or failing disk is a state that may clear; an error
    /// that needs the user ends the torrent.
    fn fail(&mut self, error: &JobError) -> StorageFault {
        if !error.error.may_pass() && !self.has_failed {
            self.has_failed = true;
            self.report(Event::Failed(error.to_string()));
        }
        error.fault(self.missing_len(&self.have))
    }

    /// Whether a wanted piece is missing.
    fn is_missing(&self) -> bool {
        self.wanted.as_ref().map_or(!self.have.is_full(), |wanted| wanted.has_more_than(&self.have))
    }

    /// Returns the bytes of wanted pieces that are not among `have`.
    fn missing_len(&self, have: &Bitfield) -> u64 {
        let is_missing = |piece: &PieceIndex| {
            !have.get(*piece) && self.wanted.as_ref().is_none_or(|wanted| wanted.get(*piece))
        };
        let missing = (0..self.geometry.piece_count()).filter(is_missing);
        missing.map(|piece| u64::from(self.geometry.len_of(piece))).sum()
    }

    /// Takes the next step towards the end, if the torrent leaves.
    fn advance_leave(&mut self) {
        let Phase::Leaving { is_closing: false } = self.phase else { return };
        // The next start need not download blocks that are on the disk.
        self.spill_all();
        if !self.is_busy() && self.losing_count == 0 {
            self.close();
        }
    }

    fn close(&mut self) {
        if self.plan.existing == Existing::Assumed {
            // No file was looked at or written.
            return self.closed(Ok(Vec::new()));
        }
        self.phase = Phase::Leaving { is_closing: true };
        self.ask(Job::Run(Step::Close(self.have.clone())));
    }

    fn ask(&mut self, job: Job<B>) {
        self.outputs.push_back(Output::Job(job));
    }

    fn report(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Sets the state of the disk, and reports it if its cause is new.
    fn tell(&mut self, fault: Option<StorageFault>) {
        let is_known = match (self.fault(), &fault) {
            (Some(last), Some(fault)) => last.is_like(fault),
            (None, None) => return,
            (Some(_), None) | (None, Some(_)) => false,
        };
        self.work().fault.clone_from(&fault);
        if !is_known {
            self.report(Event::Storage(fault));
        }
    }
}

#[cfg(test)]
#[path = "lifecycle/tests.rs"]
mod tests;
