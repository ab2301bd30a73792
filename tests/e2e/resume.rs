//! What the next start knows, who else is at the content, and where it may not be written.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Sprat, content, sprat, tree};
use crate::small_disk::SmallDisk;

const CONTENT_LEN: usize = 48 << 20;
/// Far above what a process reads to start, far below what hashing the content would read.
const READ_MAX: u64 = 12 << 20;

/// `set/` with its torrent, and a folder for state.
struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
    state: String,
}

impl Place {
    fn new(len: usize) -> Self {
        Self::of_pieces(len, "64KiB")
    }

    fn of_pieces(len: usize, piece_size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        content(&path.join("set"), &[("a", len / 2), ("b/c", len - len / 2)]);
        let args = ["create", "set", "-o", "set.torrent", "--piece-size", piece_size];
        assert_eq!(sprat(&path, &args).code, Some(0));
        let state = path.join("state").to_str().unwrap().to_owned();
        Self { _dir: dir, path, state }
    }

    fn start(&self, args: &[&str]) -> Sprat {
        self.start_in(&self.state, args)
    }

    fn start_in(&self, state: &str, args: &[&str]) -> Sprat {
        let args = [args, &["-p", "0", "--json"]].concat();
        Sprat::start_with(&self.path, &args, &[("XDG_STATE_HOME", state)])
    }

    /// A seed, and its address.
    fn seed(&self, more: &[&str]) -> (Sprat, String) {
        self.seed_in(&self.state, more)
    }

    /// A seed whose journals are elsewhere, and its address.
    fn source(&self) -> (Sprat, String) {
        self.seed_in(&format!("{}-of-source", self.state), &[])
    }

    fn seed_in(&self, state: &str, more: &[&str]) -> (Sprat, String) {
        let mut seed = self.start_in(state, &[&["seed", "set.torrent"], more].concat());
        let peer = format!("127.0.0.1:{}", seed.event("seeding")["port"]);
        (seed, peer)
    }

    fn download(&self, more: &[&str]) -> Sprat {
        self.start(&[&["download", "set.torrent", "-d", "copy"], more].concat())
    }

    /// Copies the content into another folder.
    fn copy_to(&self, to: &str) {
        std::fs::create_dir_all(self.path.join(to)).unwrap();
        let copied = Command::new("cp").args(["-r", "set", to]).current_dir(&self.path).status();
        assert!(copied.unwrap().success());
    }

    fn assert_same(&self) {
        assert!(tree(&self.path.join("set")) == tree(&self.path.join("copy/set")), "the copy differs");
    }

