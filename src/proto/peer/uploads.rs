//! The peer's requests: a bounded queue, and a window of blocks that the shell holds.
//!
//! The queue has at most [`QUEUE_COUNT_MAX`] requests and [`QUEUE_LEN_MAX`] bytes, without
//! duplicates. The window is the data that the shell may hold unsent: enough that the socket is
//! never idle, at most about [`WINDOW_SPAN`] of the connection's rate, so that a choke or a cancel
//! takes effect soon.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::proto::bitfield::Bitfield;
use crate::proto::block::{BLOCK_LEN, Block};
use crate::proto::piece::PieceIndex;
use crate::proto::time::{Duration, Instant};

/// Most waiting requests; sent to peers as `reqq`. More are rejected, or ignored without BEP 6.
pub const QUEUE_COUNT_MAX: usize = 512;
/// Most waiting bytes; further requests are treated the same.
pub const QUEUE_LEN_MAX: u64 = 8 << 20;
/// Least window in bytes: 16 blocks keep a fast socket busy through one turn of the shell.
pub const WINDOW_LEN_MIN: u64 = 16 * BLOCK_LEN as u64;
/// Greatest window in bytes, to bound the memory of the shell.
pub const WINDOW_LEN_MAX: u64 = 4 << 20;
/// Time at the connection's rate that the window holds.
pub const WINDOW_SPAN: Duration = Duration::from_millis(500);
/// Blocks of an allowed-fast piece that are served while choked, as a multiple of the piece's
/// blocks; further requests are rejected like others while choked.
pub const ALLOWED_FAST_SERVED_MAX: u32 = 3;

/// Most requests refused between two blocks to a peer because another peer has the piece: a peer
/// may take a long series of rejects for a refusal of everything.
pub const REFUSED_RUN_MAX: usize = 32;
/// Most pieces remembered as refused; beyond it none is refused.
pub const REFUSED_PIECES_MAX: usize = 4_096;

/// Least time between telling a peer its queue limit and raising it: a peer that reconnects or
/// alternates its interest changes the limit of all.
pub const RAISE_PAUSE: Duration = Duration::from_secs(5);

/// Why a request was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is in the queue already.
    Duplicate,
    /// The queue is full.
    Full,
}

/// The requests of one peer.
#[derive(Debug, Default)]
pub struct Uploads {
    /// In order of arrival; may contain cancelled requests, which are not in `waiting`.
    queue: VecDeque<Block>,
    waiting: BTreeSet<Block>,
    waiting_len: u64,
    /// Bytes that the shell holds.
    in_hand_len: u64,
    window_len: u64,
    /// Pieces that the peer may request while choked, with the blocks served that way.
    allowed_fast: Vec<(PieceIndex, u32)>,
    /// Pieces whose requests were refused because another peer has them, with the number of
    /// refusals.
    refused: BTreeMap<PieceIndex, u32>,
    /// Such refusals since the last block.
    refused_run: usize,
    /// Since when other peers are served instead.
    passed_at: Option<Instant>,
    /// The queue limit that the peer was told; 0 if none.
    told_queue_max: u32,
    told_at: Option<Instant>,
}

impl Uploads {
    /// Queues a request.
    ///
    /// # Errors
    /// It is a duplicate, or the queue is full.
    pub fn push(&mut self, block: Block) -> Result<(), Refused> {
        if self.waiting.contains(&block) {
            return Err(Refused::Duplicate);
        }
        let len = u64::from(block.len);
        if self.waiting.len() >= QUEUE_COUNT_MAX || self.waiting_len + len > QUEUE_LEN_MAX {
            return Err(Refused::Full);
        }
        // Cancelled requests are removed lazily: the queue never exceeds twice its limit.
        if self.queue.len() >= 2 * QUEUE_COUNT_MAX {
            self.queue.retain(|queued| self.waiting.contains(queued));
        }
        self.waiting.insert(block);
        self.waiting_len += len;
        self.queue.push_back(block);
        Ok(())
    }

    /// Cancels a request; true if it was waiting.
    pub fn cancel(&mut self, block: Block) -> bool {
        let waited = self.waiting.remove(&block);
        if waited {
            self.waiting_len -= u64::from(block.len);
        }
        waited
    }

    /// Returns the length of the next block that may be passed to the shell now.
    pub fn next_len(&mut self) -> Option<u32> {
        while self.queue.front().is_some_and(|block| !self.waiting.contains(block)) {
            self.queue.pop_front();
        }
        let len = self.queue.front()?.len;
        let room = self.window_len.max(WINDOW_LEN_MIN);
        (self.in_hand_len == 0 || self.in_hand_len + u64::from(len) <= room).then_some(len)
    }

