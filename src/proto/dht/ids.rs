//! The ids of a node, kept from one start to the next, so that the routing tables of other nodes
//! stay right, and so that the node stays close to the items that were stored at it.

use super::Dht;
use super::node_id::NodeId;
use crate::proto::time::Instant;

impl Dht {
    /// Takes the ids of the last time ([`Dht::ids`]), IPv4 first. To be called before anything
    /// else; an id that does not fit the address gives way to one that does as soon as the address
    /// is known (BEP 42).
    pub fn handle_ids(&mut self, now: Instant, ids: [Option<NodeId>; 2]) {
        for (is_v6, id) in [false, true].into_iter().zip(ids) {
            if let Some((overlay, id)) = self.overlays.of_mut(is_v6).zip(id) {
                overlay.resume(now, id);
            }
        }
    }

    /// The ids of this node, IPv4 first; None: it takes no part in that overlay.
    pub fn ids(&self) -> [Option<NodeId>; 2] {
        [false, true].map(|is_v6| self.overlays.of(is_v6).map(|overlay| overlay.table.own()))
    }
}
