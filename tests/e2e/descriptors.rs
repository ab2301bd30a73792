//! A system that allows few file descriptors or few threads: what is possible is done, the rest is
//! one line.

use std::path::Path;
use std::process::Command;

use sprat::engine::make;
use sprat::engine::metainfo::create::Draft;

use super::process::{Ended, Sprat, content};

/// A user that nothing else runs as, so that only the test's processes are counted.
const USER: &str = "54321";

fn torrents(dir: &Path, count: usize) {
    std::fs::create_dir(dir.join("torrents")).unwrap();
    let names: Vec<String> = (0..count).map(|number| format!("file-{number}")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 20_000)).collect();
    content(&dir.join("data"), &files);
    for name in &names {
        let path = dir.join("data").join(name);
        let draft = make::survey(&path, Draft::default()).unwrap();
        let made = make::hash(&path, draft, &mut |_| true).unwrap().unwrap();
        std::fs::write(dir.join(format!("torrents/{name}.torrent")), made.encode()).unwrap();
    }
}

fn limited(dir: &Path, limit: &str, line: &str) -> Sprat {
    let line = format!("{limit}; exec '{}' {line}", env!("CARGO_BIN_EXE_sprat"));
    Sprat::start_program(Path::new("/bin/sh"), dir, &["-c", &line], &[])
}

#[test]
fn hundreds_of_torrents_are_seeded_with_forty_eight_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    torrents(dir.path(), 300);
    for limit in [64, 48] {
        let mut seed =
            limited(dir.path(), &format!("ulimit -n {limit}"), "seed torrents -d data -p 0 --json");
        assert_eq!(seed.event("seeding")["torrents"], 300, "{limit}");
        seed.signal("TERM");
        assert_eq!(seed.end().code, Some(0), "{limit}");
    }
}

#[test]
fn with_fewer_descriptors_than_anything_needs_it_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    torrents(dir.path(), 1);
    for limit in [4, 8, 16, 20, 24] {
        for line in
            ["seed torrents -d data -p 0", "download torrents/file-0.torrent -d data -p 0", "demo --size 1MB"]
        {
            // Some of these are enough for some commands, which go on until they are told to stop.
            let mut process = limited(dir.path(), &format!("ulimit -n {limit}"), &format!("{line} --json"));
            let said = process.has_line();
            process.signal("TERM");
            let ended = process.end();
            assert!(said, "{limit} {line}: {ended:?}");
            assert!(!matches!(ended.code, Some(134 | 101)), "{limit} {line}: {ended:?}");
            assert!(ended.code != Some(1) || ended.err.len() == 1, "{limit} {line}: {ended:?}");
        }
    }
    let ended = limited(dir.path(), "ulimit -n 8", "show torrents/file-0.torrent").end();
    assert_eq!((ended.code, ended.err.len()), (Some(1), 1), "{ended:?}");
    assert!(ended.err[0].contains("ulimit -n"), "{ended:?}");
}

/// Runs a program as a user that may have so many threads; None: that is not possible here.
fn with_threads(dir: &Path, program: &Path, count: usize, args: &[&str]) -> Option<Ended> {
    let (nproc, user) = (format!("--nproc={count}"), format!("--reuid={USER}"));
    let setpriv = ["setpriv", &user, "--clear-groups", "prlimit", &nproc];
    let probe = Command::new(setpriv[0]).args(&setpriv[1..]).arg("true").status();
    if !probe.is_ok_and(|status| status.success()) {
        println!("limits for another user are not possible here");
        return None;
    }
    let args = [&setpriv[1..], &[program.to_str().unwrap()], args].concat();
    Some(Sprat::start_program(Path::new(setpriv[0]), dir, &args, &[("XDG_STATE_HOME", "/nonexistent")]).end())
}

#[test]
fn with_few_threads_it_works_or_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    torrents(dir.path(), 1);
    let opened = Command::new("chmod").args(["-R", "a+rwX"]).arg(dir.path()).status().unwrap();
    assert!(opened.success());
    let program = Path::new(env!("CARGO_BIN_EXE_sprat"));
    let commands: [&[&str]; 5] = [
        &["verify", "torrents/file-0.torrent", "-d", "data"],
        &["create", "data", "-o", "made.torrent"],
        &["show", "torrents/file-0.torrent"],
        &["download", "torrents/file-0.torrent", "-d", "data", "-p", "0"],
        &["demo", "--size", "100KB", "--peers", "1"],
    ];
    for args in commands {
        let mut worked = false;
        for count in [1, 2, 3, 4, 6, 9, 20, 60] {
            let Some(ended) = with_threads(dir.path(), program, count, args) else { return };
            let is_line =
                ended.code == Some(1) && ended.err.len() == 1 && ended.err[0].starts_with("error: ");
            assert!(is_line || ended.code == Some(0), "{count} threads: {args:?}: {ended:?}");
            assert!(
                ended.code == Some(0) || !worked,
                "{count} threads: fewer were enough: {args:?}: {ended:?}"
            );
            worked |= ended.code == Some(0);
        }
        assert!(worked, "{args:?}");
    }
    let tracker = program.with_file_name("sprat-tracker");
    if tracker.exists() {
        let args = ["--udp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--workers", "4"];
        for count in [1, 2, 4, 6] {
            let Some(ended) = with_threads(dir.path(), &tracker, count, &args) else { return };
            assert_eq!((ended.code, ended.err.len()), (Some(1), 1), "{count} threads: {ended:?}");
            assert!(ended.err[0].contains("cannot start a thread"), "{ended:?}");
        }
    }
}
