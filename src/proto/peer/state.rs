//! The four flags of BEP 3: who chokes whom, who wants something of whom.

use crate::proto::time::Instant;

/// Both sides' choking and interest; a connection starts choked and not interested on both sides.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// We do not serve them.
    pub am_choking: bool,
    /// We want something of theirs.
    pub am_interested: bool,
    /// They do not serve us.
    pub peer_choking: bool,
    /// They want something of ours.
    pub peer_interested: bool,
    /// They once wanted something of ours.
    pub peer_was_interested: bool,
    /// When either side was last interested, or the connection began.
    interested_at: Instant,
}

impl State {
    /// The start of a connection.
    pub fn new(now: Instant) -> Self {
        Self {
            am_choking: true,
            am_interested: false,
            peer_choking: true,
            peer_interested: false,
            peer_was_interested: false,
            interested_at: now,
        }
    }

    /// We got interested or lost interest; true if that is news to be told.
    pub fn set_am_interested(&mut self, interested: bool, now: Instant) -> bool {
        let changed = self.am_interested != interested;
        self.mark(now);
        self.am_interested = interested;
        changed
    }

    /// They said that they are interested, or not.
    pub fn set_peer_interested(&mut self, interested: bool, now: Instant) {
        self.mark(now);
        self.peer_interested = interested;
        self.peer_was_interested |= interested;
    }

    /// Since when neither side wants anything; None while one does.
    pub fn useless_since(&self) -> Option<Instant> {
        (!self.am_interested && !self.peer_interested).then_some(self.interested_at)
    }

    fn mark(&mut self, now: Instant) {
        if self.am_interested || self.peer_interested {
            self.interested_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn useless_counts_from_the_end_of_the_last_interest() {
        let at = Instant::from_micros;
        let mut state = State::new(at(1));
        assert_eq!(state.useless_since(), Some(at(1)));
        assert!(state.set_am_interested(true, at(2)) && !state.set_am_interested(true, at(3)));
        assert_eq!(state.useless_since(), None);
        state.set_peer_interested(true, at(4));
        assert!(state.set_am_interested(false, at(5)));
        assert_eq!(state.useless_since(), None);
        state.set_peer_interested(false, at(9));
        assert_eq!(state.useless_since(), Some(at(9)));
    }
}