    /// Takes the next block; the shell holds it from now on.
    pub fn pop(&mut self) -> Option<Block> {
        self.next_len()?;
        let block = self.queue.pop_front()?;
        self.waiting.remove(&block);
        self.waiting_len -= u64::from(block.len);
        self.in_hand_len += u64::from(block.len);
        self.refused_run = 0;
        Some(block)
    }

    /// Returns the queue limit that the peer was told.
    pub fn told_queue_max(&self) -> u32 {
        self.told_queue_max
    }

    /// Sets the queue limit. Returns whether to tell the peer: if the limit has at least halved
    /// since it was told, or doubled and that was [`RAISE_PAUSE`] ago. Requests above the limit are
    /// not refused while the queue has room.
    pub fn tell_queue_max(&mut self, count: u32, now: Instant) -> bool {
        let may_raise = self.told_at.is_none_or(|at| now - at >= RAISE_PAUSE);
        let tells = count <= self.told_queue_max / 2 || may_raise && count / 2 >= self.told_queue_max;
        if tells {
            (self.told_queue_max, self.told_at) = (count, Some(now));
        }
        tells
    }

    /// Moves the first request that `wants` accepts to the front; `wants` gets the piece and the
    /// number of refused requests for it. Returns whether there is such a request and room for its
    /// block in the window.
    pub fn bring_forward(&mut self, wants: impl Fn(PieceIndex, u32) -> bool) -> bool {
        let (waiting, refused) = (&self.waiting, &self.refused);
        let mut last: Option<(PieceIndex, bool)> = None;
        let mut is_wanted = |piece: PieceIndex| match last {
            // Requests of one piece are consecutive.
            Some((asked, wanted)) if asked == piece => wanted,
            Some(_) | None => {
                let wanted = wants(piece, refused.get(&piece).copied().unwrap_or(0));
                last = Some((piece, wanted));
                wanted
            }
        };
        let at = self.queue.iter().position(|block| is_wanted(block.piece) && waiting.contains(block));
        let Some(block) = at.and_then(|at| self.queue.remove(at)) else { return false };
        self.queue.push_front(block);
        self.passed_at = None;
        self.next_len().is_some()
    }

    /// Returns how long the peer has been without a request that [`Uploads::bring_forward`]
    /// accepts.
    pub fn passed_for(&mut self, now: Instant) -> Duration {
        now - *self.passed_at.get_or_insert(now)
    }

    /// The peer is served nevertheless; the time starts again.
    pub fn serve_passed(&mut self, now: Instant) {
        self.passed_at = Some(now);
    }

    /// Whether to refuse another request for a piece because another peer has it: at most
    /// `count_max` for each piece, so that a peer which cannot get it elsewhere is served when it
    /// repeats its request, and at most [`REFUSED_RUN_MAX`] between two blocks.
    pub fn refuse(&mut self, piece: PieceIndex, count_max: u32) -> bool {
        if self.refused_run >= REFUSED_RUN_MAX || self.refused.len() >= REFUSED_PIECES_MAX {
            return false;
        }
        let count = self.refused.entry(piece).or_default();
        let may = *count < count_max;
        *count += u32::from(may);
        self.refused_run += usize::from(may);
        may
    }

    /// Returns the waiting requests for a piece.
    pub fn waiting_for(&self, piece: PieceIndex) -> Vec<Block> {
        let first = Block { piece, offset: 0, len: 0 };
        self.waiting.range(first..).take_while(|block| block.piece == piece).copied().collect()
    }

    /// Returns the waiting requests for these pieces.
    pub fn waiting_in(&self, pieces: &Bitfield) -> Vec<Block> {
        self.waiting.iter().filter(|block| pieces.get(block.piece)).copied().collect()
    }

    /// Forgets which pieces were refused.
    pub fn forget_refused(&mut self) {
        self.refused = BTreeMap::new();
    }

    /// The shell sent `len` bytes.
    pub fn handle_sent(&mut self, len: u64) {
        self.in_hand_len = self.in_hand_len.saturating_sub(len);
    }

    /// Adjusts the window to the rate, bytes per second.
    pub fn fit_window(&mut self, rate: u64) {
        let span = rate.saturating_mul(WINDOW_SPAN.as_millis() as u64) / 1_000;
        self.window_len = span.clamp(WINDOW_LEN_MIN, WINDOW_LEN_MAX);
    }

