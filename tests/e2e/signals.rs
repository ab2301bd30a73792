//! What ends a command, how, and what does not.

use std::path::Path;

use super::process::{Sprat, content, sprat};

const NOBODY: &str = "0123456789012345678901234567890123456789";

#[test]
fn a_terminal_that_is_closed_ends_a_command_in_order_unless_it_was_started_to_survive_that() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["download", NOBODY, "-p", "0", "--json"];
    let mut download = Sprat::start(dir.path(), &args);
    download.event("named");
    download.signal("HUP");
    download.event("stopped");
    assert_eq!(download.end().code, Some(129));

    let line = format!("trap '' HUP; exec '{}' {}", env!("CARGO_BIN_EXE_sprat"), args.join(" "));
    let mut survivor = Sprat::start_program(Path::new("/bin/sh"), dir.path(), &["-c", &line], &[]);
    survivor.event("named");
    survivor.signal("HUP");
    survivor.signal("TERM");
    assert_eq!(survivor.end().code, Some(143), "the first signal was ignored");
}

#[test]
fn a_seed_has_nothing_left_undone_when_it_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    content(&dir.path().join("set"), &[("a", 50_000)]);
    for (signal, code) in [("TERM", 0), ("INT", 130), ("HUP", 129)] {
        let mut seed = Sprat::start(dir.path(), &["seed", "set", "-p", "0", "--json"]);
        seed.event("seeding");
        seed.signal(signal);
        assert_eq!(seed.end().code, Some(code), "{signal}");
    }
}

#[test]
fn a_torrent_that_does_not_come_out_of_its_pipe_keeps_nothing_from_ending() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["x.torrent", "set.torrent"] {
        let made = std::process::Command::new("mkfifo").arg(dir.path().join(name)).status();
        assert!(made.unwrap().success());
    }
    for command in [&["download", "x.torrent"][..], &["seed", "x.torrent"]] {
        let process = Sprat::start(dir.path(), command);
        process.until_it_catches("TERM");
        process.signal("TERM");
        assert_eq!(process.end().code, Some(143), "{command:?}");
    }
    // A name that is taken by a pipe is not waited for.
    content(dir.path(), &[("set", 10_000)]);
    let made = Sprat::start(dir.path(), &["create", "set"]).end();
    assert_eq!(made.code, Some(1), "{made:?}");
}

#[test]
fn a_pipe_that_nothing_reads_keeps_no_command_from_ending() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    content(&path.join("set"), &[("a", 50_000)]);
    // More than a pipe takes before a write to it waits.
    let comment = "x".repeat(100_000);
    assert_eq!(sprat(path, &["create", "set", "--comment", &comment]).code, Some(0));
    for pipe in ["unopened", "unread"] {
        assert!(std::process::Command::new("mkfifo").arg(path.join(pipe)).status().unwrap().success());
    }
    let _reader = std::fs::File::options().read(true).write(true).open(path.join("unread")).unwrap();
    let mut seed = Sprat::start(path, &["seed", "set.torrent", "-p", "0", "--json"]);
    let seeding = seed.event("seeding");
    let (peer, infohash) = (format!("127.0.0.1:{}", seeding["port"]), seeding["infohash"].as_str().unwrap());
    let download = ["download", "set.torrent", "-d", "copy", "-p", "0", "--save-torrent"];
    let commands: [Vec<&str>; 3] = [
        [&download[..], &["unopened"]].concat(),
        [&download[..], &["unread"]].concat(),
        vec!["seed", "set", "-p", "0", "-o", "unopened"],
    ];
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        for args in &commands {
            let process = Sprat::start(path, args);
            process.until_it_catches(signal);
            process.signal(signal);
            assert_eq!(process.end().code, Some(code), "{args:?}");
        }
        // With a state folder of its own, so that the metadata is not known from the last time.
        let state = path.join(signal);
        let args = ["show", infohash, "-p", "0", "--peer", &peer, "-o", "unopened"];
        let mut show = Sprat::start_with(path, &args, &[("XDG_STATE_HOME", state.to_str().unwrap())]);
        show.line("Metadata received");
        show.signal(signal);
        assert_eq!(show.end().code, Some(code), "{signal}");
    }
}
