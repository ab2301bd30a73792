//! Runs a start at once on the caller's thread, for shells without disk threads: the simulator and
//! tests.

use super::{Job, Lifecycle, Output, StepDone};
use crate::proto::bitfield::Bitfield;
use crate::proto::time::Instant;
use crate::storage::content::StorageError;
use crate::storage::fault::JobError;
use crate::storage::fs::FileSystem;
use crate::storage::journal::Journal;
use crate::storage::store::Store;

impl<F: FileSystem> Store<F> {
    /// Runs the steps and checks that a lifecycle requests, and returns the first output of another
    /// kind; `None` if it waits until [`Lifecycle::poll_timeout`]. `inspect` sees each result.
    pub fn run_start<B>(
        &self,
        lifecycle: &mut Lifecycle<B>,
        now: Instant,
        open_journal: impl Fn() -> Result<Option<Journal<F>>, StorageError>,
        mut inspect: impl FnMut(&StepDone),
    ) -> Option<Output<B>> {
        while let Some(output) = lifecycle.poll_output() {
            match output {
                Output::Job(Job::Run(step)) => {
                    let done = self.run(step, &open_journal);
                    inspect(&done);
                    lifecycle.handle_step(now, done);
                }
                Output::Job(Job::Check(pieces)) => lifecycle.handle_checked(now, self.check(&pieces)),
                output @ (Output::Job(Job::Store(_) | Job::Spill(_)) | Output::Event(_)) => {
                    return Some(output);
                }
            }
        }
        None
    }

    fn check(&self, pieces: &Bitfield) -> Result<Bitfield, JobError> {
        let (mut good, mut scratch) = (Bitfield::new(pieces.len()), Vec::new());
        for piece in pieces.iter_set() {
            if self.content().find_piece(piece, &mut scratch).map_err(|error| self.explain(error))? {
                good.set(piece);
            }
        }
        Ok(good)
    }
}
