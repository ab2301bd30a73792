//! What is a regular file and what is not, and errors of the system in words.

use std::io;

use rustix::fs::{self, FileType};
use rustix::io::Errno;

use super::Stamp;

/// What a regular file is like.
pub(super) fn require_regular(stat: &fs::Stat) -> io::Result<Stamp> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Stamp {
            len: stat.st_size as u64,
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            inode: stat.st_ino,
        }),
        FileType::Directory => Err(explain(Errno::ISDIR)),
        FileType::Symlink => Err(explain(Errno::LOOP)),
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(io::Error::other("not a regular file")),
    }
}

fn nanoseconds(seconds: i64, rest: u64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add_unsigned(rest)
}

/// In words where the system's own mislead.
pub(super) fn explain(error: Errno) -> io::Error {
    match error {
        Errno::LOOP | Errno::XDEV => {
            io::Error::other("a symbolic link stands in the way; --follow-links lets a seed read through it")
        }
        Errno::ISDIR => io::Error::new(io::ErrorKind::IsADirectory, "a folder stands where a file belongs"),
        error => error.into(),
    }
}
