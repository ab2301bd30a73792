//! BEP 52, as far as a hybrid torrent is read as v1, on torrents that libtorrent made.

use sprat::proto::metainfo::{Metainfo, MetainfoError};

const SINGLE: &[u8] = include_bytes!("../../fixtures/torrents/hybrid-single.torrent");
pub(crate) const FOLDER: &[u8] = include_bytes!("../../fixtures/torrents/hybrid-folder.torrent");
const V2_ONLY: &[u8] = include_bytes!("../../fixtures/torrents/v2-only.torrent");

#[test]
fn a_hybrid_has_both_infohashes_and_the_files_of_v1() {
    let hashes = |torrent: &Metainfo| {
        (
            torrent.info.infohash.to_string(),
            data_encoding::HEXLOWER.encode(&torrent.info.infohash_v2.unwrap()),
        )
    };
    let single = Metainfo::decode(SINGLE).unwrap();
    let (v1, v2) = hashes(&single);
    assert_eq!(v1, "fe630833e63485596c168aa793ba9cebf0ad9c13");
    assert_eq!(v2, "c6cce64e047d5759a5568d3f89ded76c43f1b875b8cc19c9462d7edc768a161e");
    let folder = Metainfo::decode(FOLDER).unwrap();
    let (v1, v2) = hashes(&folder);
    assert_eq!(v1, "b914fc236d287172bfc1a83e21a95a26dfc88174");
    assert_eq!(v2, "75a9bafd43debfa27fae6b17535aa28971f0b77d8f1fdaa2def2262ca8f7a79f");
    let files: Vec<_> =
        folder.info.files.iter().map(|file| (file.path.join("/"), file.attributes.pad)).collect();
    let expected = [
        ("a.txt", false),
        (".pad/12768", true),
        ("empty", false),
        ("sub/tool.sh", false),
        (".pad/16152", true),
    ];
    assert_eq!(files, expected.map(|(path, pad)| (format!("folder/{path}"), pad)));
}

#[test]
fn a_v2_only_torrent_is_refused_in_words() {
    let error = Metainfo::decode(V2_ONLY).unwrap_err();
    assert_eq!(error, MetainfoError::V2Only);
    assert!(error.to_string().contains("v2-only"));
}

fn hybrid_of(version: u8, tree: &str) -> Result<Metainfo, MetainfoError> {
    let tree = if tree.is_empty() { String::new() } else { format!("9:file tree{tree}") };
    let info =
        format!("d{tree}6:lengthi0e12:meta versioni{version}e4:name1:n12:piece lengthi16384e6:pieces0:e");
    Metainfo::decode(format!("d4:info{info}e").as_bytes())
}

#[test]
fn the_file_tree_must_be_in_order_and_without_duplicates() {
    assert!(hybrid_of(2, "d1:nd0:d6:lengthi0eeee").is_ok());
    for bad in ["d1:bde1:adee", "d1:ade1:adee", "d1:ad1:bde1:adeee"] {
        assert!(
            matches!(hybrid_of(2, bad), Err(MetainfoError::FileTree(_) | MetainfoError::Bencode(_))),
            "{bad}"
        );
    }
    assert_eq!(hybrid_of(2, "").unwrap_err(), MetainfoError::Missing("file tree"));
}

#[test]
fn unknown_versions_are_refused() {
    assert_eq!(hybrid_of(3, "de").unwrap_err(), MetainfoError::Version(3));
    assert_eq!(hybrid_of(1, "").unwrap().info.infohash_v2, None);
}
