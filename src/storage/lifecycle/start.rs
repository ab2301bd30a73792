//! The start of a torrent's content: opens the journal, hashes the pieces that it does not name,
//! compares the files, prepares for writing. A stage whose error may clear is tried again by
//! itself.

use super::{Begun, Compared, Prepared, Step};
use super::{Event, Existing, Job, Lifecycle, Phase, Plan, Purpose, Refusal, STORAGE_RETRY, Started};
use crate::proto::bitfield::Bitfield;
use crate::proto::time::Instant;
use crate::storage::fault::JobError;
use crate::storage::foreign::Misfit;
use crate::storage::pieces::PartialPiece;
use crate::storage::resume::Verdict;

/// Attempts of a start, one second apart, while another program holds the content. A seed that ends
/// holds it while it writes its journal, so waiting helps; a download holds it for longer.
const BUSY_TRIES: u32 = 3;

/// A running start.
#[derive(Debug)]
pub(super) struct Start {
    stage: Stage,
    busy_count: u32,
    /// When the stage is tried again.
    pub(super) retry_at: Option<Instant>,
}

#[derive(Debug)]
enum Stage {
    /// Looks up the names of content that the user says is complete.
    Naming,
    /// Opens the journal and compares it with the files.
    Beginning,
    /// Hashes the pieces that the journal does not name.
    Checking { verdict: Box<Verdict>, to_hash: Bitfield },
    /// Looks for files that do not fit.
    Comparing { verdict: Box<Verdict> },
    /// Prepares the content for writing.
    Preparing { misfits: Vec<Misfit> },
}

impl Start {
    pub(super) fn new(plan: Plan) -> Self {
        let stage = if plan.existing == Existing::Assumed { Stage::Naming } else { Stage::Beginning };
        Self { stage, busy_count: 0, retry_at: None }
    }
}

impl<B> Lifecycle<B> {
    /// Requests the job of the present stage.
    pub(super) fn request(&mut self) {
        let Phase::Starting(start) = &self.phase else { return };
        let hashed_since = match self.plan.existing {
            Existing::Hashed(since) => Some(since),
            Existing::Unknown | Existing::Assumed => None,
        };
        let job = match &start.stage {
            Stage::Naming => Job::Run(Step::FindNames),
            Stage::Beginning => {
                let requires_folder = self.plan.purpose == Purpose::Download;
                Job::Run(Step::Begin { hashed_since, requires_folder })
            }
            Stage::Checking { to_hash, .. } => Job::Check(to_hash.clone()),
            Stage::Comparing { verdict } => Job::Run(Step::Compare(verdict.clone(), self.have.clone())),
            Stage::Preparing { misfits } => Job::Run(Step::Prepare {
                have: self.have.clone(),
                misfits: misfits.clone(),
                preallocate: self.plan.preallocate,
            }),
        };
        self.ask(job);
    }

    /// Returns the number of pieces known or hashed, and how many of these are good, when a check
    /// has hashed `checked_count` and found `good_count` of them good; None: no check is under way.
    pub fn progress(&self, checked_count: u32, good_count: u32) -> Option<(u32, u32)> {
        let Phase::Starting(start) = &self.phase else { return None };
        let Stage::Checking { to_hash, .. } = &start.stage else { return None };
        let known_count = self.geometry.piece_count() - to_hash.count();
        Some((known_count + checked_count, self.have.count() + good_count))
    }

    /// A check ended with the good pieces.
    pub fn handle_checked(&mut self, now: Instant, checked: Result<Bitfield, JobError>) {
        let Some(start) = self.take_start() else { return };
        match (checked, start.stage) {
            (Ok(good), Stage::Checking { verdict, .. }) => {
                self.have.set_all(&good);
                self.enter(Stage::Comparing { verdict });
            }
            // Without descriptors nothing is known about the content.
            (Err(error), stage) if error.error.is_out_of_descriptors() => {
                self.wait(now, Start { stage, ..*start }, &error);
            }
            (Err(error), _) => self.give_up(&error),
            (Ok(_), stage) => self.phase = Phase::Starting(Box::new(Start { stage, ..*start })),
        }
    }

    pub(super) fn names_found(&mut self, now: Instant) {
        if self.take_start().is_some() {
            self.assume_complete(now);
        }
    }

    /// Takes all pieces as present, on the user's word.
    pub(super) fn assume_complete(&mut self, now: Instant) {
        self.have = Bitfield::full(self.geometry.piece_count());
        self.started(now, Vec::new(), Vec::new());
    }

