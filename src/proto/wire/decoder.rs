//! From received bytes to messages: total, lengths checked on the prefix by type, steps aside for blocks.

use crate::proto::block::Block;
use crate::proto::wire::message::Message;
use bytes::BytesMut;

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
    /// Pieces of the torrent: fixes the length of a bitfield.
    pub piece_count: u32,
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
    /// No such message type in BEP 3, 6 or 10.
    #[error("unknown message type {0}")]
    UnknownType(u8),
}

impl Decoder {
    /// For a torrent with so many pieces.
    pub fn new(piece_count: u32) -> Self {
        Self { piece_count }
    }

    /// Takes one frame off the front of `buffer`; None: more bytes are needed.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        let _ = buffer;
        todo!()
    }
}
