//! What scripts and containers rely on: variables, standard input and output, odd paths, and what
//! is kept of magnets.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use sha1::{Digest, Sha1};

use crate::process::{Sprat, content, sprat, tree};
use crate::small_disk::SmallDisk;

/// Runs it with bytes on standard input; arguments may be any bytes.
fn run(dir: &Path, args: &[&OsStr], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sprat"));
    command.env("SPRAT_NO_DHT", "1").env("SPRAT_NO_LSD", "1").env("XDG_STATE_HOME", dir.join("state"));
    command.args(args).current_dir(dir);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder with `set/` and its torrent.
fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    content(&dir.path().join("set"), &[("a.bin", 100_000), ("2020", 10_000), ("b, c.txt", 5_000)]);
    assert_eq!(sprat(dir.path(), &["create", "set", "-o", "set.torrent"]).code, Some(0));
    dir
}

#[test]
fn variables_that_say_nothing_are_no_options() {
    let dir = workplace();
    let verify =
        |variables: &[(&str, &str)], args: &[&str]| Sprat::start_with(dir.path(), args, variables).end();
    let offline = ["show", "set.torrent"];
    let service = verify(&[("SPRAT_PORT", "tcp://10.0.0.11:6881")], &offline);
    assert_eq!((service.code, service.err.len()), (Some(0), 1), "{service:?}");
    assert!(service.err[0].starts_with("warning: SPRAT_PORT=tcp://10.0.0.11:6881 is ignored"), "{service:?}");
    let quiet = verify(&[("SPRAT_PORT", "tcp://10.0.0.11:6881")], &["show", "set.torrent", "--quiet"]);
    assert_eq!((quiet.code, quiet.err.len()), (Some(0), 0), "{quiet:?}");
    let json = verify(&[("SPRAT_PORT", "tcp://10.0.0.11:6881")], &["show", "set.torrent", "--json"]);
    assert_eq!((json.code, json.out.len()), (Some(0), 1), "{json:?}");
    for empty in ["SPRAT_PORT", "SPRAT_PEER", "SPRAT_UP_LIMIT", "SPRAT_QUIET", "SPRAT_SWARMING_INTERVAL"] {
        let shown = verify(&[(empty, "")], &offline);
        assert_eq!((shown.code, shown.err.len()), (Some(0), 0), "{empty}: {shown:?}");
        assert!(!shown.out.is_empty(), "{empty}");
    }
    for (name, wrong) in [
        ("SPRAT_PORT", "http://10.0.0.11"),
        ("SPRAT_PORT", "68811"),
        ("SPRAT_UP_LIMIT", "fast"),
        ("SPRAT_TRACKER", "tcp://10.0.0.11:6881"),
        ("SPRAT_NO_PEX", "perhaps"),
    ] {
        let refused = verify(&[(name, wrong)], &offline);
        assert_eq!((refused.code, refused.err.len()), (Some(2), 1), "{name}: {refused:?}");
        assert!(refused.err[0].starts_with(&format!("error: {name}: ")), "{name}: {refused:?}");
    }
    let mistaken = verify(&[("SPRAT_WITH_TRACKER", "true")], &["seed", "set"]);
    assert_eq!(mistaken.code, Some(2), "{mistaken:?}");
    assert!(mistaken.err[0].starts_with("error: SPRAT_WITH_TRACKER: "), "{mistaken:?}");
    let element = verify(&[("SPRAT_PEER", "127.0.0.1:1,,127.0.0.1:2")], &offline);
    assert_eq!(element.code, Some(2), "{element:?}");
    assert!(element.err[0].starts_with("error: SPRAT_PEER: --peer"), "{element:?}");
    assert!(element.err[0].contains("has an empty element"), "{element:?}");
    // What was typed is at fault, not a variable that is not set or empty.
    for option in ["--select", "--select-name", "--port"] {
        for variables in [&[][..], &[("SPRAT_SELECT", ""), ("SPRAT_SELECT_NAME", ""), ("SPRAT_PORT", "")]] {
            let refused = verify(variables, &["download", "set.torrent", option, ""]);
            assert_eq!((refused.code, refused.err.len()), (Some(2), 1), "{option}: {refused:?}");
            assert!(refused.err[0].contains(option) && !refused.err[0].contains("SPRAT"), "{refused:?}");
        }
    }
}

