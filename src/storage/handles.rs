//! Open files, cached and bounded for the whole process, and the folders that they lie in, which
//! thousands of torrents may share.
//!
//! A torrent may have 100,000 files and a process a thousand descriptors. The least recently used
//! file is closed first; a thread that still holds it keeps it open until it is done (at most one
//! per disk thread).
//!
//! The only lock on the path of content data is here, because all disk threads share the files. It
//! is held for a lookup (a few hundred nanoseconds, no allocation, no system call), never while a
//! file is opened, read or closed. The lock of the folders is taken when a torrent is added.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::folder::Folder;

/// Default number of files that a process keeps open; beyond it the least recently used is closed.
/// A quarter of the common limit of 1,024 descriptors; the rest is for connections.
pub const HANDLE_MAX: usize = 256;

/// The access that a file was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    Write,
}

/// The open files of a process, shared by all file systems that are given it.
#[derive(Debug)]
pub struct Handles {
    max: usize,
    hasher: RandomState,
    table: Mutex<Table>,
    /// By path as given. A folder without users is closed.
    folders: Mutex<BTreeMap<PathBuf, Weak<Folder>>>,
}

#[derive(Debug, Default)]
struct Table {
    /// By root and hash of the path below it; two paths with the same hash displace each other.
    entries: BTreeMap<(u64, u64), Entry>,
    /// Counts lookups; gives the age of entries.
    tick: u64,
    root_count: u64,
}

#[derive(Debug)]
struct Entry {
    path: Box<[String]>,
    file: Arc<File>,
    access: Access,
    used_at: u64,
}

impl Handles {
    /// Creates a cache for `max` open files, but at most a quarter of the descriptors that the
    /// process may open, and at least 1; see [`HANDLE_MAX`].
    pub fn new(max: usize) -> Arc<Self> {
        let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 4;
        let max = max.min(usize::try_from(allowed).unwrap_or(usize::MAX)).max(1);
        Arc::new(Self { max, hasher: RandomState::new(), table: Mutex::default(), folders: Mutex::default() })
    }

    /// Returns a number for a folder, under which its files are cached.
    pub(super) fn add_root(&self) -> u64 {
        let mut table = self.table();
        table.root_count += 1;
        table.root_count
    }

