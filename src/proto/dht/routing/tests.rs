//! Tables by single steps, and their cost at rest.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::entries::NEIGHBOUR_COUNT;
use super::*;

const RTT: Duration = Duration::from_millis(50);

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn empty(rng: &mut Rng) -> Table {
    Table::new(NodeId::random(rng), Defence::ALL, rng.fork("table"), Instant::ZERO)
}

fn local(port: u16, id: NodeId) -> Node {
    Node { id, addr: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port) }
}

/// Somewhere in the world, one of a /24, with an id that fits.
fn public(rng: &mut Rng) -> Node {
    let ip = IpAddr::from([11 + rng.below(80) as u8, rng.below(256) as u8, rng.below(256) as u8, 1]);
    Node { id: NodeId::for_ip(ip, rng), addr: SocketAddr::new(ip, 6881) }
}

/// A public node that shares exactly `bits` with our id, and fits or not.
fn near(table: &Table, bits: u32, fits: bool, rng: &mut Rng) -> Node {
    loop {
        let node = public(rng);
        if !fits {
            let id = table.own().random_at(bits, rng);
            if !id.fits(node.addr.ip()) {
                return Node { id, addr: node.addr };
            }
        } else if node.id.shared_bits(table.own()) == bits {
            return node;
        }
    }
}

/// A table that has met everybody.
fn full(count: usize, rng: &mut Rng) -> (Table, Vec<Node>) {
    let mut table = empty(rng);
    let nodes: Vec<Node> = (0..count).map(|_| public(rng)).collect();
    nodes.iter().for_each(|&node| table.answered(Instant::ZERO, node, RTT));
    (table, nodes)
}

#[test]
fn a_node_that_only_queries_never_enters_the_table_and_is_seldom_pinged() {
    let mut rng = Rng::from_number(1);
    let mut table = empty(&mut rng);
    let worth = (0..1_000).filter(|_| table.queried(at(0), public(&mut rng))).count();
    assert_eq!((worth, table.len()), (1, 0));
    assert!(table.queried(at(10), public(&mut rng)), "later another one");
    let own = table.own();
    assert!(!table.queried(at(20), local(1, own)), "whoever sends our id back to us is a mirror");
    table.answered(at(20), local(1, own), RTT);
    assert!(table.is_empty());
}

#[test]
fn thousands_that_claim_one_id_are_one_node_and_the_first_stays() {
    let mut rng = Rng::from_number(2);
    let mut table = empty(&mut rng);
    let id = NodeId::random(&mut rng);
    let claims: Vec<Node> = (0..5_000).map(|_| Node { id, ..public(&mut rng) }).collect();
    claims.iter().for_each(|&node| table.answered(at(0), node, RTT));
    assert_eq!(table.closest(id, K), [claims[0]]);
    table.failed(at(1), claims[0].addr);
    table.failed(at(4), claims[0].addr);
    table.answered(at(5), claims[7], RTT);
    assert_eq!(table.closest(id, K), [claims[7]], "until it fails");
}

#[test]
fn a_host_and_a_neighbourhood_of_a_bucket_count_once_but_local_ones_do_not() {
    let mut rng = Rng::from_number(3);
    let mut table = empty(&mut rng);
    let first = near(&table, 0, true, &mut rng);
    table.answered(at(0), first, RTT);
    for (host, port) in [(1, 7000), (2, 6881), (200, 1)] {
        let mut octets = [0; 4];
        octets[..3].copy_from_slice(&Ipv4Addr::from_bits(ip_bits(first)).octets()[..3]);
        octets[3] = host;
        let id = table.own().random_at(0, &mut rng);
        table.answered(at(0), Node { id, addr: SocketAddr::new(octets.into(), port) }, RTT);
    }
    assert_eq!(table.len(), 1);
    for port in 1..=100 {
        let id = table.own().random_at(0, &mut rng);
        table.answered(at(0), local(port, id), RTT);
    }
    assert_eq!(table.len(), 101);
}

