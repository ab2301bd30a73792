//! The ids of a node, kept across restarts, so that the routing tables of other nodes stay valid,
//! and the node stays close to the items that it stores.

use super::Dht;
use super::node_id::NodeId;
use crate::proto::time::Instant;

impl Dht {
    /// Sets the ids of the last run ([`Dht::ids`]), IPv4 first. Called before any other input. An
    /// id that does not fit the address is replaced as soon as the address is known (BEP 42).
    pub fn handle_ids(&mut self, now: Instant, ids: [Option<NodeId>; 2]) {
        for (is_v6, id) in [false, true].into_iter().zip(ids) {
            if let Some((overlay, id)) = self.overlays.of_mut(is_v6).zip(id) {
                overlay.resume(now, id);
            }
        }
    }

    /// Returns the ids of this node, IPv4 first; `None` for an overlay that it does not join.
    pub fn ids(&self) -> [Option<NodeId>; 2] {
        [false, true].map(|is_v6| self.overlays.of(is_v6).map(|overlay| overlay.table.own()))
    }
}
