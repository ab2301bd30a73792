//! The `info` dictionary, which describes the content (BEP 3, 27, 47; 52 as far as a hybrid is read
//! as v1).
//!
//! Invariants after parsing: the infohash is that of the received bytes; the number of piece hashes
//! fits the lengths; no two files on disk share a path, and none is a folder of another. Unsafe or
//! equal paths are changed, never refused, because other clients load such torrents too.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::files::{Attributes, File};
use super::{Info, Layout, MetainfoError, names, path};
use crate::proto::bencode::{Dict, Limits, List, Value, scan};
use crate::proto::infohash::InfoHash;
use crate::proto::piece::Geometry;

/// Most folders within folders. Deeper paths are refused, because few file systems and fewer tools
/// support them.
pub const DIR_DEPTH_MAX: usize = 100;

/// Most bytes of all paths together, each with the folder's name. More is refused: a long name
/// before half a million files would take a multiple of the torrent's own size.
pub const PATHS_LEN_MAX: usize = 64 << 20;

/// Most changed names that are kept for display; more are only counted. A user reads a few, and a
/// torrent can have a million.
pub const RENAMED_COUNT_MAX: usize = 1_000;

/// Most bytes of the original of a changed name that are kept for display: the longest path of
/// Linux.
pub const GIVEN_LEN_MAX: usize = 4_096;

/// The folder of pad files (BEP 47).
const PAD_FOLDER: &str = ".pad";

/// The known entries, undecoded.
#[derive(Default)]
struct Entries<'a> {
    name: Option<Value<'a>>,
    name_utf8: Option<Value<'a>>,
    piece_length: Option<Value<'a>>,
    pieces: Option<Value<'a>>,
    length: Option<Value<'a>>,
    files: Option<Value<'a>>,
    private: Option<Value<'a>>,
    source: Option<Value<'a>>,
    attr: Option<Value<'a>>,
    meta_version: Option<Value<'a>>,
    file_tree: Option<Value<'a>>,
}

impl<'a> Entries<'a> {
    /// Read in one pass, because stepping over millions of entries for every key would add up.
    fn of(info: Dict<'a>) -> Self {
        let mut entries = Self::default();
        for (key, value) in info {
            let entry = match key {
                b"name" => &mut entries.name,
                b"name.utf-8" => &mut entries.name_utf8,
                b"piece length" => &mut entries.piece_length,
                b"pieces" => &mut entries.pieces,
                b"length" => &mut entries.length,
                b"files" => &mut entries.files,
                b"private" => &mut entries.private,
                b"source" => &mut entries.source,
                b"attr" => &mut entries.attr,
                b"meta version" => &mut entries.meta_version,
                b"file tree" => &mut entries.file_tree,
                _ => continue,
            };
            *entry = Some(value);
        }
        entries
    }

    /// Returns the bytes of `name`, preferably the UTF-8 form.
    fn name(&self) -> Option<&'a [u8]> {
        let utf8 = self.name_utf8.and_then(|name| name.text()).map(str::as_bytes);
        utf8.or_else(|| self.name.and_then(|name| name.bytes()))
    }

    /// Whether the dictionary also describes a v2 torrent.
    fn is_hybrid(&self) -> Result<bool, MetainfoError> {
        let version = self.meta_version.and_then(|version| version.integer()).unwrap_or(1);
        match (version, self.file_tree, self.pieces) {
            (1, _, _) => Ok(false),
            (2, _, None) => Err(MetainfoError::V2Only),
            (2, None, Some(_)) => Err(MetainfoError::Missing("file tree")),
            (2, Some(tree), Some(_)) => {
                scan(tree.span(), &Limits::METAINFO_CANONICAL).map_err(MetainfoError::FileTree)?;
                Ok(true)
            }
            (version, _, _) => Err(MetainfoError::Version(version)),
        }
    }
}

