//! What decoding costs: the wire's messages, a large torrent, a bencode scan, messages of the DHT
//! both ways. `cargo bench --bench codecs`

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sprat::proto::bencode::{Limits, scan};
use sprat::proto::block::Block;
use sprat::proto::dht::krpc::{self, Answer, Method, Query, Want};
use sprat::proto::dht::node_id::{Node, NodeId};
use sprat::proto::metainfo::Metainfo;
use sprat::proto::metainfo::create::{Draft, DraftFile};
use sprat::proto::wire::decoder::Decoder;
use sprat::proto::wire::message::Message;

/// Messages in one batch.
const MESSAGE_COUNT: u32 = 1_000;
/// Pieces of the torrent.
const PIECE_COUNT: u32 = 100_000;

fn wire(criterion: &mut Criterion) {
    let mut stream = Vec::new();
    for piece in 0..MESSAGE_COUNT / 2 {
        Message::Have(piece).encode(&mut stream);
        Message::Request(Block { piece, offset: 0, len: 16_384 }).encode(&mut stream);
    }
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Elements(u64::from(MESSAGE_COUNT)));
    group.bench_function("decode haves and requests", |bencher| {
        bencher.iter(|| {
            let mut buffer = BytesMut::from(&stream[..]);
            let mut decoder = Decoder::new(PIECE_COUNT);
            while let Ok(Some(frame)) = decoder.decode(&mut buffer) {
                black_box(frame);
            }
        });
    });
    group.finish();
}

fn metainfo(criterion: &mut Criterion) {
    let file = |number| DraftFile {
        path: vec!["folder".into(), format!("file {number}")],
        len: 65_536,
        executable: false,
    };
    let draft = Draft {
        name: "bench".into(),
        files: (0..PIECE_COUNT / 4).map(file).collect(),
        piece_len: 16_384,
        ..Draft::default()
    };
    let hashes = vec![7; PIECE_COUNT as usize * 20];
    let Ok(torrent) = draft.finish(hashes.into()) else { unreachable!("a sound draft") };
    let bytes = torrent.encode();
    let mut group = criterion.benchmark_group("metainfo");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("scan", |bencher| bencher.iter(|| scan(black_box(&bytes), &Limits::METAINFO)));
    group.bench_function("decode", |bencher| bencher.iter(|| Metainfo::decode(black_box(&bytes))));
    group.finish();
}

fn krpc(criterion: &mut Criterion) {
    let target = NodeId([7; 20]);
    let addr = ([192, 0, 2, 1], 6881).into();
    let query = Query {
        id: NodeId([1; 20]),
        read_only: false,
        method: Method::GetPeers { infohash: target, want: Want::default(), scrape: false, no_seed: false },
    };
    let answer = Answer {
        nodes: (0..8).map(|number| Node { id: NodeId([number; 20]), addr }).collect(),
        token: Some([2; 8]),
        ..Answer::default()
    };
    let query_bytes = krpc::encode_query([3; 4], &query);
    let answer_bytes = krpc::encode_answer(&[3; 4], target, addr, &answer);
    let mut group = criterion.benchmark_group("krpc");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode query", |bencher| {
        bencher.iter(|| krpc::encode_query([3; 4], black_box(&query)));
    });
    group.bench_function("encode answer", |bencher| {
        bencher.iter(|| krpc::encode_answer(&[3; 4], target, addr, black_box(&answer)));
    });
    group.bench_function("decode query", |bencher| {
        bencher.iter(|| krpc::decode(black_box(&query_bytes)).is_ok());
    });
    group.bench_function("decode answer and its nodes", |bencher| {
        bencher.iter(|| {
            let Ok(message) = krpc::decode(black_box(&answer_bytes)) else { return 0 };
            match message.body {
                krpc::Body::Response(response) => response.nodes().count(),
                krpc::Body::Query(_) | krpc::Body::Error(..) => 0,
            }
        });
    });
    group.finish();
}

criterion_group!(benches, wire, metainfo, krpc);
criterion_main!(benches);
