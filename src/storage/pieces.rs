//! Buffers of incomplete pieces: blocks in memory, blocks that were written to the disk early, and
//! the number of bytes on the disk threads.
//!
//! The torrent's machine ([`crate::proto::torrent`]) alone decides which blocks are present and
//! when a piece is complete; this module keeps their bytes by block number. A slow piece is
//! spilled: its blocks are written to their places, and only their checksums stay in memory. So
//! memory does not grow with the number of incomplete pieces, and a kill loses at most the blocks
//! of the last second, or a few of each piece. Owns the buffers, `B`, and reads none.
//!
//! Two simpler ways were measured, and cost more than they save:
//! - Blocks wait in memory for the rest of their piece. 160 MiB in pieces of 16 MiB from 24 seeds
//!   (`sprat seed --up-limit 512KiB`): 87 MiB at the peak instead of 57, growing with the number of
//!   pieces; with a `SIGKILL` every 4 s the download does not end (4.7 GiB received in 400 s, then
//!   given up) instead of receiving 6 MiB twice per kill. At a limit of memory, new pieces would
//!   have to wait for old ones, so peers that stop before the last block could stop a download.
//! - Every block is written at once, and a piece is hashed from the page cache: 2.00 processor
//!   seconds per GiB instead of 1.68, 1.40 s instead of 1.22 s, and 79 MiB instead of 45, for a
//!   leecher of pieces of 16 MiB (`transfer.py --piece-kib 16384`, median of 5).

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::ops::Range;

use crate::proto::block::Block;
use crate::proto::piece::{Geometry, PieceIndex};
use crate::proto::time::{Duration, Instant};

/// Most bytes of one torrent that wait to be hashed and written before its connections are no
/// longer read: what a 1 Gbit/s line brings in 200 ms, and enough for the threads to hash pieces
/// side by side.
const STORING_LEN_MAX: u64 = 24 << 20;
/// How long blocks wait in memory for the rest of their piece before they are written. Most pieces
/// are complete by then.
const SPILL_AFTER: Duration = Duration::from_secs(1);
/// The same for fewer than [`SPILL_COUNT_MIN`] blocks: each write costs a sync later, and slow
/// torrents may have hundreds of such pieces.
const SPILL_FEW_AFTER: Duration = Duration::from_secs(60);
/// Blocks that are worth a write of their own: 256 KiB.
const SPILL_COUNT_MIN: usize = 16;
/// Most blocks in memory of one torrent's incomplete pieces: 64 MiB, more than fast peers have in
/// flight at once. Beyond it the blocks that have waited longest are written.
const HELD_COUNT_MAX: usize = 4_096;

/// The bytes of a block.
#[derive(Debug, PartialEq, Eq)]
pub enum Held<B> {
    /// In memory.
    Memory(B),
    /// In its place on the disk, with this CRC-32.
    Disk(u32),
}

/// A block of an incomplete piece on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spilled {
    /// Its number in the piece.
    pub index: u32,
    /// The CRC-32 of its bytes.
    pub crc: u32,
}

/// An incomplete piece and its blocks on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialPiece {
    /// The piece.
    pub piece: PieceIndex,
    /// Its blocks, ascending.
    pub blocks: Vec<Spilled>,
}

/// A complete piece on its way to the disk.
#[derive(Debug)]
pub struct WholePiece<B> {
    /// The piece.
    pub piece: PieceIndex,
    /// Its blocks in order.
    pub blocks: Vec<Held<B>>,
    /// Whether the hash of each block is wanted.
    pub block_hashes: bool,
}

/// Blocks of an incomplete piece on their way to the disk.
#[derive(Debug)]
pub struct Spill<B> {
    /// The piece.
    pub piece: PieceIndex,
    /// Their numbers in the piece, ascending, and their bytes.
    pub blocks: Vec<(u32, B)>,
    /// The download attempt of the piece to which they belong.
    attempt: u64,
    /// When the first of them was received.
    since: Instant,
}

