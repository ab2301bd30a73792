//! The names under which a torrent's files lie on this file system.
//!
//! Most files have their own name. A file system may refuse a name (too long, or an unsupported
//! character), or treat two names as one file (case, line endings, normalization). Then the file
//! gets one of its other names ([`OtherNames`]). The choice is not recorded: it follows from the
//! torrent and from the behaviour of the file system, so every start, `verify` and `seed` make the
//! same choice.
//!
//! [`Content::find_names`] only looks at existing files. [`Content::make_names`] creates the files
//! with delicate names before any content is written, because the behaviour of the file system
//! shows only then. Both look only at files with delicate names; plain names cost nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;

use super::{Content, StorageError};
use crate::proto::metainfo::names::OtherNames;
use crate::storage::fs::{FileSystem, Stamp};

/// What a file system makes of a path.
enum Found {
    /// A file of this torrent.
    File,
    /// No file.
    Nothing,
    /// The name cannot be used for this file: it is refused, or it is the name of another file.
    Unusable(io::Error),
}

/// The torrent's files that were found so far, by inode.
type Known = BTreeMap<u64, Stamp>;

impl<F: FileSystem> Content<F> {
    /// The files that have another name than the torrent's, by number, with the path in use.
    pub fn other_names(&self) -> impl Iterator<Item = (usize, &[String])> {
        let files = self.info.files.iter().enumerate();
        files
            .map(|(number, _)| (number, self.path_of(number)))
            .filter(|&(number, path)| !std::ptr::eq(path, self.info.files[number].path.as_slice()))
    }

    /// Whether a file system may treat a name of these files in an unintended way.
    pub fn has_delicate_names(&self) -> bool {
        self.delicate(&OtherNames::of(&self.info.files)).next().is_some()
    }

    /// Finds the names under which the files lie; writes nothing. Called before the files are
    /// looked at; errors are left to that step.
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

    /// Creates the wanted files that are missing and have delicate names, each under the first of
    /// its names that the file system accepts as a separate file. Called before anything is
    /// written; later calls do nothing.
    ///
    /// # Errors
    /// The file system accepts none of the names of a file, or the disk fails; the caller may try
    /// again.
    pub(super) fn make_names(&self) -> Result<(), StorageError> {
        if self.are_named.load(Ordering::Acquire) {
            return Ok(());
        }
        let names = OtherNames::of(&self.info.files);
        let mut known = Known::new();
        let mut missing = Vec::new();
        for number in self.delicate(&names) {
            let found = self.inspect(&names, number, self.path_of(number), &mut known);
            if !matches!(found, Ok(Found::File)) && self.is_selected(number) {
                missing.push(number);
            }
        }
        for number in missing {
            self.make_name(&names, number, &mut known)?;
        }
        self.are_named.store(true, Ordering::Release);
        Ok(())
    }

    /// Creates one file.
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

    /// Creates a file under this name, unless the name cannot be used.
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
            // Its folders were created, so a missing one means that the server refuses the name.
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
            // Created just now, under a name that belongs to the other file.
            Found::Unusable(_) => self.fs.remove(path)?,
        }
        Ok(made)
    }

    /// Returns what the file system makes of a path of a file, and adds an existing file to
    /// `known`.
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
        // Hard links that the user made are kept as they are.
        if is_others && !self.fs.is_hard_linked(path)? {
            let why = "the file system takes it for another file of the torrent";
            return Ok(Found::Unusable(io::Error::new(io::ErrorKind::AlreadyExists, why)));
        }
        known.insert(stamp.inode, stamp);
        Ok(Found::File)
    }

    /// The files on disk with delicate names.
    fn delicate<'a>(&'a self, names: &'a OtherNames) -> impl Iterator<Item = usize> + 'a {
        let files = &self.info.files;
        let is_delicate = |&file: &usize| !files[file].attributes.pad && names.is_delicate(files, file);
        (0..files.len()).filter(is_delicate)
    }

    fn use_name(&self, number: usize, path: Option<Vec<String>>) {
        if let Some(path) = path {
            // If it is set already, the name chosen earlier stays in use.
            let _ = self.written[number].name.set(path.into());
        }
    }
}

/// Whether the file system refuses the name, or something other than a file has it.
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
