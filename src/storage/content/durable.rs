//! Makes a torrent's content durable, and takes the stamps of its files without reading them.
//!
//! A flag for each file says that it was written since its last sync. A new file survives a power
//! cut only if its folder and all folders above it were synced too.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;

use super::{Content, StorageError};
use crate::proto::bitfield::Bitfield;
use crate::proto::metainfo::files::File;
use crate::proto::piece::PieceIndex;
use crate::storage::fs::{FileSystem, Stamp};

/// Most files that are synced one by one; beyond that the whole file system is synced, because each
/// file costs some milliseconds, and 100,000 files would take minutes.
pub(super) const SYNC_EACH_MAX: usize = 64;

impl<F: FileSystem> Content<F> {
    /// Creates empty files and sets executable bits when every wanted piece is present; the next
    /// sync makes them durable. Removes the parts file if no selected file needs it. Called while
    /// the content is claimed ([`Content::take`]).
    ///
    /// # Errors
    /// A file cannot be created.
    pub fn make_whole(&self) -> Result<(), StorageError> {
        self.make_names()?;
        for (at, file) in self.selected_files() {
            let path = self.path_of(at);
            self.alter(at, || {
                let made = file.len == 0 && self.fs.len(path)?.is_none();
                if made {
                    self.fs.open_write(path)?;
                }
                Ok((file.attributes.executable && self.fs.set_executable(path)?) || made)
            })?;
        }
        self.remove_parts()
    }

    /// Claims the content by a lock on its first selected file, which is created if it is missing.
    /// The claim lasts until the returned lock is dropped; `None` if there is nothing to write.
    ///
    /// # Errors
    /// Another program has claimed it (`ResourceBusy`), or the file cannot be created.
    pub fn take(&self) -> Result<Option<F::Lock>, StorageError> {
        let Some((first, _)) = self.selected_files().find(|(_, file)| file.len > 0) else { return Ok(None) };
        self.make_names()?;
        let path = self.path_of(first);
        let at_path = |source| self.error(path, source);
        let busy = "another download is writing it, which has to end first";
        let busy = || at_path(io::Error::new(io::ErrorKind::ResourceBusy, busy));
        let was_there = self.stamp(first)?.is_some();
        let lock = self.fs.lock(path).map_err(at_path)?.ok_or_else(busy)?;
        // A file that the lock made is ours: the next start does not hash it.
        self.alter(first, || Ok(!was_there))?;
        Ok(Some(lock))
    }

    /// Whether the file exists that [`Content::take`] locks.
    ///
    /// # Errors
    /// Its stamp cannot be taken.
    pub fn is_begun(&self) -> Result<bool, StorageError> {
        let Some((first, _)) = self.selected_files().find(|(_, file)| file.len > 0) else { return Ok(false) };
        Ok(self.stamp(first)?.is_some())
    }

    /// Preallocates disk space for all selected files that do not have it yet.
    ///
    /// # Errors
    /// The disk has too little space; then nothing stays allocated.
    pub fn preallocate(&self) -> Result<(), StorageError> {
        if self.fs.free_len().is_some_and(|free| free < self.unallocated_len()) {
            return Err(self.error(&[], io::ErrorKind::StorageFull.into()));
        }
        let mut grown = Vec::new();
        for (at, file) in self.selected_files().filter(|(_, file)| file.len > 0) {
            let allocated = self.alter(at, || {
                let open = self.fs.open_write(self.path_of(at))?;
                grown.push((at, self.fs.stamp_of(&open)?.len));
                self.fs.allocate(&open, file.len)
            });
            if allocated.is_err() {
                self.give_back(&grown);
                return allocated;
            }
        }
        Ok(())
    }

