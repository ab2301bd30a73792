//! Opens files without waiting for a disk, and prepares files so that reads need not wait either.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{self, Mode, OFlags, ResolveFlags, SeekFrom};

use super::{BENEATH, COMMON, RealFs, is_safe, regular};

/// Most holes of a file that are looked for: few files have any after their download; beyond that a
/// read may wait.
const HOLE_MAX: usize = 4_096;
/// Longest file whose extents are stored in its inode in every layout, bytes.
const SMALL_LEN_MAX: u64 = 48 << 10;

impl RealFs {
    /// Opens a regular file for reading if that does not wait: path and inode are cached and the
    /// file system is local.
    pub(super) fn open_at_once(&self, path: &[String]) -> Option<File> {
        let is_known = self.is_in_memory() || self.folder.maps_in_inode;
        if !is_known || !path.iter().all(|element| is_safe(element)) {
            return None;
        }
        let flags = OFlags::RDONLY | COMMON;
        let at_once = BENEATH | ResolveFlags::CACHED | ResolveFlags::NO_XDEV;
        let file = fs::openat2(&self.folder.place, path.join("/"), flags, Mode::empty(), at_once).ok()?;
        let len = regular::look(file.as_fd()).ok()?.0.len;
        (self.is_in_memory() || len <= SMALL_LEN_MAX).then(|| File::from(file))
    }
}

/// Makes the system load the extents of a file. A non-blocking read would otherwise wait for them
/// before it starts to fetch the bytes.
pub(super) fn learn_places(file: &File) {
    let mut at = 0;
    for _ in 0..HOLE_MAX {
        // Seeks from hole to hole; a file system that does not support this has nothing to load.
        let hole = fs::seek(file, SeekFrom::Hole(at));
        let Ok(data) = hole.and_then(|hole| fs::seek(file, SeekFrom::Data(hole))) else { return };
        at = data;
    }
}
