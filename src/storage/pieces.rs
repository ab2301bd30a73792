//! The bytes of pieces under way: blocks collected, pieces at the disk, pieces that found it full.
//!
//! Which blocks are kept, and when a piece is whole, the machine says. Nothing here is dropped because the
//! disk is full: the pieces wait with their blocks until there is room. It owns the buffers, `B`, and looks into
//! none.

use std::collections::BTreeMap;

use crate::proto::block::Block;
use crate::proto::piece::{Geometry, PieceIndex};
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event::StorageFault;

/// Bytes of one torrent at the disk, to be hashed and written, before its connections are read no further:
/// what 200 ms of a 1 Gbit/s line bring, and what the threads need to hash pieces side by side.
const STORING_LEN_MAX: u64 = 24 << 20;
/// How often a full or failing disk is tried again: who made room is not to wait for us, and one write a second
/// costs nothing.
pub const STORAGE_RETRY: Duration = Duration::from_secs(1);

/// A whole piece on its way to the disk.
#[derive(Debug)]
pub struct WholePiece<B> {
    /// Which.
    pub piece: PieceIndex,
    /// Its blocks in order.
    pub blocks: Vec<B>,
    /// Whether each block's hash is wanted.
    pub block_hashes: bool,
}

/// All pieces under way.
#[derive(Debug)]
pub struct PieceBuffers<B> {
    geometry: Geometry,
    partial: BTreeMap<PieceIndex, Vec<Option<B>>>,
    storing_len: u64,
    parked: Vec<WholePiece<B>>,
    fault: Option<StorageFault>,
    retry_at: Option<Instant>,
}

impl<B> PieceBuffers<B> {
    /// None yet.
    pub fn new(geometry: Geometry) -> Self {
        let (partial, parked) = (BTreeMap::new(), Vec::new());
        Self { geometry, partial, storing_len: 0, parked, fault: None, retry_at: None }
    }

    /// Keeps a block for its piece.
    pub fn keep(&mut self, block: Block, content: B) {
        let block_count = self.geometry.block_count(block.piece) as usize;
        let blocks =
            self.partial.entry(block.piece).or_insert_with(|| (0..block_count).map(|_| None).collect());
        if let Some(slot) = blocks.get_mut(block.index() as usize) {
            *slot = Some(content);
        }
    }

    /// The blocks of a piece are not needed any more.
    pub fn discard(&mut self, piece: PieceIndex) {
        self.partial.remove(&piece);
    }

    /// Takes a piece out, for the disk; None: a block is missing.
    pub fn take(&mut self, piece: PieceIndex, block_hashes: bool) -> Option<WholePiece<B>> {
        let blocks = self.partial.remove(&piece)?.into_iter().collect::<Option<Vec<_>>>()?;
        Some(WholePiece { piece, blocks, block_hashes })
    }

    /// A piece goes to the disk.
    pub fn storing(&mut self, piece: PieceIndex) {
        self.storing_len += u64::from(self.geometry.len_of(piece));
    }

    /// A piece came back from the disk.
    pub fn stored(&mut self, piece: PieceIndex) {
        self.storing_len -= u64::from(self.geometry.len_of(piece));
    }

    /// Whether any piece is at the disk.
    pub fn is_storing(&self) -> bool {
        self.storing_len > 0
    }

    /// Whether the disk keeps up: else connections are not to be read.
    pub fn has_room(&self) -> bool {
        self.storing_len < STORING_LEN_MAX
    }

    /// A piece waits for the disk to have room.
    pub fn park(&mut self, piece: WholePiece<B>) {
        self.parked.push(piece);
    }

    /// The disk refuses; whether that is news.
    #[must_use]
    pub fn fail(&mut self, now: Instant, fault: StorageFault) -> bool {
        self.retry_at = Some(now + STORAGE_RETRY);
        let news = !self.fault.as_ref().is_some_and(|last| last.is_like(&fault));
        self.fault = Some(fault);
        news
    }

    /// The disk took something; whether it is well again.
    #[must_use]
    pub fn recover(&mut self) -> bool {
        self.parked.is_empty() && self.retry_at.is_none() && self.fault.take().is_some()
    }

    /// When the disk is to be tried again.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// What to try again now; None: not yet.
    pub fn retry(&mut self, now: Instant) -> Option<Vec<WholePiece<B>>> {
        self.retry_at.take_if(|at| *at <= now)?;
        Some(std::mem::take(&mut self.parked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole_piece(pieces: &mut PieceBuffers<Vec<u8>>, piece: PieceIndex) {
        for index in (0..pieces.geometry.block_count(piece)).rev() {
            let block = pieces.geometry.block(piece, index);
            pieces.keep(block, vec![index as u8; block.len as usize]);
        }
    }

    #[test]
    fn blocks_come_back_in_order_and_an_incomplete_piece_does_not() {
        let mut pieces = PieceBuffers::new(Geometry::new(100_000, 65_536).unwrap());
        whole_piece(&mut pieces, 1);
        let whole = pieces.take(1, false).unwrap();
        let firsts: Vec<_> = whole.blocks.iter().map(|block| block[0]).collect();
        assert_eq!(firsts, [0, 1, 2]);
        assert_eq!(whole.blocks[2].len(), 100_000 - 65_536 - 2 * 16_384);
        pieces.keep(pieces.geometry.block(0, 1), vec![0; 16_384]);
        assert!(pieces.take(0, false).is_none());
    }

    #[test]
    fn a_full_disk_is_tried_again_with_the_same_pieces_until_it_has_room() {
        let mut pieces = PieceBuffers::new(Geometry::new(65_536, 65_536).unwrap());
        whole_piece(&mut pieces, 0);
        let whole = pieces.take(0, false).unwrap();
        let start = Instant::ZERO;
        pieces.park(whole);
        let full = |len| StorageFault::Full { place: "here".to_owned(), missing_len: Some(len) };
        assert!(pieces.fail(start, full(7)) && !pieces.fail(start, full(6)));
        assert!(!pieces.recover() && pieces.retry(start).is_none());
        let again = pieces.retry(start + STORAGE_RETRY).unwrap();
        assert_eq!((again[0].piece, again[0].blocks.len()), (0, 4));
        assert!(pieces.recover() && !pieces.recover());
    }

    #[test]
    fn a_slow_disk_holds_the_sockets_back() {
        let mut pieces = PieceBuffers::<()>::new(Geometry::new(1 << 30, 16 << 20).unwrap());
        pieces.storing(0);
        assert!(pieces.has_room());
        pieces.storing(1);
        assert!(!pieces.has_room());
        pieces.stored(0);
        assert!(pieces.has_room() && pieces.is_storing());
    }
}