fn ip_bits(node: Node) -> u32 {
    match node.addr.ip() {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(_) => 0,
    }
}

#[test]
fn an_id_that_changes_evicts_its_node_until_it_answers_again() {
    let mut rng = Rng::from_number(4);
    let mut table = empty(&mut rng);
    let ids = [(); 2].map(|()| NodeId::random(&mut rng));
    table.answered(at(0), local(1, ids[0]), RTT);
    assert!(!table.queried(at(10), local(1, ids[0])));
    assert!(table.queried(at(10), local(1, ids[1])), "to be asked, for its source may be forged");
    assert_eq!(table.len(), 1);
    table.answered(at(11), local(1, ids[1]), RTT);
    assert_eq!(table.len(), 0);
    table.answered(at(12), local(1, ids[1]), RTT);
    assert_eq!(table.closest(ids[0], K), [local(1, ids[1])]);
}

#[test]
fn in_a_full_bucket_the_old_stay_and_those_go_that_fail_or_do_not_fit() {
    let mut rng = Rng::from_number(5);
    let mut table = empty(&mut rng);
    let bits = WIDE_COUNT;
    let neighbours: Vec<Node> = (0..NEIGHBOUR_COUNT as u16)
        .map(|port| local(port + 1, table.own().random_at(bits + 1, &mut rng)))
        .collect();
    neighbours.iter().for_each(|&node| table.answered(at(0), node, RTT));
    let unfit: Vec<Node> = (0..K).map(|_| near(&table, bits, false, &mut rng)).collect();
    unfit.iter().for_each(|&node| table.answered(at(0), node, RTT));
    let late = near(&table, bits, false, &mut rng);
    table.answered(at(1), late, RTT);
    let nodes = |table: &Table| {
        let known = table.best_first();
        known.filter(|node| node.id.shared_bits(table.own()) == bits).collect::<Vec<_>>()
    };
    assert!(nodes(&table).len() == K && !nodes(&table).contains(&late), "full of nodes that are not worse");

    let fit: Vec<Node> = (0..=K).map(|_| near(&table, bits, true, &mut rng)).collect();
    fit.iter().for_each(|&node| table.answered(at(2), node, RTT));
    assert!(nodes(&table).len() == K && fit[..K].iter().all(|node| nodes(&table).contains(node)));

    table.failed(at(3), fit[3].addr);
    assert!(table.good().all(|node| node != fit[3]) && nodes(&table).len() == K, "a datagram may be lost");
    table.failed(at(5), fit[3].addr);
    assert!(
        nodes(&table).len() == K && nodes(&table).contains(&fit[3]),
        "many that are lost at once are one outage"
    );
    table.failed(at(6), fit[3].addr);
    assert!(!nodes(&table).contains(&fit[3]) && nodes(&table).contains(&fit[K]), "a spare one has its place");
    let late = at(3_600);
    fit[..K].iter().chain(&neighbours).for_each(|&node| table.answered(late, node, RTT));
    while let Some(Upkeep::Ping(node)) = table.upkeep(late) {
        assert_eq!(node, fit[K], "which was heard an hour ago and has to answer first");
    }
}

#[test]
fn a_crowd_around_our_id_leaves_places_for_our_neighbours() {
    let mut rng = Rng::from_number(16);
    let (mut table, _) = full(1_000, &mut rng);
    let crowd: Vec<Node> = (0..20).map(|_| near(&table, 9, true, &mut rng)).collect();
    crowd.iter().for_each(|&node| table.answered(at(1), node, RTT));
    let late: Vec<Node> = (9..12).map(|bits| near(&table, bits, true, &mut rng)).collect();
    late.iter().for_each(|&node| table.answered(at(2), node, RTT));
    assert!(late.iter().all(|late| table.good().any(|node| node == *late)));
    let far = near(&table, WIDE_COUNT, true, &mut rng);
    table.answered(at(3), far, RTT);
    assert!(table.good().all(|node| node != far), "who is no neighbour has the bucket's own places alone");
    for closer in 0..NEIGHBOUR_COUNT as u16 {
        table.answered(at(4), local(closer + 1, table.own().random_at(30, &mut rng)), RTT);
    }
    let of_crowd = table.good().filter(|node| node.id.shared_bits(table.own()) == 9).count();
    assert_eq!(of_crowd, K, "who ceases to be one, too");
}

