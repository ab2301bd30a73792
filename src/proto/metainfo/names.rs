//! Distinct names for the files of a torrent, and other names where a file system does not take
//! theirs (BEP 3).
//!
//! Two rules, which depend on the torrent alone, so that every run derives the same names. Within
//! the torrent, paths that are equal after they were made safe, and a file that would be a folder
//! as well, get a number before the extension; names that are in the torrent as they are keep
//! precedence. On a file system, a name may be refused or may turn out to be another file's (case,
//! endings, normalization): [`OtherNames`] says what to try then. Which name a file system needs is
//! found out by storage.
//!
//! The work is bounded by n log n in the bytes of all paths: a number that was given is not tried
//! again, since names that differ only in their numbers share one counter.

use std::collections::{BTreeMap, BTreeSet};

use super::files::File;
use super::path::{self, ELEMENT_LEN_MAX, PORTABLE_LEN_MAX};

/// Between the elements of a key: sorts before every character that a name may contain, so that a
/// folder stands directly before what is in it.
const SEPARATOR: &str = "\0";

/// Gives files that share a path, or are another one's folder, a number; the files whose path was
/// changed, ascending, with the path as it was.
pub(super) fn make_distinct(files: &mut [File]) -> Vec<(usize, Vec<String>)> {
    if are_distinct(files) {
        return Vec::new();
    }
    let key = |path: &[String]| path.join(SEPARATOR);
    let named = |file: usize, number| key(&numbered(&files[file].path, number, ELEMENT_LEN_MAX));
    let keys = keys(files, |path| (key(path), false));
    let mut numbers = Numbers::new(&keys, &named);
    numbers.give(&keys);
    let rivals = numbers.rivals;
    let rename = |(file, rival): (usize, Rival)| {
        let path: &mut Vec<String> = &mut files[file].path;
        let numbered = numbered(path, rival.number, ELEMENT_LEN_MAX);
        (file, std::mem::replace(path, numbered))
    };
    rivals.into_iter().map(rename).collect()
}

/// Whether no file is another one, or its folder. Sorted by elements, a folder stands directly
/// before what is in it.
fn are_distinct(files: &[File]) -> bool {
    let mut paths: Vec<_> =
        files.iter().filter(|file| !file.attributes.pad).map(|file| file.path.as_slice()).collect();
    paths.sort_unstable();
    !paths.windows(2).any(|pair| pair[1].starts_with(pair[0]))
}

/// What the files of a torrent may be called where a file system does not take their own names.
#[derive(Clone, Debug, Default)]
pub struct OtherNames {
    /// Files that a file system is likely to take for another one, by number.
    rivals: BTreeMap<usize, Rival>,
    /// Paths that earlier versions used.
    formers: BTreeMap<usize, Vec<String>>,
}

/// What a file may be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rival {
    /// Another file, which is it or lies in it.
    file: usize,
    /// The number that tells the two apart.
    number: usize,
}

impl OtherNames {
    /// The other names of these files.
    pub fn of(files: &[File]) -> Self {
        let named =
            |file: usize, number| folded(&numbered(&portable(&files[file].path), number, PORTABLE_LEN_MAX));
        let portable_keys = keys(files, |path| {
            let portable = portable(path);
            (folded(&portable), portable != path)
        });
        let mut numbers = Numbers::new(&portable_keys, &named);
        // First those whose own names may be taken for one, then those that are one when they are
        // made portable.
        numbers.give(&keys(files, |path| {
            let trimmed = trimmed(path);
            (folded(&trimmed), trimmed != path)
        }));
        numbers.give(&portable_keys);
        let rivals = numbers.rivals;
        Self { rivals, formers: formers(files, &portable_keys) }
    }

    /// Whether a file system may refuse the path of this file, or take it for another one's; other
    /// paths need no care.
    pub fn is_delicate(&self, files: &[File], file: usize) -> bool {
        let is_plain = |element: &String| element.is_ascii() && path::portable(element) == *element;
        self.rivals.contains_key(&file) || !files[file].path.iter().all(is_plain)
    }

