//! What people and scripts do with `sprat`, and what they see.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;

use crate::process::{Ended, Sprat, content, sprat, tree};

/// A folder with `set/`: several files, odd names, empty ones.
fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    content(
        &dir.path().join("set"),
        &[
            ("large.bin", 3_000_001),
            ("deep/er/notes.txt", 12),
            ("deep/empty", 0),
            ("empty", 0),
            ("Grüße 漢字 🐟 'q\" *.iso", 70_000),
            ("-dash", 40_000),
        ],
    );
    dir
}

fn create(dir: &Path) {
    let made = sprat(dir, &["create", "set", "-o", "set.torrent", "--piece-size", "32768"]);
    assert_eq!(made.code, Some(0), "{made:?}");
}

/// A seed of `set` in `dir`, and the port it listens on.
fn seed(dir: &Path, more: &[&str]) -> (Sprat, u16) {
    let args = [&["seed", "set", "--port", "0", "--json"], more].concat();
    let mut seed = Sprat::start(dir, &args);
    let port = seed.event("seeding")["port"].as_u64().unwrap();
    (seed, port.try_into().unwrap())
}

fn assert_same(dir: &Path, copy: &Path) {
    assert!(tree(&dir.join("set")) == tree(&copy.join("set")), "{} differs", copy.display());
}

#[test]
fn what_is_created_is_shown_and_verified() {
    let dir = workplace();
    create(dir.path());
    let shown = sprat(dir.path(), &["show", "set.torrent", "--json", "--offline"]);
    assert_eq!((shown.code, shown.out.len()), (Some(0), 1));
    let object: Value = serde_json::from_str(&shown.out[0]).unwrap();
    let mut keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "files",
            "infohash_v1",
            "infohash_v2",
            "name",
            "oddities",
            "piece_count",
            "piece_length",
            "private",
            "renamed",
            "renamed_count",
            "total_size",
            "trackers",
            "version",
            "web_seeds"
        ]
    );
    assert_eq!((&object["name"], &object["version"]), (&"set".into(), &"v1".into()));
    assert_eq!(object["piece_length"], 32_768);
    assert_eq!(object["total_size"], 3_110_013);
    assert_eq!(object["files"].as_array().unwrap().len(), 6);

    assert_eq!(sprat(dir.path(), &["verify", "set.torrent"]).code, Some(0));
    let large = dir.path().join("set/large.bin");
    let mut bytes = std::fs::read(&large).unwrap();
    bytes[1_500_000] ^= 1;
    std::fs::write(&large, bytes).unwrap();
    std::fs::remove_file(dir.path().join("set/-dash")).unwrap();
    let verified = sprat(dir.path(), &["verify", "set.torrent"]);
    assert_eq!(verified.code, Some(3));
    assert!(verified.out.iter().any(|line| line.starts_with("damaged") && line.contains("large.bin")));
    assert!(verified.out.iter().any(|line| line.starts_with("missing") && line.contains("-dash")));
    assert!(!verified.out.iter().any(|line| line.contains("notes.txt")));
}

