//! BEP 5 as a node lives it: what it sends and answers, byte by byte, and what follows from it.
//! With it what BEP 32, 33, 42, 43 and 51 add to a node's behaviour.

use std::net::SocketAddr;

use sprat::proto::dht::Dht;
use sprat::proto::dht::event::{Announce, Config, Output, ReadOnly, Request, RequestId};
use sprat::proto::dht::krpc::{self, Body, Method, Query, Response};
use sprat::proto::dht::node_id::NodeId;
use sprat::proto::infohash::InfoHash;
use sprat::proto::rng::Rng;
use sprat::proto::time::{Duration, Instant};

const NOW: Instant = Instant::from_micros(1_000_000);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn node(read_only: ReadOnly, external: Option<&str>) -> Dht {
    let external = external.map(|ip| ip.parse().unwrap());
    let config = Config { v4: true, v6: true, port: 6881, read_only, external };
    Dht::new(config, Rng::from_number(5), NOW)
}

/// What the node sends now.
fn sent(dht: &mut Dht) -> Vec<(SocketAddr, Vec<u8>)> {
    std::iter::from_fn(|| dht.poll_output())
        .filter_map(|output| match output {
            Output::Send { to, bytes } => Some((to, bytes)),
            Output::Found { .. } | Output::Bootstrap | Output::External(_) => None,
        })
        .collect()
}

/// The answer to a datagram; a node may ask back besides.
fn answer(dht: &mut Dht, from: &str, bytes: &[u8]) -> Vec<u8> {
    assert!(dht.handle_datagram(NOW, addr(from), bytes), "a datagram that begins like KRPC is KRPC");
    let sent = sent(dht);
    let (to, bytes) = sent.first().expect("a query is answered");
    assert_eq!(*to, addr(from));
    bytes.clone()
}

fn response(bytes: &[u8]) -> Response<'_> {
    let Body::Response(response) = krpc::decode(bytes).unwrap().body else {
        panic!("{}", String::from_utf8_lossy(bytes));
    };
    response
}

fn query(bytes: &[u8]) -> Query<'_> {
    let Body::Query(query) = krpc::decode(bytes).unwrap().body else {
        panic!("{}", String::from_utf8_lossy(bytes));
    };
    query
}

/// A first query of the node, to whom it went; its transaction id follows.
fn first_query(dht: &mut Dht) -> (SocketAddr, Vec<u8>) {
    sent(dht).into_iter().next().expect("the node asks")
}

#[test]
fn a_ping_is_answered_with_our_id_the_transaction_and_where_we_see_the_asker() {
    let mut dht = node(ReadOnly::Auto, None);
    let own = dht.snapshot(NOW).overlays[0].id;
    let ping = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";
    let bytes = answer(&mut dht, "1.2.3.4:26985", ping);
    let mut expected = b"d2:ip6:\x01\x02\x03\x04ii1:rd2:id20:".to_vec();
    expected.extend_from_slice(&own.0);
    expected.extend_from_slice(b"e1:t2:aa1:v4:SP\x00\x011:y1:re");
    assert_eq!(bytes, expected);
}

#[test]
fn a_peer_is_named_after_it_announced_itself_with_the_token_it_was_given() {
    let mut dht = node(ReadOnly::Auto, None);
    let get =
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe";
    let first = answer(&mut dht, "10.0.0.9:6000", get);
    let token = response(&first).token.unwrap().to_vec();
    assert_eq!(response(&first).peers().count(), 0);
    for (implied, expected) in [(0, "10.0.0.9:4000"), (1, "10.0.0.9:6000")] {
        let mut announce = b"d1:ad2:id20:abcdefghij0123456789".to_vec();
        announce.extend_from_slice(format!("12:implied_porti{implied}e").as_bytes());
        announce.extend_from_slice(b"9:info_hash20:mnopqrstuvwxyz1234564:porti4000e5:token8:");
        announce.extend_from_slice(&token);
        announce.extend_from_slice(b"e1:q13:announce_peer1:t2:aa1:y1:qe");
        response(&answer(&mut dht, "10.0.0.9:6000", &announce));
        let found = answer(&mut dht, "10.0.0.8:6000", get);
        let peers: Vec<_> = response(&found).peers().collect();
        assert!(peers.contains(&addr(expected)), "{peers:?}");
    }
}

#[test]
fn what_is_wrong_is_said_in_the_codes_of_the_standard() {
    let mut dht = node(ReadOnly::Auto, None);
    let code = |bytes: &[u8]| match krpc::decode(bytes).unwrap().body {
        Body::Error(code, _) => code,
        Body::Query(_) | Body::Response(_) => 0,
    };
    let bad_token = b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe";
    assert_eq!(code(&answer(&mut dht, "10.0.0.9:1", bad_token)), 203);
    // Long enough that the error is no amplification.
    let no_target =
        b"d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t2:aa1:v20:abcdefghij01234567891:y1:qe";
    assert_eq!(code(&answer(&mut dht, "10.0.0.9:1", no_target)), 203);
    let unknown = b"d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t2:aa1:y1:qe";
    assert_eq!(code(&answer(&mut dht, "10.0.0.9:1", unknown)), 204);
}

