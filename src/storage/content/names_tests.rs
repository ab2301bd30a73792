//! Tests of names on file systems that treat two names as one, or refuse some.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::path::Path;

use super::*;
use crate::storage::fs::{RealFs, Stamp};
use crate::storage::handles::{HANDLE_MAX, Handles};
use crate::storage::store::Store;
use crate::storage::testing::{Sample, sample};

/// A file system that folds case, drops trailing dots and spaces, composes `é`, allows names of up
/// to 143 bytes and no `:` or `?`. Passes all calls to a real one with folded names.
struct Odd {
    real: RealFs,
    folds: bool,
    refuses: bool,
}

impl Odd {
    fn at(folder: &Path) -> Self {
        let real = RealFs::create(folder, &Handles::new(HANDLE_MAX)).unwrap();
        Self { real, folds: true, refuses: true }
    }

    /// `makes`: some file systems refuse a name only when it is made.
    fn fold(&self, path: &[String], makes: bool) -> io::Result<Vec<String>> {
        let fold = |element: &String| {
            if self.refuses && element.len() > 143 {
                return Err(rustix::io::Errno::NAMETOOLONG.into());
            }
            if self.refuses && makes && element.contains([':', '?']) {
                return Err(rustix::io::Errno::INVAL.into());
            }
            let folded = element.trim_end_matches(['.', ' ']).to_lowercase().replace("e\u{301}", "é");
            Ok(if self.folds { folded } else { element.clone() })
        };
        path.iter().map(fold).collect()
    }
}

impl FileSystem for Odd {
    type File = <RealFs as FileSystem>::File;
    type Lock = <RealFs as FileSystem>::Lock;

    fn full_path(&self, path: &[String]) -> PathBuf {
        self.real.full_path(path)
    }
    fn open_read(&self, path: &[String]) -> io::Result<Self::File> {
        self.real.open_read(&self.fold(path, false)?)
    }
    fn open_write(&self, path: &[String]) -> io::Result<Self::File> {
        self.real.open_write(&self.fold(path, true)?)
    }
    fn open_again(&self, path: &[String]) -> io::Result<Self::File> {
        self.real.open_again(&self.fold(path, false)?)
    }
    fn read_exact_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.real.read_exact_at(file, buffer, offset)
    }
    fn opened(&self, path: &[String]) -> Option<Self::File> {
        self.real.opened(&self.fold(path, false).ok()?)
    }
    fn read_at_once(&self, file: &Self::File, parts: &mut [IoSliceMut<'_>], offset: u64) -> usize {
        self.real.read_at_once(file, parts, offset)
    }
    fn write_all_at(&self, file: &Self::File, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.real.write_all_at(file, parts, offset)
    }
    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()> {
        self.real.set_len(file, len)
    }
    fn stamp(&self, path: &[String]) -> io::Result<Option<Stamp>> {
        self.real.stamp(&self.fold(path, false)?)
    }
    fn stamp_of(&self, file: &Self::File) -> io::Result<Stamp> {
        self.real.stamp_of(file)
    }
    fn is_hard_linked(&self, path: &[String]) -> io::Result<bool> {
        self.real.is_hard_linked(&self.fold(path, false)?)
    }
    fn folder_device(&self) -> u64 {
        self.real.folder_device()
    }
    fn boot(&self) -> u64 {
        self.real.boot()
    }
    fn now(&self) -> u64 {
        self.real.now()
    }
    fn free_len(&self) -> Option<u64> {
        self.real.free_len()
    }
    fn lock(&self, path: &[String]) -> io::Result<Option<Self::Lock>> {
        self.real.lock(&self.fold(path, true)?)
    }
    fn allocate(&self, file: &Self::File, len: u64) -> io::Result<bool> {
        self.real.allocate(file, len)
    }
    fn rename(&self, from: &[String], to: &[String]) -> io::Result<()> {
        self.real.rename(&self.fold(from, false)?, &self.fold(to, true)?)
    }
    fn sync(&self, file: &Self::File) -> io::Result<()> {
        self.real.sync(file)
    }
    fn sync_folder(&self, folder: &[String]) -> io::Result<()> {
        self.real.sync_folder(&self.fold(folder, false)?)
    }
    fn sync_all(&self) -> io::Result<()> {
        self.real.sync_all()
    }
    fn remove(&self, path: &[String]) -> io::Result<()> {
        self.real.remove(&self.fold(path, false)?)
    }
    fn set_executable(&self, path: &[String]) -> io::Result<bool> {
        self.real.set_executable(&self.fold(path, false)?)
    }
    fn close(&self) {
        self.real.close();
    }
}

