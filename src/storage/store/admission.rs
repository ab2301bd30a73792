//! What is done to files before the first write: those that are longer are cut, the room is taken,
//! and the journal learns which files are ours.

use super::{Ledger, Store};
use crate::storage::content::StorageError;
use crate::storage::foreign::{Misfit, Why};
use crate::storage::fs::FileSystem;
use crate::storage::journal::Owned;

impl<F: FileSystem> Store<F> {
    /// Cuts files that are longer than the torrent says to their length: ours, or those that the
    /// user lets us write. To be called before [`Store::prepare`].
    ///
    /// # Errors
    /// A file cannot be cut; it may be tried again.
    pub fn cut(&self, misfits: &[Misfit]) -> Result<(), StorageError> {
        for misfit in misfits.iter().filter(|misfit| misfit.why == Why::Longer) {
            self.take()?;
            self.content.cut(misfit.file)?;
        }
        Ok(())
    }

    /// Sets apart the room for all selected files. To be called before [`Store::prepare`], which
    /// makes sure of what the files look like then.
    ///
    /// # Errors
    /// There is not enough; it may be tried again.
    pub fn preallocate(&self) -> Result<(), StorageError> {
        self.take()?;
        self.content.preallocate()
    }

    /// The selected files are ours, whatever is in them, and what was ours before.
    pub(super) fn own(&self, ledger: &Ledger<F>) {
        let (mut files, fs) = (ledger.ours.clone(), self.content.fs());
        self.content.selected_files().for_each(|(number, _)| {
            files.set(number as u32);
        });
        ledger.state().journal.own(Owned { files, device: fs.folder_device(), boot: fs.boot() });
    }
}
