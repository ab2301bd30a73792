//! Maps a range of the content to ranges of its files. Pure.
//!
//! Invariant: the spans of a range are contiguous and cover it, if the files cover the content.
//! Empty files have no span.

use crate::proto::metainfo::files::File;

/// A range within one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Number of the file in `Info::files`; it may be a pad file.
    pub file: usize,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes, at least 1.
    pub len: usize,
}

/// Returns the spans of `len` bytes of content from `offset`, in order; ends early where the files
/// end.
pub fn spans(files: &[File], offset: u64, len: usize) -> impl Iterator<Item = Span> {
    let end = offset.saturating_add(len as u64);
    let first = files.partition_point(|file| file.offset + file.len <= offset);
    let touched = files[first..].iter().enumerate().take_while(move |(_, file)| file.offset < end);
    let clipped = touched.map(move |(at, file)| {
        let start = offset.max(file.offset);
        let stop = end.min(file.offset + file.len);
        Span { file: first + at, offset: start - file.offset, len: (stop - start) as usize }
    });
    clipped.filter(|span| span.len > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::metainfo::files::Attributes;

    fn files(lens: &[u64]) -> Vec<File> {
        let mut offset = 0;
        let file = |(at, &len): (usize, &u64)| {
            let start = offset;
            offset += len;
            File { path: vec![at.to_string()], len, offset: start, attributes: Attributes::default() }
        };
        lens.iter().enumerate().map(file).collect()
    }

    #[test]
    fn a_range_becomes_the_files_it_touches() {
        let files = files(&[0, 10, 0, 5, 20, 0]);
        let whole: Vec<_> = spans(&files, 8, 10).collect();
        let expected = [
            Span { file: 1, offset: 8, len: 2 },
            Span { file: 3, offset: 0, len: 5 },
            Span { file: 4, offset: 0, len: 3 },
        ];
        assert_eq!(whole, expected);
        assert_eq!(spans(&files, 10, 5).collect::<Vec<_>>(), [Span { file: 3, offset: 0, len: 5 }]);
        assert_eq!(spans(&files, 5, 0).count(), 0);
    }

    #[test]
    fn every_range_is_made_up_of_its_spans() {
        let files = files(&[3, 0, 1, 7, 0, 0, 4]);
        for offset in 0..15_u64 {
            for len in 0..=(15 - offset) as usize {
                let mut at = offset;
                for span in spans(&files, offset, len) {
                    assert_eq!(files[span.file].offset + span.offset, at);
                    at += span.len as u64;
                }
                assert_eq!(at, offset + len as u64, "{len} bytes from {offset}");
            }
        }
        assert_eq!(spans(&files, 15, 4).count(), 0, "nothing lies beyond the end");
    }
}
