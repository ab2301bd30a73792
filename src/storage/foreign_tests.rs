//! Tests of files that existed before: which of them a start may write, on a real disk.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::proto::metainfo::Info;
use crate::storage::fs::RealFs;
use crate::storage::handles::Handles;
use crate::storage::journal::{Journal, Owner};
use crate::storage::store::Store;
use crate::storage::testing::{Sample, sample};

/// A folder and a state folder for one torrent.
struct Place {
    folder: tempfile::TempDir,
    state: tempfile::TempDir,
    sample: Sample,
}

/// The name of a case, the existing files, and the expected misfits: file, reason, whether it is
/// ours.
type Case<'a> = (&'a str, Vec<(&'a str, Vec<u8>)>, Vec<(usize, Why, bool)>);

/// The result of a start.
struct Started {
    store: Store<RealFs>,
    verdict: Verdict,
    have: Bitfield,
    misfits: Vec<Misfit>,
}

impl Place {
    fn new(files: &[(&str, u64)], piece_len: u32) -> Self {
        let [folder, state] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Self { folder, state, sample: sample(files, piece_len) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn journal(&self) -> Journal<RealFs> {
        let Info { infohash, geometry, ref files, .. } = self.sample.info;
        let owner = Owner { infohash, geometry, file_count: files.len() as u32 };
        let fs = Arc::new(RealFs::open(self.state.path(), &Handles::new(4)).unwrap());
        Journal::open(fs, vec!["journal".to_owned()], owner).unwrap()
    }

    /// The first steps of the engine, with these files selected.
    fn start_with(&self, selected: &[bool], journal: Option<Journal<RealFs>>) -> Started {
        let store = Store::new(self.sample.content(self.folder.path(), selected));
        let verdict = store.begin(journal).unwrap();
        let (mut have, mut scratch) = (verdict.trusted.clone(), Vec::new());
        for piece in verdict.to_hash.iter_set() {
            if store.content().find_piece(piece, &mut scratch).unwrap() {
                have.set(piece);
            }
        }
        let misfits = store.content().misfits(&verdict, &have).unwrap();
        Started { store, verdict, have, misfits }
    }

    fn start(&self) -> Started {
        self.start_with(&[], Some(self.journal()))
    }

    /// The misfits: file, reason, whether it is ours.
    fn misfits(&self, selected: &[bool]) -> Vec<(usize, Why, bool)> {
        self.start_with(selected, Some(self.journal())).short()
    }

    /// A download that is killed after it wrote these pieces.
    fn download(&self, selected: &[bool], pieces: &[PieceIndex], commits: bool) {
        let started = self.start_with(selected, Some(self.journal()));
        started.store.prepare(&started.have).unwrap();
        for &piece in pieces {
            let bytes = self.sample.piece(piece);
            started.store.write_rest(piece, &[bytes], std::slice::from_ref(&(0..1))).unwrap();
        }
        if commits {
            assert_eq!(started.store.commit().unwrap(), []);
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }
}

impl Started {
    fn short(&self) -> Vec<(usize, Why, bool)> {
        self.misfits.iter().map(|misfit| (misfit.file, misfit.why, misfit.is_ours)).collect()
    }
}

#[test]
fn content_matters_only_for_foreign_files_that_are_not_too_long() {
    let bytes = |bytes| move || Ok::<_, ()>(bytes);
    let never = || Err(());
    assert_eq!(judge(10, 11, false, never), Ok(Some(Why::Longer)));
    assert_eq!(judge(10, 11, true, never), Ok(Some(Why::Longer)));
    assert_eq!(judge(0, 1, false, never), Ok(Some(Why::Longer)));
    assert_eq!(judge(10, 10, true, never), Ok(None));
    assert_eq!(judge(10, 0, false, never), Ok(None));
    assert_eq!(judge(10, 9, false, bytes(Bytes::Good)), Ok(None));
    assert_eq!(judge(10, 10, false, bytes(Bytes::Zeros)), Ok(None));
    assert_eq!(judge(10, 9, false, bytes(Bytes::Other)), Ok(Some(Why::OtherContent)));
}

#[test]
fn files_without_a_journal_are_judged_by_their_content() {
    // Pieces of 32 bytes: `a` has 0 to 3, `b` a part of 3, `c` parts of 3 and 4.
    let place = Place::new(&[("a", 100), ("b", 10), ("c", 40), ("empty", 0)], 32);
    let [a, b, c] = [0, 1, 2].map(|file| place.sample.file(file).to_vec());
    let other = |len: usize| vec![7; len];
    let changed = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let long = |bytes: &[u8]| [bytes, b"x"].concat();
    let foreign = |file| vec![(file, Why::OtherContent, false)];
    let longer = |file| vec![(file, Why::Longer, false)];
    let cases: Vec<Case<'_>> = vec![
        ("nothing", vec![], vec![]),
        ("whole", vec![("a", a.clone()), ("b", b.clone()), ("c", c.clone())], vec![]),
        ("an empty file", vec![("a", Vec::new())], vec![]),
        ("zeros", vec![("a", vec![0; 100])], vec![]),
        ("fewer zeros", vec![("a", vec![0; 10])], vec![]),
        ("a good head", vec![("a", a[..40].to_vec())], vec![]),
        ("a good head, then zeros", vec![("a", [&a[..40], &[0; 60]].concat())], vec![]),
        ("one good piece among others", vec![("a", [&other(32), &a[32..64], &other(36)].concat())], vec![]),
        ("a head that is no piece", vec![("a", a[..31].to_vec())], foreign(0)),
        ("other content", vec![("a", other(100))], foreign(0)),
        ("a byte of it", vec![("a", other(1))], foreign(0)),
        ("longer, and good", vec![("a", long(&a))], longer(0)),
        ("longer, other content", vec![("a", other(101))], longer(0)),
        ("longer, zeros", vec![("a", vec![0; 101])], longer(0)),
        ("not empty", vec![("empty", other(1))], longer(3)),
        ("small, with good neighbours", vec![("a", a.clone()), ("b", b.clone()), ("c", c.clone())], vec![]),
        ("small, good, alone", vec![("b", b.clone())], foreign(1)),
        (
            "small, other, good neighbours",
            vec![("a", a.clone()), ("b", other(10)), ("c", c.clone())],
            foreign(1),
        ),
        ("small, good, bad neighbours", vec![("a", changed(&a, 99)), ("b", b.clone())], foreign(1)),
        (
            "several",
            vec![("a", other(100)), ("b", other(10)), ("c", long(&c))],
            vec![(0, Why::OtherContent, false), (1, Why::OtherContent, false), (2, Why::Longer, false)],
        ),
    ];
    for (name, files, expected) in cases {
        for file in ["a", "b", "c", "empty"] {
            let _ = fs::remove_file(place.path(file));
        }
        files.iter().for_each(|(file, bytes)| place.put(file, bytes));
        assert_eq!(place.misfits(&[]), expected, "{name}");
        for (file, bytes) in &files {
            assert_eq!(&fs::read(place.path(file)).unwrap(), bytes, "{name}: nothing is touched");
        }
    }
}

#[test]
fn good_pieces_of_zeros_prove_nothing() {
    let mut place = Place::new(&[("image", 128)], 32);
    place.sample.bytes[32..128].fill(0);
    let hashes: Vec<u8> =
        place.sample.bytes.chunks(32).flat_map(<sha1::Sha1 as sha1::Digest>::digest).collect();
    place.sample.info.piece_hashes = hashes.into();
    let mut other = vec![0; 128];
    other[3] = 1;
    place.put("image", &other);
    let started = place.start();
    assert_eq!(started.have.count(), 3);
    assert_eq!(started.short(), [(0, Why::OtherContent, false)]);
    place.put("image", &place.sample.bytes);
    assert_eq!(place.misfits(&[]), []);
}

#[test]
fn files_are_ours_from_before_the_first_write() {
    let place = Place::new(&[("a", 100), ("b", 60)], 32);
    let started = place.start();
    started.store.prepare(&started.have).unwrap();
    // Neither complete nor good.
    started.store.write_blocks(4, &[(0, [7; 32])]).unwrap();
    drop(started);
    assert_eq!(fs::metadata(place.path("b")).unwrap().len(), 60);
    assert_eq!(place.misfits(&[]), [], "the journal knows");
    assert_eq!(
        place.start_with(&[], None).short(),
        [(1, Why::OtherContent, false)],
        "without it nobody does"
    );
}

#[test]
fn without_a_journal_good_pieces_continue_a_download() {
    let place = Place::new(&[("a", 100), ("b", 60)], 32);
    place.download(&[], &[1, 3], false);
    let started = place.start_with(&[], None);
    assert_eq!((started.short(), started.have.count()), (vec![], 2));
}

#[test]
fn a_file_that_the_user_creates_before_the_download_does_is_foreign() {
    let place = Place::new(&[("a", 96), ("b", 60)], 32);
    place.download(&[], &[0], true);
    assert!(!place.path("b").exists());
    place.put("b", &[7; 60]);
    assert_eq!(place.misfits(&[]), [(1, Why::OtherContent, false)]);
    assert_eq!(place.misfits(&[true, false]), [], "not wanted");
}

#[test]
fn a_file_that_replaced_ours_is_judged_by_its_content() {
    let place = Place::new(&[("a", 100)], 32);
    place.download(&[], &[0, 1], true);
    place.put("new", &[7; 100]);
    fs::rename(place.path("new"), place.path("a")).unwrap();
    assert_eq!(place.misfits(&[]), [(0, Why::OtherContent, false)]);
    place.put("new", place.sample.file(0));
    fs::rename(place.path("new"), place.path("a")).unwrap();
    assert_eq!(place.misfits(&[]), []);
}

#[test]
fn our_files_are_truncated_and_foreign_ones_only_on_request() {
    let place = Place::new(&[("a", 100), ("b", 60)], 32);
    place.put("b", &[&[7; 60][..], b"tail"].concat());
    let started = place.start_with(&[true, false], Some(place.journal()));
    assert_eq!(started.short(), []);
    drop(started);
    place.download(&[true, false], &[0, 1, 2, 3], true);
    fs::File::options().append(true).open(place.path("a")).unwrap().write_at(b"tail", 100).unwrap();
    let started = place.start();
    assert_eq!(started.short(), [(0, Why::Longer, true), (1, Why::Longer, false)]);
    started.store.cut(&started.misfits).unwrap();
    started.store.prepare(&started.have).unwrap();
    drop(started);
    assert_eq!(["a", "b"].map(|name| fs::metadata(place.path(name)).unwrap().len()), [100, 60]);
    assert_eq!(place.misfits(&[]), [], "both are ours now");
}

#[test]
fn seeding_files_does_not_make_them_ours() {
    let place = Place::new(&[("a", 100)], 32);
    place.put("a", place.sample.file(0));
    let started = place.start();
    assert!(started.have.is_full());
    assert_eq!(started.store.close(&started.have).unwrap(), []);
    drop(started);
    fs::File::options().write(true).open(place.path("a")).unwrap().write_all_at(&[7; 100], 0).unwrap();
    assert_eq!(place.misfits(&[]), [(0, Why::OtherContent, false)]);
}

#[test]
fn links_are_not_followed_and_hard_links_are_files() {
    let place = Place::new(&[("a", 100)], 32);
    place.put("mine", &[7; 100]);
    fs::hard_link(place.path("mine"), place.path("a")).unwrap();
    assert_eq!(place.misfits(&[]), [(0, Why::OtherContent, false)]);
    fs::remove_file(place.path("a")).unwrap();
    std::os::unix::fs::symlink("mine", place.path("a")).unwrap();
    let store = Store::new(place.sample.content(place.folder.path(), &[]));
    assert_eq!(store.begin(None).unwrap_err().path, place.path("a"));
}

#[test]
fn a_folder_on_another_device_is_noticed() {
    let mut place = Place::new(&[("a", 100)], 32);
    place.download(&[], &[0, 1], true);
    assert!(!place.start().verdict.is_folder_gone);
    fs::remove_file(place.path("a")).unwrap();
    assert!(!place.start().verdict.is_folder_gone, "files may be deleted");
    let first = std::mem::replace(&mut place.folder, tempfile::tempdir().unwrap());
    assert!(!place.start().verdict.is_folder_gone, "so may the folder");
    let device = |folder: &tempfile::TempDir| fs::metadata(folder.path()).unwrap().dev();
    let elsewhere = ["/dev/shm", "/run", "/tmp", "/var/tmp"];
    let elsewhere = elsewhere.into_iter().filter_map(|dir| tempfile::tempdir_in(dir).ok());
    let Some(other) = elsewhere.into_iter().find(|folder| device(folder) != device(&first)) else {
        eprintln!("no other device to write to: not tried");
        return;
    };
    place.folder = other;
    assert!(place.start().verdict.is_folder_gone);
    place.put("a", place.sample.file(0));
    let started = place.start();
    assert!(!started.verdict.is_folder_gone, "content that was moved is there");
    assert_eq!(started.short(), []);
}

#[test]
fn bytes_only_in_the_parts_file_prove_nothing_about_a_file() {
    // Piece 3 has the end of `a`, all of `b` and the start of `c`.
    let files = [("a", 100), ("b", 10), ("c", 40)];
    for has_journal in [true, false] {
        let place = Place::new(&files, 32);
        place.download(&[false, false, true], &[3, 4], true);
        let journal = || has_journal.then(|| place.journal());
        let start = |of: &[(&str, Vec<u8>)]| {
            of.iter().for_each(|(name, bytes)| place.put(name, bytes));
            let started = place.start_with(&[], journal());
            assert_eq!(started.have.iter_set().collect::<Vec<_>>(), [3, 4]);
            started.short()
        };
        let (a, b) = (place.sample.file(0).to_vec(), place.sample.file(1).to_vec());
        assert_eq!(start(&[("b", vec![7; 10])]), [(1, Why::OtherContent, false)]);
        assert_eq!(start(&[("b", vec![7; 5])]), [(1, Why::OtherContent, false)], "a shorter one");
        assert_eq!(start(&[("b", vec![7; 11])]), [(1, Why::Longer, false)]);
        assert_eq!(start(&[("b", vec![0; 10])]), []);
        assert_eq!(start(&[("b", b)]), [], "its bytes are in both places");
        assert_eq!(start(&[("a", vec![7; 100])]), [(0, Why::OtherContent, false)], "a larger one");
        assert_eq!(start(&[("a", [&[7; 96], &a[96..]].concat())]), [], "its bytes are in both places");
    }
}
