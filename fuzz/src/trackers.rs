//! What trackers and their clients read: datagrams in both directions, queries, and the bodies of
//! answers.

use std::net::IpAddr;

use sprat::proto::tracker::AnnounceReply;
use sprat::proto::tracker::http::{self, forwarded, server};
use sprat::proto::tracker::udp::{self, Family, Request, Response};

/// Datagrams, to and from a tracker. A request is written and read again as the same.
pub fn udp_tracker(bytes: &[u8]) {
    if let Ok(request) = udp::decode_request(bytes) {
        let mut written = Vec::new();
        match &request {
            Request::Connect { transaction_id } => udp::encode_connect(*transaction_id, &mut written),
            Request::Announce { connection_id, transaction_id, announce, options } => {
                let url_data = options.url_data().collect::<Vec<_>>().concat();
                assert!(url_data.len() <= bytes.len());
                // What is not text is no part of a URL, and not written.
                let url_data = String::from_utf8_lossy(&url_data);
                udp::encode_announce(*connection_id, *transaction_id, announce, &url_data, &mut written);
            }
            Request::Scrape { connection_id, transaction_id, infohashes } => {
                let infohashes: Vec<_> =
                    infohashes.iter().map(|&hash| sprat::proto::infohash::InfoHash(hash)).collect();
                udp::encode_scrape(*connection_id, *transaction_id, &infohashes, &mut written);
            }
        }
        match (udp::decode_request(&written), request) {
            (Ok(Request::Announce { announce: again, .. }), Request::Announce { announce, .. }) => {
                assert_eq!(again, announce)
            }
            (again, request) => assert_eq!(again, Ok(request)),
        }
    }
    for family in [Family::V4, Family::V6] {
        match udp::decode_response(bytes, family) {
            Ok(Response::Announce { reply, .. }) => assert!(reply.peers.len() * 6 <= bytes.len()),
            Ok(Response::Scrape { torrents, .. }) => assert!(torrents.len() * 12 <= bytes.len()),
            Ok(Response::Error { message, .. }) => assert!(!message.contains(char::is_control)),
            Ok(Response::Connect { .. }) | Err(_) => {}
        }
    }
}

/// Bodies of answers, queries of requests, and headers of proxies.
pub fn http_tracker(bytes: &[u8]) {
    if let Ok(AnnounceReply { peers, warning, tracker_id, .. }) = http::decode_reply(bytes) {
        let text_len = warning.map_or(0, |text| text.len()) + tracker_id.map_or(0, |text| text.len());
        assert!(peers.len() * 6 + text_len / 3 <= bytes.len());
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (_, query) = server::split_target(text);
    if let Ok(server::Query { announce, .. }) = server::decode_announce(query) {
        let url = http::announce_url("http://t/announce", &announce);
        let (_, query) = server::split_target(&url);
        let again = server::decode_announce(query).expect("what is written is read").announce;
        assert_eq!((again.infohash, again.peer_id), (announce.infohash, announce.peer_id));
        assert_eq!((again.left, again.event, again.key), (announce.left, announce.event, announce.key));
    }
    if let Ok(infohashes) = server::decode_scrape(query) {
        assert!(infohashes.len() * 20 <= bytes.len());
    }
    let _ = http::scrape_url(text, &[]);
    let own: IpAddr = [10, 0, 0, 1].into();
    if let Ok(network) = text.parse::<forwarded::Network>() {
        let _ = network.contains(own);
    }
    let trusted = ["10.0.0.0/8".parse().expect("a network")];
    let _ = forwarded::client(own, &trusted, [bytes].into_iter());
}
