//! Where the system or the user sets limits: few descriptors, rates, and a user who will not wait.

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::process::{Sprat, content, sprat, tree};

fn assert_same(dir: &Path) {
    assert!(tree(&dir.join("set")) == tree(&dir.join("copy/set")), "the copy differs");
}

#[test]
fn many_small_files_need_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let names: Vec<String> = (0..2_500).map(|at| format!("{}/{}/f{at}", at % 7, at % 91)).collect();
    let deep = format!("{}end", "d/".repeat(60));
    let mut files: Vec<(&str, usize)> =
        names.iter().enumerate().map(|(at, name)| (name.as_str(), at % 900)).collect();
    files.extend([(deep.as_str(), 5), ("a 'c' $(d) ;é.txt", 6), ("%41&=", 7), ("--", 8)]);
    content(&path.join("set"), &files);
    let few = |args: &str| {
        let line = format!("ulimit -n 256; exec '{}' {args}", env!("CARGO_BIN_EXE_sprat"));
        Sprat::start_program(Path::new("/bin/sh"), path, &["-c", &line], &[])
    };
    let mut seed = few("seed set -p 0 --json");
    let peer = format!("127.0.0.1:{}", seed.event("seeding")["port"]);
    let ended = few(&format!("download set.torrent -d copy -p 0 --peer {peer}")).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_same(path);
    assert_eq!(few("verify set.torrent -d copy").end().code, Some(0));
}

#[test]
fn rates_are_kept_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    content(path, &[("set", 1_500_000)]);
    for (up, down) in [("500KB", "0"), ("0", "500KB")] {
        let mut seed = Sprat::start(path, &["seed", "set", "-p", "0", "--json", "--up-limit", up]);
        let peer = format!("127.0.0.1:{}", seed.event("seeding")["port"]);
        let copy = format!("copy-{up}");
        let args = [
            "download",
            "set.torrent",
            "-d",
            &copy,
            "-p",
            "0",
            "--json",
            "--peer",
            &peer,
            "--down-limit",
            down,
        ];
        let mut download = Sprat::start(path, &args);
        let seconds = download.event("completed")["seconds"].as_f64().unwrap();
        // 3 s, of which a burst may save some; a loaded machine may take longer.
        assert!((1.5..30.0).contains(&seconds), "up {up}, down {down}: {seconds} s");
    }
}

/// Far above what ending takes, far below the 5 s that good-byes get.
const AT_ONCE: Duration = Duration::from_secs(3);

#[test]
#[expect(clippy::disallowed_methods, reason = "how long a real process takes is the matter")]
fn a_second_ctrl_c_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    content(path, &[("set", 3_000_000)]);
    // A tracker that greets and does not answer the goodbye.
    let tracker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/announce", tracker.local_addr().unwrap());
    assert_eq!(sprat(path, &["create", "set", "--tracker", &url]).code, Some(0));
    let mut download = Sprat::start(path, &["download", "set.torrent", "-d", "copy", "-p", "0", "--json"]);
    let (mut greeted, _) = tracker.accept().unwrap();
    // An answer to what was not asked yet is none.
    assert_ne!(greeted.read(&mut [0; 4096]).unwrap(), 0);
    let body = "d8:intervali1800e5:peers0:e";
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    greeted.write_all(answer.as_bytes()).unwrap();
    download.event("tracker");
    drop(greeted);
    download.signal("INT");
    let (_unanswered, _) = tracker.accept().unwrap();
    let start = std::time::Instant::now();
    download.signal("INT");
    let ended = download.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

/// Seconds of processor that a process has used, all its threads, in the kernel's ticks of 10 ms.
fn processor_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    ticks as f64 / 100.0
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long a real process takes is the matter")]
fn without_descriptors_a_seed_rests_and_with_them_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    content(&path.join("set"), &[("a", 3_000_001), ("b", 100_000)]);
    let line = format!("ulimit -n 64; exec '{}' seed set -p 0 -v", env!("CARGO_BIN_EXE_sprat"));
    let mut seed = Sprat::start_program(Path::new("/bin/sh"), path, &["-c", &line], &[]);
    let told = seed.line("Seeding ");
    let port: u16 = told.rsplit(' ').next().unwrap().parse().unwrap();
    // More than it has descriptors for; they say nothing, and are hung up on after a while.
    let idle: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    seed.line("cannot accept");
    let (began_at, began) = (Instant::now(), processor_seconds(seed.id()));
    for _ in 0..8 {
        seed.line("cannot accept");
    }
    let (span, used) = (began_at.elapsed().as_secs_f64(), processor_seconds(seed.id()) - began);
    // Four tries a second for each of two sockets, and nothing between them; a tick more for how
    // ticks are counted.
    assert!(span > 0.9, "{span} s for eight tries");
    assert!(used < span * 0.05 + 0.02, "{used} s of processor in {span} s");
    drop(idle);
    let args = ["download", "set.torrent", "-d", "copy", "-p", "0", "--peer", &format!("127.0.0.1:{port}")];
    let ended = sprat(path, &args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_same(path);
}

#[test]
fn a_download_with_hardly_any_descriptors_finishes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let names: Vec<String> = (0..300).map(|at| format!("{}/f{at}", at % 7)).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 20_000)).collect();
    content(&path.join("set"), &files);
    let mut seed = Sprat::start(path, &["seed", "set", "-p", "0", "--json"]);
    let peer = format!("127.0.0.1:{}", seed.event("seeding")["port"]);
    // Peers that are not there, of which each costs a descriptor to try.
    let others: String = (1..60).map(|host| format!(" --peer 127.0.1.{host}:1")).collect();
    let binary = env!("CARGO_BIN_EXE_sprat");
    let line =
        format!("ulimit -n 32; exec '{binary}' download set.torrent -d copy -p 0{others} --peer {peer}");
    let ended = Sprat::start_program(Path::new("/bin/sh"), path, &["-c", &line], &[]).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_same(path);
}
