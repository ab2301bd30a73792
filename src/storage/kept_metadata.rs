//! Metadata that peers gave, kept from one start to the next: a torrent that was added by its
//! magnet link is known at once the next time, with nobody online (BEP 9).
//!
//! One file a torrent in a folder of their own, named by the infohash: the `info` dictionary byte
//! for byte, so that its name is its checksum. Trackers are not kept, since they may carry
//! passkeys: those of the link count. Each start removes what was not used for more than a year,
//! and the longest unused beyond a total.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::state_file;
use crate::proto::infohash::InfoHash;
use crate::proto::metainfo::{Info, METAINFO_LEN_MAX};

/// Since metadata was used: older ones are removed.
const AGE_MAX: Duration = Duration::from_secs(400 * 24 * 3600);
/// Bytes of all together; at each start the longest unused are removed until the rest fits.
const TOTAL_LEN_MAX: u64 = 256 << 20;
/// What the files are called; behind it a number, where writing was interrupted.
const ENDING: &str = ".info";

fn path_of(dir: &Path, infohash: InfoHash) -> PathBuf {
    dir.join(format!("{infohash}{ENDING}"))
}

/// Returns the metadata of this torrent in the folder `dir`; None: it is not kept there.
///
/// # Errors
/// It cannot be read, or is damaged, and then removed.
pub fn load(dir: &Path, infohash: InfoHash) -> io::Result<Option<Info>> {
    let path = path_of(dir, infohash);
    let Some(bytes) = state_file::read(&path, METAINFO_LEN_MAX)? else { return Ok(None) };
    if InfoHash::of(&bytes) != infohash {
        let _ = fs::remove_file(&path);
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged, and removed"));
    }
    // What is used stays; if this cannot be noted, it is fetched again one day.
    let _ = fs::File::open(&path).and_then(|file| file.set_modified(now()));
    Ok(Info::decode(Bytes::from(bytes)).ok())
}

/// Keeps the metadata; `nonce` is random.
///
/// # Errors
/// It is not kept: the next start fetches it again.
pub fn keep(dir: &Path, info: &Info, nonce: u64) -> io::Result<()> {
    state_file::replace(&path_of(dir, info.infohash), &info.bytes, nonce)
}

/// Removes what is old or too much.
pub fn prune(dir: &Path) {
    prune_at(dir, now());
}

fn prune_at(dir: &Path, now: SystemTime) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut files: Vec<(SystemTime, u64, PathBuf)> =
        entries.flatten().filter_map(|entry| file(&entry)).collect();
    // The latest first, as these stay.
    files.sort_by(|one, other| other.cmp(one));
    let mut total_len = 0;
    for (used_at, len, path) in files {
        total_len += len;
        let is_old = now.duration_since(used_at).is_ok_and(|age| age > AGE_MAX);
        if is_old || total_len > TOTAL_LEN_MAX {
            let _ = fs::remove_file(path);
        }
    }
}

/// When it was used last, its length and its place, if it is one of ours.
fn file(entry: &fs::DirEntry) -> Option<(SystemTime, u64, PathBuf)> {
    let name = entry.file_name();
    let is_ours = name.to_string_lossy().contains(ENDING);
    let metadata = entry.metadata().ok().filter(|metadata| is_ours && metadata.is_file())?;
    Some((metadata.modified().ok()?, metadata.len(), entry.path()))
}

#[expect(clippy::disallowed_methods, reason = "files carry the wall clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn info() -> Info {
        Info::decode(Bytes::from_static(b"d6:lengthi0e4:name1:n12:piece lengthi1e6:pieces0:e")).unwrap()
    }

    #[test]
    fn what_is_kept_is_there_until_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, info) = (dir.path().join("new"), info());
        assert!(load(&folder, info.infohash).unwrap().is_none());
        keep(&folder, &info, 1).unwrap();
        assert_eq!(load(&folder, info.infohash).unwrap().unwrap().bytes, info.bytes);
        assert!(load(&folder, InfoHash([0; 20])).unwrap().is_none());
        let path = path_of(&folder, info.infohash);
        for damaged in [&info.bytes[1..], b"", b"d6:lengthi0e4:name1:m12:piece lengthi1e6:pieces0:e"] {
            fs::write(&path, damaged).unwrap();
            assert!(load(&folder, info.infohash).is_err() && !path.exists());
        }
        fs::create_dir(&path).unwrap();
        assert!(load(&folder, info.infohash).is_err());
        assert!(keep(Path::new("/proc/none"), &info, 3).is_err());
    }

    #[test]
    fn what_was_not_used_for_long_and_what_is_too_much_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let day = Duration::from_secs(24 * 3600);
        let ages =
            [("a.info", 500), ("b.info.0123", 500), ("c.info", 3), ("d.info", 2), ("e.info", 1), ("f", 500)];
        for (name, age) in ages {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_len(TOTAL_LEN_MAX / 2).unwrap();
            file.set_modified(start - day * age).unwrap();
        }
        prune_at(dir.path(), start);
        let left = |(name, _): (&str, u32)| dir.path().join(name).exists();
        assert_eq!(ages.map(left), [false, false, false, true, true, true]);
    }
}
