//! Mutated datagrams for a whole node: no panic, and neither tables nor stores nor answers beyond
//! their limits.

use std::net::SocketAddr;

use sprat::proto::dht::Dht;
use sprat::proto::dht::event::{Config, Output, ReadOnly, Request, RequestId};
use sprat::proto::dht::krpc::{self, Answer, Body, Method, Query, Want};
use sprat::proto::dht::node_id::{Node, NodeId};
use sprat::proto::infohash::InfoHash;
use sprat::proto::rng::Rng;
use sprat::proto::time::{Duration, Instant};

/// Everyday run: with those of the codec half a million.
const ROUNDS: usize = 150_000;

fn samples() -> Vec<Vec<u8>> {
    let (target, want) = (NodeId([7; 20]), Want { v4: true, v6: true });
    let methods = [
        Method::Ping,
        Method::FindNode { target, want },
        Method::GetPeers { infohash: target, want, scrape: true, no_seed: true },
        Method::AnnouncePeer { infohash: target, port: Some(1), token: b"12345678", seed: true },
        Method::Get { target, seq: Some(1), want },
        Method::SampleInfohashes { target, want },
        Method::Unknown { target: Some(target) },
    ];
    let mut samples: Vec<Vec<u8>> = methods
        .into_iter()
        .map(|method| krpc::encode_query(*b"abcd", &Query { id: NodeId([1; 20]), read_only: false, method }))
        .collect();
    let node = |last: u8| Node { id: NodeId([last; 20]), addr: SocketAddr::from(([10, 0, 0, last], 1)) };
    let answer = Answer {
        nodes: (1..9).map(node).collect(),
        peers: vec![node(1).addr, node(2).addr],
        token: Some(*b"12345678"),
        filters: Some(Box::new(([1; 256], [2; 256]))),
        ..Answer::default()
    };
    samples.push(krpc::encode_answer(b"abcd", NodeId([1; 20]), node(3).addr, &answer));
    samples.push(krpc::encode_error(b"abcd", node(3).addr, 203, "no"));
    samples
}

fn mutate(rng: &mut Rng, sample: &[u8]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..rng.below(4) {
        let at = 1 + rng.below(bytes.len() - 1);
        match rng.below(4) {
            0 => bytes[at] = rng.bits() as u8,
            1 => bytes[at] = b"dlie0123456789:"[rng.below(15)],
            2 => bytes.truncate(at + 1),
            _ => bytes.extend_from_within(at..),
        }
        bytes.truncate(2_000);
    }
    bytes
}

#[test]
fn whatever_comes_a_node_stays_within_its_limits() {
    let config = Config { v4: true, v6: true, port: 1, read_only: ReadOnly::Auto, external: None };
    let mut now = Instant::from_micros(1_000_000);
    let (mut rng, samples) = (Rng::from_number(1), samples());
    let mut dht = Dht::new(config, Rng::from_number(2), now);
    let mut pending: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
    for round in 0..ROUNDS {
        now += Duration::from_millis(3);
        let mut from =
            SocketAddr::from(([10, rng.below(4) as u8, 0, rng.below(256) as u8], rng.below(3) as u16));
        let sample = rng.below(samples.len());
        let mut bytes = mutate(&mut rng, &samples[sample]);
        if let Some((asked, query)) = pending.pop()
            && let Ok(message) = krpc::decode(&query)
            && matches!(message.body, Body::Query(_))
            && let Some(at) = bytes.windows(4).position(|part| part == b"abcd")
        {
            // A hostile answer to what was really asked.
            bytes[at..at + 4].copy_from_slice(message.transaction);
            from = asked;
        }
        if let Some(at) = bytes.windows(20).position(|part| part == [1; 20]) {
            rng.fill(&mut bytes[at..at + 20]);
        }
        if round.is_multiple_of(1_000) {
            let number = (round / 1_000) as u64;
            let peers = Request::Peers { infohash: InfoHash([7; 20]), announce: None, scrape: true };
            dht.handle_request(now, RequestId(number), peers);
        }
        dht.handle_datagram(now, from, &bytes);
        if dht.poll_timeout().is_some_and(|at| at <= now) {
            dht.handle_timeout(now);
        }
        while let Some(output) = dht.poll_output() {
            if let Output::Send { to, bytes } = output {
                assert!(bytes.len() <= krpc::DATAGRAM_LEN_MAX && to.port() != 0, "{to}");
                pending.push((to, bytes));
            }
        }
        pending.truncate(64);
    }
    let after = dht.snapshot(now);
    assert!(after.overlays[0].nodes.0 <= 600 && after.stored_peers.0 <= 4_096, "{after:?}");
    assert!(after.queries.0 > 1_000 && after.overlays[0].nodes.0 > 1, "the node was at work: {after:?}");
}
