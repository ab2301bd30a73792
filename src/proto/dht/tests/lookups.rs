//! What is announced or stored is found from elsewhere.

use bytes::Bytes;

use super::super::event::Announce;
use super::super::item::{ItemKey, SecretKey};
use super::*;
use crate::proto::infohash::InfoHash;

const INFOHASH: InfoHash = InfoHash([7; 20]);

fn announce(infohash: InfoHash, seed: bool) -> Request {
    Request::Peers { infohash, announce: Some(Announce { port: Some(51_413), seed }), scrape: false }
}

fn find(infohash: InfoHash) -> Request {
    Request::Peers { infohash, announce: None, scrape: false }
}

/// The peers that a request found.
fn peers(net: &Net, place: usize, id: RequestId) -> Vec<SocketAddr> {
    net.hosts[place].peers.get(&id).cloned().unwrap_or_default()
}

#[test]
fn a_local_network_boots_from_one_node_and_finds_an_announce_at_once() {
    let mut net = Net::local(1, 12);
    for place in 0..12 {
        assert!(net.table_len(place) >= 8, "node {place} knows {}", net.table_len(place));
        assert!(!net.hosts[place].dht.snapshot(net.now).read_only);
    }
    let (_, told) = net.request(3, announce(INFOHASH, true));
    assert!(told.stored == 8 && told.refused.is_none(), "{told:?}");
    assert!(told.took < 20 * MILLI, "{told:?}");
    let (id, outcome) = net.request(9, find(INFOHASH));
    assert_eq!(peers(&net, 9, id), [SocketAddr::new(net.addr(3).ip(), 51_413)], "each peer once");
    assert!(net.hosts[9].local.contains(&id), "a local node may name local peers");
    assert!(outcome.took < 20 * MILLI && outcome.hops == 1 && outcome.answered >= 8, "{outcome:?}");
    assert!(outcome.closest.is_sorted_by_key(|node| node.id.distance(INFOHASH.into())));
}

#[test]
fn a_node_that_is_only_just_starting_finds_peers_within_a_second() {
    let mut net = Net::local(2, 12);
    net.request(3, announce(INFOHASH, true));
    let new = net.add(&[addr([10, 0, 1, 1])]);
    let id = net.start(new, find(INFOHASH));
    assert_eq!(net.hosts[new].bootstraps.len(), 1, "it asks for names at once");
    net.run(300 * MILLI);
    net.hint(new, net.addr(0));
    net.run(50 * MILLI);
    assert_eq!(peers(&net, new, id).len(), 1);
}

#[test]
fn eighty_public_nodes_find_an_announced_peer() {
    let mut net = Net::global(3, 80);
    net.run(MINUTE);
    for number in 0..20 {
        let infohash = InfoHash([number * 12; 20]);
        let (_, told) = net.request(usize::from(number), announce(infohash, false));
        assert!(told.stored >= 8, "{told:?}");
        let (id, outcome) = net.request(79 - usize::from(number), find(infohash));
        let place = 79 - usize::from(number);
        assert_eq!(peers(&net, place, id).len(), 1, "{outcome:?}");
        // What we keep ourselves (no step away) counts as local.
        assert_eq!(net.hosts[place].local.contains(&id), outcome.hops == 0, "{outcome:?}");
    }
    let fits = |place: &usize| net.id(*place).fits(net.addr(*place).ip());
    assert_eq!((0..80).filter(fits).count(), 80, "ids follow addresses");
}

#[test]
fn both_families_are_searched_and_learnt_from_one_another() {
    let mut net = Net::new(4);
    for last in 1..=12 {
        let v6 = SocketAddr::new(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]), 6881);
        net.add(&[addr([10, 0, 0, last as u8]), v6]);
    }
    // Hints are of IPv4 alone; only the first two know of each other's IPv6 address.
    (1..12).for_each(|place| net.hint(place, addr([10, 0, 0, 1])));
    let v6 = net.hosts[1].addrs[1];
    net.hint(0, v6);
    net.run(30 * SECOND);
    let (_, told) = net.request(3, announce(INFOHASH, false));
    assert_eq!(told.stored, 16, "{told:?}");
    let (id, _) = net.request(9, find(INFOHASH));
    let families = |is_v6| peers(&net, 9, id).iter().filter(|peer| peer.is_ipv6() == is_v6).count();
    assert_eq!((families(false), families(true)), (1, 1));
}

