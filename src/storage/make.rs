//! Makes a torrent from files on disk: walks folders and hashes pieces, for `create` and `seed
//! PATH`.
//!
//! Entries are ordered by name, byte by byte, folder by folder, so that equal content gives equal
//! torrents. A torrent includes what a seed can read again: regular files, also hidden and empty
//! ones. Symbolic links below the folder are left out unless they are to be followed; pipes,
//! sockets and devices always are, and the caller is told of each. Names that are not UTF-8 are
//! refused. `path` itself may be a link: the torrent has the name as typed.
//!
//! Pieces are hashed on all cores, with the same reads as when seeding.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::content::StorageError;
use super::fs::{FileSystem, RealFs};
use super::handles::{HANDLE_MAX, Handles};
use super::hash;
use super::span::spans;
use super::sweep::{Sweep, core_count, cut_count, on_threads};
use crate::proto::metainfo::Metainfo;
use crate::proto::metainfo::create::{Draft, DraftFile, automatic_piece_len};
use crate::proto::metainfo::files::{Attributes, File};
use crate::proto::piece::{Geometry, PieceIndex};

/// Bytes that a thread hashes before it reports progress, rounded to pieces, and at least as many
/// pieces as are hashed side by side.
const TURN_LEN: u32 = 4 << 20;

/// Why an entry below a folder is not part of its torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// A symbolic link, which is not followed.
    Link,
    /// A symbolic link to nothing, or to itself.
    DanglingLink,
    /// A symbolic link to a folder that it lies in.
    Loop,
    /// A pipe, a socket or a device.
    Special,
}

/// How the entries of a folder are read.
pub struct Walk<'a> {
    /// Whether the target of a symbolic link is included under the name of the link.
    pub follow_links: bool,
    /// Called with each entry that is left out.
    pub left_out: &'a mut dyn FnMut(&Path, LeftOut),
}

/// Returns the folder that `path` lies in, with links resolved, and its name there as typed: a seed
/// of `path` has its content under that name in that folder.
///
/// # Errors
/// `path` is missing or may not be entered, or its name is not text (`/` has none).
pub fn locate(path: &Path) -> Result<(PathBuf, String), StorageError> {
    let at_path = |source| StorageError::new(path, source);
    let mut whole = fs::canonicalize(path).map_err(at_path)?;
    // A path that ends in `..` gets the name of the folder that it leads to.
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        whole = fs::canonicalize(parent).map_err(at_path)?.join(name);
    }
    let (Some(folder), Some(name)) = (whole.parent(), whole.file_name()) else {
        return Err(refused(path, "has no name to give the torrent"));
    };
    let name = name.to_str().ok_or_else(|| refused(path, "the name is not UTF-8; rename it"))?;
    Ok((folder.to_owned(), name.to_owned()))
}

/// Reads `path` (a file or a folder, entries ordered by name, hidden ones included) into a draft
/// with name (unless it has one), files and, if `draft.piece_len` is 0, the automatic piece length.
/// Follows no symbolic links.
///
/// # Errors
/// An entry below `path` cannot be read, or a folder holds no file; the error names the path.
pub fn survey(path: &Path, draft: Draft) -> Result<Draft, StorageError> {
    survey_by(path, draft, Walk { follow_links: false, left_out: &mut |_, _| {} })
}

/// Does the same as [`survey`], with the entries of a folder read as `walk` says.
///
/// # Errors
/// Those of [`survey`].
pub fn survey_by(path: &Path, mut draft: Draft, walk: Walk<'_>) -> Result<Draft, StorageError> {
    let (folder, name) = locate(path)?;
    let whole = folder.join(&name);
    draft.files =
        if metadata(&whole)?.is_dir() { walk.files(&whole)? } else { vec![draft_file(&whole, Vec::new())?] };
    if draft.files.is_empty() {
        return Err(refused(path, "the folder holds no file"));
    }
    if draft.name.is_empty() {
        draft.name = name;
    }
    if draft.piece_len == 0 {
        draft.piece_len = automatic_piece_len(draft.files.iter().map(|file| file.len).sum());
    }
    Ok(draft)
}

