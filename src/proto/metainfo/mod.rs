//! What a .torrent file says (BEP 3, 5, 12, 19, 27, 47; 52 as far as a hybrid is read as v1).
//!
//! Optional keys of the wrong kind are read as absent: many programs write torrents, and a strange
//! comment is no reason to refuse the content. Nor is anything else outside `info`: bytes after the
//! end, unordered keys, keys that come twice, odd spellings of numbers; [`Metainfo::oddities`]
//! lists it. What the content depends on is checked in full, see [`Info`]. Nothing here touches the
//! disk or knows whether a tracker can be reached.

pub mod create;
pub mod files;
mod info;
pub mod magnet;
pub mod names;
mod oddity;
mod path;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::bencode::{
    BencodeError, Dict, Limits, Value, encode_bytes, encode_dict, encode_integer, encode_list,
};
use super::infohash::InfoHash;
use super::piece::{Geometry, PIECE_COUNT_MAX, PIECE_LEN_MAX, PieceIndex};
use files::File;
pub use info::{DIR_DEPTH_MAX, GIVEN_LEN_MAX, PATHS_LEN_MAX, RENAMED_COUNT_MAX, SYMLINK_LEFT_OUT};
pub use oddity::Oddity;
pub use path::{ELEMENT_LEN_MAX, PARTS_SUFFIX};

/// Longest .torrent file that is read, bytes; a longer one is refused. At 20 bytes a piece it
/// describes 26 TiB in pieces of 16 MiB.
pub const METAINFO_LEN_MAX: usize = Limits::METAINFO.len_max;

/// Trackers, web seeds and nodes, of each at most so many; the rest is left out. Real torrents name
/// some hundreds at most, and each costs a connection to try.
pub const HINT_COUNT_MAX: usize = 1_000;

/// A torrent's description: how to check its content and where to find peers.
#[derive(Clone, Debug)]
pub struct Metainfo {
    /// The part that names the torrent.
    pub info: Info,
    /// Trackers in tiers (BEP 12); a lone `announce` is one tier.
    pub trackers: Vec<Vec<String>>,
    /// HTTP sources of the content (BEP 19).
    pub web_seeds: Vec<String>,
    /// DHT nodes to ask first (BEP 5), host and port.
    pub nodes: Vec<(String, u16)>,
    /// Free text.
    pub comment: Option<String>,
    /// The program that made it.
    pub created_by: Option<String>,
    /// Seconds since 1970.
    pub creation_date: Option<i64>,
    /// What the .torrent file has that BEP 3 does not allow and that was accepted all the same.
    pub oddities: Vec<Oddity>,
}

/// The `info` dictionary.
#[derive(Clone, Debug)]
pub struct Info {
    /// SHA-1 over `bytes`.
    pub infohash: InfoHash,
    /// SHA-256 over `bytes`, if it also describes a v2 torrent.
    pub infohash_v2: Option<[u8; 32]>,
    /// The dictionary as received.
    pub bytes: Bytes,
    /// The name, made safe: of the file, or of the folder that holds the files.
    pub name: String,
    /// Lengths of pieces and content.
    pub geometry: Geometry,
    /// SHA-1 of each piece, 20 bytes each.
    pub piece_hashes: Bytes,
    /// The files in the order of the content, pad files included.
    pub files: Vec<File>,
    /// Whether `files` lie in a folder called `name`, or `name` is the one file.
    pub layout: Layout,
    /// Peers only from its trackers (BEP 27).
    pub private: bool,
    /// The `source` key of private trackers.
    pub source: Option<String>,
    /// Names that were changed to be safe and distinct: as given (not fit for a terminal), as used;
    /// the torrent's name first, then paths below its folder. [`SYMLINK_LEFT_OUT`] stands in the
    /// place of a link that is not made. The first [`RENAMED_COUNT_MAX`] of them, each name as
    /// given up to [`GIVEN_LEN_MAX`] bytes.
    pub renamed: Vec<(String, String)>,
    /// How many names were changed in all.
    pub renamed_count: usize,
}

/// One file, or a folder of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `name` is the file.
    SingleFile,
    /// `name` is the folder.
    Folder,
}

impl Info {
    /// Bytes of all files. Padding is not counted: it is in the pieces and in no file.
    pub fn content_len(&self) -> u64 {
        self.files.iter().filter(|file| !file.attributes.pad).map(|file| file.len).sum()
    }

    /// The SHA-1 that a piece must have; None beyond the end.
    pub fn piece_hash(&self, piece: PieceIndex) -> Option<[u8; 20]> {
        self.piece_hashes.as_chunks().0.get(piece as usize).copied()
    }

    /// Reads an `info` dictionary by itself, as peers send it. Shares `bytes`.
    ///
    /// # Errors
    /// Whoever made the torrent is at fault; the caller has checked the infohash, so not the peer.
    pub fn decode(bytes: Bytes) -> Result<Self, MetainfoError> {
        info::decode(bytes)
    }
}

