//! What is done with the disk, and when: whole pieces are stored, what is stored is made durable, what failed is tried
//! again while a disk is full or fails, and the content is complete once all of it is durable.
//!
//! It decides and does nothing itself: its owner does what [`Persistence::poll_output`] says, on other threads, and
//! tells how each of it ended. No piece is dropped because a disk is full: it waits with its blocks. Blocks of a piece
//! that takes long go to the disk before it is whole. The disk is well
//! again when all that failed has succeeded, however often something else succeeds meanwhile.

use std::collections::VecDeque;

use super::durability::Durability;
use super::fault::StorageFault;
use super::pieces::{PartialPiece, PieceBuffers, Spill, WholePiece};
use crate::proto::block::Block;
use crate::proto::piece::{Geometry, PieceIndex};
use crate::proto::time::{Duration, Instant};

/// How often a full or failing disk is tried again: who made room is not to wait for us, and one write a second
/// costs nothing.
pub const STORAGE_RETRY: Duration = Duration::from_secs(1);

/// How old blocks are taken for that were written before their piece was whole: those that waited for long, being few, are
/// not worth a commit of their own at once.
const SPILLED_AGE_MAX: Duration = Duration::from_secs(1);

/// How far the content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Wanted pieces are missing.
    Missing,
    /// Every wanted piece is there; empty files and durability are under way, or wait for the disk.
    Finishing,
    /// All is there and durable, since then.
    Finished(Instant),
}

/// What is to be done.
#[derive(Debug)]
pub enum Output<B> {
    /// A piece is to be hashed and written: [`Persistence::handle_stored`], [`Persistence::handle_false`] or
    /// [`Persistence::handle_not_stored`].
    Store(WholePiece<B>),
    /// Blocks of a piece that is not whole are to be written: [`Persistence::handle_spilled`] or
    /// [`Persistence::handle_not_spilled`].
    Spill(Spill<B>),
    /// What was written is to be made durable: [`Persistence::handle_committed`].
    Commit,
    /// The files are to be looked at, made whole and durable: [`Persistence::handle_finished`].
    Finish,
    /// The disk does not take data, or takes it again. Told each time that it was tried: room changes.
    Storage(Option<StorageFault>),
    /// All is there and durable.
    Completed,
}

/// The storage of one torrent. `B` is a block's buffer.
#[derive(Debug)]
pub struct Persistence<B> {
    pieces: PieceBuffers<B>,
    durability: Durability,
    completion: Completion,
    /// A finish is under way.
    is_finishing: bool,
    /// What the finish under way looked at is not what there is any more.
    is_finish_stale: bool,
    /// What failed when it was last tried.
    has_failed: Failed,
    /// Pieces that found no room.
    parked: Vec<WholePiece<B>>,
    fault: Option<StorageFault>,
    retry_at: Option<Instant>,
    outputs: VecDeque<Output<B>>,
}

/// Kinds of what can fail, but for whole pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Failed {
    spill: bool,
    commit: bool,
    finish: bool,
}

