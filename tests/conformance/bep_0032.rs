//! BEP 32: the IPv6 overlay, `want` and `nodes6`.

use sprat::proto::dht::krpc::{
    Answer, Body, Method, Query, Response, Want, decode, encode_answer, encode_query,
};
use sprat::proto::dht::node_id::{Node, NodeId};

const ID: NodeId = NodeId(*b"abcdefghij0123456789");
const TARGET: NodeId = NodeId(*b"mnopqrstuvwxyz123456");

fn response(bytes: &[u8]) -> Response<'_> {
    let Body::Response(response) = decode(bytes).unwrap().body else { panic!() };
    response
}

#[test]
fn want_names_the_families() {
    for (v4, v6, list) in [(true, false, "2:n4"), (false, true, "2:n6"), (true, true, "2:n42:n6")] {
        let want = Want { v4, v6 };
        for method in [
            Method::FindNode { target: TARGET, want },
            Method::GetPeers { infohash: TARGET, want, scrape: false, no_seed: false },
            Method::Get { target: TARGET, seq: None, want },
            Method::SampleInfohashes { target: TARGET, want },
        ] {
            let query = Query { id: ID, read_only: false, method };
            let bytes = encode_query(*b"tttt", &query);
            assert!(String::from_utf8_lossy(&bytes).contains(&format!("4:wantl{list}ee1:q")));
            assert_eq!(decode(&bytes).unwrap().body, Body::Query(query));
        }
    }
}

#[test]
fn unknown_families_are_passed_over() {
    let bytes = b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz1234564:wantl2:n8i6e2:n6ee\
        1:q9:find_node1:t1:t1:y1:qe";
    let Body::Query(Query { method: Method::FindNode { want, .. }, .. }) = decode(bytes).unwrap().body else {
        panic!()
    };
    assert_eq!(want, Want { v4: false, v6: true });
}

#[test]
fn nodes6_has_38_bytes_each_and_is_there_though_empty_if_it_was_wanted() {
    let node = Node { id: TARGET, addr: "[2001:db8::1]:6881".parse().unwrap() };
    let to = "[2001:db8::2]:1".parse().unwrap();
    let answer = Answer { nodes: vec![node], ..Answer::default() };
    let bytes = encode_answer(b"t", ID, to, &answer);
    assert_eq!(response(&bytes).nodes6.len(), 38);
    assert_eq!(response(&bytes).nodes().collect::<Vec<_>>(), [node]);
    assert!(!String::from_utf8_lossy(&bytes).contains("5:nodes"));

    let answer = Answer { names_v4: true, names_v6: true, ..Answer::default() };
    let bytes = encode_answer(b"t", ID, to, &answer);
    assert!(String::from_utf8_lossy(&bytes).contains("5:nodes0:6:nodes60:"));
}

#[test]
fn an_ipv4_node_in_disguise_is_an_ipv4_node() {
    let mut bytes = b"d1:rd2:id20:abcdefghij01234567896:nodes638:mnopqrstuvwxyz123456".to_vec();
    bytes.extend([[0; 10].as_slice(), &[0xff, 0xff, 9, 8, 7, 6, 0, 5]].concat());
    bytes.extend(b"e1:t1:t1:y1:re");
    let expected = Node { id: TARGET, addr: "9.8.7.6:5".parse().unwrap() };
    assert_eq!(response(&bytes).nodes().collect::<Vec<_>>(), [expected]);
}
