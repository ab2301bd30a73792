//! Peers that send without end what nobody asked for: the memory of a real process stays where it
//! is.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use sprat::engine::Metainfo;
use sprat::proto::peer_id::PeerId;
use sprat::proto::wire::extension::SP_HAVE_ID;
use sprat::proto::wire::handshake::{Capabilities, HANDSHAKE_LEN, Handshake};
use sprat::proto::wire::message::{Message, block_header};
use sprat::proto::wire::metadata::{MetadataMessage, UT_METADATA_ID};
use sprat::proto::wire::pex::UT_PEX_ID;

use crate::process::{Sprat, content, sprat};

/// Bytes sent by all peers together, unless they are disconnected before: many times what the
/// process may take.
const SENT_LEN: usize = 160 << 20;
/// As [`SENT_LEN`] of messages of seven bytes, each of which costs as much work as one of a block.
const SMALL_SENT_LEN: usize = 16 << 20;
/// Bytes of memory that a process may take beyond what it takes while nothing happens: places for 1
/// MiB of one connection and the rest of what a start takes.
const GROWTH_MAX: u64 = 24 << 20;
/// Longest wait for the process to sleep: far above anything a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest message that a peer may begin: 128 KiB of payload, its number and its type.
const PAYLOAD_LEN: usize = 128 << 10;

fn extended(id: u8, payload: Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Message::Extended { id, payload: payload.into() }.encode(&mut bytes);
    bytes
}

/// A torrent of which nothing is there.
fn torrent(dir: &Path) -> Metainfo {
    content(dir, &[("set", 3_000_000)]);
    assert_eq!(sprat(dir, &["create", "set"]).code, Some(0));
    Metainfo::decode(&std::fs::read(dir.join("set.torrent")).unwrap()).unwrap()
}

/// A download that dials so many peers, and their connections after both handshakes.
fn dialled(dir: &Path, metainfo: &Metainfo, name: &str, count: u8) -> (Sprat, Vec<TcpStream>) {
    let peers: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addrs: Vec<_> = peers.iter().map(|peer| peer.local_addr().unwrap().to_string()).collect();
    let mut args = vec!["download", name, "-d", "copy", "-p", "0", "--json", "--max-peers", "100"];
    args.extend(addrs.iter().flat_map(|addr| ["--peer", addr]));
    let download = Sprat::start(dir, &args);
    let shake = |(number, peer): (usize, &TcpListener)| {
        let (mut socket, _) = peer.accept().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let capabilities = Capabilities { extensions: true, fast: true, ..Capabilities::default() };
        let mut peer_id = PeerId(*b"-XX0000-abcdefghijkl");
        peer_id.0[19] = number as u8;
        let ours = Handshake { capabilities, infohash: metainfo.info.infohash, peer_id };
        socket.write_all(&ours.encode()).unwrap();
        socket.read_exact(&mut [0; HANDSHAKE_LEN]).unwrap();
        socket
    };
    let sockets = peers.iter().enumerate().map(shake).collect();
    (download, sockets)
}

/// Bytes by which a download grows that dials peers each of which sends `message` over and over,
/// and how many bytes of theirs it took.
fn growth(
    dir: &Path,
    metainfo: &Metainfo,
    name: &str,
    message: &[u8],
    count: u8,
    sent_len: usize,
) -> (u64, usize) {
    let (download, sockets) = dialled(dir, metainfo, name, count);
    let quiet = download.memory("VmRSS");
    let flood = |mut socket: TcpStream| {
        let mut answers = socket.try_clone().unwrap();
        // The end of the connection is no error.
        std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
        let message_count = sent_len / usize::from(count) / message.len();
        (0..message_count).take_while(|_| socket.write_all(message).is_ok()).count() * message.len()
    };
    let sent = std::thread::scope(|scope| {
        let floods: Vec<_> = sockets.into_iter().map(|socket| scope.spawn(move || flood(socket))).collect();
        floods.into_iter().map(|flood| flood.join().unwrap()).sum()
    });
    (download.memory("VmHWM").saturating_sub(quiet), sent)
}