impl<B> Persistence<B> {
    /// Of content that lacks pieces.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            pieces: PieceBuffers::new(geometry),
            durability: Durability::default(),
            completion: Completion::Missing,
            is_finishing: false,
            is_finish_stale: false,
            has_failed: Failed::default(),
            parked: Vec::new(),
            fault: None,
            retry_at: None,
            outputs: VecDeque::new(),
        }
    }

    /// How far the content is.
    pub fn completion(&self) -> Completion {
        self.completion
    }

    /// Keeps a block for its piece.
    pub fn keep(&mut self, now: Instant, block: Block, content: B) {
        self.pieces.keep(now, block, content);
        if !self.has_failed.spill {
            let spill = self.pieces.spill_idlest();
            self.outputs.extend(spill.map(Output::Spill));
        }
    }

    /// Blocks of an earlier run are on the disk.
    pub fn restore(&mut self, now: Instant, partial: &PartialPiece) {
        self.pieces.restore(now, partial);
    }

    /// The torrent ends: what is there of all pieces goes to the disk, if it takes any. To be called until nothing
    /// follows.
    pub fn spill_all(&mut self) {
        if !self.has_failed.spill {
            self.outputs.extend(self.pieces.spill_all().into_iter().map(Output::Spill));
        }
    }

    /// The blocks of a piece are not needed any more.
    pub fn discard(&mut self, piece: PieceIndex) {
        self.pieces.discard(piece);
    }

    /// Whether the disk keeps up: else connections are not to be read.
    pub fn has_room(&self) -> bool {
        self.pieces.has_room()
    }

    /// Whether a piece, blocks of one, or a commit is at the disk.
    pub fn is_busy(&self) -> bool {
        self.pieces.is_storing() || self.durability.is_running()
    }

    /// A piece is whole: it is to be stored. False: one of its blocks is missing.
    #[must_use]
    pub fn store(&mut self, piece: PieceIndex, block_hashes: bool) -> bool {
        let is_whole = self.pieces.complete(piece, block_hashes);
        self.store_if_ready(piece);
        is_whole
    }

    fn store_if_ready(&mut self, piece: PieceIndex) {
        if let Some(whole) = self.pieces.take(piece) {
            self.send(whole);
        }
    }

    fn send(&mut self, whole: WholePiece<B>) {
        self.pieces.storing(whole.piece);
        self.outputs.push_back(Output::Store(whole));
    }

    /// A piece was good, and is written.
    pub fn handle_stored(&mut self, now: Instant, piece: PieceIndex) {
        let len = self.pieces.stored(piece);
        self.durability.written(now, len, Duration::ZERO);
        self.commit(now);
        self.recover();
    }

    /// Blocks are on the disk, with these checksums.
    pub fn handle_spilled(&mut self, now: Instant, spill: Spill<B>, crcs: &[u32]) {
        let (piece, age) = (spill.piece, (now - spill.since()).min(SPILLED_AGE_MAX));
        let len = self.pieces.spilled(spill, Some(crcs));
        self.durability.written(now, len, age);
        self.has_failed.spill = false;
        self.store_if_ready(piece);
        self.commit(now);
        self.recover();
    }

    /// Blocks could not be written.
    pub fn handle_not_spilled(&mut self, now: Instant, spill: Spill<B>, fault: StorageFault) {
        let piece = spill.piece;
        self.pieces.spilled(spill, None);
        self.has_failed.spill = true;
        self.store_if_ready(piece);
        self.fail(now, fault);
    }

    /// A piece was false, or what was on the disk of it is not there any more; it is not written.
    pub fn handle_false(&mut self, piece: PieceIndex) {
        self.pieces.stored(piece);
    }

    /// A piece could not be written.
    pub fn handle_not_stored(&mut self, now: Instant, whole: WholePiece<B>, fault: StorageFault) {
        self.pieces.stored(whole.piece);
        self.parked.push(whole);
        self.fail(now, fault);
    }

    /// A commit has ended. Pieces that the disk did not keep are told to [`Persistence::handle_lost`] besides.
    pub fn handle_committed(&mut self, now: Instant, result: Result<(), StorageFault>) {
        self.durability.end(now, result.is_ok());
        self.has_failed.commit = result.is_err();
        match result {
            Ok(()) => self.recover(),
            Err(fault) => self.fail(now, fault),
        }
    }

    /// A finish has ended. Pieces that were not there any more are told to [`Persistence::handle_lost`] before.
    pub fn handle_finished(&mut self, now: Instant, result: Result<(), StorageFault>) {
        self.is_finishing = false;
        self.has_failed.finish = result.is_err() && self.completion == Completion::Finishing;
        let is_stale = std::mem::take(&mut self.is_finish_stale);
        match result {
            Ok(()) => self.recover(),
            Err(fault) => return self.fail(now, fault),
        }
        if self.completion == Completion::Finishing {
            if is_stale { self.finish() } else { self.complete_at(now) }
        }
    }

    /// A block could not be read to be sent.
    pub fn handle_read_failed(&mut self, now: Instant, fault: StorageFault) {
        self.fail(now, fault);
    }

    /// Pieces turned out to be lost. Whether they are to be fetched again: what was complete is left as whoever
    /// changed it wants it.
    pub fn handle_lost(&mut self) -> bool {
        self.is_finish_stale = self.is_finishing;
        if self.completion == Completion::Finishing {
            self.completion = Completion::Missing;
            self.has_failed.finish = false;
        }
        self.completion == Completion::Missing
    }

    /// Every wanted piece is there: the content is made whole and durable, once.
    pub fn complete(&mut self) {
        if self.completion == Completion::Missing {
            self.completion = Completion::Finishing;
            self.finish();
        }
    }

    /// The content is complete, by the word of somebody else: nothing is looked at, and nothing written.
    pub fn assume_complete(&mut self, now: Instant) {
        self.complete_at(now);
    }

    /// Timers: tries again what failed, and makes durable what is old enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            for whole in std::mem::take(&mut self.parked) {
                self.send(whole);
            }
            if self.has_failed.finish {
                self.finish();
            }
            self.has_failed.spill = false;
            self.spill(now);
            // A read failed, or what failed has succeeded since.
            if !self.pieces.is_storing() {
                self.recover();
            }
        }
        if self.spill_at().is_some_and(|at| at <= now) {
            self.spill(now);
        }
        self.commit(now);
    }

    /// When [`Persistence::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.retry_at, self.spill_at(), self.durability.due_at()].into_iter().flatten().min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output<B>> {
        self.outputs.pop_front()
    }

    /// What could not be spilled is tried again with all else that failed.
    fn spill_at(&self) -> Option<Instant> {
        self.pieces.spill_at().filter(|_| !self.has_failed.spill)
    }

    fn spill(&mut self, now: Instant) {
        self.outputs.extend(self.pieces.spill_due(now).into_iter().map(Output::Spill));
    }

    fn commit(&mut self, now: Instant) {
        if self.durability.begin(now) {
            self.outputs.push_back(Output::Commit);
        }
    }

    fn finish(&mut self) {
        if !self.is_finishing {
            self.is_finishing = true;
            self.outputs.push_back(Output::Finish);
        }
    }

    fn complete_at(&mut self, now: Instant) {
        self.completion = Completion::Finished(now);
        self.outputs.push_back(Output::Completed);
    }

    fn fail(&mut self, now: Instant, fault: StorageFault) {
        self.retry_at = Some(now + STORAGE_RETRY);
        self.fault = Some(fault.clone());
        self.outputs.push_back(Output::Storage(Some(fault)));
    }

    /// Something succeeded; if nothing else is still failing, the disk is well again.
    fn recover(&mut self) {
        let is_failing = !self.parked.is_empty() || self.has_failed != Failed::default();
        if !is_failing && self.retry_at.is_none() && self.fault.take().is_some() {
            self.outputs.push_back(Output::Storage(None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::pieces::Held;

    const PIECE_LEN: u32 = 65_536;

    /// Of content of ten pieces.
    fn persistence() -> Persistence<u8> {
        Persistence::new(Geometry::new(10 * u64::from(PIECE_LEN), PIECE_LEN).unwrap())
    }

    /// A whole piece comes; it is to be stored.
    fn whole(persistence: &mut Persistence<u8>, piece: PieceIndex) -> WholePiece<u8> {
        let geometry = Geometry::new(10 * u64::from(PIECE_LEN), PIECE_LEN).unwrap();
        for index in 0..geometry.block_count(piece) {
            persistence.keep(at(0), geometry.block(piece, index), index as u8);
        }
        assert!(persistence.store(piece, false));
        match persistence.poll_output() {
            Some(Output::Store(whole)) => whole,
            other => panic!("{other:?}"),
        }
    }

    /// All that is to be done, in words.
    fn outputs(persistence: &mut Persistence<u8>) -> Vec<String> {
        std::iter::from_fn(|| persistence.poll_output())
            .map(|output| match output {
                Output::Store(whole) => format!("store {} of {}", whole.piece, whole.blocks.len()),
                Output::Spill(spill) => format!("spill {} of {}", spill.blocks.len(), spill.piece),
                Output::Commit => "commit".to_owned(),
                Output::Finish => "finish".to_owned(),
                Output::Storage(fault) => if fault.is_some() { "fault" } else { "well" }.to_owned(),
                Output::Completed => "completed".to_owned(),
            })
            .collect()
    }

    fn full() -> StorageFault {
        StorageFault::Full { place: "here".to_owned(), missing_len: None }
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_full_disk_is_tried_again_with_the_same_piece_until_it_has_room() {
        let mut persistence = persistence();
        let mut piece = whole(&mut persistence, 3);
        for second in 0..3 {
            persistence.handle_not_stored(at(second * 1_000), piece, full());
            assert_eq!(outputs(&mut persistence), ["fault"]);
            persistence.handle_timeout(at(second * 1_000 + 999));
            assert_eq!(outputs(&mut persistence), [""; 0]);
            assert_eq!(persistence.poll_timeout(), Some(at(second * 1_000 + 1_000)));
            persistence.handle_timeout(at(second * 1_000 + 1_000));
            piece = match persistence.poll_output() {
                Some(Output::Store(whole)) => whole,
                other => panic!("{other:?}"),
            };
            let blocks = [0, 1, 2, 3].map(Held::Memory);
            assert!(piece.piece == 3 && piece.blocks == blocks && persistence.is_busy());
        }
        persistence.handle_stored(at(3_100), 3);
        assert_eq!(outputs(&mut persistence), ["well"]);
    }

    #[test]
    fn a_disk_that_takes_bytes_and_makes_none_durable_is_not_well() {
        let mut persistence = persistence();
        let _ = whole(&mut persistence, 0);
        persistence.handle_stored(at(0), 0);
        persistence.handle_timeout(at(2_000));
        assert_eq!(outputs(&mut persistence), ["commit"]);
        persistence.handle_committed(at(2_000), Err(full()));
        assert_eq!(outputs(&mut persistence), ["fault"]);
        let _ = whole(&mut persistence, 1);
        persistence.handle_timeout(at(3_000));
        persistence.handle_stored(at(3_100), 1);
        assert_eq!(outputs(&mut persistence), [""; 0], "what was written before is still not durable");
        persistence.handle_timeout(at(4_000));
        assert_eq!(outputs(&mut persistence), ["commit"]);
        persistence.handle_committed(at(4_000), Ok(()));
        assert_eq!(outputs(&mut persistence), ["well"]);
    }

    /// Of content of ten pieces of 32 blocks.
    fn slow() -> Persistence<u8> {
        Persistence::new(slow_geometry())
    }

    fn slow_geometry() -> Geometry {
        Geometry::new(10 << 19, 1 << 19).unwrap()
    }

    /// Blocks come.
    fn keep(
        persistence: &mut Persistence<u8>,
        millis: u64,
        piece: PieceIndex,
        indices: std::ops::Range<u32>,
    ) {
        for index in indices {
            persistence.keep(at(millis), slow_geometry().block(piece, index), index as u8);
        }
    }

    fn spill(persistence: &mut Persistence<u8>) -> Spill<u8> {
        match persistence.poll_output() {
            Some(Output::Spill(spill)) => spill,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn blocks_are_on_the_disk_after_a_second_and_durable_after_two_though_their_piece_is_not_whole() {
        let mut persistence = slow();
        keep(&mut persistence, 0, 3, 0..1);
        keep(&mut persistence, 900, 3, 1..20);
        assert_eq!(persistence.poll_timeout(), Some(at(1_000)));
        persistence.handle_timeout(at(1_000));
        let spill = spill(&mut persistence);
        assert!(persistence.is_busy() && spill.blocks.len() == 20);
        persistence.handle_spilled(at(1_100), spill, &[7; 20]);
        assert_eq!(persistence.poll_timeout(), Some(at(2_100)));
        persistence.handle_timeout(at(2_100));
        assert_eq!(outputs(&mut persistence), ["commit"]);
        keep(&mut persistence, 2_200, 3, 20..32);
        assert!(persistence.store(3, false));
        let Some(Output::Store(whole)) = persistence.poll_output() else { panic!("it is whole") };
        let is_right = |(at, held): (usize, &Held<u8>)| match *held {
            Held::Disk(crc) => at < 20 && crc == 7,
            Held::Memory(content) => at >= 20 && usize::from(content) == at,
        };
        assert!(whole.blocks.len() == 32 && whole.blocks.iter().enumerate().all(is_right));
    }

    #[test]
    fn blocks_that_find_no_room_are_tried_again_and_go_with_their_piece_when_it_is_whole() {
        let mut persistence = slow();
        keep(&mut persistence, 0, 3, 0..16);
        keep(&mut persistence, 0, 4, 0..16);
        persistence.handle_timeout(at(1_000));
        let (third, fourth) = (spill(&mut persistence), spill(&mut persistence));
        keep(&mut persistence, 1_050, 4, 16..32);
        assert!(persistence.store(4, false));
        assert_eq!(outputs(&mut persistence), [""; 0], "blocks of it are at the disk");
        persistence.handle_not_spilled(at(1_100), third, full());
        persistence.handle_not_spilled(at(1_100), fourth, full());
        assert_eq!(outputs(&mut persistence), ["fault", "store 4 of 32", "fault"]);
        assert_eq!(persistence.poll_timeout(), Some(at(2_100)), "not before");
        persistence.handle_stored(at(1_200), 4);
        assert_eq!(outputs(&mut persistence), [""; 0], "some are still waiting");
        persistence.handle_timeout(at(2_100));
        let third = spill(&mut persistence);
        persistence.handle_spilled(at(2_200), third, &[7; 16]);
        assert_eq!(outputs(&mut persistence), ["well"]);
        assert_eq!(persistence.poll_timeout(), Some(at(3_200)), "old ones are durable with the next commit");
    }

    #[test]
    fn an_end_takes_every_block_to_the_disk() {
        let mut persistence = slow();
        keep(&mut persistence, 0, 3, 0..1);
        keep(&mut persistence, 0, 5, 1..2);
        persistence.spill_all();
        keep(&mut persistence, 0, 3, 2..4);
        let (third, fifth) = (spill(&mut persistence), spill(&mut persistence));
        persistence.spill_all();
        assert_eq!(outputs(&mut persistence), [""; 0], "one after the other");
        persistence.handle_spilled(at(0), third, &[7]);
        persistence.handle_not_spilled(at(0), fifth, full());
        assert_eq!(outputs(&mut persistence), ["fault"]);
        persistence.spill_all();
        assert!(!persistence.is_busy(), "who leaves does not wait for a disk that takes nothing");
    }

    #[test]
    fn a_read_that_failed_is_forgotten_a_moment_later() {
        let mut persistence = persistence();
        persistence.handle_read_failed(at(0), StorageFault::Failed("broken".to_owned()));
        persistence.handle_timeout(at(1_000));
        assert_eq!(outputs(&mut persistence), ["fault", "well"]);
    }

    #[test]
    fn complete_is_what_is_durable_and_a_finish_that_fails_is_tried_again_alone() {
        let mut persistence = persistence();
        persistence.complete();
        persistence.complete();
        assert_eq!(outputs(&mut persistence), ["finish"], "once");
        persistence.handle_read_failed(at(0), full());
        persistence.handle_timeout(at(1_000));
        assert_eq!(outputs(&mut persistence), ["fault", "well"], "one is under way");
        persistence.handle_finished(at(1_500), Err(full()));
        persistence.handle_timeout(at(2_500));
        assert_eq!(outputs(&mut persistence), ["fault", "finish"]);
        persistence.handle_finished(at(2_600), Ok(()));
        assert_eq!(outputs(&mut persistence), ["well", "completed"]);
        assert_eq!(persistence.completion(), Completion::Finished(at(2_600)));
        assert!(!persistence.handle_lost(), "what was complete is left alone");
        assert_eq!(persistence.completion(), Completion::Finished(at(2_600)));
    }

    #[test]
    fn a_piece_lost_while_finishing_is_fetched_again_and_what_was_looked_at_before_does_not_count() {
        let mut persistence = persistence();
        persistence.complete();
        assert_eq!(outputs(&mut persistence), ["finish"]);
        assert!(persistence.handle_lost(), "it is to be fetched again");
        assert_eq!(persistence.completion(), Completion::Missing);
        let _ = whole(&mut persistence, 4);
        persistence.handle_stored(at(100), 4);
        persistence.complete();
        assert_eq!(outputs(&mut persistence), [""; 0], "the first one is still under way");
        persistence.handle_finished(at(200), Ok(()));
        assert_eq!(outputs(&mut persistence), ["finish"], "that one did not see the last piece");
        persistence.handle_finished(at(300), Ok(()));
        assert_eq!(outputs(&mut persistence), ["completed"]);
    }

    #[test]
    fn a_finish_that_fails_after_a_piece_was_lost_is_not_tried_again_before_all_is_there() {
        let mut persistence = persistence();
        persistence.complete();
        assert!(persistence.handle_lost());
        persistence.handle_finished(at(0), Err(full()));
        persistence.handle_timeout(at(1_000));
        assert_eq!(outputs(&mut persistence), ["finish", "fault", "well"]);
    }
}
