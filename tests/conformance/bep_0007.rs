//! BEP 7: IPv6 peers of trackers. They come under `peers6`, 18 bytes each, beside the IPv4 peers
//! under `peers`.
use std::net::SocketAddr;

use sprat::proto::rng::Rng;
use sprat::proto::time::Instant;
use sprat::proto::tracker::http::decode_reply;
use sprat::proto::tracker::service::Service;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn peers6_is_read_beside_peers() {
    let mut body = b"d8:intervali1800e5:peers6:\x0a\x0a\x0a\x05\x00\x806:peers618:".to_vec();
    // The example of the BEP has 0x10, 0x02 here, which is outside of all unicast addresses that
    // exist (RFC 4291).
    body.extend([
        0x20, 0x02, 0x10, 0x35, 0x45, 0x27, 0x35, 0x46, 0x78, 0x54, 0x12, 0x37, 0x32, 0x47, 0x32, 0x17,
    ]);
    body.extend([0x1a, 0xe1, b'e']);
    let peers = decode_reply(&body).unwrap().peers;
    assert_eq!(peers, [addr("10.10.10.5:128"), addr("[2002:1035:4527:3546:7854:1237:3247:3217]:6881")]);
}

#[test]
fn an_ipv4_mapped_peer_is_an_ipv4_peer() {
    let mut body = b"d6:peers618:".to_vec();
    body.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1, 0, 80, b'e']);
    assert_eq!(decode_reply(&body).unwrap().peers, [addr("10.0.0.1:80")]);
}

#[test]
fn the_tracker_answers_each_family_under_its_own_key() {
    let mut tracker = Service::new(Rng::from_number(1), Instant::ZERO);
    let mut body = Vec::new();
    for from in ["192.0.2.1:1", "[2001:db8::1]:1", "[2001:db8::2]:1"] {
        let target =
            format!("/announce?info_hash={}&peer_id={}&port=6881&left=1", "a".repeat(20), "b".repeat(20));
        assert_eq!(tracker.handle_http(Instant::ZERO, addr(from), &target, &mut body), 200);
    }
    let expected: &[u8] =
        b"5:peers6:\xc0\x00\x02\x01\x1a\xe16:peers618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1e";
    assert!(body.ends_with(expected), "{}", body.escape_ascii());
}
