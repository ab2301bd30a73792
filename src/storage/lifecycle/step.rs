//! The calls of a [`Store`] that a [`super::Lifecycle`] requests, as data. Each looks at many files
//! or makes something durable, so it runs on a thread of its own, or at one instant of virtual
//! time.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::proto::bitfield::Bitfield;
use crate::proto::piece::PieceIndex;
use crate::storage::content::{LostPiece, StorageError};
use crate::storage::fault::JobError;
use crate::storage::foreign::Misfit;
use crate::storage::fs::FileSystem;
use crate::storage::journal::Journal;
use crate::storage::pieces::PartialPiece;
use crate::storage::resume::{self, Verdict};
use crate::storage::store::Store;

/// A call to run: its [`StepDone`] goes to [`super::Lifecycle::handle_step`].
#[derive(Clone, Debug)]
pub enum Step {
    /// Find the names under which the files lie.
    FindNames,
    /// Open the journal and compare it with the files.
    Begin {
        /// All content was hashed, beginning at this time.
        hashed_since: Option<SystemTime>,
        /// Fail if the folder lacks the content that the journal records.
        requires_folder: bool,
    },
    /// Find the files that do not fit the torrent when these pieces are good.
    Compare(Box<Verdict>, Bitfield),
    /// Prepare for writing.
    Prepare {
        /// Pieces that are present.
        have: Bitfield,
        /// Files to truncate if they are longer than the torrent says.
        misfits: Vec<Misfit>,
        /// Preallocate disk space for all files.
        preallocate: bool,
    },
    /// Make durable what was written.
    Commit,
    /// Look at all files, complete them and make them durable; these pieces are present.
    Finish(Bitfield),
    /// Create empty files and set executable bits of content that was complete from the start.
    MakeWhole,
    /// Remove pieces from the journal.
    Lose(Vec<PieceIndex>),
    /// Record in the journal that these pieces are present, for content that was complete from the
    /// start.
    Note(Bitfield),
    /// Make everything durable, for the end; these pieces are present.
    Close(Bitfield),
}

/// The result of a [`Step`].
#[derive(Debug)]
pub enum StepDone {
    /// Of [`Step::FindNames`].
    NamesFound,
    /// Of [`Step::Begin`].
    Begun(Result<Box<Begun>, JobError>),
    /// Of [`Step::Compare`].
    Compared(Result<Compared, JobError>),
    /// Of [`Step::Prepare`].
    Prepared(Result<Prepared, JobError>),
    /// Of [`Step::Commit`], with the pieces that the disk lost.
    Committed(Result<Vec<LostPiece>, JobError>),
    /// Of [`Step::Finish`] and [`Step::MakeWhole`], with the pieces that are lost.
    Finished(Result<Vec<LostPiece>, JobError>),
    /// Of [`Step::Lose`]; an error means that the next start hashes these pieces.
    Lost(Vec<PieceIndex>, Result<(), JobError>),
    /// Of [`Step::Note`], with the pieces that the disk lost.
    Noted(Result<Vec<LostPiece>, JobError>),
    /// Of [`Step::Close`], with the pieces that the disk lost.
    Closed(Result<Vec<LostPiece>, JobError>),
}

/// What the journal and the stamps say before anything is hashed.
#[derive(Debug)]
pub struct Begun {
    /// The verdict of the journal.
    pub verdict: Verdict,
    /// Pieces that are present.
    pub present: Bitfield,
    /// Pieces that may be present and must be hashed.
    pub to_hash: Bitfield,
}

/// Files and pieces that prevent a start without further work.
#[derive(Debug)]
pub struct Compared {
    /// Files that do not fit the torrent.
    pub misfits: Vec<Misfit>,
    /// Pieces in another combination of parts file and files than the selection requires.
    pub mixed: Vec<PieceIndex>,
}

/// What is present once the content is ready for writing.
#[derive(Debug)]
pub struct Prepared {
    /// Pieces.
    pub have: Bitfield,
    /// Blocks of other pieces.
    pub partial: Vec<PartialPiece>,
}

impl<F: FileSystem> Store<F> {
    /// Runs a step for as long as the disk takes. Calls `open_journal` for [`Step::Begin`] only; it
    /// returns `None` if no journal is kept.
    pub fn run(
        &self,
        step: Step,
        open_journal: impl FnOnce() -> Result<Option<Journal<F>>, StorageError>,
    ) -> StepDone {
        let explain = |error| self.explain(error);
        match step {
            Step::FindNames => {
                self.content().find_names();
                StepDone::NamesFound
            }
            Step::Begin { hashed_since, requires_folder } => {
                let begun =
                    open_journal().and_then(|journal| self.begun(journal, hashed_since, requires_folder));
                StepDone::Begun(begun.map(Box::new).map_err(explain))
            }
            Step::Compare(verdict, have) => {
                let misfits = self.content().misfits(&verdict, &have);
                let compared = |misfits| Compared { misfits, mixed: self.content().mixed_pieces() };
                StepDone::Compared(misfits.map(compared).map_err(explain))
            }
            Step::Prepare { have, misfits, preallocate } => {
                StepDone::Prepared(self.prepared(&have, &misfits, preallocate).map_err(explain))
            }
            Step::Commit => StepDone::Committed(self.commit().map_err(explain)),
            Step::Finish(have) => StepDone::Finished(self.finish(&have).map_err(explain)),
            Step::MakeWhole => StepDone::Finished(self.make_whole().map(|()| Vec::new()).map_err(explain)),
            Step::Lose(pieces) => {
                let lost = self.lose(&pieces).map_err(explain);
                StepDone::Lost(pieces, lost)
            }
            Step::Note(have) => StepDone::Noted(self.close(&have).map_err(explain)),
            Step::Close(have) => StepDone::Closed(self.close(&have).map_err(explain)),
        }
    }

    fn begun(
        &self,
        journal: Option<Journal<F>>,
        hashed_since: Option<SystemTime>,
        requires_folder: bool,
    ) -> Result<Begun, StorageError> {
        let verdict = self.begin(journal)?;
        if verdict.is_folder_gone && requires_folder {
            return Err(folder_gone(&self.content().fs().full_path(&[])));
        }
        let found = hashed_since.map(|since| resume::hashed(self.content(), since));
        let found = found.as_ref().unwrap_or(&verdict);
        let (present, to_hash) = (found.trusted.clone(), found.to_hash.clone());
        Ok(Begun { verdict, present, to_hash })
    }

    fn prepared(
        &self,
        have: &Bitfield,
        misfits: &[Misfit],
        preallocate: bool,
    ) -> Result<Prepared, StorageError> {
        let fs = self.content().fs();
        // Reported now, not with the first piece.
        fs.require_writable().map_err(|source| StorageError::new(&fs.full_path(&[]), source))?;
        self.cut(misfits)?;
        if preallocate {
            self.preallocate()?;
        }
        let have = self.prepare(have)?;
        let partial = self.partial_pieces(&have);
        Ok(Prepared { have, partial })
    }
}

/// The error of a missing folder that held content: its disk may not be mounted, and a new folder
/// on another disk must not replace it.
pub(in crate::storage) fn folder_gone(dir: &Path) -> StorageError {
    let why = "what was downloaded to this folder is gone with it; mount its disk, or give --overwrite to download it again";
    StorageError::new(dir, io::Error::new(io::ErrorKind::NotFound, why))
}