    /// The path, of a file or folder that comes first, for which this file's may be taken; None:
    /// there is none.
    pub fn rival<'a>(&self, files: &'a [File], file: usize) -> Option<&'a [String]> {
        let rival = self.rivals.get(&file)?;
        files[rival.file].path.get(..files[file].path.len())
    }

    /// The paths to try in turn when the file's own is refused or another one's: one that nearly
    /// every file system takes, and as a last resort one of ASCII with the file's number.
    pub fn others(&self, files: &[File], file: usize) -> Vec<Vec<String>> {
        let own = &files[file].path;
        let mut portable = portable(own);
        if let Some(rival) = self.rivals.get(&file) {
            portable = numbered(&portable, rival.number, PORTABLE_LEN_MAX);
        }
        let ascii: Vec<_> = own.iter().map(|element| path::ascii(element)).collect();
        let last_resort = numbered(&ascii, file, PORTABLE_LEN_MAX);
        [portable, last_resort].into_iter().filter(|path| path != own).collect()
    }

    /// The path under which earlier versions wrote the file; None: its own, or one that is another
    /// file's.
    pub fn former(&self, file: usize) -> Option<&Vec<String>> {
        self.formers.get(&file)
    }
}

/// The former paths that belong to no other file.
fn formers(files: &[File], keys: &[Key]) -> BTreeMap<usize, Vec<String>> {
    let former = |(file, of): (usize, &File)| {
        let former = of.path.iter().map(|element| path::former(element).unwrap_or_else(|| element.clone()));
        let former: Vec<_> = former.collect();
        let is_free = former != of.path && !of.attributes.pad && !is_taken(keys, &key_of(&former));
        is_free.then_some((file, former))
    };
    let mut formers: BTreeMap<_, _> = files.iter().enumerate().filter_map(former).collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    formers.values().for_each(|former| *counts.entry(key_of(former)).or_default() += 1);
    formers.retain(|_, former| counts[&key_of(former)] == 1);
    formers
}

/// A key that two paths share if some file system may take them for one.
fn key_of(path: &[String]) -> String {
    folded(&portable(path))
}

fn portable(path: &[String]) -> Vec<String> {
    path.iter().map(|element| path::portable(element)).collect()
}

/// The path without the ends of names that some file systems drop.
fn trimmed(path: &[String]) -> Vec<String> {
    let trim = |element: &String| match element.trim_end_matches(path::DROPPED_ENDS) {
        "" => element.clone(),
        trimmed => trimmed.to_owned(),
    };
    path.iter().map(trim).collect()
}

/// The path with a number in its last element.
fn numbered(path: &[String], number: usize, len_max: usize) -> Vec<String> {
    let mut path = path.to_vec();
    if let Some(name) = path.last_mut() {
        *name = path::numbered(name, number, len_max);
    }
    path
}

/// A key that two paths share if file systems that fold case and ignore invisible characters take
/// them for one.
fn folded(path: &[String]) -> String {
    path::folded(&path.join(SEPARATOR))
}

/// Where a file is looked for among others.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    text: String,
    /// The file would be called otherwise, so it gives way to one that is called like this.
    gives_way: bool,
    file: usize,
}

fn is_below(key: &str, folder: &str) -> bool {
    key.strip_prefix(folder).is_some_and(|rest| rest.starts_with(SEPARATOR))
}

/// The keys of all files that are on disk, in order.
fn keys(files: &[File], key: impl Fn(&[String]) -> (String, bool)) -> Vec<Key> {
    let on_disk = files.iter().enumerate().filter(|(_, file)| !file.attributes.pad);
    let mut keys: Vec<_> = on_disk
        .map(|(file, of)| {
            let (text, gives_way) = key(&of.path);
            Key { text, gives_way, file }
        })
        .collect();
    keys.sort_unstable();
    keys
}

/// Whether a file or folder has this key.
fn is_taken(keys: &[Key], key: &str) -> bool {
    let at = keys.partition_point(|known| known.text.as_str() < key);
    keys.get(at).is_some_and(|known| known.text == key || is_below(&known.text, key))
}

