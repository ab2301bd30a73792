//! BEP 9: magnet links, with the infohashes of the published v2 and hybrid sample torrents.

use sprat::proto::metainfo::magnet::{Magnet, MagnetError};

const VECTORS: &str = include_str!("../../fixtures/vectors/bep_vectors.json");

#[test]
fn links_of_the_sample_torrents_are_read_and_written() {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    let hybrid = &vectors["bep52_samples"]["hybrid"];
    let (btih, btmh) = (hybrid["btih"].as_str().unwrap(), hybrid["btmh"].as_str().unwrap());
    let link = format!("magnet:?xt=urn:btih:{btih}&xt=urn:btmh:1220{btmh}&dn=bittorrent-v1-v2-hybrid-test");
    let magnet: Magnet = link.parse().unwrap();
    assert_eq!(magnet.infohash.unwrap().to_string(), btih);
    assert_eq!(data_encoding::HEXLOWER.encode(&magnet.infohash_v2.unwrap()), btmh);
    assert_eq!(magnet.to_string(), link);

    let btmh = vectors["bep52_samples"]["v2"]["btmh"].as_str().unwrap();
    let magnet: Magnet = format!("magnet:?xt=urn:btmh:1220{btmh}").parse().unwrap();
    assert!(magnet.infohash.is_none() && magnet.infohash_v2.is_some());
}

#[test]
fn errors_say_in_one_line_what_is_wrong() {
    let links = [
        ("", "not a magnet link"),
        ("magnet:?dn=x", "no infohash"),
        ("magnet:?xt=urn:btih:abc", "3 characters"),
        ("magnet:?xt=urn:btmh:1220abc", "v2 infohash"),
    ];
    for (link, expected) in links {
        let error: MagnetError = link.parse::<Magnet>().unwrap_err();
        assert!(error.to_string().contains(expected) && error.to_string().lines().count() == 1, "{error}");
    }
}
