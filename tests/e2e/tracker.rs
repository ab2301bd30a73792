//! `sprat` with `sprat-tracker` as another process: both transports, both families, what the
//! tracker counts.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process::{Sprat, content, sprat, tree};

/// Its binary, which a build of the whole workspace puts beside ours.
fn binary() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_sprat")).with_file_name("sprat-tracker");
    if path.exists() {
        return Some(path);
    }
    println!("sprat-tracker is not there (build the whole workspace): nothing to show");
    None
}

/// A running tracker and where it listens, in the order of `args`.
struct Tracker {
    process: Sprat,
    addrs: Vec<String>,
}

impl Tracker {
    fn start(binary: &Path, args: &[&str]) -> Self {
        let args = [args, &["--workers", "1"]].concat();
        let mut process = Sprat::start_program(binary, Path::new("/"), &args, &[]);
        let addr = |_| process.line("listening").split(' ').nth(2).unwrap().to_owned();
        let addrs = (0..args.len() / 2 - 1).map(addr).collect();
        Self { process, addrs }
    }

    fn end(self) {
        self.process.signal("TERM");
        let ended = self.process.end();
        assert_eq!((ended.code, ended.err.len()), (Some(0), 0), "{ended:?}");
    }
}

/// One of the tracker's pages.
fn page(addr: &str, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let start = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    answer.split_off(start)
}

fn stats(addr: &str) -> Value {
    serde_json::from_slice(&page(addr, "/stats")).unwrap()
}

/// How often the one torrent of `torrent` was completed, by its scrape.
fn completed_count(addr: &str, infohash: &str) -> u64 {
    let escaped: String =
        infohash.as_bytes().chunks(2).map(|hex| format!("%{}", str::from_utf8(hex).unwrap())).collect();
    let answer = page(addr, &format!("/scrape?info_hash={escaped}"));
    let text = String::from_utf8_lossy(&answer).into_owned();
    let rest = &text[text.find("10:downloadedi").unwrap() + "10:downloadedi".len()..];
    rest[..rest.find('e').unwrap()].parse().unwrap()
}

fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    content(&dir.path().join("set"), &[("large.bin", 400_001), ("small", 12), ("empty", 0)]);
    dir
}

#[test]
fn both_transports_and_families_bring_peers_together() {
    let Some(binary) = binary() else { return };
    let hosts =
        if TcpListener::bind("[::1]:0").is_ok() { &["127.0.0.1", "[::1]"][..] } else { &["127.0.0.1"] };
    for host in hosts {
        let any = format!("{host}:0");
        let tracker = Tracker::start(&binary, &["--udp", &any, "--http", &any]);
        let http = tracker.addrs[1].clone();
        for (scheme, addr) in [("udp", &tracker.addrs[0]), ("http", &http)] {
            let dir = workplace();
            let url = format!("{scheme}://{addr}/announce");
            let args = ["seed", "set", "-p", "0", "--json", "--tracker", &url, "--ratio", "1"];
            let mut seed = Sprat::start(dir.path(), &args);
            seed.event("tracker");
            assert_eq!(stats(&http)["seeders"], 1, "{url}");
            let ended = sprat(dir.path(), &["download", "set.torrent", "-d", "copy", "-p", "0"]);
            assert_eq!(ended.code, Some(0), "{url}: {ended:?}");
            assert!(tree(&dir.path().join("set")) == tree(&dir.path().join("copy/set")), "{url}");
            assert_eq!(seed.end().code, Some(0));
            assert_eq!(stats(&http)["errors"], 0, "{url}");
            assert_eq!(stats(&http)["peers"], 0, "{url}");
        }
        let counted = stats(&http);
        assert!(counted["announces"].as_u64().unwrap() >= 10 && counted["connects"].as_u64().unwrap() >= 2);
        tracker.end();
    }
}

#[test]
fn a_tracker_that_comes_late_is_found_and_counts_each_completion_once() {
    let Some(binary) = binary() else { return };
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let dir = workplace();
    let url = format!("http://{addr}/announce");
    let mut seed = Sprat::start(dir.path(), &["seed", "set", "-p", "0", "--json", "--tracker", &url]);
    let infohash = seed.event("seeding")["infohash"].as_str().unwrap().to_owned();
    if !seed.has_said("warning") {
        seed.event("warning");
    }
    let args = ["download", "set.torrent", "-d", "copy", "-p", "0", "--json", "--seed"];
    let mut download = Sprat::start(dir.path(), &args);
    download.event("warning");
    let tracker = Tracker::start(&binary, &["--http", &addr]);
    download.event("completed");
    assert!(tree(&dir.path().join("set")) == tree(&dir.path().join("copy/set")));
    download.signal("INT");
    assert_eq!(download.end().code, Some(130));
    assert_eq!(completed_count(&addr, &infohash), 1);
    assert_eq!(stats(&addr)["peers"], 1, "who left is not handed out");

    // What was complete at the start completes nothing.
    let mut again = Sprat::start(dir.path(), &args);
    again.event("tracker");
    again.signal("INT");
    assert_eq!(again.end().code, Some(130));
    seed.signal("TERM");
    assert_eq!(seed.end().code, Some(0));
    assert_eq!(completed_count(&addr, &infohash), 1);
    assert_eq!(stats(&addr)["peers"], 0);
    tracker.end();
}
