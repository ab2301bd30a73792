//! BEP 43: nodes that only ask say so in each query.

use sprat::proto::dht::krpc::{Body, Method, Query, decode, encode_query};
use sprat::proto::dht::node_id::NodeId;

#[test]
fn ro_stands_at_the_top_of_a_query() {
    for read_only in [true, false] {
        let query = Query { id: NodeId([b'i'; 20]), read_only, method: Method::Ping };
        let bytes = encode_query(*b"tttt", &query);
        assert_eq!(bytes.windows(14).any(|window| window == b"1:q4:ping2:roi"), read_only);
        assert_eq!(decode(&bytes).unwrap().body, Body::Query(query));
    }
}

#[test]
fn only_a_number_other_than_0_says_so() {
    for (ro, read_only) in [("i1e", true), ("i0e", false), ("1:1", false), ("le", false)] {
        let bytes = format!("d1:ad2:id20:abcdefghij0123456789e1:q4:ping2:ro{ro}1:t1:t1:y1:qe");
        let Body::Query(query) = decode(bytes.as_bytes()).unwrap().body else { panic!() };
        assert_eq!(query.read_only, read_only, "{ro}");
    }
}