    /// All journals, and which file each is: one that is written anew is another.
    fn journals(&self) -> Vec<(PathBuf, u64)> {
        let entries = std::fs::read_dir(Path::new(&self.state).join("sprat/resume")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut journals: Vec<_> = paths.map(|path| (path.clone(), path.metadata().unwrap().ino())).collect();
        journals.sort();
        journals
    }
}

#[test]
fn after_a_clean_stop_nothing_is_read_again() {
    let place = Place::new(CONTENT_LEN);
    let (first, _) = place.seed(&[]);
    assert!(first.read_len() > CONTENT_LEN as u64, "it was hashed once");
    first.signal("TERM");
    assert_eq!(first.end().code, Some(0));
    let (second, peer) = place.seed(&[]);
    assert!(second.read_len() < READ_MAX, "{} bytes were read", second.read_len());
    let ended = place.download(&["--peer", &peer]).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    place.assert_same();
    // What was just fetched is not hashed either.
    let mut again = place.download(&["--peer", &peer, "--seed"]);
    assert_eq!(again.event("completed")["downloaded"], 0);
    assert!(again.read_len() < READ_MAX, "{} bytes were read", again.read_len());
    // But a file that changed is.
    again.signal("TERM");
    again.end();
    let file = std::fs::File::options().write(true).open(place.path.join("copy/set/a")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 1_000_000).unwrap();
    let mut last = place.download(&["--peer", &peer]);
    let checked = last.event("checked");
    assert_eq!(checked["good"].as_u64().unwrap() + 1, checked["total"].as_u64().unwrap());
    assert_eq!(last.event("completed")["downloaded"], 64 << 10);
    assert_eq!(last.end().code, Some(0));
    place.assert_same();
}

#[test]
fn ctrl_c_amid_a_download_costs_neither_hashing_nor_fetching_again() {
    let place = Place::of_pieces(CONTENT_LEN, "4MiB");
    let (seed, peer) = place.seed(&["--up-limit", "16MiB"]);
    let mut first = place.download(&["--peer", &peer]);
    while first.event("progress")["done"].as_u64().unwrap() < READ_MAX * 3 / 2 {}
    first.signal("INT");
    let fetched = first.event("stopped")["downloaded"].as_u64().unwrap();
    assert_eq!(first.end().code, Some(130));
    let mut second = place.download(&["--peer", &peer]);
    let checked = second.event("checked");
    assert!(checked["good"].as_u64().unwrap() * (4 << 20) < fetched, "{checked}: some pieces were not whole");
    assert!(second.read_len() < READ_MAX + (4 << 20), "{} bytes were read", second.read_len());
    let rest = second.event("completed")["downloaded"].as_u64().unwrap();
    assert_eq!(fetched + rest, CONTENT_LEN as u64, "no block is fetched twice");
    assert_eq!(second.end().code, Some(0));
    place.assert_same();
    drop(seed);
}

#[test]
fn a_second_download_leaves_the_folder_alone() {
    let place = Place::new(2 << 20);
    let (_seed, peer) = place.source();
    // Nobody to fetch from: it waits, and the folder is its own.
    let mut first = place.download(&[]);
    first.event("checked");
    let journals = place.journals();
    let told = "error: copy/set/a: another download is writing it, which has to end first; ";
    let second = place.download(&["--peer", &peer]).end();
    assert_eq!((second.code, second.err.len()), (Some(1), 1), "{second:?}");
    assert!(second.err[0].starts_with(told) && second.err[0].ends_with("with -d"), "{second:?}");
    assert_eq!(place.journals(), journals, "the journal belongs to the first");
    first.signal("INT");
    first.end();
    let ended = place.download(&["--peer", &peer]).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    place.assert_same();
}

#[test]
fn a_seed_that_ends_leaves_the_journal_to_the_download_that_repairs_its_files() {
    let place = Place::new(2 << 20);
    let (_source, peer) = place.source();
    place.copy_to("copy");
    let (seed, _) = place.seed(&["-d", "copy"]);
    std::fs::write(place.path.join("copy/set/b/c"), "damaged").unwrap();
    // A file of seven bytes that are none of the torrent's is not ours to write, unasked.
    let mut repair = place.download(&["--overwrite"]);
    repair.event("checked");
    let journals = place.journals();
    seed.signal("TERM");
    assert_eq!(seed.end().code, Some(0));
    assert_eq!(place.journals(), journals);
    repair.signal("INT");
    repair.end();
    let ended = place.download(&["--peer", &peer]).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    place.assert_same();
}

#[test]
fn what_may_not_be_written_is_seeded() {
    let place = Place::new(3 << 20);
    let Some(disk) = SmallDisk::mount(&place.path.join("fixed"), "size=8m") else { return };
    place.copy_to("fixed");
    disk.make_read_only();
    for _ in 0..2 {
        let (seed, peer) = place.seed(&["-d", "fixed"]);
        let ended = place.download(&["--peer", &peer]).end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        place.assert_same();
        std::fs::remove_dir_all(place.path.join("copy/set")).unwrap();
        seed.signal("TERM");
        let ended = seed.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.out.iter().any(|line| line.contains("warning")), "{ended:?}");
    }
    // What is missing there cannot be fetched: said at the start, with what to do.
    let refused = sprat(&place.path, &["download", "set.torrent", "-d", "fixed/below", "-p", "0"]);
    assert_eq!((refused.code, refused.err.len()), (Some(1), 1), "{refused:?}");
    assert!(refused.err[0].contains("fixed/below") && refused.err[0].contains("-d"), "{refused:?}");
}
