//! `ut_metadata`: the info dictionary in pieces of 16 KiB (BEP 9).

use bytes::Bytes;

use crate::proto::bencode::BencodeError;

/// Bytes of every piece of the info dictionary but the last.
pub const METADATA_PIECE_LEN: u32 = 16 * 1024;

/// A message; as a payload of an extended message (BEP 10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataMessage {
    /// Send me this piece.
    Request(u32),
    /// Here it is.
    Data {
        /// Which piece.
        piece: u32,
        /// Bytes of the whole dictionary, as the sender says.
        total_len: u32,
        /// The piece: the bytes behind the dictionary of the message.
        bytes: Bytes,
    },
    /// You do not get this piece.
    Reject(u32),
    /// Another `msg_type`: to be ignored.
    Unknown,
}

impl MetadataMessage {
    /// The payload.
    pub fn encode(&self) -> Bytes {
        todo!()
    }

    /// Reads a payload; shares `payload`.
    ///
    /// # Errors
    /// It does not begin with a dictionary that has what its type needs, or a piece is longer than 16 KiB.
    pub fn decode(payload: &Bytes) -> Result<Self, BencodeError> {
        let _ = payload;
        todo!()
    }
}
