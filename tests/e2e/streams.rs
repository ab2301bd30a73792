//! Standard output and standard error that are full, closed or not read: what cannot be written is
//! an error of the commands that are there to print, and nothing that waits for a reader keeps a
//! command from ending.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::process::{Ended, Sprat, content};

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sprat"))
}

/// What a shell does with `line`, in which `sprat` is the program.
fn shell(dir: &Path, line: &str) -> Ended {
    let line = format!("sprat() {{ '{}' \"$@\"; }}\n{line}", program().display());
    Sprat::start_program(Path::new("/bin/sh"), dir, &["-c", &line], &[]).end()
}

fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    content(&dir.path().join("set"), &[("a", 100_000), ("b", 10)]);
    let made = shell(dir.path(), "sprat create set");
    assert_eq!(made.code, Some(0), "{made:?}");
    dir
}

/// A pipe whose other end is not read, and which takes no byte more.
fn full_pipe() -> (std::io::PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let len = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
    writer.write_all(&vec![b'x'; len]).unwrap();
    (reader, writer.into())
}

#[test]
fn a_command_that_is_there_to_print_fails_when_it_cannot() {
    let dir = workplace();
    let commands = [
        "show set.torrent",
        "show set.torrent --json",
        "verify set.torrent",
        "verify set.torrent --json",
        "create set -o other.torrent",
        "completions bash",
        "simulate swarm --peers 2 --size 1MB",
        "--help",
        "--version",
        "help show",
    ];
    for command in commands {
        let full = shell(dir.path(), &format!("sprat {command} > /dev/full"));
        assert_eq!(full.code, Some(1), "{command}: {full:?}");
        assert!(full.err.iter().any(|line| line.contains("No space left on device")), "{command}: {full:?}");
        assert_eq!(full.err.len(), 1, "{command}: {full:?}");
        let unread = shell(dir.path(), &format!("{{ sprat {command}; echo code $? >&2; }} | true"));
        assert_eq!(unread.err, ["code 0"], "{command}");
        let closed = shell(dir.path(), &format!("sprat {command} >&-"));
        assert_eq!((closed.code, closed.err.len()), (Some(0), 0), "{command}: {closed:?}");
        let closed = shell(dir.path(), &format!("sprat {command} 2>&-"));
        assert_eq!(closed.code, Some(0), "{command}: {closed:?}");
    }
    let failed = shell(dir.path(), "sprat show missing.torrent 2> /dev/full");
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let bare = shell(dir.path(), "sprat > /dev/full 2> /dev/full");
    assert_eq!(bare.code, Some(2), "{bare:?}");
}