#[test]
fn what_nobody_asked_for_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let metainfo = torrent(dir.path());
    let link = format!("magnet:?xt=urn:btih:{}", metainfo.info.infohash);
    let block = metainfo.info.geometry.block(0, 0);
    let total_len = metainfo.info.bytes.len() as u32;
    let piece = MetadataMessage::Data { piece: 0, total_len, bytes: vec![7; 16 << 10].into() };
    let padded = format!("d1:md6:ut_pexi1ee1:v16000:{}e", "v".repeat(16_000));
    // A delta of nothing gained, which the torrent reads and takes note of.
    let nothing_gained = extended(SP_HAVE_ID, vec![1]).repeat(8 << 10);
    for (what, message, peer_count, is_sustained) in [
        ("an unknown extension", extended(77, vec![7; PAYLOAD_LEN]), 1, true),
        ("an unknown extension of twenty peers", extended(77, vec![7; PAYLOAD_LEN]), 20, true),
        ("handshakes", extended(0, padded.into_bytes()).repeat(8), 1, true),
        ("availability", nothing_gained, 1, true),
        // The peer is disconnected after some of these.
        ("long gossip", extended(UT_PEX_ID, vec![7; PAYLOAD_LEN]), 1, false),
        ("metadata", extended(UT_METADATA_ID, piece.encode().to_vec()).repeat(8), 1, false),
        ("blocks", [&block_header(block)[..], &vec![7; block.len as usize]].concat().repeat(8), 1, false),
    ] {
        for name in ["set.torrent", &link] {
            let sent_len = if what == "availability" { SMALL_SENT_LEN } else { SENT_LEN };
            let (growth, sent) = growth(dir.path(), &metainfo, name, &message, peer_count, sent_len);
            println!("{what}, {name}: {growth} bytes of {sent}");
            assert!(growth <= GROWTH_MAX, "{what}, {name}: {growth} bytes of {sent}");
            let is_whole = sent + usize::from(peer_count) * message.len() > sent_len;
            assert!(is_whole || !is_sustained, "{what}, {name}: disconnected after {sent} bytes");
        }
    }
}

/// Sends to each connection what the process takes of it, until all is sent or the process sleeps;
/// the bytes sent.
#[expect(clippy::disallowed_methods, reason = "a limit for a test that waits for another process")]
fn send_what_is_taken(download: &Sprat, sockets: &mut [TcpStream], bytes: &[u8]) -> u64 {
    let until = Instant::now() + PATIENCE;
    let mut sent = vec![0; sockets.len()];
    sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
    loop {
        let before: usize = sent.iter().sum();
        for (socket, sent) in sockets.iter_mut().zip(&mut sent) {
            *sent += socket.write(&bytes[*sent..]).unwrap_or(0);
        }
        let now: usize = sent.iter().sum();
        if before == now && download.is_asleep() {
            return now as u64;
        }
        assert!(Instant::now() < until, "the process does not sleep");
        std::thread::yield_now();
    }
}

/// Peers whose messages never end.
const PEERS: u8 = 20;

#[test]
fn messages_that_never_end_take_what_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let metainfo = torrent(dir.path());
    let link = format!("magnet:?xt=urn:btih:{}", metainfo.info.infohash);
    let bitfield = [&(1_u32 << 19).to_be_bytes()[..], &[5], &vec![0; (1 << 19) - 2]].concat();
    for (name, begun) in [("set.torrent", extended(77, vec![7; PAYLOAD_LEN])), (&link, bitfield)] {
        let (download, mut sockets) = dialled(dir.path(), &metainfo, name, PEERS);
        let quiet = download.memory("VmRSS");
        let sent = send_what_is_taken(&download, &mut sockets, &begun[..begun.len() - 1]);
        let growth = download.memory("VmHWM").saturating_sub(quiet);
        println!("{name}: {growth} bytes of {sent}");
        assert_eq!(sent, u64::from(PEERS) * (begun.len() as u64 - 1), "{name}: all is taken");
        assert!(growth <= sent + GROWTH_MAX / 2, "{name}: {growth} bytes of {sent}");
    }
}
