//! The file-system trait of the storage core: the real file system or a simulated disk.

use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::path::PathBuf;

/// Identifies the state of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub len: u64,
    /// Last change of its bytes, nanoseconds since 1970 by the file system's clock; programs can
    /// set it.
    pub modified: i64,
    /// Last change of its bytes, name or rights; only the system can set it.
    pub changed: i64,
    /// Identifies the file under any name: its inode number, combined with its birth time where the
    /// file system has one, because ext4 gives the number of a removed file to the next one.
    pub inode: u64,
}

/// A file system below one folder. Paths are relative, consist of safe elements and never leave the
/// folder. All reads and writes name their offset. Opening a recently opened file is cheap; the
/// file system decides how many files stay open.
pub trait FileSystem: Send + Sync {
    /// An open file.
    type File: Send + Sync;
    /// A lock on a file, within this process and against others, until it is dropped.
    type Lock: Send + Sync + Debug;

    /// Fails if files cannot be created in the folder, as far as that is known without creating
    /// one.
    fn require_writable(&self) -> io::Result<()> {
        Ok(())
    }
    /// Returns the full path of a file, for errors.
    fn full_path(&self, path: &[String]) -> PathBuf;
    /// Opens an existing file for reading.
    fn open_read(&self, path: &[String]) -> io::Result<Self::File>;
    /// Opens a file for reading and writing; creates it and its folders if missing.
    fn open_write(&self, path: &[String]) -> io::Result<Self::File>;
    /// Opens an existing file for reading and writing; never creates it.
    fn open_again(&self, path: &[String]) -> io::Result<Self::File>;
    /// Fills `buffer`; an early end of the file is `UnexpectedEof`.
    fn read_exact_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Returns the file for reading if that does not wait: it is open, or all that opening it needs
    /// is in memory.
    fn opened(&self, _path: &[String]) -> Option<Self::File> {
        None
    }
    /// Reads bytes from `offset` into `parts`, in order, as far as that does not wait for a disk;
    /// returns their number. 0 may also be an error, which a waiting read reports.
    fn read_at_once(&self, _file: &Self::File, _parts: &mut [IoSliceMut<'_>], _offset: u64) -> usize {
        0
    }
    /// Hints that this range will be read soon, between other reads, so that it may be fetched in
    /// one operation.
    fn will_read(&self, _file: &Self::File, _offset: u64, _len: u64) {}
    /// Writes all of `parts`, in order, from `offset`.
    fn write_all_at(&self, file: &Self::File, parts: &[&[u8]], offset: u64) -> io::Result<()>;
    /// Sets the length; growth is sparse.
    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Returns length, times and identity; `None` if the file is missing.
    fn stamp(&self, path: &[String]) -> io::Result<Option<Stamp>>;
    /// Returns the stamp of an open file, whatever its name is now.
    fn stamp_of(&self, file: &Self::File) -> io::Result<Stamp>;
    /// Returns the length; `None` if the file is missing.
    fn len(&self, path: &[String]) -> io::Result<Option<u64>> {
        Ok(self.stamp(path)?.map(|stamp| stamp.len))
    }
    /// Returns the device of the folder, which differs while the disk is not mounted there.
    fn folder_device(&self) -> u64;
    /// Identifies the boot of the system. While it stays the same, no write is lost, synced or not.
    fn boot(&self) -> u64;
    /// Whether the file has several names (hard links).
    fn is_hard_linked(&self, _path: &[String]) -> io::Result<bool> {
        Ok(false)
    }
    /// Returns the wall clock, microseconds since 1970, comparable with stamps.
    fn now(&self) -> u64;
    /// Returns the free bytes; `None` if unknown.
    fn free_len(&self) -> Option<u64>;
    /// Locks a file, which is created if missing; `None` if another program holds the lock.
    fn lock(&self, path: &[String]) -> io::Result<Option<Self::Lock>>;
    /// Allocates space for `len` bytes from the start of the file, which grows to that length;
    /// returns whether it allocated any.
    fn allocate(&self, file: &Self::File, len: u64) -> io::Result<bool>;
    /// Bytes that [`FileSystem::allocate`] would allocate.
    fn unallocated_len(&self, file: &Self::File, len: u64) -> io::Result<u64> {
        Ok(len.saturating_sub(self.stamp_of(file)?.len))
    }
    /// Renames a file within its folder and replaces a file that has the new name.
    fn rename(&self, from: &[String], to: &[String]) -> io::Result<()>;
    /// Makes the bytes of a file durable.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Makes the entries of a folder durable; the empty path is the root.
    fn sync_folder(&self, folder: &[String]) -> io::Result<()>;
    /// Makes the bytes and the existence of all files durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Removes a file, if it exists.
    fn remove(&self, path: &[String]) -> io::Result<()>;
    /// Sets the executable bit (BEP 47), on file systems that have one; returns whether it was
    /// unset.
    fn set_executable(&self, path: &[String]) -> io::Result<bool>;
    /// Closes cached handles, so that replaced files are noticed.
    fn close(&self);
}
