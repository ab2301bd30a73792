//! BEP 24: the tracker tells its client how it sees it.

use std::net::IpAddr;

use sprat::proto::rng::Rng;
use sprat::proto::time::Instant;
use sprat::proto::tracker::http::decode_reply;
use sprat::proto::tracker::service::Service;

#[test]
fn four_and_sixteen_bytes_are_addresses_and_others_are_nothing() {
    let read = |bytes: &[u8]| {
        let mut body = format!("d11:external ip{}:", bytes.len()).into_bytes();
        body.extend(bytes);
        body.push(b'e');
        decode_reply(&body).unwrap().external_ip
    };
    assert_eq!(read(&[8, 8, 4, 4]), Some(IpAddr::from([8, 8, 4, 4])));
    let mut v6 = [0; 16];
    (v6[0], v6[1], v6[15]) = (0x20, 0x01, 9);
    assert_eq!(read(&v6), Some("2001::9".parse().unwrap()));
    assert_eq!(read(b"8.8.4.4"), None);
}

#[test]
fn the_tracker_tells() {
    let mut tracker = Service::new(Rng::from_number(1), Instant::ZERO);
    for from in ["192.0.2.1", "2001:db8::1"] {
        let from: IpAddr = from.parse().unwrap();
        let target = format!("/announce?info_hash={}&peer_id={}&port=1", "a".repeat(20), "b".repeat(20));
        let mut body = Vec::new();
        tracker.handle_http(Instant::ZERO, (from, 999).into(), &target, &mut body);
        assert_eq!(decode_reply(&body).unwrap().external_ip, Some(from));
    }
}
