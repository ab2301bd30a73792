//! The file-system trait that storage's core runs over: the real one, or a simulated disk.

use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::path::PathBuf;

/// What tells a file from what it was before, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub len: u64,
    /// Last change of its bytes, nanoseconds since 1970 by the file system's clock; programs can
    /// set it.
    pub modified: i64,
    /// Last change of its bytes, name or rights; only the system can set it.
    pub changed: i64,
    /// Which file it is, whatever its name: the number of its inode, together with when it was made
    /// where the file system says so. The number alone is given to another file as soon as this one
    /// is removed (ext4).
    pub inode: u64,
}

/// A file system below one folder; paths are relative, in safe elements, and never leave the
/// folder. All positions are explicit; nothing has a cursor. Opening what was open lately is cheap,
/// and the number of files kept open is the file system's business.
pub trait FileSystem: Send + Sync {
    /// An open file.
    type File: Send + Sync;
    /// A file that is ours, in this process and among others, until this is dropped.
    type Lock: Send + Sync + Debug;

    /// Fails if files cannot be made in the folder, as far as is known without making one.
    fn require_writable(&self) -> io::Result<()> {
        Ok(())
    }
    /// What people call the file, for errors.
    fn full_path(&self, path: &[String]) -> PathBuf;
    /// Opens an existing file to read.
    fn open_read(&self, path: &[String]) -> io::Result<Self::File>;
    /// Opens a file to read and write, making it and its folders if missing.
    fn open_write(&self, path: &[String]) -> io::Result<Self::File>;
    /// The same of a file that should be there already: if it is missing it is not made.
    fn open_again(&self, path: &[String]) -> io::Result<Self::File>;
    /// Reads into all of `buffer`; an early end is `UnexpectedEof`.
    fn read_exact_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// The file, if having it to read takes no waiting: it is open already, or all that opening it
    /// needs is in memory.
    fn opened(&self, _path: &[String]) -> Option<Self::File> {
        None
    }
    /// Reads into `parts`, one after the other, from `offset` on, as many bytes as can be had
    /// without waiting for a disk; how many. None at all may as well be an error: a read that waits
    /// says which.
    fn read_at_once(&self, _file: &Self::File, _parts: &mut [IoSliceMut<'_>], _offset: u64) -> usize {
        0
    }
    /// This much will be read soon, with other reads between: it may be fetched in one go. A hint;
    /// by itself it changes nothing, and need not do anything.
    fn will_read(&self, _file: &Self::File, _offset: u64, _len: u64) {}
    /// Writes all of `parts` one after the other from `offset`.
    fn write_all_at(&self, file: &Self::File, parts: &[&[u8]], offset: u64) -> io::Result<()>;
    /// Sets the length, sparse when growing.
    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Length, times and identity; None: no such file.
    fn stamp(&self, path: &[String]) -> io::Result<Option<Stamp>>;
    /// The same of an open file, whatever its name is now.
    fn stamp_of(&self, file: &Self::File) -> io::Result<Stamp>;
    /// Length; None: no such file.
    fn len(&self, path: &[String]) -> io::Result<Option<u64>> {
        Ok(self.stamp(path)?.map(|stamp| stamp.len))
    }
    /// The device of the folder: it is another one when the disk that is mounted there is not.
    fn folder_device(&self) -> u64;
    /// Identifies the start of the system. As long as it is the same, no write is lost, synced or
    /// not.
    fn boot(&self) -> u64;
    /// Whether the file has more than one name: hard links.
    fn is_hard_linked(&self, _path: &[String]) -> io::Result<bool> {
        Ok(false)
    }
    /// The wall clock, microseconds since 1970: what stamps are compared with.
    fn now(&self) -> u64;
    /// Bytes that still fit; None: nobody knows.
    fn free_len(&self) -> Option<u64>;
    /// Takes a file for ourselves, which is made if missing; None: someone else has it.
    fn lock(&self, path: &[String]) -> io::Result<Option<Self::Lock>>;
    /// Sets apart the room for so many bytes from the start of the file, which grows to that
    /// length; whether that was not so before.
    fn allocate(&self, file: &Self::File, len: u64) -> io::Result<bool>;
    /// Bytes of room that [`FileSystem::allocate`] would take.
    fn unallocated_len(&self, file: &Self::File, len: u64) -> io::Result<u64> {
        Ok(len.saturating_sub(self.stamp_of(file)?.len))
    }
    /// Gives a file another name in the same folder, in the place of what has that name.
    fn rename(&self, from: &[String], to: &[String]) -> io::Result<()>;
    /// Makes the content durable.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Makes durable which files a folder holds; the empty path is the root.
    fn sync_folder(&self, folder: &[String]) -> io::Result<()>;
    /// Makes the content of all files durable, and that they exist.
    fn sync_all(&self) -> io::Result<()>;
    /// Removes a file; missing is fine.
    fn remove(&self, path: &[String]) -> io::Result<()>;
    /// BEP 47: sets the executable bit, on file systems that have one; whether it was not set
    /// before.
    fn set_executable(&self, path: &[String]) -> io::Result<bool>;
    /// Closes what is kept open, so that files that were replaced meanwhile are seen.
    fn close(&self);
}
