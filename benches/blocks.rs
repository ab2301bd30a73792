//! What a block costs beside the system's share of it: the machine of the one who sends it and of
//! the one who takes it, from the request's bytes to the last decision; and the system's copy of it
//! out of a file in memory. `cargo bench --bench blocks`

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sprat::proto::bitfield::Bitfield;
use sprat::proto::block::{BLOCK_LEN, Block};
use sprat::proto::infohash::InfoHash;
use sprat::proto::metainfo::Info;
use sprat::proto::metainfo::create::{Draft, DraftFile};
use sprat::proto::peer_id::PeerId;
use sprat::proto::piece::Geometry;
use sprat::proto::rng::Rng;
use sprat::proto::time::{Duration, Instant};
use sprat::proto::torrent::Torrent;
use sprat::proto::torrent::event::{ConnId, Connected, Direction, Output, PieceResult, Receipt, Settings};
use sprat::proto::wire::decoder::{Decoder, Frame};
use sprat::proto::wire::handshake::Capabilities;
use sprat::proto::wire::message::Message;
use sprat::storage::content::Content;
use sprat::storage::fs::RealFs;
use sprat::storage::handles::{HANDLE_MAX, Handles};

/// Bytes of content.
const TOTAL_LEN: u64 = 64 << 20;
/// Bytes of a piece.
const PIECE_LEN: u32 = 1 << 20;
/// Blocks sent at once, as by the engine.
const BATCH: usize = 16;
/// The only connection.
const CONN: ConnId = ConnId(0);

fn machines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("machine");
    group.throughput(Throughput::Elements(TOTAL_LEN / u64::from(BLOCK_LEN)));
    group.bench_function("send a block", |bencher| bencher.iter(|| black_box(send_all())));
    group.bench_function("take a block", |bencher| bencher.iter(|| black_box(take_all())));
    group.finish();
}

/// Requests of all blocks are decoded, queued, answered.
fn send_all() -> usize {
    let (mut torrent, mut now) = (torrent(true), Instant::ZERO);
    torrent.handle_message(now, CONN, Message::Interested);
    drain(&mut torrent, &mut |_| ());
    let mut decoder = Decoder::new(geometry().piece_count());
    let (mut bytes, mut sent_count) = (Vec::new(), 0);
    for blocks in blocks().collect::<Vec<_>>().chunks(BATCH) {
        now += Duration::from_micros(250);
        bytes.clear();
        blocks.iter().for_each(|&block| Message::Request(block).encode(&mut bytes));
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(Frame::Message(message))) = decoder.decode(&mut buffer) {
            torrent.handle_message(now, CONN, message);
            drain(&mut torrent, &mut |output| sent_count += usize::from(is_block(&output)));
        }
        torrent.handle_blocks_sent(now, CONN, blocks.len(), blocks.len() as u64 * u64::from(BLOCK_LEN));
        drain(&mut torrent, &mut |output| sent_count += usize::from(is_block(&output)));
    }
    assert_eq!(sent_count, blocks().count());
    sent_count
}

fn is_block(output: &Output) -> bool {
    matches!(output, Output::SendBlock(..))
}

/// All blocks are asked for, come, and their pieces are found good.
fn take_all() -> usize {
    let (mut torrent, mut now) = (torrent(false), Instant::ZERO);
    let (mut asked, mut whole) = (VecDeque::new(), Vec::new());
    let mut kept_count = 0;
    torrent.handle_message(now, CONN, Message::HaveAll);
    torrent.handle_message(now, CONN, Message::Unchoke);
    loop {
        drain(&mut torrent, &mut |output| {
            if let Output::Send(_, Message::Request(block)) = output {
                asked.push_back(block);
            } else if let Output::VerifyPiece { piece, .. } = output {
                whole.push(piece);
            }
        });
        if let Some(piece) = whole.pop() {
            torrent.handle_piece_result(now, piece, PieceResult::Good(None));
        } else if let Some(block) = asked.pop_front() {
            now += Duration::from_micros(15);
            kept_count += usize::from(torrent.handle_block(now, CONN, block) == Receipt::Keep);
        } else {
            break;
        }
    }
    assert_eq!(kept_count, blocks().count());
    kept_count
}

fn drain(torrent: &mut Torrent, take: &mut dyn FnMut(Output)) {
    while let Some(output) = torrent.poll_output() {
        take(output);
    }
}

fn torrent(complete: bool) -> Torrent {
    let settings = Settings {
        infohash: InfoHash::of(b"bench"),
        peer_id: PeerId(*b"-SP0100-AAAAAAAAAAAA"),
        listen_port: None,
        swarming_interval: Duration::from_secs(1),
        sequential: false,
        metadata: Bytes::new(),
        private: false,
        pex: false,
        dht_port: None,
        connection_max: 10,
    };
    let piece_count = geometry().piece_count();
    let have = if complete { Bitfield::full(piece_count) } else { Bitfield::new(piece_count) };
    let (wanted, rng) = (Bitfield::full(piece_count), Rng::from_number(1));
    let mut torrent = Torrent::new(settings, geometry(), have, wanted, rng, Instant::ZERO);
    let connected = Connected {
        addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 6881)),
        direction: Direction::Incoming,
        peer_id: PeerId(*b"-SP0100-BBBBBBBBBBBB"),
        capabilities: Capabilities { fast: true, extensions: true, ..Capabilities::default() },
    };
    torrent.handle_connected(Instant::ZERO, CONN, connected);
    torrent
}

fn geometry() -> Geometry {
    Geometry::new(TOTAL_LEN, PIECE_LEN).expect("a sound geometry")
}

fn blocks() -> impl Iterator<Item = Block> {
    let geometry = geometry();
    (0..geometry.piece_count()).flat_map(move |piece| {
        (0..geometry.block_count(piece)).map(move |index| geometry.block(piece, index))
    })
}

fn storage(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = DraftFile { path: vec!["content".into()], len: TOTAL_LEN, executable: false };
    let draft = Draft { name: "content".into(), files: vec![file], piece_len: PIECE_LEN, ..Draft::default() };
    let info: Info =
        draft.finish(vec![7; geometry().piece_count() as usize * 20].into()).expect("a torrent").info;
    let files = RealFs::create(folder.path(), &Handles::new(HANDLE_MAX)).expect("a folder");
    let content = Content::new(info, Vec::new(), files);
    let block = vec![7; BLOCK_LEN as usize];
    let piece = vec![&block[..]; (PIECE_LEN / BLOCK_LEN) as usize];
    for at in 0..geometry().piece_count() {
        content.write_piece(at, &piece).expect("room");
    }
    let blocks: Vec<Block> = blocks().collect();
    let mut batches = blocks.chunks(BATCH).cycle();
    let mut buffers = vec![vec![0; BLOCK_LEN as usize]; BATCH];
    let mut group = criterion.benchmark_group("storage");
    group.throughput(Throughput::Bytes(BATCH as u64 * u64::from(BLOCK_LEN)));
    group.bench_function("read at once", |bencher| {
        bencher.iter(|| {
            let batch = batches.next().expect("they go round");
            let mut batch: Vec<_> = batch.iter().copied().zip(&mut buffers[..]).collect();
            assert_eq!(content.read_at_once(&mut batch), BATCH, "a file system that tells what is in memory");
        });
    });
    group.finish();
}

criterion_group!(benches, machines, storage);
criterion_main!(benches);
