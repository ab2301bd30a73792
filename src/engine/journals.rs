//! The folder of journals: one file for each torrent and folder that it was ever downloaded to or seeded from.
//!
//! Journals of content that is long gone would pile up, and nobody can tell them from those of a disk that is not
//! plugged in today. So each start removes those that nobody wrote for more than a year; who seeds for longer than
//! that without a change has its content hashed once.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::task;
use crate::storage::content::StorageError;
use crate::storage::fs::RealFs;
use crate::storage::handles::Handles;

/// Since a journal was written: older ones are removed.
const AGE_MAX: Duration = Duration::from_secs(400 * 24 * 3600);
/// What journals are called, what is left of one whose replacement was interrupted, and one that was set aside.
const ENDINGS: [&str; 3] = [".journal", ".journal.new", ".journal.aside"];

/// The folder, made if missing.
///
/// # Errors
/// It cannot be used, so no journals are kept.
pub(super) fn open(dir: &Path, handles: &Arc<Handles>) -> Result<Arc<RealFs>, StorageError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| StorageError::new(dir, source))?;
    RealFs::create(dir, handles).map(Arc::new)
}

/// Removes what is old; what cannot be removed is tried again with the next start.
pub(super) async fn prune(dir: PathBuf) {
    #[expect(clippy::disallowed_methods, reason = "files carry the wall clock")]
    let now = SystemTime::now();
    // If the engine ends meanwhile, the next one does it.
    task::blocking(move || prune_at(&dir, now)).await.unwrap_or_default();
}

fn prune_at(dir: &Path, now: SystemTime) {
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
    fn old_journals_go_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["old.journal", "old.journal.new", "new.journal", "other"];
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for name in names {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            let age = if name.starts_with("new") { Duration::ZERO } else { 2 * AGE_MAX };
            file.set_modified(start - age).unwrap();
        }
        prune_at(dir.path(), start);
        let left = |name: &str| dir.path().join(name).exists();
        assert_eq!(names.map(left), [false, false, true, true]);
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_no_reason_not_to_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(open(&file.join("below"), &Handles::new(4)).is_err());
        assert!(open(&dir.path().join("a/b"), &Handles::new(4)).is_ok());
    }
}
