//! BEP 44: items in the DHT, with the BEP's test vectors.

use bytes::Bytes;
use sprat::proto::dht::item::{Item, ItemError, ItemKey, ItemRef, SecretKey, VALUE_LEN_MAX};
use sprat::proto::dht::krpc::{
    Answer, Body, DATAGRAM_LEN_MAX, Method, Query, Response, Want, decode, encode_answer, encode_query,
};
use sprat::proto::dht::node_id::{Node, NodeId};

const VECTORS: &str = include_str!("../../fixtures/vectors/bep_vectors.json");
const ID: NodeId = NodeId(*b"abcdefghij0123456789");

fn vector(path: &str) -> String {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    vectors["bep44"].pointer(path).unwrap().as_str().unwrap().to_owned()
}

fn hex<const LEN: usize>(path: &str) -> [u8; LEN] {
    data_encoding::HEXLOWER.decode(vector(path).as_bytes()).unwrap().try_into().unwrap()
}

fn query(bytes: &[u8]) -> Method<'_> {
    let Body::Query(query) = decode(bytes).unwrap().body else { panic!() };
    query.method
}

fn response(bytes: &[u8]) -> Response<'_> {
    let Body::Response(response) = decode(bytes).unwrap().body else { panic!() };
    response
}

#[test]
fn the_signed_items_of_the_bep_verify_at_their_targets() {
    let (public_key, value) = (hex("/pk"), vector("/v"));
    for (test, salt) in [("t1", ""), ("t2_salt_foobar", "foobar")] {
        let signature = hex(&format!("/{test}/sig"));
        let sent = ItemRef {
            value: value.as_bytes(),
            public_key: Some(&public_key),
            salt: salt.as_bytes(),
            seq: 1,
            signature: Some(&signature),
        };
        let target = NodeId(hex(&format!("/{test}/target")));
        let item = sent.verify().unwrap();
        assert_eq!((sent.target(), item.target(), item.key().target()), (target, target, target));
        assert_eq!(
            item.key(),
            ItemKey::Mutable { public_key, salt: Bytes::copy_from_slice(salt.as_bytes()) }
        );
        assert_eq!(ItemRef { seq: 2, ..sent }.verify(), Err(ItemError::Signature));
        assert_eq!(ItemRef { salt: b"foobaz", ..sent }.verify(), Err(ItemError::Signature));
    }
}

#[test]
fn an_immutable_item_is_named_by_its_hash() {
    let item = Item::immutable(vector("/v").into()).unwrap();
    let target = NodeId(hex("/t3_immutable_target"));
    assert_eq!((item.target(), item.key()), (target, ItemKey::Immutable(target)));
}

