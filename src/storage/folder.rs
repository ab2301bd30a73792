//! An open folder, whatever becomes of its name: one descriptor for all torrents in it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, Mode, OFlags};

/// Flags of an open folder: a place to open files below, not to list.
pub(super) const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// An open folder, shared by all its users.
#[derive(Debug)]
pub(super) struct Folder {
    /// Its descriptor.
    pub(super) place: OwnedFd,
    /// The path as given.
    pub(super) path: PathBuf,
    /// Device and inode.
    pub(super) identity: (u64, u64),
    /// Whether its files have no disk below them, except for mounts within it.
    pub(super) is_in_memory: bool,
    /// Whether the inode of a small file stores its extents: ext4, XFS.
    pub(super) maps_in_inode: bool,
}

impl Folder {
    /// Returns the folder that is at `path` now; `known` if that is the same folder.
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

/// `f_type` of tmpfs in `fstatfs`. It has no disk below it; it may be swapped out, like all memory.
const TMPFS: u64 = 0x0102_1994;
/// `f_type` of ext2 to ext4.
const EXT4: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;

/// Where Linux publishes the identifier of the boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Identifies the boot of the system; 0 if unknown.
pub(super) fn boot() -> u64 {
    std::fs::read(BOOT_ID).map_or(0, |id| u64::from(crc32fast::hash(&id)))
}
