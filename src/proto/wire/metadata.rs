//! `ut_metadata`: the info dictionary in pieces of 16 KiB (BEP 9).
//!
//! A message is a dictionary; behind that of `data` follow the bytes of the piece, so where the
//! dictionary ends is found by the scanner, and the piece is a slice of the payload. Unknown keys
//! are ignored, and so are bytes behind a dictionary that carries none. Whether a piece exists or
//! was asked for is not known here.

use bytes::Bytes;

use crate::proto::bencode::{self, BencodeError, Dict, Limits, Value};

/// Our own number for `ut_metadata`.
pub const UT_METADATA_ID: u8 = 2;

/// Bytes of every piece of the info dictionary but the last.
pub const METADATA_PIECE_LEN: u32 = 16 * 1024;

/// Longest dictionary of a message: it has three entries, and room for what others may add.
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
/// A `msg_type` that nobody has given a meaning.
const UNASSIGNED: i64 = 255;

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

    /// Reads a payload; shares `payload`.
    ///
    /// # Errors
    /// It does not begin with a dictionary that has what its type needs, or a piece is longer than
    /// 16 KiB.
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

/// How many pieces a dictionary of so many bytes has.
pub const fn metadata_piece_count(total_len: u32) -> u32 {
    total_len.div_ceil(METADATA_PIECE_LEN)
}

/// Bytes of this piece of a dictionary of so many bytes; 0 beyond the end.
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
