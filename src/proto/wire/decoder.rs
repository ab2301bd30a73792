//! From received bytes to messages: total, lengths checked on the prefix by type, steps aside for blocks.
//!
//! Five bytes, the prefix and the type, decide whether a message may be as long as it claims; four are
//! enough for a claim that no type allows. So a peer cannot make the caller wait for, or make room for,
//! more than the longest message of that type, and [`Decoder::needed`] never asks for more. Decoding
//! allocates nothing but the bitfield of a `bitfield` message, which has the torrent's own size; the payload
//! of an extended message is split off the buffer, not copied (it keeps that buffer alive: read and drop it).
//! While the torrent's description is being fetched nobody knows its number of pieces: then a bitfield may have
//! any length up to that of the largest torrent, and comes with its last byte whole.
//!
//! Whether a piece exists, a block was asked for, or a message belongs here at all is the torrent's to judge.
//! Types 21 to 23 (BEP 52) are unknown: they are for those who offered the upgrade bit, and we never do.

use bytes::{Buf, BytesMut};

use crate::proto::bitfield::{Bitfield, BitfieldError};
use crate::proto::block::{BLOCK_LEN, Block};
use crate::proto::piece::PIECE_COUNT_MAX;
use crate::proto::wire::message::{BLOCK_HEADER_LEN, Message, PREFIX_LEN, id};

/// Most bytes of an extended message's payload, unless the torrent's bitfield is longer: ample for every
/// extension (metadata comes in 16 KiB, PEX in 8 KiB). Longer: the connection is closed.
pub const EXTENDED_PAYLOAD_MAX: usize = 128 * 1024;

/// Bytes between prefix and content of a `piece` message: type, piece, offset.
const PIECE_OVERHEAD: u32 = (BLOCK_HEADER_LEN - PREFIX_LEN) as u32;

/// What the bytes began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole message, consumed.
    Message(Message),
    /// The header of a `piece` message, consumed; the next `block.len` bytes are the block's content and the
    /// caller's: take them from the buffer and the socket before decoding on.
    Block(Block),
}

/// Decodes the stream of one connection.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// Pieces of the torrent: fixes the length of a bitfield; None: not known yet.
    piece_count: Option<u32>,
}

/// The peer broke the protocol: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The prefix claims more, or less, than this type of message may have.
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

/// What the front of the buffer is, as far as it has come.
enum Front {
    /// So many more bytes, at least one, before anything can be said.
    Incomplete(usize),
    /// Length 0.
    KeepAlive,
    /// A message of this type, there in full; of a `piece` message, the header.
    Complete { id: u8, len: u32 },
}

impl Decoder {
    /// For a torrent with so many pieces; None: only its infohash is known.
    pub fn new(piece_count: impl Into<Option<u32>>) -> Self {
        Self { piece_count: piece_count.into() }
    }

