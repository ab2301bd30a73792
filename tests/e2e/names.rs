//! Names that torrents and folders have: unsafe and equal ones, characters that scripts need,
//! links.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;
use sprat::proto::metainfo::Metainfo;

use crate::odd_fs::OddFs;
use crate::process::{Ended, Sprat, content, sprat, tree};

/// A seed in `dir`, and the address it listens on.
fn seed(dir: &Path, args: &[&str]) -> (Sprat, String) {
    let args = [&["seed", "--port", "0", "--json"], args].concat();
    let mut seed = Sprat::start(dir, &args);
    let port = seed.event("seeding")["port"].as_u64().unwrap();
    (seed, format!("127.0.0.1:{port}"))
}

fn download(dir: &Path, torrent: &str, to: &str, peer: &str) -> Ended {
    sprat(dir, &["download", torrent, "-d", to, "--port", "0", "--peer", peer])
}

fn show(dir: &Path, torrent: &str) -> Value {
    let shown = sprat(dir, &["show", torrent, "--json"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    serde_json::from_str(&shown.out[0]).unwrap()
}

/// A torrent of files of 7 bytes under these paths, in place of the names of one that was made.
fn odd_torrent(dir: &Path, paths: &[&[&[u8]]]) {
    let names: Vec<String> = (0..paths.len()).map(|file| format!("{file:03}")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 7)).collect();
    content(&dir.join("odd"), &files);
    assert_eq!(sprat(dir, &["create", "odd", "-o", "plain.torrent"]).code, Some(0));
    let mut bytes = fs::read(dir.join("plain.torrent")).unwrap();
    for (name, path) in names.iter().zip(paths) {
        let plain = format!("4:pathl3:{name}e").into_bytes();
        let at = bytes.windows(plain.len()).position(|window| window == plain).unwrap();
        let mut odd = b"4:pathl".to_vec();
        for element in *path {
            odd.extend(format!("{}:", element.len()).into_bytes());
            odd.extend(*element);
        }
        odd.push(b'e');
        bytes.splice(at..at + plain.len(), odd);
    }
    fs::write(dir.join("odd.torrent"), &bytes).unwrap();
    // Where the content is to lie.
    let info = Metainfo::decode(&bytes).unwrap().info;
    for (name, file) in names.iter().zip(&info.files) {
        let to = file.path.iter().fold(dir.join("there"), |path, element| path.join(element));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(dir.join("odd").join(name), to).unwrap();
    }
}

#[test]
fn torrents_with_unsafe_and_equal_paths_are_loaded_under_other_names() {
    let dir = tempfile::tempdir().unwrap();
    let long = |end: &str| [vec![b'x'; 257], end.as_bytes().to_vec()].concat();
    let (one, other) = (long("1.txt"), long("2.txt"));
    odd_torrent(
        dir.path(),
        &[
            &[b"a"],
            &[b"a"],
            &[b"a", b"b"],
            &[b"..", b"..", b"etc"],
            &[b"/abs"],
            &[b"//foo"],
            &[b"\\/\\/bar"],
            &[b"dir", b""],
            &[],
            &[b""],
            &[b"\xe8"],
            &[b"\xe9"],
            &[&one],
            &[&other],
            &["re\u{202e}move".as_bytes()],
            &["re\u{2067}move".as_bytes()],
            &[b"A"],
        ],
    );
    let shown = show(dir.path(), "odd.torrent");
    let paths: Vec<&str> =
        shown["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths[..4], ["odd/a.1", "odd/a.2", "odd/a/b", "odd/_/_/etc"]);
    assert_eq!(paths[7], "odd/dir");
    assert_eq!(paths[16], "odd/A");
    assert!(shown["renamed"].as_array().unwrap().len() >= 14, "{shown}");
    let text = sprat(dir.path(), &["show", "odd.torrent"]).out.join("\n");
    assert!(text.contains("renamed    a to a.1") && !text.contains('\u{202e}'), "{text}");
    assert_eq!(sprat(dir.path(), &["verify", "odd.torrent", "-d", "there"]).code, Some(0));
    let (_seed, peer) = seed(dir.path(), &["odd.torrent", "-d", "there"]);
    let ended = download(dir.path(), "odd.torrent", "copy", &peer);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(tree(&dir.path().join("there")) == tree(&dir.path().join("copy")));
}

#[test]
fn names_that_scripts_need_are_shared_as_they_are_and_shown_harmlessly() {
    let dir = tempfile::tempdir().unwrap();
    let names = [
        "👩\u{200d}👧.png",
        "می\u{200c}خواهم",
        "co\u{ad}op",
        "\u{feff}b",
        "a\u{200e}b\u{200f}c\u{61c}",
        "A",
        "a",
        "e\u{301}",
        "é",
        "what? a: b",
    ];
    let files: Vec<(&str, usize)> = names.iter().map(|name| (*name, 20_000)).collect();
    content(&dir.path().join("set"), &files);
    let made = sprat(dir.path(), &["create", "set"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let verified = sprat(dir.path(), &["verify", "set.torrent", "--files"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let shown = sprat(dir.path(), &["show", "set.torrent"]);
    let json = sprat(dir.path(), &["show", "set.torrent", "--json"]);
    for line in verified.out.iter().chain(&shown.out).chain(&json.out) {
        assert!(!line.contains(['\u{200c}', '\u{200d}', '\u{ad}', '\u{feff}', '\u{61c}']), "{line}");
    }
    assert!(shown.out.iter().any(|line| line.contains("co\\u{ad}op")), "{shown:?}");
    let object: Value = serde_json::from_str(&json.out[0]).unwrap();
    let is_told = |name: &&str| {
        let path = format!("set/{name}");
        object["files"].as_array().unwrap().iter().any(|file| file["path"] == path.as_str())
    };
    assert!(names.iter().all(is_told), "{object}");
    let (_seed, peer) = seed(dir.path(), &["set"]);
    let ended = download(dir.path(), "set.torrent", "copy", &peer);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(tree(&dir.path().join("set")) == tree(&dir.path().join("copy/set")));
}

#[test]
fn content_under_the_names_of_earlier_versions_and_other_clients_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    content(&dir.path().join("set"), &[("A", 20_000), ("a", 20_000), ("co\u{ad}op", 20_000)]);
    assert_eq!(sprat(dir.path(), &["create", "set"]).code, Some(0));
    let (_seed, peer) = seed(dir.path(), &["set"]);
    for (from, to) in [("A", "A"), ("a", "a.1"), ("co\u{ad}op", "co_op")] {
        fs::create_dir_all(dir.path().join("old/set")).unwrap();
        fs::copy(dir.path().join("set").join(from), dir.path().join("old/set").join(to)).unwrap();
    }
    let verified = sprat(dir.path(), &["verify", "set.torrent", "-d", "old"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(verified.out.iter().any(|line| line.contains("set/a as set/a.1")), "{verified:?}");
    let args = ["download", "set.torrent", "-d", "old", "--port", "0", "--peer", &peer, "--json"];
    let mut again = Sprat::start(dir.path(), &args);
    let told = again.event("other_names");
    assert_eq!(told["files"][0]["path"], "set/a");
    assert_eq!(told["files"][0]["stored_as"], "set/a.1");
    assert_eq!(again.event("completed")["downloaded"], 0);
    assert_eq!(again.end().code, Some(0));
    let (_second, _) = seed(dir.path(), &["set.torrent", "-d", "old", "--assume-complete"]);
}

#[test]
fn links_and_pipes_in_a_folder_are_left_out_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    content(&dir.path().join("set"), &[("file", 100)]);
    content(&dir.path().join("out"), &[("far", 50_000)]);
    symlink("../out/far", dir.path().join("set/link")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(dir.path().join("set/pipe")).status().unwrap();
    assert!(pipe.success());
    symlink("nowhere", dir.path().join("set/dangling")).unwrap();
    let made = sprat(dir.path(), &["create", "set"]);
    assert_eq!((made.code, made.err.len()), (Some(0), 3), "{made:?}");
    assert!(made.err.iter().all(|line| line.starts_with("warning: ") && line.contains("is left out")));
    assert!(made.err[0].contains("set/dangling"), "{made:?}");
    assert!(made.err[1].contains("set/link") && made.err[1].contains("--follow-links"), "{made:?}");
    assert!(made.err[2].contains("set/pipe"), "{made:?}");
    let followed = sprat(dir.path(), &["create", "set", "--follow-links", "-o", "all.torrent"]);
    assert_eq!((followed.code, followed.err.len()), (Some(0), 2), "{followed:?}");
    assert!(followed.err[0].contains("set/dangling is left out: a symbolic link that leads nowhere"));
    let mut seed_of_folder =
        Sprat::start(dir.path(), &["seed", "set", "-o", "seeded.torrent", "--port", "0"]);
    for name in ["dangling", "link", "pipe"] {
        let warning = seed_of_folder.line("is left out");
        assert!(warning.contains(&format!("set/{name} ")), "{name}: {warning}");
    }
    seed_of_folder.line("Others run");
    assert_eq!(show(dir.path(), "seeded.torrent")["files"].as_array().unwrap().len(), 1);
    assert_eq!(show(dir.path(), "all.torrent")["files"].as_array().unwrap().len(), 2);

    // What its owner moved away and linked back is seeded, if that is said.
    let refused = sprat(dir.path(), &["seed", "all.torrent", "--port", "0"]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.err[0].contains("set/link") && refused.err[0].contains("--follow-links"), "{refused:?}");
    let assumed = sprat(dir.path(), &["seed", "all.torrent", "--port", "0", "--assume-complete"]);
    assert_eq!(assumed.code, Some(3), "{assumed:?}");
    assert_ne!(sprat(dir.path(), &["verify", "all.torrent"]).code, Some(0));
    assert_eq!(sprat(dir.path(), &["verify", "all.torrent", "--follow-links"]).code, Some(0));
    let (_seed, peer) = seed(dir.path(), &["all.torrent", "--follow-links"]);
    let ended = download(dir.path(), "all.torrent", "copy", &peer);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let copied = fs::read(dir.path().join("copy/set/link")).unwrap();
    assert!(copied == fs::read(dir.path().join("out/far")).unwrap());
}

#[test]
fn a_link_is_shared_under_the_name_that_was_typed() {
    let dir = tempfile::tempdir().unwrap();
    content(&dir.path().join("v2.0"), &[("file", 30_000)]);
    symlink("v2.0", dir.path().join("latest")).unwrap();
    assert_eq!(sprat(dir.path(), &["create", "latest"]).code, Some(0));
    assert_eq!(show(dir.path(), "latest.torrent")["name"], "latest");
    let (_seed, peer) = seed(dir.path(), &["latest"]);
    let ended = download(dir.path(), "latest.torrent", "copy", &peer);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(tree(&dir.path().join("v2.0")) == tree(&dir.path().join("copy/latest")));
}

#[test]
fn a_file_system_that_takes_names_for_one_or_refuses_them_gets_others() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("odd");
    let Some(_mounted) = OddFs::mount(&odd) else { return };
    let long = "x".repeat(200);
    let names = ["A", "a", "b: c?", "b_ c_", "d.", "d", &long, "e/x", "E", "plain"];
    let files: Vec<(&str, usize)> = names.iter().map(|name| (*name, 40_000)).collect();
    content(&dir.path().join("set"), &files);
    assert_eq!(sprat(dir.path(), &["create", "set", "--piece-size", "16384"]).code, Some(0));
    let (_seed, peer) = seed(dir.path(), &["set"]);
    let args = ["download", "set.torrent", "-d", "odd", "--port", "0", "--peer", &peer, "--json"];
    let mut download = Sprat::start(dir.path(), &args);
    let told = download.event("other_names");
    let stored = told["files"].as_array().unwrap().iter().map(|file| &file["stored_as"]);
    let stored: Vec<&str> = stored.map(|path| path.as_str().unwrap()).collect();
    let short = format!("set/{}", "x".repeat(143));
    assert_eq!(stored, ["set/E.1", "set/a.1", "set/b_ c_.1", "set/d_.1", &short], "{told}");
    assert!(download.event("completed")["downloaded"].as_u64().unwrap() >= 400_000);
    assert_eq!(download.end().code, Some(0));
    let verified = sprat(dir.path(), &["verify", "set.torrent", "-d", "odd"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    // Begun again, and seeded from there.
    let again = self::download(dir.path(), "set.torrent", "odd", &peer);
    assert!(again.out.iter().any(|line| line.starts_with("Complete: set")), "{again:?}");
    let (_second, peer) = seed(dir.path(), &["set.torrent", "-d", "odd"]);
    let ended = self::download(dir.path(), "set.torrent", "copy", &peer);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(tree(&dir.path().join("set")) == tree(&dir.path().join("copy/set")));
}
