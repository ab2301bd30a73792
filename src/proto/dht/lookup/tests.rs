//! Lookups in overlays of thousands of tables, with and without hostile nodes, and by single steps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

use super::*;
use crate::proto::dht::routing::Table;
use crate::proto::rng::Rng;
use crate::proto::scope::Scope;
use crate::proto::time::{Duration, Instant};

const RTT: Duration = Duration::from_millis(50);

/// What hostile nodes do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plot {
    /// Ids as close to the target as they like, and they name each other.
    CrowdUnfit,
    /// The closest of the eight ids that fit their address, and they name each other.
    CrowdFit,
    /// The same, and they name nodes that do not exist, as close as can be, with ids that fit.
    NameDead,
}

/// Thousands of nodes whose tables are full, each made when it is first asked.
struct Overlay {
    rng: Rng,
    /// By id.
    nodes: Vec<Node>,
    hostile: BTreeSet<SocketAddr>,
    tables: BTreeMap<SocketAddr, Table>,
    target: NodeId,
    plot: Plot,
}

fn public(rng: &mut Rng) -> SocketAddr {
    loop {
        let ip = Ipv4Addr::from_bits(rng.bits() as u32);
        let addr = SocketAddr::new(ip.into(), 1 + rng.below(65_535) as u16);
        if Scope::of(addr.ip()) == Some(Scope::Public) && addr.port() != 0 {
            return addr;
        }
    }
}

fn closest_id(target: NodeId, addr: SocketAddr, plot: Plot, rng: &mut Rng) -> NodeId {
    if plot == Plot::CrowdUnfit {
        let bits = 16 + rng.below(20) as u32;
        return target.random_at(bits, rng);
    }
    let ids = (0..64).map(|_| NodeId::for_ip(addr.ip(), rng));
    ids.min_by_key(|id| id.distance(target)).unwrap()
}

impl Overlay {
    fn new(seed: u64, count: usize, hostile_percent: usize, plot: Plot) -> Self {
        let mut rng = Rng::from_number(seed);
        let target = NodeId::random(&mut rng);
        let mut hostile = BTreeSet::new();
        let mut nodes: Vec<Node> = (0..count)
            .map(|at| {
                let addr = public(&mut rng);
                if at * 100 < count * hostile_percent {
                    hostile.insert(addr);
                    return Node { id: closest_id(target, addr, plot, &mut rng), addr };
                }
                Node { id: NodeId::for_ip(addr.ip(), &mut rng), addr }
            })
            .collect();
        nodes.sort();
        Self { rng, nodes, hostile, tables: BTreeMap::new(), target, plot }
    }

    /// Somebody honest.
    fn anybody(&mut self) -> Node {
        loop {
            let node = self.nodes[self.rng.below(self.nodes.len())];
            if !self.hostile.contains(&node.addr) {
                return node;
            }
        }
    }

    fn table(&mut self, node: Node) -> &Table {
        let Self { rng, nodes, tables, .. } = self;
        tables.entry(node.addr).or_insert_with(|| {
            let mut table = Table::new(node.id, Defence::ALL, rng.fork("table"), Instant::ZERO);
            for bits in 0..30 {
                // Those that share exactly so many bits are next to each other.
                let least =
                    nodes.partition_point(|other| other.id < node.id && other.id.shared_bits(node.id) < bits);
                let end = nodes
                    .partition_point(|other| other.id <= node.id || other.id.shared_bits(node.id) >= bits);
                let near = &nodes[least..end];
                for _ in 0..(256 >> bits.min(4)).min(4 * near.len()) {
                    table.answered(Instant::ZERO, near[rng.below(near.len())], RTT);
                }
            }
            table
        })
    }

    fn answer(&mut self, asked: Node, target: NodeId) -> Option<Vec<Node>> {
        if !self.hostile.contains(&asked.addr) {
            return self.nodes.binary_search(&asked).is_ok().then(|| self.table(asked).closest(target, K));
        }
        let (hostile, rng) = (&self.hostile, &mut self.rng);
        Some(match self.plot {
            Plot::CrowdUnfit | Plot::CrowdFit => {
                let known = self.nodes.iter().filter(|node| hostile.contains(&node.addr));
                let mut known: Vec<Node> = known.filter(|_| rng.below(4) == 0).copied().collect();
                known.sort_by_key(|node| node.id.distance(target));
                known.truncate(NAMED_COUNT_MAX);
                known
            }
            Plot::NameDead => {
                let dead = std::iter::repeat_with(|| {
                    let addr = public(rng);
                    Node { id: closest_id(target, addr, Plot::CrowdFit, rng), addr }
                });
                let mut dead: Vec<Node> = dead.take(300).collect();
                dead.sort_by_key(|node| node.id.distance(target));
                dead
            }
        })
    }