/// Hashes the files that [`survey`] found. `progress` is called with the bytes hashed so far and
/// stops the hashing (`None`) by returning `false`.
///
/// # Errors
/// A file cannot be read, or has changed its length since the survey; the error names the path.
/// Before any hashing: the draft makes no torrent, or has a name that peers would have to change.
pub fn hash(path: &Path, draft: Draft, progress: Progress<'_>) -> Result<Option<Metainfo>, StorageError> {
    let (folder, name) = locate(path)?;
    let work = Work::new(&folder, &name, &draft)?;
    let made = |hashes: Vec<u8>, draft: Draft| {
        let made = draft.finish(hashes.into());
        made.map_err(|error| StorageError::new(path, io::Error::new(io::ErrorKind::InvalidInput, error)))
    };
    // Tried without hashes first, so that a wrong draft is reported now, not after an hour of
    // hashing.
    made(vec![0; work.geometry.piece_count() as usize * 20], draft.clone())?;
    let Some(hashes) = work.hash(core_count(), progress)? else { return Ok(None) };
    made(hashes, draft).map(Some)
}

/// The input of the hashing threads.
struct Work {
    files: Vec<File>,
    geometry: Geometry,
    fs: RealFs,
}

/// Their result so far.
struct Found<'a> {
    /// SHA-1s of all pieces, in order.
    hashes: Vec<u8>,
    hashed_len: u64,
    error: Option<StorageError>,
    is_stopped: bool,
    progress: Progress<'a>,
}

/// Called with the bytes hashed so far; `false` stops the hashing.
pub type Progress<'a> = &'a mut (dyn FnMut(u64) -> bool + Send);

impl Found<'_> {
    /// Adds the hashes of some pieces with `len` bytes in all, and returns whether to continue.
    fn record(
        &mut self,
        pieces: &[PieceIndex],
        (hashes, len): (Result<Vec<[u8; 20]>, StorageError>, u64),
    ) -> bool {
        match hashes {
            Ok(hashes) => {
                let at = pieces[0] as usize * 20;
                self.hashes[at..at + hashes.len() * 20].copy_from_slice(hashes.as_flattened());
                self.hashed_len += len;
                self.is_stopped |= !(self.progress)(self.hashed_len);
                !self.is_stopped
            }
            Err(error) => {
                self.error.get_or_insert(error);
                false
            }
        }
    }
}

impl Work {
    fn new(folder: &Path, name: &str, draft: &Draft) -> Result<Self, StorageError> {
        let mut offset = 0;
        let place = |file: &DraftFile| {
            let path = [name].into_iter().chain(file.path.iter().map(String::as_str)).map(str::to_owned);
            let start = offset;
            offset += file.len;
            File { path: path.collect(), len: file.len, offset: start, attributes: Attributes::default() }
        };
        let files = draft.files.iter().map(place).collect();
        let geometry = Geometry::new(offset, draft.piece_len).ok_or_else(|| {
            refused(&folder.join(name), "too many pieces, or too long ones; choose another piece length")
        })?;
        // The survey found these paths, and it followed links only on request.
        let fs = RealFs::open(folder, &Handles::new(HANDLE_MAX))?.following_links(true);
        Ok(Self { files, geometry, fs })
    }

