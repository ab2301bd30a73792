//! What a torrent's content should be, held against what is on disk or comes over a connection.

use std::path::{Path, PathBuf};

use sprat::engine::{Bitfield, Info, Metainfo};
use sprat::proto::block::Block;

/// A torrent and all of its bytes.
pub(crate) struct Truth {
    pub(crate) info: Info,
    bytes: Vec<u8>,
}

impl Truth {
    /// Of the torrent at `torrent`, whose content lies in `dir` as it should.
    pub(crate) fn load(torrent: &Path, dir: &Path) -> Self {
        let info = Metainfo::decode(&std::fs::read(torrent).unwrap()).unwrap().info;
        let mut bytes = Vec::with_capacity(info.geometry.total_len() as usize);
        for number in 0..info.files.len() {
            bytes.extend(std::fs::read(path_of(&info, number, dir)).unwrap());
        }
        assert_eq!(bytes.len() as u64, info.geometry.total_len());
        Self { info, bytes }
    }

    /// The bytes of a block.
    pub(crate) fn block(&self, block: Block) -> &[u8] {
        let start = self.info.geometry.offset_of(block.piece) as usize + block.offset as usize;
        &self.bytes[start..start + block.len as usize]
    }

    /// The bytes of a file, by number.
    pub(crate) fn file(&self, number: usize) -> &[u8] {
        let file = &self.info.files[number];
        &self.bytes[file.offset as usize..(file.offset + file.len) as usize]
    }

    /// Where a file is, by number.
    pub(crate) fn path(&self, number: usize, dir: &Path) -> PathBuf {
        path_of(&self.info, number, dir)
    }

    /// The pieces whose bytes are all on disk below `dir` at this moment.
    pub(crate) fn good(&self, dir: &Path) -> Bitfield {
        let geometry = self.info.geometry;
        let mut good = Bitfield::full(geometry.piece_count());
        let piece_len = u64::from(geometry.piece_len());
        for (number, file) in self.info.files.iter().enumerate().filter(|(_, file)| file.len > 0) {
            let path = self.path(number, dir);
            // What a link leads to is not the content's, and nothing else can be read.
            let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file());
            let actual = if is_file { std::fs::read(path).unwrap_or_default() } else { Vec::new() };
            let end = file.offset + file.len;
            for piece in file.offset / piece_len..end.div_ceil(piece_len) {
                let start = (piece * piece_len).max(file.offset);
                let stop = ((piece + 1) * piece_len).min(end);
                let within = (start - file.offset) as usize..(stop - file.offset) as usize;
                if actual.get(within) != Some(&self.bytes[start as usize..stop as usize]) {
                    good.clear(piece as u32);
                }
            }
        }
        good
    }

    /// Bytes in these pieces.
    pub(crate) fn len_of(&self, pieces: &Bitfield) -> u64 {
        pieces.iter_set().map(|piece| u64::from(self.info.geometry.len_of(piece))).sum()
    }
}

fn path_of(info: &Info, number: usize, dir: &Path) -> PathBuf {
    info.files[number].path.iter().fold(dir.to_owned(), |path, element| path.join(element))
}
