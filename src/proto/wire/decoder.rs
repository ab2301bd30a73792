//! Decodes received bytes into messages: total, with lengths checked by type on the prefix, and
//! without handling the bytes of blocks.
//!
//! Five bytes, the prefix and the type, decide whether a message may have its claimed length; four
//! are enough for a length that no type allows. So a peer cannot make the caller wait for, or
//! allocate, more than the longest message of that type, and [`Decoder::needed`] never asks for
//! more. For extended messages (BEP 10) six bytes decide whether the payload is read by anything;
//! if not, it is dropped on arrival and never buffered, and the message has an empty payload.
//! Decoding allocates only the bitfield of a `bitfield` message and a copy of a payload that is
//! read, so that a message keeps no other buffer alive. In the metadata stage the number of pieces
//! is unknown: then a bitfield may have any length up to that of the largest torrent, and its last
//! byte is returned unchecked.
//!
//! The torrent decides whether a piece exists, a block was requested, or a message is allowed.
//! Types 21 to 23 (BEP 52) are unknown, because only peers that offered the upgrade bit may get
//! them, and this program never offers it.

use bytes::{Buf, Bytes, BytesMut};

use crate::proto::bitfield::{Bitfield, BitfieldError};
use crate::proto::block::{BLOCK_LEN, Block};
use crate::proto::piece::PIECE_COUNT_MAX;
use crate::proto::wire::dont_have::{DONT_HAVE_LEN, LT_DONTHAVE_ID};
use crate::proto::wire::extension::{HANDSHAKE_LEN_MAX, SP_HAVE_ID};
use crate::proto::wire::message::{BLOCK_HEADER_LEN, Message, PREFIX_LEN, id};
use crate::proto::wire::metadata::{METADATA_DICT_LEN_MAX, METADATA_PIECE_LEN, UT_METADATA_ID};
use crate::proto::wire::pex::{PEX_LEN_MAX, UT_PEX_ID};

/// Longest payload of an extended message, unless the torrent's bitfield is longer: ample for every
/// extension (metadata comes in 16 KiB, PEX in 8 KiB). A longer one closes the connection.
pub const EXTENDED_PAYLOAD_MAX: usize = 128 * 1024;

/// Bytes between prefix and content of a `piece` message: type, piece, offset.
const PIECE_OVERHEAD: u32 = (BLOCK_HEADER_LEN - PREFIX_LEN) as u32;

/// The first item in the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A complete message, consumed.
    Message(Message),
    /// The header of a `piece` message, consumed; the next `block.len` bytes are the block's
    /// content, which the caller takes from buffer and socket before it decodes further.
    Block(Block),
}

/// Decodes the stream of one connection.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// Pieces of the torrent, which fix the length of a bitfield; `None` if unknown.
    piece_count: Option<u32>,
    /// Remaining bytes of a payload that is not read.
    unread_len: usize,
}

/// The peer broke the protocol: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The prefix claims a length that this type of message may not have.
    #[error("message of type {id} with length {len}")]
    Length {
        /// Message type; 255 while not yet known.
        id: u8,
        /// From the prefix.
        len: u32,
    },
    /// No such message type in BEP 3, 5, 6 or 10.
    #[error("unknown message type {0}")]
    UnknownType(u8),
    /// A bitfield claims pieces beyond the end of the torrent.
    #[error("bitfield with a spare bit set")]
    SpareBits,
}

/// The front of the buffer, as far as it was received.
enum Front {
    /// This many more bytes, at least one, are needed.
    Incomplete(usize),
    /// Length 0.
    KeepAlive,
    /// A complete message of this type; of a `piece` message, the header.
    Complete { id: u8, len: u32 },
    /// The header of an extended message whose payload is not read.
    Unread { extension: u8, payload_len: u32 },
}

impl Decoder {
    /// Creates a decoder for a torrent with `piece_count` pieces; `None` if only its infohash is
    /// known.
    pub fn new(piece_count: impl Into<Option<u32>>) -> Self {
        Self { piece_count: piece_count.into(), unread_len: 0 }
    }

    /// Sets the number of pieces.
    pub fn describe(&mut self, piece_count: u32) {
        self.piece_count = Some(piece_count);
    }

