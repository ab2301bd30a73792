//! `lt_donthave` (BEP 54): a piece that its sender announced is there no more.
//!
//! The payload of the extended message is the piece's number, four bytes, the highest first: the
//! opposite of a HAVE.

use bytes::Bytes;

use crate::proto::piece::PieceIndex;

/// Our own number for `lt_donthave`.
pub const LT_DONTHAVE_ID: u8 = 4;

/// Bytes of every payload.
pub const DONT_HAVE_LEN: usize = 4;

/// The peer sent no number of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad lt_donthave message")]
pub struct BadDontHave;

/// The payload that takes back this piece.
pub fn encode(piece: PieceIndex) -> Bytes {
    Bytes::copy_from_slice(&piece.to_be_bytes())
}

/// Reads a payload; whether there is such a piece is the torrent's to judge.
///
/// # Errors
/// The payload does not have four bytes.
pub fn decode(payload: &[u8]) -> Result<PieceIndex, BadDontHave> {
    payload.try_into().map(PieceIndex::from_be_bytes).map_err(|_| BadDontHave)
}
