//! What a .torrent file says (BEP 3, 12, 19, 27, 47, 52 as far as a hybrid is read as v1).

pub mod create;
pub mod files;
pub mod magnet;

use bytes::Bytes;

use super::infohash::InfoHash;
use super::piece::{Geometry, PieceIndex};
use files::File;

/// Longest .torrent file that is read.
pub const METAINFO_LEN_MAX: usize = 32 << 20;

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
    /// Names that were changed to be safe: as given, as used.
    pub renamed: Vec<(String, String)>,
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
    /// The SHA-1 that a piece must have; None beyond the end.
    pub fn piece_hash(&self, piece: PieceIndex) -> Option<[u8; 20]> {
        self.piece_hashes.as_chunks().0.get(piece as usize).copied()
    }

    /// Reads an `info` dictionary by itself, as peers send it.
    pub fn decode(bytes: Bytes) -> Result<Self, MetainfoError> {
        let _ = bytes;
        todo!()
    }
}

impl Metainfo {
    /// Reads a .torrent file.
    ///
    /// # Errors
    /// The user's input is at fault; the error says what is wrong and, for names, in which file.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetainfoError> {
        let _ = bytes;
        todo!()
    }

    /// The .torrent file, `info` byte for byte as received.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }
}

/// Why bytes are no torrent that we can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    /// Not bencode at all, or not within the limits.
    #[error("not a torrent: {0}")]
    Bencode(#[from] super::bencode::BencodeError),
}
