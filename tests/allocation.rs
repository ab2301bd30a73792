//! What hostile input may cost in memory: the peak of the heap while each decoder reads the worst
//! that was thought of. One test in a binary of its own, because the allocator counts for the whole
//! process.

#![cfg(test)]

use bytes::{Bytes, BytesMut};
use peak_alloc::PeakAlloc;
use sprat::proto::bencode::{Limits, scan};
use sprat::proto::dht::krpc::{self, Body};
use sprat::proto::dht::node_id::NodeId;
use sprat::proto::dht::peers::{PEER_COUNT_MAX, PeerStore, TORRENT_COUNT_MAX};
use sprat::proto::infohash::InfoHash;
use sprat::proto::metainfo::Metainfo;
use sprat::proto::metainfo::magnet::Magnet;
use sprat::proto::peer_id::PeerId;
use sprat::proto::rng::Rng;
use sprat::proto::time::{Duration, Instant};
use sprat::proto::torrent::Torrent;
use sprat::proto::torrent::event::{ConnId, Connected, Direction, Output, Settings};
use sprat::proto::torrent::metadata::METADATA_LEN_MAX;
use sprat::proto::wire::decoder::Decoder;
use sprat::proto::wire::extension::ExtensionHandshake;
use sprat::proto::wire::handshake::Capabilities;
use sprat::proto::wire::message::Message;
use sprat::proto::wire::metadata::MetadataMessage;
use sprat::proto::wire::sp_have;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Bytes of heap of a generator that was drawn from.
const GENERATOR_LEN: usize = 320;
/// What any decoder may use whatever its input: messages of errors, first allocations of vectors.
const BASE_LEN: usize = 64 << 10;

/// Peak of the heap above what was there before, while `read` runs.
fn peak(read: impl FnOnce()) -> usize {
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    read();
    HEAP.peak_usage().saturating_sub(before)
}

/// A torrent of `count` empty files with the shortest names there are.
fn many_files(count: usize) -> Vec<u8> {
    let files: String = (0..count)
        .map(|number| {
            let name = format!("{number:x}");
            format!("d6:lengthi0e4:pathl{}:{name}ee", name.len())
        })
        .collect();
    format!("d4:infod5:filesl{files}e4:name1:n12:piece lengthi16384e6:pieces0:ee").into_bytes()
}

/// Connections of a torrent that fetches its metadata, and what each of them may cost.
const LIAR_COUNT: u32 = 200;
const LIAR_COST: usize = 4 << 10;

/// Peers that claim the longest metadata there may be, get room for it, and send none of it.
fn describe_by_liars() {
    let settings = Settings {
        infohash: InfoHash([1; 20]),
        peer_id: PeerId([255; 20]),
        listen_port: None,
        swarming_interval: Duration::from_secs(1),
        sequential: false,
        metadata: Bytes::new(),
        private: false,
        pex: false,
        dht_port: None,
        connection_max: LIAR_COUNT as usize,
    };
    let mut torrent = Torrent::without_metadata(settings, Rng::from_number(1), Instant::ZERO);
    let capabilities = Capabilities { dht: false, fast: true, extensions: true, v2: false };
    for number in 0..LIAR_COUNT {
        let [_, _, high, low] = number.to_be_bytes();
        let connected = Connected {
            addr: ([80, 1, high, low], 6881).into(),
            direction: Direction::Incoming,
            peer_id: PeerId([low; 20]),
            capabilities,
        };
        let handshake = ExtensionHandshake {
            ut_metadata: Some(1),
            metadata_size: Some(METADATA_LEN_MAX - number),
            ..ExtensionHandshake::default()
        };
        let said = Message::Extended { id: 0, payload: handshake.encode() };
        torrent.handle_connected(Instant::ZERO, ConnId(number), connected);
        torrent.handle_message(Instant::ZERO, ConnId(number), said);
        while let Some(output) = torrent.poll_output() {
            if let Output::ReserveMetadata(len) = output {
                torrent.handle_metadata_reserved(Instant::ZERO, len);
            }
        }
    }
    assert_eq!(torrent.metadata_progress().unwrap().source_count, LIAR_COUNT as usize);
}

