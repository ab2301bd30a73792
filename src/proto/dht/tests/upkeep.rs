//! Starting, resting, and coming back.

use super::super::event::Announce;
use super::super::saved::SAVED_COUNT_MAX;
use super::*;
use crate::proto::infohash::InfoHash;

fn announce(infohash: InfoHash) -> Request {
    Request::Peers { infohash, announce: Some(Announce { port: None, seed: false }), scrape: false }
}

#[test]
fn bootstrap_names_are_looked_up_again_with_growing_pauses() {
    let mut net = Net::new(1);
    let me = net.add(&[addr([10, 0, 0, 1])]);
    net.run(60 * MINUTE);
    let asked = &net.hosts[me].bootstraps;
    let pauses: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(asked[0] <= Instant::ZERO + SECOND, "at once");
    assert!((8..20).contains(&asked.len()), "{pauses:?}");
    assert!(pauses.is_sorted() && pauses.last() == Some(&(10 * MINUTE)), "{pauses:?}");
}

#[test]
fn saved_nodes_are_tried_first_and_the_names_only_if_they_are_silent() {
    let mut net = Net::local(2, 30);
    net.run(5 * MINUTE);
    let saved = net.hosts[4].dht.good_nodes();
    assert!(saved.len() >= 20, "{} nodes", saved.len());
    let new = net.add(&[addr([10, 0, 1, 1])]);
    net.hosts[new].dht.handle_saved(net.now, &saved);
    net.drain(new);
    net.run(3 * SECOND);
    assert!(net.hosts[new].bootstraps.is_empty());
    assert!(net.table_len(new) >= 20, "{} nodes", net.table_len(new));
    let gone: Vec<Node> =
        (0..=255).map(|last| Node { id: NodeId([last; 20]), addr: addr([10, 9, 9, last]) }).collect();
    let new = net.add(&[addr([10, 0, 1, 2])]);
    net.hosts[new].dht.handle_saved(net.now, &gone);
    net.drain(new);
    let started_at = net.now;
    net.strays.clear();
    net.run(3 * SECOND);
    assert_eq!(net.hosts[new].bootstraps, [started_at + 2 * SECOND]);
    assert!(net.strays.len() <= 8 * 4, "some at a time, not {}", net.strays.len());
}

#[test]
fn a_node_keeps_its_id_as_long_as_it_fits_its_address() {
    let mut net = Net::global(5, 12);
    net.run(MINUTE);
    let known = net.hosts[0].addrs[0];
    let mut start = |at: SocketAddr, ids| {
        let place = net.add(&[at]);
        net.hosts[place].dht.handle_ids(net.now, ids);
        net.hint(place, known);
        net.run(2 * MINUTE);
        net.hosts[place].dead = true;
        net.hosts[place].dht.ids()
    };
    let (home, away) = (addr([99, 1, 2, 3]), addr([98, 7, 8, 9]));
    let first = start(home, [None; 2]);
    let id = first[0].expect("it takes part in IPv4");
    assert!(id.fits(home.ip()) && first[1].is_none());
    assert_eq!(start(home, first), first, "the same address, the same id");
    let moved = start(away, [first[0], Some(NodeId([9; 20]))]);
    assert!(moved[0].is_some_and(|id| id.fits(away.ip())), "another address, another id");
    assert_eq!(start(addr([10, 1, 2, 3]), first), first, "a local address fits any");
}

#[test]
fn good_nodes_fit_the_place_kept_for_them() {
    let mut net = Net::global(3, 80);
    net.run(10 * MINUTE);
    let good = net.hosts[7].dht.good_nodes();
    assert!(good.len() >= 40 && good.len() <= SAVED_COUNT_MAX, "{}", good.len());
}

#[test]
fn a_node_at_rest_costs_less_than_200_bytes_a_second_each_way() {
    let mut net = Net::global(4, 60);
    net.run(20 * MINUTE);
    let before: Vec<_> = net.hosts.iter().map(|host| host.dht.snapshot(net.now)).collect();
    net.run(20 * MINUTE);
    for (host, before) in net.hosts.iter().zip(before) {
        let after = host.dht.snapshot(net.now);
        let sent = (after.sent.1 - before.sent.1) / 1_200;
        let received = (after.received.1 - before.received.1) / 1_200;
        assert!(sent < 200 && received < 200, "{sent} bytes/s sent, {received} received");
    }
}

#[test]
fn an_unreachable_node_is_read_only_and_a_reachable_one_is_not() {
    let mut net = Net::new(5);
    for place in 0..40 {
        let public = net.public_addr();
        net.add(&[public]);
        net.hosts[place].translated = place % 2 == 0 && place > 0;
    }
    net.meet();
    net.run(25 * MINUTE);
    let read_only = |net: &Net, place: usize| net.hosts[place].dht.snapshot(net.now).read_only;
    let open = (0..40).filter(|place| place % 2 == 1 && !read_only(&net, *place)).count();
    assert!(open >= 18, "{open} of 20 reachable nodes know it");
    let closed = (0..40).filter(|&place| net.hosts[place].translated && read_only(&net, place)).count();
    assert!(closed >= 15, "{closed} of 19 translated nodes know it");
}