#[test]
fn an_empty_argument_is_called_so() {
    let dir = workplace();
    let before = tree(dir.path());
    for args in [
        &["download", ""][..],
        &["seed", ""],
        &["create", ""],
        &["show", ""],
        &["verify", ""],
        &["demo", ""],
        &["download", "set.torrent", "-d", ""],
        &["download", "set.torrent", "--dir="],
        &["download", "set.torrent", "--save-torrent", ""],
        &["seed", "set.torrent", "-d", ""],
        &["seed", "set", "-o", ""],
        &["create", "set", "-o", ""],
        &["show", "set.torrent", "-o", ""],
        &["verify", "set.torrent", "-d", ""],
    ] {
        // The variable is fine.
        let refused = Sprat::start_with(dir.path(), args, &[("SPRAT_DIR", "set  b")]).end();
        assert_eq!((refused.code, refused.err.len()), (Some(2), 1), "{args:?}: {refused:?}");
        assert!(refused.err[0].contains(" is empty;"), "{args:?}: {refused:?}");
        assert!(!refused.err[0].contains("SPRAT_DIR"), "{args:?}: {refused:?}");
    }
    assert!(tree(dir.path()) == before);
    let missing = sprat(dir.path(), &["verify", "set.torrent", "-d"]);
    assert!(missing.err[0].contains("a value is required"), "{missing:?}");
    let element = sprat(dir.path(), &["download", "set.torrent", "--select", "a,,b"]);
    assert!(element.err[0].contains("has an empty element"), "{element:?}");
    let nowhere = sprat(dir.path(), &["verify", "set.torrent", "-d", "nowhere"]);
    assert_eq!((nowhere.code, nowhere.err.len()), (Some(1), 1), "{nowhere:?}");
    assert!(nowhere.err[0].ends_with("say where the content is with -d"), "{nowhere:?}");
}

#[test]
fn a_variable_that_is_no_text_is_named() {
    let dir = workplace();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sprat"));
    command.env("SPRAT_PEER", OsStr::from_bytes(b"\xff:1")).env("SPRAT_DIR", OsStr::from_bytes(b"\xff"));
    let refused = command.args(["download", "set.torrent"]).current_dir(dir.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).starts_with("error: SPRAT_PEER: "), "{}", text(&refused.stderr));
}

#[test]
fn a_torrent_goes_through_pipes() {
    let dir = workplace();
    let torrent = std::fs::read(dir.path().join("set.torrent")).unwrap();
    let made = run(dir.path(), &["create".as_ref(), "set".as_ref(), "-o".as_ref(), "-".as_ref()], b"");
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    assert!(made.stdout == torrent && text(&made.stderr).contains("infohash"), "{}", text(&made.stderr));
    for command in ["show", "verify"] {
        let read = run(dir.path(), &[command.as_ref(), "-".as_ref()], &torrent);
        assert_eq!(read.status.code(), Some(0), "{command}: {}", text(&read.stderr));
        assert!(text(&read.stdout).contains("set"), "{command}");
    }
    let args = ["download", "-", "-p", "0"].map(OsStr::new);
    let done = run(dir.path(), &args, &torrent);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let both = run(dir.path(), &["create", "set", "-o", "-", "--json"].map(OsStr::new), b"");
    assert_eq!((both.status.code(), both.stdout.len()), (Some(2), 0), "{}", text(&both.stderr));
    let nothing = run(dir.path(), &["show", "-"].map(OsStr::new), b"");
    assert!(text(&nothing.stderr).contains("standard input: not a torrent: the file is empty"));
    let link = format!("magnet:?xt=urn:btih:{}\n", "a".repeat(40));
    let shown = run(dir.path(), &["show", "-", "--offline"].map(OsStr::new), link.as_bytes());
    assert!(text(&shown.stdout).contains(&"a".repeat(40)), "{}", text(&shown.stderr));
}

