//! A million random and mutated inputs a run for the wire codecs: no panic, no endless loop, no
//! more memory than the input warrants, and what decodes encodes to the same bytes.

use bytes::{Bytes, BytesMut};
use sprat::proto::bitfield::Bitfield;
use sprat::proto::block::Block;
use sprat::proto::piece::PIECE_COUNT_MAX;
use sprat::proto::rng::Rng;
use sprat::proto::wire::decoder::{Decoder, EXTENDED_PAYLOAD_MAX, Frame};
use sprat::proto::wire::extension::ExtensionHandshake;
use sprat::proto::wire::handshake::{HANDSHAKE_LEN, Handshake};
use sprat::proto::wire::message::{Message, block_header};
use sprat::proto::wire::metadata::{METADATA_PIECE_LEN, MetadataMessage};
use sprat::proto::wire::sp_have::{self, SpHave};

const STREAM_COUNT: usize = 600_000;
const SP_HAVE_COUNT: usize = 250_000;
const HANDSHAKE_COUNT: usize = 50_000;
const EXTENSION_COUNT: usize = 100_000;
const METADATA_COUNT: usize = 200_000;

/// Some bytes that begin like a message, or not at all.
fn stream(rng: &mut Rng, piece_count: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + rng.below(4) {
        match rng.below(4) {
            0 => {
                let mut noise = vec![0; rng.below(24)];
                rng.fill(&mut noise);
                bytes.extend_from_slice(&noise);
            }
            1 => {
                // A prefix near the truth and any type.
                bytes.extend_from_slice(&(rng.below(20) as u32).to_be_bytes());
                bytes.push(rng.below(24) as u8);
                let mut noise = vec![0; rng.below(20)];
                rng.fill(&mut noise);
                bytes.extend_from_slice(&noise);
            }
            _ => valid(rng, piece_count, &mut bytes),
        }
    }
    mutate(rng, &mut bytes);
    bytes
}

fn valid(rng: &mut Rng, piece_count: u32, out: &mut Vec<u8>) {
    let block =
        Block { piece: rng.bits() as u32, offset: rng.bits() as u32, len: 1 + rng.below(16_384) as u32 };
    let piece = rng.bits() as u32;
    let message = match rng.below(12) {
        0 => Message::KeepAlive,
        1 => Message::Unchoke,
        2 => Message::Have(piece),
        3 => Message::Bitfield(Bitfield::full(piece_count)),
        4 => Message::Request(block),
        5 => Message::Port(piece as u16),
        6 => Message::AllowedFast(piece),
        7 => Message::Reject(block),
        8 => Message::Extended { id: piece as u8 % 6, payload: vec![b'x'; rng.below(60)].into() },
        9 => Message::HaveNone,
        _ => {
            out.extend_from_slice(&block_header(Block { len: 1 + rng.below(40) as u32, ..block }));
            return;
        }
    };
    message.encode(out);
}

/// Half of the time nothing; else a bit flipped, a byte changed, dropped or put in, or the end cut
/// off.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.below(bytes.len());
    match rng.below(10) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = rng.bits() as u8,
        2 => drop(bytes.remove(at)),
        3 => bytes.insert(at, rng.bits() as u8),
        4 => bytes.truncate(at),
        _ => {}
    }
}

/// What may be waited for behind a prefix: an extended message, or the bitfield of the largest
/// torrent.
const LONGEST: usize =
    1 + if EXTENDED_PAYLOAD_MAX > FIELD_MAX { EXTENDED_PAYLOAD_MAX } else { 1 + FIELD_MAX };
const FIELD_MAX: usize = PIECE_COUNT_MAX as usize / 8;

/// Decodes all that `bytes` hold, as a connection does; the number of frames.
fn read_all(decoder: &mut Decoder, bytes: &[u8]) -> usize {
    let mut buffer = BytesMut::from(bytes);
    let (mut frames, mut is_dropping) = (0, false);
    loop {
        let (before, needed) = (buffer.clone(), decoder.needed(&buffer));
        let decoded = decoder.decode(&mut buffer);
        let taken = before.len() - buffer.len();
        match decoded {
            Ok(Some(Frame::Message(Message::Extended { id, payload }))) if payload.is_empty() => {
                let len = u32::from_be_bytes(before[..4].try_into().unwrap()) as usize;
                assert_eq!((before[4], before[5], needed), (20, id, 0));
                // A payload that nothing reads is dropped as far as it has come.
                assert_eq!(taken, before.len().min(4 + len));
                is_dropping = taken < 4 + len;
            }
            Ok(Some(Frame::Message(message))) => {
                let mut again = Vec::new();
                message.encode(&mut again);
                assert_eq!((&again[..], needed), (&before[..taken], 0), "{message:?}");
            }
            Ok(Some(Frame::Block(block))) => {
                assert_eq!((&block_header(block)[..], needed), (&before[..taken], 0));
                assert!((1..=16_384).contains(&block.len));
                let _ = buffer.split_to(buffer.len().min(block.len as usize));
            }
            Ok(None) => {
                assert_eq!((taken, buffer.len()), (0, before.len()));
                assert!(!is_dropping || buffer.is_empty());
                assert!((1..=LONGEST).contains(&needed));
                return frames;
            }
            Err(_) => {
                assert_eq!(needed, 0);
                return frames;
            }
        }
        frames += 1;
        assert!(taken >= 4, "a frame takes at least its prefix");
    }
}

