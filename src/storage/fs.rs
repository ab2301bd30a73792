//! The small file-system trait that storage's core runs over, and its real end.

use std::io;

/// A file system below one folder; paths are relative, in safe elements, and never leave the folder.
/// All positions are explicit; nothing has a cursor.
pub trait FileSystem: Send + Sync {
    /// An open file.
    type File: Send + Sync;

    /// Opens an existing file to read.
    fn open_read(&self, path: &[String]) -> io::Result<Self::File>;
    /// Opens a file to read and write, making it and its folders if missing.
    fn open_write(&self, path: &[String]) -> io::Result<Self::File>;
    /// Reads into all of `buffer`; an early end is `UnexpectedEof`.
    fn read_exact_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `parts` one after the other from `offset`.
    fn write_all_at(&self, file: &Self::File, parts: &[&[u8]], offset: u64) -> io::Result<()>;
    /// Sets the length, sparse when growing.
    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Length; None: no such file.
    fn len(&self, path: &[String]) -> io::Result<Option<u64>>;
    /// Makes the content durable.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Removes a file; missing is fine.
    fn remove(&self, path: &[String]) -> io::Result<()>;
    /// BEP 47: sets the executable bit.
    fn set_executable(&self, path: &[String]) -> io::Result<()>;
}

/// The real file system below one folder.
#[derive(Debug)]
pub struct RealFs {
    _skeleton: (),
}

impl FileSystem for RealFs {
    type File = std::fs::File;

    fn open_read(&self, path: &[String]) -> io::Result<Self::File> {
        let _ = (path);
        todo!()
    }

    fn open_write(&self, path: &[String]) -> io::Result<Self::File> {
        let _ = (path);
        todo!()
    }

    fn read_exact_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let _ = (file, buffer, offset);
        todo!()
    }

    fn write_all_at(&self, file: &Self::File, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let _ = (file, parts, offset);
        todo!()
    }

    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()> {
        let _ = (file, len);
        todo!()
    }

    fn len(&self, path: &[String]) -> io::Result<Option<u64>> {
        let _ = (path);
        todo!()
    }

    fn sync(&self, file: &Self::File) -> io::Result<()> {
        let _ = (file);
        todo!()
    }

    fn remove(&self, path: &[String]) -> io::Result<()> {
        let _ = (path);
        todo!()
    }

    fn set_executable(&self, path: &[String]) -> io::Result<()> {
        let _ = (path);
        todo!()
    }
}
