//! BEP 54: a piece that was announced is taken back, in the bytes of the BEP.

use bytes::BytesMut;
use sprat::proto::wire::decoder::{Decoder, Frame};
use sprat::proto::wire::dont_have::{BadDontHave, LT_DONTHAVE_ID, decode, encode};
use sprat::proto::wire::extension::ExtensionHandshake;
use sprat::proto::wire::message::Message;

/// `DontHave: <len=0x0006><op=20><subop=xx><index>`, with the number that the receiver chose.
const DONT_HAVE: &[u8] = &[0, 0, 0, 6, 20, LT_DONTHAVE_ID, 0, 1, 2, 3];

#[test]
fn the_message_of_the_bep() {
    let mut bytes = Vec::new();
    Message::Extended { id: LT_DONTHAVE_ID, payload: encode(0x0001_0203) }.encode(&mut bytes);
    assert_eq!(bytes, DONT_HAVE);
    let frame = Decoder::new(100_000).decode(&mut BytesMut::from(DONT_HAVE)).unwrap();
    let Some(Frame::Message(Message::Extended { id: LT_DONTHAVE_ID, payload })) = frame else {
        panic!("{frame:?}")
    };
    assert_eq!(decode(&payload), Ok(0x0001_0203));
}

#[test]
fn any_other_length_is_refused() {
    for len in (0..4).chain(5..40) {
        assert_eq!(decode(&vec![0; len]), Err(BadDontHave), "{len} bytes");
    }
    assert_eq!(decode(&[0xff; 4]), Ok(u32::MAX), "whether there is such a piece is another's to judge");
}

#[test]
fn it_is_offered_by_its_name_and_switched_off_by_zero() {
    let mut known = ExtensionHandshake::default();
    known.update(ExtensionHandshake::decode(b"d1:md11:lt_donthavei7eee").unwrap());
    assert_eq!(known.lt_donthave, Some(7));
    known.update(ExtensionHandshake::decode(b"d1:md11:lt_donthavei0eee").unwrap());
    assert_eq!(known.lt_donthave, None);
}