#[test]
fn streams() {
    let mut rng = Rng::from_number(0x5f5f);
    let mut frames = 0;
    for round in 0..STREAM_COUNT {
        let piece_count = [1, 25, 64, 2_000][round % 4];
        let bytes = stream(&mut rng, piece_count);
        // Now and then by one who does not know how many pieces there are.
        let known = (round % 5 > 0).then_some(piece_count);
        frames += read_all(&mut Decoder::new(known), &bytes);
    }
    assert!(frames > STREAM_COUNT / 2, "the inputs reach the decoders: {frames} frames");
}

#[test]
fn sp_have_payloads() {
    let mut rng = Rng::from_number(0x5f60);
    let mut good = 0;
    for round in 0..SP_HAVE_COUNT {
        let piece_count = [0, 15, 64, 4_194_304][round % 4];
        let mut payload = vec![0; rng.below(14)];
        rng.fill(&mut payload);
        if let Some(form) = payload.first_mut() {
            *form %= 3;
        }
        if rng.below(2) == 0 {
            payload.iter_mut().for_each(|byte| *byte &= 0x83);
        }
        match sp_have::decode(&payload, piece_count) {
            Ok(SpHave::Full(have)) => assert_eq!(have.as_bytes(), &payload[1..]),
            Ok(SpHave::Delta(named) | SpHave::Lost(named)) => {
                assert!(named.is_sorted_by(|a, b| a < b) && named.iter().all(|piece| *piece < piece_count));
                assert!(named.capacity() < payload.len());
            }
            Err(_) => continue,
        }
        good += 1;
    }
    assert!(good > SP_HAVE_COUNT / 20, "{good}");
}

#[test]
fn handshakes() {
    let mut rng = Rng::from_number(0x5f61);
    let mut good = 0;
    for _ in 0..HANDSHAKE_COUNT {
        let mut bytes = [0; HANDSHAKE_LEN];
        rng.fill(&mut bytes);
        bytes[..20].copy_from_slice(b"\x13BitTorrent protocol");
        if rng.below(2) == 0 {
            bytes[rng.below(HANDSHAKE_LEN)] ^= 1 << rng.below(8);
        }
        let Ok(handshake) = Handshake::decode(&bytes) else { continue };
        assert_eq!(Handshake::decode(&handshake.encode()), Ok(handshake));
        good += 1;
    }
    assert!(good > HANDSHAKE_COUNT / 2 && good < HANDSHAKE_COUNT);
}

#[test]
fn extension_handshakes() {
    let mut rng = Rng::from_number(0x5f62);
    let whole = b"d1:md11:ut_metadatai2e6:ut_pexi1e7:sp_havei3ee13:metadata_sizei31235e1:pi6881e\
        4:reqqi512e11:upload_onlyi1e1:v5:sprat6:yourip4:\x01\x02\x03\x04e";
    let mut good = 0;
    for _ in 0..EXTENSION_COUNT {
        let mut payload = whole.to_vec();
        for _ in 0..1 + rng.below(3) {
            mutate(&mut rng, &mut payload);
        }
        if let Ok(handshake) = ExtensionHandshake::decode(&payload) {
            good += 1;
            assert_eq!(ExtensionHandshake::decode(&handshake.encode()), Ok(handshake));
        }
    }
    assert!(good > EXTENSION_COUNT / 4, "{good}");
}

#[test]
fn metadata_messages() {
    let mut rng = Rng::from_number(0x5f63);
    let mut good = 0;
    for round in 0..METADATA_COUNT {
        let piece = rng.bits() as u32 >> rng.below(32);
        let whole = match round % 4 {
            0 => MetadataMessage::Request(piece),
            1 => MetadataMessage::Reject(piece),
            2 => MetadataMessage::Unknown,
            _ => {
                let mut bytes = vec![0; rng.below(40)];
                rng.fill(&mut bytes);
                MetadataMessage::Data { piece, total_len: rng.bits() as u32, bytes: bytes.into() }
            }
        };
        let mut payload = whole.encode().to_vec();
        for _ in 0..rng.below(3) {
            mutate(&mut rng, &mut payload);
        }
        let payload = Bytes::from(payload);
        let Ok(message) = MetadataMessage::decode(&payload) else { continue };
        if let MetadataMessage::Data { bytes, .. } = &message {
            assert!(payload.ends_with(bytes) && bytes.len() <= METADATA_PIECE_LEN as usize);
        }
        assert_eq!(MetadataMessage::decode(&message.encode()), Ok(message));
        good += 1;
    }
    assert!(good > METADATA_COUNT / 2, "{good}");
}