impl Metainfo {
    /// Reads a .torrent file.
    ///
    /// # Errors
    /// The user's input is at fault; the error says what is wrong and, for names, in which file.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetainfoError> {
        oddity::refuse_edited(bytes)?;
        let root = Value::read(bytes, &Limits::METAINFO)?;
        let entries = root.dict().ok_or(MetainfoError::Kind("torrent"))?;
        let root = Root::of(entries)?;
        let info = root.entry(b"info").ok_or(MetainfoError::Missing("info"))?;
        Ok(Self {
            oddities: oddity::oddities(bytes, entries),
            info: Info::decode(Bytes::copy_from_slice(info.span()))?,
            trackers: trackers(&root),
            web_seeds: web_seeds(&root),
            nodes: nodes(&root),
            comment: text(&root, b"comment.utf-8").or_else(|| text(&root, b"comment")),
            created_by: text(&root, b"created by"),
            creation_date: root.entry(b"creation date").and_then(|date| date.integer()),
        })
    }

    /// The .torrent file, `info` byte for byte as received. Keys that are not read are not written.
    pub fn encode(&self) -> Vec<u8> {
        let trackers = self.trackers.iter().flatten();
        let tiers = self.trackers.iter().map(|tier| encode_list(tier.iter().map(encode_bytes)));
        let web_seeds = self.web_seeds.iter().map(encode_bytes);
        let nodes = self.nodes.iter();
        let nodes =
            nodes.map(|(host, port)| encode_list([encode_bytes(host), encode_integer((*port).into())]));
        encode_dict([
            ("info", Some(self.info.bytes.to_vec())),
            ("announce", trackers.clone().next().map(encode_bytes)),
            ("announce-list", (trackers.count() > 1).then(|| encode_list(tiers))),
            ("url-list", (!self.web_seeds.is_empty()).then(|| encode_list(web_seeds))),
            ("nodes", (!self.nodes.is_empty()).then(|| encode_list(nodes))),
            ("comment", self.comment.as_ref().map(encode_bytes)),
            ("created by", self.created_by.as_ref().map(encode_bytes)),
            ("creation date", self.creation_date.map(encode_integer)),
        ])
    }
}

/// The entries of the root dictionary that are read, gathered in one walk, as stepping over a large
/// `info` once for every key would add up.
struct Root<'a>(BTreeMap<&'a [u8], Value<'a>>);

impl<'a> Root<'a> {
    const KEYS: [&'static [u8]; 9] = [
        b"info",
        b"announce",
        b"announce-list",
        b"url-list",
        b"nodes",
        b"comment",
        b"comment.utf-8",
        b"created by",
        b"creation date",
    ];

    /// Of a key that comes twice the last one counts, but two torrents in one file are none.
    fn of(root: Dict<'a>) -> Result<Self, MetainfoError> {
        let mut entries = BTreeMap::new();
        for (key, value) in root.filter(|(key, _)| Self::KEYS.contains(key)) {
            match entries.insert(key, value) {
                Some(before) if key == b"info" && before != value => return Err(MetainfoError::TwoInfos),
                Some(_) | None => {}
            }
        }
        Ok(Self(entries))
    }

    fn entry(&self, key: &[u8]) -> Option<Value<'a>> {
        self.0.get(key).copied()
    }
}

/// A text, characters that are none replaced; None where it is absent or of another kind.
fn text(root: &Root<'_>, key: &[u8]) -> Option<String> {
    root.entry(key)?.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The text as a URL with a scheme and something behind it; None where it is anything else.
fn absolute_url(value: Value<'_>) -> Option<&str> {
    let url = value.text()?.trim();
    is_absolute_url(url).then_some(url)
}

/// Whether it has a scheme and something behind it, without spaces or control characters.
fn is_absolute_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    scheme.starts_with(|char: char| char.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && rest.starts_with(|char: char| !matches!(char, '/' | '?' | '#' | ':'))
        && !rest.contains(|char: char| char.is_control() || char.is_whitespace())
}

/// BEP 12: `announce` counts only where `announce-list` names no tracker. Tiers keep their order,
/// and a tracker that comes again is left out. A URL in the place of a tier is a tier of its own.
fn trackers(root: &Root<'_>) -> Vec<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut trackers = Vec::new();
    for tier in root.entry(b"announce-list").and_then(|tiers| tiers.list()).into_iter().flatten() {
        let room = HINT_COUNT_MAX - seen.len();
        let urls = tier.list().into_iter().flatten().chain(tier.bytes().map(|_| tier));
        let urls = urls.filter_map(absolute_url);
        let tier: Vec<_> = urls.filter(|&url| seen.insert(url)).take(room).map(str::to_owned).collect();
        if !tier.is_empty() {
            trackers.push(tier);
        }
    }
    if trackers.is_empty() {
        let announce = root.entry(b"announce").and_then(absolute_url);
        trackers.extend(announce.map(|url| vec![url.to_owned()]));
    }
    trackers
}

/// BEP 19: one URL or a list of them.
fn web_seeds(root: &Root<'_>) -> Vec<String> {
    let Some(value) = root.entry(b"url-list") else { return Vec::new() };
    let urls = value.list().into_iter().flatten().chain(value.bytes().map(|_| value));
    urls.filter_map(absolute_url).take(HINT_COUNT_MAX).map(str::to_owned).collect()
}

/// BEP 5: pairs of host and port; pairs that are none are left out.
fn nodes(root: &Root<'_>) -> Vec<(String, u16)> {
    let node = |pair: Value<'_>| {
        let mut pair = pair.list()?;
        let (host, port) = (pair.next()?.text()?, pair.next()?.integer()?);
        let port = u16::try_from(port).ok().filter(|&port| port > 0)?;
        (!host.is_empty()).then(|| (host.to_owned(), port))
    };
    let nodes = root.entry(b"nodes").and_then(|nodes| nodes.list()).into_iter().flatten();
    nodes.filter_map(node).take(HINT_COUNT_MAX).collect()
}