/// The first bucket that is not wide.
const WIDE_COUNT: u32 = 4;

#[test]
fn the_closest_are_the_closest_of_all_that_have_not_failed() {
    let mut rng = Rng::from_number(6);
    let (mut table, nodes) = full(3_000, &mut rng);
    for node in nodes.iter().step_by(3) {
        table.failed(at(1), node.addr);
    }
    let mut known: Vec<Node> = table.good().collect();
    for _ in 0..200 {
        let target = NodeId::random(&mut rng);
        known.sort_by_key(|node| node.id.distance(target));
        assert_eq!(table.closest(target, K), known[..K]);
    }
    let all = table.closest(table.own(), 1_000);
    assert_eq!(all.len(), table.len(), "those who failed once are better than nobody");
}

#[test]
fn ids_at_will_hide_none_that_fit() {
    let mut rng = Rng::from_number(7);
    let (mut table, _) = full(50, &mut rng);
    let target = table.own().random_at(1, &mut rng);
    for bits in 20..60 {
        let node = Node { id: target.random_at(bits, &mut rng), ..public(&mut rng) };
        table.answered(at(0), node, RTT);
    }
    let named = table.closest(target, K);
    assert!(named.is_sorted_by_key(|node| node.id.distance(target)) && named.len() == K);
    assert_eq!(named.iter().filter(|node| node.id.fits(node.addr.ip())).count(), K / 2);
}

/// An hour in which each ping is answered: when each node was heard last but one, and how often
/// what happened.
fn rest(table: &mut Table, seconds: u64) -> (u32, u32) {
    let (mut pings, mut refreshes) = (0, 0);
    let end = at(seconds);
    while let Some(now) = table.upkeep_at().filter(|&now| now <= end) {
        while let Some(upkeep) = table.upkeep(now) {
            match upkeep {
                Upkeep::Ping(node) => {
                    pings += 1;
                    table.answered(now, node, RTT);
                }
                Upkeep::Refresh(_) => refreshes += 1,
            }
        }
        assert!(table.upkeep_at() > Some(now), "nothing more is due before upkeep_at");
    }
    (pings, refreshes)
}

#[test]
fn rest_is_cheap_and_everybody_is_heard_in_time() {
    let mut rng = Rng::from_number(8);
    let (mut table, _) = full(10_000, &mut rng);
    assert!((240..320).contains(&table.len()), "{}", table.len());
    rest(&mut table, 3_600);
    let quiet =
        table.entries.iter().filter(|entry| at(3_600) - entry.heard_at > Duration::from_secs(16 * 60));
    assert_eq!(quiet.count(), 0);
    let (pings, refreshes) = rest(&mut table, 2 * 3_600);
    assert!(pings <= 1_450, "{pings} pings an hour");
    assert!((4..=40).contains(&refreshes), "{refreshes} refreshes an hour");
}

#[test]
fn nodes_that_start_together_do_not_refresh_together() {
    let nodes: Vec<Node> = full(10, &mut Rng::from_number(9)).1;
    let mut pinged_at: Vec<Instant> = (0..100)
        .map(|seed| {
            let mut table = empty(&mut Rng::from_number(seed));
            nodes.iter().for_each(|&node| table.answered(at(0), node, RTT));
            while table.upkeep(at(0)).is_some() {}
            table.ping_due
        })
        .collect();
    pinged_at.sort();
    assert!(pinged_at[99] - pinged_at[0] > Duration::from_secs(60));
}

