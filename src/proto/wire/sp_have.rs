//! `sp_have`: one message with an interval's news of availability, as bitfield or as delta,
//! whichever is shorter. An extension between sprats (BEP 10); ordinary clients get a HAVE a piece.
//!
//! The payload of the extended message, for a torrent of `n` pieces:
//!
//! ```text
//! 0x00 bitfield    all that the sender holds now, and nothing else: exactly ceil(n / 8) bytes,
//!                  spare bits zero (as BEP 3)
//! 0x01 gap*        the pieces that the sender gained, ascending: for each, how many pieces lie
//!                  between the one before (at first: the start) and it, in LEB128: seven bits a
//!                  byte, the lowest first, 0x80 on all bytes but the last, no needless bytes;
//!                  nothing gained: no gaps
//! 0x02 gap*        the pieces that the sender holds no more, in the same way: only to peers that
//!                  take `lt_donthave`, and in its place
//! ```
//!
//! For example 0x01 0x03 0x00 0xac 0x02 names pieces 3, 4 and 305 (a gap of 300 = 0x02 * 128 +
//! 0x2c).
//!
//! A gap below 128 takes one byte, below 16,384 two, below 2,097,152 three, and four always
//! suffice. With `g` pieces gained at random the mean gap is n / g, so a delta takes about 1 + g
//! bytes while g > n / 128, and at most 1 + 2g in torrents of up to 16,384 pieces; 6 bytes of
//! message go around it. As HAVEs they take 9g. One piece of 2,000 gained in an interval costs at
//! most 6 + 1 + 2 = 9 bytes, as a HAVE does; ten cost at most 27, not 90; a thousand cost 6 + 1 +
//! 250 = 257, as a bitfield, not 9,000.
//!
//! A piece that is lost costs 8 bytes, 9 or 10 where gaps take two or three; by `lt_donthave` it
//! costs 10.
//!
//! There is no form for runs: every piece named takes at least one byte, so a message never grows
//! by more than a factor of four in the receiver's memory, and a dense delta gives way to the
//! bitfield at one piece in eight.

use bytes::Bytes;

use crate::proto::bitfield::Bitfield;
use crate::proto::piece::{PIECE_COUNT_MAX, PieceIndex};

/// First byte of a payload with all that the sender holds.
const FULL: u8 = 0;
/// First byte of a payload with what the sender gained.
const DELTA: u8 = 1;
/// First byte of a payload with what the sender lost.
const LOST: u8 = 2;

/// Bytes of the longest gap: 28 bits, more than any torrent has pieces. Longer: the message is bad.
const GAP_LEN_MAX: usize = 4;
const _: () = assert!(PIECE_COUNT_MAX <= 1 << (7 * GAP_LEN_MAX));

/// News of what the sender holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpHave {
    /// All that the sender holds now.
    Full(Bitfield),
    /// What the sender gained, ascending.
    Delta(Vec<PieceIndex>),
    /// What the sender holds no more, ascending.
    Lost(Vec<PieceIndex>),
}

/// The peer sent no availability of this torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad sp_have message")]
pub struct BadSpHave;

/// The shorter form of `gained` (strictly ascending, all set in `have`) when the sender now holds
/// `have`.
pub fn encode(gained: &[PieceIndex], have: &Bitfield) -> Bytes {
    debug_assert!(gained.iter().all(|&piece| have.get(piece)), "gained is held");
    encode_change(DELTA, gained, have)
}

/// The shorter form of `lost` (strictly ascending, none set in `have`) when the sender now holds
/// `have`.
pub fn encode_lost(lost: &[PieceIndex], have: &Bitfield) -> Bytes {
    debug_assert!(!lost.iter().any(|&piece| have.get(piece)), "lost is not held");
    encode_change(LOST, lost, have)
}

fn encode_change(form: u8, changed: &[PieceIndex], have: &Bitfield) -> Bytes {
    debug_assert!(changed.is_sorted_by(|a, b| a < b), "strictly ascending");
    let full_len = 1 + have.as_bytes().len();
    // One byte a piece is the least that naming it takes: beyond that there is no need to try.
    if changed.len() < full_len {
        let mut payload = Vec::with_capacity(1 + 2 * changed.len());
        payload.push(form);
        let mut next = 0;
        for &piece in changed {
            append_gap(&mut payload, piece - next);
            next = piece + 1;
        }
        if payload.len() <= full_len {
            return payload.into();
        }
    }
    let mut payload = Vec::with_capacity(full_len);
    payload.push(FULL);
    payload.extend_from_slice(have.as_bytes());
    payload.into()
}

fn append_gap(out: &mut Vec<u8>, mut gap: u32) {
    while gap >= 0x80 {
        out.push(gap as u8 | 0x80);
        gap >>= 7;
    }
    out.push(gap as u8);
}

/// Reads a payload for a torrent of `piece_count` pieces.
///
/// # Errors
/// The peer broke the protocol: an unknown form, a bitfield of another torrent, a piece beyond the
/// end, a gap that is cut off or longer than it need be.
pub fn decode(payload: &[u8], piece_count: u32) -> Result<SpHave, BadSpHave> {
    match payload.split_first() {
        Some((&FULL, bits)) => {
            Bitfield::from_wire(bits, piece_count).map(SpHave::Full).map_err(|_| BadSpHave)
        }
        Some((&DELTA, gaps)) => decode_gaps(gaps, piece_count).map(SpHave::Delta),
        Some((&LOST, gaps)) => decode_gaps(gaps, piece_count).map(SpHave::Lost),
        Some(_) | None => Err(BadSpHave),
    }
}

fn decode_gaps(mut gaps: &[u8], piece_count: u32) -> Result<Vec<PieceIndex>, BadSpHave> {
    // As many pieces as bytes that end a gap.
    let mut named = Vec::with_capacity(gaps.iter().filter(|byte| **byte < 0x80).count());
    let mut next = 0;
    while !gaps.is_empty() {
        let gap = take_gap(&mut gaps)?;
        let piece = gap.checked_add(next).filter(|piece| *piece < piece_count).ok_or(BadSpHave)?;
        named.push(piece);
        next = piece + 1;
    }
    Ok(named)
}

/// Takes one gap, below 2^28, off the front.
fn take_gap(gaps: &mut &[u8]) -> Result<u32, BadSpHave> {
    let len = 1 + gaps.iter().take(GAP_LEN_MAX).position(|byte| *byte < 0x80).ok_or(BadSpHave)?;
    let (gap, rest) = gaps.split_at(len);
    if len > 1 && gap[len - 1] == 0 {
        return Err(BadSpHave);
    }
    *gaps = rest;
    Ok(gap.iter().rev().fold(0, |value, byte| value << 7 | u32::from(byte & 0x7f)))
}