#[test]
fn a_family_without_anybody_holds_nothing_up() {
    let mut net = Net::local(5, 12);
    let v6 = SocketAddr::new(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]), 6881);
    let both = net.add(&[addr([10, 0, 1, 1]), v6]);
    net.hint(both, net.addr(0));
    let (_, early) = net.request(both, find(INFOHASH));
    assert!(early.took < 4 * SECOND, "{early:?}");
    net.run(MINUTE);
    let (_, late) = net.request(both, find(INFOHASH));
    assert!(late.took < 20 * MILLI && late.answered >= 8, "{late:?}");
    let asks_for_both = |datagram: &&Datagram| datagram.bytes.windows(11).any(|part| part == b"4:wantl2:n4");
    net.run(MINUTE);
    net.start(both, find(InfoHash([9; 20])));
    assert_eq!(net.flying.values().filter(asks_for_both).count(), 0, "not in every query for ever");
    net.run(8 * MINUTE + SECOND);
    net.start(both, find(InfoHash([9; 20])));
    assert!(net.flying.values().filter(asks_for_both).count() > 0, "but now and then");
}

#[test]
fn swarms_are_estimated_from_all_filters() {
    let mut net = Net::local(6, 20);
    for place in 0..10 {
        net.request(place, announce(INFOHASH, place < 3));
    }
    let scrape = Request::Peers { infohash: INFOHASH, announce: None, scrape: true };
    let (_, outcome) = net.request(15, scrape);
    assert_eq!(outcome.scrape, Some((3, 7)));
}

#[test]
fn an_immutable_item_is_found_by_its_hash_and_told_once() {
    let mut net = Net::local(7, 16);
    let item = Item::immutable(Bytes::from_static(b"12:Hello World!")).unwrap();
    let (_, told) = net.request(2, Request::Put { item: item.clone(), cas: None });
    assert_eq!(told.stored, 8, "{told:?}");
    let (id, outcome) = net.request(11, Request::Get(item.key()));
    assert_eq!(net.hosts[11].items[&id], [item]);
    assert!(outcome.asked <= 4, "the first good one ends it: {outcome:?}");
    let unknown = ItemKey::Immutable(NodeId([1; 20]));
    let (id, outcome) = net.request(11, Request::Get(unknown));
    assert!(!net.hosts[11].items.contains_key(&id) && outcome.answered >= 8);
}

#[test]
fn of_a_mutable_item_the_newest_wins_and_older_ones_are_refused() {
    let mut net = Net::local(8, 16);
    let secret = SecretKey::from_bytes([3; 32]);
    let version =
        |seq: i64| secret.sign(Bytes::from_static(b"salt"), seq, format!("i{seq}e").into()).unwrap();
    let put = |seq, cas| Request::Put { item: version(seq), cas };
    let (_, first) = net.request(2, put(5, None));
    assert_eq!(first.stored, 8, "{first:?}");
    let (_, older) = net.request(3, put(4, None));
    assert_eq!(older.stored, 0);
    assert!(older.refused.is_some_and(|why| why.starts_with("302")));
    let (_, cas) = net.request(3, put(6, Some(4)));
    assert!(cas.stored == 0 && cas.refused.is_some_and(|why| why.starts_with("301")));
    let (_, newer) = net.request(3, put(6, Some(5)));
    assert_eq!(newer.stored, 8);
    let (id, _) = net.request(11, Request::Get(version(6).key()));
    assert_eq!(net.hosts[11].items[&id].last(), Some(&version(6)));
}

#[test]
fn the_nodes_closest_to_an_id_are_found() {
    let mut net = Net::local(9, 30);
    net.run(MINUTE);
    let target = NodeId([0x5a; 20]);
    let (_, outcome) = net.request(4, Request::Nodes(target));
    let mut ids: Vec<NodeId> = (0..30).filter(|&place| place != 4).map(|place| net.id(place)).collect();
    ids.sort_by_key(|id| id.distance(target));
    let found: Vec<NodeId> = outcome.closest.iter().map(|node| node.id).take(8).collect();
    assert_eq!(found, ids[..8]);
}

