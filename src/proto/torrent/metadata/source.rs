//! A peer that says that it has the info dictionary: what it is asked for, and how it answers.
//!
//! Who rejects or does not answer has a rest; what was asked of it is asked elsewhere, and may
//! still come.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::proto::time::{Duration, Instant};

/// Pieces asked of one peer at once, before it is known how fast it answers.
const ASKS_FIRST: usize = 4;
/// Most pieces asked of one peer at once, 160 KiB: libtorrent answers what would be more only a
/// second later.
const ASKS_MAX: usize = 10;
/// An answer that came so soon allows one more at once.
const PROMPT_WITHIN: Duration = Duration::from_secs(1);
/// One that took longer halves them, so that a slow link is not asked for more than it carries in
/// [`ASK_TIMEOUT`].
const SLOW_AFTER: Duration = Duration::from_secs(4);
/// An answer that takes longer is not waited for: the piece is asked elsewhere.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Pieces of one peer that may still come after that; the oldest is forgotten.
const LATE_MAX: usize = 64;
/// Rest of a peer that rejected or did not answer; doubles with each time in a row up to
/// [`REST_MAX`].
const REST: Duration = Duration::from_secs(5);
/// Longest such rest.
const REST_MAX: Duration = Duration::from_secs(20);

/// What an answer is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Asked for.
    Awaited,
    /// Given up before.
    Late,
    /// Never asked for.
    Unasked,
}

/// The peer.
#[derive(Debug)]
pub(crate) struct MetadataSource {
    pub(crate) addr: SocketAddr,
    /// Bytes of the dictionary, as it says.
    pub(crate) total_len: u32,
    /// How often a copy of its own stalled.
    pub(crate) stall_count: u32,
    /// When it sent the last piece that we had asked for.
    pub(crate) gave_at: Option<Instant>,
    /// Pieces asked for, and when.
    asks: Vec<(u32, Instant)>,
    /// Most of them at once.
    asks_max: usize,
    /// When it was asked last.
    asked_at: Option<Instant>,
    /// Pieces that are not waited for any more.
    late: VecDeque<u32>,
    /// Rejects and silences in a row.
    setback_count: u32,
    rest_until: Instant,
}

impl MetadataSource {
    /// Nothing asked yet.
    pub(crate) fn new(now: Instant, addr: SocketAddr, total_len: u32) -> Self {
        Self {
            addr,
            total_len,
            stall_count: 0,
            gave_at: None,
            asks: Vec::new(),
            asks_max: ASKS_FIRST,
            asked_at: None,
            late: VecDeque::new(),
            setback_count: 0,
            rest_until: now,
        }
    }

    /// Lower is asked earlier: who was not asked yet, or longest ago, of those who failed us least.
    pub(crate) fn turn(&self) -> (u32, Option<Instant>) {
        (self.setback_count, self.asked_at)
    }

    /// Whether it may be asked for one piece more.
    pub(crate) fn has_room(&self, now: Instant) -> bool {
        self.rest_until <= now && self.asks.len() < self.asks_max
    }

    /// The pieces that it is asked for.
    pub(crate) fn asked(&self) -> Vec<u32> {
        self.asks.iter().map(|&(piece, _)| piece).collect()
    }

    /// It is asked for a piece.
    pub(crate) fn ask(&mut self, now: Instant, piece: u32) {
        self.asks.push((piece, now));
        self.asked_at = Some(now);
    }

    /// It sent a piece.
    pub(crate) fn gave(&mut self, now: Instant, piece: u32) -> Answer {
        let asked_at = self.asks.iter().find(|&&(asked, _)| asked == piece).map(|&(_, at)| at);
        self.asks_max = match asked_at.map(|at| now - at) {
            Some(latency) if latency <= PROMPT_WITHIN => ASKS_MAX.min(self.asks_max + 1),
            Some(latency) if latency >= SLOW_AFTER => (self.asks_max / 2).max(1),
            Some(_) | None => self.asks_max,
        };
        let answer = self.take(piece);
        if answer != Answer::Unasked {
            self.setback_count = 0;
            self.rest_until = now;
            self.gave_at = Some(now);
        }
        answer
    }

