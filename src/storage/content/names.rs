//! Under which names the files of a torrent lie on this file system.
//!
//! Most lie under their own. A file system may refuse a name (too long, a character that it does
//! not take), and it may take two names for one file (case, endings, normalization). Then the file
//! lies under one of its other names ([`OtherNames`]). Nothing is kept for this anywhere: the
//! choice follows from the torrent and from what the file system does with its names, so every
//! start, `verify` and `seed` make the same choice.
//!
//! [`Content::find_names`] looks at what is there and writes nothing. [`Content::make_names`] makes
//! the files whose names are delicate before the first byte of content is written, since only then
//! it shows what becomes of a name. Both only look at files whose names are delicate; plain names
//! cost nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;

use super::{Content, StorageError};
use crate::proto::metainfo::names::OtherNames;
use crate::storage::fs::{FileSystem, Stamp};

/// What a file system does with a path.
enum Found {
    /// It is a file of ours.
    File,
    /// There is nothing.
    Nothing,
    /// The name cannot be this file's: it is refused, or is the name of another one.
    Unusable(io::Error),
}

/// Files of the torrent that were found so far, by inode.
type Known = BTreeMap<u64, Stamp>;

impl<F: FileSystem> Content<F> {
    /// The files that lie under another name than the torrent's, by number, with the path that is
    /// used.
    pub fn other_names(&self) -> impl Iterator<Item = (usize, &[String])> {
        let files = self.info.files.iter().enumerate();
        files
            .map(|(number, _)| (number, self.path_of(number)))
            .filter(|&(number, path)| !std::ptr::eq(path, self.info.files[number].path.as_slice()))
    }

    /// Whether a file system may take a name of these files otherwise than it is meant.
    pub fn has_delicate_names(&self) -> bool {
        self.delicate(&OtherNames::of(&self.info.files)).next().is_some()
    }

    /// Looks under which of their names the files lie. Nothing is written. To be called before the
    /// files are looked at; what cannot be looked at is left for that to tell.
    pub fn find_names(&self) {
        let names = OtherNames::of(&self.info.files);
        let mut known = Known::new();
        for number in self.delicate(&names) {
            let Ok(own) = self.inspect(&names, number, &self.info.files[number].path, &mut known) else {
                continue;
            };
            if matches!(own, Found::File) {
                continue;
            }
            let others = names.others(&self.info.files, number);
            let is_there = |path: &&Vec<String>| {
                matches!(self.inspect(&names, number, path, &mut known), Ok(Found::File))
            };
            let former = names.former(number).into_iter();
            let found = former.chain(&others).find(is_there).cloned();
            let path = match own {
                Found::Unusable(_) => found.or_else(|| others.first().cloned()),
                Found::File | Found::Nothing => found,
            };
            self.use_name(number, path);
        }
    }

    /// Makes the wanted files that are missing and whose names are delicate, each under the first
    /// of its names that the file system takes as a file of its own. To be called before anything
    /// is written; later calls do nothing.
    ///
    /// # Errors
    /// The file system takes none of the names of a file, or the disk fails; it may be tried again.
    pub(super) fn make_names(&self) -> Result<(), StorageError> {
        if self.are_named.load(Ordering::Acquire) {
            return Ok(());
        }
        let names = OtherNames::of(&self.info.files);
        let mut known = Known::new();
        let mut missing = Vec::new();
        for number in self.delicate(&names) {
            let found = self.inspect(&names, number, self.path_of(number), &mut known);
            if !matches!(found, Ok(Found::File)) && self.selected[number] {
                missing.push(number);
            }
        }
        for number in missing {
            self.make_name(&names, number, &mut known)?;
        }
        self.are_named.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes one file.
    fn make_name(&self, names: &OtherNames, number: usize, known: &mut Known) -> Result<(), StorageError> {
        let own = &self.info.files[number].path;
        let mut refusal = None;
        for path in std::iter::once(own).chain(&names.others(&self.info.files, number)) {
            match self.make(names, number, path, known).map_err(|source| self.error(path, source))? {
                Found::File | Found::Nothing => {
                    self.use_name(number, (path != own).then(|| path.clone()));
                    return Ok(());
                }
                Found::Unusable(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(self.error(own, refusal.unwrap_or_else(|| io::ErrorKind::InvalidFilename.into())))
    }

    /// Makes a file under this name, unless it cannot be this file's.
    fn make(
        &self,
        names: &OtherNames,
        number: usize,
        path: &[String],
        known: &mut Known,
    ) -> io::Result<Found> {
        match self.inspect(names, number, path, known)? {
            Found::Nothing => {}
            found @ (Found::File | Found::Unusable(_)) => return Ok(found),
        }
        match self.fs.open_write(path) {
            Ok(_) => {}
            // Its folders were made, so a missing one is how some servers refuse a name.
            Err(error) if is_refusal(&error) || error.kind() == io::ErrorKind::NotFound => {
                return Ok(Found::Unusable(error));
            }
            Err(error) => return Err(error),
        }
        let made = self.inspect(names, number, path, known)?;
        match made {
            Found::File | Found::Nothing => {
                let written = &self.written[number];
                written.watch.begin();
                written.dirty.store(true, Ordering::Release);
                written.watch.end();
            }
            // Made just now, under a name that the other file is to have.
            Found::Unusable(_) => self.fs.remove(path)?,
        }
        Ok(made)
    }

    /// What the file system does with a path of a file; a file is added to the known ones.
    fn inspect(
        &self,
        names: &OtherNames,
        number: usize,
        path: &[String],
        known: &mut Known,
    ) -> io::Result<Found> {
        let stamp = match self.fs.stamp(path) {
            Ok(None) => return Ok(Found::Nothing),
            Ok(Some(stamp)) => stamp,
            Err(error) if is_refusal(&error) => return Ok(Found::Unusable(error)),
            Err(error) => return Err(error),
        };
        let rival = names.rival(&self.info.files, number);
        let is_rivals = rival.is_some_and(|rival| {
            rival != path && self.fs.stamp(rival).is_ok_and(|other| other == Some(stamp))
        });
        let is_others = is_rivals || known.get(&stamp.inode) == Some(&stamp);
        // Names that the user made for one file are the user's.
        if is_others && !self.fs.is_hard_linked(path)? {
            let why = "the file system takes it for another file of the torrent";
            return Ok(Found::Unusable(io::Error::new(io::ErrorKind::AlreadyExists, why)));
        }
        known.insert(stamp.inode, stamp);
        Ok(Found::File)
    }

    /// The files on disk whose names are delicate.
    fn delicate<'a>(&'a self, names: &'a OtherNames) -> impl Iterator<Item = usize> + 'a {
        let files = &self.info.files;
        let is_delicate = |&file: &usize| !files[file].attributes.pad && names.is_delicate(files, file);
        (0..files.len()).filter(is_delicate)
    }

    fn use_name(&self, number: usize, path: Option<Vec<String>>) {
        if let Some(path) = path {
            // Set before: this one was chosen then, and is used.
            let _ = self.written[number].name.set(path.into());
        }
    }
}

/// Whether the file system does not take the name, or something of another kind has it.
fn is_refusal(error: &io::Error) -> bool {
    let is_of_name = matches!(
        error.kind(),
        io::ErrorKind::InvalidFilename
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
    );
    is_of_name || error.raw_os_error() == Some(rustix::io::Errno::ILSEQ.raw_os_error())
}
