//! Something else in the place of a file of the torrent, or of a folder on the way to it: one error
//! names it, not what would lie below it, and says what to do.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Ended, Sprat, content, sprat};

/// A torrent of `x` with nested folders, and a folder `to` for its content.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        content(&scene.path("x"), &[("m/a", 40_000), ("m/b", 40_000), ("n/c", 1_000)]);
        fs::create_dir(scene.path("torrents")).unwrap();
        let made = sprat(scene.0.path(), &["create", "x", "-o", "torrents/x.torrent"]);
        assert_eq!(made.code, Some(0), "{made:?}");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Ended {
        let state = self.path("state");
        let variables = [("XDG_STATE_HOME", state.to_str().unwrap())];
        Sprat::start_with(self.0.path(), args, &variables).end()
    }

    /// Puts something into the place `at` of a complete copy; false: it cannot be made here.
    fn put(&self, what: &str, at: &str) -> bool {
        let _ = fs::remove_dir_all(self.path("to"));
        content(&self.path("to/x"), &[("m/a", 40_000), ("m/b", 40_000), ("n/c", 1_000)]);
        let place = self.path("to").join(at);
        if place.is_dir() {
            fs::remove_dir_all(&place).unwrap()
        } else {
            fs::remove_file(&place).unwrap()
        }
        let made = |program: &str, args: &[&str]| {
            Command::new(program).arg(&place).args(args).status().unwrap().success()
        };
        match what {
            "a file" => fs::write(&place, "mine").unwrap(),
            "a folder" => fs::create_dir(&place).unwrap(),
            "a symbolic link" => symlink(self.path(at), &place).unwrap(),
            "a symbolic link that leads nowhere" => symlink("nowhere", &place).unwrap(),
            "a pipe" => assert!(made("mkfifo", &[])),
            "a socket" => drop(UnixListener::bind(&place).unwrap()),
            _ => return made("mknod", &["c", "1", "3"]),
        }
        true
    }

    /// Every command names the obstacle alone, and says what to do.
    fn assert_named(&self, what: &str, at: &str, expected: &str) {
        let error = format!("to/{at}: {what} stands where a {expected} belongs; ");
        for more in [&[][..], &["--overwrite"]] {
            let args = ["download", "torrents/x.torrent", "-d", "to", "--port", "0", "--no-dht", "--no-lsd"];
            let refused = self.run(&[&args[..], &["--peer", "127.0.0.1:1"], more].concat());
            let whole = format!("error: {error}move it away, or choose another folder with -d");
            assert_eq!((refused.code, &refused.err), (Some(1), &vec![whole]), "{refused:?}");
        }

        let is_link = what == "a symbolic link";
        let follow = if is_link { "give --follow-links to read through it, " } else { "" };
        let fetch = "move it away and fetch the content with `sprat download`, or say where it is with -d";
        let seed = ["seed", "torrents/x.torrent", "-d", "to", "--port", "0"];
        for more in [&[][..], &["--follow-links"], &["--assume-complete"]] {
            if is_link && more == ["--follow-links"] {
                continue;
            }
            let refused = self.run(&[&seed[..], more].concat());
            let whole = format!("error: {error}{follow}{fetch}");
            assert_eq!((refused.code, &refused.err), (Some(3), &vec![whole]), "{more:?}");
        }
        let many = self.run(&["seed", "torrents", "-d", "to", "--port", "0"]);
        let left_out = format!("warning: left out: torrents/x.torrent: {error}{follow}{fetch}");
        assert_eq!((many.code, &many.err[0]), (Some(3), &left_out), "{many:?}");

        let verified = self.run(&["verify", "torrents/x.torrent", "-d", "to"]);
        assert_eq!((verified.code, verified.err.len()), (Some(3), 1), "{verified:?}");
        let first = format!("first move away to/{at} ({what} stands where a {expected} belongs), then ");
        assert!(verified.err[0].contains(&first), "{verified:?}");
        assert_eq!(verified.err[0].contains("--follow-links"), is_link, "{verified:?}");
        let listed = format!("(to/{at}: {what} stands where a {expected} belongs)");
        assert!(verified.out.iter().any(|line| line.contains("x/m/a") && line.ends_with(&listed)));
        let followed = self.run(&["verify", "torrents/x.torrent", "-d", "to", "--follow-links"]);
        if is_link {
            assert_eq!(followed.code, Some(0), "{followed:?}");
        } else {
            assert!(followed.code == Some(3) && followed.err[0].contains(&first), "{followed:?}");
        }
    }
}

/// Whether something still stands where it was put, as it was.
fn is_untouched(what: &str, place: &Path) -> bool {
    let kind = fs::symlink_metadata(place).unwrap().file_type();
    match what {
        "a file" => fs::read(place).unwrap() == b"mine",
        "a folder" => fs::read_dir(place).unwrap().count() == 0,
        _ => !kind.is_file() && !kind.is_dir(),
    }
}

const LINKS_AND_SPECIAL_FILES: [&str; 5] =
    ["a symbolic link", "a symbolic link that leads nowhere", "a pipe", "a socket", "a device"];

#[test]
fn what_stands_in_the_place_of_a_folder_is_named_and_not_the_files_below_it() {
    let scene = Scene::new();
    for at in ["x", "x/m"] {
        for what in ["a file"].into_iter().chain(LINKS_AND_SPECIAL_FILES) {
            if scene.put(what, at) {
                scene.assert_named(what, at, "folder");
                assert!(is_untouched(what, &scene.path("to").join(at)), "{what} at {at}");
            }
        }
    }
}

#[test]
fn what_stands_in_the_place_of_a_file_is_named() {
    let scene = Scene::new();
    for what in ["a folder"].into_iter().chain(LINKS_AND_SPECIAL_FILES) {
        if scene.put(what, "x/m/a") {
            scene.assert_named(what, "x/m/a", "file");
            assert!(is_untouched(what, &scene.path("to/x/m/a")), "{what}");
        }
    }
}

#[test]
fn what_stands_in_the_place_of_the_folder_for_content_is_named() {
    let scene = Scene::new();
    fs::write(scene.path("to"), "mine").unwrap();
    symlink("nowhere", scene.path("link")).unwrap();
    for dir in ["to", "to/below", "link"] {
        for command in ["download", "seed", "verify"] {
            let mut args = vec![command, "torrents/x.torrent", "-d", dir];
            if command != "verify" {
                args.extend(["--port", "0"]);
            }
            let refused = scene.run(&args);
            assert_eq!((refused.code, refused.err.len()), (Some(1), 1), "{args:?}: {refused:?}");
            assert!(refused.err[0].starts_with(&format!("error: {dir}: ")), "{args:?}: {refused:?}");
            assert!(refused.err[0].contains("; ") && refused.err[0].ends_with(" with -d"), "{refused:?}");
        }
    }
    assert_eq!(fs::read(scene.path("to")).unwrap(), b"mine");
    assert!(!scene.path("nowhere").exists());
}
