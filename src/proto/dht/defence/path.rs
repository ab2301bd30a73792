//! The disjoint paths of a lookup: which candidates are asked though others are closer.

use super::super::routing::K;

/// Of the far nodes that a lookup may begin at, so many are asked whether a crowd is seen or not.
const FAR_COUNT: usize = K / 2;

/// The path by which a lookup came to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto::dht) enum Path {
    /// Named by a candidate that is itself on no other path: asked only if it is among the closest.
    Greedy,
    /// One of the closest of our own table: always asked.
    Start,
    /// First hop: a node of our own table far from the target.
    FirstHop,
    /// First hop that is asked only where a crowd is seen.
    SpareFirstHop,
    /// Second hop: named by a first hop.
    SecondHop,
}

impl Path {
    /// Returns the path that begins at this place of the starts.
    pub(in crate::proto::dht) fn of_start(at: usize) -> Self {
        match at {
            _ if at < K => Self::Start,
            _ if at < K + FAR_COUNT => Self::FirstHop,
            _ => Self::SpareFirstHop,
        }
    }

    /// Returns the path of the nodes that such a candidate names.
    pub(in crate::proto::dht) fn of_named(self) -> Self {
        match self {
            Self::FirstHop | Self::SpareFirstHop => Self::SecondHop,
            Self::Greedy | Self::Start | Self::SecondHop => Self::Greedy,
        }
    }

    /// Returns whether a candidate on this path has to be asked by a lookup that guards against an
    /// eclipse, and by one that sees a crowd.
    pub(in crate::proto::dht) fn is_required(self, is_guarded: bool, is_crowded: bool) -> bool {
        match self {
            Self::Greedy => false,
            Self::Start => true,
            Self::FirstHop | Self::SecondHop => is_guarded,
            Self::SpareFirstHop => is_crowded,
        }
    }
}
