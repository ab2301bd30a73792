//! Reports what is wrong with each file, for `verify`. Pure except for reading the lengths of
//! files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::content::{Content, StorageError, pieces_of};
use super::fs::FileSystem;
use crate::proto::bitfield::Bitfield;
use crate::proto::piece::PieceIndex;

/// The result for one file.
#[derive(Debug)]
pub struct FileReport {
    /// Number of the file in `Info::files`.
    pub file: usize,
    /// Its condition.
    pub condition: Condition,
    /// Bytes of it in pieces that are not good.
    pub missing_len: u64,
}

/// The condition of a file. Length is judged before content: a short file is also damaged, and is
/// called short.
#[derive(Debug)]
pub enum Condition {
    /// As the torrent says.
    Whole,
    /// Not on disk.
    Missing,
    /// Shorter than the torrent says.
    Shorter {
        /// Bytes it has.
        actual_len: u64,
    },
    /// Longer than the torrent says; its content may be good (see `missing_len`).
    Longer {
        /// Its length, bytes.
        actual_len: u64,
    },
    /// Of the right length, with wrong bytes.
    Damaged,
    /// All its pieces that are not good also lie in files that could not be read.
    Unchecked,
    /// Something else stands in its place, or it may not be read.
    Unreadable(StorageError),
}

impl FileReport {
    /// Whether the file is as the torrent says.
    pub fn is_whole(&self) -> bool {
        matches!(self.condition, Condition::Whole)
    }
}

impl<F: FileSystem> Content<F> {
    /// Reports each selected file; `have` are the good pieces, and all pieces could be read.
    pub fn report(&self, have: &Bitfield) -> Vec<FileReport> {
        self.report_with(have, &Bitfield::new(have.len()), BTreeMap::new())
    }

    /// Reports each selected file; `have` are the good pieces (as [`Content::find_pieces`] found
    /// them), and `unread` those that could not be read because of `errors`.
    pub fn report_with(
        &self,
        have: &Bitfield,
        unread: &Bitfield,
        mut errors: BTreeMap<PathBuf, StorageError>,
    ) -> Vec<FileReport> {
        let geometry = self.info().geometry;
        let piece_len = geometry.piece_len();
        let report = |(at, file): (usize, &crate::proto::metainfo::files::File)| {
            let is_bad = |piece: &PieceIndex| !have.get(*piece) || self.is_only_in_parts(*piece, at);
            let bad = || pieces_of(file, piece_len).filter(is_bad);
            let missing_len = bad()
                .map(|piece| {
                    let start = geometry.offset_of(piece).max(file.offset);
                    let end = geometry.offset_of(piece) + u64::from(geometry.len_of(piece));
                    end.min(file.offset + file.len) - start
                })
                .sum();
            let path = self.path_of(at);
            let condition = match self.fs().len(path) {
                Ok(Some(_)) if errors.contains_key(&self.fs().full_path(path)) => {
                    let error = errors.remove(&self.fs().full_path(path));
                    error.map_or(Condition::Damaged, Condition::Unreadable)
                }
                Err(source) => Condition::Unreadable(self.error(path, source)),
                Ok(None) => Condition::Missing,
                Ok(Some(actual_len)) if actual_len < file.len => Condition::Shorter { actual_len },
                Ok(Some(actual_len)) if actual_len > file.len => Condition::Longer { actual_len },
                Ok(Some(_)) if missing_len > 0 && bad().all(|piece| unread.get(piece)) => {
                    Condition::Unchecked
                }
                Ok(Some(_)) if missing_len > 0 => Condition::Damaged,
                Ok(Some(_)) => Condition::Whole,
            };
            FileReport { file: at, condition, missing_len }
        };
        self.selected_files().map(report).collect()
    }
}