impl<B: AsRef<[u8]>> WholePiece<B> {
    /// Returns the bytes of each block; those on the disk are taken from `read_back`, which holds
    /// them in order.
    pub fn bytes<'a>(&'a self, geometry: Geometry, mut read_back: &'a [u8]) -> Vec<&'a [u8]> {
        let blocks = (0..).zip(&self.blocks).map(|(index, held)| match held {
            Held::Memory(content) => content.as_ref(),
            Held::Disk(_) => {
                let len = geometry.block(self.piece, index).len as usize;
                let (block, rest) = read_back.split_at(len.min(read_back.len()));
                read_back = rest;
                block
            }
        });
        blocks.collect()
    }

    /// Returns the blocks that are not on the disk, as ranges.
    pub fn fresh(&self) -> Vec<Range<usize>> {
        let mut fresh: Vec<Range<usize>> = Vec::new();
        for (at, _) in self.blocks.iter().enumerate().filter(|(_, held)| matches!(held, Held::Memory(_))) {
            match fresh.last_mut().filter(|range| range.end == at) {
                Some(range) => range.end += 1,
                None => fresh.push(at..at + 1),
            }
        }
        fresh
    }
}

impl<B> Spill<B> {
    /// Returns when the first of the blocks was received.
    pub fn since(&self) -> Instant {
        self.since
    }
}

/// The buffers of all incomplete pieces.
#[derive(Debug)]
pub struct PieceBuffers<B> {
    geometry: Geometry,
    partial: BTreeMap<PieceIndex, Partial<B>>,
    /// Pieces with blocks that are being written, even of an abandoned attempt; the next write of
    /// the piece waits for that one.
    spilling: BTreeSet<PieceIndex>,
    attempt_count: u64,
    /// Blocks in memory.
    held_count: usize,
    storing_len: u64,
    /// The earliest time at which blocks may have to be written; `None` if there are none.
    spill_at: Option<Instant>,
}

#[derive(Debug)]
struct Partial<B> {
    attempt: u64,
    /// The blocks by their numbers in the piece, without those that are being written.
    blocks: BTreeMap<u32, Held<B>>,
    /// When the first block in memory was received.
    held_since: Option<Instant>,
    /// Blocks in memory.
    held_count: usize,
    /// When the last block was received.
    grown_at: Instant,
    /// Set when the piece is complete but blocks of it are being written; whether the hash of each
    /// block is wanted.
    whole: Option<bool>,
}

impl<B> Partial<B> {
    fn new(attempt: u64, now: Instant) -> Self {
        Self { attempt, blocks: BTreeMap::new(), held_since: None, held_count: 0, grown_at: now, whole: None }
    }

    /// When its blocks in memory must be written, if none are being written.
    fn due_at(&self) -> Option<Instant> {
        let wait = if self.held_count < SPILL_COUNT_MIN { SPILL_FEW_AFTER } else { SPILL_AFTER };
        self.held_since.filter(|_| self.whole.is_none()).map(|since| since + wait)
    }

    /// Takes out its blocks in memory, the first of which was received at `since`.
    fn spill(&mut self, piece: PieceIndex, since: Instant) -> Spill<B> {
        let mut blocks = Vec::with_capacity(self.held_count);
        for (index, held) in mem::take(&mut self.blocks) {
            match held {
                Held::Memory(content) => blocks.push((index, content)),
                Held::Disk(_) => _ = self.blocks.insert(index, held),
            }
        }
        (self.held_since, self.held_count) = (None, 0);
        Spill { piece, blocks, attempt: self.attempt, since }
    }
}

