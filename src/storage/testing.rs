//! Torrents of made-up content for storage's tests.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::content::Content;
use super::fs::RealFs;
use super::handles::{HANDLE_MAX, Handles};
use crate::proto::infohash::InfoHash;
use crate::proto::metainfo::files::{Attributes, File};
use crate::proto::metainfo::{Info, Layout};
use crate::proto::piece::{Geometry, PieceIndex};

/// A torrent and all of its bytes.
pub(super) struct Sample {
    pub(super) info: Info,
    pub(super) bytes: Vec<u8>,
}

/// Files as (path with `/`, length); a path of `pad` makes a pad file.
pub(super) fn sample(files: &[(&str, u64)], piece_len: u32) -> Sample {
    let mut offset = 0;
    let mut bytes = Vec::new();
    let files: Vec<File> = files
        .iter()
        .map(|&(path, len)| {
            let pad = path == "pad";
            let start = offset;
            offset += len;
            let fresh = (start..offset).map(|at| if pad { 0 } else { (at * 31 + at / 251 + 1) as u8 });
            bytes.extend(fresh);
            let path = path.split('/').map(str::to_owned).collect();
            File { path, len, offset: start, attributes: Attributes { pad, ..Attributes::default() } }
        })
        .collect();
    let hashes: Vec<u8> = bytes.chunks(piece_len as usize).flat_map(Sha1::digest).collect();
    let info = Info {
        infohash: InfoHash::of(&hashes),
        infohash_v2: None,
        bytes: Bytes::new(),
        name: "sample".to_owned(),
        geometry: Geometry::new(offset, piece_len).unwrap(),
        piece_hashes: hashes.into(),
        files,
        layout: Layout::Folder,
        private: false,
        source: None,
        renamed: Vec::new(),
        renamed_count: 0,
    };
    Sample { info, bytes }
}

impl Sample {
    pub(super) fn piece(&self, piece: PieceIndex) -> &[u8] {
        let start = self.info.geometry.offset_of(piece) as usize;
        &self.bytes[start..start + self.info.geometry.len_of(piece) as usize]
    }

    pub(super) fn file(&self, file: usize) -> &[u8] {
        let file = &self.info.files[file];
        &self.bytes[file.offset as usize..(file.offset + file.len) as usize]
    }

    pub(super) fn content(&self, folder: &Path, selected: &[bool]) -> Content<RealFs> {
        self.content_with(folder, selected, &Handles::new(HANDLE_MAX))
    }

    pub(super) fn content_with(
        &self,
        folder: &Path,
        selected: &[bool],
        to: &Arc<Handles>,
    ) -> Content<RealFs> {
        Content::new(self.info.clone(), selected.to_vec(), RealFs::create(folder, to).unwrap())
    }

    pub(super) fn pieces(&self) -> std::ops::Range<PieceIndex> {
        0..self.info.geometry.piece_count()
    }

    /// Writes a piece in blocks of odd lengths.
    pub(super) fn write(
        &self,
        content: &Content<RealFs>,
        piece: PieceIndex,
    ) -> Result<(), super::content::StorageError> {
        let blocks: Vec<&[u8]> = self.piece(piece).chunks(7).collect();
        content.write_piece(piece, &blocks)
    }

    pub(super) fn check(&self, content: &Content<RealFs>) -> Vec<PieceIndex> {
        let mut scratch = Vec::new();
        self.pieces().filter(|piece| content.check_piece(*piece, &mut scratch).unwrap()).collect()
    }
}
