//! BEP 33: scrapes by Bloom filters, with the BEP's test vector.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sprat::proto::dht::bloom::Filter;
use sprat::proto::dht::krpc::{Answer, Body, Method, Query, Want, decode, encode_answer, encode_query};
use sprat::proto::dht::node_id::NodeId;

const VECTORS: &str = include_str!("../../fixtures/vectors/bep_vectors.json");
const ID: NodeId = NodeId(*b"abcdefghij0123456789");

#[test]
fn the_filter_of_the_bep() {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    let mut filter = Filter::default();
    (0..=255).for_each(|last| filter.insert(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))));
    (0..=0x3e7).for_each(|last| filter.insert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()));
    assert_eq!(data_encoding::HEXLOWER.encode(&filter.0), vectors["bep33"]["hex"].as_str().unwrap());
    let estimate = vectors["bep33"]["estimate"].as_f64().unwrap();
    assert_eq!(f64::from(filter.estimate()), estimate.round());
}

#[test]
fn scrapes_are_asked_for_and_answered() {
    let method =
        Method::GetPeers { infohash: NodeId([7; 20]), want: Want::default(), scrape: true, no_seed: true };
    let query = Query { id: ID, read_only: false, method };
    let bytes = encode_query(*b"tttt", &query);
    assert!(String::from_utf8_lossy(&bytes).contains("6:noseedi1e6:scrapei1e"));
    assert_eq!(decode(&bytes).unwrap().body, Body::Query(query));

    let (seeds, downloaders) = ([1; 256], [2; 256]);
    let answer = Answer { filters: Some(Box::new((seeds, downloaders))), ..Answer::default() };
    let bytes = encode_answer(b"t", ID, "1.2.3.4:5".parse().unwrap(), &answer);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("d4:BFpe256:\u{2}\u{2}") && text.contains("4:BFsd256:\u{1}\u{1}"));
    let Body::Response(response) = decode(&bytes).unwrap().body else { panic!() };
    assert_eq!(response.filters, Some((&seeds, &downloaders)));
}

#[test]
fn an_announce_says_whether_it_is_of_a_seed() {
    for seed in [true, false] {
        let method =
            Method::AnnouncePeer { infohash: NodeId([7; 20]), port: Some(6_881), token: b"12345678", seed };
        let query = Query { id: ID, read_only: false, method };
        let bytes = encode_query(*b"tttt", &query);
        assert_eq!(String::from_utf8_lossy(&bytes).contains("4:seedi1e"), seed);
        assert_eq!(decode(&bytes).unwrap().body, Body::Query(query));
    }
}
