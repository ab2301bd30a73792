//! The disk work of content that is ready: stores complete pieces, makes them durable, tries again
//! what failed, and declares the content complete once all of it is durable.
//!
//! No piece is lost on a full disk: it waits with its blocks. Blocks of a slow piece are written
//! before the piece is complete. The disk counts as accepting data again only when everything that
//! failed has succeeded, whatever else succeeds meanwhile.

use super::{Completion, Event, Existing, Job, Lifecycle, Output, Phase, Purpose, Step};
use crate::proto::block::Block;
use crate::proto::piece::PieceIndex;
use crate::proto::time::{Duration, Instant};
use crate::storage::durability::Durability;
use crate::storage::fault::StorageFault;
use crate::storage::pieces::{PieceBuffers, Spill, WholePiece};

/// Interval between attempts on a full or failing disk: short for a user who has made room, and one
/// write a second costs nothing.
pub(in crate::storage) const STORAGE_RETRY: Duration = Duration::from_secs(1);

/// Most by which a commit is brought forward for blocks of incomplete pieces: few wait longer, and
/// they are not worth an immediate commit.
const SPILLED_AGE_MAX: Duration = Duration::from_secs(1);

/// The state of writes and faults.
#[derive(Debug)]
pub(super) struct Work<B> {
    /// Blocks of pieces that are not stored.
    pub(super) pieces: PieceBuffers<B>,
    durability: Durability,
    failing: Failing<B>,
    /// Why the disk accepts no data now.
    pub(super) fault: Option<StorageFault>,
}

/// The operations whose last attempt failed.
#[derive(Debug)]
struct Failing<B> {
    /// Complete pieces that could not be written.
    parked: Vec<WholePiece<B>>,
    spill: bool,
    commit: bool,
    finish: bool,
    /// When all of them are tried again.
    retry_at: Option<Instant>,
}

/// The last look at all files before the content counts as complete.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Finish {
    is_running: bool,
    /// Whether pieces were lost since it began, so that its result proves nothing.
    is_stale: bool,
}

impl<B> Default for Failing<B> {
    fn default() -> Self {
        Self { parked: Vec::new(), spill: false, commit: false, finish: false, retry_at: None }
    }
}

impl<B> Failing<B> {
    fn is_empty(&self) -> bool {
        self.parked.is_empty() && !(self.spill || self.commit || self.finish) && self.retry_at.is_none()
    }
}

impl<B> Work<B> {
    fn retry_at(&self) -> Option<Instant> {
        [self.failing.retry_at, self.spill_at(), self.durability.due_at()].into_iter().flatten().min()
    }

    /// The next time to spill; blocks that could not be written wait for the common retry.
    fn spill_at(&self) -> Option<Instant> {
        self.pieces.spill_at().filter(|_| !self.failing.spill)
    }
}

impl<B> Lifecycle<B> {
    pub(super) fn work(&mut self) -> &mut Work<B> {
        let geometry = self.geometry;
        self.work.get_or_insert_with(|| {
            let pieces = PieceBuffers::new(geometry);
            let (durability, failing) = (Durability::default(), Failing::default());
            Box::new(Work { pieces, durability, failing, fault: None })
        })
    }

    pub(super) fn keep(&mut self, now: Instant, block: Block, content: B) {
        let work = self.work();
        work.pieces.keep(now, block, content);
        if !work.failing.spill {
            let spill = work.pieces.spill_idlest();
            self.outputs.extend(spill.map(Job::Spill).map(Output::Job));
        }
    }

