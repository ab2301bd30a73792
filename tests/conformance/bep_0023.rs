//! BEP 23: compact peers, 6 bytes each; and the long form of BEP 3 for those who insist.

use sprat::proto::rng::Rng;
use sprat::proto::time::{Duration, Instant};
use sprat::proto::tracker::http::decode_reply;
use sprat::proto::tracker::service::Service;

#[test]
fn a_compact_answer_of_the_field_is_read() {
    let body = b"d8:completei3e10:downloadedi2e10:incompletei0e8:intervali1803e12:min intervali1800e\
                 5:peers6:\x7f\x00\x00\x01\xfc\x27e";
    let reply = decode_reply(body).unwrap();
    assert_eq!(reply.peers, ["127.0.0.1:64551".parse().unwrap()]);
    assert_eq!((reply.seeders, reply.leechers), (Some(3), Some(0)));
    assert_eq!(reply.interval, Duration::from_secs(1803));
    assert_eq!(reply.min_interval, Some(Duration::from_secs(1800)));
}

#[test]
fn compact_is_what_everybody_gets_who_does_not_say_no() {
    let mut tracker = Service::new(Rng::from_number(1), Instant::ZERO);
    let mut ask = |from: &str, more: &str| {
        let (hash, id) = ("a".repeat(20), "b".repeat(20));
        let target = format!("/announce?info_hash={hash}&peer_id={id}&port=128&left=1{more}");
        let mut body = Vec::new();
        assert_eq!(tracker.handle_http(Instant::ZERO, from.parse().unwrap(), &target, &mut body), 200);
        body
    };
    ask("10.10.10.5:1", "");
    for more in ["", "&compact=1"] {
        assert!(ask("192.0.2.1:1", more).ends_with(b"5:peers6:\x0a\x0a\x0a\x05\x00\x80e"));
    }
    let long = ask("192.0.2.1:1", "&compact=0");
    assert!(long.ends_with(b"5:peersld2:ip10:10.10.10.54:porti128eeee"), "{}", long.escape_ascii());
}