    /// A lookup to its end, and those that answered.
    fn look_up(&mut self, from: Node, target: NodeId) -> (Lookup, Vec<Node>) {
        // What lookups of random targets teach.
        let size = self.nodes.len() as u64;
        let table = self.table(from);
        let mut lookup = Lookup::new(target, &table.starts(target), size, Defence::ALL);
        let (mut under_way, mut answered) = (VecDeque::new(), Vec::new());
        loop {
            while let Some(node) = lookup.next_query() {
                under_way.push_back(node);
            }
            assert!(under_way.len() <= ALPHA);
            let Some(asked) = under_way.pop_front() else { break };
            match self.answer(asked, target) {
                Some(nodes) => {
                    answered.push(asked);
                    let nodes = nodes.into_iter().filter(|node| node.addr != from.addr);
                    lookup.answered(asked.addr, asked.id, nodes, Some(b"token"));
                }
                None => lookup.failed(asked.addr),
            }
        }
        assert!(lookup.is_done());
        (lookup, answered)
    }
}

/// Overlays tried.
const SEEDS: u64 = 12;

fn median(mut of: Vec<u32>) -> u32 {
    of.sort_unstable();
    of[of.len() / 2]
}

#[test]
fn a_lookup_in_an_overlay_of_ten_thousand_finds_the_closest_in_three_steps() {
    let mut overlay = Overlay::new(1, 10_000, 0, Plot::CrowdFit);
    let (mut hops, mut asked, mut missed) = (Vec::new(), Vec::new(), 0);
    for _ in 0..40 {
        let target = NodeId::random(&mut overlay.rng);
        let from = overlay.anybody();
        let (lookup, _) = overlay.look_up(from, target);
        let found = lookup.closest();
        let mut all: Vec<Node> = overlay.nodes.iter().filter(|node| **node != from).copied().collect();
        all.sort_by_key(|node| node.id.distance(target));
        missed += all[..K].iter().filter(|node| !found.iter().any(|f| f.node == **node)).count();
        assert!(found.is_sorted_by_key(|found| found.node.id.distance(target)));
        hops.push(lookup.hops(found[0].node.addr));
        asked.push(lookup.counts().0);
    }
    assert!(missed <= 3, "{missed} of 320 were not found");
    assert!(median(hops.clone()) <= 3, "{hops:?}");
    assert!(median(asked.clone()) <= 60, "{asked:?}");
}

/// Of so many who announce, each followed by one who looks for them: how many are found, percent.
fn found_percent(count: usize, hostile_percent: usize, plot: Plot) -> usize {
    let mut found = 0;
    for seed in 0..SEEDS {
        let mut overlay = Overlay::new(seed, count, hostile_percent, plot);
        let (announcer, searcher) = (overlay.anybody(), overlay.anybody());
        let (lookup, _) = overlay.look_up(announcer, overlay.target);
        let stored: Vec<Node> = lookup
            .closest()
            .into_iter()
            .map(|found| found.node)
            .filter(|node| !overlay.hostile.contains(&node.addr))
            .collect();
        let (_, answered) = overlay.look_up(searcher, overlay.target);
        found += usize::from(answered.iter().any(|node| stored.contains(node)));
    }
    100 * found / SEEDS as usize
}

#[test]
fn hostile_nodes_around_a_target_do_not_hide_the_honest_ones() {
    for plot in [Plot::CrowdUnfit, Plot::CrowdFit, Plot::NameDead] {
        for (hostile, least) in [(10, 95), (30, 80)] {
            let found = found_percent(3_000, hostile, plot);
            assert!(found >= least, "{plot:?} of {hostile} %: {found} % found");
        }
    }
}

