//! Machines that talk to each other.

use std::collections::BTreeSet;

use super::swarm::{PLAIN, Swarm, addr};
use crate::proto::piece::Geometry;
use crate::proto::time::Duration;
use crate::proto::torrent::event::{Command, DisconnectReason, Event, Output, StorageFault};
use crate::proto::wire::message::Message;

const MINUTE: Duration = Duration::from_secs(60);

/// 40 pieces of four blocks, the last one odd.
fn geometry() -> Geometry {
    Geometry::new(39 * 65_536 + 20_000, 65_536).unwrap()
}

#[test]
fn two_machines_complete_a_download_and_part() {
    let mut swarm = Swarm::new(geometry());
    let (seed, leech) = (swarm.add_seed(), swarm.add_leech());
    swarm.introduce(leech, seed);
    assert!(swarm.run(MINUTE, |swarm| swarm.is_complete(leech)));
    let now = swarm.now;
    let snapshot = swarm.nodes[leech].torrent.snapshot(now);
    assert_eq!((snapshot.left, snapshot.wasted), (0, 0));
    assert_eq!(snapshot.downloaded, geometry().total_len());
    swarm.run(MINUTE, |_| false);
    for node in &swarm.nodes {
        assert!(node.torrent.snapshot(swarm.now).peers.is_empty());
        assert!(node.events.iter().any(|(_, event)| {
            matches!(event, Event::PeerDisconnected(_, Some(DisconnectReason::BothComplete) | None))
        }));
    }
    let completed = swarm.nodes[leech].events.iter().filter(|(_, event)| *event == Event::Completed);
    assert_eq!(completed.count(), 1);
}
