//! The four flags of BEP 3: choking and interest on both sides.

use crate::proto::time::Instant;

/// Both sides' choking and interest; a connection starts choked and not interested on both sides.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// This end does not serve the peer.
    pub am_choking: bool,
    /// This end wants pieces of the peer.
    pub am_interested: bool,
    /// The peer does not serve this end.
    pub peer_choking: bool,
    /// The peer wants pieces of this end.
    pub peer_interested: bool,
    /// Whether the peer was ever interested.
    pub peer_was_interested: bool,
    /// When either side was last interested, or the connection began.
    interested_at: Instant,
}

impl State {
    /// Returns the state of a new connection.
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

    /// Sets our interest; returns true if it changed and must be sent.
    pub fn set_am_interested(&mut self, interested: bool, now: Instant) -> bool {
        let changed = self.am_interested != interested;
        self.mark(now);
        self.am_interested = interested;
        changed
    }

    /// Sets the peer's interest.
    pub fn set_peer_interested(&mut self, interested: bool, now: Instant) {
        self.mark(now);
        self.peer_interested = interested;
        self.peer_was_interested |= interested;
    }

    /// Returns since when neither side is interested; `None` while one is.
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
