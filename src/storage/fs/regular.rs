//! Takes the stamp of a regular file.

use std::os::fd::BorrowedFd;

use rustix::fs::{self, AtFlags, FileType, StatxFlags, StatxTimestamp};
use rustix::io::Errno;

use super::Stamp;

/// Mixes the birth time of a file into its inode number: an odd number of random bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the stamp of a regular file and its device number.
///
/// # Errors
/// For anything else, the error of opening it as a regular file: `ISDIR`, `LOOP` or `NXIO`.
pub(super) fn look(file: BorrowedFd<'_>) -> rustix::io::Result<(Stamp, u64)> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = match fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted) {
        // Old systems lack the call, and old sandboxes refuse it.
        Err(Errno::NOSYS | Errno::PERM) => return without_birth(file),
        stat => stat?,
    };
    require_regular(FileType::from_raw_mode(stat.stx_mode.into()))?;
    let time = |at: StatxTimestamp| nanoseconds(at.tv_sec, at.tv_nsec.into());
    let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    let born = if has_birth { (time(stat.stx_btime) as u64).wrapping_mul(SPREAD) } else { 0 };
    let stamp = Stamp {
        len: stat.stx_size,
        modified: time(stat.stx_mtime),
        changed: time(stat.stx_ctime),
        inode: stat.stx_ino ^ born,
    };
    Ok((stamp, fs::makedev(stat.stx_dev_major, stat.stx_dev_minor)))
}

fn without_birth(file: BorrowedFd<'_>) -> rustix::io::Result<(Stamp, u64)> {
    let stat = fs::fstat(file)?;
    require_regular(FileType::from_raw_mode(stat.st_mode))?;
    let stamp = Stamp {
        len: stat.st_size as u64,
        modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        inode: stat.st_ino,
    };
    Ok((stamp, stat.st_dev))
}

fn require_regular(kind: FileType) -> rustix::io::Result<()> {
    match kind {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Errno::ISDIR),
        FileType::Symlink => Err(Errno::LOOP),
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Errno::NXIO),
    }
}

fn nanoseconds(seconds: i64, rest: u64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add_unsigned(rest)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// Most files created until the system reuses an inode number.
    const TRY_MAX: usize = 100;

    #[test]
    fn a_file_with_a_reused_inode_number_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let make = || {
            let file = File::create(&path).unwrap();
            let (stamp, device) = look(file.as_fd()).unwrap();
            let metadata = file.metadata().unwrap();
            assert_eq!(device, metadata.dev());
            assert_eq!(stamp, look(File::open(&path).unwrap().as_fd()).unwrap().0);
            (stamp.inode, metadata.ino(), metadata.created().ok())
        };
        let first = make();
        for _ in 0..TRY_MAX {
            std::fs::remove_file(&path).unwrap();
            let next = make();
            if next.1 == first.1 && next.2.is_some_and(|born| first.2.is_some_and(|before| born > before)) {
                assert_ne!(next.0, first.0);
                return;
            }
        }
        println!("this file system gives no number again, or does not say when files were made: not tried");
    }
}