impl<B> PieceBuffers<B> {
    /// Creates empty buffers.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            partial: BTreeMap::new(),
            spilling: BTreeSet::new(),
            attempt_count: 0,
            held_count: 0,
            storing_len: 0,
            spill_at: None,
        }
    }

    fn partial(&mut self, piece: PieceIndex, now: Instant) -> &mut Partial<B> {
        self.partial.entry(piece).or_insert_with(|| {
            self.attempt_count += 1;
            Partial::new(self.attempt_count, now)
        })
    }

    /// Keeps a block for its piece.
    pub fn keep(&mut self, now: Instant, block: Block, content: B) {
        let partial = self.partial(block.piece, now);
        let before = partial.blocks.insert(block.index(), Held::Memory(content));
        let is_new = usize::from(!matches!(before, Some(Held::Memory(_))));
        partial.held_count += is_new;
        partial.held_since.get_or_insert(now);
        partial.grown_at = now;
        self.held_count += is_new;
        self.look_at(block.piece);
    }

    /// When the blocks of a piece must be written.
    fn due_at(&self, piece: PieceIndex) -> Option<Instant> {
        self.partial.get(&piece).filter(|_| !self.spilling.contains(&piece))?.due_at()
    }

    /// Notes that [`PieceBuffers::spill_due`] may have something to do with this piece.
    fn look_at(&mut self, piece: PieceIndex) {
        self.spill_at = self.spill_at.into_iter().chain(self.due_at(piece)).min();
    }

    /// Adds blocks on the disk from an earlier run.
    pub fn restore(&mut self, now: Instant, restored: &PartialPiece) {
        let partial = self.partial(restored.piece, now);
        let blocks = restored.blocks.iter().map(|spilled| (spilled.index, Held::Disk(spilled.crc)));
        partial.blocks.extend(blocks);
    }

    /// Drops the blocks of a piece that are no longer needed.
    pub fn discard(&mut self, piece: PieceIndex) {
        self.remove(piece);
    }

    fn remove(&mut self, piece: PieceIndex) -> Option<Partial<B>> {
        let partial = self.partial.remove(&piece)?;
        self.held_count -= partial.held_count;
        Some(partial)
    }

    /// Marks a piece as complete: [`PieceBuffers::take`] returns it as soon as none of its blocks
    /// is being written.
    pub fn complete(&mut self, piece: PieceIndex, block_hashes: bool) {
        if let Some(partial) = self.partial.get_mut(&piece) {
            partial.whole = Some(block_hashes);
        }
    }

    /// Takes out a complete piece, unless blocks of it are being written.
    pub fn take(&mut self, piece: PieceIndex) -> Option<WholePiece<B>> {
        let partial = self.partial.get(&piece).filter(|_| !self.spilling.contains(&piece))?;
        let block_hashes = partial.whole?;
        let mut blocks: Vec<_> = self.remove(piece)?.blocks.into_values().collect();
        if blocks.len() != self.geometry.block_count(piece) as usize {
            // A piece that lacks a block is lost: it is stored without blocks.
            blocks.clear();
        }
        Some(WholePiece { piece, blocks, block_hashes })
    }

    /// Returns when [`PieceBuffers::spill_due`] may have something to do.
    pub fn spill_at(&self) -> Option<Instant> {
        self.spill_at
    }

    /// Takes out the blocks of slow pieces. Visits all incomplete pieces.
    pub fn spill_due(&mut self, now: Instant) -> Vec<Spill<B>> {
        let due = |due_at: Instant| due_at <= now;
        let spills = self.spill_if(due);
        self.spill_at = self.partial.keys().filter_map(|&piece| self.due_at(piece)).min();
        spills
    }

    /// Takes out all blocks in memory of pieces that have no other blocks being written.
    pub fn spill_all(&mut self) -> Vec<Spill<B>> {
        self.spill_if(|_| true)
    }

    /// If too many blocks are in memory, takes out those of the piece that has not grown for the
    /// longest time: of the pieces that have enough of them for a write, or else of any, because a
    /// peer may leave out a block of each small piece. Visits all incomplete pieces.
    pub fn spill_idlest(&mut self) -> Option<Spill<B>> {
        if self.held_count <= HELD_COUNT_MAX {
            return None;
        }
        let idlest = |count_min| {
            let has_enough = |(piece, partial): &(&PieceIndex, &Partial<B>)| {
                partial.held_count >= count_min && self.due_at(**piece).is_some()
            };
            self.partial.iter().filter(has_enough).min_by_key(|(_, partial)| partial.grown_at)
        };
        let (&piece, _) = idlest(SPILL_COUNT_MIN).or_else(|| idlest(1))?;
        self.spill(piece)
    }

    fn spill_if(&mut self, is_due: impl Fn(Instant) -> bool) -> Vec<Spill<B>> {
        let due = self.partial.keys().filter(|piece| self.due_at(**piece).is_some_and(&is_due));
        let due: Vec<PieceIndex> = due.copied().collect();
        due.into_iter().filter_map(|piece| self.spill(piece)).collect()
    }

    fn spill(&mut self, piece: PieceIndex) -> Option<Spill<B>> {
        let partial = self.partial.get_mut(&piece)?;
        let since = partial.held_since?;
        self.held_count -= partial.held_count;
        let spill = partial.spill(piece, since);
        self.spilling.insert(piece);
        self.storing_len += self.spill_len(&spill);
        Some(spill)
    }

    fn spill_len(&self, spill: &Spill<B>) -> u64 {
        spill.blocks.iter().map(|&(index, _)| u64::from(self.geometry.block(spill.piece, index).len)).sum()
    }

    /// Ends a spill: the blocks are on the disk with these checksums, or (`None`) could not be
    /// written. Returns the number of bytes written.
    pub fn spilled(&mut self, spill: Spill<B>, crcs: Option<&[u32]>) -> u64 {
        let (piece, len) = (spill.piece, self.spill_len(&spill));
        self.storing_len -= len;
        self.spilling.remove(&piece);
        let partial = self.partial.get_mut(&piece).filter(|partial| partial.attempt == spill.attempt);
        if let Some(partial) = partial {
            if crcs.is_none() {
                partial.held_since = Some(spill.since);
                partial.held_count += spill.blocks.len();
                self.held_count += spill.blocks.len();
            }
            for (at, (index, content)) in spill.blocks.into_iter().enumerate() {
                let crc = crcs.and_then(|crcs| crcs.get(at));
                let held = crc.map_or(Held::Memory(content), |&crc| Held::Disk(crc));
                partial.blocks.insert(index, held);
            }
        }
        self.look_at(piece);
        if crcs.is_some() { len } else { 0 }
    }

    /// A piece goes to the disk.
    pub fn storing(&mut self, piece: PieceIndex) {
        self.storing_len += u64::from(self.geometry.len_of(piece));
    }

    /// A piece came back from the disk; returns its length, bytes.
    pub fn stored(&mut self, piece: PieceIndex) -> u64 {
        let len = u64::from(self.geometry.len_of(piece));
        self.storing_len -= len;
        len
    }

    /// Whether any piece is on the disk threads.
    pub fn is_storing(&self) -> bool {
        self.storing_len > 0
    }

    /// Whether the disk keeps up; otherwise connections must not be read.
    pub fn has_room(&self) -> bool {
        self.storing_len < STORING_LEN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Instant = Instant::from_micros(1_000_000);

    fn keep(pieces: &mut PieceBuffers<u32>, at: Instant, piece: PieceIndex, indices: &[u32]) {
        for &index in indices {
            pieces.keep(at, pieces.geometry.block(piece, index), index);
        }
    }

    /// What each block of a whole piece is: its content, or 100 and more: the checksum of what is
    /// on the disk.
    fn taken(pieces: &mut PieceBuffers<u32>, piece: PieceIndex) -> Option<Vec<u32>> {
        let held = |held: &Held<u32>| match *held {
            Held::Memory(content) => content,
            Held::Disk(crc) => crc,
        };
        pieces.take(piece).map(|whole| whole.blocks.iter().map(held).collect())
    }

    /// Two pieces of four blocks, and a short one.
    fn pieces() -> PieceBuffers<u32> {
        PieceBuffers::new(Geometry::new(2 * 65_536 + 2 * 16_384 + 100, 65_536).unwrap())
    }

    #[test]
    fn blocks_come_back_in_order_and_an_incomplete_piece_does_not() {
        let mut pieces = pieces();
        keep(&mut pieces, T0, 2, &[2, 1, 0]);
        pieces.complete(2, true);
        let whole = pieces.take(2).unwrap();
        assert!(
            whole.block_hashes
                && matches!(whole.blocks[..], [Held::Memory(0), Held::Memory(1), Held::Memory(2)])
        );
        keep(&mut pieces, T0, 0, &[1]);
        assert!(pieces.take(0).is_none(), "it is not whole");
    }

    #[test]
    fn a_slow_disk_holds_the_sockets_back() {
        let mut pieces = PieceBuffers::<u32>::new(Geometry::new(1 << 30, 16 << 20).unwrap());
        pieces.storing(0);
        assert!(pieces.has_room());
        pieces.storing(1);
        assert!(!pieces.has_room());
        pieces.stored(0);
        assert!(pieces.has_room() && pieces.is_storing());
        keep(&mut pieces, T0, 2, &(0..1_024).collect::<Vec<_>>());
        let mut spills = pieces.spill_all();
        assert!(!pieces.has_room(), "a piece and the blocks of another");
        pieces.spilled(spills.remove(0), None);
        assert!(pieces.has_room());
    }

    #[test]
    fn the_blocks_of_a_piece_that_takes_long_go_to_the_disk_together() {
        let mut pieces = PieceBuffers::<u32>::new(Geometry::new(1 << 20, 1 << 19).unwrap());
        assert_eq!(pieces.spill_at(), None);
        keep(&mut pieces, T0, 0, &[3]);
        assert_eq!(pieces.spill_at(), Some(T0 + SPILL_FEW_AFTER), "one is not worth it yet");
        let later = T0 + SPILL_AFTER / 2;
        keep(&mut pieces, later, 0, &(16..31).collect::<Vec<_>>());
        keep(&mut pieces, later, 1, &[0]);
        assert_eq!(pieces.spill_at(), Some(T0 + SPILL_AFTER));
        assert!(pieces.spill_due(later).is_empty());
        let spill = pieces.spill_due(T0 + SPILL_AFTER).remove(0);
        let numbers: Vec<_> = spill.blocks.iter().map(|block| block.0).collect();
        assert!(spill.piece == 0 && numbers == [3].into_iter().chain(16..31).collect::<Vec<_>>());
        assert_eq!(pieces.spill_at(), Some(later + SPILL_FEW_AFTER), "the other piece");
        let meanwhile = T0 + SPILL_AFTER * 3 / 2;
        keep(&mut pieces, meanwhile, 0, &[0, 1, 2, 31]);
        assert_eq!(pieces.spill_at(), Some(later + SPILL_FEW_AFTER), "one spill at a time");
        keep(&mut pieces, meanwhile, 0, &(4..16).collect::<Vec<_>>());
        pieces.complete(0, false);
        assert_eq!(taken(&mut pieces, 0), None, "blocks are on their way");
        assert!(pieces.spill_all().iter().all(|spill| spill.piece == 1), "they go with the piece");
        let crcs: Vec<u32> = numbers.iter().map(|number| 100 + number).collect();
        assert_eq!(pieces.spilled(spill, Some(&crcs)), 16 * 16_384);
        let whole = taken(&mut pieces, 0).unwrap();
        let is_right = |at: u32| whole[at as usize] == at + if numbers.contains(&at) { 100 } else { 0 };
        assert!((0..32).all(is_right), "{whole:?}");
    }

    #[test]
    fn what_comes_while_others_are_on_their_way_has_its_own_time() {
        let mut pieces = pieces();
        keep(&mut pieces, T0, 0, &[0]);
        let spill = pieces.spill_due(T0 + SPILL_FEW_AFTER).remove(0);
        keep(&mut pieces, T0 + SPILL_FEW_AFTER, 0, &[1]);
        assert_eq!(pieces.spill_at(), None);
        pieces.spilled(spill, Some(&[100]));
        assert_eq!(pieces.spill_at(), Some(T0 + SPILL_FEW_AFTER * 2));
    }

    #[test]
    fn what_could_not_be_spilled_is_in_memory_again_and_due() {
        let mut pieces = pieces();
        keep(&mut pieces, T0, 0, &[0, 1]);
        let due_at = T0 + SPILL_FEW_AFTER;
        let spill = pieces.spill_due(due_at).remove(0);
        assert!(pieces.spill_due(due_at).is_empty());
        keep(&mut pieces, due_at, 0, &[2]);
        assert_eq!(pieces.spilled(spill, None), 0);
        let spill = pieces.spill_due(due_at).remove(0);
        assert_eq!(spill.blocks, [(0, 0), (1, 1), (2, 2)]);
    }

    #[test]
    fn blocks_of_an_abandoned_attempt_are_not_used_for_the_next() {
        let mut pieces = pieces();
        keep(&mut pieces, T0, 0, &[0, 1]);
        let spill = pieces.spill_all().remove(0);
        pieces.discard(0);
        keep(&mut pieces, T0, 0, &[1, 2, 3]);
        keep(&mut pieces, T0, 0, &[0]);
        pieces.complete(0, false);
        assert_eq!(taken(&mut pieces, 0), None, "the old ones may still be written");
        assert_eq!(pieces.spilled(spill, Some(&[100, 101])), 2 * 16_384);
        assert_eq!(taken(&mut pieces, 0), Some(vec![0, 1, 2, 3]));
    }

    #[test]
    fn beyond_the_limit_the_idlest_large_piece_is_spilled() {
        let mut pieces = PieceBuffers::<u32>::new(Geometry::new(1 << 30, 64 << 20).unwrap());
        let count = HELD_COUNT_MAX as u32 / 2;
        keep(&mut pieces, T0, 0, &[0]);
        keep(&mut pieces, T0 + SPILL_AFTER / 4, 2, &(0..count).collect::<Vec<_>>());
        keep(&mut pieces, T0 + SPILL_AFTER / 2, 1, &(0..count - 1).collect::<Vec<_>>());
        assert!(pieces.spill_idlest().is_none(), "there is room");
        keep(&mut pieces, T0 + SPILL_AFTER / 2, 1, &[count - 1, count]);
        assert_eq!(pieces.spill_idlest().unwrap().piece, 2);
        assert!(pieces.spill_idlest().is_none());
        keep(&mut pieces, T0 + SPILL_AFTER / 2, 2, &(count..2 * count).collect::<Vec<_>>());
        assert_eq!(pieces.spill_idlest().unwrap().piece, 1, "others of the second are on their way");
    }

    #[test]
    fn the_limit_holds_for_pieces_that_lack_one_block_each() {
        let mut pieces = PieceBuffers::<u32>::new(Geometry::new(1 << 30, 1 << 18).unwrap());
        let blocks: Vec<u32> = (0..15).collect();
        let mut spilled = Vec::new();
        for piece in 0..300 {
            keep(&mut pieces, T0 + Duration::from_millis(u64::from(piece)), piece, &blocks);
            spilled.extend(pieces.spill_idlest().map(|spill| spill.piece));
            assert!(pieces.held_count <= HELD_COUNT_MAX, "{piece}");
        }
        assert!(!spilled.is_empty() && spilled.is_sorted());
    }

    #[test]
    fn blocks_of_an_earlier_run_complete_a_piece() {
        let mut pieces = pieces();
        let blocks = vec![Spilled { index: 0, crc: 100 }, Spilled { index: 1, crc: 101 }];
        pieces.restore(T0, &PartialPiece { piece: 2, blocks });
        assert!(pieces.spill_at().is_none() && pieces.spill_all().is_empty());
        keep(&mut pieces, T0, 2, &[2]);
        pieces.complete(2, false);
        assert_eq!(taken(&mut pieces, 2), Some(vec![100, 101, 2]));
    }
}
