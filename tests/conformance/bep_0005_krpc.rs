//! BEP 5: KRPC messages, with the BEP's own examples byte by byte, and what is not quite as it
//! should be.

use std::net::SocketAddr;

use sprat::proto::dht::krpc::{
    Answer, Body, DATAGRAM_LEN_MAX, KrpcError, Message, Method, NODE_COUNT_MAX, Query, Response, Want,
    decode, encode_answer, encode_error, encode_query,
};
use sprat::proto::dht::node_id::{Node, NodeId};

const VECTORS: &str = include_str!("../../fixtures/vectors/bep_vectors.json");
const ASKER: NodeId = NodeId(*b"abcdefghij0123456789");
const OTHER: NodeId = NodeId(*b"mnopqrstuvwxyz123456");

fn example(name: &str) -> Vec<u8> {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    vectors["krpc_examples"][name].as_str().unwrap().into()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn node(number: u8, text: &str) -> Node {
    Node { id: NodeId([number; 20]), addr: addr(text) }
}

fn query(bytes: &[u8]) -> Query<'_> {
    let Body::Query(query) = decode(bytes).unwrap().body else { panic!() };
    query
}

fn response(bytes: &[u8]) -> Response<'_> {
    let Body::Response(response) = decode(bytes).unwrap().body else { panic!() };
    response
}

fn error(bytes: &[u8]) -> KrpcError {
    decode(bytes).unwrap_err()
}

#[test]
fn queries_of_the_bep_are_read() {
    let (want, read_only) = (Want::default(), false);
    for (name, method) in [
        ("ping_q", Method::Ping),
        ("find_node_q", Method::FindNode { target: OTHER, want }),
        ("get_peers_q", Method::GetPeers { infohash: OTHER, want, scrape: false, no_seed: false }),
        // Its port is 6881, but implied_port is set.
        ("announce_q", Method::AnnouncePeer { infohash: OTHER, port: None, token: b"aoeusnth", seed: false }),
    ] {
        let bytes = example(name);
        let body = Body::Query(Query { id: ASKER, read_only, method });
        assert_eq!(decode(&bytes), Ok(Message { transaction: b"aa", body, external: None }), "{name}");
    }
}

#[test]
fn answers_of_the_bep_are_read() {
    let bytes = example("ping_r");
    assert_eq!(decode(&bytes).unwrap().transaction, b"aa");
    assert_eq!(response(&bytes).id, OTHER);
    assert_eq!((response(&bytes).nodes().count(), response(&bytes).peers().count()), (0, 0));

    let bytes = example("get_peers_r_values");
    assert_eq!(response(&bytes).id, ASKER);
    assert_eq!(response(&bytes).token, Some(&b"aoeusnth"[..]));
    let peers: Vec<_> = response(&bytes).peers().collect();
    assert_eq!(peers, [addr("97.120.106.101:11893"), addr("105.100.104.116:28269")]);

    let bytes = example("error");
    assert_eq!(decode(&bytes).unwrap().body, Body::Error(201, b"A Generic Error Ocurred"));
}

/// Our queries are those of the BEP but for the transaction id and the client's name.
#[test]
fn queries_are_written_as_in_the_bep() {
    let written = |name: &str| {
        let bytes = encode_query(*b"tttt", &query(&example(name)));
        String::from_utf8_lossy(&bytes).replace("1:t4:tttt1:v4:SP\0\u{1}", "1:t2:aa")
    };
    for name in ["ping_q", "find_node_q", "get_peers_q"] {
        assert_eq!(written(name).as_bytes(), example(name), "{name}");
    }
    // The port does not count beside implied_port: none is named.
    assert_eq!(written("announce_q").replace("4:porti0e", "4:porti6881e").as_bytes(), example("announce_q"));
    let given = b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token1:ae\
        1:q13:announce_peer1:t4:tttt1:v4:SP\0\x011:y1:qe";
    assert_eq!(encode_query(*b"tttt", &query(given)), given);
}

