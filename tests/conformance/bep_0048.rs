//! BEP 48: scraping over HTTP.

use sprat::proto::infohash::InfoHash;
use sprat::proto::rng::Rng;
use sprat::proto::time::Instant;
use sprat::proto::tracker::http::scrape_url;
use sprat::proto::tracker::service::Service;

#[test]
fn the_scrape_url_follows_from_the_announce_url() {
    let hash = [InfoHash([b'h'; 20])];
    let scrape = |url| scrape_url(url, &hash).map(|url| url.replace(&"h".repeat(20), "H"));
    for (announce, expected) in [
        ("http://example.com/announce", Some("http://example.com/scrape?info_hash=H")),
        ("http://example.com/x/announce", Some("http://example.com/x/scrape?info_hash=H")),
        ("http://example.com/announce.php", Some("http://example.com/scrape.php?info_hash=H")),
        ("http://example.com/a", None),
        ("http://example.com/announce?x2%0644", Some("http://example.com/scrape?x2%0644&info_hash=H")),
        ("http://example.com/announce?x=2/4", Some("http://example.com/scrape?x=2/4&info_hash=H")),
        ("http://example.com/x%064announce", None),
    ] {
        assert_eq!(scrape(announce).as_deref(), expected, "{announce}");
    }
}

#[test]
fn the_tracker_answers_for_those_asked_and_never_for_all() {
    let mut tracker = Service::new(Rng::from_number(1), Instant::ZERO);
    let from = "192.0.2.1:1".parse().unwrap();
    let mut body = Vec::new();
    for hash in ["a", "b", "c"] {
        let target = format!("/announce?info_hash={}&peer_id={}&port=1", hash.repeat(20), "p".repeat(20));
        tracker.handle_http(Instant::ZERO, from, &target, &mut body);
    }
    let target = format!("/scrape?info_hash={}&info_hash={}", "c".repeat(20), "a".repeat(20));
    assert_eq!(tracker.handle_http(Instant::ZERO, from, &target, &mut body), 200);
    let one = "d8:completei0e10:downloadedi0e10:incompletei1ee";
    let expected = format!("d5:filesd20:{}{one}20:{}{one}ee", "a".repeat(20), "c".repeat(20));
    assert_eq!(String::from_utf8(body.clone()).unwrap(), expected);
    tracker.handle_http(Instant::ZERO, from, "/scrape", &mut body);
    assert!(body.starts_with(b"d14:failure reason"));
}
