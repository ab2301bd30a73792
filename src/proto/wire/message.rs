//! Messages after the handshake (BEP 3, 6, 10), without the bulk bytes of blocks.

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

impl Message {
    /// Appends the message as on the wire, length prefix included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }

    /// Bytes on the wire, length prefix included.
    pub fn encoded_len(&self) -> usize {
        todo!()
    }
}

/// Bytes before a block's content in a `piece` message: length, id 7, piece, offset.
pub const BLOCK_HEADER_LEN: usize = 13;

/// The 13 bytes before a block's content.
pub fn block_header(block: Block) -> [u8; BLOCK_HEADER_LEN] {
    let _ = block;
    todo!()
}
