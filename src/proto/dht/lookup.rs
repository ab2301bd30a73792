//! One iterative lookup: from the nodes that we know to those closest to a target, alpha queries at a time.
//!
//! Candidates are ordered by distance, those whose id fits their address (BEP 42) first where others crowd the
//! target; one of a /24 or /64 (local addresses are exempt). It ends when the k closest that it knows of have
//! answered and nobody closer is being asked. It sends nothing itself and knows no transactions.

use std::net::SocketAddr;

use super::node_id::{Node, NodeId};

/// Queries under way at once.
pub const ALPHA: usize = 4;

/// The lookup.
#[derive(Debug)]
pub struct Lookup {
    _private: (),
}

/// A node that answered, and the token that it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The node.
    pub node: Node,
    /// To store something there; empty: it gave none.
    pub token: Vec<u8>,
    /// Steps from our own table.
    pub hops: u32,
}

impl Lookup {
    /// Begins at these nodes. `size_estimate` of the overlay tells how close the closest should be: those that
    /// are closer than chance allows are suspects, and more than k nodes are then looked for.
    pub fn new(target: NodeId, starts: &[Node], size_estimate: u64) -> Self {
        let _ = (target, starts, size_estimate);
        todo!()
    }

    /// The target.
    pub fn target(&self) -> NodeId {
        todo!()
    }

    /// Whom to ask now; None: nobody before an answer or a failure.
    pub fn next_query(&mut self) -> Option<Node> {
        todo!()
    }

    /// A node that was asked answered.
    pub fn answered(
        &mut self,
        from: SocketAddr,
        id: NodeId,
        nodes: impl Iterator<Item = Node>,
        token: Option<&[u8]>,
    ) {
        let _ = (from, id, token);
        nodes.for_each(drop);
        todo!()
    }

    /// A node that was asked is late: another one may be asked meanwhile; its answer still counts.
    pub fn slow(&mut self, from: SocketAddr) {
        let _ = from;
        todo!()
    }

    /// A node that was asked did not answer.
    pub fn failed(&mut self, from: SocketAddr) {
        let _ = from;
        todo!()
    }

    /// Whether there is nothing left to ask or to wait for.
    pub fn is_done(&self) -> bool {
        todo!()
    }

    /// Where to store: the closest that answered, closest first; k of them, more where suspects crowd the target.
    pub fn closest(&self) -> Vec<Found> {
        todo!()
    }

    /// Steps from our own table to the node at this address.
    pub fn hops(&self, from: SocketAddr) -> u32 {
        let _ = from;
        todo!()
    }

    /// Nodes asked and nodes that answered.
    pub fn counts(&self) -> (u32, u32) {
        todo!()
    }
}
