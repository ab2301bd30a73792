//! Pieces whose bytes are split between the parts file and the files in another way than the
//! present selection requires, because other files were selected when they were written.
//!
//! No record says which bytes are where, so a start tries the likely combinations, and the hash
//! tells which is right. Such a piece is rewritten to the places of the present selection before
//! anything else is written.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use super::{Content, StorageError, is_absent};
use crate::proto::piece::PieceIndex;
use crate::storage::fs::FileSystem;
use crate::storage::hash;
use crate::storage::span::{Span, spans};

/// A span of a piece with its bytes in both places; `in_file` is `None` if the file lacks them.
struct Found {
    span: Span,
    in_parts: Vec<u8>,
    in_file: Option<Vec<u8>>,
}

/// A piece that was assembled from both places.
struct Assembled {
    bytes: Vec<u8>,
    /// Files whose bytes are in the parts file only.
    only_in_parts: Vec<usize>,
}

impl<F: FileSystem> Content<F> {
    /// Reads and hashes pieces as [`Content::check_pieces`] does, and looks for the bytes of each
    /// file in both places. A piece that is found in a combination that later reads do not use must
    /// be rewritten ([`Content::rewrite_mixed`]).
    pub fn find_pieces(
        &self,
        pieces: &[PieceIndex],
        scratch: &mut Vec<u8>,
    ) -> Vec<Result<bool, StorageError>> {
        let mut found = self.check_pieces(pieces, scratch);
        for (&piece, found) in pieces.iter().zip(&mut found) {
            if matches!(found, Ok(false)) && self.slot(piece).is_some() {
                *found = self.find_mixed(piece);
            }
        }
        found
    }

    /// Calls [`Content::find_pieces`] for one piece.
    ///
    /// # Errors
    /// An existing file cannot be read.
    pub fn find_piece(&self, piece: PieceIndex, scratch: &mut Vec<u8>) -> Result<bool, StorageError> {
        self.find_pieces(&[piece], scratch).pop().unwrap_or(Ok(false))
    }

    fn find_mixed(&self, piece: PieceIndex) -> Result<bool, StorageError> {
        let assembled = self.assemble(piece)?;
        if let (Some(mut mixed), Some(Assembled { only_in_parts, .. })) = (self.mixed(), &assembled) {
            mixed.insert(piece, only_in_parts.clone());
        }
        Ok(assembled.is_some())
    }

    /// Whether a piece was found that must be rewritten.
    pub fn has_mixed(&self) -> bool {
        self.mixed().is_some_and(|mixed| !mixed.is_empty())
    }

    /// Whether the bytes of a file in a piece were found only in the parts file.
    pub(in crate::storage) fn is_only_in_parts(&self, piece: PieceIndex, file: usize) -> bool {
        self.mixed().is_some_and(|mixed| mixed.get(&piece).is_some_and(|files| files.contains(&file)))
    }

    /// The pieces that were found and must be rewritten.
    pub fn mixed_pieces(&self) -> Vec<PieceIndex> {
        self.mixed().map_or_else(Vec::new, |mixed| mixed.keys().copied().collect())
    }

    /// Rewrites the pieces that were found in another combination to the places that the selection
    /// requires. Returns those that are no longer present.
    ///
    /// # Errors
    /// A file cannot be read or written; the caller may try again.
    pub fn rewrite_mixed(&self) -> Result<Vec<PieceIndex>, StorageError> {
        let mut gone = Vec::new();
        for piece in self.mixed_pieces() {
            match self.assemble(piece)? {
                Some(Assembled { bytes, .. }) => self.write_piece(piece, &[&bytes])?,
                None => gone.push(piece),
            }
            self.mixed().and_then(|mut mixed| mixed.remove(&piece));
        }
        Ok(gone)
    }

    /// Removes the parts file when all files are selected and complete.
    ///
    /// # Errors
    /// The parts file cannot be removed.
    pub(super) fn remove_parts(&self) -> Result<(), StorageError> {
        let number = self.info.files.len();
        let Some(parts) = &self.parts else { return Ok(()) };
        let is_needed = parts.pieces.iter().any(|&piece| self.has_unselected(piece));
        if is_needed || self.last_look(number)?.is_none() {
            return Ok(());
        }
        parts.filled.iter().for_each(|filled| filled.store(false, Ordering::Release));
        self.fs.remove(&parts.path).map_err(|source| self.error(&parts.path, source))?;
        self.look(number).map(|_| ())
    }

