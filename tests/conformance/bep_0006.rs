//! BEP 6: the allowed-fast set, with the BEP's own example. (Its messages: see BEP 3's.)

use std::net::IpAddr;

use sprat::proto::infohash::InfoHash;
use sprat::proto::wire::allowed_fast::allowed_fast_set;

const INFOHASH: InfoHash = InfoHash([0xaa; 20]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_example_of_the_bep() {
    let nine = [1059, 431, 808, 1217, 287, 376, 1188, 353, 508];
    assert_eq!(allowed_fast_set(INFOHASH, ip("80.4.4.200"), 1313, 7), nine[..7]);
    assert_eq!(allowed_fast_set(INFOHASH, ip("80.4.4.200"), 1313, 9), nine);
}

#[test]
fn one_network_has_one_set() {
    for (one, same, other) in [
        ("80.4.4.200", "80.4.4.7", "80.4.5.200"),
        ("80.4.4.200", "::ffff:80.4.4.200", "2001:db8:1::1"),
        ("2001:db8:1::1", "2001:db8:1:ffff::2", "2001:db8:2::1"),
    ] {
        let set = allowed_fast_set(INFOHASH, ip(one), 1313, 10);
        assert_eq!(set, allowed_fast_set(INFOHASH, ip(same), 1313, 10));
        assert_ne!(set, allowed_fast_set(INFOHASH, ip(other), 1313, 10));
    }
}

#[test]
fn small_torrents_end_and_name_each_piece_once() {
    for piece_count in 0..40 {
        for k in 0..40 {
            let mut set = allowed_fast_set(INFOHASH, ip("10.0.0.1"), piece_count, k);
            assert_eq!(set.len(), k.min(piece_count as usize));
            set.sort_unstable();
            set.dedup();
            assert_eq!(set.len(), k.min(piece_count as usize));
            assert!(set.iter().all(|piece| *piece < piece_count));
        }
    }
    assert!(allowed_fast_set(INFOHASH, ip("10.0.0.1"), 4_000_000, 3_999_999).len() <= 320);
}
