//! What is done with the disk, and when, once the content is ready: whole pieces are stored, what
//! is stored is made durable, what failed is tried again, and the content is complete once all of
//! it is durable.
//!
//! A full disk loses no piece: it waits with its blocks. Blocks of a piece that takes long go to
//! the disk before it is whole. The disk accepts data again when everything that failed has
//! succeeded, however often something else succeeds meanwhile.

use super::{Completion, Event, Existing, Job, Lifecycle, Output, Phase, Purpose, Step};
use crate::proto::block::Block;
use crate::proto::piece::PieceIndex;
use crate::proto::time::{Duration, Instant};
use crate::storage::fault::StorageFault;
use crate::storage::pieces::{Spill, WholePiece};

/// How often a full or failing disk is tried again: the user who made room must not wait for us,
/// and one write a second costs nothing.
pub(in crate::storage) const STORAGE_RETRY: Duration = Duration::from_secs(1);

/// The most that a commit is brought forward for blocks that were written before their piece was
/// whole: those that waited for long are few, and not worth a commit of their own at once.
const SPILLED_AGE_MAX: Duration = Duration::from_secs(1);

/// What failed when it was last tried.
#[derive(Debug)]
pub(super) struct Failing<B> {
    /// Pieces that could not be written.
    parked: Vec<WholePiece<B>>,
    spill: bool,
    commit: bool,
    finish: bool,
    /// When all of it is tried again.
    retry_at: Option<Instant>,
}

/// The last look at all files, before the content counts as complete.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Finish {
    is_running: bool,
    /// Pieces were lost since it began, so it proves nothing.
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

impl<B> Lifecycle<B> {
    pub(super) fn keep(&mut self, now: Instant, block: Block, content: B) {
        self.pieces.keep(now, block, content);
        if !self.failing.spill {
            let spill = self.pieces.spill_idlest();
            self.outputs.extend(spill.map(Job::Spill).map(Output::Job));
        }
    }

    /// Whether a piece, blocks of one, or a commit is at the disk.
    pub(super) fn is_busy(&self) -> bool {
        self.pieces.is_storing() || self.durability.is_running()
    }

    /// Stores a piece if all of its blocks were received and none of them is on its way to the
    /// disk.
    pub(super) fn store_if_ready(&mut self, piece: PieceIndex) {
        if let Some(whole) = self.pieces.take(piece) {
            self.store(whole);
        }
    }

    fn store(&mut self, whole: WholePiece<B>) {
        self.pieces.storing(whole.piece);
        self.ask(Job::Store(whole));
    }

    /// A good piece is written.
    pub(super) fn stored(&mut self, now: Instant, piece: PieceIndex) {
        let len = self.pieces.stored(piece);
        self.durability.written(now, len, Duration::ZERO);
        self.commit(now);
        self.recover();
    }

    /// A piece could not be written.
    pub(super) fn not_stored(&mut self, now: Instant, whole: WholePiece<B>, fault: StorageFault) {
        self.pieces.stored(whole.piece);
        self.failing.parked.push(whole);
        self.failed(now, fault);
    }

    /// Blocks are on the disk, with these CRC-32 values.
    pub(super) fn spilled(&mut self, now: Instant, spill: Spill<B>, crcs: &[u32]) {
        let (piece, age) = (spill.piece, (now - spill.since()).min(SPILLED_AGE_MAX));
        let len = self.pieces.spilled(spill, Some(crcs));
        self.durability.written(now, len, age);
        self.failing.spill = false;
        self.store_if_ready(piece);
        self.commit(now);
        self.recover();
    }

    /// Blocks could not be written.
    pub(super) fn not_spilled(&mut self, now: Instant, spill: Spill<B>, fault: StorageFault) {
        let piece = spill.piece;
        self.pieces.spilled(spill, None);
        self.failing.spill = true;
        self.store_if_ready(piece);
        self.failed(now, fault);
    }

