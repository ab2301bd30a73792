//! A node that a lookup knows of: who says that it exists, whether it has to be asked, and what came of it.

use crate::proto::dht::defence::prefix::Prefix;
use crate::proto::dht::node_id::Node;

/// A node, and how it stands with it.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) node: Node,
    pub(super) prefix: Prefix,
    /// Its id fits its address (BEP 42).
    pub(super) fits: bool,
    /// Steps from our own table.
    pub(super) hops: u32,
    pub(super) duty: Duty,
    pub(super) namer: Namer,
    pub(super) state: State,
}

/// Who says that a candidate exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Namer {
    /// Our own table, or several who have nothing to do with each other.
    Trusted,
    /// One neighbourhood.
    Alone(Prefix),
}

/// Whether a candidate is asked even if others are closer, so that those who crowd the target do not hide everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// It is not.
    None,
    /// It is: one of the closest of our own table.
    Start,
    /// It is if the lookup is wary: named by one that is far from the target.
    Scout,
    /// It is if the lookup is wary: so far from the target that nobody would want to be there. Whom it names are scouts.
    Chief,
    /// A chief that is asked only if a crowd is seen.
    Reserve,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum State {
    Fresh,
    Asked,
    /// Asked, and late: holds no slot.
    Slow,
    /// With its token.
    Answered(Box<[u8]>),
    Failed,
}

impl Duty {
    /// Of those whom such a candidate names.
    pub(super) fn of_named(self) -> Self {
        match self {
            Self::Chief | Self::Reserve => Self::Scout,
            Self::None | Self::Start | Self::Scout => Self::None,
        }
    }
}
