//! Decides which files that existed before a download must not be written.
//!
//! The journal lists the files that this program began; it may write and truncate those. A listed
//! file counts as begun if its inode is the recorded one, or if a piece that was intended lies in
//! it; after a reboot such a record may be lost, so a listed file that was missing counts as begun
//! too. Any other file is judged by its content: a file with a good piece is an earlier download
//! and is continued, a file that is empty or all zeros has nothing to lose, and any other file
//! belongs to the user. A longer foreign file is always refused. [`judge`] is pure;
//! [`Content::misfits`] reads only what the decision needs, and nothing of a complete file.
//!
//! The journal also has the device of the content folder. If the folder is missing, or is on
//! another device and has none of the files, its disk is probably not mounted, and the download
//! does not fill another disk instead.

use std::io;
use std::path::PathBuf;

use super::content::{Content, StorageError, pieces_of};
use super::fs::FileSystem;
use super::resume::Verdict;
use crate::proto::bitfield::Bitfield;
use crate::proto::metainfo::files::File;
use crate::proto::piece::PieceIndex;

/// Bytes read at once in search of one that is not zero.
const READ_LEN: usize = 128 << 10;

/// A file that does not fit the torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Its number in `Info::files`.
    pub file: usize,
    /// Its path.
    pub path: PathBuf,
    /// Length by the torrent, bytes.
    pub len: u64,
    /// Length on disk, bytes.
    pub actual_len: u64,
    /// What is wrong with it.
    pub why: Why,
    /// Whether the journal says that this program began it.
    pub is_ours: bool,
}

/// Why a file does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is longer than the torrent says.
    Longer,
    /// It has no good piece and is not all zeros.
    OtherContent,
}

/// What a file contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// A good piece that is not all zeros in this file.
    Good,
    /// Zeros only, or nothing.
    Zeros,
    /// Anything else.
    Other,
}

/// Returns why a file of `actual_len` bytes must not be written in the place of one of `len`, or
/// `None` if it may be. Calls `bytes` only if the decision needs it.
///
/// # Errors
/// Those of `bytes`.
pub fn judge<E>(
    len: u64,
    actual_len: u64,
    is_ours: bool,
    bytes: impl FnOnce() -> Result<Bytes, E>,
) -> Result<Option<Why>, E> {
    if actual_len > len {
        return Ok(Some(Why::Longer));
    }
    if is_ours || actual_len == 0 {
        return Ok(None);
    }
    Ok(match bytes()? {
        Bytes::Good | Bytes::Zeros => None,
        Bytes::Other => Some(Why::OtherContent),
    })
}

impl<F: FileSystem> Content<F> {
    /// Returns the selected files that do not fit; `have` are the good pieces, and `verdict` is
    /// what the start found.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn misfits(&self, verdict: &Verdict, have: &Bitfield) -> Result<Vec<Misfit>, StorageError> {
        let mut misfits = Vec::new();
        for (number, file) in self.selected_files() {
            let Some(stamp) = self.last_look(number)? else { continue };
            let is_ours = verdict.ours.get(number as u32);
            if let Some(why) = judge(file.len, stamp.len, is_ours, || self.bytes_of(number, stamp.len, have))?
            {
                let (path, len, actual_len) =
                    (self.fs().full_path(self.path_of(number)), file.len, stamp.len);
                misfits.push(Misfit { file: number, path, len, actual_len, why, is_ours });
            }
        }
        Ok(misfits)
    }

    /// Returns what the first `actual_len` bytes of a file contain. A good piece that is all zeros
    /// in this file proves nothing, because other files have zeros too; nor does one whose bytes of
    /// this file are only in the parts file, because the file may be the user's.
    ///
    /// # Errors
    /// The file cannot be read.
    fn bytes_of(&self, number: usize, actual_len: u64, have: &Bitfield) -> Result<Bytes, StorageError> {
        let (file, path) = (&self.info().files[number], self.path_of(number));
        let pieces = || pieces_of(file, self.info().geometry.piece_len());
        let is_good = |piece: PieceIndex| have.get(piece) && !self.is_only_in_parts(piece, number);
        if pieces().all(is_good) {
            return Ok(Bytes::Good);
        }
        let read = || {
            let open = self.fs().open_read(path)?;
            let is_zero = |piece| self.is_zero(&open, file, piece, actual_len);
            for piece in pieces().filter(|&piece| is_good(piece)) {
                if !is_zero(piece)? {
                    return Ok(Bytes::Good);
                }
            }
            for piece in pieces().filter(|&piece| !is_good(piece)) {
                if !is_zero(piece)? {
                    return Ok(Bytes::Other);
                }
            }
            Ok(Bytes::Zeros)
        };
        read().map_err(|source| self.error(path, source))
    }

    /// Whether the part of a piece within an open file is all zeros, up to the end of the file.
    fn is_zero(&self, open: &F::File, file: &File, piece: PieceIndex, actual_len: u64) -> io::Result<bool> {
        let geometry = self.info().geometry;
        let start = geometry.offset_of(piece);
        let end = start + u64::from(geometry.len_of(piece));
        let mut at = start.saturating_sub(file.offset);
        let end = (end - file.offset).min(actual_len);
        let mut buffer = vec![0; READ_LEN.min(geometry.len_of(piece) as usize)];
        while at < end {
            let len = (end - at).min(buffer.len() as u64);
            let part = &mut buffer[..len as usize];
            self.fs().read_exact_at(open, part, at)?;
            if part.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            at += len;
        }
        Ok(true)
    }
}

#[cfg(test)]
#[path = "foreign_tests.rs"]
mod tests;