#[test]
fn other_datagrams_are_left_to_others_and_answers_to_nothing_are_not_answered() {
    let mut dht = node(ReadOnly::Auto, None);
    assert!(!dht.handle_datagram(NOW, addr("10.0.0.9:1"), b"\x00\x00\x00\x01"));
    assert!(!dht.handle_datagram(NOW, addr("10.0.0.9:1"), b""));
    for ignored in
        [&b"d1:rd2:id20:abcdefghij0123456789e1:t4:aaaa1:y1:re"[..], b"d1:eli201e1:xe1:t2:aa1:y1:ee", b"d"]
    {
        assert!(dht.handle_datagram(NOW, addr("10.0.0.9:1"), ignored));
    }
    let ping = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";
    for nowhere in ["10.0.0.9:0", "224.0.0.1:6881", "0.0.0.0:6881"] {
        assert!(dht.handle_datagram(NOW, addr(nowhere), ping));
    }
    assert_eq!(sent(&mut dht), []);
}

#[test]
fn a_node_that_answers_is_named_to_others_in_the_family_they_want() {
    let mut dht = node(ReadOnly::Auto, None);
    for (from, id) in [("10.0.0.9:6000", [1; 20]), ("[fd00::9]:6000", [2; 20])] {
        dht.handle_hint(NOW, addr(from));
        let (to, bytes) = first_query(&mut dht);
        assert_eq!(to, addr(from));
        assert!(matches!(query(&bytes).method, Method::FindNode { .. }));
        let transaction = krpc::decode(&bytes).unwrap().transaction;
        let reply =
            krpc::encode_answer(transaction, NodeId(id), addr("10.0.0.1:1"), &krpc::Answer::default());
        assert!(dht.handle_datagram(NOW, addr(from), &reply));
        sent(&mut dht);
    }
    let find = |want: &str| {
        format!(
            "d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456{want}e1:q9:find_node1:t2:aa1:y1:qe"
        )
    };
    let named = |dht: &mut Dht, from: &str, want: &str| {
        let bytes = answer(dht, from, find(want).as_bytes());
        response(&bytes).nodes().map(|node| node.addr).collect::<Vec<_>>()
    };
    let (v4, v6) = (addr("10.0.0.9:6000"), addr("[fd00::9]:6000"));
    assert_eq!(named(&mut dht, "10.0.0.7:1", ""), [v4]);
    assert_eq!(named(&mut dht, "[fd00::7]:1", ""), [v6]);
    assert_eq!(named(&mut dht, "10.0.0.7:1", "4:wantl2:n6e"), [v6]);
    assert_eq!(named(&mut dht, "10.0.0.7:1", "4:wantl2:n42:n6e"), [v4, v6]);
}

#[test]
fn an_announce_goes_to_who_gave_a_token_with_port_and_seed_as_asked() {
    let mut dht = node(ReadOnly::Auto, None);
    let announce = Some(Announce { port: None, seed: true });
    let request = Request::Peers { infohash: InfoHash([7; 20]), announce, scrape: true };
    dht.handle_request(NOW, RequestId(1), request);
    dht.handle_hint(NOW, addr("10.0.0.9:6000"));
    let mut told = None;
    while told.is_none() {
        let pending = sent(&mut dht);
        assert!(!pending.is_empty(), "the node asks until it is through");
        for (_, bytes) in pending {
            let transaction = krpc::decode(&bytes).unwrap().transaction;
            match query(&bytes).method {
                Method::GetPeers { infohash, scrape, .. } => {
                    assert!(infohash == NodeId([7; 20]) && scrape);
                }
                Method::AnnouncePeer { port, token, seed, .. } => {
                    told = Some((port, token.to_vec(), seed));
                }
                Method::Ping | Method::FindNode { .. } => (),
                other @ (Method::Get { .. }
                | Method::Put { .. }
                | Method::SampleInfohashes { .. }
                | Method::Unknown { .. }) => panic!("{other:?}"),
            }
            let reply = krpc::Answer { token: Some(*b"12345678"), ..krpc::Answer::default() };
            let reply = krpc::encode_answer(transaction, NodeId([1; 20]), addr("10.0.0.1:1"), &reply);
            assert!(dht.handle_datagram(NOW, addr("10.0.0.9:6000"), &reply));
        }
    }
    assert_eq!(told, Some((None, b"12345678".to_vec(), true)));
}

#[test]
fn an_id_fits_the_address_known_beforehand_and_read_only_is_said() {
    let mut dht = node(ReadOnly::Always, Some("124.31.75.21"));
    let id = dht.snapshot(NOW).overlays[0].id;
    assert!(id.fits("124.31.75.21".parse().unwrap()));
    dht.handle_hint(NOW, addr("10.0.0.9:6000"));
    let (_, bytes) = first_query(&mut dht);
    assert!(query(&bytes).read_only && query(&bytes).id == id);
    let mut open = node(ReadOnly::Never, None);
    open.handle_hint(NOW, addr("10.0.0.9:6000"));
    assert!(!query(&first_query(&mut open).1).read_only);
}

#[test]
fn samples_are_told_with_their_number_and_when_to_come_again() {
    let mut dht = node(ReadOnly::Auto, None);
    let sample = b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q17:sample_infohashes1:t2:aa1:y1:qe";
    let bytes = answer(&mut dht, "10.0.0.9:6000", sample);
    assert_eq!(response(&bytes).samples, Some((&b""[..], 0)));
    assert!(bytes.windows(12).any(|part| part.starts_with(b"8:interval")));
}

#[test]
fn nothing_is_due_long_before_something_is() {
    let mut dht = node(ReadOnly::Auto, None);
    dht.handle_timeout(NOW);
    sent(&mut dht);
    let at = dht.poll_timeout().expect("the names are looked up again");
    assert!(at >= NOW + Duration::from_secs(2), "{at:?}");
}
