//! Files of the state folder: small, read whole, always the old one or the new one.
//!
//! A file is written whole beside the old one under a name of its own, synced and renamed over it,
//! so processes that share it replace each other's and cannot spoil it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Claims what the file says for this process, until the returned file is closed. None: another
/// process has it, or the system cannot tell.
pub fn claim(path: &Path) -> Option<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(path.parent()?).ok()?;
    // Neither a link nor a pipe is a lock.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let file = options.open(path.with_added_extension("lock")).ok()?;
    file.try_lock().ok().map(|()| file)
}

/// Returns what is in the file, at most `len_max` bytes and one more, which shows that it is
/// longer; None: there is no file.
///
/// # Errors
/// The system refuses, or it is no regular file.
pub fn read(path: &Path, len_max: usize) -> io::Result<Option<Vec<u8>>> {
    // A pipe in its place would be waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(len_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Replaces the file, and makes its folder if need be; `nonce` is random, for a name that nobody
/// else uses.
///
/// # Errors
/// The system refuses; the old file is there then.
pub fn replace(path: &Path, bytes: &[u8], nonce: u64) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let beside = path.with_added_extension(format!("{nonce:016x}"));
    let written = write(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What cannot be renamed is of no use; if it cannot be removed either, it is small.
        let _ = fs::remove_file(&beside);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder/state");
        assert_eq!(read(&path, 9).unwrap(), None);
        for (nonce, bytes) in [&b"long, and longer than is read"[..], b"new"].into_iter().enumerate() {
            replace(&path, bytes, nonce as u64).unwrap();
            assert_eq!(read(&path, 9).unwrap().unwrap(), bytes[..bytes.len().min(10)]);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert!(read(dir.path(), 9).is_err());
    }

    #[test]
    fn one_process_at_a_time_has_a_claim() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/state");
        let claimed = claim(&path).unwrap();
        assert!(claim(&path).is_none());
        drop(claimed);
        assert!(claim(&path).is_some());
        let elsewhere = dir.path().join("linked");
        std::os::unix::fs::symlink("/dev/null", elsewhere.with_added_extension("lock")).unwrap();
        assert!(claim(&elsewhere).is_none());
    }
}
