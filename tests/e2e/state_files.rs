//! The state folder and what lies in it: unusable, full, damaged or something else than a file. A
//! command says so once and does its work without it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Ended, Sprat, content, sprat, tree};
use super::small_disk::SmallDisk;

/// A seed of `set`, the folder with it, and its address.
struct Scene {
    dir: tempfile::TempDir,
    _seed: Sprat,
    peer: String,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        content(&dir.path().join("set"), &[("a", 3_000_001), ("b/c", 1_000)]);
        let mut seed = Sprat::start(dir.path(), &["seed", "set", "-p", "0", "--json"]);
        let peer = format!("127.0.0.1:{}", seed.event("seeding")["port"]);
        Self { dir, _seed: seed, peer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a command with its state in `state`.
    fn run(&self, args: &[&str]) -> Ended {
        let state = self.path("state");
        let variables = [("XDG_STATE_HOME", state.to_str().unwrap())];
        Sprat::start_with(self.dir.path(), args, &variables).end()
    }

    /// Downloads to `copy`.
    fn download(&self) -> Ended {
        let ended = self.run(&["download", "set.torrent", "-d", "copy", "-p", "0", "--peer", &self.peer]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(tree(&self.path("set")) == tree(&self.path("copy/set")));
        ended
    }

    /// The one journal.
    fn journal(&self) -> PathBuf {
        let resume = self.path("state/sprat/resume");
        let names = std::fs::read_dir(resume).unwrap().map(|entry| entry.unwrap().path());
        let mut journals = names.filter(|path| path.extension().is_some_and(|ending| ending == "journal"));
        journals.next().unwrap()
    }
}

/// Warned once, in these words.
fn assert_warned(ended: &Ended, part: &str) {
    assert_eq!(ended.err.len(), 1, "{ended:?}");
    assert!(ended.err[0].starts_with("warning: ") && ended.err[0].contains(part), "{ended:?}");
}

#[test]
fn a_state_folder_that_cannot_be_used_is_done_without() {
    let scene = Scene::new();
    std::fs::write(scene.path("state"), "").unwrap();
    assert_warned(&scene.download(), "going on without journals");
    let repaired = scene.path("state");
    std::fs::remove_file(&repaired).unwrap();
    assert!(scene.download().err.is_empty());
}

#[test]
fn a_full_state_folder_is_done_without() {
    let scene = Scene::new();
    let Some(disk) = SmallDisk::mount(&scene.path("state"), "size=1m") else { return };
    disk.fill_but(0);
    assert_warned(&scene.download(), "No space left on device; going on without it");
    disk.free();
    assert!(scene.download().err.is_empty());
    assert!(scene.journal().exists());
}

#[test]
fn a_journal_of_an_unknown_version_is_set_aside_and_a_new_one_begun() {
    let scene = Scene::new();
    assert!(scene.download().err.is_empty());
    let journal = scene.journal();
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[8] ^= 0x40;
    std::fs::write(&journal, &bytes).unwrap();
    assert_warned(&scene.download(), "a new one is begun");
    let aside = PathBuf::from(format!("{}.aside", journal.display()));
    assert_eq!(std::fs::read(aside).unwrap(), bytes, "it is kept");
    assert!(scene.download().err.is_empty(), "the new one is as good as any");
}

#[test]
fn a_journal_of_an_unknown_version_is_left_as_it_is_by_what_writes_no_content() {
    let scene = Scene::new();
    scene.download();
    let journal = scene.journal();
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[8] ^= 0x40;
    std::fs::write(&journal, &bytes).unwrap();
    let assert_left = |ended: &Ended| {
        assert_eq!(std::fs::read(&journal).unwrap(), bytes, "{ended:?}");
    };
    let verified = scene.run(&["verify", "set.torrent", "-d", "copy"]);
    assert_eq!((verified.code, verified.err.len()), (Some(0), 0), "{verified:?}");
    assert_left(&verified);

    let download = ["download", "set.torrent", "-d", "copy", "-p", "0"];
    std::fs::write(scene.path("copy/set/a"), vec![b'x'; 3_000_001]).unwrap();
    for args in [&download[..], &["seed", "set.torrent", "-d", "copy", "-p", "0"]] {
        let refused = scene.run(args);
        assert_ne!(refused.code, Some(0), "{refused:?}");
        let is_told = |line: &String| line.starts_with("warning: journal ") && line.contains("left as it is");
        assert!(refused.err.iter().any(is_told), "{refused:?}");
        assert_left(&refused);
    }

    std::fs::remove_dir_all(scene.path("copy")).unwrap();
    let refused = scene.run(&download);
    assert_eq!((refused.code, refused.err.len()), (Some(1), 1), "{refused:?}");
    for part in ["copy", ".journal", "mount", "--overwrite"] {
        assert!(refused.err[0].contains(part), "{refused:?}");
    }
    assert!(!scene.path("copy").exists(), "its disk may not be mounted");
    assert_left(&refused);
}

#[test]
fn what_stands_in_the_place_of_a_journal_is_set_aside() {
    let scene = Scene::new();
    assert!(scene.download().err.is_empty());
    let journal = scene.journal();
    let shown = journal.display();
    for kind in ["mkfifo X", "mkdir X && touch X/y", "ln -s /etc/passwd X", "ln -s X X", "mknod X c 1 5"] {
        let line = format!("rm -rf {shown} {shown}.aside && {}", kind.replace('X', &shown.to_string()));
        if !Command::new("sh").args(["-c", &line]).status().unwrap().success() {
            println!("{kind}: not possible here");
            continue;
        }
        assert_warned(&scene.download(), "a new one is begun");
        assert!(std::fs::symlink_metadata(&journal).unwrap().is_file(), "{kind}");
        assert!(scene.download().err.is_empty(), "{kind}");
    }
    for damaged in [Vec::new(), vec![0; 40], vec![b'x'; 1 << 20]] {
        std::fs::write(&journal, damaged).unwrap();
        assert!(scene.download().err.is_empty(), "what makes no sense is begun anew");
    }
    std::fs::File::create(&journal).unwrap().set_len(1 << 40).unwrap();
    assert!(scene.download().err.is_empty(), "a terabyte is not read");
}

#[test]
fn what_stands_in_the_place_of_the_dht_nodes_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = dir.path().join("sprat/dht-nodes");
    std::fs::create_dir(dir.path().join("sprat")).unwrap();
    let shown = nodes.display();
    for kind in ["mkfifo X", "mkdir X", "ln -s X X", "ln -s /dev/zero X", "head -c 1000000 /dev/zero > X"] {
        let line = format!("rm -rf {shown} && {}", kind.replace('X', &shown.to_string()));
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
        let args = ["dht", "node", "-p", "0", "--json", "--dht-bootstrap", "none", "--every", "100ms"];
        let variables = [("XDG_STATE_HOME", dir.path().to_str().unwrap())];
        let mut node = Sprat::start_with(dir.path(), &args, &variables);
        node.event("node");
        node.signal("TERM");
        assert_eq!(node.end().code, Some(0), "{kind}");
    }
}

#[test]
fn a_limit_on_the_length_of_files_is_an_error_and_no_sudden_end() {
    let scene = Scene::new();
    let limited = |blocks: u32, line: &str| {
        let line = format!("ulimit -f {blocks}; exec '{}' {line}", env!("CARGO_BIN_EXE_sprat"));
        Sprat::start_program(Path::new("/bin/sh"), scene.dir.path(), &["-c", &line], &[]).end()
    };
    let download = limited(100, &format!("download set.torrent -d copy -p 0 --peer {}", scene.peer));
    assert_eq!((download.code, download.err.len()), (Some(1), 1), "{download:?}");
    assert!(download.err[0].contains("File too large"), "{download:?}");
    for line in ["create set -o new.torrent", "show set.torrent > shown"] {
        let ended = limited(0, line);
        assert_eq!((ended.code, ended.err.len()), (Some(1), 1), "{line}: {ended:?}");
        assert!(ended.err[0].contains("File too large"), "{line}: {ended:?}");
    }
    let names = std::fs::read_dir(scene.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().contains("part")).collect();
    assert!(left.is_empty() && !scene.path("new.torrent").exists(), "{left:?}");
}

#[test]
fn a_link_that_waits_for_a_temporary_file_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    content(dir.path(), &[("set", 10_000), ("victim", 10)]);
    let before = std::fs::read(dir.path().join("victim")).unwrap();
    let links = "for name in .settorrent.$$.0.part .sprat-$$-0.part; do ln -s victim $name; done";
    let line = format!("{links}; exec '{}' create set", env!("CARGO_BIN_EXE_sprat"));
    let made = Sprat::start_program(Path::new("/bin/sh"), dir.path(), &["-c", &line], &[]).end();
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(std::fs::read(dir.path().join("victim")).unwrap() == before);
    assert_eq!(sprat(dir.path(), &["show", "set.torrent"]).code, Some(0));
}