/// Numbers for files that have no key of their own.
struct Numbers<'a> {
    /// The keys of all files and, by them, of their folders, in order.
    keys: &'a [Key],
    /// The key of a file with a number.
    named: &'a dyn Fn(usize, usize) -> String,
    /// Keys with a number that were given.
    given: BTreeSet<String>,
    /// The last number for files that differ in nothing else, by their key with the number 0.
    counters: BTreeMap<String, usize>,
    rivals: BTreeMap<usize, Rival>,
}

impl<'a> Numbers<'a> {
    fn new(keys: &'a [Key], named: &'a dyn Fn(usize, usize) -> String) -> Self {
        let (given, counters, rivals) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Self { keys, named, given, counters, rivals }
    }

    /// Gives a number to all but the first of the files that share a key in `groups`, and to those
    /// that are folders.
    fn give(&mut self, groups: &[Key]) {
        let mut rest = groups;
        while let Some(first) = rest.first() {
            let (alike, after) = rest.split_at(rest.partition_point(|key| key.text == first.text));
            rest = after;
            let inside = after.first().filter(|next| is_below(&next.text, &first.text));
            let mut alike = alike.iter().map(|key| key.file).filter(|file| !self.rivals.contains_key(file));
            let Some(rival) = inside.map(|inside| inside.file).or_else(|| alike.next()) else { continue };
            let losers: Vec<usize> = alike.collect();
            for file in losers {
                let number = self.next_number(file);
                self.rivals.insert(file, Rival { file: rival, number });
            }
        }
    }