#[test]
fn a_transfer_goes_on_without_a_place_for_its_lines() {
    let dir = workplace();
    let mut seed = Sprat::start(dir.path(), &["seed", "set", "-p", "0", "--json"]);
    let peer = format!("127.0.0.1:{}", seed.event("seeding")["port"]);
    for (number, streams) in
        ["> /dev/full", "2> /dev/full", "> /dev/full 2> /dev/full", ">&- 2>&-"].iter().enumerate()
    {
        let ended = shell(
            dir.path(),
            &format!("sprat -vv download set.torrent -d copy{number} -p 0 --peer {peer} {streams}"),
        );
        assert_eq!(ended.code, Some(0), "{streams}: {ended:?}");
        let copy = std::fs::read(dir.path().join(format!("copy{number}/set/a"))).unwrap();
        assert!(copy == std::fs::read(dir.path().join("set/a")).unwrap(), "{streams}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let args = ["-vv", "download", "set.torrent", "-d", "unread", "-p", "0", "--peer", &peer];
    let mut command = Sprat::command(program(), dir.path(), &args, &[]);
    let ended = Sprat::start_command(command.stderr(writer)).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// A tracker over HTTP that takes down which events it is told.
struct Tracker {
    listener: TcpListener,
}

impl Tracker {
    fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn url(&self) -> String {
        format!("http://{}/announce", self.listener.local_addr().unwrap())
    }

    /// Answers the next announce; its first line.
    fn announce(&self) -> String {
        let (mut stream, _) = self.listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        assert!(lines.any(|line| line.unwrap().is_empty()));
        let body = "d8:intervali1800e5:peers0:e";
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        first
    }
}

#[test]
fn signals_are_obeyed_and_the_tracker_is_told_although_nobody_reads_the_output() {
    let dir = workplace();
    let nobody = "magnet:?xt=urn:btih:0123456789012345678901234567890123456789";
    let cases: [(&[&str], &str, i32); 5] = [
        (&["seed", "set", "--json"], "TERM", 0),
        (&["seed", "set"], "INT", 130),
        (&["download", "set.torrent", "-d", "copy", "--json"], "TERM", 143),
        (&["download", nobody, "-d", "copy"], "INT", 130),
        (&["download", nobody, "-d", "copy", "--json"], "HUP", 129),
    ];
    for (args, signal, code) in cases {
        let tracker = Tracker::start();
        let url = tracker.url();
        let args = [args, &["-p", "0", "--tracker", &url]].concat();
        let mut command = Sprat::command(program(), dir.path(), &args, &[]);
        let ((_reader, out), (_other, err)) = (full_pipe(), full_pipe());
        let process = Sprat::start_command(command.stdout(out).stderr(err));
        assert!(tracker.announce().contains("event=started"), "{args:?}");
        process.signal(signal);
        assert!(tracker.announce().contains("event=stopped"), "{args:?}");
        assert_eq!(process.end().code, Some(code), "{args:?}");
        let _ = std::fs::remove_dir_all(dir.path().join("copy"));
    }
}

#[test]
fn commands_that_run_until_they_are_told_to_stop_do_so_although_nobody_reads_their_output() {
    let dir = workplace();
    std::fs::create_dir(dir.path().join("torrents")).unwrap();
    std::fs::rename(dir.path().join("set.torrent"), dir.path().join("torrents/set.torrent")).unwrap();
    let tracker = program().with_file_name("sprat-tracker");
    let mut cases: Vec<(PathBuf, &[&str])> = vec![
        (
            program().to_owned(),
            &["dht", "node", "-p", "0", "--json", "--every", "100ms", "--dht-bootstrap", "none"],
        ),
        (program().to_owned(), &["seed", "torrents", "-d", ".", "-p", "0", "--json"]),
    ];
    if tracker.exists() {
        cases.push((tracker, &["--udp", "127.0.0.1:0", "--http", "127.0.0.1:0"]));
    }
    for (program, args) in cases {
        let mut command = Sprat::command(&program, dir.path(), args, &[]);
        let (reader, out) = full_pipe();
        let process = Sprat::start_command(command.stdout(out));
        process.until_it_catches("TERM");
        process.signal("TERM");
        assert_eq!(process.end().code, Some(0), "{args:?}");
        drop(reader);
    }
}

#[test]
fn a_signal_ends_a_command_that_still_has_to_say_that_its_output_is_lost() {
    let dir = workplace();
    let tracker = Tracker::start();
    let url = tracker.url();
    let args = ["seed", "set", "-vv", "-p", "0", "--tracker", &url];
    let mut command = Sprat::command(program(), dir.path(), &args, &[]);
    let (_reader, err) = full_pipe();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let process = Sprat::start_command(command.stdout(full).stderr(err));
    assert!(tracker.announce().contains("event=started"));
    process.signal("TERM");
    assert!(tracker.announce().contains("event=stopped"));
    assert_eq!(process.end().code, Some(0));
}

/// Follows a download at 150 KB/s on a terminal of the type `term`; None: there is no program that
/// provides one.
fn download_on_a_terminal(dir: &Path, peer: &str, term: &str) -> Option<Sprat> {
    let script = Path::new("/usr/bin/script");
    if !script.exists() {
        println!("a terminal for the test is not possible here: not tried");
        return None;
    }
    let line = format!(
        "'{}' download set.torrent -d {term} -p 0 --peer {peer} --down-limit 150KB",
        program().display()
    );
    Some(Sprat::start_program(script, dir, &["-qec", &line, "/dev/null"], &[("TERM", term)]))
}

#[test]
fn a_terminal_without_a_cursor_gets_plain_lines() {
    let dir = tempfile::tempdir().unwrap();
    content(&dir.path().join("set"), &[("a", 1_200_000)]);
    assert_eq!(shell(dir.path(), "sprat create set").code, Some(0));
    let mut seed = Sprat::start(dir.path(), &["seed", "set", "-p", "0", "--json"]);
    let peer = format!("127.0.0.1:{}", seed.event("seeding")["port"]);
    let Some(mut smart) = download_on_a_terminal(dir.path(), &peer, "xterm") else { return };
    smart.line("\u{1b}[");
    drop(smart);
    let Some(dumb) = download_on_a_terminal(dir.path(), &peer, "dumb") else { return };
    let ended = dumb.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let is_progress = |line: &String| line.contains("% ") && line.contains(" down, ");
    assert!(ended.out.iter().any(is_progress), "{ended:?}");
    assert!(!ended.out.iter().any(|line| line.contains('\u{1b}')), "{ended:?}");
}

#[test]
fn what_is_read_late_is_there_in_order_and_whole() {
    let dir = workplace();
    let (mut reader, out) = full_pipe();
    let mut command = Sprat::command(program(), dir.path(), &["show", "set.torrent"], &[]);
    let process = Sprat::start_command(command.stdout(out));
    drop(command);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(process.end().code, Some(0));
    let shown = shell(dir.path(), "sprat show set.torrent").out.join("\n");
    assert_eq!(text.trim_start_matches('x').trim_end(), shown);
}
