//! What cannot be talked to yet is said, or told so: peers that require encryption, uTP, and web
//! seeds.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use crate::process::{Sprat, content, sprat};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A torrent of one file, in `dir`; `options` are those of `create`.
fn torrent(dir: &Path, options: &[&str]) {
    content(dir, &[("file", 100_000)]);
    assert_eq!(sprat(dir, &[&["create", "file", "-o", "t.torrent"], options].concat()).code, Some(0));
    fs::create_dir(dir.join("to")).unwrap();
}

/// A peer that closes every connection which begins with a plain handshake, as one does that
/// requires encryption.
fn encrypted_peer() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut handshake = [0; 68];
            stream.unwrap().read_exact(&mut handshake).unwrap();
        }
    });
    addr
}

fn download(dir: &Path, peers: &[SocketAddr], more: &[&str]) -> Sprat {
    let peers: Vec<String> = peers.iter().map(SocketAddr::to_string).collect();
    let mut args = vec!["download", "t.torrent", "-d", "to"];
    peers.iter().for_each(|peer| args.extend(["--peer", peer]));
    Sprat::start(dir, &[&args, more].concat())
}

#[test]
fn peers_that_close_without_a_handshake_are_counted_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    torrent(dir.path(), &[]);
    let peers = [encrypted_peer(), encrypted_peer()];
    let mut plain = download(dir.path(), &peers, &[]);
    let line = plain.line("encryption");
    assert_eq!(
        line,
        "2 peers were reached but closed the connection without a handshake; they may require encryption, \
         which is not supported yet"
    );
    drop(plain);
    let mut for_programs = download(dir.path(), &peers[..1], &["--json"]);
    let port = for_programs.event("started")["port"].as_u64().unwrap();
    for_programs.event("checked");
    // The peer dials, too: a public key of 768 bits comes first.
    let mut dialled = TcpStream::connect((Ipv4Addr::LOCALHOST, port as u16)).unwrap();
    let key: Vec<u8> = (0..120_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    dialled.write_all(&key).unwrap();
    let refused = for_programs.event("peers_refused");
    assert_eq!((refused["peers"].as_u64(), refused["evidence"].as_str()), (Some(1), Some("both")));
    assert_eq!(dialled.read(&mut [0; 100]).unwrap_or(0), 0, "who encrypts is told nothing");
}

#[test]
fn who_opens_a_utp_connection_is_told_that_there_are_none() {
    let dir = tempfile::tempdir().unwrap();
    torrent(dir.path(), &[]);
    let mut seed = Sprat::start(dir.path(), &["seed", "t.torrent", "-d", ".", "--json"]);
    let port = seed.event("seeding")["port"].as_u64().unwrap();
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    peer.connect((Ipv4Addr::LOCALHOST, port as u16)).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let syn = [0x41, 0, 0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x10, 0, 0, 0xab, 0xcd, 0, 0];
    peer.send(&syn).unwrap();
    let mut answer = [0; 100];
    assert_eq!(peer.recv(&mut answer).unwrap(), 20);
    assert_eq!((answer[0], &answer[2..4], &answer[18..20]), (0x31, &syn[2..4], &syn[16..18]));
}

#[test]
fn a_torrent_that_names_only_web_seeds_says_that_they_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    torrent(dir.path(), &["--web-seed", "http://127.0.0.1:1/file"]);
    let mut alone = download(dir.path(), &[], &[]);
    alone.line("names only web seeds, which are not used yet");
    drop(alone);
    let shown = sprat(dir.path(), &["show", "t.torrent"]);
    let is_told = |line: &String| line.contains("names only web seeds, which are not used yet");
    assert!(shown.out.iter().any(is_told), "{shown:?}");
    let link = format!("magnet:?xt=urn:btih:{}&ws=http://127.0.0.1:1/file", "0".repeat(40));
    let shown = sprat(dir.path(), &["show", "--offline", &link]);
    assert!(shown.out.iter().any(is_told), "{shown:?}");
    let tracked =
        sprat(dir.path(), &["show", "--offline", &format!("{link}&tr=http://127.0.0.1:1/announce")]);
    assert!(!tracked.out.iter().any(is_told), "{tracked:?}");
    let mut with_peer = download(dir.path(), &[encrypted_peer()], &[]);
    with_peer.line("encryption");
    with_peer.signal("INT");
    let said = with_peer.end();
    assert!(!said.err.iter().any(|line| line.contains("web seeds")), "{said:?}");
}