    fn next_number(&mut self, file: usize) -> usize {
        let counter = self.counters.entry((self.named)(file, 0)).or_default();
        loop {
            *counter += 1;
            let key = (self.named)(file, *counter);
            if !is_taken(self.keys, &key) && self.given.insert(key) {
                return *counter;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::proto::metainfo::files::Attributes;

    fn files(paths: &[&str]) -> Vec<File> {
        let file = |path: &&str| File {
            path: path.split('/').map(str::to_owned).collect(),
            len: 1,
            offset: 0,
            attributes: Attributes::default(),
        };
        paths.iter().map(file).collect()
    }

    fn distinct(paths: &[&str]) -> Vec<String> {
        let mut files = files(paths);
        let changed = make_distinct(&mut files);
        assert!(changed.iter().all(|(file, given)| given.join("/") == paths[*file]));
        let differs = |file: &usize| files[*file].path.join("/") != paths[*file];
        assert_eq!(changed.len(), (0..files.len()).filter(differs).count());
        assert!(are_distinct(&files));
        files.iter().map(|file| file.path.join("/")).collect()
    }

    #[test]
    fn equal_paths_are_numbered_and_a_file_gives_way_to_a_folder() {
        assert_eq!(
            distinct(&["n/a.txt", "n/a.txt", "n/b", "n/a.txt"]),
            ["n/a.txt", "n/a.1.txt", "n/b", "n/a.2.txt"]
        );
        assert_eq!(distinct(&["n/a", "n/a/b"]), ["n/a.1", "n/a/b"]);
        assert_eq!(distinct(&["n/a/b/c", "n/a", "n/a/b"]), ["n/a/b/c", "n/a.1", "n/a/b.1"]);
        assert_eq!(distinct(&["n/a", "n/a", "n/a/b"]), ["n/a.1", "n/a.2", "n/a/b"]);
        assert_eq!(distinct(&["n/a-", "n/a/b", "n/a", "n/a.1/x"]), ["n/a-", "n/a/b", "n/a.2", "n/a.1/x"]);
        assert_eq!(distinct(&["n/a.txt", "n/a.txt", "n/a.1.txt"]), ["n/a.txt", "n/a.2.txt", "n/a.1.txt"]);
        assert_eq!(distinct(&["n/A", "n/a"]), ["n/A", "n/a"], "two files on most file systems");
    }

    /// Bytes that a number costs are taken from the name: 255-byte names of many folders that
    /// differ at the end only.
    #[test]
    fn numbering_is_not_quadratic() {
        let long = |ending: usize| format!("n/{}{ending:06}", "x".repeat(249));
        let paths: Vec<String> = (0..40_000).flat_map(|file| [long(file), long(file)]).collect();
        let mut same: Vec<&str> = paths.iter().map(String::as_str).collect();
        same.extend(std::iter::repeat_n("n/x", 40_000));
        let names: BTreeSet<String> = distinct(&same).into_iter().collect();
        assert_eq!(names.len(), same.len());
        assert!(names.iter().all(|name| name.len() <= 2 + ELEMENT_LEN_MAX));
        // The work: a key for the counter of each file that is numbered, and one for each number
        // that is tried.
        let (files, tried) = (files(&same), Cell::new(0));
        let key = |path: &[String]| path.join(SEPARATOR);
        let named = |file: usize, number| {
            tried.set(tried.get() + 1);
            key(&numbered(&files[file].path, number, ELEMENT_LEN_MAX))
        };
        let keys = keys(&files, |path| (key(path), false));
        let mut numbers = Numbers::new(&keys, &named);
        numbers.give(&keys);
        assert_eq!((numbers.rivals.len(), tried.get()), (79_999, 2 * 79_999));
    }

    fn instead(files: &[File], file: usize) -> Vec<String> {
        OtherNames::of(files).others(files, file).iter().map(|path| path.join("/")).collect()
    }

    #[test]
    fn names_equal_by_case_or_ending_have_other_names() {
        let files = files(&[
            "n/A",
            "n/a",
            "n/Dir/x",
            "n/dir/y",
            "n/dir/X",
            "n/DIR",
            "n/s.",
            "n/s_",
            "n/straße",
            "n/STRASSE",
            "n/s.x",
            "n/s.x. ",
        ]);
        let names = OtherNames::of(&files);
        let rivals: Vec<_> =
            (0..files.len()).filter_map(|file| Some((file, names.rival(&files, file)?.join("/")))).collect();
        let expected =
            [(1, "n/A"), (4, "n/Dir/x"), (5, "n/Dir"), (6, "n/s_"), (9, "n/straße"), (11, "n/s.x")];
        assert_eq!(rivals, expected.map(|(file, rival)| (file, rival.to_owned())));
        assert_eq!(instead(&files, 1), ["n/a.1", "n/a.1"], "both ways lead there");
        assert_eq!(instead(&files, 4), ["n/dir/X.1", "n/dir/X.4"]);
        assert_eq!(instead(&files, 5), ["n/DIR.1", "n/DIR.5"]);
        assert_eq!(instead(&files, 6), ["n/s_.1", "n/s_.6"]);
        assert_eq!(instead(&files, 0), ["n/A.0"]);
        let delicate: Vec<_> = (0..files.len()).filter(|&file| names.is_delicate(&files, file)).collect();
        assert_eq!(delicate, [1, 4, 5, 6, 8, 9, 11]);
    }

    #[test]
    fn names_that_some_system_refuses_have_other_names() {
        let long = "ü".repeat(100);
        let files = files(&["a: b/aux/c?.mkv", &format!("n/{long}.mkv"), "é/e\u{301}", "n/می\u{200c}خواهم"]);
        assert_eq!(instead(&files, 0), ["a_ b/_aux/c_.mkv", "a_ b/_aux/c_.0.mkv"]);
        assert_eq!(
            instead(&files, 1),
            [format!("n/{}.mkv", "ü".repeat(69)), format!("n/{}.1.mkv", "_".repeat(100))]
        );
        assert_eq!(instead(&files, 2), ["_/e_.2"]);
    }

    #[test]
    fn unused_former_names_are_known() {
        let files = files(&[
            "n/می\u{200c}خواهم",
            "n/é",
            "n/a\u{ad}b",
            "n/A_b",
            "n/x\u{ad}",
            "n/x\u{feff}",
            "n/y\u{ad}/z",
        ]);
        let names = OtherNames::of(&files);
        let former = |file| names.former(file).map(|path| path.join("/"));
        assert_eq!((former(0), former(6)), (Some("n/می_خواهم".into()), Some("n/y_/z".into())));
        assert!([1, 2, 3, 4, 5].iter().all(|&file| former(file).is_none()));
        assert_eq!(names.rival(&files, 5).unwrap().join("/"), "n/x\u{ad}", "some ignore them");
    }
}
