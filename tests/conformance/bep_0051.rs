//! BEP 51: samples of the infohashes that a node keeps peers for.

use sprat::proto::dht::krpc::{
    Answer, Body, DATAGRAM_LEN_MAX, Method, Query, Response, Want, decode, encode_answer, encode_query,
};
use sprat::proto::dht::node_id::NodeId;

const ID: NodeId = NodeId(*b"abcdefghij0123456789");

fn response(bytes: &[u8]) -> Response<'_> {
    let Body::Response(response) = decode(bytes).unwrap().body else { panic!() };
    response
}

fn flat(ids: &[NodeId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0).collect()
}

#[test]
fn the_query_has_a_target() {
    let method = Method::SampleInfohashes { target: NodeId(*b"mnopqrstuvwxyz123456"), want: Want::default() };
    let query = Query { id: ID, read_only: false, method };
    let bytes = encode_query(*b"tttt", &query);
    let expected = b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q17:sample_infohashes\
        1:t4:tttt1:v4:SP\0\x011:y1:qe";
    assert_eq!(bytes, expected);
    assert_eq!(decode(&bytes).unwrap().body, Body::Query(query));
}

#[test]
fn the_answer_has_samples_their_number_and_an_interval() {
    let to = "1.2.3.4:5".parse().unwrap();
    let ids = |count: usize| (0..count).map(|number| NodeId([number as u8; 20])).collect::<Vec<_>>();
    let answer = Answer { samples: Some((ids(2), 4_096, 3_600)), ..Answer::default() };
    let bytes = encode_answer(b"t", ID, to, &answer);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("8:intervali3600e3:numi4096e7:samples40:"), "{text}");
    assert_eq!(response(&bytes).samples, Some((&flat(&ids(2))[..], 4_096)));

    let answer = Answer { samples: Some((ids(200), 200, 3_600)), ..Answer::default() };
    let bytes = encode_answer(b"t", ID, to, &answer);
    let (samples, num) = response(&bytes).samples.unwrap();
    assert!(bytes.len() <= DATAGRAM_LEN_MAX && samples.len() >= 50 * 20 && num == 200);
    assert_eq!(samples, &flat(&ids(200))[..samples.len()]);

    let none = Answer { samples: Some((vec![], 0, 60)), ..Answer::default() };
    assert_eq!(response(&encode_answer(b"t", ID, to, &none)).samples, Some((&[][..], 0)));
}
