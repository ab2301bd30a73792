//! `ut_metadata`: the info dictionary in pieces of 16 KiB (BEP 9).
//!
//! A message is a dictionary; in `data` messages the bytes of the piece follow it, so the scanner
//! finds the end of the dictionary, and the piece is a slice of the payload. Unknown keys are
//! ignored, and so are bytes after other messages. Does not know whether a piece exists or was
//! requested.

use bytes::Bytes;

use crate::proto::bencode::{self, BencodeError, Dict, Limits, Value};

/// Our own number for `ut_metadata`.
pub const UT_METADATA_ID: u8 = 2;

/// Bytes of every piece of the info dictionary but the last.
pub const METADATA_PIECE_LEN: u32 = 16 * 1024;

/// Longest dictionary of a message: three entries, and room for additions of other clients.
pub const METADATA_DICT_LEN_MAX: usize = 1024;

/// Bytes and values of the dictionary of a message.
const LIMITS: Limits =
    Limits { len_max: METADATA_DICT_LEN_MAX, depth_max: 4, token_max: 64, ..Limits::EXTENSION };

/// `msg_type` of a request.
const REQUEST: i64 = 0;
/// `msg_type` of a piece.
const DATA: i64 = 1;
/// `msg_type` of a refusal.
const REJECT: i64 = 2;
/// An unassigned `msg_type`.
const UNASSIGNED: i64 = 255;

/// A message; as a payload of an extended message (BEP 10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataMessage {
    /// Requests a piece.
    Request(u32),
    /// Carries a piece.
    Data {
        /// The piece.
        piece: u32,
        /// Length of the whole dictionary, as the sender claims.
        total_len: u32,
        /// The bytes of the piece, which follow the dictionary of the message.
        bytes: Bytes,
    },
    /// Refuses a piece.
    Reject(u32),
    /// Another `msg_type`, to be ignored.
    Unknown,
}

impl MetadataMessage {
    /// Returns the payload.
    pub fn encode(&self) -> Bytes {
        let mut payload = Vec::new();
        match self {
            Self::Request(piece) => append_dict(&mut payload, REQUEST, Some(*piece), None),
            Self::Data { piece, total_len, bytes } => {
                append_dict(&mut payload, DATA, Some(*piece), Some(*total_len));
                payload.extend_from_slice(bytes);
            }
            Self::Reject(piece) => append_dict(&mut payload, REJECT, Some(*piece), None),
            Self::Unknown => append_dict(&mut payload, UNASSIGNED, None, None),
        }
        payload.into()
    }

    /// Decodes a payload; shares `payload`.
    ///
    /// # Errors
    /// It does not begin with a dictionary with the required keys, or a piece is longer than 16
    /// KiB.
    pub fn decode(payload: &Bytes) -> Result<Self, BencodeError> {
        let root = Value::read(payload, &LIMITS)?;
        let dict_len = root.span().len();
        let dict = root.dict().ok_or(BencodeError { at: 0, what: "not a dictionary" })?;
        let msg_type = dict.get(b"msg_type").and_then(|value| value.integer());
        let piece = number(dict, b"piece", "no piece in the dictionary");
        match msg_type {
            Some(REQUEST) => piece.map(Self::Request),
            Some(DATA) => {
                let bytes = payload.slice(dict_len..);
                if bytes.len() > METADATA_PIECE_LEN as usize {
                    return Err(BencodeError { at: dict_len, what: "a piece of more than 16 KiB" });
                }
                let total_len = number(dict, b"total_size", "no total size in the dictionary")?;
                Ok(Self::Data { piece: piece?, total_len, bytes })
            }
            Some(REJECT) => piece.map(Self::Reject),
            Some(_) => Ok(Self::Unknown),
            None => Err(BencodeError { at: 0, what: "no message type in the dictionary" }),
        }
    }
}

/// Returns the number of pieces of a dictionary of `total_len` bytes.
pub const fn metadata_piece_count(total_len: u32) -> u32 {
    total_len.div_ceil(METADATA_PIECE_LEN)
}

/// Returns the length of this piece of a dictionary of `total_len` bytes; 0 beyond the end.
pub fn metadata_piece_len(total_len: u32, piece: u32) -> u32 {
    let offset = u64::from(piece) * u64::from(METADATA_PIECE_LEN);
    u64::from(total_len).saturating_sub(offset).min(u64::from(METADATA_PIECE_LEN)) as u32
}

fn append_dict(out: &mut Vec<u8>, msg_type: i64, piece: Option<u32>, total_len: Option<u32>) {
    let entries = [
        ("msg_type", Some(msg_type)),
        ("piece", piece.map(i64::from)),
        ("total_size", total_len.map(i64::from)),
    ];
    let entries = entries.map(|(key, value)| (key, value.map(bencode::encode_integer)));
    out.extend_from_slice(&bencode::encode_dict(entries));
}

fn number(dict: Dict, key: &[u8], missing: &'static str) -> Result<u32, BencodeError> {
    let value = dict.get(key).and_then(|value| value.integer());
    value.and_then(|value| u32::try_from(value).ok()).ok_or(BencodeError { at: 0, what: missing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_a_slice_of_the_payload() {
        let data = MetadataMessage::Data { piece: 3, total_len: 50_000, bytes: Bytes::from_static(b"abc") };
        let payload = data.encode();
        let Ok(MetadataMessage::Data { bytes, .. }) = MetadataMessage::decode(&payload) else {
            panic!("{payload:?}");
        };
        assert_eq!(bytes.as_ptr(), payload[payload.len() - 3..].as_ptr());
    }

    #[test]
    fn the_last_piece_is_short_and_there_is_none_beyond() {
        assert_eq!(
            (metadata_piece_count(0), metadata_piece_count(16_384), metadata_piece_count(16_385)),
            (0, 1, 2)
        );
        assert_eq!([0, 1, 2, u32::MAX].map(|piece| metadata_piece_len(16_385, piece)), [16_384, 1, 0, 0]);
    }
}
