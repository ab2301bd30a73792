//! What a DHT node with a table of two hundred nodes pays for each query of others: answered, and
//! dropped for the budget. `cargo bench --bench dht`

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sprat::proto::dht::Dht;
use sprat::proto::dht::event::{Config, Output, ReadOnly};
use sprat::proto::dht::krpc::{self, Answer, Body, Method, Query, Want};
use sprat::proto::dht::node_id::{Node, NodeId};
use sprat::proto::rng::Rng;
use sprat::proto::time::{Duration, Instant};

/// Nodes of the overlay.
const NODE_COUNT: usize = 5_000;
/// Nodes named in an answer.
const NAMED_COUNT: usize = 8;
/// Time in which the table fills.
const SETTLING: Duration = Duration::from_secs(1_800);
/// Queries in one batch.
const QUERY_COUNT: usize = 1_000;
/// Measured of each: a new machine for each batch costs much more.
const MEASURED: Duration = Duration::from_millis(200);
/// Between two queries that are all answered: 16 kB of answers a second allow no more.
const ANSWERED_GAP: Duration = Duration::from_millis(40);

/// Somewhere in the world.
fn draw_node(rng: &mut Rng) -> Node {
    let ip = IpAddr::from([11 + rng.below(80) as u8, rng.below(256) as u8, rng.below(256) as u8, 1]);
    Node { id: NodeId::for_ip(ip, rng), addr: SocketAddr::new(ip, 6_881) }
}

/// What the node at this address answers to this query of the machine's.
fn answer(nodes: &[Node], to: SocketAddr, asker: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    let node = nodes.iter().find(|node| node.addr == to)?;
    let message = krpc::decode(bytes).ok()?;
    let Body::Query(Query { method, .. }) = message.body else { return None };
    let mut answer = Answer::default();
    if let Method::FindNode { target, .. } = method {
        let mut closest = nodes.to_vec();
        closest.select_nth_unstable_by_key(NAMED_COUNT, |node| node.id.distance(target));
        closest.truncate(NAMED_COUNT);
        answer = Answer { nodes: closest, names_v4: true, ..answer };
    }
    Some(krpc::encode_answer(message.transaction, node.id, asker, &answer))
}

/// A machine that has lived among the nodes for a while, and the time.
fn settled(nodes: &[Node], rng: &mut Rng) -> (Dht, Instant) {
    let Node { addr: own, .. } = draw_node(rng);
    let config = Config {
        v4: true,
        v6: false,
        port: own.port(),
        read_only: ReadOnly::Never,
        external: Some(own.ip()),
    };
    let mut now = Instant::ZERO;
    let mut machine = Dht::new(config, rng.fork("machine"), now);
    machine.handle_hint(now, nodes[0].addr);
    while now < Instant::ZERO + SETTLING {
        while let Some(output) = machine.poll_output() {
            let Output::Send { to, bytes } = output else { continue };
            if let Some(answer) = answer(nodes, to, own, &bytes) {
                machine.handle_datagram(now, to, &answer);
            }
        }
        now = machine.poll_timeout().map_or(now, |at| at.max(now + Duration::from_millis(1)));
        machine.handle_timeout(now);
    }
    (machine, now)
}

/// Queries of many askers, each about something else; in turn for nodes and for peers.
fn queries(rng: &mut Rng) -> Vec<(SocketAddr, Vec<u8>)> {
    let want = Want::default();
    let query = |number: usize| {
        let (asker, target) = (draw_node(rng), NodeId::random(rng));
        let method = match number % 2 {
            0 => Method::FindNode { target, want },
            _ => Method::GetPeers { infohash: target, want, scrape: false, no_seed: false },
        };
        (asker.addr, krpc::encode_query([1, 2, 3, 4], &Query { id: asker.id, read_only: true, method }))
    };
    (0..QUERY_COUNT).map(query).collect()
}

fn node(criterion: &mut Criterion) {
    let mut rng = Rng::from_number(1);
    let nodes: Vec<Node> = (0..NODE_COUNT).map(|_| draw_node(&mut rng)).collect();
    let queries = queries(&mut rng);
    let mut group = criterion.benchmark_group("node");
    group.throughput(Throughput::Elements(QUERY_COUNT as u64));
    group.sample_size(10).warm_up_time(Duration::from_millis(50)).measurement_time(MEASURED);
    for (name, gap) in [("answers", ANSWERED_GAP), ("drops what is beyond its budget", Duration::ZERO)] {
        let ask_all = |(mut machine, mut now): (Dht, Instant)| {
            for (from, bytes) in &queries {
                now += gap;
                machine.handle_datagram(now, *from, bytes);
                while let Some(output) = machine.poll_output() {
                    drop(black_box(output));
                }
            }
            (machine, now)
        };
        let (machine, now) = ask_all(settled(&nodes, &mut rng));
        let snapshot = machine.snapshot(now);
        assert!(snapshot.overlays[0].nodes.1 > 150, "most of a full table: {snapshot:?}");
        assert_eq!(snapshot.queries.0 == QUERY_COUNT as u64, gap > Duration::ZERO, "{snapshot:?}");
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| settled(&nodes, &mut rng), ask_all, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, node);
criterion_main!(benches);
