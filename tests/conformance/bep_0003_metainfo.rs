//! BEP 3: bencode and .torrent files, on torrents that libtorrent made.

use bytes::Bytes;
use sprat::proto::bencode::{Limits, Value, scan};
use sprat::proto::metainfo::{Info, Layout, Metainfo, MetainfoError};

pub(crate) const SINGLE: &[u8] = include_bytes!("../../fixtures/torrents/v1-single.torrent");
pub(crate) const FOLDER: &[u8] = include_bytes!("../../fixtures/torrents/v1-folder.torrent");

/// A torrent of one piece hash a piece, around entries of `info` that stand before `name`.
pub(crate) fn torrent_of(entries: &str, piece_count: usize) -> Result<Metainfo, MetainfoError> {
    let pieces = "h".repeat(20 * piece_count);
    let info = format!("d{entries}4:name1:n12:piece lengthi16384e6:pieces{}:{pieces}e", pieces.len());
    Metainfo::decode(format!("d4:info{info}e").as_bytes())
}

/// The bencoded list of these path elements.
fn path_of(elements: &[&str]) -> String {
    elements.iter().map(|element| format!("{}:{element}", element.len())).collect()
}

/// A folder of empty files with these paths.
pub(crate) fn folder_of(paths: &[&[&str]]) -> Result<Metainfo, MetainfoError> {
    let file = |path: &&[&str]| format!("d6:lengthi0e4:pathl{}ee", path_of(path));
    torrent_of(&format!("5:filesl{}e", paths.iter().map(file).collect::<String>()), 0)
}

fn paths(torrent: &Metainfo) -> Vec<String> {
    torrent.info.files.iter().map(|file| file.path.join("/")).collect()
}

#[test]
fn a_single_file_is_read_as_libtorrent_reads_it() {
    let torrent = Metainfo::decode(SINGLE).unwrap();
    assert_eq!(torrent.info.infohash.to_string(), "8106d47e9d7fba0428f4c2db2d4402790709cf0f");
    assert_eq!((torrent.info.layout, torrent.info.infohash_v2), (Layout::SingleFile, None));
    assert_eq!((paths(&torrent), torrent.info.geometry.total_len()), (vec!["single.bin".to_owned()], 50_000));
    assert_eq!((torrent.info.geometry.piece_count(), torrent.info.geometry.piece_len()), (4, 16_384));
    assert_eq!(
        (torrent.comment.as_deref(), torrent.created_by.as_deref()),
        (Some("one file"), Some("libtorrent"))
    );
    assert!(torrent.info.piece_hash(3).is_some() && torrent.info.piece_hash(4).is_none());
}

#[test]
fn a_folder_is_read_as_libtorrent_reads_it() {
    let torrent = Metainfo::decode(FOLDER).unwrap();
    assert_eq!(torrent.info.infohash.to_string(), "b461e1747973be8179065036626010c3b48c6e8e");
    assert_eq!(paths(&torrent), ["folder/empty", "folder/sub/tool.sh", "folder/a.txt"]);
    let spans: Vec<_> = torrent.info.files.iter().map(|file| (file.offset, file.len)).collect();
    assert_eq!(spans, [(0, 0), (0, 33_000), (33_000, 20_000)]);
    assert_eq!(
        (torrent.info.layout, torrent.nodes.clone()),
        (Layout::Folder, vec![("router.example".into(), 6_881)])
    );
}

#[test]
fn what_is_read_is_written_byte_for_byte_in_info_and_equal_outside() {
    for bytes in [SINGLE, FOLDER] {
        let read = Metainfo::decode(bytes).unwrap();
        let again = Metainfo::decode(&read.encode()).unwrap();
        assert_eq!((&again.info.bytes, &again.info.infohash), (&read.info.bytes, &read.info.infohash));
        assert_eq!(
            (&again.trackers, &again.web_seeds, &again.nodes),
            (&read.trackers, &read.web_seeds, &read.nodes)
        );
        assert_eq!((again.comment, again.created_by), (read.comment, read.created_by));
    }
}

