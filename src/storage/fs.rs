//! The real file system behind the [`FileSystem`] trait that the storage core uses.
//!
//! All system calls on content are here. [`RealFs`] never leaves its folder and follows no symbolic
//! link below it: paths are resolved by `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`;
//! where that call is missing or refused, or the path is too long for it, they are resolved element
//! by element with `O_NOFOLLOW`. The folder itself is the user's choice and may be reached by
//! links. Only regular files are opened: a planted pipe or device is refused without waiting. Links
//! in the user's own content are followed on request ([`RealFs::following_links`]), for reading
//! only.

mod at_once;
mod file_system;
mod obstacle;
mod regular;

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, Advice, AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::content::StorageError;
use super::folder::{self, FOLDER, Folder};
use super::handles::{Access, Handles};
pub use file_system::{FileSystem, Stamp};
pub use obstacle::Obstacle;

/// Most parts of one vectored write; more take several writes. Linux allows 1,024 (`IOV_MAX`).
const WRITE_PART_MAX: usize = 1_024;

/// Unit of `st_blocks`, bytes.
const BLOCK_LEN: u64 = 512;
/// Resolution that never leaves the folder.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// Flags of every open: no inheritance by child processes, no waiting for the other end of a pipe.
const COMMON: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// The real file system below one folder.
#[derive(Debug)]
pub struct RealFs {
    folder: Arc<Folder>,
    /// The device of a file that lies on another device than the folder, because of a mount below
    /// it; 0 if none was seen.
    apart: AtomicU64,
    root: u64,
    handles: Arc<Handles>,
    follows_links: bool,
}

