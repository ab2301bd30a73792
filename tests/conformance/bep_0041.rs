//! BEP 41: options after a UDP announce, of which URLData carries path and query.

use sprat::proto::infohash::InfoHash;
use sprat::proto::peer_id::PeerId;
use sprat::proto::tracker::Announce;
use sprat::proto::tracker::udp::{Request, URL_DATA_LEN_MAX, decode_request, encode_announce};

fn request(url: &str) -> Vec<u8> {
    let announce = Announce::new(InfoHash([1; 20]), PeerId([2; 20]), 1);
    let mut bytes = Vec::new();
    encode_announce(1, 2, &announce, url, &mut bytes);
    bytes
}

fn url_data(bytes: &[u8]) -> Vec<u8> {
    match decode_request(bytes) {
        Ok(Request::Announce { options, .. }) => options.url_data().collect::<Vec<_>>().concat(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_options_of_the_beps_examples_are_read() {
    // The examples: udp://tracker.example.com:80/?xyz and a NOP between.
    let mut bytes = request("");
    bytes.extend(b"\x02\x04/?xy\x01\x01\x02\x01z\x00\x02\x03not");
    assert_eq!(url_data(&bytes), b"/?xyz");
}

#[test]
fn path_and_query_go_out_in_parts_of_255_bytes() {
    assert_eq!(request("/announce?k=1")[98..], *b"\x02\x0d/announce?k=1");
    let long = format!("/{}", "y".repeat(299));
    let bytes = request(&long);
    assert_eq!((bytes[98], bytes[99], bytes[355], bytes[356]), (2, 255, 2, 45));
    assert_eq!(url_data(&bytes), long.as_bytes());
    assert_eq!(url_data(&request(&"z".repeat(5000))).len(), URL_DATA_LEN_MAX);
    assert!(request(&"z".repeat(5000)).len() < 1200, "fits an MTU");
}

#[test]
fn no_option_reads_beyond_the_datagram() {
    for tail in [&b"\x02"[..], b"\x02\x05abcd", b"\x7f\xff", b"\x01\x01\x01", b"\x00"] {
        let mut bytes = request("");
        bytes.extend(tail);
        assert_eq!(url_data(&bytes), b"");
    }
}
