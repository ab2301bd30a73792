//! A torrent is not written over the content that it describes, by whatever name.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::process::{Ended, content, sprat, tree};

/// A folder with `set/`, its torrent and other names of `set/a.bin`.
fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    content(&dir.path().join("set"), &[("a.bin", 100_000), ("below/b.bin", 10_000)]);
    symlink("set/a.bin", dir.path().join("link")).unwrap();
    symlink("set", dir.path().join("folder")).unwrap();
    std::fs::hard_link(dir.path().join("set/a.bin"), dir.path().join("hard")).unwrap();
    assert_eq!(sprat(dir.path(), &["create", "set", "-o", "set.torrent"]).code, Some(0));
    dir
}

fn assert_refused(ended: &Ended, option: &str) {
    assert_eq!((ended.code, ended.err.len()), (Some(2), 1), "{ended:?}");
    assert!(ended.err[0].contains("belongs to the content"), "{ended:?}");
    assert!(ended.err[0].contains(option), "{ended:?}");
}

#[test]
fn no_torrent_is_written_over_what_was_hashed() {
    let dir = workplace();
    let before = tree(dir.path());
    for command in ["create", "seed"] {
        for (path, output) in [
            ("set/a.bin", "set/a.bin"),
            ("set/a.bin", "link"),
            ("set/a.bin", "hard"),
            ("hard", "set/a.bin"),
            ("link", "./set/../link"),
            ("set", "set/below/b.bin"),
            ("set", "folder/a.bin"),
            ("folder", "set/a.bin"),
            ("set", "hard"),
        ] {
            assert_refused(&sprat(dir.path(), &[command, path, "-o", output]), "-o");
            assert!(tree(dir.path()) == before, "{command} {path} -o {output}");
        }
    }
    for output in ["set/a.bin", "hard", "link", "folder/below/b.bin", "set"] {
        assert_refused(&sprat(dir.path(), &["seed", "set.torrent", "-d", ".", "-o", output]), "-o");
        assert!(tree(dir.path()) == before, "seed set.torrent -o {output}");
    }
    let appended = File::options().append(true).open(dir.path().join("set/a.bin")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sprat"));
    command.args(["create", "set", "-o", "-"]).current_dir(dir.path());
    let ended = command.stdout(appended).stderr(Stdio::null()).status().unwrap();
    assert_eq!(ended.code(), Some(2));
    assert!(tree(dir.path()) == before, "standard output");
    // Beside the files of the content there is room.
    assert_eq!(sprat(dir.path(), &["create", "set", "-o", "set/new.torrent"]).code, Some(0));
}

#[test]
fn no_torrent_is_saved_where_the_content_will_be() {
    let dir = workplace();
    std::fs::create_dir(dir.path().join("to")).unwrap();
    symlink("to", dir.path().join("other")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let dangling = elsewhere.path().join("link");
    symlink(dir.path().join("to/set/a.bin"), &dangling).unwrap();
    let before = tree(dir.path());
    for (to, target) in [
        ("to", "to/set/a.bin"),
        ("to", "./to/../to/set/a.bin"),
        ("to", "other/set/below/b.bin"),
        ("other", "to/set/a.bin"),
        ("to", dangling.to_str().unwrap()),
        ("to", "to/SET/A.bin"),
        ("to", "to/set"),
        ("to", "to/set/below"),
        ("none/yet", "none/yet/set/a.bin"),
        ("none/yet", "none/yet"),
        (".", "set/a.bin"),
        (".", "hard"),
    ] {
        let args = ["download", "set.torrent", "-d", to, "--save-torrent", target, "--port", "0"];
        assert_refused(&sprat(dir.path(), &args), "--save-torrent");
        assert!(tree(dir.path()) == before, "-d {to} --save-torrent {target}");
    }
}