#[test]
fn a_crowd_makes_a_lookup_query_more_nodes_and_store_at_all_that_answer() {
    for (hostile, is_crowd) in [(0, false), (30, true)] {
        let mut overlay = Overlay::new(1, 3_000, hostile, Plot::CrowdFit);
        let from = overlay.anybody();
        let (lookup, answered) = overlay.look_up(from, overlay.target);
        let stored = lookup.closest().len();
        let honest = answered.iter().filter(|node| !overlay.hostile.contains(&node.addr)).count();
        if is_crowd {
            assert_eq!(stored, answered.len());
            assert!(honest > 2 * K, "{honest} of {stored} are honest");
        } else {
            assert_eq!(stored, K);
            assert!(answered.len() <= 60, "{}", answered.len());
        }
    }
}

#[test]
fn in_a_crowd_nodes_with_unfit_ids_keep_their_places() {
    let mut rng = Rng::from_number(4);
    let target = NodeId::random(&mut rng);
    let mut draw = |fits: bool| loop {
        let addr = public(&mut rng);
        let id = if fits { NodeId::for_ip(addr.ip(), &mut rng) } else { NodeId::random(&mut rng) };
        if id.fits(addr.ip()) == fits && share_of_space(id.distance(target)) < 0.3 {
            return Node { id, addr };
        }
    };
    let nodes: Vec<Node> = (0..28).map(|at| draw(at < 24)).collect();
    let mut lookup = Lookup::new(target, &nodes, CLOSEST_COUNT_MAX as u64, Defence::ALL);
    while let Some(asked) = lookup.next_query() {
        lookup.answered(asked.addr, asked.id, std::iter::empty(), Some(b"token"));
    }
    let found = lookup.closest();
    assert_eq!(found.iter().filter(|found| !found.node.id.fits(found.node.addr.ip())).count(), 4);
    assert!(found.len() > CLOSEST_COUNT_MAX, "{}", found.len());
}

#[test]
fn a_node_that_answers_under_the_other_id_that_it_is_named_by_is_one_node() {
    let addr: SocketAddr = "8.8.8.8:1".parse().unwrap();
    let [near, far] = [NodeId([1; 20]), NodeId([2; 20])];
    let starts = [near, far].map(|id| Node { id, addr });
    for first in [near, far] {
        let mut lookup = Lookup::new(first, &starts, 0, Defence::ALL);
        assert_eq!(lookup.next_query().map(|node| node.id), Some(first));
        let other = if first == near { far } else { near };
        lookup.answered(addr, other, std::iter::empty(), Some(b"token"));
        let closest: Vec<Node> = lookup.closest().into_iter().map(|found| found.node).collect();
        assert_eq!(closest, [Node { id: other, addr }]);
        assert!(lookup.is_done());
    }
}

fn node(ip: [u8; 4], byte: u8) -> Node {
    let mut id = [0; 20];
    id[0] = byte;
    Node { id: NodeId(id), addr: SocketAddr::new(ip.into(), 1) }
}

/// Looks for the id 0, where everything is local and fits.
fn local_lookup(starts: &[Node]) -> Lookup {
    Lookup::new(NodeId([0; 20]), starts, 0, Defence::ALL)
}

fn all_queries(lookup: &mut Lookup) -> Vec<Node> {
    std::iter::from_fn(|| lookup.next_query()).collect()
}

#[test]
fn four_are_asked_at_once_and_one_that_is_late_gives_its_place_away() {
    let starts: Vec<Node> = (1..=8).map(|at| node([10, 0, 0, at], at)).collect();
    let mut lookup = local_lookup(&starts);
    assert_eq!(all_queries(&mut lookup), starts[..4]);
    lookup.slow(starts[0].addr);
    assert_eq!(all_queries(&mut lookup), [starts[4]]);
    lookup.slow(starts[0].addr);
    lookup.failed(starts[7].addr);
    assert_eq!(all_queries(&mut lookup), [], "neither twice late nor never asked gives a place");
    for start in &starts[1..] {
        lookup.answered(start.addr, start.id, std::iter::empty(), None);
        let _ = all_queries(&mut lookup);
    }
    assert!(!lookup.is_done(), "the late one is the closest and may yet answer");
    lookup.answered(starts[0].addr, starts[0].id, std::iter::empty(), Some(b"late"));
    assert!(lookup.is_done());
    let found = lookup.closest();
    assert!(found.len() == 8 && found[0].token == b"late" && found[1].token.is_empty());
    assert_eq!(lookup.counts(), (8, 8));
}