#[test]
fn the_infohash_is_over_the_received_bytes_even_out_of_order() {
    let info = b"d4:name1:n6:lengthi0e6:pieces0:12:piece lengthi1ee";
    let torrent = [b"d4:info".as_slice(), info, b"8:announce10:udp://t:80e"].concat();
    let torrent = Metainfo::decode(&torrent).unwrap();
    assert_eq!(torrent.info.bytes, info.as_slice());
    assert_eq!(torrent.info.infohash, sprat::proto::infohash::InfoHash::of(info));
    let received = Info::decode(Bytes::from_static(info)).unwrap();
    assert_eq!((received.infohash, received.files), (torrent.info.infohash, torrent.info.files));
}

#[test]
fn duplicate_keys_in_info_and_other_files_are_refused() {
    let error = |bytes: &[u8]| Metainfo::decode(bytes).unwrap_err().to_string();
    assert!(torrent_of("6:lengthi0e6:lengthi0e", 0).unwrap_err().to_string().contains("comes twice"));
    assert!(error(b"<!DOCTYPE html>").starts_with("not a torrent"));
    assert!(error(b"").starts_with("not a torrent: the file is empty"));
    assert_eq!(Metainfo::decode(b"de").unwrap_err(), MetainfoError::Missing("info"));
    assert_eq!(Metainfo::decode(b"le").unwrap_err(), MetainfoError::Kind("torrent"));
}

#[test]
fn lengths_and_hashes_must_agree() {
    assert_eq!(torrent_of("6:lengthi0e", 0).unwrap().info.geometry.piece_count(), 0);
    assert!(torrent_of("6:lengthi16384e", 1).is_ok());
    for (entries, count) in [("6:lengthi16385e", 1), ("6:lengthi16384e", 2), ("6:lengthi0e", 1)] {
        let error = torrent_of(entries, count).unwrap_err();
        assert!(matches!(error, MetainfoError::PieceHashes { .. }), "{entries}: {error}");
    }
    let negative = torrent_of("6:lengthi-1e", 0).unwrap_err();
    assert_eq!(negative, MetainfoError::NegativeLength { file: "n".into() });
    let many = torrent_of("6:lengthi9223372036854775807e", 1).unwrap_err();
    assert!(matches!(many, MetainfoError::PieceCount { .. }));
    let file = "d6:lengthi9223372036854775807e4:pathl1:@ee";
    let files: String = ["a", "b", "c"].iter().map(|name| file.replace('@', name)).collect();
    assert_eq!(torrent_of(&format!("5:filesl{files}e"), 1).unwrap_err(), MetainfoError::TotalLen);
    assert_eq!(torrent_of("", 0).unwrap_err(), MetainfoError::Missing("length"));
    assert_eq!(torrent_of("5:filesle6:lengthi0e", 0).unwrap_err(), MetainfoError::LengthAndFiles);
    assert_eq!(torrent_of("5:filesle", 0).unwrap_err(), MetainfoError::NoFiles);
}

#[test]
fn piece_lengths_have_bounds() {
    let with = |piece_len: i64| {
        let info = format!("d6:lengthi0e4:name1:n12:piece lengthi{piece_len}e6:pieces0:e");
        Metainfo::decode(format!("d4:info{info}e").as_bytes())
            .map(|torrent| torrent.info.geometry.piece_len())
    };
    assert_eq!((with(1), with(1 << 30)), (Ok(1), Ok(1 << 30)));
    for bad in [0, -1, (1 << 30) + 1, i64::MAX] {
        assert_eq!(with(bad), Err(MetainfoError::PieceLen(bad)));
    }
}

