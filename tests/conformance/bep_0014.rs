//! BEP 14: the datagrams of local service discovery, ours and those of other clients.

use sprat::proto::infohash::InfoHash;
use sprat::proto::lsd::{DATAGRAM_LEN_MAX, Group, INFOHASH_MAX, Search};

const HEX: &str = "0123456789abcdef0123456789abcdef01234567";

fn decode(text: &str) -> Option<Search> {
    Search::decode(text.as_bytes()).ok()
}

#[test]
fn the_groups_are_those_of_the_bep() {
    assert_eq!(Group::V4.addr().to_string(), "239.192.152.143:6771");
    assert_eq!(Group::V6.addr().to_string(), "[ff15::efc0:988f]:6771");
}

#[test]
fn ours_is_as_the_bep_writes_it() {
    let search =
        Search { port: 6881, infohashes: vec![HEX.parse().unwrap()], cookie: Some("name".to_owned()) };
    let expected = format!(
        "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\nInfohash: {HEX}\r\ncookie: name\r\n\r\n\r\n"
    );
    assert_eq!(search.encode(Group::V4), expected.as_bytes());
    let v6 = String::from_utf8(search.encode(Group::V6)).unwrap();
    assert!(v6.contains("\r\nHost: [ff15::efc0:988f]:6771\r\n"), "{v6}");
    assert_eq!(decode(&v6), Some(search));
}

#[test]
fn the_longest_fits_a_datagram() {
    let infohashes = (0..INFOHASH_MAX as u32).map(|number| InfoHash::of(&number.to_be_bytes())).collect();
    let search = Search { port: 65_535, infohashes, cookie: Some("0123456789abcdef".to_owned()) };
    let bytes = search.encode(Group::V6);
    assert!(bytes.len() <= DATAGRAM_LEN_MAX && bytes.len() > DATAGRAM_LEN_MAX - 104, "{}", bytes.len());
    assert_eq!(Search::decode(&bytes), Ok(search));
}

#[test]
fn others_write_headers_in_any_case_and_order_with_some_that_nobody_knows() {
    let upper = HEX.to_uppercase();
    for text in [
        format!("BT-SEARCH * HTTP/1.1\r\ncookie: a\r\nINFOHASH:{upper}\r\nX: y\r\nport:  6881 \r\n\r\n\r\n"),
        format!("BT-SEARCH * HTTP/1.0\nHost: x\nInfohash: {HEX}\nPort: 6881\nCookie: a\n\n"),
        format!("BT-SEARCH * HTTP/1.1\r\nPort: 6881\r\nInfohash: short\r\nInfohash: {HEX}\r\ncookie: a"),
        format!("BT-SEARCH * HTTP/1.1\r\nPort: 6881\r\nInfohash: {HEX}\r\ncookie: a\r\n\r\nPort: 1\r\n"),
    ] {
        let search = decode(&text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(
            (search.port, search.infohashes.as_slice()),
            (6881, &[HEX.parse().unwrap()][..]),
            "{text}"
        );
        assert_eq!(search.cookie.as_deref(), Some("a"));
    }
}

#[test]
fn what_is_no_announce_is_refused() {
    let long =
        format!("BT-SEARCH * HTTP/1.1\r\nPort: 1\r\n{}\r\n", format!("Infohash: {HEX}\r\n").repeat(30));
    for text in [
        "",
        "M-SEARCH * HTTP/1.1\r\nPort: 1\r\n",
        "BT-SEARCH * HTTP/1.1",
        "BT-SEARCH * HTTP/1.1\r\nPort: 6881\r\n\r\n",
        &format!("BT-SEARCH * HTTP/1.1\r\nInfohash: {HEX}\r\n\r\n"),
        &format!("BT-SEARCH * HTTP/1.1\r\nPort: 0\r\nInfohash: {HEX}\r\n\r\n"),
        &format!("BT-SEARCH * HTTP/1.1\r\nPort: 65536\r\nInfohash: {HEX}\r\n\r\n"),
        &format!("BT-SEARCH * HTTP/1.1\r\nPort: 6881\r\nInfohash: {HEX}0\r\n\r\n"),
        &long,
    ] {
        assert_eq!(decode(text), None, "{text}");
    }
}
