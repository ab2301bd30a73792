//! What it costs to know what is durable: a piece written with and without a journal, a commit, and
//! the look of a start at 100,000 files. `cargo bench --bench journal`, in `$TMPDIR` (the disk
//! matters for commits alone).

use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sprat::proto::bitfield::Bitfield;
use sprat::proto::infohash::InfoHash;
use sprat::proto::metainfo::files::{Attributes, File};
use sprat::proto::metainfo::{Info, Layout};
use sprat::proto::piece::Geometry;
use sprat::storage::content::Content;
use sprat::storage::fs::RealFs;
use sprat::storage::handles::{HANDLE_MAX, Handles};
use sprat::storage::journal::{Journal, Owner};
use sprat::storage::store::Store;

/// A piece, small, so that what the journal adds shows.
const PIECE_LEN: u32 = 256 << 10;
/// Pieces written in one pass, 256 MiB.
const PIECE_COUNT: u32 = 1_024;
/// Passes; the median counts.
const PASS_COUNT: usize = 5;
/// Files that a start looks at.
const FILE_COUNT: u64 = 100_000;

fn main() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let one = info(1, u64::from(PIECE_LEN * PIECE_COUNT));
    let plain = median(|| write(&fresh(&one, dir.path(), false)).0);
    let mut commits = Vec::new();
    let journalled = median(|| {
        let (writing, commit) = write(&fresh(&one, dir.path(), true));
        commits.push(commit);
        writing
    });
    commits.sort_unstable();
    let of_piece = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(PIECE_COUNT);
    println!(
        "a piece of 256 KiB written: {:.1} us, with a journal {:.1} us",
        of_piece(plain),
        of_piece(journalled)
    );
    println!("the commit of {PIECE_COUNT} of them: {:.1} ms", commits[PASS_COUNT / 2].as_secs_f64() * 1e3);

    let many = info(FILE_COUNT, FILE_COUNT);
    clear(dir.path());
    make_files(&many, dir.path());
    let store = open(&many, dir.path());
    store.begin(Some(journal(&many, dir.path()))).expect("files to look at");
    store.finish(&Bitfield::full(many.geometry.piece_count())).expect("room for a journal");
    let looking = median(|| {
        let start = now();
        let verdict =
            open(&many, dir.path()).begin(Some(journal(&many, dir.path()))).expect("files to look at");
        assert_eq!(verdict.to_hash.count(), 0, "nothing is to be hashed");
        now().duration_since(start)
    });
    println!("a start that looks at {FILE_COUNT} files: {:.0} ms", looking.as_secs_f64() * 1e3);
}

/// Writes all pieces, then commits: the time of each.
fn write(store: &Store<RealFs>) -> (Duration, Duration) {
    let bytes = vec![7; PIECE_LEN as usize];
    let start = now();
    for piece in 0..PIECE_COUNT {
        store.write_rest(piece, &[&bytes], slice::from_ref(&(0..1))).expect("room for the bench");
    }
    let written = now();
    store.commit().expect("a disk that syncs");
    (written.duration_since(start), now().duration_since(written))
}

fn clear(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("ours").flatten() {
        let is_folder = entry.path().is_dir();
        let removed = if is_folder {
            std::fs::remove_dir_all(entry.path())
        } else {
            std::fs::remove_file(entry.path())
        };
        removed.expect("ours");
    }
}

/// A store over nothing.
fn fresh(info: &Info, dir: &Path, with_journal: bool) -> Store<RealFs> {
    clear(dir);
    let store = open(info, dir);
    store.begin(with_journal.then(|| journal(info, dir))).expect("nothing there");
    store.prepare(&Bitfield::new(info.geometry.piece_count())).expect("a folder to write to");
    store
}

fn open(info: &Info, dir: &Path) -> Store<RealFs> {
    let files = RealFs::create(dir, &Handles::new(HANDLE_MAX)).expect("ours");
    Store::new(Content::new(info.clone(), Vec::new(), files))
}

fn journal(info: &Info, dir: &Path) -> Journal<RealFs> {
    let folder = Arc::new(RealFs::create(dir, &Handles::new(HANDLE_MAX)).expect("ours"));
    let owner =
        Owner { infohash: info.infohash, geometry: info.geometry, file_count: info.files.len() as u32 };
    Journal::open(folder, vec!["journal".to_owned()], owner).expect("none, or ours")
}

/// Files of equal length; no piece of them hashes, which nothing here looks at.
fn info(file_count: u64, total_len: u64) -> Info {
    let len = total_len / file_count;
    let file = |number: u64| File {
        path: vec!["content".to_owned(), format!("{:03}", number / 1_000), number.to_string()],
        len,
        offset: number * len,
        attributes: Attributes::default(),
    };
    let geometry = Geometry::new(total_len, PIECE_LEN).expect("few pieces");
    Info {
        infohash: InfoHash::of(&total_len.to_le_bytes()),
        infohash_v2: None,
        bytes: Bytes::new(),
        name: "content".to_owned(),
        geometry,
        piece_hashes: vec![0; 20 * geometry.piece_count() as usize].into(),
        files: (0..file_count).map(file).collect(),
        layout: Layout::Folder,
        private: false,
        source: None,
        renamed: Vec::new(),
        renamed_count: 0,
    }
}

fn make_files(info: &Info, dir: &Path) {
    for file in &info.files {
        let path = file.path.iter().fold(dir.to_owned(), |path, element| path.join(element));
        std::fs::create_dir_all(path.parent().expect("below dir")).expect("ours");
        std::fs::write(path, vec![1; file.len as usize]).expect("room for small files");
    }
}

fn median(mut pass: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<_> = (0..PASS_COUNT).map(|_| pass()).collect();
    times.sort_unstable();
    times[PASS_COUNT / 2]
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}