    fn hash(&self, thread_count: usize, progress: Progress<'_>) -> Result<Option<Vec<u8>>, StorageError> {
        let geometry = self.geometry;
        let hashes = vec![0; geometry.piece_count() as usize * 20];
        let found = Found { hashes, hashed_len: 0, error: None, is_stopped: false, progress };
        let cut_count = cut_count(geometry.piece_len(), TURN_LEN, u32::MAX);
        let sweep = Sweep::new((0..geometry.piece_count()).collect(), cut_count, found);
        let run = || {
            let mut scratch = Vec::new();
            let mut hash = |pieces: &[PieceIndex]| {
                let len = pieces.iter().map(|&piece| u64::from(geometry.len_of(piece))).sum();
                (self.hash_pieces(pieces, &mut scratch), len)
            };
            while sweep.cut(&mut hash, Found::record) {}
        };
        on_threads(thread_count, run).map_err(|source| self.error(&[], source))?;
        let found = sweep.into_found();
        match found.error {
            Some(error) => return Err(error),
            None if found.is_stopped => return Ok(None),
            None => {}
        }
        self.require_unchanged()?;
        Ok(Some(found.hashes))
    }

    fn hash_pieces(
        &self,
        pieces: &[PieceIndex],
        scratch: &mut Vec<u8>,
    ) -> Result<Vec<[u8; 20]>, StorageError> {
        // All pieces but the last of the torrent have the same length.
        let mut hashes = Vec::with_capacity(pieces.len());
        for alike in pieces.chunk_by(|one, other| self.geometry.len_of(*one) == self.geometry.len_of(*other))
        {
            let len = self.geometry.len_of(alike[0]) as usize;
            let read = |at: usize, offset: usize, buffer: &mut [u8]| {
                let start = self.geometry.offset_of(alike[at]) + offset as u64;
                if alike.len() > 1 && offset.is_multiple_of(hash::FETCH_LEN) {
                    self.will_read(start, hash::FETCH_LEN.min(len - offset));
                }
                self.read(start, buffer)
            };
            for hash in hash::digests_of_reads(alike.len(), len, scratch, read) {
                hashes.push(hash?);
            }
        }
        Ok(hashes)
    }

    fn will_read(&self, offset: u64, len: usize) {
        for span in spans(&self.files, offset, len) {
            // The read reports a file that cannot be opened.
            if let Ok(file) = self.fs.open_read(&self.files[span.file].path) {
                self.fs.will_read(&file, span.offset, span.len as u64);
            }
        }
    }

    fn read(&self, offset: u64, mut buffer: &mut [u8]) -> Result<(), StorageError> {
        for span in spans(&self.files, offset, buffer.len()) {
            let path = &self.files[span.file].path;
            let (head, rest) = buffer.split_at_mut(span.len);
            let read = |file| self.fs.read_exact_at(&file, head, span.offset);
            self.fs.open_read(path).and_then(read).map_err(|source| self.error(path, source))?;
            buffer = rest;
        }
        Ok(())
    }

