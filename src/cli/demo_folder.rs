//! The temporary folder of a demo: whether there is room for it, and clearing what killed demos
//! left.
//!
//! Each demo locks its folder for as long as it runs, and the system takes the lock back however it
//! ends. So a folder that can be locked belongs to no running demo, unless that demo has only just
//! made it and not locked it yet.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::clock;
use super::failure::Failure;
use super::narrator::fault_text;
use super::report::Report;
use super::size::show_len;
use super::text::counted;
use crate::engine::StorageFault;

/// What the folders' names begin with.
const PREFIX: &str = "sprat-demo-";
/// Age from which a folder that is not locked is taken for left behind: locking comes right after
/// making it.
const LEFT_AGE_MIN: Duration = Duration::from_secs(60);
/// What a file system needs beside the content, as a part of it: tables, and folders.
const ROOM_MARGIN_DIVISOR: u64 = 64;

/// A demo's folder; removed when dropped.
#[derive(Debug)]
pub(crate) struct DemoFolder {
    dir: TempDir,
    _lock: File,
}

impl DemoFolder {
    /// Makes one below the system's temporary folder, after clearing what dead demos left there.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub(crate) fn make(report: &Report) -> Result<Self, Failure> {
        let place = std::env::temp_dir();
        let fault = |error| Failure::io(&place, &error, "; set TMPDIR to a folder with room");
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir().map_err(fault)?;
        let lock = File::open(dir.path()).map_err(fault)?;
        // Without locks, as on some network file systems, nothing of ours is cleared either.
        let _ = lock.try_lock();
        let owner = lock.metadata().map_err(fault)?.uid();
        let (count, len) = clear(&place, owner, clock::wall());
        if count > 0 {
            let demos = counted(count, "demo");
            report.note(&format!("Removed what {demos} left behind when killed: {}", show_len(len)));
        }
        Ok(Self { dir, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Refuses to begin with `len` bytes more if they do not fit.
    pub(crate) fn require_room(&self, len: u64) -> Result<(), Failure> {
        // What cannot be found out is found out by writing.
        let Ok(system) = rustix::fs::statvfs(self.path()) else { return Ok(()) };
        let free_len = system.f_bavail.saturating_mul(system.f_frsize);
        let needed_len = len.saturating_add(len / ROOM_MARGIN_DIVISOR);
        let missing_len = needed_len.saturating_sub(free_len);
        if missing_len == 0 {
            return Ok(());
        }
        let place = std::env::temp_dir().to_string_lossy().into_owned();
        let fault = StorageFault::Full { place, missing_len: Some(missing_len) };
        Err(Failure::Failed(format!(
            "{}; choose less with --size or --peers, or set TMPDIR",
            fault_text(&fault)
        )))
    }

    /// Removes it.
    ///
    /// # Errors
    /// Something of it stays.
    pub(crate) fn close(self) -> Result<(), Failure> {
        let path = self.path().to_owned();
        self.dir.close().map_err(|error| Failure::io(&path, &error, "; remove it yourself"))
    }
}

/// Removes the demo folders of this user that no running demo holds. Returns how many, and their
/// bytes.
fn clear(place: &Path, owner: u32, now: SystemTime) -> (usize, u64) {
    let Ok(entries) = fs::read_dir(place) else { return (0, 0) };
    let ours = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    let removed = ours.filter_map(|entry| remove_left(&entry.path(), owner, now));
    removed.fold((0, 0), |(count, len), removed_len| (count + 1, len + removed_len))
}

/// Removes it if it was left behind: its bytes.
fn remove_left(path: &Path, owner: u32, now: SystemTime) -> Option<u64> {
    let is_left = |metadata: &Metadata| {
        let age = metadata.modified().ok().and_then(|at| now.duration_since(at).ok());
        metadata.is_dir() && metadata.uid() == owner && age.is_some_and(|age| age >= LEFT_AGE_MIN)
    };
    fs::symlink_metadata(path).ok().filter(is_left)?;
    let lock = File::open(path).ok()?;
    lock.try_lock().ok()?;
    let len = len_below(path);
    fs::remove_dir_all(path).ok()?;
    Some(len)
}

/// Bytes of all files below, links not followed.
fn len_below(folder: &Path) -> u64 {
    let mut len = 0;
    let mut open: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => open.push(entry.path()),
                Ok(metadata) => len += metadata.len(),
                Err(_) => {}
            }
        }
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_folders_of_this_user_that_no_demo_locks_are_removed() {
        let place = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let old = now - 2 * LEFT_AGE_MIN;
        let make = |name: &str, at: SystemTime| {
            let path = place.path().join(name);
            fs::create_dir_all(path.join("peer-1")).unwrap();
            fs::write(path.join("peer-1/file"), [0; 100]).unwrap();
            let folder = File::open(&path).unwrap();
            folder.set_modified(at).unwrap();
            folder
        };
        drop(make("sprat-demo-left", old));
        let held = make("sprat-demo-held", old);
        held.try_lock().unwrap();
        drop(make("sprat-demo-new", now));
        drop(make("other", old));
        std::os::unix::fs::symlink(place.path().join("other"), place.path().join("sprat-demo-link")).unwrap();
        let owner = place.path().metadata().unwrap().uid();
        assert_eq!(clear(place.path(), owner + 1, now), (0, 0), "another user's");
        assert_eq!(clear(place.path(), owner, now), (1, 100));
        let is_there = |name: &str| place.path().join(name).exists();
        assert!(!is_there("sprat-demo-left"));
        assert!(
            ["sprat-demo-held", "sprat-demo-new", "other/peer-1/file", "sprat-demo-link"].map(is_there)
                == [true; 4]
        );
        drop(held);
        assert_eq!(clear(place.path(), owner, now), (1, 100));
    }
}