/// Decodes an `info` dictionary, see [`Info::decode`].
pub(super) fn decode(bytes: Bytes) -> Result<Info, MetainfoError> {
    let root = Value::read(&bytes, &Limits::INFO)?;
    let entries = Entries::of(root.dict().ok_or(MetainfoError::Kind("info"))?);
    let hybrid = entries.is_hybrid()?;
    let infohash = InfoHash::of(&bytes);
    let mut content = Content::new(entries.name().ok_or(MetainfoError::Missing("name"))?, infohash);
    let layout = match (entries.length, entries.files) {
        (Some(length), None) => {
            let attributes = attributes(entries.attr).0;
            let path = vec![content.name.clone()];
            let len = length_of(length, &path)?;
            content.add(path, len, attributes)?;
            Layout::SingleFile
        }
        (None, Some(files)) => {
            content.add_all(files.list().ok_or(MetainfoError::Kind("files"))?)?;
            Layout::Folder
        }
        (Some(_), Some(_)) => return Err(MetainfoError::LengthAndFiles),
        (None, None) => return Err(MetainfoError::Missing("length")),
    };
    content.make_distinct();
    content.files.shrink_to_fit();
    let geometry = geometry(content.total_len, &entries)?;
    let pieces = piece_hashes(&entries, geometry.piece_count())?;
    Ok(Info {
        infohash,
        infohash_v2: hybrid.then(|| Sha256::digest(&bytes).into()),
        piece_hashes: bytes.slice_ref(pieces),
        name: content.name,
        geometry,
        files: content.files,
        layout,
        // Only 1 means private; some torrents use 0 and texts for the opposite.
        private: entries.private.and_then(|private| private.integer()) == Some(1),
        source: entries.source.and_then(|source| source.text()).map(str::to_owned),
        renamed_count: content.changes.len(),
        renamed: told(content.changes),
        bytes: bytes.clone(),
    })
}

fn geometry(total_len: u64, entries: &Entries<'_>) -> Result<Geometry, MetainfoError> {
    let given = entries.piece_length.ok_or(MetainfoError::Missing("piece length"))?;
    let given = given.integer().ok_or(MetainfoError::Kind("piece length"))?;
    let piece_len = u32::try_from(given).map_err(|_| MetainfoError::PieceLen(given))?;
    match Geometry::new(total_len, piece_len) {
        Some(geometry) => Ok(geometry),
        None if Geometry::new(0, piece_len).is_none() => Err(MetainfoError::PieceLen(given)),
        None => Err(MetainfoError::PieceCount { total_len, piece_len }),
    }
}

/// Returns the hashes, exactly one for each piece.
fn piece_hashes<'a>(entries: &Entries<'a>, expected: u32) -> Result<&'a [u8], MetainfoError> {
    let pieces = entries.pieces.ok_or(MetainfoError::Missing("pieces"))?;
    let pieces = pieces.bytes().ok_or(MetainfoError::Kind("pieces"))?;
    if pieces.len() as u64 != 20 * u64::from(expected) {
        return Err(MetainfoError::PieceHashes { given_len: pieces.len(), expected });
    }
    Ok(pieces)
}

/// Returns the length; `path` is for the error only.
fn length_of(length: Value<'_>, path: &[String]) -> Result<u64, MetainfoError> {
    let integer = length.integer().ok_or(MetainfoError::Kind("length"))?;
    u64::try_from(integer).map_err(|_| MetainfoError::NegativeLength { file: path.join("/") })
}

/// Returns the attributes of BEP 47, and whether the file is a symbolic link.
fn attributes(attr: Option<Value<'_>>) -> (Attributes, bool) {
    let letters = attr.and_then(|attr| attr.bytes()).unwrap_or_default();
    let has = |letter| letters.contains(&letter);
    (Attributes { pad: has(b'p'), executable: has(b'x'), hidden: has(b'h') }, has(b'l'))
}

/// Collects the files.
struct Content {
    name: String,
    files: Vec<File>,
    total_len: u64,
    paths_len: usize,
    changes: Vec<Change>,
}

/// Returns the changes to display, truncated.
fn told(changes: Vec<Change>) -> Vec<(String, String)> {
    let told = changes.into_iter().take(RENAMED_COUNT_MAX).map(|Change { mut given, used, .. }| {
        given.truncate(given.floor_char_boundary(GIVEN_LEN_MAX));
        given.shrink_to_fit();
        (given, used)
    });
    // A new list: one made in place of `changes` would keep the whole allocation.
    let mut list = Vec::new();
    list.extend(told);
    list
}

/// A changed name.
struct Change {
    /// The file; `None` for the torrent, or a file that is left out.
    file: Option<usize>,
    given: String,
    used: String,
}

impl Content {
    fn new(given: &[u8], infohash: InfoHash) -> Self {
        // A torrent without a name gets a unique one.
        let name = path::root(given).unwrap_or_else(|| infohash.to_string());
        let changes = if name.as_bytes() == given {
            Vec::new()
        } else {
            let given = String::from_utf8_lossy(given).into_owned();
            vec![Change { file: None, given, used: name.clone() }]
        };
        Self { name, files: Vec::new(), total_len: 0, paths_len: 0, changes }
    }

