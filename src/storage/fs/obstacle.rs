//! Something else in the place of a torrent's file or folder, with the element of the path where it
//! stands.

use std::fmt;
use std::io;

use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;

use super::RealFs;

/// Something else stands in the place of a file, or of a folder on the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The number of elements of the path down to it.
    pub(in crate::storage) depth: usize,
    found: Found,
    is_folder_expected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    File,
    Folder,
    Link,
    /// A symbolic link to nothing.
    BrokenLink,
    Pipe,
    Socket,
    Device,
}

impl Obstacle {
    /// Returns what an error of a [`super::FileSystem`] says of it.
    pub(in crate::storage) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }

    /// Whether it can be read through if symbolic links are followed.
    pub fn is_followable(self) -> bool {
        self.found == Found::Link
    }

    /// Returns the kind of error that the system reports for it.
    fn kind(self) -> io::ErrorKind {
        match self.found {
            Found::Folder => io::ErrorKind::IsADirectory,
            Found::Link | Found::BrokenLink => io::ErrorKind::Other,
            Found::File | Found::Pipe | Found::Socket | Found::Device if self.is_folder_expected => {
                io::ErrorKind::NotADirectory
            }
            Found::File | Found::Pipe | Found::Socket | Found::Device => io::ErrorKind::Other,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = match self.found {
            Found::File => "a file",
            Found::Folder => "a folder",
            Found::Link => "a symbolic link",
            Found::BrokenLink => "a symbolic link that leads nowhere",
            Found::Pipe => "a pipe",
            Found::Socket => "a socket",
            Found::Device => "a device",
        };
        let expected = if self.is_folder_expected { "folder" } else { "file" };
        write!(f, "{found} stands where a {expected} belongs")
    }
}

impl std::error::Error for Obstacle {}

impl RealFs {
    /// Returns an error of the system for the regular file at `path`; if it is because of an
    /// [`Obstacle`], that.
    pub(super) fn explain(&self, path: &[String], error: Errno) -> io::Error {
        let is_obstacle =
            matches!(error, Errno::LOOP | Errno::XDEV | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO);
        self.obstacle(path).filter(|_| is_obstacle).unwrap_or_else(|| error.into())
    }

    /// Returns the first element of `path` that exists and is not what is expected there. Files may
    /// change between the error and this look, so it may find nothing.
    pub(super) fn obstacle(&self, path: &[String]) -> Option<io::Error> {
        let obstacle = (1..=path.len()).find_map(|depth| {
            let is_folder_expected = depth < path.len();
            let found = self.found(&path[..depth], is_folder_expected)?;
            Some(Obstacle { depth, found, is_folder_expected })
        })?;
        Some(io::Error::new(obstacle.kind(), obstacle))
    }

    /// Returns what is at `path` if it is not what is expected; None also if there is nothing.
    fn found(&self, path: &[String], is_folder_expected: bool) -> Option<Found> {
        let place = path.join("/");
        let kind = |flags| {
            let stat = fs::statat(&self.folder.place, place.as_str(), flags)?;
            Ok(FileType::from_raw_mode(stat.st_mode))
        };
        let mut found = kind(AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if found == FileType::Symlink {
            found = match kind(AtFlags::empty()) {
                Ok(target) if self.follows_links => target,
                Ok(_) => return Some(Found::Link),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Some(Found::BrokenLink),
                Err(_) if self.follows_links => return None,
                Err(_) => return Some(Found::Link),
            };
        }
        match found {
            FileType::RegularFile if is_folder_expected => Some(Found::File),
            FileType::Directory if !is_folder_expected => Some(Found::Folder),
            FileType::Fifo => Some(Found::Pipe),
            FileType::Socket => Some(Found::Socket),
            FileType::CharacterDevice | FileType::BlockDevice => Some(Found::Device),
            FileType::RegularFile | FileType::Directory | FileType::Symlink | FileType::Unknown => None,
        }
    }
}