    /// Takes one frame off the front of `buffer`; `None` if more bytes are needed, and then only
    /// bytes of an unread payload were taken.
    ///
    /// # Errors
    /// The peer broke the protocol, and nothing further can be decoded.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        self.drop_unread(buffer);
        match self.front(buffer)? {
            Front::Incomplete(_) => Ok(None),
            Front::KeepAlive => {
                buffer.advance(PREFIX_LEN);
                Ok(Some(Frame::Message(Message::KeepAlive)))
            }
            Front::Complete { id: id::PIECE, len } => Ok(Some(Frame::Block(take_block_header(buffer, len)))),
            Front::Complete { id, len } => {
                let end = PREFIX_LEN + len as usize;
                let message = self.message(id, &buffer[PREFIX_LEN + 1..end]);
                buffer.advance(end);
                message.map(|message| Some(Frame::Message(message)))
            }
            Front::Unread { extension, payload_len } => {
                buffer.advance(PREFIX_LEN + 2);
                self.unread_len = payload_len as usize;
                self.drop_unread(buffer);
                let message = Message::Extended { id: extension, payload: Bytes::new() };
                Ok(Some(Frame::Message(message)))
            }
        }
    }

    fn drop_unread(&mut self, buffer: &mut BytesMut) {
        let len = self.unread_len.min(buffer.len());
        buffer.advance(len);
        self.unread_len -= len;
    }

    /// Returns how many bytes must follow those `buffered` before [`Decoder::decode`] can continue;
    /// 0 if it can now.
    ///
    /// Never more than the longest message of the type at the front.
    pub fn needed(&self, buffered: &[u8]) -> usize {
        let Some(buffered) = buffered.get(self.unread_len..) else { return 1 };
        match self.front(buffered) {
            Ok(Front::Incomplete(needed)) => needed,
            Ok(Front::KeepAlive | Front::Complete { .. } | Front::Unread { .. }) | Err(_) => 0,
        }
    }

    fn front(&self, buffered: &[u8]) -> Result<Front, WireError> {
        let Some((prefix, rest)) = buffered.split_first_chunk::<PREFIX_LEN>() else {
            return Ok(Front::Incomplete(PREFIX_LEN - buffered.len()));
        };
        let len = u32::from_be_bytes(*prefix);
        if len == 0 {
            return Ok(Front::KeepAlive);
        }
        if len > self.len_max() {
            return Err(WireError::Length { id: u8::MAX, len });
        }
        let Some(&id) = rest.first() else {
            return Ok(Front::Incomplete(1));
        };
        self.check_len(id, len)?;
        if id == id::EXTENDED {
            let Some(&extension) = rest.get(1) else { return Ok(Front::Incomplete(2 - rest.len())) };
            if len - 2 > self.read_max(extension) {
                return Ok(Front::Unread { extension, payload_len: len - 2 });
            }
        }
        // The caller reads a block's content, so only its header is awaited.
        let wanted = if id == id::PIECE { PIECE_OVERHEAD } else { len } as usize;
        match wanted.saturating_sub(rest.len()) {
            0 => Ok(Front::Complete { id, len }),
            missing => Ok(Front::Incomplete(missing)),
        }
    }

    /// Returns the length of the longest bitfield, which is the only valid length if the number of
    /// pieces is known.
    fn bitfield_len(&self) -> u32 {
        Bitfield::byte_len(self.piece_count.unwrap_or(PIECE_COUNT_MAX)) as u32
    }

    /// Returns the longest payload of an extended message: `sp_have` may carry a whole bitfield and
    /// one byte.
    fn extended_payload_max(&self) -> u32 {
        (EXTENDED_PAYLOAD_MAX as u32).max(1 + self.bitfield_len())
    }

    /// Returns the longest payload of an extended message with this number that is read.
    fn read_max(&self, extension: u8) -> u32 {
        let len_max = match (extension, self.piece_count) {
            (0, _) => HANDSHAKE_LEN_MAX,
            // Metadata is requested only in the metadata stage.
            (UT_METADATA_ID, Some(_)) => METADATA_DICT_LEN_MAX,
            (UT_METADATA_ID, None) => METADATA_DICT_LEN_MAX + METADATA_PIECE_LEN as usize,
            (UT_PEX_ID, _) => PEX_LEN_MAX,
            (LT_DONTHAVE_ID, _) => DONT_HAVE_LEN,
            (SP_HAVE_ID, Some(piece_count)) => 1 + Bitfield::byte_len(piece_count),
            // Not offered before the number of pieces is known, or never offered.
            (SP_HAVE_ID, None) | (_, _) => 0,
        };
        len_max as u32
    }

    /// Returns the longest message of any type, including the type's byte.
    fn len_max(&self) -> u32 {
        // Longer than a `piece` message and than any bitfield.
        2 + self.extended_payload_max()
    }

    fn check_len(&self, id: u8, len: u32) -> Result<(), WireError> {
        let fits = match id {
            id::CHOKE | id::UNCHOKE | id::INTERESTED | id::NOT_INTERESTED => len == 1,
            id::HAVE_ALL | id::HAVE_NONE => len == 1,
            id::PORT => len == 3,
            id::HAVE | id::SUGGEST | id::ALLOWED_FAST => len == 5,
            id::REQUEST | id::CANCEL | id::REJECT => len == 13,
            id::BITFIELD if self.piece_count.is_none() => len <= 1 + self.bitfield_len(),
            id::BITFIELD => len == 1 + self.bitfield_len(),
            // An empty block answers no request.
            id::PIECE => len > PIECE_OVERHEAD && len <= PIECE_OVERHEAD + BLOCK_LEN,
            id::EXTENDED => len >= 2 && len <= 2 + self.extended_payload_max(),
            _ => return Err(WireError::UnknownType(id)),
        };
        if fits { Ok(()) } else { Err(WireError::Length { id, len }) }
    }

    /// Returns the message of type `id` with this body, whose length fits the type.
    fn message(&self, id: u8, mut body: &[u8]) -> Result<Message, WireError> {
        Ok(match id {
            id::CHOKE => Message::Choke,
            id::UNCHOKE => Message::Unchoke,
            id::INTERESTED => Message::Interested,
            id::NOT_INTERESTED => Message::NotInterested,
            id::HAVE => Message::Have(body.get_u32()),
            id::BITFIELD => Message::Bitfield(self.bitfield(body)?),
            id::REQUEST => Message::Request(take_block(&mut body)),
            id::CANCEL => Message::Cancel(take_block(&mut body)),
            id::PORT => Message::Port(body.get_u16()),
            id::SUGGEST => Message::Suggest(body.get_u32()),
            id::HAVE_ALL => Message::HaveAll,
            id::HAVE_NONE => Message::HaveNone,
            id::REJECT => Message::Reject(take_block(&mut body)),
            id::ALLOWED_FAST => Message::AllowedFast(body.get_u32()),
            id::EXTENDED => Message::Extended { id: body.get_u8(), payload: Bytes::copy_from_slice(body) },
            _ => return Err(WireError::UnknownType(id)),
        })
    }

    fn bitfield(&self, body: &[u8]) -> Result<Bitfield, WireError> {
        let piece_count = self.piece_count.unwrap_or(8 * body.len() as u32);
        Bitfield::from_wire(body, piece_count).map_err(|error| match error {
            BitfieldError::Length { actual, .. } => {
                WireError::Length { id: id::BITFIELD, len: 1 + actual as u32 }
            }
            BitfieldError::SpareBits => WireError::SpareBits,
        })
    }
}