/// Name, bytes that came, how many times their length the heap may grow, how they are read.
type Case = (&'static str, usize, usize, Box<dyn FnOnce()>);

#[test]
fn memory_stays_in_proportion_to_what_was_received() {
    let mut rng = Rng::from_number(5);
    let mut random = vec![0; 1 << 20];
    rng.fill(&mut random);
    let deep = vec![b'l'; 1 << 20];
    let tokens = [b"l".as_slice(), &b"0:".repeat(1 << 19), b"e"].concat();
    let files = many_files(50_000);
    let trackers = format!("magnet:?xt=urn:btih:{}{}", "a".repeat(40), "&tr=udp://a".repeat(5_000));
    assert!(
        Metainfo::decode(&files).is_ok() && trackers.parse::<Magnet>().is_ok(),
        "refused for another reason"
    );
    let extension = [b"d1:md".as_slice(), &b"1:ai1e".repeat(15_000), b"ee"].concat();
    let gaps = [[1].as_slice(), &[0; 100_000]].concat();
    let prefixes: Vec<u8> = [0, 1, 0xff, 0xff, 20].repeat(1_000);

    let metadata = Bytes::from([b"d1:al".as_slice(), &b"0:".repeat(60_000), b"ee"].concat());
    let cases: [Case; 12] = [
        ("depth", deep.len(), 0, Box::new(move || drop(scan(&deep, &Limits::METAINFO)))),
        ("tokens", tokens.len(), 0, Box::new(move || drop(scan(&tokens, &Limits::METAINFO)))),
        ("random", random.len(), 0, Box::new(move || drop(Metainfo::decode(&random)))),
        ("files", files.len(), 12, Box::new(move || drop(Metainfo::decode(&files)))),
        ("magnet", trackers.len(), 12, Box::new(move || drop(trackers.parse::<Magnet>()))),
        ("extension", extension.len(), 1, Box::new(move || drop(ExtensionHandshake::decode(&extension)))),
        ("sp_have", gaps.len(), 8, Box::new(move || drop(sp_have::decode(&gaps, 200_000)))),
        ("bitfield", 5, 0, Box::new(|| assert_eq!(decode(&[0, 2, 0, 1, 5], 1 << 20), 0))),
        ("field of any torrent", 5, 0, Box::new(|| assert_eq!(decode(&[0, 8, 0, 1, 5], None), 0))),
        ("metadata", metadata.len(), 0, Box::new(move || drop(MetadataMessage::decode(&metadata)))),
        ("claims of 32 MiB", LIAR_COUNT as usize, LIAR_COST, Box::new(describe_by_liars)),
        ("prefixes", prefixes.len(), 2, Box::new(move || assert_eq!(decode(&prefixes, 1 << 20), 1))),
    ];
    for (name, len, factor, read) in cases {
        let used = peak(read);
        println!("{name}: {used} bytes of heap for {len} of input");
        assert!(used <= BASE_LEN + factor * len, "{name}: {used} bytes of heap for {len} of input");
    }
    reading_krpc_takes_no_heap();
    a_store_takes_what_its_peers_do();
}

/// Messages of the DHT are read where they lie, with all that is in them, and refused without a
/// trace.
fn reading_krpc_takes_no_heap() {
    let id = "2:id20:abcdefghij0123456789";
    let nodes = "abcdefghijklmnopqrstuvwxyz".repeat(50);
    let peers = "6:abcdef".repeat(100);
    let answer = format!("d1:rd{id}5:nodes{}:{nodes}6:valuesl{peers}ee1:t1:t1:y1:re", nodes.len());
    let query = format!("d1:ad{id}1:vl{}e5:token0:e1:q3:put1:t1:t1:y1:qe", "0:".repeat(200));
    let bomb = format!("d1:ad{id}1:v{}", "l".repeat(60_000));
    let used = peak(|| {
        for datagram in [&answer, &query, &bomb, "d1:t", ""] {
            if let Ok(message) = krpc::decode(datagram.as_bytes())
                && let Body::Response(response) = message.body
            {
                assert_eq!((response.nodes().count(), response.peers().count()), (32, 100));
            }
        }
    });
    assert_eq!(used, 0, "bytes of heap for messages of the DHT");
}

/// An empty store of peers takes no heap but for a generator that was drawn from, and a full one
/// less than 24 bytes a peer.
fn a_store_takes_what_its_peers_do() {
    let mut store = None;
    assert!(peak(|| store = Some(PeerStore::new(Rng::from_number(1)))) <= GENERATOR_LEN);
    let Some(mut store) = store else { unreachable!("it was made above") };
    let used = peak(|| {
        for number in 0..(TORRENT_COUNT_MAX * PEER_COUNT_MAX) as u32 {
            let (torrent, peer) = (number % TORRENT_COUNT_MAX as u32, number / TORRENT_COUNT_MAX as u32);
            let mut infohash = NodeId([0; 20]);
            infohash.0[..4].copy_from_slice(&torrent.to_be_bytes());
            // Each peer of a torrent in a network of its own.
            let ip = [8, (torrent / 16) as u8, peer as u8, 8];
            assert!(store.insert(Instant::ZERO, infohash, (ip, 1).into(), false));
        }
    });
    let (torrents, peers) = store.counts();
    println!("peers: {used} bytes of heap for {peers} peers of {torrents} torrents");
    assert_eq!((torrents, peers), (TORRENT_COUNT_MAX, TORRENT_COUNT_MAX * PEER_COUNT_MAX));
    assert!(used <= 24 * peers + 128 * torrents, "{used} bytes of heap for {peers} peers");
}

/// Frames of a stream until it ends or breaks the protocol.
fn decode(stream: &[u8], piece_count: impl Into<Option<u32>>) -> usize {
    let mut buffer = BytesMut::from(stream);
    let mut decoder = Decoder::new(piece_count);
    std::iter::from_fn(|| decoder.decode(&mut buffer).ok().flatten()).count()
}
