//! The folder of journals: one file for each torrent and folder that it was ever downloaded to or
//! seeded from.
//!
//! Journals of content that is gone would pile up, and cannot be told from those of a disk that is
//! not connected today. So each start removes journals that were not written for more than a year;
//! content that is seeded for longer without a change is then hashed once.

use std::fs::{self, DirBuilder};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::content::StorageError;
use super::fs::RealFs;
use super::handles::Handles;
use super::journal::{Journal, Owner};
use crate::proto::infohash::InfoHash;
use crate::proto::metainfo::Info;

/// Longest time since a journal was written; older ones are removed.
const AGE_MAX: Duration = Duration::from_secs(400 * 24 * 3600);
/// Name endings of journals, of interrupted replacements, and of journals that were set aside.
const ENDINGS: [&str; 3] = [".journal", ".journal.new", ".journal.aside"];

/// Opens the folder, and creates it if it is missing.
///
/// # Errors
/// The folder cannot be used, so no journals are kept.
pub fn open(dir: &Path, handles: &Arc<Handles>) -> Result<Arc<RealFs>, StorageError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| StorageError::new(dir, source))?;
    RealFs::create(dir, handles).map(Arc::new)
}

/// Opens the journal of a torrent in `dir`.
///
/// # Errors
/// The journal cannot be read now; a later attempt may succeed.
pub fn open_journal(journals: Arc<RealFs>, info: &Info, dir: &Path) -> Result<Journal<RealFs>, StorageError> {
    let owner =
        Owner { infohash: info.infohash, geometry: info.geometry, file_count: info.files.len() as u32 };
    Journal::open(journals, vec![journal_name(info.infohash, dir)], owner)
}

/// The same name for a torrent and folder by whatever path the folder is given, even if it is gone.
fn journal_name(infohash: InfoHash, dir: &Path) -> String {
    let dir = resolve(dir);
    let place = InfoHash::of(dir.as_os_str().as_bytes()).to_string();
    format!("{infohash}-{}.journal", &place[..16])
}

/// Most symbolic links to missing places that are followed in one path, as in Linux; with more the
/// path is used as given.
const LINK_MAX: u32 = 40;

/// Resolves a path as far as it exists and appends the rest as given.
fn resolve(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let (mut path, mut rest, mut link_count) = (absolute.clone(), Vec::new(), 0);
    // Each round shortens the path or counts a link.
    while link_count <= LINK_MAX {
        if let Ok(whole) = path.canonicalize() {
            return rest.iter().rev().fold(whole, |whole, name| whole.join(name));
        }
        match (path.read_link(), path.parent(), path.file_name()) {
            // The target of the link is missing.
            (Ok(target), Some(parent), _) => {
                path = parent.join(target);
                link_count += 1;
            }
            (Err(_), Some(parent), Some(name)) => {
                rest.push(name.to_owned());
                path = parent.to_owned();
            }
            (_, None, _) | (Err(_), _, None) => break,
        }
    }
    absolute
}

/// Removes old journals; the next start tries again if one cannot be removed.
pub fn prune(dir: &Path, now: SystemTime) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_journal = ENDINGS.iter().any(|ending| name.to_string_lossy().ends_with(ending));
        let written_at =
            entry.metadata().ok().filter(fs::Metadata::is_file).and_then(|data| data.modified().ok());
        let age = written_at.and_then(|at| now.duration_since(at).ok());
        if is_journal && age.is_some_and(|age| age > AGE_MAX) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_journals_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["old.journal", "old.journal.new", "new.journal", "other"];
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for name in names {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            let age = if name.starts_with("new") { Duration::ZERO } else { 2 * AGE_MAX };
            file.set_modified(start - age).unwrap();
        }
        prune(dir.path(), start);
        let left = |name: &str| dir.path().join(name).exists();
        assert_eq!(names.map(left), [false, false, true, true]);
    }

    #[test]
    fn a_missing_folder_keeps_its_journal_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let [gone, link, through] = ["disk/films", "link", "link/more"].map(|name| root.join(name));
        fs::create_dir_all(&gone).unwrap();
        std::os::unix::fs::symlink("disk/films", &link).unwrap();
        let places = || [&gone, &link, &through, &root.join("disk/./films")].map(|path| resolve(path));
        let before = places();
        assert_eq!(before, [gone.clone(), gone.clone(), gone.join("more"), gone.clone()]);
        fs::remove_dir_all(root.join("disk")).unwrap();
        assert_eq!(places(), before);
        let deep: PathBuf = std::iter::repeat_n("deep", 2 * LINK_MAX as usize).collect();
        assert_eq!(resolve(&link.join(&deep)), gone.join(&deep));
        assert!(resolve(&deep).is_absolute() && resolve(Path::new("gone/../films")).is_absolute());
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("link", &link).unwrap();
        assert_eq!(resolve(&link), link, "a link to itself");
    }

    #[test]
    fn an_unusable_journal_folder_is_an_error_not_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(open(&file.join("below"), &Handles::new(4)).is_err());
        assert!(open(&dir.path().join("a/b"), &Handles::new(4)).is_ok());
    }
}