#[test]
fn an_address_that_changes_gives_another_id_and_nothing_is_lost() {
    let mut net = Net::global(6, 30);
    net.run(11 * MINUTE);
    let infohash = InfoHash([9; 20]);
    net.request(3, announce(infohash));
    let (before, known) = (net.id(5), net.table_len(5));
    let stored = net.hosts[5].dht.snapshot(net.now).stored_peers;
    let moved = net.public_addr();
    net.hosts[5].addrs[0].set_ip(moved.ip());
    net.run(30 * MINUTE);
    let after = net.hosts[5].dht.snapshot(net.now);
    assert_eq!(net.hosts[5].externals.last(), Some(&net.addr(5)));
    assert!(net.id(5) != before && net.id(5).fits(moved.ip()));
    assert!(after.overlays[0].nodes.0 * 2 >= known, "the nodes are sorted anew, not forgotten");
    net.request(3, announce(infohash));
    assert!(stored.0 <= 1, "{stored:?}");
}

#[test]
fn announced_peers_expire_without_another_announce() {
    let mut net = Net::local(7, 8);
    net.request(3, announce(InfoHash([9; 20])));
    let kept = |net: &Net| {
        let stored = net.hosts.iter().map(|host| host.dht.snapshot(net.now).stored_peers);
        stored.filter(|&stored| stored == (1, 1)).count()
    };
    assert_eq!(kept(&net), 7);
    net.run(46 * MINUTE);
    assert_eq!(kept(&net), 0);
}

#[test]
fn a_network_that_fell_apart_for_an_hour_is_one_again_within_minutes() {
    let mut net = Net::global(8, 60);
    net.run(10 * MINUTE);
    net.divided = true;
    net.run(60 * MINUTE);
    net.divided = false;
    net.run(20 * MINUTE);
    let mut found = 0;
    for number in 0..30_u8 {
        let infohash = InfoHash([number * 8; 20]);
        net.request(2 * usize::from(number), announce(infohash));
        let seeker = (2 * usize::from(number) + 31) % 60;
        let find = Request::Peers { infohash, announce: None, scrape: false };
        let (id, _) = net.request(seeker, find);
        found += usize::from(net.hosts[seeker].peers.contains_key(&id));
    }
    assert!(found >= 29, "{found} of 30 found across what was a gap");
}

#[test]
fn a_node_rejoins_by_itself_after_an_outage() {
    let mut net = Net::local(9, 12);
    net.run(5 * MINUTE);
    net.hosts[5].translated = true;
    net.hosts[5].sent_to.clear();
    let reachable = std::mem::take(&mut net.hosts[5].addrs);
    net.hosts[5].addrs = vec![addr([10, 0, 7, 7])];
    (0..12).filter(|&place| place != 5).for_each(|place| net.hosts[place].dead = true);
    net.run(30 * MINUTE);
    assert!(net.hosts[5].bootstraps.len() > 1);
    assert!(net.hosts[5].dht.good_nodes().len() >= 8, "who ends now still knows where to begin again");
    net.hosts[5].addrs = reachable;
    (0..12).for_each(|place| net.hosts[place].dead = false);
    let find = Request::Peers { infohash: InfoHash([1; 20]), announce: None, scrape: false };
    let (_, outcome) = net.request(5, find);
    assert!(outcome.answered >= 8 && outcome.took < 10 * SECOND, "{outcome:?}");
}

#[test]
fn after_half_of_all_nodes_restart_everything_is_found_within_minutes() {
    let mut net = Net::global(10, 60);
    net.run(10 * MINUTE);
    for place in 0..30 {
        let saved = net.hosts[place].dht.good_nodes();
        let addrs = net.hosts[place].addrs.clone();
        net.hosts[place].dead = true;
        let new = net.add(&addrs);
        net.hosts[new].dht.handle_saved(net.now, &saved);
        net.drain(new);
    }
    let before: Vec<_> = net.hosts.iter().map(|host| host.dht.snapshot(net.now)).collect();
    net.run(MINUTE);
    for (host, before) in net.hosts.iter().zip(before).filter(|(host, _)| !host.dead) {
        let after = host.dht.snapshot(net.now);
        let rate = (after.sent.1 - before.sent.1) / 60;
        assert!(rate < 2_000, "{rate} bytes/s, more than ten times what is allowed at rest");
        assert!(host.bootstraps.len() <= 1, "{:?}", host.bootstraps);
    }
    for number in 0..20_u8 {
        let infohash = InfoHash([number * 12; 20]);
        net.request(30 + usize::from(number), announce(infohash));
        let find = Request::Peers { infohash, announce: None, scrape: false };
        let (id, outcome) = net.request(89 - usize::from(number), find);
        assert!(net.hosts[89 - usize::from(number)].peers.contains_key(&id), "{outcome:?}");
    }
}