#[test]
fn answers_are_written_in_order_with_the_asker_s_address() {
    let answer = Answer {
        nodes: vec![node(1, "1.2.3.4:5"), node(2, "[2001:db8::1]:258"), node(3, "[::ffff:9.8.7.6]:5")],
        peers: vec![addr("4.3.2.1:1"), addr("[2001:db8::2]:2")],
        token: Some(*b"12345678"),
        ..Answer::default()
    };
    let bytes = encode_answer(b"aa", OTHER, addr("[::ffff:97.98.99.100]:25958"), &answer);
    let mut expected = b"d2:ip6:abcdef1:rd2:id20:mnopqrstuvwxyz1234565:nodes52:".to_vec();
    expected.extend([[1; 20].as_slice(), &[1, 2, 3, 4, 0, 5], &[3; 20], &[9, 8, 7, 6, 0, 5]].concat());
    expected.extend(b"6:nodes638:");
    expected.extend([[2; 20].as_slice(), &[0x20, 1, 0x0d, 0xb8], &[0; 11], &[1, 1, 2]].concat());
    expected.extend(b"5:token8:123456786:valuesl6:\x04\x03\x02\x01\0\x0118:\x20\x01\x0d\xb8");
    expected.extend([[0; 11].as_slice(), &[2, 0, 2]].concat());
    expected.extend(b"ee1:t2:aa1:v4:SP\0\x011:y1:re");
    assert_eq!(bytes, expected);

    let message = decode(&bytes).unwrap();
    assert_eq!(message.external, Some(addr("97.98.99.100:25958")));
    let nodes: Vec<_> = response(&bytes).nodes().collect();
    assert_eq!(nodes, [node(1, "1.2.3.4:5"), node(3, "9.8.7.6:5"), node(2, "[2001:db8::1]:258")]);
    assert_eq!(response(&bytes).peers().collect::<Vec<_>>(), answer.peers);
}

#[test]
fn errors_are_written_and_read() {
    let bytes = encode_error(b"xyz", addr("1.2.3.4:5"), 204, "Method Unknown");
    assert_eq!(
        bytes,
        b"d1:eli204e14:Method Unknowne2:ip6:\x01\x02\x03\x04\0\x051:t3:xyz1:v4:SP\0\x011:y1:ee"
    );
    assert_eq!(decode(&bytes).unwrap().body, Body::Error(204, b"Method Unknown"));
    assert_eq!(decode(b"d1:eli201ee1:t1:a1:y1:ee").unwrap().body, Body::Error(201, b""));
}

#[test]
fn no_answer_is_longer_than_a_datagram_may_be() {
    let crowd = |text: &str| (0..200).map(|number| node(number, text)).collect::<Vec<_>>();
    for text in ["1.2.3.4:5", "[2001:db8::1]:258"] {
        let nodes = crowd(text);
        let peers: Vec<_> = nodes.iter().map(|node| node.addr).collect();
        let answer = Answer { nodes: nodes[..8].to_vec(), peers, token: Some([1; 8]), ..Answer::default() };
        let bytes = encode_answer(&[b't'; 32], OTHER, addr(text), &answer);
        assert!((DATAGRAM_LEN_MAX - 30..=DATAGRAM_LEN_MAX).contains(&bytes.len()), "{}", bytes.len());
        assert_eq!(response(&bytes).nodes().collect::<Vec<_>>(), nodes[..8], "peers make room before nodes");
        assert!(response(&bytes).peers().count() >= 30);

        let answer = Answer { nodes: nodes.clone(), ..answer };
        let bytes = encode_answer(b"aa", OTHER, addr(text), &answer);
        assert!((DATAGRAM_LEN_MAX - 50..=DATAGRAM_LEN_MAX).contains(&bytes.len()), "{}", bytes.len());
        let named = response(&bytes).nodes().collect::<Vec<_>>();
        assert_eq!(named, nodes[..named.len()], "the last ones make room");
        assert!(response(&bytes).token.is_some() && response(&bytes).peers().count() == 0);
    }
}

#[test]
fn nobody_is_named_who_cannot_be_reached() {
    let mut nodes = Vec::new();
    for (number, tail) in [(1, [1, 2, 3, 4, 0, 0]), (2, [0, 0, 0, 0, 0, 1]), (3, [9, 9, 9, 9, 0, 1])] {
        nodes.extend([number; 20]);
        nodes.extend(tail);
    }
    // Half a node at the end.
    nodes.extend([7; 13]);
    let mut bytes = b"d1:rd2:id20:abcdefghij01234567895:nodes91:".to_vec();
    bytes.extend(nodes);
    bytes.extend(b"6:valuesl6:abcd\0\x006:\0\0\0\0\0\x016:abcdef5:abcdei7e0:ee1:t1:t1:y1:re");
    assert_eq!(response(&bytes).nodes().collect::<Vec<_>>(), [node(3, "9.9.9.9:1")]);
    assert_eq!(response(&bytes).peers().collect::<Vec<_>>(), [addr("97.98.99.100:25958")]);

    let mut many = format!("d1:rd2:id20:abcdefghij01234567895:nodes{}:", 26 * 100).into_bytes();
    many.extend([1; 26 * 100]);
    many.extend(b"e1:t1:t1:y1:re");
    assert_eq!(response(&many).nodes().count(), NODE_COUNT_MAX);
}

