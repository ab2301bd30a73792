//! BEP 3: the handshake and the messages of the peer protocol, byte for byte, cut short and too
//! long.

use bytes::{Bytes, BytesMut};
use sprat::proto::bitfield::Bitfield;
use sprat::proto::block::Block;
use sprat::proto::infohash::InfoHash;
use sprat::proto::peer_id::PeerId;
use sprat::proto::wire::decoder::{Decoder, EXTENDED_PAYLOAD_MAX, Frame, WireError};
use sprat::proto::wire::handshake::{Capabilities, Handshake, NotBitTorrent};
use sprat::proto::wire::message::{BLOCK_HEADER_LEN, Message, block_header};

/// Pieces of the torrent that all these messages belong to: the bitfield has 4 bytes and 7 spare
/// bits.
const PIECE_COUNT: u32 = 25;

/// One message of every type, with its bytes.
fn examples() -> Vec<(Message, Vec<u8>)> {
    let mut some = Bitfield::new(PIECE_COUNT);
    assert!(some.set(0) && some.set(9) && some.set(24));
    let block = Block { piece: 0x0102_0304, offset: 0x8000, len: 0x4000 };
    let block_bytes = b"\x01\x02\x03\x04\x00\x00\x80\x00\x00\x00\x40\x00";
    let with = |head: &[u8], tail: &[u8]| [head, tail].concat();
    vec![
        (Message::KeepAlive, with(b"\0\0\0\0", b"")),
        (Message::Choke, with(b"\0\0\0\x01\x00", b"")),
        (Message::Unchoke, with(b"\0\0\0\x01\x01", b"")),
        (Message::Interested, with(b"\0\0\0\x01\x02", b"")),
        (Message::NotInterested, with(b"\0\0\0\x01\x03", b"")),
        (Message::Have(0xdead_beef), with(b"\0\0\0\x05\x04", b"\xde\xad\xbe\xef")),
        (Message::Bitfield(some), with(b"\0\0\0\x05\x05", b"\x80\x40\x00\x80")),
        (Message::Request(block), with(b"\0\0\0\x0d\x06", block_bytes)),
        (Message::Cancel(block), with(b"\0\0\0\x0d\x08", block_bytes)),
        (Message::Port(6881), with(b"\0\0\0\x03\x09", b"\x1a\xe1")),
        (Message::Suggest(7), with(b"\0\0\0\x05\x0d", b"\0\0\0\x07")),
        (Message::HaveAll, with(b"\0\0\0\x01\x0e", b"")),
        (Message::HaveNone, with(b"\0\0\0\x01\x0f", b"")),
        (Message::Reject(block), with(b"\0\0\0\x0d\x10", block_bytes)),
        (Message::AllowedFast(7), with(b"\0\0\0\x05\x11", b"\0\0\0\x07")),
        (extended(0, b"de"), with(b"\0\0\0\x04\x14\x00", b"de")),
        (extended(3, b""), with(b"\0\0\0\x02\x14\x03", b"")),
    ]
}

fn extended(id: u8, payload: &'static [u8]) -> Message {
    Message::Extended { id, payload: Bytes::from_static(payload) }
}

fn decode(bytes: &[u8]) -> Result<Option<Frame>, WireError> {
    Decoder::new(PIECE_COUNT).decode(&mut BytesMut::from(bytes))
}

#[test]
fn every_message_has_its_bytes_and_comes_back() {
    for (message, bytes) in examples() {
        let mut encoded = vec![0xaa];
        message.encode(&mut encoded);
        assert_eq!((&encoded[1..], encoded.len() - 1), (&bytes[..], message.encoded_len()), "{message:?}");
        assert_eq!(decode(&bytes), Ok(Some(Frame::Message(message))));
    }
}

#[test]
fn every_message_cut_short_waits_for_the_rest_and_keeps_what_came() {
    let mut decoder = Decoder::new(PIECE_COUNT);
    for (message, bytes) in examples() {
        for cut in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            assert_eq!(decoder.decode(&mut buffer), Ok(None), "{message:?} at {cut}");
            assert_eq!(buffer, &bytes[..cut]);
            assert!((1..=bytes.len() - cut).contains(&decoder.needed(&buffer)), "{message:?} at {cut}");
        }
        assert_eq!(decoder.needed(&bytes), 0);
    }
}

#[test]
fn reading_just_what_is_needed_takes_few_reads() {
    let decoder = Decoder::new(PIECE_COUNT);
    for (message, bytes) in examples() {
        let (mut end, mut reads) = (0, 0);
        while decoder.needed(&bytes[..end]) > 0 {
            end += decoder.needed(&bytes[..end]);
            reads += 1;
        }
        assert_eq!(end, bytes.len(), "{message:?}");
        // The prefix, the type, of an extended message its number, and the rest.
        assert!(reads <= 4);
    }
}