/// The other names in use, by the torrent's names.
fn others<F: FileSystem>(content: &Content<F>) -> BTreeMap<String, String> {
    let name =
        |(number, path): (usize, &[String])| (content.info().files[number].path.join("/"), path.join("/"));
    content.other_names().map(name).collect()
}

fn named(names: &[(&str, &str)]) -> BTreeMap<String, String> {
    names.iter().map(|&(own, used)| (own.to_owned(), used.to_owned())).collect()
}

/// Downloads the selected files; returns the names in use.
fn download(sample: &Sample, fs: Odd, selected: &[bool]) -> BTreeMap<String, String> {
    let store = Store::new(Content::new(sample.info.clone(), selected.to_vec(), fs));
    let verdict = store.begin(None).unwrap();
    let mut scratch = Vec::new();
    let mut have = verdict.trusted;
    for piece in verdict.to_hash.iter_set() {
        if store.content().check_piece(piece, &mut scratch).unwrap() {
            have.set(piece);
        }
    }
    store.prepare(&have).unwrap();
    let wanted = store.content().wanted();
    // The last files first, as peers may send them.
    for piece in sample.pieces().rev().filter(|&piece| wanted.get(piece) && !have.get(piece)) {
        store.content().write_piece(piece, &[sample.piece(piece)]).unwrap();
    }
    assert!(store.finish(&wanted).unwrap().is_empty());
    others(store.content())
}

/// Returns what `verify` finds: whether all selected files are complete, and the names in use.
fn verify(sample: &Sample, fs: Odd, selected: &[bool]) -> (bool, BTreeMap<String, String>) {
    let content = Content::new(sample.info.clone(), selected.to_vec(), fs);
    content.find_names();
    let mut have = Bitfield::new(sample.info.geometry.piece_count());
    for piece in sample.pieces() {
        if content.check_piece(piece, &mut Vec::new()).unwrap() {
            have.set(piece);
        }
    }
    let is_whole = content.report(&have).iter().all(crate::storage::report::FileReport::is_whole);
    (is_whole, others(&content))
}

fn round_trip(files: &[(&str, u64)], expected: &[(&str, &str)]) {
    let sample = sample(files, 16);
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(download(&sample, Odd::at(folder.path()), &[]), named(expected));
    assert_eq!(verify(&sample, Odd::at(folder.path()), &[]), (true, named(expected)));
    assert_eq!(download(&sample, Odd::at(folder.path()), &[]), named(expected), "begun again");
    let case_sensitive = tempfile::tempdir().unwrap();
    let plain = || Odd { folds: false, refuses: false, ..Odd::at(case_sensitive.path()) };
    assert_eq!(download(&sample, plain(), &[]), named(&[]));
    assert_eq!(verify(&sample, plain(), &[]), (true, named(&[])));
}

#[test]
fn files_with_names_that_the_file_system_equates_are_kept_apart() {
    round_trip(&[("n/A", 16), ("n/a", 16), ("n/b", 20)], &[("n/a", "n/a.1")]);
    round_trip(
        &[("n/x.txt", 5), ("n/X.TXT", 40), ("n/x.txt.", 3)],
        &[("n/X.TXT", "n/X.1.TXT"), ("n/x.txt.", "n/x.1.txt_")],
    );
    round_trip(&[("n/é", 20), ("n/e\u{301}", 20)], &[("n/e\u{301}", "n/e_.1")]);
    round_trip(&[("n/Dir/x", 9), ("n/dir/y", 9), ("n/dir/X", 9)], &[("n/dir/X", "n/dir/X.1")]);
}

#[test]
fn a_file_whose_name_equals_a_folder_gets_another_name() {
    round_trip(&[("n/a", 20), ("n/A/x", 20)], &[("n/a", "n/a.1")]);
    round_trip(&[("n/A/x", 20), ("n/a", 20)], &[("n/a", "n/a.1")]);
}