    /// A commit has ended. Pieces that the disk did not keep were told before.
    pub(super) fn committed(&mut self, now: Instant, result: Result<(), StorageFault>) {
        self.durability.end(now, result.is_ok());
        self.failing.commit = result.is_err();
        match result {
            Ok(()) => self.recover(),
            Err(fault) => self.failed(now, fault),
        }
    }

    /// A finish has ended. Pieces that were not present any more were told before.
    pub(super) fn finished(&mut self, now: Instant, result: Result<(), StorageFault>) {
        let finish = std::mem::take(&mut self.finish);
        self.failing.finish = result.is_err() && self.completion == Completion::Finishing;
        match result {
            Ok(()) => self.recover(),
            Err(fault) => return self.failed(now, fault),
        }
        if self.completion == Completion::Finishing {
            if finish.is_stale { self.finish() } else { self.complete_at(now) }
        }
    }

    /// Pieces turned out to be lost. Returns whether they are to be fetched again: what was
    /// complete is left as whoever changed it wants it.
    pub(super) fn reopen(&mut self) -> bool {
        self.finish.is_stale = self.finish.is_running;
        if self.completion == Completion::Finishing {
            self.completion = Completion::Missing;
            self.failing.finish = false;
        }
        self.completion == Completion::Missing
    }

    /// Every wanted piece is present: the content is made whole and durable, once.
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
            // It was complete before: nothing waits until that is durable and noted.
            self.ask(Job::Run(Step::Note(self.have.clone())));
        }
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.finish.is_running, true) {
            return;
        }
        // A seed writes nothing into the content. At the end, the next start finds out whether all
        // is whole.
        if self.plan.purpose != Purpose::Seed && !self.is_leaving() {
            let is_fetched = !self.started_complete;
            let step = if is_fetched { Step::Finish(self.have.clone()) } else { Step::MakeWhole };
            self.ask(Job::Run(step));
        }
    }

    /// Tries again what failed, and makes durable what is old enough.
    pub(super) fn retry(&mut self, now: Instant) {
        if self.failing.retry_at.take_if(|at| *at <= now).is_some() {
            for whole in std::mem::take(&mut self.failing.parked) {
                self.store(whole);
            }
            if self.failing.finish {
                self.finish();
            }
            self.failing.spill = false;
            self.spill_due(now);
            // A read failed, or what failed has succeeded since.
            if !self.pieces.is_storing() {
                self.recover();
            }
        }
        if self.spill_at().is_some_and(|at| at <= now) {
            self.spill_due(now);
        }
        self.commit(now);
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        [self.failing.retry_at, self.spill_at(), self.durability.due_at()].into_iter().flatten().min()
    }

    /// Blocks that could not be written are tried again with all else that failed.
    fn spill_at(&self) -> Option<Instant> {
        self.pieces.spill_at().filter(|_| !self.failing.spill)
    }

    fn spill_due(&mut self, now: Instant) {
        self.outputs.extend(self.pieces.spill_due(now).into_iter().map(Job::Spill).map(Output::Job));
    }

    /// At the end all blocks in memory go to the disk, if it accepts any.
    pub(super) fn spill_all(&mut self) {
        if !self.failing.spill {
            self.outputs.extend(self.pieces.spill_all().into_iter().map(Job::Spill).map(Output::Job));
        }
    }

    fn commit(&mut self, now: Instant) {
        if self.durability.begin(now) {
            self.ask(Job::Run(Step::Commit));
        }
    }

    pub(super) fn failed(&mut self, now: Instant, fault: StorageFault) {
        self.failing.retry_at = Some(now + STORAGE_RETRY);
        // An error that does not pass ends the torrent, which is told.
        if !self.has_failed {
            self.tell(Some(fault));
        }
    }

    /// Something succeeded: if nothing else is failing, the disk accepts data again.
    fn recover(&mut self) {
        if self.failing.is_empty() {
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