#[test]
fn paths_that_lead_out_lead_nowhere() {
    let used = |path: &[&str]| {
        let torrent = folder_of(&[&["fine"], path]).unwrap();
        assert_eq!(torrent.info.renamed.len(), 1, "{path:?} is told");
        paths(&torrent)[1].clone()
    };
    assert_eq!(used(&["a", "..", "b"]), "n/a/_/b");
    assert_eq!(used(&["..", "..", "etc"]), "n/_/_/etc");
    assert_eq!(used(&["/etc/passwd"]), "n/_etc_passwd");
    assert_eq!(used(&["C:\\x"]), "n/C:_x");
    assert_eq!(used(&["//foo"]), "n/__foo");
    assert_eq!(used(&["\\/\\/bar"]), "n/____bar");
    assert_eq!(used(&["", "."]), "n/_");
    assert_eq!(used(&[]), "n/_");
    assert_eq!(used(&["dir", ""]), "n/dir");
    assert!(matches!(folder_of(&[&["d"; 102]]), Err(MetainfoError::TooDeep { .. })));
    assert!(folder_of(&[&["d"; 100]]).is_ok());
    let named = |name: &str| {
        let torrent = format!("d4:infod6:lengthi0e4:name{}:{name}12:piece lengthi1e6:pieces0:ee", name.len());
        Metainfo::decode(torrent.as_bytes()).unwrap().info
    };
    assert_eq!((named("..").name, named("/a/b").name), (named("..").infohash.to_string(), "_a_b".to_owned()));
}

#[test]
fn paths_that_mislead_are_changed_and_told() {
    let torrent = folder_of(&[&["a", "", ".", "b"], &["x/y"], &["plain"], &["li\u{202e}ar"]]).unwrap();
    assert_eq!(paths(&torrent), ["n/a/b", "n/x_y", "n/plain", "n/li_ar"]);
    let told = [("a//./b", "a/b"), ("x/y", "x_y"), ("li\u{202e}ar", "li_ar")];
    assert_eq!(torrent.info.renamed, told.map(|(given, used)| (given.to_owned(), used.to_owned())));
}

#[test]
fn characters_that_scripts_need_are_kept() {
    let names = ["👩\u{200d}👧", "می\u{200c}خواهم", "co\u{ad}op", "\u{feff}b", "a\u{200e}b\u{200f}\u{61c}"];
    for name in names {
        let torrent = folder_of(&[&[name]]).unwrap();
        assert_eq!(paths(&torrent), [format!("n/{name}")]);
        assert!(torrent.info.renamed.is_empty());
    }
}

#[test]
fn a_torrent_without_a_name_is_called_by_its_infohash() {
    let torrent = Metainfo::decode(b"d4:infod6:lengthi0e4:name0:12:piece lengthi1e6:pieces0:ee").unwrap();
    assert_eq!(torrent.info.name, torrent.info.infohash.to_string());
    assert_eq!(torrent.info.files[0].path.join("/"), torrent.info.name);
    assert_eq!(torrent.info.renamed.len(), 1);
}

/// The names are those that libtorrent gives.
#[test]
fn files_of_one_path_get_different_ones() {
    let used = |files: &[&[&str]]| paths(&folder_of(files).unwrap());
    assert_eq!(used(&[&["b"], &["a"], &["b"]]), ["n/b", "n/a", "n/b.1"]);
    assert_eq!(used(&[&["x/y"], &["x_y"]]), ["n/x_y", "n/x_y.1"]);
    assert_eq!(used(&[&["dir", ""], &["dir", "x"]]), ["n/dir.1", "n/dir/x"]);
    let folder: &[&[&str]] = &[&["a", "b", "c"], &["a!"], &["a"], &["a", "!"]];
    assert_eq!(used(folder), ["n/a/b/c", "n/a!", "n/a.1", "n/a/!"]);
    let (one, other) = (format!("{}1.txt", "x".repeat(260)), format!("{}2.txt", "x".repeat(260)));
    let long = used(&[&[&one], &[&other]]);
    assert!(long[0] != long[1] && long.iter().all(|path| path.len() <= 257 && path.ends_with(".txt")));
    assert_eq!(
        used(&[&["a", "b"], &["a", "bc"], &["ab"], &["A", "b"]]),
        ["n/a/b", "n/a/bc", "n/ab", "n/A/b"]
    );
    let torrent = folder_of(&[&["x/y"], &["x_y"], &["b"], &["b"]]).unwrap();
    let told = [("x/y", "x_y"), ("x_y", "x_y.1"), ("b", "b.1")];
    assert_eq!(torrent.info.renamed, told.map(|(given, used)| (given.to_owned(), used.to_owned())));
}