    /// The pieces that must be rewritten; `None` if the torrent needs no parts file.
    fn mixed(&self) -> Option<MutexGuard<'_, BTreeMap<PieceIndex, Vec<usize>>>> {
        // Each change is complete on its own.
        Some(self.parts.as_ref()?.mixed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Assembles a piece from both places; `None` if no combination has the right hash, or there is
    /// no parts file.
    fn assemble(&self, piece: PieceIndex) -> Result<Option<Assembled>, StorageError> {
        let Some(found) = self.find_spans(piece)? else { return Ok(None) };
        let is_empty = |found: &Found| found.in_parts.iter().all(|&byte| byte == 0);
        // A file's bytes are in the parts file if they were written while it was not selected.
        // Zeros there may be a hole, so the first way prefers the file, if it has the bytes.
        let ways: [&dyn Fn(&Found) -> bool; 2] =
            [&|found| found.in_file.is_none() || !is_empty(found), &|found| found.in_file.is_none()];
        for takes_parts in ways {
            let (mut bytes, mut only_in_parts) = (Vec::new(), Vec::new());
            for found in &found {
                match &found.in_file {
                    Some(in_file) if !takes_parts(found) || *in_file == found.in_parts => {
                        bytes.extend_from_slice(in_file);
                    }
                    Some(_) | None => {
                        bytes.extend_from_slice(&found.in_parts);
                        only_in_parts.push(found.span.file);
                    }
                }
            }
            let digest = hash::digests(&[&[&bytes[..]][..]]).pop();
            if digest.is_some() && self.info.piece_hash(piece) == digest {
                return Ok(Some(Assembled { bytes, only_in_parts }));
            }
        }
        Ok(None)
    }

    /// The spans of a piece with the bytes of both places; `None` if there is no parts file.
    fn find_spans(&self, piece: PieceIndex) -> Result<Option<Vec<Found>>, StorageError> {
        let path = self.path_of(self.info.files.len());
        let at_parts = |source| self.error(path, source);
        let parts = match self.fs.open_read(path) {
            Err(error) if is_absent(&error) => return Ok(None),
            opened => opened.map_err(at_parts)?,
        };
        let parts_len = self.fs.stamp_of(&parts).map_err(at_parts)?.len;
        let (geometry, mut found) = (self.info.geometry, Vec::new());
        for span in spans(&self.info.files, geometry.offset_of(piece), geometry.len_of(piece) as usize) {
            let (file, path) = (&self.info.files[span.file], self.path_of(span.file));
            let (mut in_parts, mut in_file) = (vec![0; span.len], vec![0; span.len]);
            if !file.attributes.pad {
                // The parts file has nothing beyond its end.
                let offset = self.place_in_parts(piece, span).unwrap_or(parts_len);
                let len = (parts_len.saturating_sub(offset)).min(span.len as u64) as usize;
                read_if_there(|| self.fs.read_exact_at(&parts, &mut in_parts[..len], offset))
                    .map_err(at_parts)?;
            }
            let read = || self.fs.read_exact_at(&self.fs.open_read(path)?, &mut in_file, span.offset);
            let is_there =
                file.attributes.pad || read_if_there(read).map_err(|source| self.error(path, source))?;
            found.push(Found { span, in_parts, in_file: is_there.then_some(in_file) });
        }
        Ok(Some(found))
    }
}

/// Whether the read found all its bytes; `false` if the file is missing or too short.
fn read_if_there(read: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
    match read() {
        Err(error) if is_absent(&error) => Ok(false),
        read => read.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use crate::storage::fs::FileSystem;
    use crate::storage::testing::sample;

    /// Pieces 0 to 3 lie in `a`, 3 to 5 in `b`, which is in 4 alone, 5 and 6 in `c`.
    const FILES: [(&str, u64); 3] = [("a", 100), ("b", 80), ("c", 40)];
    const ONLY: [[bool; 3]; 3] = [[true, false, false], [false, true, false], [false, false, true]];

    #[test]
    fn pieces_are_found_and_kept_across_any_change_of_selection() {
        for first in ONLY {
            for second in ONLY.into_iter().chain([[true; 3], [true, true, false]]) {
                let folder = tempfile::tempdir().unwrap();
                let sample = sample(&FILES, 32);
                let before = sample.content(folder.path(), &first);
                let written: Vec<_> = before.wanted().iter_set().collect();
                written.iter().for_each(|&piece| sample.write(&before, piece).unwrap());
                let after = sample.content(folder.path(), &second);
                let mut scratch = Vec::new();
                for piece in sample.pieces() {
                    let is_found = after.find_piece(piece, &mut scratch).unwrap();
                    assert_eq!(is_found, written.contains(&piece), "{piece} of {first:?}, then {second:?}");
                }
                assert!(after.rewrite_mixed().unwrap().is_empty());
                assert!(!after.has_mixed());
                assert_eq!(sample.check(&after), written, "{first:?}, then {second:?}");
                let third = sample.content(folder.path(), &second);
                assert_eq!(sample.check(&third), written, "{first:?}, then {second:?}");
            }
        }
    }

    #[test]
    fn the_parts_file_is_removed_when_all_files_are_selected_and_complete() {
        let folder = tempfile::tempdir().unwrap();
        let sample = sample(&FILES, 32);
        let some = sample.content(folder.path(), &ONLY[1]);
        [3, 4, 5].iter().for_each(|&piece| sample.write(&some, piece).unwrap());
        some.make_whole().unwrap();
        let parts = some.path_of(3).to_vec();
        assert!(some.fs().len(&parts).unwrap().is_some());
        let all = sample.content(folder.path(), &[]);
        sample.pieces().for_each(|piece| sample.write(&all, piece).unwrap());
        all.make_whole().unwrap();
        assert_eq!(all.fs().len(&parts).unwrap(), None);
        assert_eq!(sample.check(&all).len(), 7);
    }
}