#[test]
fn devices_stay_devices_and_files_keep_their_mode() {
    let dir = workplace();
    let target = dir.path().join("set.torrent");
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("set.torrent", dir.path().join("link")).unwrap();
    for output in ["/dev/null", "set.torrent", "link"] {
        let made = sprat(dir.path(), &["create", "set", "-o", output]);
        assert_eq!(made.code, Some(0), "{output}: {made:?}");
    }
    assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
    assert_eq!(target.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(dir.path().join("link").symlink_metadata().unwrap().is_symlink());
    let full = sprat(dir.path(), &["create", "set", "-o", "/dev/full"]);
    assert_eq!((full.code, full.err.len()), (Some(1), 1), "{full:?}");
}

#[test]
fn paths_need_not_be_text() {
    let dir = workplace();
    let name = |bytes: &'static [u8]| OsStr::from_bytes(bytes);
    let place = dir.path().join(name(b"caf\xe9"));
    std::fs::create_dir(&place).unwrap();
    std::fs::rename(dir.path().join("set"), place.join("set")).unwrap();
    let torrent = name(b"caf\xe9/\xff.torrent");
    std::fs::rename(dir.path().join("set.torrent"), dir.path().join(torrent)).unwrap();
    let folder = name(b"caf\xe9");
    let cases: [&[&OsStr]; 4] = [
        &["show".as_ref(), torrent],
        &["verify".as_ref(), torrent, "-d".as_ref(), folder],
        &["download".as_ref(), torrent, "-d".as_ref(), folder, "-p".as_ref(), "0".as_ref()],
        &["create".as_ref(), name(b"caf\xe9/set"), "-o".as_ref(), name(b"\xfe.torrent")],
    ];
    for args in cases {
        let ended = run(dir.path(), args, b"");
        assert_eq!(ended.status.code(), Some(0), "{args:?}: {}", text(&ended.stderr));
    }
    assert!(dir.path().join(name(b"\xfe.torrent")).is_file());
    let args = [
        "seed".as_ref(),
        torrent,
        "-d".as_ref(),
        folder,
        "-p".as_ref(),
        "0".as_ref(),
        "--seed-time".as_ref(),
        "0".as_ref(),
    ];
    let seeded = run(dir.path(), &args, b"");
    assert_eq!(seeded.status.code(), Some(0), "{}", text(&seeded.stderr));
    assert!(text(&seeded.stdout).contains("Seeding set"), "{}", text(&seeded.stdout));
}

#[test]
fn a_file_is_selected_by_its_name() {
    let dir = workplace();
    let args = |select: &'static [&'static str]| {
        [&["download", "set.torrent", "-d", "copy", "-p", "0"], select].concat()
    };
    for missing in [&["--select", "b, c.txt"][..], &["--select", "2020"], &["--select-name", "none"]] {
        let refused = sprat(dir.path(), &args(missing));
        assert_eq!((refused.code, refused.err.len()), (Some(2), 1), "{refused:?}");
        assert!(refused.err[0].contains("fits no file"), "{refused:?}");
    }
    let (seed, port) = seed_of(dir.path());
    let peer: &'static str = format!("127.0.0.1:{port}").leak();
    let wanted = ["--select-name", "b, c.txt", "--select-name", "set/2020", "--peer", peer];
    let done = sprat(dir.path(), &args(wanted.to_vec().leak()));
    assert_eq!(done.code, Some(0), "{done:?}");
    let names: Vec<_> = tree(&dir.path().join("copy/set")).into_iter().map(|(path, _)| path).collect();
    assert!(names.contains(&"2020".into()) && names.contains(&"b, c.txt".into()), "{names:?}");
    assert!(!names.contains(&"a.bin".into()), "{names:?}");
    seed.signal("TERM");
}

/// A seed of `set.torrent`, and its port.
fn seed_of(dir: &Path) -> (Sprat, u64) {
    let mut seed = Sprat::start(dir, &["seed", "set.torrent", "--port", "0", "--json"]);
    let port = seed.event("seeding")["port"].as_u64().unwrap();
    (seed, port)
}

