//! How much of each file of a torrent is verified.

use crate::proto::bitfield::Bitfield;
use crate::proto::metainfo::Info;
use crate::proto::metainfo::files::File;
use crate::proto::piece::{Geometry, PieceIndex};

/// Verified bytes of each file.
#[derive(Debug)]
pub struct FileProgress {
    done_lens: Vec<u64>,
}

impl FileProgress {
    /// Returns it for a torrent with these files, of which these pieces are verified.
    pub fn new(info: &Info, have: &Bitfield) -> Self {
        let mut progress = Self { done_lens: vec![0; info.files.len()] };
        have.iter_set().for_each(|piece| progress.add(info, piece));
        progress
    }

    /// Returns the verified bytes of each file.
    pub fn done_lens(&self) -> &[u64] {
        &self.done_lens
    }

    /// One more piece is verified.
    pub fn add(&mut self, info: &Info, piece: PieceIndex) {
        self.change(info.geometry, &info.files, piece, |done_len, len| *done_len += len);
    }

    /// A piece is there no more.
    pub fn remove(&mut self, info: &Info, piece: PieceIndex) {
        self.change(info.geometry, &info.files, piece, |done_len, len| *done_len -= len);
    }

    /// Calls with the verified bytes of each file that the piece touches, and its bytes in the
    /// piece.
    fn change(
        &mut self,
        geometry: Geometry,
        files: &[File],
        piece: PieceIndex,
        change: impl Fn(&mut u64, u64),
    ) {
        let start = geometry.offset_of(piece);
        let end = start + u64::from(geometry.len_of(piece));
        let first = files.partition_point(|file| file.offset + file.len <= start);
        for (file, done_len) in files.iter().zip(&mut self.done_lens).skip(first) {
            if file.offset >= end {
                break;
            }
            change(done_len, (file.offset + file.len).min(end) - file.offset.max(start));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_counts_for_each_file_that_it_touches() {
        let lens = [10, 0, 25, 5, 0];
        let file = |(at, len)| format!("d6:lengthi{len}e4:pathl1:{at}ee");
        let files: String = lens.iter().enumerate().map(file).collect();
        let pieces = "-".repeat(60);
        let info = format!("d5:filesl{files}e4:name1:n12:piece lengthi16e6:pieces60:{pieces}e");
        let info = Info::decode(info.into()).unwrap();
        let mut progress = FileProgress::new(&info, &Bitfield::new(3));
        progress.add(&info, 0);
        assert_eq!(progress.done_lens, [10, 0, 6, 0, 0]);
        progress.add(&info, 2);
        assert_eq!(progress.done_lens, [10, 0, 9, 5, 0]);
        progress.add(&info, 1);
        assert_eq!(progress.done_lens, lens);
        progress.remove(&info, 0);
        assert_eq!(progress.done_lens, [0, 0, 19, 5, 0]);
    }
}