/// RFC 8032, section 7.1, test 1: the key pair.
#[test]
fn a_seed_gives_the_key_of_the_rfc() {
    let decode = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap();
    let secret =
        SecretKey::from_bytes(decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"));
    let public: [u8; 32] = decode("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    assert_eq!(secret.public_key(), public);
}

fn mutable(seq: i64, value_len: usize) -> Item {
    let text_len = value_len - 4;
    let value = format!("{text_len}:{}", "x".repeat(text_len));
    assert_eq!(value.len(), value_len);
    SecretKey::from_bytes([3; 32]).sign("salt".into(), seq, value.into()).unwrap()
}

#[test]
fn puts_and_gets_are_as_the_bep_has_them() {
    let immutable = Item::immutable("5:hello".into()).unwrap();
    let method = Method::Put { token: b"12345678", cas: None, item: immutable.as_item_ref() };
    let bytes = encode_query(*b"tttt", &Query { id: ID, read_only: false, method });
    let expected =
        b"d1:ad2:id20:abcdefghij01234567895:token8:123456781:v5:helloe1:q3:put1:t4:tttt1:v4:SP\0\x011:y1:qe";
    assert_eq!(bytes, expected);
    assert_eq!(query(&bytes), method);

    let item = mutable(4, 200);
    let method = Method::Put { token: b"12345678", cas: Some(3), item: item.as_item_ref() };
    let bytes = encode_query(*b"tttt", &Query { id: ID, read_only: false, method });
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let places: Vec<_> =
        ["3:casi3e", "2:id20:", "1:k32:", "4:salt4:salt", "3:seqi4e", "3:sig64:", "5:token8:", "1:v196:x"]
            .map(|key| text.find(key).unwrap())
            .into();
    assert!(places.is_sorted(), "{text}");
    let Method::Put { item: sent, .. } = query(&bytes) else { panic!() };
    assert_eq!(sent.verify(), Ok(item));

    let method =
        Method::Get { target: NodeId(*b"mnopqrstuvwxyz123456"), seq: Some(-7), want: Want::default() };
    let bytes = encode_query(*b"tttt", &Query { id: ID, read_only: false, method });
    let expected =
        b"d1:ad2:id20:abcdefghij01234567893:seqi-7e6:target20:mnopqrstuvwxyz123456e1:q3:get1:t4:tttt1:v4:SP\0\x011:y1:qe";
    assert_eq!(bytes, expected);
    assert_eq!(query(&bytes), method);
}

#[test]
fn an_answer_has_the_item_or_says_that_there_is_no_newer_one() {
    let to = "1.2.3.4:5".parse().unwrap();
    let item = mutable(4, 200);
    let answer = Answer { item: Some(item.clone()), token: Some([1; 8]), ..Answer::default() };
    let bytes = encode_answer(b"t", ID, to, &answer);
    let sent = response(&bytes).item.unwrap();
    assert!(sent.salt.is_empty() && response(&bytes).seq.is_none());
    assert_eq!(sent.verify_as(&item.key()), Ok(item));

    let bytes = encode_answer(b"t", ID, to, &Answer { seq: Some(4), ..Answer::default() });
    assert_eq!((response(&bytes).item, response(&bytes).seq), (None, Some(4)));
}

#[test]
fn the_longest_item_fits_into_an_answer() {
    let node = |last: u8| Node { id: NodeId([last; 20]), addr: "[2001:db8::1]:5".parse().unwrap() };
    for seq in [0, 1_999_999_999, i64::MIN] {
        let item = mutable(seq, VALUE_LEN_MAX);
        let answer = Answer {
            item: Some(item.clone()),
            token: Some([1; 8]),
            nodes: (0..8).map(node).collect(),
            names_v4: true,
            names_v6: true,
            ..Answer::default()
        };
        let bytes = encode_answer(b"tttt", ID, "[2001:db8::2]:5".parse().unwrap(), &answer);
        assert!(bytes.len() <= DATAGRAM_LEN_MAX, "{}", bytes.len());
        assert_eq!(response(&bytes).item.unwrap().verify_as(&item.key()), Ok(item));
        assert_eq!(response(&bytes).token.is_some(), seq >= 0);
    }
    let answer = Answer { item: Some(mutable(i64::MIN, VALUE_LEN_MAX)), ..Answer::default() };
    let bytes = encode_answer(&[b't'; 32], ID, "1.2.3.4:5".parse().unwrap(), &answer);
    assert!(bytes.len() <= DATAGRAM_LEN_MAX && response(&bytes).item.is_none());
}

#[test]
fn a_mutable_item_is_whole_or_none() {
    let key = "k".repeat(32);
    let put = |item: &str| {
        let bytes = format!("d1:ad2:id20:abcdefghij0123456789{item}5:token1:ae1:q3:put1:t1:t1:y1:qe");
        decode(bytes.as_bytes()).map(drop).map_err(|error| error.0)
    };
    let signature = format!("3:sig64:{}", "s".repeat(64));
    assert_eq!(put(&format!("1:k32:{key}3:seqi1e{signature}1:v1:x")), Ok(()));
    let broken = "the query has no whole item";
    assert_eq!(put(&format!("1:k32:{key}3:seqi1e1:v1:x")), Err(broken));
    assert_eq!(put(&format!("1:k32:{key}{signature}1:v1:x")), Err(broken));
    assert_eq!(put(&format!("1:k32:{key}3:seqi1e{signature}")), Err(broken));
    assert_eq!(put(""), Err(broken));
}

#[test]
fn the_value_is_taken_as_it_came() {
    // Keys out of order: the hash and the signature are over these bytes and no others.
    let bytes = b"d1:ad2:id20:abcdefghij01234567895:token1:a1:vd1:bi1e1:ai2eee1:q3:put1:t1:t1:y1:qe";
    let Method::Put { item, .. } = query(bytes) else { panic!() };
    assert_eq!(item.value, b"d1:bi1e1:ai2ee");
    assert_eq!(&item.verify().unwrap().value()[..], item.value);
}