#[test]
fn a_magnet_needs_nobody_once_its_metadata_is_kept() {
    let dir = workplace();
    let state = dir.path().join("state");
    let variables = [("XDG_STATE_HOME", state.to_str().unwrap())];
    let (seed, port) = seed_of(dir.path());
    let torrent = std::fs::read(dir.path().join("set.torrent")).unwrap();
    let infohash = shown_infohash(dir.path());
    let link = format!("magnet:?xt=urn:btih:{infohash}&x.pe=127.0.0.1:{port}");
    let first = ["download", &link, "-d", "copy", "-p", "0", "--save-torrent", "saved.torrent"];
    let ended = Sprat::start_with(dir.path(), &first, &variables).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    seed.signal("TERM");
    assert_eq!(seed.end().code, Some(0));
    let same_info = |bytes: &[u8]| bytes.windows(info_of(&torrent).len()).any(|at| at == info_of(&torrent));
    assert!(same_info(&std::fs::read(dir.path().join("saved.torrent")).unwrap()));

    // Nobody is online from here on.
    let bare = format!("magnet:?xt=urn:btih:{infohash}");
    for (args, words) in [
        (&["download", &bare, "-d", "copy", "-p", "0"][..], "Complete: "),
        (&["download", &infohash, "-d", "copy", "-p", "0"], "Metadata kept"),
        (&["verify", &bare, "-d", "copy"], "set: 3 files good"),
        (&["seed", &bare, "-d", "copy", "-p", "0", "--seed-time", "0"], "Seeding set"),
        (&["show", &bare, "-p", "0"], "b, c.txt"),
    ] {
        let ended = Sprat::start_with(dir.path(), args, &variables).end();
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        assert!(ended.out.iter().any(|line| line.contains(words)), "{args:?}: {ended:?}");
    }
    let shown = Sprat::start_with(dir.path(), &["show", &bare, "-p", "0", "-o", "shown.torrent"], &variables);
    assert_eq!(shown.end().code, Some(0));
    assert!(same_info(&std::fs::read(dir.path().join("shown.torrent")).unwrap()));

    // What was changed is not believed.
    let kept = state.join("sprat/metadata").join(format!("{infohash}.info"));
    let mut bytes = std::fs::read(&kept).unwrap();
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    bytes[20] ^= 1;
    std::fs::write(&kept, bytes).unwrap();
    let verified = Sprat::start_with(dir.path(), &["verify", &bare, "-d", "copy"], &variables).end();
    assert_eq!((verified.code, kept.exists()), (Some(2), false), "{verified:?}");
}

/// The `info` of a torrent made by `create` without trackers and web seeds: its last entry.
fn info_of(torrent: &[u8]) -> &[u8] {
    let at = torrent.windows(7).position(|at| at == b"4:infod").unwrap();
    &torrent[at + 6..torrent.len() - 1]
}

fn shown_infohash(dir: &Path) -> String {
    let shown = sprat(dir, &["show", "set.torrent", "--json"]);
    let object: serde_json::Value = serde_json::from_str(&shown.out[0]).unwrap();
    object["infohash_v1"].as_str().unwrap().to_owned()
}

#[test]
fn a_private_torrent_that_is_kept_asks_its_trackers_alone() {
    let dir = tempfile::tempdir().unwrap();
    content(&dir.path().join("set"), &[("a.bin", 100_000)]);
    assert_eq!(sprat(dir.path(), &["create", "set", "--private", "-o", "set.torrent"]).code, Some(0));
    let state = dir.path().join("state");
    let variables = [("XDG_STATE_HOME", state.to_str().unwrap()), ("SPRAT_NO_LSD", "0")];
    let infohash = shown_infohash(dir.path());
    // As another client gave it: a sprat gives the metadata of private torrents to nobody.
    let folder = state.join("sprat/metadata");
    std::fs::create_dir_all(&folder).unwrap();
    let torrent = std::fs::read(dir.path().join("set.torrent")).unwrap();
    std::fs::write(folder.join(format!("{infohash}.info")), info_of(&torrent)).unwrap();
    let link = format!("magnet:?xt=urn:btih:{infohash}");
    let mut download =
        Sprat::start_with(dir.path(), &["download", &link, "-d", "copy", "-p", "0"], &variables);
    download.line("it is private: peers only from its trackers");
    download.line_so_far("no peer was given");
    download.signal("INT");
    assert_eq!(download.end().code, Some(130));
}