    /// Bytes that the selected files still need on the disk.
    fn unallocated_len(&self) -> u64 {
        let missing_len = |at: usize, file: &File| match self.fs.open_read(self.path_of(at)) {
            Ok(open) => self.fs.unallocated_len(&open, file.len).unwrap_or(0),
            // Any other error is reported when the file is opened for writing.
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound {
                    file.len
                } else {
                    0
                }
            }
        };
        self.selected_files().map(|(at, file)| missing_len(at, file)).sum()
    }

    /// Restores the lengths that the files had, which frees the space.
    fn give_back(&self, grown: &[(usize, u64)]) {
        for &(at, len) in grown {
            // An error leaves the file longer: the caller reports the first error.
            let _ = self.alter(at, || {
                let open = self.fs.open_again(self.path_of(at))?;
                self.fs.set_len(&open, len).map(|()| true)
            });
        }
    }

    /// Truncates a selected file that is longer than the torrent says.
    ///
    /// # Errors
    /// The file cannot be truncated.
    pub(in crate::storage) fn cut(&self, number: usize) -> Result<(), StorageError> {
        let file = &self.info.files[number];
        self.alter(number, || {
            let open = self.fs.open_again(self.path_of(number))?;
            let is_longer = self.fs.stamp_of(&open)?.len > file.len;
            if is_longer {
                self.fs.set_len(&open, file.len)?;
            }
            Ok(is_longer)
        })
    }

    /// Runs a change to a file that leaves its bytes alone; `change` returns whether it changed
    /// anything.
    fn alter(&self, at: usize, change: impl FnOnce() -> io::Result<bool>) -> Result<(), StorageError> {
        let written = &self.written[at];
        let changed = change().map_err(|source| self.error(self.path_of(at), source))?;
        if changed {
            // Its stamp differs from now on because of this program.
            written.watch.begin();
            written.dirty.store(true, Ordering::Release);
            written.watch.end();
        }
        Ok(())
    }

    /// Makes the written files durable and returns the stamp of each synced file, by number; the
    /// parts file comes after the last. The pieces of a file that was deleted or replaced become
    /// pending verification.
    ///
    /// # Errors
    /// A file could not be synced; the next call tries again.
    pub fn sync(&self) -> Result<Vec<(usize, Option<Stamp>)>, StorageError> {
        let files = self.sync_written()?;
        files.into_iter().map(|number| Ok((number, self.look_again(number)?))).collect()
    }

    /// Returns the stamp of a file, by number; the parts file comes after the last. `None` if it
    /// does not exist: missing, a pad file, or the parts file of a torrent that needs none.
    ///
    /// # Errors
    /// Something else stands in the place of the file.
    pub fn stamp(&self, number: usize) -> Result<Option<Stamp>, StorageError> {
        let is_on_disk =
            self.info.files.get(number).map_or(self.parts.is_some(), |file| !file.attributes.pad);
        if !is_on_disk {
            return Ok(None);
        }
        let path = self.path_of(number);
        self.fs.stamp(path).map_err(|source| self.error(path, source))
    }

    /// The path of a file, by number; the parts file comes after the last.
    pub(in crate::storage) fn path_of(&self, number: usize) -> &[String] {
        let Some(file) = self.info.files.get(number) else {
            return self.parts.as_ref().map_or(&[][..], |parts| &parts.path);
        };
        self.written[number].name.get().map_or(&file.path, |name| name)
    }

    /// Whether a file is wanted.
    pub fn is_selected(&self, file: usize) -> bool {
        self.selected.get(file).is_none_or(|is_selected| *is_selected)
    }

    /// The wanted files, by number, pad files among them.
    pub(in crate::storage) fn selection(&self) -> Bitfield {
        let count = self.info.files.len();
        let mut selection = Bitfield::new(count as u32);
        (0..count).filter(|&number| self.is_selected(number)).for_each(|number| {
            selection.set(number as u32);
        });
        selection
    }

    /// Whether bytes of the piece lie in the parts file.
    pub fn is_in_parts(&self, piece: PieceIndex) -> bool {
        self.slot(piece).is_some_and(|filled| filled.load(Ordering::Acquire))
    }

    /// Restores from the journal what [`Content::is_in_parts`] said when these pieces were written.
    pub fn restore_parts(&self, in_parts: &Bitfield) {
        for filled in in_parts.iter_set().filter_map(|piece| self.slot(piece)) {
            filled.store(true, Ordering::Release);
        }
    }

    /// Adds the files of a piece that was found by hashing to the next sync, because the program
    /// that wrote it may not have synced them.
    pub fn found(&self, piece: PieceIndex) {
        for number in self.places_of(self.whole(piece)) {
            self.written[number].dirty.store(true, Ordering::Release);
        }
    }

    /// Syncs the files that were written; returns their numbers.
    fn sync_written(&self) -> Result<Vec<usize>, StorageError> {
        // Cleared first: a write during the sync marks its file again.
        let dirty = |at: &usize| self.written[*at].dirty.swap(false, Ordering::AcqRel);
        let files: Vec<usize> = (0..self.written.len()).filter(dirty).collect();
        let result = self.sync_files(&files);
        if result.is_err() {
            files.iter().for_each(|&at| self.written[at].dirty.store(true, Ordering::Release));
        }
        result.map(|()| files)
    }

    fn sync_files(&self, files: &[usize]) -> Result<(), StorageError> {
        if files.len() > SYNC_EACH_MAX {
            return self.fs.sync_all().map_err(|source| self.error(&[], source));
        }
        for &at in files {
            let path = self.path_of(at);
            // Opened for reading, so that a file that was deleted does not come back empty.
            match self.fs.open_read(path).and_then(|file| self.fs.sync(&file)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.mark_unverified(at),
                synced => synced.map_err(|source| self.error(path, source))?,
            }
        }
        self.sync_folders(files)
    }

    /// Syncs the folders of files: a new file survives a power cut only if each folder above it
    /// does.
    fn sync_folders(&self, files: &[usize]) -> Result<(), StorageError> {
        let mut folders = BTreeSet::new();
        for &at in files {
            let path = self.path_of(at);
            folders.extend((0..path.len()).map(|depth| &path[..depth]));
        }
        // The deepest first, so that a folder entry never names an incomplete folder.
        for folder in folders.into_iter().rev() {
            match self.fs.sync_folder(folder) {
                // The folder was removed with its files, whose pieces are pending verification.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                synced => synced.map_err(|source| self.error(folder, source))?,
            }
        }
        Ok(())
    }
}