    pub(super) fn begun(&mut self, now: Instant, begun: Result<Box<Begun>, JobError>) {
        let Some(start) = self.take_start() else { return };
        match begun {
            Ok(begun) => {
                let Begun { verdict, present, to_hash } = *begun;
                self.have = present;
                let verdict = Box::new(verdict);
                self.enter(if to_hash.count() == 0 {
                    Stage::Comparing { verdict }
                } else {
                    Stage::Checking { verdict, to_hash }
                });
            }
            Err(error) => self.wait(now, *start, &error),
        }
    }

    pub(super) fn compared(&mut self, now: Instant, compared: Result<Compared, JobError>) {
        let Some(start) = self.take_start() else { return };
        let Compared { misfits, mixed } = match compared {
            Ok(compared) => compared,
            Err(error) => return self.wait(now, *start, &error),
        };
        let is_whole = !self.is_missing() && mixed.is_empty();
        match self.plan.purpose {
            Purpose::Seed if is_whole => self.started(now, Vec::new(), misfits),
            Purpose::Seed => {
                let mut have = self.have.clone();
                mixed.into_iter().for_each(|piece| {
                    have.clear(piece);
                });
                let missing_len = self.missing_len(&have);
                self.report(Event::Refused(Refusal::Incomplete { missing_len, misfits }));
            }
            Purpose::Download if misfits.iter().any(|misfit| !misfit.is_ours) => {
                let foreign = misfits.into_iter().filter(|misfit| !misfit.is_ours).collect();
                self.report(Event::Refused(Refusal::Foreign(foreign)));
            }
            Purpose::Download | Purpose::Overwrite if is_whole && misfits.is_empty() => {
                self.started(now, Vec::new(), Vec::new());
            }
            Purpose::Download | Purpose::Overwrite => self.enter(Stage::Preparing { misfits }),
        }
    }

    pub(super) fn prepared(&mut self, now: Instant, prepared: Result<Prepared, JobError>) {
        let Some(start) = self.take_start() else { return };
        match prepared {
            Ok(Prepared { have, partial }) => {
                self.have = have;
                partial.iter().for_each(|partial| self.work().pieces.restore(now, partial));
                self.started(now, partial, Vec::new());
            }
            Err(error) => self.wait(now, *start, &error),
        }
    }

    /// Takes the start whose job has ended; `None` if the start is over. The torrent has ended
    /// unless the caller enters another phase.
    fn take_start(&mut self) -> Option<Box<Start>> {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Starting(start) => Some(start),
            phase @ (Phase::Ready | Phase::Leaving { .. } | Phase::Ended) => {
                self.phase = phase;
                None
            }
        }
    }

    fn enter(&mut self, stage: Stage) {
        self.tell(None);
        self.phase = Phase::Starting(Box::new(Start { stage, busy_count: 0, retry_at: None }));
        self.request();
    }

    /// The content is ready.
    fn started(&mut self, now: Instant, partial: Vec<PartialPiece>, longer: Vec<Misfit>) {
        self.tell(None);
        self.phase = Phase::Ready;
        self.started_complete = !self.is_missing();
        self.report(Event::Started(Started { have: self.have.clone(), partial, longer }));
        if self.plan.existing == Existing::Assumed {
            self.complete_at(now);
        } else if self.started_complete {
            self.complete();
            if self.plan.purpose == Purpose::Seed {
                // A seed writes nothing to the content.
                self.finished(now, Ok(()));
            }
        }
    }

    /// The torrent does not start.
    fn give_up(&mut self, error: &JobError) {
        self.report(match error.error.obstacle() {
            Some(obstacle) => Event::Refused(Refusal::Obstacle { path: error.error.path.clone(), obstacle }),
            None => Event::Failed(error.to_string()),
        });
    }

    /// Tries the stage again later if its error may clear.
    fn wait(&mut self, now: Instant, mut start: Start, error: &JobError) {
        if error.error.may_pass() {
            self.tell(Some(error.fault(self.missing_len(&self.have))));
        } else if error.is_busy() && start.busy_count < BUSY_TRIES {
            start.busy_count += 1;
        } else {
            return self.give_up(error);
        }
        start.retry_at = Some(now + STORAGE_RETRY);
        self.phase = Phase::Starting(Box::new(start));
    }
}
