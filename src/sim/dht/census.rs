//! Looks into all routing tables at once, knowing who is really there.

use super::host::{Host, Mind};
use super::network::Network;
use super::report::{Spread, Tables};
use crate::proto::dht::node_id::{Node, NodeId};
use crate::proto::time::Instant;

/// What the nodes know at this moment.
pub(super) fn take(now: Instant, hosts: &[Host], network: &Network) -> Tables {
    let ids: Vec<Option<NodeId>> = hosts.iter().map(|host| id_of(now, host)).collect();
    let [mut nodes, mut good, mut estimates] = [const { Vec::new() }; 3];
    let mut kept = Kept::default();
    let mut read_only = 0;
    for node in hosts.iter().filter_map(Host::node) {
        let snapshot = node.snapshot(now);
        read_only += usize::from(snapshot.read_only);
        for overlay in &snapshot.overlays {
            nodes.push(overlay.nodes.0 as f64);
            good.push(overlay.nodes.1 as f64);
            estimates.push(overlay.size_estimate as f64);
        }
        node.good_nodes().iter().for_each(|node| kept.count(node, hosts, &ids, network));
    }
    let share = |count: usize| count as f64 / kept.all.max(1) as f64;
    Tables {
        read_only: read_only as f64 / nodes.len().max(1) as f64,
        nodes: Spread::of(nodes),
        good: Spread::of(good),
        size_estimate: Spread::of(estimates),
        dead: share(kept.dead),
        behind_nat: share(kept.behind_nat),
        hostile: share(kept.hostile),
    }
}

/// The id of the node there; None: none, or it means harm.
pub(super) fn id_of(now: Instant, host: &Host) -> Option<NodeId> {
    let snapshot = host.node()?.snapshot(now);
    snapshot.overlays.first().map(|overlay| overlay.id)
}

/// Entries of tables, counted.
#[derive(Debug, Default)]
struct Kept {
    all: usize,
    dead: usize,
    behind_nat: usize,
    hostile: usize,
}

impl Kept {
    fn count(&mut self, node: &Node, hosts: &[Host], ids: &[Option<NodeId>], network: &Network) {
        self.all += 1;
        let Some(host) = network.host_at(node.addr) else {
            self.dead += 1;
            return;
        };
        match hosts[host].mind {
            Mind::Absent => self.dead += 1,
            Mind::Hostile(_) => self.hostile += 1,
            Mind::Node(_) => {
                self.dead += usize::from(ids[host] != Some(node.id));
                self.behind_nat += usize::from(!network.is_reachable(host));
            }
        }
    }
}
