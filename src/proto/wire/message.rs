//! Messages after the handshake (BEP 3, 5, 6, 10), without the bulk bytes of blocks.
//!
//! On the wire: four bytes of length, big-endian, one byte of type, the rest; the length counts the
//! type. A block's content never enters here, so that it can go from the disk to the socket without
//! a copy.

use bytes::Bytes;

use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::piece::PieceIndex;

/// One message. The content of blocks never enters here: see [`super::decoder::Frame::Block`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Length 0.
    KeepAlive,
    /// 0
    Choke,
    /// 1
    Unchoke,
    /// 2
    Interested,
    /// 3
    NotInterested,
    /// 4
    Have(PieceIndex),
    /// 5; checked against the torrent's piece count by the decoder.
    Bitfield(Bitfield),
    /// 6
    Request(Block),
    /// 8
    Cancel(Block),
    /// 9 (BEP 5): the sender's DHT port.
    Port(u16),
    /// 13 (BEP 6)
    Suggest(PieceIndex),
    /// 14 (BEP 6)
    HaveAll,
    /// 15 (BEP 6)
    HaveNone,
    /// 16 (BEP 6)
    Reject(Block),
    /// 17 (BEP 6)
    AllowedFast(PieceIndex),
    /// 20 (BEP 10): `id` is the receiver's number for the extension, 0 the extension handshake.
    Extended {
        /// The receiver's number for the extension.
        id: u8,
        /// Its bytes.
        payload: Bytes,
    },
}

/// The message types, as their byte on the wire.
pub(super) mod id {
    pub(crate) const CHOKE: u8 = 0;
    pub(crate) const UNCHOKE: u8 = 1;
    pub(crate) const INTERESTED: u8 = 2;
    pub(crate) const NOT_INTERESTED: u8 = 3;
    pub(crate) const HAVE: u8 = 4;
    pub(crate) const BITFIELD: u8 = 5;
    pub(crate) const REQUEST: u8 = 6;
    pub(crate) const PIECE: u8 = 7;
    pub(crate) const CANCEL: u8 = 8;
    pub(crate) const PORT: u8 = 9;
    pub(crate) const SUGGEST: u8 = 13;
    pub(crate) const HAVE_ALL: u8 = 14;
    pub(crate) const HAVE_NONE: u8 = 15;
    pub(crate) const REJECT: u8 = 16;
    pub(crate) const ALLOWED_FAST: u8 = 17;
    pub(crate) const EXTENDED: u8 = 20;
}

/// Bytes of the length prefix.
pub(super) const PREFIX_LEN: usize = 4;

impl Message {
    /// Appends the message as on the wire, length prefix included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let len = self.encoded_len();
        out.reserve(len);
        out.extend_from_slice(&((len - PREFIX_LEN) as u32).to_be_bytes());
        match self {
            Self::KeepAlive => {}
            Self::Choke => out.push(id::CHOKE),
            Self::Unchoke => out.push(id::UNCHOKE),
            Self::Interested => out.push(id::INTERESTED),
            Self::NotInterested => out.push(id::NOT_INTERESTED),
            Self::Have(piece) => append_words(out, id::HAVE, &[*piece]),
            Self::Bitfield(pieces) => append_bytes(out, id::BITFIELD, pieces.as_bytes()),
            Self::Request(block) => append_block(out, id::REQUEST, *block),
            Self::Cancel(block) => append_block(out, id::CANCEL, *block),
            Self::Port(port) => append_bytes(out, id::PORT, &port.to_be_bytes()),
            Self::Suggest(piece) => append_words(out, id::SUGGEST, &[*piece]),
            Self::HaveAll => out.push(id::HAVE_ALL),
            Self::HaveNone => out.push(id::HAVE_NONE),
            Self::Reject(block) => append_block(out, id::REJECT, *block),
            Self::AllowedFast(piece) => append_words(out, id::ALLOWED_FAST, &[*piece]),
            Self::Extended { id: extension, payload } => {
                append_bytes(out, id::EXTENDED, &[*extension]);
                out.extend_from_slice(payload);
            }
        }
    }

    /// Bytes on the wire, length prefix included.
    pub fn encoded_len(&self) -> usize {
        let after_prefix = match self {
            Self::KeepAlive => 0,
            Self::Choke | Self::Unchoke | Self::Interested | Self::NotInterested => 1,
            Self::HaveAll | Self::HaveNone => 1,
            Self::Port(_) => 1 + 2,
            Self::Have(_) | Self::Suggest(_) | Self::AllowedFast(_) => 1 + 4,
            Self::Request(_) | Self::Cancel(_) | Self::Reject(_) => 1 + 3 * 4,
            Self::Bitfield(pieces) => 1 + pieces.as_bytes().len(),
            Self::Extended { payload, .. } => 1 + 1 + payload.len(),
        };
        PREFIX_LEN + after_prefix
    }
}

/// Bytes before a block's content in a `piece` message: length, id 7, piece, offset.
pub const BLOCK_HEADER_LEN: usize = 13;

/// The 13 bytes before a block's content.
pub fn block_header(block: Block) -> [u8; BLOCK_HEADER_LEN] {
    let after_prefix = (BLOCK_HEADER_LEN - PREFIX_LEN) as u32 + block.len;
    let mut header = [0; BLOCK_HEADER_LEN];
    header[..4].copy_from_slice(&after_prefix.to_be_bytes());
    header[4] = id::PIECE;
    header[5..9].copy_from_slice(&block.piece.to_be_bytes());
    header[9..].copy_from_slice(&block.offset.to_be_bytes());
    header
}

fn append_block(out: &mut Vec<u8>, id: u8, block: Block) {
    append_words(out, id, &[block.piece, block.offset, block.len]);
}

fn append_words(out: &mut Vec<u8>, id: u8, words: &[u32]) {
    out.push(id);
    words.iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
}

fn append_bytes(out: &mut Vec<u8>, id: u8, bytes: &[u8]) {
    out.push(id);
    out.extend_from_slice(bytes);
}
