//! Making a torrent out of names, lengths and piece hashes that the shell has read.

use super::{Metainfo, MetainfoError};
use bytes::Bytes;

/// What the torrent shall say.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Name of the file or folder.
    pub name: String,
    /// Files below the folder in order: path elements and length; empty path: a single file called `name`.
    pub files: Vec<DraftFile>,
    /// Bytes a piece; see [`automatic_piece_len`].
    pub piece_len: u32,
    /// Trackers in tiers.
    pub trackers: Vec<Vec<String>>,
    /// HTTP sources.
    pub web_seeds: Vec<String>,
    /// Free text.
    pub comment: Option<String>,
    /// BEP 27.
    pub private: bool,
    /// `source` key.
    pub source: Option<String>,
    /// Seconds since 1970; None leaves the key out, so that equal content gives equal files.
    pub creation_date: Option<i64>,
}

/// One file of a draft.
#[derive(Clone, Debug)]
pub struct DraftFile {
    /// Elements below the folder; empty for a single file.
    pub path: Vec<String>,
    /// Bytes.
    pub len: u64,
    /// BEP 47 `x`.
    pub executable: bool,
}

/// A power of two between 16 KiB and 16 MiB that cuts `total_len` into about 1,000 to 2,000 pieces.
pub fn automatic_piece_len(total_len: u64) -> u32 {
    let _ = total_len;
    todo!()
}

impl Draft {
    /// The torrent, from the SHA-1 of each piece in order.
    pub fn finish(self, piece_hashes: Bytes) -> Result<Metainfo, MetainfoError> {
        let _ = piece_hashes;
        todo!()
    }
}