#[test]
fn more_requests_than_may_run_wait_and_all_end() {
    let mut net = Net::local(10, 12);
    let ids: Vec<RequestId> = (0..200).map(|number| net.start(5, find(InfoHash([number; 20])))).collect();
    net.run(10 * SECOND);
    assert!(ids.iter().all(|id| net.hosts[5].done.contains_key(id)));
    // Two thousand answers in a moment are more than the others' budgets allow.
    let found = net.hosts[5].done.values().filter(|outcome| outcome.answered > 0).count();
    assert!(found >= 150, "{found} of 200 got answers");
}

#[test]
fn a_torrent_that_lacks_pieces_does_not_wait_behind_many_that_lack_none() {
    let mut net = Net::local(10, 12);
    (0..100).for_each(|number| {
        net.start(5, announce(InfoHash([number; 20]), true));
    });
    let (id, _) = net.request(5, find(InfoHash([200; 20])));
    let before = net.hosts[5].done.keys().filter(|&&other| other < id).count();
    assert!(before <= 2 * super::super::request_queue::ACTIVE_MAX, "{before} were looked up before");
    net.run(MINUTE);
    assert_eq!(net.hosts[5].done.len(), 101, "seeds are announced too");
}

#[test]
fn a_cancelled_request_is_silent_and_lets_the_next_one_start() {
    let mut net = Net::local(11, 12);
    let ids: Vec<RequestId> = (0..17).map(|number| net.start(5, find(InfoHash([number; 20])))).collect();
    ids[..16].iter().for_each(|&id| net.hosts[5].dht.handle_cancel(id));
    net.run(5 * SECOND);
    assert_eq!(net.hosts[5].done.keys().copied().collect::<Vec<_>>(), ids[16..]);
}

#[test]
fn without_anybody_a_request_ends_with_nothing_in_the_time_given() {
    let mut net = Net::new(12);
    let alone = net.add(&[addr([10, 0, 0, 1])]);
    let (_, outcome) = net.request(alone, find(INFOHASH));
    assert_eq!((outcome.asked, outcome.stored, outcome.took), (0, 0, 20 * SECOND));
}

#[test]
fn a_request_that_a_short_outage_met_goes_on_when_it_is_over() {
    let mut net = Net::local(15, 12);
    net.run(MINUTE);
    (0..12).filter(|&place| place != 5).for_each(|place| net.hosts[place].dead = true);
    let id = net.start(5, find(INFOHASH));
    net.run(4 * SECOND);
    (0..12).for_each(|place| net.hosts[place].dead = false);
    net.run(4 * SECOND);
    let outcome = net.hosts[5].done.get(&id);
    assert!(outcome.is_some_and(|outcome| outcome.answered >= 8), "{outcome:?}");
}

#[test]
fn two_nodes_find_each_other() {
    let mut net = Net::local(13, 2);
    net.request(1, announce(INFOHASH, true));
    let (id, outcome) = net.request(0, find(INFOHASH));
    assert_eq!(peers(&net, 0, id), [SocketAddr::new(net.addr(1).ip(), 51_413)], "kept by the seeker itself");
    assert_eq!(outcome.hops, 0);
    let item = Item::immutable(Bytes::from_static(b"1:a")).unwrap();
    net.request(1, Request::Put { item: item.clone(), cas: None });
    let (id, outcome) = net.request(0, Request::Get(item.key()));
    assert_eq!((net.hosts[0].items[&id].clone(), outcome.asked), (vec![item], 0));
}

#[test]
fn a_bootstrap_node_is_asked_once_and_a_request_goes_on_with_those_it_named() {
    let mut net = Net::local(14, 12);
    net.request(3, announce(INFOHASH, false));
    let new = net.add(&[addr([10, 0, 1, 1])]);
    let id = net.start(new, find(INFOHASH));
    net.hint(new, net.addr(0));
    net.run(2 * MILLI);
    net.hosts[0].dead = true;
    net.run(20 * MILLI);
    assert_eq!(peers(&net, new, id).len(), 1);
}