    /// Returns the folder at `path`, opened if it is not open.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub(super) fn folder(&self, path: &Path) -> io::Result<Arc<Folder>> {
        let known = self.folders().get(path).and_then(Weak::upgrade);
        let folder = self.with_room(|| Folder::open(path, known.clone()))?;
        if known.is_none_or(|known| !Arc::ptr_eq(&known, &folder)) {
            let mut folders = self.folders();
            // Rarely, so that the cost per folder stays negligible.
            if folders.len().is_power_of_two() {
                folders.retain(|_, folder| folder.strong_count() > 0);
            }
            folders.insert(path.to_owned(), Arc::downgrade(&folder));
        }
        Ok(folder)
    }

    fn folders(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Weak<Folder>>> {
        // Each change is complete on its own.
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the file for reading if it is open, or the one that `open` returns without waiting.
    /// No file that was written to is closed for it, because that may take long.
    pub(super) fn find_or(
        &self,
        root: u64,
        path: &[String],
        open: impl FnOnce() -> Option<File>,
    ) -> Option<Arc<File>> {
        let key = (root, self.hasher.hash_one(path));
        let mut table = self.table();
        let found = table.find(key, path, Access::Read);
        if found.is_some() || !table.has_room(self.max) {
            return found;
        }
        drop(table);
        let file = Arc::new(open()?);
        let mut table = self.table();
        // Another thread may have inserted it first.
        if table.entries.contains_key(&key) || !table.has_room(self.max) {
            return Some(file);
        }
        let entry =
            |used_at| Entry { path: path.into(), file: Arc::clone(&file), access: Access::Read, used_at };
        let closing = table.insert(key, self.max, entry);
        drop(table);
        drop(closing);
        Some(file)
    }

    /// Returns the file if it is open for at least `access`.
    fn find(&self, root: u64, path: &[String], access: Access) -> Option<Arc<File>> {
        let key = (root, self.hasher.hash_one(path));
        self.table().find(key, path, access)
    }

    /// Returns the file if it is open for at least `access`, or the one that `open` returns.
    ///
    /// # Errors
    /// Those of `open`; out of descriptors only if closing all cached files did not help.
    pub(super) fn open(
        &self,
        root: u64,
        path: &[String],
        access: Access,
        open: impl Fn() -> io::Result<File>,
    ) -> io::Result<Arc<File>> {
        if let Some(file) = self.find(root, path, access) {
            return Ok(file);
        }
        let key = (root, self.hasher.hash_one(path));
        let file = Arc::new(self.with_room(open)?);
        let entry = |used_at| Entry { path: path.into(), file: Arc::clone(&file), access, used_at };
        let closing = self.table().insert(key, self.max, entry);
        drop(closing);
        Ok(file)
    }

    /// Returns the result of `attempt`; if no descriptor is left, closes some cached files and
    /// tries again.
    ///
    /// # Errors
    /// Those of `attempt`; out of descriptors only if closing all cached files did not help.
    pub(super) fn with_room<T>(&self, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut result = attempt();
        for keep in [self.max / 2, 0] {
            if !result.as_ref().is_err_and(is_out_of_descriptors) {
                break;
            }
            let closing = self.table().shrink(keep);
            drop(closing);
            result = attempt();
        }
        result
    }

    /// Closes the files of `root`, so that the next open resolves the path again.
    pub(super) fn close(&self, root: u64) {
        let mut table = self.table();
        let others = table.entries.split_off(&(root + 1, 0));
        let closing = table.entries.split_off(&(root, 0));
        table.entries.extend(others);
        drop(table);
        drop(closing);
    }

    /// The number of open files.
    pub fn open_count(&self) -> usize {
        self.table().entries.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change is complete on its own.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn find(&mut self, key: (u64, u64), path: &[String], access: Access) -> Option<Arc<File>> {
        self.tick += 1;
        let entry =
            self.entries.get_mut(&key).filter(|entry| *entry.path == *path && entry.access >= access)?;
        entry.used_at = self.tick;
        Some(Arc::clone(&entry.file))
    }

    /// Inserts an entry; returns those that are no longer cached, for the caller to close without
    /// the lock.
    fn insert(&mut self, key: (u64, u64), max: usize, entry: impl FnOnce(u64) -> Entry) -> Vec<Entry> {
        let mut closing: Vec<_> = self.entries.insert(key, entry(self.tick)).into_iter().collect();
        closing.append(&mut self.shrink(max));
        closing
    }

    fn oldest(&self) -> Option<(&(u64, u64), &Entry)> {
        self.entries.iter().min_by_key(|(_, entry)| entry.used_at)
    }

    /// Whether there is room for one more without closing a file that was written to.
    fn has_room(&self, max: usize) -> bool {
        self.entries.len() < max || self.oldest().is_some_and(|(_, oldest)| oldest.access == Access::Read)
    }

    fn shrink(&mut self, keep: usize) -> Vec<Entry> {
        if keep == 0 {
            return mem::take(&mut self.entries).into_values().collect();
        }
        let mut closing = Vec::new();
        while self.entries.len() > keep {
            let oldest = self.oldest().map(|(key, _)| *key);
            closing.extend(oldest.and_then(|key| self.entries.remove(&key)));
        }
        closing
    }
}

/// Whether the process, or the system, has no file descriptor left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn path(name: &str) -> Vec<String> {
        vec![name.to_owned()]
    }

    #[test]
    fn the_least_recently_used_is_closed_first() {
        let handles = Handles::new(2);
        let opens = Cell::new(0);
        let open = |name: &str, access| {
            let real = || {
                opens.set(opens.get() + 1);
                tempfile::tempfile()
            };
            handles.open(1, &path(name), access, real).unwrap();
            opens.get()
        };
        assert_eq!(open("a", Access::Read), 1);
        assert_eq!(open("b", Access::Write), 2);
        assert_eq!(open("a", Access::Read), 2, "still open");
        assert_eq!(open("c", Access::Read), 3);
        assert_eq!(open("a", Access::Read), 3, "b was older");
        assert_eq!(open("b", Access::Read), 4);
        assert_eq!(open("b", Access::Write), 5, "one for reading does not do for writing");
        assert_eq!(open("b", Access::Read), 5);
        assert_eq!(handles.open_count(), 2);
    }

    #[test]
    fn out_of_descriptors_closes_cached_files_and_tries_again() {
        let handles = Handles::new(8);
        for name in 0..8 {
            handles.open(1, &path(&name.to_string()), Access::Read, tempfile::tempfile).unwrap();
        }
        let scarce =
            || if handles.open_count() > 0 { Err(Errno::MFILE.into()) } else { tempfile::tempfile() };
        assert!(handles.open(1, &path("new"), Access::Read, scarce).is_ok());
        handles.open(1, &path("again"), Access::Read, tempfile::tempfile).unwrap();
        let scarce = || if handles.open_count() > 0 { Err(Errno::MFILE.into()) } else { Ok(7) };
        assert_eq!(handles.with_room(scarce).unwrap(), 7, "not only for files that are kept open");
        let error = handles.open(1, &path("x"), Access::Read, || Err(Errno::MFILE.into())).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::MFILE));
    }

    #[test]
    fn no_written_file_is_closed_where_waiting_is_forbidden() {
        let handles = Handles::new(2);
        let at_once = |name| handles.find_or(1, &path(name), || tempfile::tempfile().ok()).is_some();
        assert!(at_once("a") && at_once("b") && at_once("c"));
        handles.open(1, &path("w"), Access::Write, tempfile::tempfile).unwrap();
        assert!(at_once("d"), "c was read from");
        assert!(!at_once("e") && at_once("d") && at_once("w"));
        assert_eq!(handles.open_count(), 2);
    }

    #[test]
    fn closing_a_folder_leaves_the_others() {
        let handles = Handles::new(8);
        let roots = [handles.add_root(), handles.add_root(), handles.add_root()];
        for root in roots {
            handles.open(root, &path("f"), Access::Read, tempfile::tempfile).unwrap();
        }
        handles.close(roots[1]);
        assert_eq!(handles.open_count(), 2);
        for root in [roots[0], roots[2]] {
            handles.open(root, &path("f"), Access::Read, || Err(Errno::NOENT.into())).unwrap();
        }
    }
}
