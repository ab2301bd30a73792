//! Peers that send without end what nobody asked for: the memory of a real process stays where it is.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use sprat::engine::Metainfo;
use sprat::proto::peer_id::PeerId;
use sprat::proto::wire::extension::SP_HAVE_ID;
use sprat::proto::wire::handshake::{Capabilities, HANDSHAKE_LEN, Handshake};
use sprat::proto::wire::message::{Message, block_header};
use sprat::proto::wire::metadata::{MetadataMessage, UT_METADATA_ID};
use sprat::proto::wire::pex::UT_PEX_ID;

use crate::process::{Sprat, content, sprat};

/// Bytes sent by each peer, unless it is hung up on before: more than twice what the process may take.
const SENT_LEN: usize = 160 << 20;
/// Bytes of memory that a process may take beyond what it takes while nothing happens.
const GROWTH_MAX: u64 = 64 << 20;
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

/// Bytes by which a download grows that dials a peer who sends `message` over and over.
fn growth(dir: &Path, metainfo: &Metainfo, name: &str, message: &[u8]) -> u64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap().to_string();
    let args = ["download", name, "-d", "copy", "-p", "0", "--json", "--peer", &peer];
    let download = Sprat::start(dir, &args);
    let (mut socket, _) = listener.accept().unwrap();
    let capabilities = Capabilities { extensions: true, fast: true, ..Capabilities::default() };
    let infohash = metainfo.info.infohash;
    let ours = Handshake { capabilities, infohash, peer_id: PeerId(*b"-XX0000-abcdefghijkl") };
    socket.write_all(&ours.encode()).unwrap();
    socket.read_exact(&mut [0; HANDSHAKE_LEN]).unwrap();
    let mut answers = socket.try_clone().unwrap();
    // That it is hung up on is no error.
    std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    let quiet = download.memory("VmRSS");
    for _ in 0..SENT_LEN / message.len() {
        if socket.write_all(message).is_err() {
            break;
        }
    }
    download.memory("VmHWM").saturating_sub(quiet)
}

#[test]
fn what_nobody_asked_for_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let metainfo = torrent(dir.path());
    let link = format!("magnet:?xt=urn:btih:{}", metainfo.info.infohash);
    let block = metainfo.info.geometry.block(0, 0);
    let total_len = metainfo.info.bytes.len() as u32;
    let piece = MetadataMessage::Data { piece: 0, total_len, bytes: vec![7; 16 << 10].into() };
    for (what, message) in [
        ("an unknown extension", extended(77, vec![7; PAYLOAD_LEN])),
        ("long gossip", extended(UT_PEX_ID, vec![7; PAYLOAD_LEN])),
        ("availability", extended(SP_HAVE_ID, vec![7; PAYLOAD_LEN])),
        ("metadata", extended(UT_METADATA_ID, piece.encode().to_vec()).repeat(8)),
        ("blocks", [&block_header(block)[..], &vec![7; block.len as usize]].concat().repeat(8)),
    ] {
        for name in ["set.torrent", &link] {
            let growth = growth(dir.path(), &metainfo, name, &message);
            assert!(growth <= GROWTH_MAX, "{what}, {name}: {growth} bytes");
        }
    }
}

#[test]
fn messages_that_never_end_take_what_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let metainfo = torrent(dir.path());
    let link = format!("magnet:?xt=urn:btih:{}", metainfo.info.infohash);
    let peers: Vec<_> = (0..60).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addrs: Vec<_> = peers.iter().map(|peer| peer.local_addr().unwrap().to_string()).collect();
    let bitfield = [&(1_u32 << 19).to_be_bytes()[..], &[5], &vec![0; (1 << 19) - 2]].concat();
    for (name, begun) in [("set.torrent", extended(77, vec![7; PAYLOAD_LEN])), (&link, bitfield)] {
        let mut args = vec!["download", name, "-d", "copy", "-p", "0", "--json", "--max-peers", "100"];
        args.extend(addrs.iter().flat_map(|addr| ["--peer", addr]));
        let download = Sprat::start(dir.path(), &args);
        let quiet = download.memory("VmRSS");
        let mut sockets = Vec::new();
        for (number, peer) in peers.iter().enumerate() {
            let (mut socket, _) = peer.accept().unwrap();
            let capabilities = Capabilities { extensions: true, ..Capabilities::default() };
            let mut peer_id = PeerId(*b"-XX0000-abcdefghijkl");
            peer_id.0[19] = number as u8;
            let ours = Handshake { capabilities, infohash: metainfo.info.infohash, peer_id };
            socket.write_all(&ours.encode()).unwrap();
            socket.set_nonblocking(true).unwrap();
            sockets.push((socket, &begun[..begun.len() - 1]));
        }
        // As much as the other side and the system take of each.
        for _ in 0..50 {
            for (socket, rest) in &mut sockets {
                if let Ok(len) = socket.write(rest) {
                    *rest = &rest[len..];
                }
            }
            std::thread::yield_now();
        }
        let growth = download.memory("VmHWM").saturating_sub(quiet);
        assert!(growth <= GROWTH_MAX, "{name}: {growth} bytes");
    }
}