    /// Drops the requests for pieces that `keeps` does not accept; returns them in order.
    pub fn drop_waiting(&mut self, keeps: impl Fn(PieceIndex) -> bool) -> Vec<Block> {
        let mut dropped = Vec::new();
        let queue = std::mem::take(&mut self.queue);
        for block in queue.into_iter().filter(|block| self.waiting.contains(block)) {
            if keeps(block.piece) {
                self.queue.push_back(block);
            } else {
                dropped.push(block);
            }
        }
        for &block in &dropped {
            self.cancel(block);
        }
        dropped
    }

    /// Whether blocks wait for the uplink: in the queue, or in the shell.
    pub fn is_waiting(&self) -> bool {
        self.in_hand_len > 0 || !self.waiting.is_empty()
    }

    /// Allows these pieces while choked.
    pub fn allow_fast(&mut self, pieces: &[PieceIndex]) {
        self.allowed_fast = pieces.iter().map(|&piece| (piece, 0)).collect();
    }

    /// Returns the pieces that may be requested while choked.
    pub fn allowed_fast(&self) -> impl Iterator<Item = PieceIndex> {
        self.allowed_fast.iter().map(|&(piece, _)| piece)
    }

    /// Whether another block of an allowed-fast piece of `block_count` blocks may be served while
    /// choked.
    pub fn spend_allowed_fast(&mut self, piece: PieceIndex, block_count: u32) -> bool {
        let max = block_count.saturating_mul(ALLOWED_FAST_SERVED_MAX);
        let entry = self.allowed_fast.iter_mut().find(|(allowed, _)| *allowed == piece);
        entry.is_some_and(|(_, served)| {
            *served += 1;
            *served <= max
        })
    }

    /// Asserts that the counters agree with the queue.
    #[cfg(debug_assertions)]
    pub fn check_invariant(&self) {
        debug_assert!(self.waiting.len() <= QUEUE_COUNT_MAX && self.waiting_len <= QUEUE_LEN_MAX);
        debug_assert!(self.waiting.len() <= self.queue.len());
        debug_assert_eq!(self.waiting.is_empty(), self.waiting_len == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(at: u32) -> Block {
        Block { piece: at, offset: 0, len: BLOCK_LEN }
    }

    #[test]
    fn the_queue_is_bounded_and_without_duplicates() {
        let mut uploads = Uploads::default();
        assert_eq!(uploads.push(block(0)), Ok(()));
        assert_eq!(uploads.push(block(0)), Err(Refused::Duplicate));
        let queued = (1..2_000).filter(|&at| uploads.push(block(at)).is_ok()).count();
        assert_eq!(queued, QUEUE_COUNT_MAX - 1);
        for at in 0..5_000 {
            uploads.cancel(block(at));
            uploads.push(block(at + 600)).ok();
            assert!(uploads.queue.len() <= 2 * QUEUE_COUNT_MAX);
        }
    }

    #[test]
    fn the_window_bounds_the_bytes_in_the_shell() {
        let mut uploads = Uploads::default();
        for at in 0..100 {
            uploads.push(block(at)).unwrap();
        }
        uploads.cancel(block(0));
        let handed: Vec<_> = std::iter::from_fn(|| uploads.pop()).collect();
        assert_eq!(handed.len(), 16);
        assert_eq!(handed[0], block(1));
        uploads.handle_sent(2 * u64::from(BLOCK_LEN));
        assert_eq!(std::iter::from_fn(|| uploads.pop()).count(), 2);
        uploads.fit_window(1 << 30);
        assert!(std::iter::from_fn(|| uploads.pop()).count() > 60);
    }

    #[test]
    fn choking_keeps_only_allowed_fast_requests() {
        let mut uploads = Uploads::default();
        uploads.allow_fast(&[2]);
        for at in 0..4 {
            uploads.push(block(at)).unwrap();
        }
        uploads.cancel(block(0));
        assert_eq!(uploads.drop_waiting(|piece| piece == 2), [block(1), block(3)]);
        assert_eq!(uploads.pop(), Some(block(2)));
        assert!(uploads.is_waiting(), "the shell has it in hand");
        uploads.handle_sent(u64::from(block(2).len));
        assert!(!uploads.is_waiting());
        assert!((0..6).all(|_| uploads.spend_allowed_fast(2, 2)) && !uploads.spend_allowed_fast(2, 2));
        assert!(!uploads.spend_allowed_fast(3, 2));
    }
}