    /// Whether a piece, blocks of one, or a commit is on the disk threads.
    pub(super) fn is_busy(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.pieces.is_storing() || work.durability.is_running())
    }

    /// Stores a piece if all of its blocks were received and none of them is being written.
    pub(super) fn store_if_ready(&mut self, piece: PieceIndex) {
        if let Some(whole) = self.work().pieces.take(piece) {
            self.store(whole);
        }
    }

    fn store(&mut self, whole: WholePiece<B>) {
        self.work().pieces.storing(whole.piece);
        self.ask(Job::Store(whole));
    }

    /// A good piece was written.
    pub(super) fn stored(&mut self, now: Instant, piece: PieceIndex) {
        let work = self.work();
        let len = work.pieces.stored(piece);
        work.durability.written(now, len, Duration::ZERO);
        self.commit(now);
        self.recover();
    }

    /// A piece could not be written.
    pub(super) fn not_stored(&mut self, now: Instant, whole: WholePiece<B>, fault: StorageFault) {
        let work = self.work();
        work.pieces.stored(whole.piece);
        work.failing.parked.push(whole);
        self.failed(now, fault);
    }

    /// Blocks are on the disk, with these CRC-32 values.
    pub(super) fn spilled(&mut self, now: Instant, spill: Spill<B>, crcs: &[u32]) {
        let (piece, age) = (spill.piece, (now - spill.since()).min(SPILLED_AGE_MAX));
        let work = self.work();
        let len = work.pieces.spilled(spill, Some(crcs));
        work.durability.written(now, len, age);
        work.failing.spill = false;
        self.store_if_ready(piece);
        self.commit(now);
        self.recover();
    }

    /// Blocks could not be written.
    pub(super) fn not_spilled(&mut self, now: Instant, spill: Spill<B>, fault: StorageFault) {
        let piece = spill.piece;
        let work = self.work();
        work.pieces.spilled(spill, None);
        work.failing.spill = true;
        self.store_if_ready(piece);
        self.failed(now, fault);
    }

    /// A commit ended; lost pieces were reported before.
    pub(super) fn committed(&mut self, now: Instant, result: Result<(), StorageFault>) {
        let work = self.work();
        work.durability.end(now, result.is_ok());
        work.failing.commit = result.is_err();
        match result {
            Ok(()) => self.recover(),
            Err(fault) => self.failed(now, fault),
        }
    }

    /// A finish ended; lost pieces were reported before.
    pub(super) fn finished(&mut self, now: Instant, result: Result<(), StorageFault>) {
        let finish = std::mem::take(&mut self.finish);
        let is_failing = result.is_err() && self.completion == Completion::Finishing;
        if let Err(fault) = result {
            self.work().failing.finish = is_failing;
            return self.failed(now, fault);
        }
        self.not_finishing();
        self.recover();
        if self.completion == Completion::Finishing {
            if finish.is_stale { self.finish() } else { self.complete_at(now) }
        }
    }

    /// Pieces turned out to be lost. Returns whether they are downloaded again: complete content
    /// stays as the other program left it.
    pub(super) fn reopen(&mut self) -> bool {
        self.finish.is_stale = self.finish.is_running;
        if self.completion == Completion::Finishing {
            self.completion = Completion::Missing;
            self.not_finishing();
        }
        self.completion == Completion::Missing
    }

    /// No finish has failed that is to be tried again.
    fn not_finishing(&mut self) {
        self.work.iter_mut().for_each(|work| work.failing.finish = false);
    }

    /// Every wanted piece is present: finishes the content, once.
    pub(super) fn complete(&mut self) {
        if self.completion == Completion::Missing {
            self.completion = Completion::Finishing;
            self.finish();
        }
    }

    pub(super) fn complete_at(&mut self, now: Instant) {
        self.completion = Completion::Finished(now);
        if self.is_leaving() {
            return;
        }
        self.report(Event::Completed);
        if self.started_complete && self.plan.existing != Existing::Assumed {
            // It was complete before: no caller waits until that is durable and recorded.
            self.ask(Job::Run(Step::Note(self.have.clone())));
        }
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.finish.is_running, true) {
            return;
        }
        // A seed writes nothing to the content. When the torrent leaves, the next start finds out
        // whether the content is complete.
        if self.plan.purpose != Purpose::Seed && !self.is_leaving() {
            let is_fetched = !self.started_complete;
            let step = if is_fetched { Step::Finish(self.have.clone()) } else { Step::MakeWhole };
            self.ask(Job::Run(step));
        }
    }

    /// Tries again what failed, and commits what is old enough.
    pub(super) fn retry(&mut self, now: Instant) {
        let Some(work) = &mut self.work else { return };
        if work.failing.retry_at.take_if(|at| *at <= now).is_some() {
            work.failing.spill = false;
            let (parked, is_finishing) = (std::mem::take(&mut work.failing.parked), work.failing.finish);
            parked.into_iter().for_each(|whole| self.store(whole));
            if is_finishing {
                self.finish();
            }
            self.spill_due(now);
            // Only a read failed, or everything that failed has succeeded since.
            if !self.work().pieces.is_storing() {
                self.recover();
            }
        }
        if self.work().spill_at().is_some_and(|at| at <= now) {
            self.spill_due(now);
        }
        self.commit(now);
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.work.as_ref()?.retry_at()
    }

    fn spill_due(&mut self, now: Instant) {
        let spills = self.work().pieces.spill_due(now);
        self.outputs.extend(spills.into_iter().map(Job::Spill).map(Output::Job));
    }

    /// Spills all blocks in memory at the end, if the disk accepts data.
    pub(super) fn spill_all(&mut self) {
        if let Some(work) = self.work.as_mut().filter(|work| !work.failing.spill) {
            self.outputs.extend(work.pieces.spill_all().into_iter().map(Job::Spill).map(Output::Job));
        }
    }

    fn commit(&mut self, now: Instant) {
        if self.work().durability.begin(now) {
            self.ask(Job::Run(Step::Commit));
        }
    }

    pub(super) fn failed(&mut self, now: Instant, fault: StorageFault) {
        self.work().failing.retry_at = Some(now + STORAGE_RETRY);
        // An error that does not clear ends the torrent and is reported as such.
        if !self.has_failed {
            self.tell(Some(fault));
        }
    }

    /// Something succeeded: reports that the disk accepts data again if nothing else is failing.
    fn recover(&mut self) {
        if self.work.as_ref().is_some_and(|work| work.failing.is_empty()) {
            self.tell(None);
        }
    }

    fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving { .. } | Phase::Ended)
    }
}

#[cfg(test)]
#[path = "ready_tests.rs"]
mod tests;