#[test]
fn messages_that_come_together_are_taken_one_at_a_time() {
    let stream: Vec<u8> = examples().into_iter().flat_map(|(_, bytes)| bytes).collect();
    let mut buffer = BytesMut::from(&stream[..]);
    let mut decoder = Decoder::new(PIECE_COUNT);
    for (message, bytes) in examples() {
        let before = buffer.len();
        assert_eq!(decoder.decode(&mut buffer), Ok(Some(Frame::Message(message))));
        assert_eq!(before - buffer.len(), bytes.len());
    }
    assert!(buffer.is_empty());
}

#[test]
fn a_block_is_announced_by_its_header_and_left_to_the_caller() {
    let block = Block { piece: 3, offset: 0x4000, len: 5 };
    let header = block_header(block);
    assert_eq!(header, *b"\0\0\0\x0e\x07\0\0\0\x03\0\0\x40\0");
    for cut in 0..BLOCK_HEADER_LEN {
        assert_eq!(decode(&header[..cut]), Ok(None));
    }
    let mut buffer = BytesMut::from(&[&header[..], b"hello\0\0\0\x01\x01"].concat()[..]);
    let mut decoder = Decoder::new(PIECE_COUNT);
    assert_eq!(decoder.decode(&mut buffer), Ok(Some(Frame::Block(block))));
    assert_eq!(buffer.split_to(5), "hello");
    assert_eq!(decoder.decode(&mut buffer), Ok(Some(Frame::Message(Message::Unchoke))));
}

#[test]
fn a_length_that_its_type_never_has_is_refused_on_five_bytes() {
    let extended_max = 2 + EXTENDED_PAYLOAD_MAX as u32;
    let wrong: [(u8, &[u32]); 16] = [
        (0, &[2]),
        (1, &[2]),
        (2, &[2, 100_000]),
        (3, &[2]),
        (4, &[1, 4, 6]),
        (5, &[1, 4, 6]),
        (6, &[1, 12, 14]),
        (7, &[1, 8, 9, 9 + 16_384 + 1]),
        (8, &[12, 14]),
        (9, &[1, 2, 4]),
        (13, &[4, 6]),
        (14, &[2]),
        (15, &[2]),
        (16, &[12, 14]),
        (17, &[4, 6]),
        (20, &[1]),
    ];
    for (id, lens) in wrong {
        for &len in lens {
            let mut bytes = len.to_be_bytes().to_vec();
            bytes.push(id);
            assert_eq!(decode(&bytes), Err(WireError::Length { id, len }));
        }
        for len in [extended_max + 1, u32::MAX] {
            // Four bytes are enough for what no type allows.
            assert_eq!(decode(&len.to_be_bytes()), Err(WireError::Length { id: 255, len }));
        }
    }
}

#[test]
fn the_longest_of_each_type_is_waited_for() {
    for (id, len) in [(5, 5), (7, 9 + 16_384), (20, 2 + EXTENDED_PAYLOAD_MAX as u32)] {
        let mut bytes = len.to_be_bytes().to_vec();
        bytes.push(id);
        assert_eq!(decode(&bytes), Ok(None), "type {id}");
    }
}

#[test]
fn types_of_no_bep_that_we_speak_are_refused() {
    for id in (0..=255_u8).filter(|id| !matches!(id, 0..=9 | 13..=17 | 20)) {
        assert_eq!(decode(&[0, 0, 0, 1, id]), Err(WireError::UnknownType(id)));
    }
}

#[test]
fn a_bitfield_with_a_spare_bit_set_is_refused() {
    assert_eq!(decode(b"\0\0\0\x05\x05\xff\xff\xff\xc0"), Err(WireError::SpareBits));
    let full = Frame::Message(Message::Bitfield(Bitfield::full(PIECE_COUNT)));
    assert_eq!(decode(b"\0\0\0\x05\x05\xff\xff\xff\x80"), Ok(Some(full)));
}

#[test]
fn the_handshake_has_its_bytes_and_comes_back() {
    let sent = Handshake {
        capabilities: Capabilities { dht: true, fast: true, extensions: true, v2: false },
        infohash: InfoHash(*b"aaaaaaaaaabbbbbbbbbb"),
        peer_id: PeerId(*b"-SP0100-ABCDEFGHIJKL"),
    };
    let bytes = sent.encode();
    let expected = b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05aaaaaaaaaabbbbbbbbbb-SP0100-ABCDEFGHIJKL";
    assert_eq!(&bytes, expected);
    assert_eq!(Handshake::decode(&bytes), Ok(sent));
}

#[test]
fn unknown_reserved_bits_are_ignored_and_other_protocols_refused() {
    let mut bytes = [0xff; 68];
    assert_eq!(Handshake::decode(&bytes), Err(NotBitTorrent));
    bytes[..20].copy_from_slice(b"\x13BitTorrent protocol");
    let all = Capabilities { dht: true, fast: true, extensions: true, v2: true };
    assert_eq!(Handshake::decode(&bytes).map(|handshake| handshake.capabilities), Ok(all));
    for at in 0..20 {
        let mut other = bytes;
        other[at] ^= 0x20;
        assert_eq!(Handshake::decode(&other), Err(NotBitTorrent), "byte {at}");
        assert!(!Handshake::may_begin_with(&other[..=at]) && Handshake::may_begin_with(&other[..at]));
    }
}