impl RealFs {
    /// Opens the files below an existing folder.
    ///
    /// # Errors
    /// The folder is missing or may not be entered; the error names the path.
    pub fn open(path: &Path, handles: &Arc<Handles>) -> Result<Self, StorageError> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let folder = handles.folder(path).map_err(|source| StorageError::new(path, source))?;
        let apart = AtomicU64::new(0);
        Ok(Self {
            folder,
            apart,
            root: handles.add_root(),
            handles: Arc::clone(handles),
            follows_links: false,
        })
    }

    /// Returns this file system with symbolic links below the folder followed, wherever they lead,
    /// if `follows`. No file is created through a link.
    #[must_use]
    pub fn following_links(self, follows: bool) -> Self {
        Self { follows_links: follows, ..self }
    }

    /// The device number of the folder, or of another device on which one of its files was found.
    pub fn device(&self) -> u64 {
        self.apart().unwrap_or(self.folder.identity.0)
    }

    fn apart(&self) -> Option<u64> {
        Some(self.apart.load(Ordering::Acquire)).filter(|&device| device != 0)
    }

    /// Returns the stamp of a regular file, and remembers its device before the file is read.
    fn look(&self, file: BorrowedFd<'_>) -> rustix::io::Result<Stamp> {
        let (stamp, device) = regular::look(file)?;
        if device != self.folder.identity.0 {
            self.apart.store(device, Ordering::Release);
        }
        Ok(stamp)
    }

    /// Opens the files below a folder, which must be writable and is created with its parents if
    /// missing.
    ///
    /// # Errors
    /// The folder cannot be created, is no folder, or may not be written to; the error names the
    /// path.
    pub fn create(path: &Path, handles: &Arc<Handles>) -> Result<Self, StorageError> {
        if !path.is_dir() && !path.as_os_str().is_empty() {
            std::fs::create_dir_all(path).map_err(|source| StorageError::new(path, source))?;
        }
        let this = Self::open(path, handles)?;
        this.require_writable().map_err(|source| StorageError::new(path, source))?;
        Ok(this)
    }

    fn open_as(&self, path: &[String], access: Access, flags: OFlags) -> io::Result<Arc<File>> {
        self.handles.open(self.root, path, access, || self.open_file(path, flags))
    }

    /// Opens a regular file, and creates its folders if `flags` create the file.
    fn open_file(&self, path: &[String], flags: OFlags) -> io::Result<File> {
        let opened = self.resolve(path, flags | COMMON).map(File::from);
        let looked = opened.and_then(|file| self.look(file.as_fd()).map(|_| file));
        let file = looked.map_err(|error| self.explain(path, error))?;
        if !self.is_in_memory() {
            at_once::learn_places(&file);
        }
        Ok(file)
    }

    /// Whether all files are read from memory.
    fn is_in_memory(&self) -> bool {
        self.folder.is_in_memory && self.apart().is_none()
    }

    fn resolve(&self, path: &[String], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let Some((name, folders)) = path.split_last() else { return Err(Errno::INVAL) };
        if !path.iter().all(|element| is_safe(element)) {
            return Err(Errno::INVAL);
        }
        let make = flags.contains(OFlags::CREATE);
        let mode = if make { Mode::from_raw_mode(0o666) } else { Mode::empty() };
        if self.follows_links && !make {
            let flags = flags.difference(OFlags::NOFOLLOW);
            return fs::openat(&self.folder.place, path.join("/"), flags, mode);
        }
        match fs::openat2(&self.folder.place, path.join("/"), flags, mode, BENEATH) {
            Err(Errno::NOENT) if make && !folders.is_empty() => {}
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::NAMETOOLONG | Errno::INVAL) => {}
            result => return result,
        }
        match self.walk(folders, make)? {
            Some(folder) => fs::openat(&folder, name, flags | OFlags::NOFOLLOW, mode),
            None => fs::openat(&self.folder.place, name, flags | OFlags::NOFOLLOW, mode),
        }
    }

    /// Enters `folders` one by one without following links and returns the last; `None` for the
    /// root.
    fn walk(&self, folders: &[String], make: bool) -> rustix::io::Result<Option<OwnedFd>> {
        let mut reached: Option<OwnedFd> = None;
        for name in folders {
            let from = reached.as_ref().map_or(self.folder.place.as_fd(), AsFd::as_fd);
            if make {
                match fs::mkdirat(from, name, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
            }
            reached = Some(fs::openat(from, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?);
        }
        Ok(reached)
    }
}

impl FileSystem for RealFs {
    fn require_writable(&self) -> io::Result<()> {
        let access = fs::Access::WRITE_OK | fs::Access::EXEC_OK;
        match fs::accessat(&self.folder.place, ".", access, AtFlags::EACCESS) {
            Ok(()) | Err(Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    type File = Arc<File>;
    type Lock = File;

    fn full_path(&self, path: &[String]) -> PathBuf {
        path.iter().fold(self.folder.path.clone(), |whole, element| whole.join(element))
    }

    fn open_read(&self, path: &[String]) -> io::Result<Self::File> {
        self.open_as(path, Access::Read, OFlags::RDONLY)
    }

    fn open_write(&self, path: &[String]) -> io::Result<Self::File> {
        self.open_as(path, Access::Write, OFlags::RDWR | OFlags::CREATE)
    }

    fn open_again(&self, path: &[String]) -> io::Result<Self::File> {
        self.open_as(path, Access::Write, OFlags::RDWR)
    }

    fn read_exact_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(&**file, buffer, offset)
    }

    fn opened(&self, path: &[String]) -> Option<Self::File> {
        let open = || self.open_at_once(path);
        self.handles.find_or(self.root, path, open)
    }

    fn read_at_once(&self, file: &Self::File, parts: &mut [IoSliceMut<'_>], offset: u64) -> usize {
        // A file system in memory rejects the flag and does not need it. Others that reject it,
        // such as network file systems, do so at once.
        let read = if self.is_in_memory() {
            rustix::io::preadv(file, parts, offset)
        } else {
            rustix::io::preadv2(file, parts, offset, ReadWriteFlags::NOWAIT)
        };
        read.unwrap_or(0)
    }

    fn will_read(&self, file: &Self::File, offset: u64, len: u64) {
        // A file system without read-ahead still reads.
        let _ = fs::fadvise(file, offset, NonZero::new(len), Advice::WillNeed);
    }

    fn write_all_at(&self, file: &Self::File, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
        for parts in parts.chunks(WRITE_PART_MAX) {
            let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let mut left = &mut slices[..];
            // Skips empty slices at the front, because a write of 0 bytes looks like the end.
            IoSlice::advance_slices(&mut left, 0);
            while !left.is_empty() {
                match rustix::io::pwritev(file, left, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        offset += written as u64;
                        IoSlice::advance_slices(&mut left, written);
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn rename(&self, from: &[String], to: &[String]) -> io::Result<()> {
        let (Some((name, folders)), Some((new_name, new_folders))) = (from.split_last(), to.split_last())
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if folders != new_folders || !from.iter().chain(to).all(|element| is_safe(element)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Closes the files that are open under the name that is replaced.
        self.close();
        let folder = self.walk(folders, false).map_err(|error| self.explain(from, error))?;
        let folder = folder.as_ref().map_or(self.folder.place.as_fd(), AsFd::as_fd);
        fs::renameat(folder, name, folder, new_name).map_err(|error| self.explain(to, error))
    }

    fn stamp(&self, path: &[String]) -> io::Result<Option<Stamp>> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        self.handles.with_room(|| {
            match self.resolve(path, flags).and_then(|place| self.look(place.as_fd())) {
                Ok(stamp) => Ok(Some(stamp)),
                // Nothing, or a symbolic link to nothing.
                Err(Errno::NOENT) if self.follows_links => self.obstacle(path).map_or(Ok(None), Err),
                Err(Errno::NOENT) => Ok(None),
                Err(error) => Err(self.explain(path, error)),
            }
        })
    }

    fn stamp_of(&self, file: &Self::File) -> io::Result<Stamp> {
        Ok(regular::look(file.as_fd()).map(|(stamp, _)| stamp)?)
    }

    fn folder_device(&self) -> u64 {
        self.folder.identity.0
    }

    fn boot(&self) -> u64 {
        folder::boot()
    }

    fn is_hard_linked(&self, path: &[String]) -> io::Result<bool> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let place = self.handles.with_room(|| Ok(self.resolve(path, flags)?))?;
        Ok(fs::fstat(place)?.st_nlink > 1)
    }

    #[expect(clippy::disallowed_methods, reason = "the file system's clock")]
    fn now(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn free_len(&self) -> Option<u64> {
        let free = fs::fstatvfs(&self.folder.place).ok()?;
        Some(free.f_bavail.saturating_mul(free.f_frsize))
    }

    fn lock(&self, path: &[String]) -> io::Result<Option<Self::Lock>> {
        // Opened apart from the cached handles, because closing it ends the lock.
        let file = self.handles.with_room(|| match self.open_file(path, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.open_file(path, OFlags::RDWR | OFlags::CREATE)
            }
            opened => opened,
        })?;
        match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // A file system without locks: no other program can have one either.
            Ok(()) | Err(Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS | Errno::INVAL) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn allocate(&self, file: &Self::File, len: u64) -> io::Result<bool> {
        let stat = fs::fstat(file)?;
        let is_long = stat.st_size as u64 >= len;
        if is_long && stat.st_blocks as u64 * BLOCK_LEN >= len {
            return Ok(false);
        }
        loop {
            match fs::fallocate(file, FallocateFlags::empty(), 0, len) {
                Err(Errno::INTR) => {}
                // Without preallocation the file is sparse.
                Err(Errno::NOTSUP | Errno::NOSYS) if is_long => return Ok(false),
                Err(Errno::NOTSUP | Errno::NOSYS) => return self.set_len(file, len).map(|()| true),
                result => return Ok(result.map(|()| true)?),
            }
        }
    }

    fn unallocated_len(&self, file: &Self::File, len: u64) -> io::Result<u64> {
        Ok(len.saturating_sub(fs::fstat(file)?.st_blocks as u64 * BLOCK_LEN))
    }

    fn sync(&self, file: &Self::File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_folder(&self, folder: &[String]) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || {
            let reached = self.walk(folder, false)?;
            let place = reached.as_ref().map_or(self.folder.place.as_fd(), AsFd::as_fd);
            Ok(fs::openat(place, ".", flags, Mode::empty())?)
        };
        let synced = self.handles.with_room(open).and_then(|place| Ok(fs::fsync(place)?));
        match synced.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)) {
            // The folder may not be listed, or its file system syncs no folders; its files are
            // synced anyway.
            Ok(()) | Err(Errno::ACCESS | Errno::INVAL | Errno::NOTSUP) => Ok(()),
            Err(error) => Err(self.explain(folder, error)),
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder =
            self.handles.with_room(|| Ok(fs::openat(&self.folder.place, ".", flags, Mode::empty())?))?;
        Ok(fs::syncfs(folder)?)
    }

    fn remove(&self, path: &[String]) -> io::Result<()> {
        let Some((name, folders)) = path.split_last().filter(|_| path.iter().all(|element| is_safe(element)))
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.close();
        let removed = self.walk(folders, false).and_then(|folder| match folder {
            Some(folder) => fs::unlinkat(&folder, name, AtFlags::empty()),
            None => fs::unlinkat(&self.folder.place, name, AtFlags::empty()),
        });
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.explain(path, error)),
        }
    }

    fn set_executable(&self, path: &[String]) -> io::Result<bool> {
        let file = self.open_read(path)?;
        let mode = fs::fstat(&file)?.st_mode;
        let executable = mode | (mode & 0o444) >> 2;
        if executable == mode {
            return Ok(false);
        }
        match fs::fchmod(&file, Mode::from_raw_mode(executable)) {
            Ok(()) => Ok(true),
            // Another user's file, or a file system without such bits; the content is right anyway.
            Err(Errno::PERM | Errno::NOTSUP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn close(&self) {
        self.handles.close(self.root);
    }
}

/// Whether an element is a single name that leads nowhere else. Torrents are parsed with safe
/// names; this checks again.
fn is_safe(element: &str) -> bool {
    !matches!(element, "" | "." | "..") && !element.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use std::fs as std_fs;

    use super::*;
    use crate::storage::handles::HANDLE_MAX;

    fn path(text: &str) -> Vec<String> {
        text.split('/').map(str::to_owned).collect()
    }

    #[test]
    fn a_folder_is_created_and_an_impossible_one_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let handles = Handles::new(HANDLE_MAX);
        let new = temp.path().join("new/folder");
        assert_eq!(RealFs::open(&new, &handles).unwrap_err().path, new);
        assert!(!new.exists(), "to look is not to make");
        RealFs::create(&new, &handles).unwrap();
        assert!(new.is_dir());
        std_fs::write(temp.path().join("file"), "").unwrap();
        for folder in [temp.path().join("file"), temp.path().join("file/below"), "/proc/sprat".into()] {
            let error = RealFs::create(&folder, &handles).unwrap_err();
            assert_eq!(error.path, folder);
            assert!(error.to_string().starts_with(folder.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn the_folder_itself_may_be_reached_by_a_link() {
        let temp = tempfile::tempdir().unwrap();
        std_fs::create_dir(temp.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", temp.path().join("link")).unwrap();
        let fs = RealFs::create(&temp.path().join("link"), &Handles::new(1)).unwrap();
        fs.open_write(&path("f")).unwrap();
        assert!(temp.path().join("real/f").exists());
    }

    #[test]
    fn links_are_followed_on_request_and_only_for_reading() {
        let temp = tempfile::tempdir().unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, temp.path().join(name)).unwrap();
        std_fs::create_dir_all(temp.path().join("in")).unwrap();
        std_fs::create_dir_all(temp.path().join("out")).unwrap();
        std_fs::write(temp.path().join("out/f"), b"12345").unwrap();
        link("../out/f", "in/f");
        link("../out", "in/d");
        link("nowhere", "in/none");
        let open = || RealFs::open(&temp.path().join("in"), &Handles::new(4)).unwrap();
        let following = open().following_links(true);
        for name in ["f", "d/f"] {
            let error = open().len(&path(name)).unwrap_err().to_string();
            assert!(error.contains("a symbolic link stands where a"), "{error}");
            assert!(open().open_read(&path(name)).is_err());
            assert_eq!(following.len(&path(name)).unwrap(), Some(5));
            let mut read = [0; 5];
            let file = following.open_read(&path(name)).unwrap();
            following.read_exact_at(&file, &mut read, 0).unwrap();
            assert_eq!(&read, b"12345");
        }
        let error = following.len(&path("none")).unwrap_err().to_string();
        assert_eq!(error, "a symbolic link that leads nowhere stands where a file belongs");
        assert_eq!(following.len(&path("d/none")).unwrap(), None);
        assert!(following.open_write(&path("d/new")).is_err());
        assert!(following.open_read(&path("../out/f")).is_err());
    }

    #[test]
    fn users_of_a_folder_share_its_descriptor_until_the_folder_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let (at, aside) = (temp.path().join("at"), temp.path().join("aside"));
        std_fs::create_dir(&at).unwrap();
        let handles = Handles::new(4);
        let [first, second] = [(); 2].map(|()| RealFs::open(&at, &handles).unwrap());
        assert!(Arc::ptr_eq(&first.folder, &second.folder));
        std_fs::rename(&at, &aside).unwrap();
        std_fs::create_dir(&at).unwrap();
        let third = RealFs::open(&at, &handles).unwrap();
        third.open_write(&path("new")).unwrap();
        first.open_write(&path("old")).unwrap();
        assert!(at.join("new").exists() && aside.join("old").exists());
        let folder = Arc::downgrade(&first.folder);
        drop((first, second));
        assert!(folder.upgrade().is_none(), "closed with its last user");
    }

    #[test]
    fn uncached_bytes_are_not_read_without_waiting() {
        let temp = tempfile::tempdir().unwrap();
        let files = RealFs::open(temp.path(), &Handles::new(HANDLE_MAX)).unwrap();
        assert!(files.opened(&path("a")).is_none());
        let file = files.open_write(&path("a")).unwrap();
        files.write_all_at(&file, &[&[7; 9_000]], 0).unwrap();
        files.sync(&file).unwrap();
        let opened = files.opened(&path("a")).unwrap();
        let (mut one, mut other) = ([0; 5_000], [0; 4_000]);
        let mut read =
            || files.read_at_once(&opened, &mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)], 0);
        let expected = if files.folder.is_in_memory { 9_000 } else { 0 };
        // The system may hold pages that were written just now for a moment longer.
        let is_dropped = (0..1_000).any(|_| {
            fs::fadvise(&*file, 0, None, Advice::DontNeed).unwrap();
            read() == expected
        });
        assert!(is_dropped);
        files.read_exact_at(&file, &mut [0; 9_000], 0).unwrap();
        // Not every file system can tell what it has in memory.
        let all = read();
        assert!(all == 0 || (all == 9_000 && one == [7; 5_000] && other == [7; 4_000]), "{all}");
        assert_eq!(files.read_at_once(&opened, &mut [IoSliceMut::new(&mut one)], 9_000), 0);
    }

    #[test]
    fn a_cached_file_is_opened_without_waiting() {
        let temp = tempfile::tempdir().unwrap();
        std_fs::write(temp.path().join("a"), b"a").unwrap();
        std::os::unix::fs::symlink("a", temp.path().join("link")).unwrap();
        let files = RealFs::open(temp.path(), &Handles::new(HANDLE_MAX)).unwrap();
        let is_known = files.is_in_memory() || files.folder.maps_in_inode;
        assert_eq!(files.opened(&path("a")).is_some(), is_known, "it was just made");
        assert!(["b", "link", ".."].iter().all(|name| files.opened(&path(name)).is_none()));
    }

    #[test]
    fn elements_that_lead_elsewhere_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        std_fs::create_dir(temp.path().join("in")).unwrap();
        let fs = RealFs::open(&temp.path().join("in"), &Handles::new(1)).unwrap();
        let bad =
            [vec![".."], vec!["..", "x"], vec!["../x"], vec!["a", "", "b"], vec!["/x"], vec!["."], vec![]];
        for elements in bad {
            let elements: Vec<_> = elements.into_iter().map(str::to_owned).collect();
            assert!(fs.open_write(&elements).is_err(), "{elements:?}");
            assert!(fs.len(&elements).is_err(), "{elements:?}");
            assert!(fs.remove(&elements).is_err(), "{elements:?}");
        }
        assert_eq!(std_fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn many_parts_are_written_in_one_go_and_read_back() {
        let temp = tempfile::tempdir().unwrap();
        let fs = RealFs::open(temp.path(), &Handles::new(1)).unwrap();
        let bytes: Vec<u8> = (0..10_000_u32).map(|at| (at % 253) as u8).collect();
        let mut parts: Vec<&[u8]> = bytes.chunks(3).collect();
        parts.insert(0, &[]);
        parts.push(&[]);
        let file = fs.open_write(&path("a/b")).unwrap();
        fs.write_all_at(&file, &parts, 5).unwrap();
        fs.write_all_at(&file, &[&[], &[]], 0).unwrap();
        fs.sync(&file).unwrap();
        let mut read = vec![0; bytes.len()];
        fs.read_exact_at(&file, &mut read, 5).unwrap();
        assert_eq!(read, bytes);
        assert_eq!(fs.len(&path("a/b")).unwrap(), Some(10_005));
        let error = fs.read_exact_at(&file, &mut read, 6).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn removing_never_follows_a_link() {
        let temp = tempfile::tempdir().unwrap();
        let fs = RealFs::open(temp.path(), &Handles::new(4)).unwrap();
        fs.open_write(&path("a/b")).unwrap();
        std::os::unix::fs::symlink("a", temp.path().join("link")).unwrap();
        assert!(fs.remove(&path("link/b")).is_err());
        fs.remove(&path("a/b")).unwrap();
        fs.remove(&path("a/b")).unwrap();
        assert_eq!(fs.len(&path("a/b")).unwrap(), None);
    }

    #[test]
    fn a_full_disk_says_so() {
        let full = Path::new("/dev/full");
        let Ok(file) = std_fs::OpenOptions::new().write(true).open(full) else { return };
        let temp = tempfile::tempdir().unwrap();
        let fs = RealFs::open(temp.path(), &Handles::new(1)).unwrap();
        let source = fs.write_all_at(&Arc::new(file), &[b"x"], 0).unwrap_err();
        assert!(StorageError::new(full, source).is_full());
    }
}
