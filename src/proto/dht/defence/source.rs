//! What the word of one network is worth that names nodes.

use super::prefix::Prefix;

/// Queries under way to nodes that one network alone named, while there are others to ask.
const ASKED_COUNT_MAX: usize = super::super::lookup::ALPHA / 2;
/// So many dead nodes, and no living one, among those that one network alone named discredit it.
const DEAD_COUNT_MAX: usize = 2;

/// Where a lookup has a candidate from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto::dht) enum Source {
    /// Our own table, or several networks.
    Trusted,
    /// One network alone.
    Only(Prefix),
}

/// What became of the candidates that one network alone named.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proto::dht) struct Record {
    /// Those that were asked and are not late.
    pub(in crate::proto::dht) asked: usize,
    /// Those that did not answer.
    pub(in crate::proto::dht) dead: usize,
    /// Those that answered.
    pub(in crate::proto::dht) alive: usize,
}

impl Record {
    /// Returns whether another one may be asked before candidates of other sources.
    pub(in crate::proto::dht) fn may_precede(self) -> bool {
        self.asked < ASKED_COUNT_MAX && (self.dead == 0 || self.alive > 0)
    }

    /// Returns whether no more of them are to be asked.
    pub(in crate::proto::dht) fn is_discredited(self) -> bool {
        self.dead >= DEAD_COUNT_MAX && self.alive == 0
    }
}
