//! Reads blocks that the system has in memory, on a thread that must not wait for a disk.
//!
//! Consecutive blocks of one file are read by one call, each into its own buffer. Everything else
//! is left to [`Content::read_blocks`]: blocks that are not in memory, files that cannot be opened
//! without waiting, blocks that cannot be read, and files that may have changed. So all errors and
//! verdicts come from one place.

use std::io::IoSliceMut;

use super::Content;
use crate::proto::block::Block;
use crate::proto::piece::PieceIndex;
use crate::storage::fs::FileSystem;
use crate::storage::span::{Span, spans};

impl<F: FileSystem> Content<F> {
    /// Fills the buffers of as many blocks, from the first on, as can be read without waiting from
    /// unchanged files; returns their number. Each buffer has its block's length.
    pub fn read_at_once<B: AsMut<[u8]>>(&self, blocks: &mut [(Block, B)]) -> usize {
        let mut read_count = 0;
        while read_count < blocks.len() {
            match self.read_unchanged(&mut blocks[read_count..]) {
                0 => break,
                count => read_count += count,
            }
        }
        read_count
    }

    /// Reads the first block and the blocks of its piece that follow it in its file; returns the
    /// number of blocks that are complete and whose files are unchanged.
    fn read_unchanged<B: AsMut<[u8]>>(&self, blocks: &mut [(Block, B)]) -> usize {
        let Some(&(first, _)) = blocks.first() else { return 0 };
        let begun = |number: usize| (number, self.written[number].watch.begun_count());
        let counts: Vec<_> = self.places_of(first).map(begun).collect();
        let count = self.read_row(first, blocks);
        // The stamps are taken after the read, because a write during the read shows only then.
        let is_good = count > 0
            && counts.into_iter().all(|(number, begun_count)| self.looks_as_seen(number, begun_count))
            && !self.unverified.contains(first.piece);
        if is_good { count } else { 0 }
    }

    /// Whether the open file has the expected stamp. Taking the stamp of an open file does not wait
    /// on a file system that serves reads from memory.
    fn looks_as_seen(&self, number: usize, begun_count: u64) -> bool {
        let stamp = self.fs.opened(self.path_of(number)).and_then(|open| self.fs.stamp_of(&open).ok());
        stamp.is_some_and(|stamp| self.written[number].watch.is_as_seen(begun_count, Some(stamp)))
    }

    /// Reads blocks, of which `first` is the first.
    fn read_row<B: AsMut<[u8]>>(&self, first: Block, blocks: &mut [(Block, B)]) -> usize {
        let buffer = blocks[0].1.as_mut();
        if buffer.len() != first.len as usize || !self.is_within(first) {
            return 0;
        }
        let start = self.info.geometry.offset_of(first.piece) + u64::from(first.offset);
        let mut spans = spans(&self.info.files, start, first.len as usize);
        match spans.next() {
            Some(span) if span.len == first.len as usize => self.read_within(blocks, span),
            Some(span) => {
                let mut rest = buffer;
                let is_whole = std::iter::once(span).chain(spans).all(|span| {
                    let (part, behind) = std::mem::take(&mut rest).split_at_mut(span.len);
                    rest = behind;
                    self.read_parts(first.piece, span, &mut [IoSliceMut::new(part)]) == span.len
                });
                usize::from(is_whole)
            }
            None => 0,
        }
    }

    /// Reads blocks whose first one lies in one file.
    fn read_within<B: AsMut<[u8]>>(&self, blocks: &mut [(Block, B)], span: Span) -> usize {
        let room = self.info.files[span.file].len - span.offset;
        let (first, _) = blocks[0];
        let mut len = 0;
        let mut parts = Vec::with_capacity(blocks.len());
        for (block, buffer) in blocks.iter_mut() {
            let buffer = buffer.as_mut();
            let follows = block.piece == first.piece && block.offset == first.offset + len as u32;
            let end = len + block.len as usize;
            let fits = end as u64 <= room && self.is_within(*block);
            if !follows || !fits || buffer.len() != block.len as usize {
                break;
            }
            len = end;
            parts.push(IoSliceMut::new(buffer));
        }
        let row = parts.len();
        let read = self.read_parts(first.piece, Span { len, ..span }, &mut parts);
        let end = |block: &Block| (block.offset - first.offset + block.len) as usize;
        blocks[..row].iter().take_while(|(block, _)| end(block) <= read).count()
    }

    /// Reads a span of one file; returns the number of bytes read.
    fn read_parts(&self, piece: PieceIndex, span: Span, parts: &mut [IoSliceMut<'_>]) -> usize {
        if self.info.files[span.file].attributes.pad {
            parts.iter_mut().for_each(|part| part.fill(0));
            return span.len;
        }
        let (path, offset) = self.place(piece, span, self.unselected(piece));
        self.fs.opened(path).map_or(0, |file| self.fs.read_at_once(&file, parts, offset))
    }

    fn is_within(&self, block: Block) -> bool {
        let end = u64::from(block.offset) + u64::from(block.len);
        end <= u64::from(self.info.geometry.len_of(block.piece))
    }
}