    fn add(&mut self, path: Vec<String>, len: u64, attributes: Attributes) -> Result<(), MetainfoError> {
        self.paths_len += path.iter().map(String::len).sum::<usize>();
        if self.paths_len > PATHS_LEN_MAX {
            return Err(MetainfoError::PathsTooLong);
        }
        let offset = self.total_len;
        self.total_len = offset.checked_add(len).ok_or(MetainfoError::TotalLen)?;
        self.files.push(File { path, len, offset, attributes });
        Ok(())
    }

    fn add_all(&mut self, files: List<'_>) -> Result<(), MetainfoError> {
        for (number, file) in files.enumerate() {
            self.add_entry(file.dict().ok_or(MetainfoError::NoPath { number })?, number)?;
        }
        if self.files.is_empty() { Err(MetainfoError::NoFiles) } else { Ok(()) }
    }

    fn add_entry(&mut self, file: Dict<'_>, number: usize) -> Result<(), MetainfoError> {
        let (mut length, mut path, mut path_utf8, mut attr) = (None, None, None, None);
        for (key, value) in file {
            match key {
                b"length" => length = Some(value),
                b"path" => path = value.list(),
                b"path.utf-8" => path_utf8 = value.list().filter(|&list| is_text(list)),
                b"attr" => attr = Some(value),
                _ => {}
            }
        }
        let length = length.ok_or(MetainfoError::Missing("length"))?;
        let (attributes, symlink) = attributes(attr);
        if attributes.pad {
            // Never on disk, so its path is not looked at: some programs write none, others any.
            let len = length_of(length, &[PAD_FOLDER.to_owned()])?;
            let path = vec![self.name.clone(), PAD_FOLDER.to_owned(), len.to_string()];
            return self.add(path, len, attributes);
        }
        let given = path_utf8.or(path).ok_or(MetainfoError::NoPath { number })?;
        let (path, is_changed) = self.safe_path(given, number)?;
        let len = length_of(length, &path)?;
        if symlink && len == 0 {
            // Links are never made: one that leads out of the folder would undo every rule about
            // paths.
            let (given, used) = (path.join("/"), SYMLINK_LEFT_OUT.to_owned());
            self.changes.push(Change { file: None, given, used });
            return Ok(());
        }
        if is_changed {
            let used = path[1..].join("/");
            self.changes.push(Change { file: Some(self.files.len()), given: shown(given), used });
        }
        self.add(path, len, attributes)
    }

    /// The path below the download folder, and whether something had to be changed.
    fn safe_path(&self, given: List<'_>, number: usize) -> Result<(Vec<String>, bool), MetainfoError> {
        let mut path = vec![self.name.clone()];
        let mut is_changed = false;
        for element in given {
            let element = element.bytes().ok_or(MetainfoError::NoPath { number })?;
            let safe = path::element(element);
            is_changed |= safe.as_deref().map(str::as_bytes) != Some(element);
            path.extend(safe);
            if path.len() > DIR_DEPTH_MAX + 1 {
                return Err(MetainfoError::TooDeep { file: path::printable(&shown(given)) });
            }
        }
        if path.len() == 1 {
            is_changed = true;
            path.push(path::UNNAMED.to_owned());
        }
        Ok((path, is_changed))
    }

    /// Gives files that would be one on disk, or a file and a folder, different paths.
    fn make_distinct(&mut self) {
        let numbered = names::make_distinct(&mut self.files);
        if numbered.is_empty() {
            return;
        }
        let noted: BTreeMap<usize, usize> =
            self.changes.iter().enumerate().filter_map(|(at, change)| Some((change.file?, at))).collect();
        for (file, given) in numbered {
            let given = given[1..].join("/");
            let used = self.files[file].path[1..].join("/");
            match noted.get(&file) {
                Some(&at) => self.changes[at].used = used,
                None => self.changes.push(Change { file: Some(file), given, used }),
            }
        }
    }
}

fn is_text(mut path: List<'_>) -> bool {
    path.all(|element| element.text().is_some())
}

/// What [`Info::renamed`] says of a symbolic link in place of a new name.
pub const SYMLINK_LEFT_OUT: &str = "(symbolic link, left out)";

/// A path as given.
fn shown(path: List<'_>) -> String {
    let elements =
        path.map(|element| String::from_utf8_lossy(element.bytes().unwrap_or_default()).into_owned());
    elements.collect::<Vec<_>>().join("/")
}
