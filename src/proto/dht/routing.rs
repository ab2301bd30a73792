//! The routing table of one overlay (BEP 5): nodes by how much of their id they share with ours.
//!
//! A node enters only by an answer to a query of ours; one node an address, one a /24 or /64 in a bucket (local
//! addresses are exempt). Of two nodes that compete for a place the one whose id fits its address (BEP 42) wins,
//! then the one that has been there longer. Who fails is replaced from the bucket's replacement cache.

use std::net::SocketAddr;

use super::node_id::{Node, NodeId};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// Nodes in a bucket, and in an answer (BEP 5).
pub const K: usize = 8;

/// The table.
#[derive(Debug)]
pub struct Table {
    _private: (),
}

/// What the table wants of the machine, to stay good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Upkeep {
    /// Nothing was heard of it for long, or it is to be tried as a replacement: ask it something.
    Ping(Node),
    /// A part of the key space was not looked at for long: look up this target.
    Refresh(NodeId),
}

impl Table {
    /// Empty.
    pub fn new(own: NodeId, rng: Rng, now: Instant) -> Self {
        let _ = (own, rng, now);
        todo!()
    }

    /// Our id here.
    pub fn own(&self) -> NodeId {
        todo!()
    }

    /// A node answered a query of ours. An id that changes evicts the node.
    pub fn answered(&mut self, now: Instant, node: Node, round_trip: Duration) {
        let _ = (now, node, round_trip);
        todo!()
    }

    /// A query of ours to this address went unanswered.
    pub fn failed(&mut self, now: Instant, addr: SocketAddr) {
        let _ = (now, addr);
        todo!()
    }

    /// A node queried us: a known one lives; whether an unknown one is worth a ping of ours.
    pub fn queried(&mut self, now: Instant, node: Node) -> bool {
        let _ = (now, node);
        todo!()
    }

    /// The known nodes closest to a target, good ones first among equals, at most `count`, closest first.
    pub fn closest(&self, target: NodeId, count: usize) -> Vec<Node> {
        let _ = (target, count);
        todo!()
    }

    /// Our id is another one from now on; the nodes are sorted anew.
    pub fn rename(&mut self, now: Instant, own: NodeId) {
        let _ = (now, own);
        todo!()
    }

    /// What is due. None: nothing before [`Table::upkeep_at`].
    pub fn upkeep(&mut self, now: Instant) -> Option<Upkeep> {
        let _ = now;
        todo!()
    }

    /// When [`Table::upkeep`] has something.
    pub fn upkeep_at(&self) -> Option<Instant> {
        todo!()
    }

    /// Good nodes: answered lately.
    pub fn good(&self) -> impl Iterator<Item = Node> {
        todo!() as std::iter::Empty<Node>
    }

    /// Nodes.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nodes in the whole overlay, estimated from the density around our own id.
    pub fn size_estimate(&self) -> u64 {
        todo!()
    }
}
