//! Reading blocks that the system has in memory, on a thread that must not wait for a disk.
//!
//! Blocks that follow each other in one file are read by one call, each into its own buffer. What
//! is not in memory, or in a file that cannot be had without waiting, is left to
//! [`Content::read_blocks`], and so is what cannot be read at all, or may have been changed by
//! others, so that errors and judgements come from one place.

use std::io::IoSliceMut;

use super::Content;
use crate::proto::block::Block;
use crate::proto::piece::PieceIndex;
use crate::storage::fs::FileSystem;
use crate::storage::span::{Span, spans};

impl<F: FileSystem> Content<F> {
    /// Fills the buffers of as many blocks, from the first on, as can be had without waiting and
    /// may go out as they are; how many. Each buffer has its block's length.
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

    /// Reads the first block, and with it those of its piece that follow it in its file; how many
    /// are whole, and were changed by nobody.
    fn read_unchanged<B: AsMut<[u8]>>(&self, blocks: &mut [(Block, B)]) -> usize {
        let Some(&(first, _)) = blocks.first() else { return 0 };
        let begun = |number: usize| (number, self.written[number].watch.begun_count());
        let counts: Vec<_> = self.places_of(first).map(begun).collect();
        let count = self.read_row(first, blocks);
        // Looked at after the read, for what was written meanwhile shows only then.
        let is_good = count > 0
            && counts.into_iter().all(|(number, begun_count)| self.looks_as_seen(number, begun_count))
            && !self.unverified.contains(first.piece);
        if is_good { count } else { 0 }
    }

    /// Whether the open file looks as it should. A file system that knows what it has in memory
    /// knows this, too.
    fn looks_as_seen(&self, number: usize, begun_count: u64) -> bool {
        let stamp = self.fs.opened(self.path_of(number)).and_then(|open| self.fs.stamp_of(&open).ok());
        stamp.is_some_and(|stamp| self.written[number].watch.is_as_seen(begun_count, Some(stamp)))
    }

    /// Reads blocks of which the first one is this.
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

    /// The same for a first block that is a span of one file.
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

    /// Reads a span of one file; how many bytes could be had.
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