#[test]
fn bytes_that_are_no_text_do_not_make_two_files_one() {
    let file = |name: &[u8]| [b"d6:lengthi0e4:pathl1:", name, b"ee"].concat();
    let info = [b"d5:filesl", &file(b"\xe8")[..], &file(b"\xe9"), b"e4:name1:n12:piece lengthi1e6:pieces0:e"];
    let torrent = Metainfo::decode(&[b"d4:info", &info.concat()[..], b"e"].concat()).unwrap();
    assert_eq!(paths(&torrent), ["n/_", "n/_.1"]);
}

#[test]
fn utf_8_variants_of_names_are_preferred_when_they_are_utf_8() {
    let read = |utf8: &[u8]| {
        let file = [b"d6:lengthi0e4:pathl1:xe10:path.utf-8l".as_slice(), utf8, b"ee"].concat();
        let info =
            [b"d5:filesl", &file[..], b"e4:name1:n10:name.utf-81:m12:piece lengthi1e6:pieces0:e"].concat();
        paths(&Metainfo::decode(&[b"d4:info", &info[..], b"e"].concat()).unwrap())
    };
    assert_eq!(read(b"2:\xc3\xa4"), ["m/\u{e4}"]);
    assert_eq!(read(b"1:\xe4"), ["m/x"]);
}

#[test]
fn every_truncation_of_a_torrent_is_refused() {
    for torrent in [SINGLE, FOLDER] {
        for len in 0..torrent.len() {
            assert!(Metainfo::decode(&torrent[..len]).is_err(), "{len}");
        }
    }
}

#[test]
fn a_bomb_of_nested_lists_fits_a_small_stack() {
    let bombs = || {
        for open in ["l", "d1:a"] {
            let bomb = open.repeat(100_000).into_bytes();
            assert!(scan(&bomb, &Limits::METAINFO).is_err());
            assert!(Metainfo::decode(&[b"d4:info", &bomb[..]].concat()).is_err());
            assert!(Value::read(&bomb, &Limits::TRACKER_REPLY).is_err());
        }
        let deepest = "l".repeat(64) + &"e".repeat(64);
        assert_eq!(Value::read(deepest.as_bytes(), &Limits::METAINFO).unwrap().list().unwrap().count(), 1);
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(bombs).unwrap().join().unwrap();
}

#[test]
fn the_largest_torrents_are_read_in_moderate_time_and_memory() {
    let files: String = (0..100_000).map(|number| format!("d6:lengthi0e4:pathl1:d6:{number:06}ee")).collect();
    let torrent = torrent_of(&format!("5:filesl{files}e"), 0).unwrap();
    assert_eq!(torrent.info.files.len(), 100_000);
    let pieces = 1_600_000;
    let torrent = torrent_of(&format!("6:lengthi{}e", pieces as u64 * 16_384), pieces).unwrap();
    assert_eq!(torrent.info.geometry.piece_count(), 1_600_000);
    // The hashes are not copied out of the dictionary.
    assert!(torrent.info.bytes.as_ptr_range().contains(&torrent.info.piece_hashes.as_ptr()));
}

#[test]
fn a_long_name_before_many_files_is_refused_rather_than_multiplied() {
    let files: String = (0..260_000).map(|number| format!("d6:lengthi0e4:pathl6:{number:06}ee")).collect();
    let named = |len: usize| {
        let name = "x".repeat(len);
        let info = format!("d5:filesl{files}e4:name{len}:{name}12:piece lengthi1e6:pieces0:e");
        Metainfo::decode(format!("d4:info{info}e").as_bytes()).map(|torrent| torrent.info.files.len())
    };
    assert_eq!(named(10), Ok(260_000));
    assert_eq!(named(255), Err(MetainfoError::PathsTooLong));
}
