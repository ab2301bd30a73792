//! Files that can be had without waiting for a disk, and what is done beforehand so that reading
//! them does not wait either.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{self, Mode, OFlags, ResolveFlags, SeekFrom};

use super::{BENEATH, COMMON, RealFs, is_safe, regular};

/// Holes of a file that are looked for: few files have any, but while they are downloaded; beyond,
/// a read may wait.
const HOLE_MAX: usize = 4_096;
/// Longest file whose places on the disk are known with its inode, whichever way they are written
/// there.
const SMALL_LEN_MAX: u64 = 48 << 10;

impl RealFs {
    /// Opens a regular file to read, if that takes no waiting: the system knows the way to it and
    /// the file by heart, and no server is to be told.
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

/// Has the system read where on the disk a file lies. A read that must not wait for the file's
/// bytes would wait for that: it begins to fetch them, to be there for the next one.
pub(super) fn learn_places(file: &File) {
    let mut at = 0;
    for _ in 0..HOLE_MAX {
        // From one hole to the next; who cannot tell where they are has nothing to learn.
        let hole = fs::seek(file, SeekFrom::Hole(at));
        let Ok(data) = hole.and_then(|hole| fs::seek(file, SeekFrom::Data(hole))) else { return };
        at = data;
    }
}