#[test]
fn with_dir_a_folder_is_one_of_torrents() {
    let dir = workplace();
    let path = dir.path();
    std::fs::create_dir(path.join("torrents")).unwrap();
    let args = ["seed", "torrents", "-d", ".", "-p", "0"];
    for other in [".DS_Store", "notes.txt"] {
        std::fs::write(path.join("torrents").join(other), "x").unwrap();
    }
    std::fs::create_dir(path.join("torrents/sub.torrent")).unwrap();
    let refused = sprat(path, &args);
    assert_eq!((refused.code, refused.err.len()), (Some(2), 1), "{refused:?}");
    assert!(refused.err[0].contains("there is no .torrent file in this folder"), "{refused:?}");
    std::fs::rename(path.join("set.torrent"), path.join("torrents/set.TORRENT")).unwrap();
    let mut seed = Sprat::start(path, &args);
    seed.line(": .DS_Store, notes.txt, sub.torrent");
    seed.line("All checked: 1 torrent complete");
    seed.signal("TERM");
    assert_eq!(seed.end().code, Some(0));
    assert!(!path.join("torrents.torrent").exists(), "the folder is not published");
}

#[test]
fn a_url_may_lead_to_a_magnet_link() {
    let dir = workplace();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/get?id=1", listener.local_addr().unwrap());
    let link = format!("magnet:?xt=urn:btih:{}&dn=far&so=1,&x.pe=nowhere", "a".repeat(40));
    std::thread::spawn(move || {
        for target in ["link.magnet", &link, "file:///etc/passwd"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 2_048];
            let len = stream.read(&mut request).unwrap();
            assert!(text(&request[..len]).to_ascii_lowercase().contains("user-agent: sprat/"));
            let head = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nConnection: close\r\n");
            stream.write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes()).unwrap();
        }
    });
    let ended = sprat(dir.path(), &["show", &url, "-p", "0", "--timeout", "1s"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.iter().any(|line| line.contains("Finding peers of far")), "{ended:?}");
    assert!(ended.err.iter().any(|line| line.contains("is ignored: x.pe=nowhere")), "{ended:?}");
    let refused = sprat(dir.path(), &["show", &url]);
    assert_eq!((refused.code, refused.err.len()), (Some(1), 1), "{refused:?}");
    assert!(refused.err[0].contains("redirected to `file:///etc/passwd`"), "{refused:?}");
}

#[test]
fn a_demo_without_room_says_so_and_clears_what_dead_ones_left() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    let Some(disk) = SmallDisk::mount(&small, "size=24m") else { return };
    let variables = [("TMPDIR", small.to_str().unwrap())];
    let demo = |size| Sprat::start_with(dir.path(), &["demo", "--size", size, "--peers", "3"], &variables);
    let refused = demo("8MiB").end();
    assert_eq!((refused.code, refused.err.len()), (Some(1), 1), "{refused:?}");
    assert!(refused.err[0].contains("more are needed; choose less with --size"), "{refused:?}");

    // Somebody else takes the room meanwhile, which passes.
    disk.fill_but(12 << 20);
    assert_eq!(demo("2MiB").end().code, Some(0));
    disk.free();

    let left = small.join("sprat-demo-left");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("large.bin"), vec![0; 20 << 20]).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    std::fs::File::open(&left).unwrap().set_modified(long_ago).unwrap();
    let ended = demo("2MiB").end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.err, ["Removed what 1 demo left behind when killed: 20.0 MiB"]);
    assert_eq!(std::fs::read_dir(&small).unwrap().count(), 0);
}

#[test]
fn a_demo_whose_disk_fills_up_says_so_and_waits() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    let Some(disk) = SmallDisk::mount(&small, "size=160m") else { return };
    let variables = [("TMPDIR", small.to_str().unwrap())];
    let start = |more: &[&str]| {
        let args = [&["demo", "--size", "32MiB", "--peers", "3"], more].concat();
        let mut demo = Sprat::start_with(dir.path(), &args, &variables);
        demo.line(if more.is_empty() { "A tracker and a seed" } else { "\"started\"" });
        // The original and a part of the copies.
        let shrunk = [48, 64, 96, 112].into_iter().any(|mib| disk.resize(mib));
        assert!(shrunk, "the demo does not end before a disk can be made smaller");
        demo
    };
    let mut demo = start(&[]);
    let told = demo.line("is full");
    assert!(told.starts_with("warning: the file system of "), "{told}");
    assert!(told.contains(" MiB more are needed; the demo waits and goes on by itself"), "{told}");
    assert!(disk.resize(160));
    demo.line("The disk takes data again; the demo goes on");
    let ended = demo.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.iter().any(|line| line.starts_with("All 3 peers have all")), "{ended:?}");

    let mut demo = start(&["--json"]);
    let full = demo.event("storage");
    assert_eq!(full["state"], "full", "{full}");
    demo.signal("INT");
    assert_eq!(demo.end().code, Some(130));
    assert_eq!(std::fs::read_dir(&small).unwrap().count(), 0);
}

