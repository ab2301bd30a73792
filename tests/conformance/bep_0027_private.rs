//! BEP 27: private torrents.

use super::bep_0003_metainfo::{FOLDER, SINGLE};
use sprat::proto::metainfo::Metainfo;

#[test]
fn private_is_the_integer_one_and_nothing_else() {
    assert!(Metainfo::decode(FOLDER).unwrap().info.private);
    assert!(!Metainfo::decode(SINGLE).unwrap().info.private);
    let values = [
        ("i1e", true),
        ("i01e", true),
        ("i0e", false),
        ("i-0e", false),
        ("i2e", false),
        ("1:1", false),
        ("le", false),
    ];
    for (value, expected) in values {
        let info = format!("d6:lengthi0e4:name1:n12:piece lengthi1e6:pieces0:7:private{value}6:source3:SRCe");
        let torrent = Metainfo::decode(format!("d4:info{info}e").as_bytes()).unwrap();
        assert_eq!(torrent.info.private, expected, "{value}");
        assert_eq!(torrent.info.source.as_deref(), Some("SRC"));
    }
}