fn take_block_header(buffer: &mut BytesMut, len: u32) -> Block {
    buffer.advance(PREFIX_LEN + 1);
    Block { piece: buffer.get_u32(), offset: buffer.get_u32(), len: len - PIECE_OVERHEAD }
}

fn take_block(body: &mut &[u8]) -> Block {
    Block { piece: body.get_u32(), offset: body.get_u32(), len: body.get_u32() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_never_passes_the_limit_of_the_type() {
        let decoder = Decoder::new(20);
        for (bytes, needed) in [
            (&[][..], 4),
            (&[0, 0], 2),
            (&[0, 0, 0, 0], 0),
            (&[0, 0, 0, 1], 1),
            (&[0, 0, 0, 13, 6], 12),
            (&[0, 0, 0x40, 9, 7], 8),
            (&[0, 2, 0, 2, 20], 1),
            (&[0, 2, 0, 2, 20, 77], 0),
            (&[0, 0, 0x20, 2, 20, UT_PEX_ID], PEX_LEN_MAX),
            (&[0xff; 4], 0),
        ] {
            assert_eq!(decoder.needed(bytes), needed, "{bytes:?}");
        }
    }

    #[test]
    fn the_extended_limit_grows_with_a_bitfield_that_needs_it() {
        let piece_count = crate::proto::piece::PIECE_COUNT_MAX;
        let [a, b, c, d] = (2 + 1 + piece_count / 8).to_be_bytes();
        let prefix = |last| BytesMut::from(&[a, b, c, last, 20, SP_HAVE_ID][..]);
        assert_eq!(Decoder::new(piece_count).decode(&mut prefix(d)), Ok(None));
        let refused = Decoder::new(piece_count).decode(&mut prefix(d + 1));
        assert_eq!(refused, Err(WireError::Length { id: 255, len: 4 + piece_count / 8 }));
    }

    #[test]
    fn without_a_piece_count_a_bitfield_of_any_valid_length_is_read() {
        let decode = |bytes: &[u8]| Decoder::new(None).decode(&mut BytesMut::from(bytes));
        let field = Bitfield::from_wire(&[0xff, 0x01], 16).unwrap();
        assert_eq!(decode(&[0, 0, 0, 3, 5, 0xff, 0x01]), Ok(Some(Frame::Message(Message::Bitfield(field)))));
        let empty = Frame::Message(Message::Bitfield(Bitfield::new(0)));
        assert_eq!(decode(&[0, 0, 0, 1, 5]), Ok(Some(empty)));
        let [a, b, c, d] = (1 + PIECE_COUNT_MAX / 8).to_be_bytes();
        assert_eq!(decode(&[a, b, c, d, 5]), Ok(None));
        assert_eq!(Decoder::new(None).needed(&[a, b, c, d, 5]), PIECE_COUNT_MAX as usize / 8);
        let refused = Err(WireError::Length { id: 5, len: 2 + PIECE_COUNT_MAX / 8 });
        assert_eq!(decode(&[a, b, c, d + 1, 5]), refused);
    }

    /// The frames of a stream that arrives in two parts.
    fn frames(decoder: &Decoder, stream: &[u8], cut: usize) -> Vec<Frame> {
        let (mut decoder, mut buffer, mut frames) = (decoder.clone(), BytesMut::new(), Vec::new());
        for part in [&stream[..cut], &stream[cut..]] {
            buffer.extend_from_slice(part);
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                frames.push(frame);
            }
            let unread = decoder.unread_len;
            assert!(unread == 0 || buffer.is_empty(), "{} bytes of an unread payload are kept", buffer.len());
            assert!(decoder.needed(&buffer) > 0, "nothing was left to decode");
        }
        assert!(buffer.is_empty());
        frames
    }

    fn extended(extension: u8, payload_len: usize) -> Message {
        Message::Extended { id: extension, payload: vec![7; payload_len].into() }
    }

    #[test]
    fn unread_payloads_are_dropped_wherever_the_stream_is_split() {
        let magnet = Decoder::new(None);
        let known = Decoder::new(2_000);
        let piece_len = METADATA_DICT_LEN_MAX + METADATA_PIECE_LEN as usize;
        for (decoder, extension, read_max) in [
            (&magnet, 0, HANDSHAKE_LEN_MAX),
            (&magnet, SP_HAVE_ID, 0),
            (&magnet, UT_METADATA_ID, piece_len),
            (&magnet, UT_PEX_ID, PEX_LEN_MAX),
            (&magnet, LT_DONTHAVE_ID, DONT_HAVE_LEN),
            (&magnet, 77, 0),
            (&known, 0, HANDSHAKE_LEN_MAX),
            (&known, SP_HAVE_ID, 251),
            (&known, UT_METADATA_ID, METADATA_DICT_LEN_MAX),
            (&known, UT_PEX_ID, PEX_LEN_MAX),
            (&known, LT_DONTHAVE_ID, DONT_HAVE_LEN),
            (&known, 255, 0),
        ] {
            for payload_len in [0, 1, read_max, read_max + 1, EXTENDED_PAYLOAD_MAX] {
                let (mut stream, sent) = (Vec::new(), extended(extension, payload_len));
                sent.encode(&mut stream);
                Message::Have(3).encode(&mut stream);
                let read = if payload_len <= read_max { sent } else { extended(extension, 0) };
                let expected = [Frame::Message(read), Frame::Message(Message::Have(3))];
                let cuts = (0..stream.len()).filter(|cut| stream.len() < 9_000 || cut % 997 < 12);
                for cut in cuts {
                    let came = frames(decoder, &stream, cut);
                    assert_eq!(came, expected, "extension {extension}, {payload_len} bytes, cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn the_piece_count_applies_to_a_payload_in_transit() {
        let (mut decoder, mut buffer) = (Decoder::new(None), BytesMut::new());
        let mut stream = Vec::new();
        extended(UT_METADATA_ID, 16_000).encode(&mut stream);
        buffer.extend_from_slice(&stream[..9_000]);
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        decoder.describe(20);
        let dropped = Frame::Message(extended(UT_METADATA_ID, 0));
        assert_eq!((decoder.decode(&mut buffer), buffer.len()), (Ok(Some(dropped)), 0));
        buffer.extend_from_slice(&stream[9_000..]);
        assert_eq!((decoder.decode(&mut buffer), buffer.len()), (Ok(None), 0));
        // The length of a bitfield is fixed from here on.
        assert!(decoder.decode(&mut BytesMut::from(&[0, 0, 0, 3, 5][..])).is_err());
    }

    #[test]
    fn a_message_keeps_no_more_than_itself_alive() {
        let mut buffer = BytesMut::with_capacity(1 << 20);
        buffer.extend_from_slice(&[0, 0, 0, 5, 20, UT_PEX_ID, b'a', b'b', b'c']);
        let payload_at = buffer[6..].as_ptr();
        let frame = Decoder::new(1).decode(&mut buffer).unwrap();
        let Some(Frame::Message(Message::Extended { id: UT_PEX_ID, payload })) = frame else {
            panic!("{frame:?}");
        };
        assert_eq!(payload, "abc");
        assert_ne!(payload.as_ptr(), payload_at, "copied");
    }
}