#[test]
fn unordered_and_repeated_keys_and_trailing_bytes_are_taken() {
    let bytes =
        b"d1:y1:q1:t1:x1:q4:ping1:ad2:id20:mnopqrstuvwxyz1234562:id20:abcdefghij0123456789e1:t1:zejunk";
    assert_eq!(query(bytes).id, ASKER);
    assert_eq!(decode(bytes).unwrap().transaction, b"z");
}

#[test]
fn what_is_of_the_wrong_kind_or_length_counts_as_absent() {
    let bytes = b"d2:ip4:abcd1:rd4:BFsd3:abc2:id20:abcdefghij01234567895:nodesi1e6:nodes6le7:samples19:\
        aaaaaaaaaaaaaaaaaaa5:tokeni3e6:values2:abe2:roi1e1:t1:t1:yle1:y1:re";
    let read = response(bytes);
    assert_eq!(decode(bytes).unwrap().external, None);
    assert_eq!((read.nodes.len(), read.nodes6.len(), read.token, read.values), (0, 0, None, None));
    assert_eq!((read.samples, read.filters, read.item, read.seq), (None, None, None, None));
}

#[test]
fn a_message_without_what_it_needs_is_none() {
    for (bytes, what) in [
        (&b"i1e"[..], "it is not a dictionary"),
        (b"d1:y1:qe", "there is no transaction id"),
        (b"d1:t33:012345678901234567890123456789012e", "the transaction id is too long"),
        (b"d1:t1:te", "it is no query, answer or error"),
        (b"d1:t1:t1:y1:xe", "it is no query, answer or error"),
        (b"d1:t1:t1:y1:re", "there is no answer"),
        (b"d1:rde1:t1:t1:y1:re", "the answer has no id"),
        (b"d1:rd2:id19:bcdefghij0123456789e1:t1:t1:y1:re", "the answer has no id"),
        (b"d1:ele1:t1:t1:y1:ee", "the error has no code"),
        (b"d1:q4:ping1:t1:t1:y1:qe", "the query has no arguments"),
        (b"d1:ad2:id20:abcdefghij0123456789e1:t1:t1:y1:qe", "the query has no method"),
        (b"d1:ade1:q4:ping1:t1:t1:y1:qe", "the query has no id"),
        (b"d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t1:t1:y1:qe", "the query has no target"),
        (b"d1:ad2:id20:abcdefghij0123456789e1:q9:get_peers1:t1:t1:y1:qe", "the query has no infohash"),
    ] {
        assert_eq!(error(bytes), KrpcError(what));
    }
    let announce = |arguments: &str| {
        let head = "d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456";
        error(format!("{head}{arguments}e1:q13:announce_peer1:t1:t1:y1:qe").as_bytes()).0
    };
    assert_eq!(announce("4:porti1e"), "the query has no token");
    for port in ["", "4:porti0e", "4:porti65536e", "4:porti-1e", "4:port2:80"] {
        assert_eq!(announce(&format!("{port}5:token1:a")), "the query has no port", "{port}");
    }
}

#[test]
fn limits_of_depth_size_and_tokens_hold() {
    let ping =
        |more: &str| format!("d1:ad2:id20:abcdefghij01234567891:z{more}e1:q4:ping1:t1:t1:y1:qe").into_bytes();
    assert!(decode(&ping(&("l".repeat(6) + &"e".repeat(6)))).is_ok());
    assert_eq!(error(&ping(&("l".repeat(7) + &"e".repeat(7)))).0, "nested deeper than is allowed");
    assert!(decode(&ping(&format!("l{}e", "0:".repeat(240)))).is_ok());
    assert_eq!(error(&ping(&format!("l{}e", "0:".repeat(250)))).0, "more values than are allowed");
    assert!(decode(&ping(&format!("65000:{}", "x".repeat(65_000)))).is_ok());
    assert!(decode(&ping(&format!("66000:{}", "x".repeat(66_000)))).is_err());
}

#[test]
fn a_method_of_the_future_is_known_by_its_target() {
    for (key, target) in [("6:target", Some(OTHER)), ("9:info_hash", Some(OTHER)), ("4:aims", None)] {
        let bytes =
            format!("d1:ad2:id20:abcdefghij0123456789{key}20:mnopqrstuvwxyz123456e1:q4:vote1:t1:t1:y1:qe");
        assert_eq!(query(bytes.as_bytes()).method, Method::Unknown { target }, "{key}");
    }
}
