//! BEP 9: the messages of `ut_metadata`, by the BEP's own examples, and what is refused.

use bytes::Bytes;
use sprat::proto::wire::metadata::{METADATA_PIECE_LEN, MetadataMessage};

fn decode(payload: &[u8]) -> Option<MetadataMessage> {
    MetadataMessage::decode(&Bytes::copy_from_slice(payload)).ok()
}

#[test]
fn the_examples_of_the_bep() {
    for (payload, message) in [
        (&b"d8:msg_typei0e5:piecei0ee"[..], MetadataMessage::Request(0)),
        (
            b"d8:msg_typei1e5:piecei0e10:total_sizei34256eexxxxxxxx",
            MetadataMessage::Data { piece: 0, total_len: 34_256, bytes: Bytes::from_static(b"xxxxxxxx") },
        ),
        (b"d8:msg_typei2e5:piecei0ee", MetadataMessage::Reject(0)),
    ] {
        assert_eq!(decode(payload), Some(message.clone()));
        assert_eq!(message.encode(), payload);
    }
}

#[test]
fn unknown_types_and_keys_are_borne() {
    assert_eq!(decode(b"d8:msg_typei7e1:x1:ye"), Some(MetadataMessage::Unknown));
    assert_eq!(decode(&MetadataMessage::Unknown.encode()), Some(MetadataMessage::Unknown));
    assert_eq!(decode(b"d1:ai1e8:msg_typei0e5:piecei7e5:usersleexx"), Some(MetadataMessage::Request(7)));
    assert_eq!(decode(b"d5:piecei9e8:msg_typei2ee"), Some(MetadataMessage::Reject(9)));
}

#[test]
fn a_piece_ends_where_the_message_does_even_if_it_looks_like_bencode() {
    let Some(MetadataMessage::Data { bytes, .. }) =
        decode(b"d8:msg_typei1e5:piecei0e10:total_sizei9eed3:abci1ee")
    else {
        panic!("a piece");
    };
    assert_eq!(&bytes[..], b"d3:abci1ee");
}

#[test]
fn what_lacks_what_its_type_needs_is_refused() {
    for payload in [
        &b""[..],
        b"d",
        b"de",
        b"i0e",
        b"d5:piecei0ee",
        b"d8:msg_typei0ee",
        b"d8:msg_type1:05:piecei0ee",
        b"d8:msg_typei0e5:piecei-1ee",
        b"d8:msg_typei0e5:piecei4294967296ee",
        b"d8:msg_typei1e5:piecei0eexxx",
        b"d8:msg_typei1e5:piecei0e10:total_sizei-5eexxx",
        b"d8:msg_typei1e10:total_sizei5eexxx",
    ] {
        assert_eq!(decode(payload), None, "{:?}", String::from_utf8_lossy(payload));
    }
}

#[test]
fn a_piece_is_at_most_16_kib_and_its_dictionary_short() {
    let data =
        |len: u32| MetadataMessage::Data { piece: 0, total_len: len, bytes: vec![0; len as usize].into() };
    let longest = data(METADATA_PIECE_LEN);
    assert_eq!(decode(&longest.encode()), Some(longest));
    assert_eq!(decode(&data(METADATA_PIECE_LEN + 1).encode()), None);
    let bloated = format!("d8:msg_typei0e5:piecei0e1:x2000:{}e", "x".repeat(2_000));
    assert_eq!(decode(bloated.as_bytes()), None);
}