    /// It will not send a piece.
    pub(crate) fn refused(&mut self, now: Instant, piece: u32) -> Answer {
        let answer = self.take(piece);
        if answer != Answer::Unasked {
            self.set_back(now);
        }
        answer
    }

    /// Gives up what it does not answer in time: those pieces.
    pub(crate) fn time_out(&mut self, now: Instant) -> Vec<u32> {
        let is_over = |&mut (_, at): &mut (u32, Instant)| now - at >= ASK_TIMEOUT;
        let over: Vec<u32> = self.asks.extract_if(.., is_over).map(|(piece, _)| piece).collect();
        if !over.is_empty() {
            self.asks_max = 1;
            self.set_back(now);
        }
        over.iter().for_each(|&piece| self.give_up(piece));
        over
    }

    /// Gives up all that it is asked for.
    pub(crate) fn give_up_all(&mut self) {
        let asks = std::mem::take(&mut self.asks);
        asks.into_iter().for_each(|(piece, _)| self.give_up(piece));
    }

    fn give_up(&mut self, piece: u32) {
        if self.late.len() == LATE_MAX {
            self.late.pop_front();
        }
        self.late.push_back(piece);
    }

    fn set_back(&mut self, now: Instant) {
        let rest = REST * (1 << self.setback_count.min(8));
        self.setback_count += 1;
        self.rest_until = now + rest.min(REST_MAX);
    }

    fn take(&mut self, piece: u32) -> Answer {
        if let Some(at) = self.asks.iter().position(|&(asked, _)| asked == piece) {
            self.asks.swap_remove(at);
            return Answer::Awaited;
        }
        let late = self.late.iter().position(|&late| late == piece);
        late.and_then(|at| self.late.remove(at)).map_or(Answer::Unasked, |_| Answer::Late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_soon_is_asked_for_more_at_once_and_who_is_slow_for_less() {
        let mut now = Instant::ZERO;
        let mut source = MetadataSource::new(now, "80.0.0.1:1".parse().unwrap(), 1_000_000);
        let mut round = |latency| {
            while source.has_room(now) {
                source.ask(now, source.asks.len() as u32);
            }
            now += latency;
            let asked = source.asked();
            asked.iter().for_each(|&piece| assert_eq!(source.gave(now, piece), Answer::Awaited));
            asked.len()
        };
        let (soon, late) = (Duration::from_millis(100), Duration::from_secs(5));
        assert_eq!([soon, soon, soon, late, late, soon].map(&mut round), [4, 8, 10, 10, 1, 1]);
    }

    #[test]
    fn silence_and_rejects_bring_a_rest_that_a_piece_ends() {
        let mut now = Instant::ZERO;
        let mut source = MetadataSource::new(now, "80.0.0.1:1".parse().unwrap(), 100_000);
        (0..4).for_each(|piece| source.ask(now, piece));
        assert!(!source.has_room(now), "enough at once");
        assert_eq!((source.refused(now, 3), source.refused(now, 3)), (Answer::Awaited, Answer::Unasked));
        assert!(!source.has_room(now) && source.has_room(now + REST));
        now += ASK_TIMEOUT;
        assert_eq!(source.time_out(now), [0, 1, 2]);
        assert!(!source.has_room(now + REST), "longer than the first time");
        assert_eq!((source.gave(now, 1), source.gave(now, 1)), (Answer::Late, Answer::Unasked));
        assert!(source.has_room(now) && source.time_out(now).is_empty());
        for _ in 0..2 * LATE_MAX as u32 {
            source.ask(now, 9);
            source.give_up_all();
        }
        assert_eq!((source.late.len(), source.asked().len()), (LATE_MAX, 0));
    }
}
