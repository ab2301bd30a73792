//! BEP 5 on a peer connection: the PORT message and the reserved bit.

use bytes::BytesMut;
use sprat::proto::infohash::InfoHash;
use sprat::proto::peer_id::PeerId;
use sprat::proto::wire::decoder::{Decoder, Frame};
use sprat::proto::wire::handshake::{Capabilities, Handshake};
use sprat::proto::wire::message::Message;

fn decode(bytes: &[u8]) -> Option<Message> {
    match Decoder::new(1).decode(&mut BytesMut::from(bytes)) {
        Ok(Some(Frame::Message(message))) => Some(message),
        Ok(Some(Frame::Block(_)) | None) | Err(_) => None,
    }
}

#[test]
fn a_port_message_is_type_9_and_two_bytes() {
    let mut bytes = Vec::new();
    Message::Port(6881).encode(&mut bytes);
    assert_eq!(bytes, b"\0\0\0\x03\x09\x1a\xe1");
    assert_eq!(decode(&bytes), Some(Message::Port(6881)));
    for bad in [b"\0\0\0\x02\x09\x1a".as_slice(), b"\0\0\0\x04\x09\x1a\xe1\0", b"\0\0\0\x01\x09"] {
        assert_eq!(decode(bad), None, "{bad:?}");
    }
}

#[test]
fn the_last_bit_of_the_reserved_bytes_says_that_a_peer_has_a_node() {
    let capabilities = Capabilities { dht: true, ..Capabilities::default() };
    let handshake =
        Handshake { capabilities, infohash: InfoHash([1; 20]), peer_id: PeerId(*b"-SP0100-abcdefghijkl") };
    let bytes = handshake.encode();
    assert_eq!(bytes[20..28], [0, 0, 0, 0, 0, 0, 0, 0x01]);
    assert_eq!(Handshake::decode(&bytes), Ok(handshake));
}