    /// Checks that the lengths are still those of the survey.
    fn require_unchanged(&self) -> Result<(), StorageError> {
        for file in &self.files {
            let len = self.fs.len(&file.path).map_err(|source| self.error(&file.path, source))?;
            if len != Some(file.len) {
                return Err(self.error(&file.path, io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(())
    }

    fn error(&self, path: &[String], source: io::Error) -> StorageError {
        if matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound) {
            return refused(
                &self.fs.full_path(path),
                "changed while it was being read; try again when it is at rest",
            );
        }
        StorageError::below(&self.fs, path, source)
    }
}

impl Walk<'_> {
    /// Returns the files below a folder, in order.
    fn files(self, root: &Path) -> Result<Vec<DraftFile>, StorageError> {
        let mut files = Vec::new();
        // Entries that were not visited yet, the next one last.
        let mut pending = entries(root, &[])?;
        while let Some(elements) = pending.pop() {
            let path = elements.iter().fold(root.to_owned(), |whole, element| whole.join(element));
            match self.kind(root, &path)? {
                Ok(kind) if kind.is_dir() => pending.append(&mut entries(&path, &elements)?),
                Ok(kind) if kind.is_file() => files.push(draft_file(&path, elements)?),
                Ok(_) => (self.left_out)(&path, LeftOut::Special),
                Err(why) => (self.left_out)(&path, why),
            }
        }
        Ok(files)
    }

    /// Returns the type of an entry, or why its link is left out.
    fn kind(&self, root: &Path, path: &Path) -> Result<Result<fs::FileType, LeftOut>, StorageError> {
        let own = fs::symlink_metadata(path).map_err(|source| StorageError::new(path, source))?;
        if !own.is_symlink() {
            return Ok(Ok(own.file_type()));
        }
        if !self.follow_links {
            return Ok(Err(LeftOut::Link));
        }
        // A link to itself, or through a file, is a dangling link.
        let Ok(target) = fs::metadata(path) else { return Ok(Err(LeftOut::DanglingLink)) };
        let mut folders = path.ancestors().skip(1).take_while(|folder| folder.starts_with(root));
        let is_target = |folder: &Path| {
            fs::metadata(folder)
                .is_ok_and(|folder| (folder.dev(), folder.ino()) == (target.dev(), target.ino()))
        };
        Ok(if target.is_dir() && folders.any(is_target) {
            Err(LeftOut::Loop)
        } else {
            Ok(target.file_type())
        })
    }
}

/// Returns the paths of the entries of a folder, last name first.
fn entries(folder: &Path, elements: &[String]) -> Result<Vec<Vec<String>>, StorageError> {
    let at_folder = |source| StorageError::new(folder, source);
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(at_folder)? {
        let entry = entry.map_err(at_folder)?;
        let name = entry.file_name().into_string();
        let name = name.map_err(|_| refused(&entry.path(), "the name is not UTF-8; rename it"))?;
        entries.push([elements, &[name]].concat());
    }
    entries.sort_unstable_by(|one, other| other.cmp(one));
    Ok(entries)
}

fn draft_file(path: &Path, elements: Vec<String>) -> Result<DraftFile, StorageError> {
    let metadata = metadata(path)?;
    if !metadata.is_file() {
        return Err(refused(path, "neither a file nor a folder"));
    }
    // Reported now, not after an hour of hashing.
    fs::File::open(path).map_err(|source| StorageError::new(path, source))?;
    let executable = metadata.permissions().mode() & 0o100 != 0;
    Ok(DraftFile { path: elements, len: metadata.len(), executable })
}

fn metadata(path: &Path) -> Result<fs::Metadata, StorageError> {
    fs::metadata(path).map_err(|source| StorageError::new(path, source))
}

fn refused(path: &Path, why: &'static str) -> StorageError {
    StorageError::new(path, io::Error::new(io::ErrorKind::InvalidInput, why))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use sha1::{Digest, Sha1};

    use super::*;
    use crate::proto::bitfield::Bitfield;
    use crate::storage::content::Content;
    use crate::storage::report::FileReport;

    fn draft() -> Draft {
        Draft { piece_len: 16_384, ..Draft::default() }
    }

    fn write(folder: &Path, name: &str, bytes: &[u8]) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn files_come_in_order_of_their_elements() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("content");
        for name in ["a/z", "a.b", "a-", ".hidden", "B", "a/.x/y", "é"] {
            write(&root, name, name.as_bytes());
        }
        fs::create_dir_all(root.join("empty/er")).unwrap();
        fs::set_permissions(root.join("B"), fs::Permissions::from_mode(0o755)).unwrap();
        let draft = survey(&root, draft()).unwrap();
        let paths: Vec<_> = draft.files.iter().map(|file| file.path.join("/")).collect();
        assert_eq!(paths, [".hidden", "B", "a/.x/y", "a/z", "a-", "a.b", "é"]);
        assert_eq!(draft.name, "content");
        assert!(draft.files.iter().all(|file| file.len == file.path.join("/").len() as u64));
        let executable: Vec<_> = draft.files.iter().filter(|file| file.executable).collect();
        assert_eq!(executable.len(), 1);
        assert_eq!(executable[0].path, ["B"]);
    }

    #[test]
    fn entries_that_a_seed_could_not_read_are_refused_by_name() {
        let temp = tempfile::tempdir().unwrap();
        let bad = temp.path().join("bad");
        let refused = |path: &Path| {
            let error = survey(&bad, draft()).unwrap_err();
            assert_eq!(error.path, path, "{error}");
        };
        refused(&bad);
        fs::create_dir(&bad).unwrap();
        refused(&bad);
        write(&bad, "fine", b"1");
        let unreadable = bad.join(std::ffi::OsStr::from_bytes(b"\xff"));
        fs::write(&unreadable, "").unwrap();
        refused(&unreadable);
        fs::remove_file(&unreadable).unwrap();
        assert_eq!(survey(&bad, draft()).unwrap().files.len(), 1);
    }

    /// The files of a walk, and the names of what is left out.
    fn walked(root: &Path, follow_links: bool) -> (Vec<String>, Vec<(String, LeftOut)>) {
        let mut left_out = Vec::new();
        let mut note = |path: &Path, why| {
            left_out.push((path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), why));
        };
        let draft = survey_by(root, draft(), Walk { follow_links, left_out: &mut note }).unwrap();
        (draft.files.iter().map(|file| file.path.join("/")).collect(), left_out)
    }

