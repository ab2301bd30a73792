//! What is done to files before the first write: those that are longer are cut, the room is taken,
//! and the journal learns which files are ours.

use super::{JournalState, Store};
use crate::storage::content::StorageError;
use crate::storage::foreign::{Misfit, Why};
use crate::storage::fs::FileSystem;
use crate::storage::journal::Owned;

impl<F: FileSystem> Store<F> {
    /// Truncates files that are longer than the torrent says: those of this program, and those that
    /// the user allows it to write. Called before [`Store::prepare`].
    ///
    /// # Errors
    /// A file cannot be truncated; the caller may try again.
    pub fn cut(&self, misfits: &[Misfit]) -> Result<(), StorageError> {
        for misfit in misfits.iter().filter(|misfit| misfit.why == Why::Longer) {
            self.take()?;
            self.content.cut(misfit.file)?;
        }
        Ok(())
    }

    /// Preallocates disk space for all selected files. Called before [`Store::prepare`], which
    /// records the stamps that the files have afterwards.
    ///
    /// # Errors
    /// The disk has too little space; the caller may try again.
    pub fn preallocate(&self) -> Result<(), StorageError> {
        self.take()?;
        self.content.preallocate()
    }

    /// Lists the selected files as ours in the journal, besides those that it listed before.
    pub(super) fn own(&self, journal: &JournalState<F>) {
        let (mut files, fs) = (journal.ours.clone(), self.content.fs());
        self.content.selected_files().for_each(|(number, _)| {
            files.set(number as u32);
        });
        journal.lock().file.own(Owned { files, device: fs.folder_device(), boot: fs.boot() });
    }
}
