//! A candidate of a lookup: a node, its path and source, and the state of its query.

use crate::proto::dht::defence::path::Path;
use crate::proto::dht::defence::prefix::Prefix;
use crate::proto::dht::defence::source::Source;
use crate::proto::dht::node_id::Node;

/// A candidate.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) node: Node,
    pub(super) prefix: Prefix,
    /// Whether its id fits its address (BEP 42).
    pub(super) fits: bool,
    /// Steps from our own table.
    pub(super) hops: u32,
    pub(super) path: Path,
    pub(super) source: Source,
    pub(super) state: State,
}

/// The state of its query.
#[derive(Debug)]
pub(super) enum State {
    Fresh,
    Asked,
    /// Queried and late: it holds no slot.
    Slow,
    /// Answered, with its token.
    Answered(Box<[u8]>),
    Failed,
}