#[test]
fn refused_names_are_replaced() {
    let long = "x".repeat(150);
    let (one, other) = (format!("n/{long}1.mkv"), format!("n/{long}2.mkv"));
    let short = format!("n/{}.mkv", "x".repeat(139));
    let numbered = format!("n/{}.1.mkv", "x".repeat(128));
    round_trip(&[(&one, 20), (&other, 20), ("n/b", 3)], &[(&one, &short), (&other, &numbered)]);
    round_trip(
        &[("w: s/a?", 20), ("w: s/a_", 20), ("w: s/b", 0)],
        &[("w: s/a?", "w_ s/a_"), ("w: s/a_", "w_ s/a_.1"), ("w: s/b", "w_ s/b")],
    );
}

#[test]
fn a_selected_twin_gets_the_same_name_with_and_without_the_other() {
    let sample = sample(&[("n/A", 16), ("n/a", 16), ("n/é", 16)], 16);
    let folder = tempfile::tempdir().unwrap();
    let odd = || Odd::at(folder.path());
    assert_eq!(download(&sample, odd(), &[false, true, false]), named(&[("n/a", "n/a.1")]));
    assert_eq!(std::fs::read_dir(folder.path().join("n")).unwrap().count(), 1, "nothing else is left");
    assert_eq!(verify(&sample, odd(), &[false, true, false]), (true, named(&[("n/a", "n/a.1")])));
    assert_eq!(download(&sample, odd(), &[]), named(&[("n/a", "n/a.1")]));
    assert_eq!(verify(&sample, odd(), &[]), (true, named(&[("n/a", "n/a.1")])));
}

#[test]
fn a_kill_after_creating_the_names_changes_no_name() {
    let sample = sample(&[("n/a?", 16), ("n/A_", 16), ("n/a_", 16)], 16);
    let folder = tempfile::tempdir().unwrap();
    let begun = Content::new(sample.info.clone(), Vec::new(), Odd::at(folder.path()));
    begun.find_names();
    begun.make_names().unwrap();
    let names = others(&begun);
    drop(begun);
    assert_eq!(names, named(&[("n/a?", "n/a_.2"), ("n/a_", "n/a_.1")]));
    assert_eq!(download(&sample, Odd::at(folder.path()), &[]), names);
    assert_eq!(verify(&sample, Odd::at(folder.path()), &[]), (true, names));
}

#[test]
fn content_under_the_names_of_earlier_versions_and_of_other_clients_is_found() {
    let sample = sample(&[("n/A", 16), ("n/a", 16), ("n/co\u{ad}op", 16), ("n/c?", 16)], 16);
    let folder = tempfile::tempdir().unwrap();
    let files = [("A", 0), ("a.1", 1), ("co_op", 2), ("c_", 3)];
    std::fs::create_dir(folder.path().join("n")).unwrap();
    for (name, file) in files {
        std::fs::write(folder.path().join("n").join(name), sample.file(file)).unwrap();
    }
    let plain = || Odd { folds: false, refuses: false, ..Odd::at(folder.path()) };
    let names = named(&[("n/a", "n/a.1"), ("n/co\u{ad}op", "n/co_op"), ("n/c?", "n/c_")]);
    assert_eq!(verify(&sample, plain(), &[]), (true, names.clone()));
    assert_eq!(download(&sample, plain(), &[]), names);
}

#[test]
fn hard_links_of_the_user_are_kept() {
    let mut sample = sample(&[("n/A", 16), ("n/a", 16)], 16);
    let (first, second) = sample.bytes.split_at_mut(16);
    second.copy_from_slice(first);
    let hash = sample.info.piece_hash(0).unwrap();
    sample.info.piece_hashes = [hash, hash].concat().into();
    let folder = tempfile::tempdir().unwrap();
    let n = folder.path().join("n");
    std::fs::create_dir(&n).unwrap();
    std::fs::write(n.join("A"), sample.file(0)).unwrap();
    std::fs::hard_link(n.join("A"), n.join("a")).unwrap();
    let plain = Odd { folds: false, refuses: false, ..Odd::at(folder.path()) };
    assert_eq!(verify(&sample, plain, &[]), (true, named(&[])));
}

#[test]
fn a_name_that_is_refused_in_every_form_fails() {
    let sample = sample(&[("n/a?", 16)], 16);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("n"), "in the way").unwrap();
    let content = Content::new(sample.info.clone(), Vec::new(), Odd::at(folder.path()));
    content.find_names();
    assert!(content.take().is_err());
}
