//! Torrents whose form is not as BEP 3 asks: outside `info` it does not matter, and it is told.

use bytes::Bytes;
use sprat::proto::infohash::InfoHash;
use sprat::proto::metainfo::{
    GIVEN_LEN_MAX, Info, METAINFO_LEN_MAX, Metainfo, MetainfoError, RENAMED_COUNT_MAX, SYMLINK_LEFT_OUT,
};

use super::bep_0003_metainfo::SINGLE;

const INFO: &str = "d6:lengthi0e4:name1:n12:piece lengthi1e6:pieces0:e";

/// A torrent with these entries around `info`.
fn around(before: &str, after: &str) -> Result<Metainfo, MetainfoError> {
    Metainfo::decode(format!("d{before}4:info{INFO}{after}e").as_bytes())
}

fn told(torrent: &Metainfo) -> String {
    torrent.oddities.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn bytes_after_the_end_are_ignored_and_told() {
    let usual = Metainfo::decode(SINGLE).unwrap();
    assert!(usual.oddities.is_empty(), "{usual:?}");
    let nulls = vec![0; METAINFO_LEN_MAX - SINGLE.len()];
    for tail in [&b"\n"[..], b"\r\n", b"\0", b"e", b"d4:infodee", b"<!-- ad -->", &nulls] {
        let torrent = Metainfo::decode(&[SINGLE, tail].concat()).unwrap();
        assert_eq!((&torrent.info.bytes, &torrent.trackers), (&usual.info.bytes, &usual.trackers));
        assert_eq!(told(&torrent), format!("there are bytes after the end at byte {}", SINGLE.len()));
    }
}

#[test]
fn the_order_and_number_of_keys_does_not_matter_outside_info() {
    let torrent = around("7:comment1:b7:comment1:a", "8:announce10:udp://t:80").unwrap();
    assert_eq!(torrent.comment.as_deref(), Some("a"), "the last one counts");
    assert_eq!(torrent.trackers, [["udp://t:80"]]);
    assert_eq!(
        told(&torrent),
        "dictionary keys are not in order at byte 13; `comment` comes twice; the last one counts"
    );
    let nested = around("1:zd1:bi1e1:ai1e1:ai2eee", "").is_err();
    assert!(nested, "one `e` too many is no matter of form");
    assert!(around("1:zd1:bi1e1:ai1e1:ai2ee", "").is_ok());
    assert!(around("", &format!("4:info{INFO}")).is_ok(), "the same twice");
    let other = INFO.replace("1:n", "1:m");
    assert_eq!(around("", &format!("4:info{other}")).unwrap_err(), MetainfoError::TwoInfos);
}

#[test]
fn numbers_may_be_spelled_in_any_way() {
    for (date, expected) in [("i-0e", 0), ("i03e", 3), ("i-07e", -7), ("i99999999999999999999e", i64::MAX)] {
        let torrent = around(&format!("13:creation date{date}"), "").unwrap();
        assert_eq!(torrent.creation_date, Some(expected), "{date}");
        assert!(!torrent.oddities.is_empty(), "{date}");
    }
    // In `info` too: its bytes say which torrent it is, whatever they look like.
    let info = INFO.replace("lengthi1e", "lengthi01e").replace("1:n", "01:n").replace("i0e", "i-0e");
    let torrent = Metainfo::decode(format!("d4:info{info}e").as_bytes()).unwrap();
    assert_eq!(torrent.info.infohash, InfoHash::of(info.as_bytes()));
    assert_eq!((torrent.info.geometry.piece_len(), torrent.info.name.as_str()), (1, "n"));
    assert_eq!(Info::decode(Bytes::from(info.clone())).unwrap().infohash, torrent.info.infohash);
    let huge = INFO.replace("6:lengthi0e", "6:lengthi99999999999999999999e");
    assert!(Metainfo::decode(format!("d4:info{huge}e").as_bytes()).is_err());
    for broken in ["ie", "i+1e", "i1.5e", "i 1e"] {
        assert!(around(&format!("13:creation date{broken}"), "").is_err(), "{broken}");
    }
}

#[test]
fn optional_keys_of_the_wrong_kind_count_as_absent_and_are_told() {
    let wrong = [
        ("announce", "i1e"),
        ("announce-list", "3:abc"),
        ("url-list", "de"),
        ("nodes", "i1e"),
        ("comment", "le"),
        ("created by", "i1e"),
        ("creation date", "10:2020-01-01"),
    ];
    for (key, value) in wrong {
        let torrent = around("", &format!("{}:{key}{value}", key.len())).unwrap();
        let bare = around("", "").unwrap();
        assert_eq!((&torrent.trackers, &torrent.web_seeds), (&bare.trackers, &bare.web_seeds));
        assert!(torrent.comment.is_none() && torrent.created_by.is_none() && torrent.creation_date.is_none());
        let expected = format!("`{key}` is of the wrong kind and ignored");
        assert!(told(&torrent).ends_with(&expected), "{}", told(&torrent));
    }
    let flat = around("13:announce-listl10:udp://a:8010:udp://b:80e", "").unwrap();
    assert_eq!(flat.trackers, [["udp://a:80"], ["udp://b:80"]]);
    assert_eq!(around("", "8:url-list9:http://w/").unwrap().web_seeds, ["http://w/"]);
    assert_eq!(around("", "8:url-listl9:http://w/9:http://x/e").unwrap().web_seeds.len(), 2);
}

#[test]
fn a_key_that_comes_without_end_is_told_once_and_as_its_last_value_counts() {
    let torrent = around(&"8:announcei0e".repeat(200_000), "").unwrap();
    let twice = "`announce` comes twice; the last one counts; `announce` is of the wrong kind and ignored";
    assert_eq!(torrent.oddities.len(), 3, "and their order");
    assert!(told(&torrent).ends_with(twice), "{}", told(&torrent));
    let torrent = around("", "8:announcei0e8:announce10:udp://t:80").unwrap();
    assert_eq!(torrent.trackers, [["udp://t:80"]]);
    assert!(!told(&torrent).contains("wrong kind"), "{}", told(&torrent));
}

#[test]
fn names_that_are_changed_without_end_are_counted_and_the_first_of_them_are_told() {
    let info = |files: String| {
        let info = format!("d5:filesl{files}e4:name1:n12:piece lengthi1e6:pieces0:e");
        Metainfo::decode(format!("d4:info{info}e").as_bytes()).unwrap().info
    };
    let same = info("d6:lengthi0e4:pathl1:aee".repeat(50_000));
    assert_eq!((same.renamed.len(), same.renamed_count), (RENAMED_COUNT_MAX, 49_999));
    assert_eq!(same.renamed[0], ("a".to_owned(), "a.1".to_owned()));
    let links = info("d4:attr1:l6:lengthi0e4:pathl1:aee".repeat(50_000) + "d6:lengthi0e4:pathl1:aee");
    assert_eq!((links.renamed.len(), links.renamed_count), (RENAMED_COUNT_MAX, 50_000));
    assert_eq!(links.renamed[0].1, SYMLINK_LEFT_OUT);
    let long = info(format!("d6:lengthi0e4:pathl1000001:{}xee", "\u{e4}".repeat(500_000)));
    assert_eq!((long.renamed_count, long.renamed[0].0.len()), (1, GIVEN_LEN_MAX));
}

#[test]
fn what_stands_in_front_of_the_dictionary_is_refused_by_its_name() {
    let error = |front: &[u8]| Metainfo::decode(&[front, SINGLE].concat()).unwrap_err().to_string();
    assert!(error(b"\xef\xbb\xbf").contains("a byte order mark"));
    assert!(error(b"\xff\xfe").contains("UTF-16"));
    for space in [&b"\n"[..], b"\r\n", b" "] {
        assert!(error(space).contains("white space"));
    }
    assert!(error(b"\0").contains("at byte 0"));
}

#[test]
fn the_limits_hold_whatever_form_is_accepted() {
    let deep = format!("1:a{}{}", "l".repeat(64), "e".repeat(64));
    assert!(around(&deep, "").unwrap_err().to_string().contains("nested deeper"));
    let many = format!("1:al{}e", "0:".repeat(4_000_000));
    assert!(around(&many, "").unwrap_err().to_string().contains("more values"));
    let long = vec![b'0'; METAINFO_LEN_MAX];
    assert!(Metainfo::decode(&[b"d1:ai", &long[..]].concat()).unwrap_err().to_string().contains("longer"));
}