#[test]
fn a_file_that_cannot_be_written_is_told_with_the_option_that_names_it() {
    let dir = workplace();
    let commands: [(&[&str], &str); 3] = [
        (&["download", "set.torrent", "-d", "copy", "-p", "0", "--save-torrent"], "--save-torrent"),
        (&["show", "set.torrent", "-o"], "-o"),
        (&["create", "set", "-o"], "-o"),
    ];
    for (args, option) in commands {
        let ended = sprat(dir.path(), &[args, &["missing/x"]].concat());
        assert_eq!((ended.code, ended.err.len()), (Some(1), 1), "{ended:?}");
        assert!(ended.err[0].ends_with(&format!("; choose another place with {option}")), "{ended:?}");
    }
}

#[test]
fn show_and_verify_count_no_padding() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/torrents/hybrid-folder.torrent");
    std::fs::copy(fixture, dir.path().join("hybrid.torrent")).unwrap();
    let shown = sprat(dir.path(), &["show", "hybrid.torrent", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown.out[0]).unwrap();
    let files = shown["files"].as_array().unwrap();
    assert!(files.iter().any(|file| file["attributes"] == "p"), "{shown}");
    let total = shown["total_size"].as_u64().unwrap();
    assert_eq!(total, 53_000);
    let verified = sprat(dir.path(), &["verify", "hybrid.torrent", "--json"]);
    let last: serde_json::Value = serde_json::from_str(verified.out.last().unwrap()).unwrap();
    assert_eq!((last["event"].as_str(), last["missing"].as_u64()), (Some("verified"), Some(total)), "{last}");
    let text = sprat(dir.path(), &["show", "hybrid.torrent"]);
    let size = text.out.iter().find(|line| line.starts_with("size ")).unwrap();
    let size = size.trim_start_matches("size").trim().split(" (").next().unwrap();
    let verified = sprat(dir.path(), &["verify", "hybrid.torrent"]);
    assert!(verified.err[0].contains(&format!("not good, {size} in ")), "{size}: {verified:?}");
    std::fs::create_dir_all(dir.path().join("folder/sub")).unwrap();
    for (name, seed, len) in [("a.txt", 2, 20_000), ("empty", 3, 0), ("sub/tool.sh", 4, 33_000)] {
        std::fs::write(dir.path().join("folder").join(name), fixture_bytes(seed, len)).unwrap();
    }
    let verified = sprat(dir.path(), &["verify", "hybrid.torrent"]);
    assert_eq!(verified.out, [format!("folder: 3 files good, {size}")], "{verified:?}");
}

/// Content of the fixtures, by the rule in their README.
fn fixture_bytes(seed: u32, len: usize) -> Vec<u8> {
    (0..).flat_map(|index| Sha1::digest(format!("{seed} {index}"))).take(len).collect()
}

#[test]
fn what_is_odd_about_a_torrent_is_shown() {
    let dir = workplace();
    let mut torrent = std::fs::read(dir.path().join("set.torrent")).unwrap();
    torrent.extend(b"\r\n");
    std::fs::write(dir.path().join("odd.torrent"), &torrent).unwrap();
    let shown = sprat(dir.path(), &["show", "odd.torrent"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.out.iter().any(|line| line.starts_with("odd        there are bytes after the end")));
    let json = sprat(dir.path(), &["show", "odd.torrent", "--json"]);
    let object: serde_json::Value = serde_json::from_str(&json.out[0]).unwrap();
    assert_eq!(object["oddities"].as_array().map(Vec::len), Some(1));
}