#[test]
fn the_other_half_of_a_divided_network_is_found_again() {
    let mut rng = Rng::from_number(10);
    let mut table = empty(&mut rng);
    let lost = near(&table, 5, true, &mut rng);
    table.answered(at(0), lost, RTT);
    for (seconds, pinged) in [(3_600, true), (3 * 3_600, false)] {
        let mut tried = 0;
        while let Some(now) = table.upkeep_at().filter(|&now| now < at(seconds)) {
            if let Some(Upkeep::Ping(node)) = table.upkeep(now) {
                table.failed(now, node.addr);
                tried += 1;
            }
        }
        assert!((2..30).contains(&tried), "{tried} pings");
        assert_eq!(table.len() == 1, pinged, "kept for an hour, not for ever");
    }
    table.answered(at(3 * 3_600), lost, RTT);
    assert_eq!(table.good().count(), 1);
}

#[test]
fn a_known_node_that_queries_is_alive_and_a_failed_one_is_queried_soon() {
    let mut rng = Rng::from_number(11);
    let (mut table, nodes) = full(20, &mut rng);
    while table.upkeep(at(0)).is_some() {}
    let mut pinged = BTreeMap::new();
    for seconds in 1..3_600 {
        nodes.iter().for_each(|&node| assert!(!table.queried(at(seconds), node)));
        if let Some(Upkeep::Ping(node)) = table.upkeep(at(seconds)) {
            pinged.entry(node).or_insert(seconds);
        }
    }
    assert!(pinged.values().all(|&first| first >= 30 * 60), "nobody needs a ping before: {pinged:?}");
    assert_eq!(pinged.len(), 20, "the source of a query may be forged");
    table.failed(at(3_600), nodes[3].addr);
    assert!(!table.queried(at(3_601), nodes[3]));
    let due = std::iter::from_fn(|| table.upkeep(at(3_601))).collect::<Vec<_>>();
    assert!(due.contains(&Upkeep::Ping(nodes[3])));
}

#[test]
fn a_new_id_reorders_the_nodes() {
    let mut rng = Rng::from_number(12);
    let (mut table, _) = full(1_000, &mut rng);
    let own = NodeId::random(&mut rng);
    let mut before: Vec<Node> = table.good().collect();
    before.sort_by_key(|node| node.id.distance(own));
    table.rename(at(1), own);
    assert_eq!(table.own(), own);
    assert_eq!(table.closest(own, K), before[..K]);
    assert!(matches!(table.upkeep(at(1)), Some(Upkeep::Refresh(target)) if target == own));
}

#[test]
fn the_size_of_the_overlay_is_estimated_and_a_few_sybils_do_not_change_much() {
    for (count, seed) in [(100, 13), (1_000, 14), (10_000, 15)] {
        let mut rng = Rng::from_number(seed);
        let (mut table, _) = full(count, &mut rng);
        let within = |estimate: u64| (count as u64 / 3..=count as u64 * 3).contains(&estimate);
        assert!(within(table.size_estimate()), "{} of {count}", table.size_estimate());
        for bits in 40..42 {
            let id = table.own().random_at(bits, &mut rng);
            table.answered(at(0), Node { id, ..public(&mut rng) }, RTT);
        }
        assert!(within(table.size_estimate()), "{} of {count} with sybils", table.size_estimate());
        let [near, far] = [20, 0].map(|bits| table.own().random_at(bits, &mut rng));
        table.learn_size(near, 1);
        assert!(within(table.size_estimate()), "what is found near us may be a crowd that means us");
        for size in [5, 7, 6, 1_000_000, 6] {
            table.learn_size(far, size);
        }
        assert_eq!(table.size_estimate(), 7, "what lookups found counts more");
    }
    assert_eq!(empty(&mut Rng::from_number(1)).size_estimate(), 0);
}
