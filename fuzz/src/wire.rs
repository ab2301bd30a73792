//! The peer protocol: handshakes, the stream of messages, and the payloads of extended messages.

use bytes::{Bytes, BytesMut};
use sprat::proto::wire::decoder::{Decoder, Frame};
use sprat::proto::wire::dont_have;
use sprat::proto::wire::extension::ExtensionHandshake;
use sprat::proto::wire::handshake::{HANDSHAKE_LEN, Handshake};
use sprat::proto::wire::message::{Message, block_header};
use sprat::proto::wire::metadata::{METADATA_PIECE_LEN, MetadataMessage};
use sprat::proto::wire::pex::{PEX_COUNT_MAX, PexMessage};
use sprat::proto::wire::sp_have::{self, SpHave};

use super::input::Input;

/// Numbers of pieces of torrents; None: a magnet link.
const PIECE_COUNTS: [Option<u32>; 5] = [Some(1), Some(25), Some(64), Some(2_000), None];

/// A stream that comes in parts. What is decoded does not depend on where it is parted, and is
/// written as the bytes that came.
pub fn wire(bytes: &[u8]) {
    if let Some(head) = bytes.first_chunk::<HANDSHAKE_LEN>()
        && let Ok(handshake) = Handshake::decode(head)
    {
        assert!(Handshake::may_begin_with(head));
        assert_eq!(Handshake::decode(&handshake.encode()), Ok(handshake));
    }
    let mut input = Input::new(bytes);
    let (choice, part_len) = (input.below(PIECE_COUNTS.len()), 1 + usize::from(input.byte()));
    let stream = input.rest();
    let decoder = Decoder::new(PIECE_COUNTS[choice]);
    let whole = frames(decoder.clone(), [stream].into_iter());
    assert_eq!(whole, frames(decoder, stream.chunks(part_len)));
}

/// What a connection reads: frames, until the peer breaks the protocol.
fn frames<'a>(mut decoder: Decoder, parts: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, bool) {
    let (mut buffer, mut frames, mut content_len) = (BytesMut::new(), Vec::new(), 0);
    for part in parts {
        buffer.extend_from_slice(part);
        loop {
            let taken = buffer.len().min(content_len);
            let _ = buffer.split_to(taken);
            content_len -= taken;
            if content_len > 0 {
                break;
            }
            let (before, needed) = (buffer.clone(), decoder.needed(&buffer));
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    assert_eq!(needed, 0, "{frame:?}");
                    check_written(&frame, &before[..before.len() - buffer.len()]);
                    if let Frame::Block(block) = &frame {
                        assert!((1..=16_384).contains(&block.len));
                        content_len = block.len as usize;
                    }
                    frames.push(frame);
                }
                Ok(None) => {
                    assert!(needed > 0);
                    break;
                }
                Err(_) => return (frames, false),
            }
        }
    }
    (frames, true)
}

fn check_written(frame: &Frame, taken: &[u8]) {
    let mut written = Vec::new();
    match frame {
        // A payload that nothing reads is dropped as far as it has come.
        Frame::Message(Message::Extended { payload, .. }) if payload.is_empty() => return,
        Frame::Message(message) => {
            message.encode(&mut written);
            assert_eq!(written.len(), message.encoded_len());
        }
        Frame::Block(block) => written.extend(block_header(*block)),
    }
    // What is left of such a payload may come first.
    assert!(taken.ends_with(&written), "{frame:?}");
}

/// Payloads of extended messages: what is accepted is within its limits, and written again it is
/// read as the same.
pub fn extension(bytes: &[u8]) {
    let Some((kind, payload)) = bytes.split_first() else { return };
    match kind % 5 {
        0 => {
            let Ok(handshake) = ExtensionHandshake::decode(payload) else { return };
            assert_eq!(ExtensionHandshake::decode(&handshake.encode()), Ok(handshake.clone()));
            let mut updated = ExtensionHandshake::default();
            updated.update(handshake);
        }
        1 => {
            let Ok(message) = PexMessage::decode(payload) else { return };
            assert!(message.added.len() <= PEX_COUNT_MAX && message.dropped.len() <= PEX_COUNT_MAX);
            let again = PexMessage::decode(&message.encode()).expect("what is written is read");
            assert_eq!(again.added.len(), message.added.len());
            assert_eq!(again.dropped.len(), message.dropped.len());
        }
        2 => {
            let Ok(message) = MetadataMessage::decode(&Bytes::copy_from_slice(payload)) else { return };
            if let MetadataMessage::Data { bytes, .. } = &message {
                assert!(payload.ends_with(bytes) && bytes.len() <= METADATA_PIECE_LEN as usize);
            }
            assert_eq!(MetadataMessage::decode(&message.encode()), Ok(message));
        }
        3 => sp_have(payload),
        _ => {
            let Ok(piece) = dont_have::decode(payload) else { return };
            assert_eq!(dont_have::encode(piece), payload);
        }
    }
}

fn sp_have(payload: &[u8]) {
    for piece_count in [0, 15, 64, 4_194_304] {
        match sp_have::decode(payload, piece_count) {
            Ok(SpHave::Full(have)) => assert_eq!(have.as_bytes(), &payload[1..]),
            Ok(SpHave::Delta(named) | SpHave::Lost(named)) => {
                assert!(named.is_sorted_by(|a, b| a < b) && named.iter().all(|piece| *piece < piece_count));
                assert!(named.capacity() < payload.len(), "more memory than the input warrants");
            }
            Err(_) => {}
        }
    }
}
