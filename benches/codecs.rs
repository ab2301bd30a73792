//! What decoding costs: the wire's messages, a large torrent, a bencode scan. `cargo bench --bench codecs`

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sprat::proto::bencode::{Limits, scan};
use sprat::proto::block::Block;
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

criterion_group!(benches, wire, metainfo);
criterion_main!(benches);