#[test]
fn equal_content_gives_equal_torrents_and_other_torrents_are_not_overwritten() {
    let dir = workplace();
    let path = dir.path();
    assert_eq!(sprat(path, &["create", "set"]).code, Some(0));
    let first = std::fs::read(path.join("set.torrent")).unwrap();
    assert_eq!(sprat(path, &["create", "set"]).code, Some(0));
    assert_eq!(std::fs::read(path.join("set.torrent")).unwrap(), first);
    std::fs::write(path.join("set/-dash"), "other").unwrap();
    let refused = sprat(path, &["create", "set"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err[0].contains("-o"), "{refused:?}");
    assert_eq!(std::fs::read(path.join("set.torrent")).unwrap(), first);
}

#[test]
fn bad_input_is_answered_by_one_line_and_an_exit_code() {
    let dir = workplace();
    let path = dir.path();
    create(path);
    let torrent = std::fs::read(path.join("set.torrent")).unwrap();
    std::fs::write(path.join("short.torrent"), &torrent[..200]).unwrap();
    std::fs::write(path.join("text.torrent"), "<html>no torrent</html>").unwrap();
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let v2 = format!("magnet:?xt=urn:btmh:1220{}", "ab".repeat(32));
    let cases: &[(&[&str], i32, &str)] = &[
        (&["show", "none.torrent"], 1, "none.torrent"),
        (&["show", "text.torrent"], 3, "text.torrent: not a torrent"),
        (&["download", "short.torrent"], 3, "short.torrent"),
        (&["show", "set"], 2, "folder"),
        (&["download", "gopher://example.org/x"], 2, "unknown scheme"),
        (&["show", "magnet:?xt=urn:btih:123"], 3, "magnet"),
        (&["download", "magnet:?xt=urn:btih:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"], 3, "39 characters"),
        (&["download", "magnet:?xt=urn:btih:zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"], 3, "hexadecimal"),
        (&["download", "magnet:?dn=x&tr=&so=&x.pe=:::&xt=%ff"], 3, "no infohash"),
        (&["download", &v2], 3, "v2"),
        (&["download", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"], 3, "this has 39 characters"),
        (&["verify", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"], 2, ".torrent"),
        (&["download", "set.torrent", "-d", "set.torrent/below"], 1, "-d"),
        (&["download", "set.torrent", "-d", "/proc/none"], 1, "/proc/none"),
        (&["download", "set.torrent", "-d", "/proc/none"], 1, "-d"),
        (&["download", "http://127.0.0.1:1/x.torrent"], 1, "refused; "),
        (&["seed", "no\x1b[2Jfile"], 1, "no\\u{1b}[2Jfile: there is no such file"),
        (&["download", "set.torrent", "-d", "x", "--select", "*.zip"], 2, "*.zip"),
        (&["download", "set.torrent", "-d", "x", "--port", &port], 1, "in use"),
        (&["seed", "none.bin"], 1, "none.bin"),
        (&["seed", "set.torrent", "-d", "elsewhere", "--port", "0"], 1, "elsewhere: No such file"),
        (&["seed", "set", "--with-tracker=what://"], 2, "--with-tracker"),
        (&["create", "none"], 1, "none"),
        (&["verify", "set.torrent", "-d", "elsewhere"], 1, "elsewhere"),
    ];
    for (args, code, part) in cases {
        let Ended { code: actual, err, .. } = sprat(path, args);
        assert_eq!((actual, err.len()), (Some(*code), 1), "{args:?}: {err:?}");
        assert!(err[0].starts_with("error: ") && err[0].contains(part), "{args:?}: {err:?}");
    }
}

#[test]
fn wrong_options_are_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let cases: &[&[&str]] = &[
        &[],
        &["upload"],
        &["download"],
        &["download", "x.torrent", "--tracker", "wss://x"],
        &["download", "x.torrent", "--up-limit", "fast"],
        &["download", "x.torrent", "--peer", "here"],
        &["create", "x", "--piece-size", "100000"],
        &["download", "x.torrent", "--sequentail", "\x1b[2J"],
        &["demo", "--peers", "0"],
    ];
    for args in cases {
        let ended = sprat(dir.path(), args);
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        let one_line = ended.err.len() == 1 && ended.err[0].starts_with("error: ");
        assert!(one_line || args.is_empty() && ended.err.len() > 1, "{args:?}: {ended:?}");
    }
    assert_eq!(sprat(dir.path(), &["--help"]).code, Some(0));
    assert!(sprat(dir.path(), &["completions", "bash"]).out.iter().any(|line| line.contains("download")));
}

#[test]
fn a_name_cannot_write_to_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    content(dir.path(), &[("plain", 5)]);
    let made = sprat(dir.path(), &["create", "plain", "--comment", "\x1b[2Jgone\u{202e}"]);
    assert_eq!(made.code, Some(0));
    let shown = sprat(dir.path(), &["show", "plain.torrent"]).out.join("\n");
    assert!(
        shown.contains("\\u{1b}[2Jgone\\u{202e}") && !shown.contains('\x1b') && !shown.contains('\u{202e}'),
        "{shown}"
    );
}

#[test]
fn a_torrent_is_read_over_http() {
    let dir = workplace();
    create(dir.path());
    let torrent = std::fs::read(dir.path().join("set.torrent")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/set.torrent", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for status in ["200 OK", "404 Not Found"] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 2_048]).unwrap();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", torrent.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&torrent).unwrap();
        }
    });
    let shown = sprat(dir.path(), &["show", &url]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.out.iter().any(|line| line.contains("large.bin")));
    let refused = sprat(dir.path(), &["show", &url]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err[0].contains("404"), "{refused:?}");
}

