//! `sp_have`: one message with an interval's news of availability, as bitfield or as delta, whichever is
//! shorter. An extension between sprats (BEP 10); ordinary clients get a HAVE a piece.

use crate::proto::bitfield::Bitfield;
use crate::proto::piece::PieceIndex;
use bytes::Bytes;

/// An interval's news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpHave {
    /// All that the sender holds now.
    Full(Bitfield),
    /// What the sender gained, ascending.
    Delta(Vec<PieceIndex>),
}

/// The peer sent no availability of this torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad sp_have message")]
pub struct BadSpHave;

/// The shorter form of `gained` (ascending) when the sender now holds `have`.
pub fn encode(gained: &[PieceIndex], have: &Bitfield) -> Bytes {
    let _ = (gained, have);
    todo!()
}

/// Reads a payload for a torrent of `piece_count` pieces.
pub fn decode(payload: &[u8], piece_count: u32) -> Result<SpHave, BadSpHave> {
    let _ = (payload, piece_count);
    todo!()
}
