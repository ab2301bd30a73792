//! Making a torrent's content durable, and telling what its files look like without reading them.
//!
//! A flag a file says that it was written since its last sync. A file that was made survives a
//! power cut only if its folder was synced too, and that one's folder.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;

use super::{Content, StorageError};
use crate::proto::bitfield::Bitfield;
use crate::proto::metainfo::files::File;
use crate::proto::piece::PieceIndex;
use crate::storage::fs::{FileSystem, Stamp};

/// Files that a sync takes one by one; for more the whole file system is synced, since each file
/// costs a commit of some milliseconds, and 100,000 files would take minutes.
pub(super) const SYNC_EACH_MAX: usize = 64;

impl<F: FileSystem> Content<F> {
    /// Makes empty files and executable bits, when every wanted piece is there; durable with the
    /// next sync. Removes the parts file if no selected file needs it. To be called while the
    /// content is ours ([`Content::take`]).
    ///
    /// # Errors
    /// A file cannot be made.
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

    /// Takes the content for ourselves by a lock on its first selected file, which is made if need
    /// be, until what comes back is dropped; None: there is nothing to write.
    ///
    /// # Errors
    /// Someone else has it (`ResourceBusy`), or the file cannot be made.
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

    /// Whether the file is there that [`Content::take`] locks.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn is_begun(&self) -> Result<bool, StorageError> {
        let Some((first, _)) = self.selected_files().find(|(_, file)| file.len > 0) else { return Ok(false) };
        Ok(self.stamp(first)?.is_some())
    }

    /// Sets apart the room for all selected files that have not got it yet.
    ///
    /// # Errors
    /// There is not enough: then none is taken.
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

    /// Bytes of room that selected files have not got yet.
    fn unallocated_len(&self) -> u64 {
        let missing_len = |at: usize, file: &File| match self.fs.open_read(self.path_of(at)) {
            Ok(open) => self.fs.unallocated_len(&open, file.len).unwrap_or(0),
            // What else is wrong with it is told when it is opened to be written.
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

    /// Files get the lengths again that they had, and the file system the room.
    fn give_back(&self, grown: &[(usize, u64)]) {
        for &(at, len) in grown {
            // What it cannot be given back stays: the caller has an error to tell already.
            let _ = self.alter(at, || {
                let open = self.fs.open_again(self.path_of(at))?;
                self.fs.set_len(&open, len).map(|()| true)
            });
        }
    }

    /// Cuts a selected file that is longer than the torrent says.
    ///
    /// # Errors
    /// It cannot be cut.
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

    /// A change to a file other than of its bytes; it says whether there was any.
    fn alter(&self, at: usize, change: impl FnOnce() -> io::Result<bool>) -> Result<(), StorageError> {
        let written = &self.written[at];
        let changed = change().map_err(|source| self.error(self.path_of(at), source))?;
        if changed {
            // It looks otherwise from now on, and because of us.
            written.watch.begin();
            written.dirty.store(true, Ordering::Release);
            written.watch.end();
        }
        Ok(())
    }

    /// Makes what was written durable, and tells how each file that was synced looked afterwards,
    /// by number; the parts file comes after the last. One that was deleted, or has another in its
    /// place, is suspect then.
    ///
    /// # Errors
    /// A file could not be; it is tried again with the next call.
    pub fn sync(&self) -> Result<Vec<(usize, Option<Stamp>)>, StorageError> {
        let files = self.sync_written()?;
        files.into_iter().map(|number| Ok((number, self.look_again(number)?))).collect()
    }

    /// How a file looks, by number; the parts file comes after the last. None: not there, or a pad
    /// file, or the parts file of a torrent that needs none.
    ///
    /// # Errors
    /// Something else stands in the place of the file.
    pub fn stamp(&self, number: usize) -> Result<Option<Stamp>, StorageError> {
        let is_on_disk =
            self.info.files.get(number).map_or(self.parts.has_slots(), |file| !file.attributes.pad);
        if !is_on_disk {
            return Ok(None);
        }
        let path = self.path_of(number);
        self.fs.stamp(path).map_err(|source| self.error(path, source))
    }

    /// Where a file is, by number; the parts file comes after the last.
    pub(in crate::storage) fn path_of(&self, number: usize) -> &[String] {
        let Some(file) = self.info.files.get(number) else { return &self.parts.path };
        self.written[number].name.get().map_or(&file.path, |name| name)
    }

    /// Whether a file is wanted.
    pub fn is_selected(&self, file: usize) -> bool {
        self.selected[file]
    }

    /// The wanted files, by number, pad files among them.
    pub(in crate::storage) fn selection(&self) -> Bitfield {
        let mut selection = Bitfield::new(self.selected.len() as u32);
        (0..).zip(&self.selected).filter(|(_, is_selected)| **is_selected).for_each(|(number, _)| {
            selection.set(number);
        });
        selection
    }

    /// Whether bytes of the piece lie in the parts file.
    pub fn is_in_parts(&self, piece: PieceIndex) -> bool {
        self.parts.slot(piece).is_some_and(|slot| self.parts.filled[slot].load(Ordering::Acquire))
    }

    /// What [`Content::is_in_parts`] said when these pieces were written, by the journal.
    pub fn restore_parts(&self, in_parts: &Bitfield) {
        for slot in in_parts.iter_set().filter_map(|piece| self.parts.slot(piece)) {
            self.parts.filled[slot].store(true, Ordering::Release);
        }
    }

    /// A piece was found by hashing: who wrote it may not have synced it, so the next sync takes
    /// its files along.
    pub fn found(&self, piece: PieceIndex) {
        for number in self.places_of(self.whole(piece)) {
            self.written[number].dirty.store(true, Ordering::Release);
        }
    }

    /// Syncs the files that were written; which.
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
            // To read: a file that someone removed shall not become an empty file.
            match self.fs.open_read(path).and_then(|file| self.fs.sync(&file)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.mark_unverified(at),
                synced => synced.map_err(|source| self.error(path, source))?,
            }
        }
        self.sync_folders(files)
    }

    /// A file that was made is there after a power cut only if its folder says so, and that one's
    /// folder.
    fn sync_folders(&self, files: &[usize]) -> Result<(), StorageError> {
        let mut folders = BTreeSet::new();
        for &at in files {
            let path = self.path_of(at);
            folders.extend((0..path.len()).map(|depth| &path[..depth]));
        }
        // The deepest first: who is named shall be whole.
        for folder in folders.into_iter().rev() {
            match self.fs.sync_folder(folder) {
                // Removed with the files in it, which are suspect.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                synced => synced.map_err(|source| self.error(folder, source))?,
            }
        }
        Ok(())
    }
}
