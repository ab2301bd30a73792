//! A folder that is held open, whatever becomes of its name: one descriptor for all torrents that
//! lie in it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, Mode, OFlags};

/// How a folder is held on to: as a place, not to be listed.
pub(super) const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A folder that is held on to, by all who use it together.
#[derive(Debug)]
pub(super) struct Folder {
    /// Where it is, to open what lies below it.
    pub(super) place: OwnedFd,
    /// As people call it.
    pub(super) path: PathBuf,
    /// Device and inode.
    pub(super) identity: (u64, u64),
    /// What lies in it has no disk below it, but for what is mounted within it.
    pub(super) is_in_memory: bool,
    /// On this file system the inode of a small file says where it lies: ext4, XFS.
    pub(super) maps_in_inode: bool,
}

impl Folder {
    /// The folder that is at `path` now; `known` if that is the same.
    pub(super) fn open(path: &Path, known: Option<Arc<Self>>) -> io::Result<Arc<Self>> {
        let identity = |stat: fs::Stat| (stat.st_dev, stat.st_ino);
        if let Some(known) = known
            && fs::stat(path).is_ok_and(|stat| identity(stat) == known.identity)
        {
            return Ok(known);
        }
        let place = fs::open(path, FOLDER, Mode::empty())?;
        let identity = identity(fs::fstat(&place)?);
        let kind = fs::fstatfs(&place).map_or(0, |system| system.f_type as u64);
        let (is_in_memory, maps_in_inode) = (kind == TMPFS, matches!(kind, EXT4 | XFS));
        Ok(Arc::new(Self { place, path: path.to_owned(), identity, is_in_memory, maps_in_inode }))
    }
}

/// What `fstatfs` calls tmpfs. It has no disk below it, but may have been swapped out, as may any
/// memory of ours.
const TMPFS: u64 = 0x0102_1994;
/// The same of ext2 to ext4.
const EXT4: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;

/// Where Linux says which start of the system this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Identifies the start of the system; 0: not known.
pub(super) fn boot() -> u64 {
    std::fs::read(BOOT_ID).map_or(0, |id| u64::from(crc32fast::hash(&id)))
}