#[test]
fn a_late_node_is_not_awaited_if_eight_others_answer() {
    let starts: Vec<Node> = (1..=9).map(|at| node([10, 0, 0, at], at)).collect();
    let mut lookup = local_lookup(&starts[..8]);
    let mut asked = all_queries(&mut lookup);
    lookup.slow(starts[0].addr);
    while let Some(node) = asked.pop() {
        let named = starts[8..].iter().copied();
        if node != starts[0] {
            lookup.answered(node.addr, node.id, named, None);
        }
        asked.extend(all_queries(&mut lookup));
    }
    assert!(lookup.is_done(), "the ninth was asked in the place of the late one");
    assert_eq!(lookup.counts(), (9, 8));
}

#[test]
fn a_storing_lookup_skips_nodes_without_a_token() {
    let starts: Vec<Node> = (1..=12).map(|at| node([10, 0, 0, at], at)).collect();
    for (needs_tokens, first) in [(false, 0), (true, 3)] {
        let lookup = Lookup::new(NodeId([0; 20]), &starts[..1], 0, Defence::ALL);
        let mut lookup = if needs_tokens { lookup.with_tokens() } else { lookup };
        while let Some(asked) = lookup.next_query() {
            let token = (asked.id.0[0] > 3).then_some(&b"token"[..]);
            lookup.answered(asked.addr, asked.id, starts.iter().copied(), token);
        }
        assert!(lookup.is_done());
        let found: Vec<Node> = lookup.closest().into_iter().map(|found| found.node).collect();
        assert_eq!(found, starts[first..first + K]);
    }
}

#[test]
fn steps_are_counted_from_our_own_table() {
    let start = node([10, 0, 0, 1], 64);
    let mut lookup = local_lookup(&[start]);
    let path: Vec<Node> = (1..5_u8).map(|at| node([10, 0, 1, at], 64 >> at)).collect();
    let mut asked = start;
    for next in &path {
        assert_eq!(all_queries(&mut lookup), [asked]);
        lookup.answered(asked.addr, asked.id, [*next, start].into_iter(), None);
        asked = *next;
    }
    assert_eq!(all_queries(&mut lookup), [asked]);
    lookup.failed(asked.addr);
    assert!(lookup.is_done());
    assert_eq!((lookup.hops(start.addr), lookup.hops(path[2].addr)), (1, 4));
    assert_eq!(lookup.closest()[0].node, path[2]);
}

#[test]
fn a_node_that_answers_under_another_id_is_known_by_that_id() {
    let (named, real) = (node([10, 0, 0, 1], 1), node([10, 0, 0, 1], 200));
    let mut lookup = local_lookup(&[named]);
    assert_eq!(all_queries(&mut lookup), [named]);
    lookup.answered(named.addr, real.id, [named, real].into_iter(), None);
    assert!(lookup.is_done() && lookup.next_query().is_none(), "an address is asked once");
    let found: Vec<Node> = lookup.closest().into_iter().map(|found| found.node).collect();
    assert_eq!(found, [real]);
}

#[test]
fn one_node_of_a_prefix_is_queried_and_public_nodes_name_no_local_ones() {
    let start = node([8, 8, 8, 8], 255);
    let mut lookup = local_lookup(&[start]);
    assert_eq!(all_queries(&mut lookup), [start]);
    let named =
        [node([9, 9, 9, 1], 3), node([9, 9, 9, 2], 4), node([127, 0, 0, 1], 1), node([10, 0, 0, 1], 2)];
    let v6 = Node { addr: "[2001:db8::1]:1".parse().unwrap(), ..named[0] };
    lookup.answered(start.addr, start.id, named.into_iter().chain([v6]), None);
    assert_eq!(all_queries(&mut lookup), [named[0]]);
    lookup.failed(named[0].addr);
    assert_eq!(all_queries(&mut lookup), [named[1]], "the other one's turn comes if the first is dead");
}

#[test]
fn an_answer_names_sixteen_and_a_source_of_dead_nodes_is_discredited() {
    let start = node([10, 0, 0, 1], 255);
    let mut lookup = local_lookup(&[start]);
    assert_eq!(all_queries(&mut lookup), [start]);
    let dead = (1..=200).map(|at| node([10, 0, 1, at], at));
    lookup.answered(start.addr, start.id, dead, None);
    while let Some(dead) = lookup.next_query() {
        lookup.failed(dead.addr);
    }
    assert!(lookup.is_done());
    assert_eq!(lookup.counts(), (3, 1));
}