#[test]
fn two_processes_exchange_a_folder_by_naming_the_peer() {
    let dir = workplace();
    let (_seed, port) = seed(dir.path(), &[]);
    let peer = format!("localhost:{port}");
    let copy = dir.path().join("copy");
    let args = ["download", "set.torrent", "-d", "copy", "--port", "0", "--peer", &peer];
    let ended = sprat(dir.path(), &args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.out.iter().any(|line| line.starts_with("Completed: set") && line.contains("MiB/s")),
        "{ended:?}"
    );
    assert_same(dir.path(), &copy);
    let again = sprat(dir.path(), &args);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.out.iter().any(|line| line.starts_with("Complete: set")), "{again:?}");
}

#[test]
fn a_seed_that_is_its_own_tracker_is_found_without_naming_it() {
    let dir = workplace();
    let (mut seed, port) = seed(dir.path(), &["--with-tracker=127.0.0.1"]);
    let shown = sprat(dir.path(), &["show", "set.torrent", "--json"]);
    assert!(shown.out[0].contains(&format!("udp://127.0.0.1:{port}/announce")), "{shown:?}");
    let variables = [("SPRAT_DIR", "copy"), ("SPRAT_PORT", "0"), ("SPRAT_QUIET", "1")];
    let ended = Sprat::start_with(dir.path(), &["download", "set.torrent"], &variables).end();
    assert_eq!((ended.code, ended.out.len(), ended.err.len()), (Some(0), 0, 0), "{ended:?}");
    assert_same(dir.path(), &dir.path().join("copy"));
    seed.signal("TERM");
    let stopped = seed.event("stopped");
    assert_eq!(stopped["uploaded"], 3_110_013);
    assert_eq!(seed.end().code, Some(0));
}

#[test]
fn ipv6_works_as_ipv4_does() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("no IPv6 on this machine: nothing to show");
        return;
    }
    let dir = workplace();
    let (_seed, port) = seed(dir.path(), &[]);
    let peer = format!("[::1]:{port}");
    let ended = sprat(dir.path(), &["download", "set.torrent", "-d", "copy", "-p", "0", "--peer", &peer]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_same(dir.path(), &dir.path().join("copy"));
}

#[test]
fn only_selected_files_appear() {
    let dir = workplace();
    let (_seed, port) = seed(dir.path(), &[]);
    let peer = format!("127.0.0.1:{port}");
    let args = [
        "download",
        "set.torrent",
        "-d",
        "copy",
        "-p",
        "0",
        "--peer",
        &peer,
        "--select",
        "*.iso,deep/",
        "--sequential",
    ];
    let ended = sprat(dir.path(), &args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let whole = tree(&dir.path().join("set"));
    let wanted: Vec<_> = whole
        .into_iter()
        .filter(|(path, _)| path.starts_with("deep") || path.extension().is_some_and(|e| e == "iso"))
        .collect();
    assert_eq!(wanted.len(), 3);
    assert!(tree(&dir.path().join("copy/set")) == wanted);
}

#[test]
fn a_killed_download_goes_on_where_it_was() {
    let dir = workplace();
    let (_seed, port) = seed(dir.path(), &["--up-limit", "1MiB"]);
    let peer = format!("127.0.0.1:{port}");
    let args = ["download", "set.torrent", "-d", "copy", "-p", "0", "--json", "--peer", &peer];
    let mut first = Sprat::start(dir.path(), &args);
    while first.event("progress")["done"].as_u64().unwrap() < 500_000 {}
    first.signal("KILL");
    assert_eq!(first.end().code, None);
    let mut second = Sprat::start(dir.path(), &args);
    let good = second.event("checked")["good"].as_u64().unwrap();
    assert!(good > 5, "only {good} pieces are still there");
    let fetched = second.event("completed")["downloaded"].as_u64().unwrap();
    assert!(
        fetched <= 3_110_013 - (good - 1) * 16_384,
        "{fetched} fetched although {good} pieces were there"
    );
    assert_eq!(second.end().code, Some(0));
    assert_same(dir.path(), &dir.path().join("copy"));
}

#[test]
fn ctrl_c_and_sigterm_end_in_order() {
    let dir = workplace();
    let (seed, port) = seed(dir.path(), &["--up-limit", "100KB"]);
    let peer = format!("127.0.0.1:{port}");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let args = ["download", "set.torrent", "-d", "copy", "-p", "0", "--json", "--peer", &peer];
        let mut download = Sprat::start(dir.path(), &args);
        download.event("progress");
        download.signal(signal);
        download.event("stopped");
        assert_eq!(download.end().code, Some(code), "{signal}");
    }
    seed.signal("INT");
    assert_eq!(seed.end().code, Some(130));
}