    #[test]
    fn links_and_pipes_below_a_folder_are_left_out_and_reported() {
        let temp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(temp.path()).unwrap().join("tree");
        write(&root, "fine", b"1");
        write(temp.path(), "out/file", b"12345");
        write(temp.path(), "out/sub/file", b"12");
        for (to, name) in [
            ("fine", "link"),
            ("../out", "tree"),
            ("nowhere", "none"),
            ("self", "self"),
            ("..", "up"),
            (".", "here"),
        ] {
            symlink(to, root.join(name)).unwrap();
        }
        let pipe = root.join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        symlink("pipe", root.join("to-pipe")).unwrap();
        let why = |names: &[(&str, LeftOut)]| -> Vec<(String, LeftOut)> {
            names.iter().map(|&(name, why)| (name.to_owned(), why)).collect()
        };
        let link = LeftOut::Link;
        let (files, left_out) = walked(&root, false);
        assert_eq!(files, ["fine"]);
        assert_eq!(
            left_out,
            why(&[
                ("here", link),
                ("link", link),
                ("none", link),
                ("pipe", LeftOut::Special),
                ("self", link),
                ("to-pipe", link),
                ("tree", link),
                ("up", link),
            ])
        );
        fs::remove_file(root.join("up")).unwrap();
        let (files, left_out) = walked(&root, true);
        assert_eq!(files, ["fine", "link", "tree/file", "tree/sub/file"]);
        assert_eq!(
            left_out,
            why(&[
                ("here", LeftOut::Loop),
                ("none", LeftOut::DanglingLink),
                ("pipe", LeftOut::Special),
                ("self", LeftOut::DanglingLink),
                ("to-pipe", LeftOut::Special),
            ])
        );
        let draft = survey_by(&root, draft(), Walk { follow_links: true, left_out: &mut |_, _| {} }).unwrap();
        assert!(hash_all(&root, &draft, false).unwrap().is_some(), "what links lead to is hashed");
    }

    #[test]
    fn a_link_to_the_content_has_the_name_as_typed() {
        let temp = tempfile::tempdir().unwrap();
        write(temp.path(), "real", b"12345");
        write(temp.path(), "folder/file", b"1");
        symlink("real", temp.path().join("link")).unwrap();
        symlink("folder", temp.path().join("to-folder")).unwrap();
        for (typed, name) in
            [("link", "link"), ("real", "real"), ("to-folder", "to-folder"), ("to-folder/.", "to-folder")]
        {
            let path = temp.path().join(typed);
            let draft = survey(&path, draft()).unwrap();
            assert_eq!((draft.name.as_str(), draft.files.len()), (name, 1));
            assert!(hash_all(&path, &draft, false).unwrap().is_some());
        }
        let up = survey(&temp.path().join("folder/.."), draft()).unwrap();
        assert_eq!(up.name, temp.path().file_name().unwrap().to_str().unwrap());
    }

