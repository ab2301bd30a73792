//! A node that a lookup knows of: who says that it exists, whether it has to be asked, and what
//! came of it.

use crate::proto::dht::defence::path::Path;
use crate::proto::dht::defence::prefix::Prefix;
use crate::proto::dht::defence::source::Source;
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
    pub(super) path: Path,
    pub(super) source: Source,
    pub(super) state: State,
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