/// Why bytes are no torrent that we can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    /// Not bencode at all, or not within the limits.
    #[error("not a torrent: {0}")]
    Bencode(#[from] BencodeError),
    /// A key that every torrent has is not there.
    #[error("not a torrent: `{0}` is missing")]
    Missing(&'static str),
    /// A key that every torrent has is something else.
    #[error("not a torrent: `{0}` is of the wrong kind")]
    Kind(&'static str),
    /// No byte at all.
    #[error("not a torrent: the file is empty")]
    Empty,
    /// Something stands in front of the dictionary, as editors and scripts put it there.
    #[error("not a torrent: it begins with {0}, so it was saved by a text editor or a script")]
    Edited(&'static str),
    /// Two `info` dictionaries that differ.
    #[error("the torrent has two different `info` dictionaries, so it names two torrents")]
    TwoInfos,
    /// A torrent of BitTorrent v2 without the v1 part.
    #[error("this is a v2-only torrent, which is not supported yet; ask for a v1 or hybrid one")]
    V2Only,
    /// `meta version` is neither 1 nor 2.
    #[error("torrents of version {0} are not supported")]
    Version(i64),
    /// The v2 half of a hybrid is not as strict as BEP 52 asks; offset within `file tree`.
    #[error("the torrent's `file tree` is broken: {0}")]
    FileTree(BencodeError),
    /// It is one file and a folder at once.
    #[error("the torrent has both `length` and `files`, so its content is ambiguous")]
    LengthAndFiles,
    /// A folder of nothing.
    #[error("the torrent has no files")]
    NoFiles,
    /// An entry of `files` has no usable `path`.
    #[error("file number {number} of the torrent has no path")]
    NoPath {
        /// From 0.
        number: usize,
    },
    /// More folders within folders than [`DIR_DEPTH_MAX`].
    #[error("the path `{file}` is more than {DIR_DEPTH_MAX} folders deep")]
    TooDeep {
        /// As given, fit for a terminal.
        file: String,
    },
    /// Paths take more than [`PATHS_LEN_MAX`] bytes.
    #[error("the torrent's paths take more than {} MiB", PATHS_LEN_MAX >> 20)]
    PathsTooLong,
    /// A file of less than nothing.
    #[error("the file `{file}` has a negative length")]
    NegativeLength {
        /// As used.
        file: String,
    },
    /// The lengths add up to more than 64 bits hold.
    #[error("the files are too long together")]
    TotalLen,
    /// Pieces of no length or longer than [`PIECE_LEN_MAX`].
    #[error("a piece length of {0} is not between 1 and {PIECE_LEN_MAX}")]
    PieceLen(i64),
    /// More pieces than [`PIECE_COUNT_MAX`].
    #[error("{total_len} bytes in pieces of {piece_len} are more than {PIECE_COUNT_MAX} pieces")]
    PieceCount {
        /// Bytes of the content.
        total_len: u64,
        /// Bytes a piece.
        piece_len: u32,
    },
    /// There are more or fewer piece hashes than pieces.
    #[error(
        "the content has {expected} pieces of 20 bytes of hash each, but there are {given_len} bytes of hashes"
    )]
    PieceHashes {
        /// Bytes of `pieces`.
        given_len: usize,
        /// Pieces that the lengths ask for.
        expected: u32,
    },
    /// A draft's URL is none; only when making a torrent.
    #[error("`{0}` is not an absolute URL such as udp://host:port or http://host/path")]
    Url(String),
    /// A draft's name would have to be changed to be safe to create; only when making a torrent.
    #[error("the name `{file}` is not safe on every computer; rename it, for example to `{safe}`")]
    UnsafeName {
        /// As given, fit for a terminal.
        file: String,
        /// How it could be called.
        safe: String,
    },
}