    /// Takes one frame off the front of `buffer`; None: more bytes are needed, and nothing was taken.
    ///
    /// # Errors
    /// The peer broke the protocol; nothing was taken, and nothing more can be read from it.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        match self.front(buffer)? {
            Front::Incomplete(_) => Ok(None),
            Front::KeepAlive => {
                buffer.advance(PREFIX_LEN);
                Ok(Some(Frame::Message(Message::KeepAlive)))
            }
            Front::Complete { id: id::PIECE, len } => Ok(Some(Frame::Block(take_block_header(buffer, len)))),
            Front::Complete { id, len } => {
                let mut body = buffer.split_to(PREFIX_LEN + len as usize);
                body.advance(PREFIX_LEN + 1);
                self.message(id, body).map(|message| Some(Frame::Message(message)))
            }
        }
    }

    /// How many more bytes must follow those `buffered` before [`Decoder::decode`] can go on; 0: it can now.
    ///
    /// Never more than the longest message of the type at the front takes.
    pub fn needed(&self, buffered: &[u8]) -> usize {
        match self.front(buffered) {
            Ok(Front::Incomplete(needed)) => needed,
            Ok(Front::KeepAlive | Front::Complete { .. }) | Err(_) => 0,
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
        // A block's content is the caller's, so its header is all to wait for.
        let wanted = if id == id::PIECE { PIECE_OVERHEAD } else { len } as usize;
        match wanted.saturating_sub(rest.len()) {
            0 => Ok(Front::Complete { id, len }),
            missing => Ok(Front::Incomplete(missing)),
        }
    }

    /// The longest bitfield; the only length that one may have if the number of pieces is known.
    fn bitfield_len(&self) -> u32 {
        Bitfield::byte_len(self.piece_count.unwrap_or(PIECE_COUNT_MAX)) as u32
    }

    /// The longest payload of an extended message: `sp_have` may carry a whole bitfield and one byte.
    fn extended_payload_max(&self) -> u32 {
        (EXTENDED_PAYLOAD_MAX as u32).max(1 + self.bitfield_len())
    }

    /// The longest message of any type, the type's byte included.
    fn len_max(&self) -> u32 {
        // Longer than a `piece` message and than a bitfield in any torrent.
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
            // A block of nothing is no answer to any request.
            id::PIECE => len > PIECE_OVERHEAD && len <= PIECE_OVERHEAD + BLOCK_LEN,
            id::EXTENDED => len >= 2 && len <= 2 + self.extended_payload_max(),
            _ => return Err(WireError::UnknownType(id)),
        };
        if fits { Ok(()) } else { Err(WireError::Length { id, len }) }
    }

    /// The message of type `id` with exactly this body, whose length fits the type.
    fn message(&self, id: u8, mut body: BytesMut) -> Result<Message, WireError> {
        Ok(match id {
            id::CHOKE => Message::Choke,
            id::UNCHOKE => Message::Unchoke,
            id::INTERESTED => Message::Interested,
            id::NOT_INTERESTED => Message::NotInterested,
            id::HAVE => Message::Have(body.get_u32()),
            id::BITFIELD => Message::Bitfield(self.bitfield(&body)?),
            id::REQUEST => Message::Request(take_block(&mut body)),
            id::CANCEL => Message::Cancel(take_block(&mut body)),
            id::PORT => Message::Port(body.get_u16()),
            id::SUGGEST => Message::Suggest(body.get_u32()),
            id::HAVE_ALL => Message::HaveAll,
            id::HAVE_NONE => Message::HaveNone,
            id::REJECT => Message::Reject(take_block(&mut body)),
            id::ALLOWED_FAST => Message::AllowedFast(body.get_u32()),
            id::EXTENDED => Message::Extended { id: body.get_u8(), payload: body.freeze() },
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

fn take_block(body: &mut BytesMut) -> Block {
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
            (&[0, 2, 0, 2, 20], EXTENDED_PAYLOAD_MAX + 1),
            (&[0xff; 4], 0),
        ] {
            assert_eq!(decoder.needed(bytes), needed, "{bytes:?}");
        }
    }

    #[test]
    fn the_extended_limit_grows_with_a_bitfield_that_needs_it() {
        let piece_count = crate::proto::piece::PIECE_COUNT_MAX;
        let [a, b, c, d] = (2 + 1 + piece_count / 8).to_be_bytes();
        let prefix = |last| BytesMut::from(&[a, b, c, last, 20][..]);
        assert_eq!(Decoder::new(piece_count).decode(&mut prefix(d)), Ok(None));
        let refused = Decoder::new(piece_count).decode(&mut prefix(d + 1));
        assert_eq!(refused, Err(WireError::Length { id: 255, len: 4 + piece_count / 8 }));
    }

    #[test]
    fn without_a_piece_count_any_bitfield_of_a_torrent_is_read_whole() {
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

    #[test]
    fn an_extended_payload_is_not_copied() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 5, 20, 1, b'a', b'b', b'c'][..]);
        let payload_at = buffer[6..].as_ptr();
        let frame = Decoder::new(1).decode(&mut buffer).unwrap();
        let Some(Frame::Message(Message::Extended { id: 1, payload })) = frame else {
            panic!("{frame:?}");
        };
        assert_eq!((payload.as_ptr(), &payload[..]), (payload_at, &b"abc"[..]));
    }
}