#[test]
fn a_dead_tracker_is_told_and_the_rest_goes_on() {
    let dir = workplace();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead = format!("http://{closed}/announce");
    let (_seed, port) = seed(dir.path(), &[]);
    let peer = format!("127.0.0.1:{port}");
    let mut download = Sprat::start(
        dir.path(),
        &["download", "set.torrent", "-d", "copy", "-p", "0", "--seed", "--tracker", &dead, "--peer", &peer],
    );
    let mut told = [false; 2];
    while told != [true; 2] {
        let line = download.line("");
        told[0] |= line.starts_with("warning: tracker") && line.contains(&dead);
        told[1] |= line.starts_with("Completed: set");
    }
    assert_same(dir.path(), &dir.path().join("copy"));
}

#[test]
fn damaged_content_is_not_offered() {
    let dir = workplace();
    create(dir.path());
    let large = dir.path().join("set/large.bin");
    let mut bytes = std::fs::read(&large).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&large, bytes).unwrap();
    let ended = sprat(dir.path(), &["seed", "set.torrent", "--port", "0"]);
    assert_eq!((ended.code, ended.err.len()), (Some(3), 1), "{ended:?}");
    assert!(ended.err[0].contains("32.0 KiB"), "{ended:?}");
}

#[test]
fn a_folder_of_torrents_is_seeded_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    std::fs::create_dir_all(path.join("torrents")).unwrap();
    for number in 0..30 {
        let name = format!("file-{number}");
        content(&path.join("data"), &[(&name, 50_000)]);
        let (from, to) = (format!("data/{name}"), format!("torrents/{name}.torrent"));
        assert_eq!(sprat(path, &["create", &from, "-o", &to]).code, Some(0));
    }
    std::fs::write(path.join("data/file-7"), "damaged").unwrap();
    let mut seed = Sprat::start(path, &["seed", "torrents", "-d", "data", "-p", "0", "--json"]);
    let port = seed.event("started")["port"].as_u64().unwrap();
    assert!(seed.event("warning")["text"].as_str().unwrap().contains("file-7"));
    assert_eq!(seed.event("seeding")["torrents"], 29);
    let peer = format!("127.0.0.1:{port}");
    let ended =
        sprat(path, &["download", "torrents/file-23.torrent", "-d", "copy", "-p", "0", "--peer", &peer]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        std::fs::read(path.join("copy/file-23")).unwrap()
            == std::fs::read(path.join("data/file-23")).unwrap()
    );
}

#[test]
fn content_is_taken_for_complete_on_request_and_seeding_ends_by_ratio() {
    let dir = workplace();
    create(dir.path());
    let args = ["seed", "set.torrent", "-p", "0", "--json", "--assume-complete", "--ratio", "1", "--no-dht"];
    let mut seed = Sprat::start(dir.path(), &args);
    let peer = format!("127.0.0.1:{}", seed.event("seeding")["port"]);
    let ended = sprat(dir.path(), &["download", "set.torrent", "-d", "copy", "-p", "0", "--peer", &peer]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_same(dir.path(), &dir.path().join("copy"));
    assert_eq!(seed.event("stopped")["uploaded"], 3_110_013);
    assert_eq!(seed.end().code, Some(0));
}

#[test]
fn seeding_ends_by_time() {
    let dir = workplace();
    let (seed, _) = seed(dir.path(), &["--seed-time", "100ms"]);
    assert_eq!(seed.end().code, Some(0));
}

#[test]
fn twenty_peers_fetch_from_one_seed_and_each_other() {
    let dir = workplace();
    let (_seed, _) = seed(dir.path(), &["--with-tracker=127.0.0.1"]);
    let copies: Vec<String> = (0..20).map(|number| format!("copy-{number}")).collect();
    let downloads: Vec<Sprat> = copies
        .iter()
        .map(|copy| Sprat::start(dir.path(), &["download", "set.torrent", "-d", copy, "-p", "0"]))
        .collect();
    for (download, copy) in downloads.into_iter().zip(&copies) {
        let ended = download.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_same(dir.path(), &dir.path().join(copy));
    }
}

#[test]
fn the_demo_distributes_compares_and_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let variables = [("TMPDIR", dir.path().to_str().unwrap())];
    let demo = Sprat::start_with(dir.path(), &["demo", "--size", "4MiB", "--peers", "3"], &variables);
    let ended = demo.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.last().unwrap().contains("every byte compared"), "{ended:?}");
    assert_eq!(tree(dir.path()).len(), 0);

    let mut demo = Sprat::start_with(dir.path(), &["demo", "--size", "256MiB", "--json"], &variables);
    demo.event("started");
    demo.signal("INT");
    assert_eq!(demo.end().code, Some(130));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
