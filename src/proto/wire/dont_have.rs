//! `lt_donthave` (BEP 54): retracts a piece that its sender announced.
//!
//! The payload of the extended message is the piece's number, four bytes, big-endian: the opposite
//! of a HAVE.

use bytes::Bytes;

use crate::proto::piece::PieceIndex;

/// Our own number for `lt_donthave`.
pub const LT_DONTHAVE_ID: u8 = 4;

/// Bytes of every payload.
pub const DONT_HAVE_LEN: usize = 4;

/// The payload is no piece number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad lt_donthave message")]
pub struct BadDontHave;

/// Returns the payload that retracts this piece.
pub fn encode(piece: PieceIndex) -> Bytes {
    Bytes::copy_from_slice(&piece.to_be_bytes())
}

/// Decodes a payload; the torrent decides whether the piece exists.
///
/// # Errors
/// The payload does not have four bytes.
pub fn decode(payload: &[u8]) -> Result<PieceIndex, BadDontHave> {
    payload.try_into().map(PieceIndex::from_be_bytes).map_err(|_| BadDontHave)
}