    fn hash_all(path: &Path, draft: &Draft, stop: bool) -> Result<Option<Vec<u8>>, StorageError> {
        let (folder, name) = locate(path)?;
        let work = Work::new(&folder, &name, draft)?;
        work.hash(3, &mut |_| !stop)
    }

    #[test]
    fn pieces_are_hashed_over_file_ends() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("content");
        let bytes: Vec<u8> = (0..9_000_000_u32).map(|at| (at ^ (at >> 9)) as u8).collect();
        write(&root, "1", &bytes[..700_001]);
        write(&root, "2", b"");
        write(&root, "3", &bytes[700_001..]);
        let draft = survey(&root, draft()).unwrap();
        let hashes = hash_all(&root, &draft, false).unwrap().unwrap();
        let expected: Vec<u8> = bytes.chunks(16_384).flat_map(Sha1::digest).collect();
        assert!(hashes == expected);
        assert!(hash_all(&root, &draft, true).unwrap().is_none());
    }

    #[test]
    fn files_that_change_during_hashing_are_named() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("content");
        write(&root, "a", &[1; 50_000]);
        write(&root, "b", &[2; 50_000]);
        let draft = survey(&root, draft()).unwrap();
        for bytes in [&[2; 49_999][..], &[2; 50_001]] {
            write(&root, "b", bytes);
            let error = hash_all(&root, &draft, false).unwrap_err();
            assert_eq!(error.path, fs::canonicalize(root.join("b")).unwrap());
            assert!(error.to_string().contains("changed"), "{error}");
        }
    }

    #[test]
    fn a_made_torrent_parses_and_its_content_is_complete_in_place() {
        let temp = tempfile::tempdir().unwrap();
        write(temp.path(), "tree/b/1", &[7; 40_000]);
        write(temp.path(), "tree/a", &[8; 3]);
        write(temp.path(), "tree/none", b"");
        write(temp.path(), "single", &[9; 33_000]);
        for (name, piece_count) in [("tree", 3), ("single", 3)] {
            let path = temp.path().join(name);
            let draft = survey(&path, Draft::default()).unwrap();
            let total_len = draft.files.iter().map(|file| file.len).sum();
            let mut told = Vec::new();
            let made = hash(&path, draft, &mut |len| {
                told.push(len);
                true
            });
            let made = made.unwrap().unwrap();
            assert_eq!(told.last(), Some(&total_len));
            let read = Metainfo::decode(&made.encode()).unwrap();
            assert_eq!((&read.info.name, read.info.infohash), (&name.to_owned(), made.info.infohash));
            let fs = RealFs::open(temp.path(), &Handles::new(4)).unwrap();
            let content = Content::new(read.info, Vec::new(), fs);
            let good = |piece| content.check_piece(piece, &mut Vec::new()).unwrap();
            assert_eq!((0..piece_count + 1).filter(|piece| good(*piece)).count() as u32, piece_count);
            assert!(content.report(&Bitfield::full(piece_count)).iter().all(FileReport::is_whole));
        }
    }

    #[test]
    fn an_invalid_draft_is_refused_before_hashing() {
        let temp = tempfile::tempdir().unwrap();
        write(temp.path(), "tree/fine", b"1");
        write(temp.path(), "tree/back\\slash", b"1");
        let path = temp.path().join("tree");
        let draft = survey(&path, draft()).unwrap();
        let error = hash(&path, draft, &mut |_| panic!("not to be hashed")).unwrap_err();
        assert_eq!(error.path, path);
        assert!(error.to_string().contains("slash"), "{error}");
    }
}
