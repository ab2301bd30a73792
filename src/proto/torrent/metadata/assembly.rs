//! One copy of the info dictionary in the making: its pieces, who sent them, who is asked for
//! which.
//!
//! Memory is taken piece by piece, as they come. Pieces are copied out of the messages that brought
//! them, which may hold on to larger buffers.

use std::net::SocketAddr;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::proto::infohash::InfoHash;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::wire::metadata::{metadata_piece_count, metadata_piece_len};

/// Peers that are asked for the same piece at once; the others of the assembly wait for other
/// pieces.
const ASKED_MAX: u8 = 3;
/// A piece that was asked for so long ago is asked of a second peer that has nothing better to do.
const SECOND_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Slot {
    Missing { asked: u8, asked_at: Instant },
    Here { bytes: Box<[u8]>, from: SocketAddr },
}

/// A assembly.
#[derive(Debug)]
pub(crate) struct MetadataAssembly {
    total_len: u32,
    slots: Vec<Slot>,
    done_len: u32,
    missing_count: usize,
    /// When it all began.
    pub(crate) opened_at: Instant,
    /// When the last piece came, or it all began.
    pub(crate) progress_at: Instant,
}

/// Who sent which piece of a assembly that did not hash, and the piece's SHA-1.
pub(crate) type Evidence = Vec<(SocketAddr, u32, [u8; 20])>;

impl MetadataAssembly {
    /// Nothing there yet.
    pub(crate) fn new(total_len: u32, now: Instant) -> Self {
        let count = metadata_piece_count(total_len) as usize;
        let slots = (0..count).map(|_| Slot::Missing { asked: 0, asked_at: now }).collect();
        Self { total_len, slots, done_len: 0, missing_count: count, opened_at: now, progress_at: now }
    }

    /// Bytes that are there.
    pub(crate) fn done_len(&self) -> u32 {
        self.done_len
    }

    /// Whether every piece is there.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing_count == 0
    }

    /// A piece for a peer that is `asked` for those: one that nobody is asked for, else one that
    /// others are slow to send. Marked as asked for.
    pub(crate) fn pick(&mut self, now: Instant, asked: &[u32], rng: &mut Rng) -> Option<u32> {
        let start = rng.below(self.slots.len());
        let order = (start..self.slots.len()).chain(0..start);
        let mut best: Option<(u8, usize)> = None;
        for at in order {
            let Slot::Missing { asked: count, asked_at } = self.slots[at] else { continue };
            let is_late = count > 0 && count < ASKED_MAX && now - asked_at >= SECOND_AFTER;
            let is_free = count == 0 || (is_late && !asked.contains(&(at as u32)));
            if is_free && best.is_none_or(|(least, _)| count < least) {
                best = Some((count, at));
            }
            if count == 0 {
                break;
            }
        }
        let (count, at) = best?;
        self.slots[at] = Slot::Missing { asked: count + 1, asked_at: now };
        Some(at as u32)
    }

    /// A peer will not send this piece after all.
    pub(crate) fn release(&mut self, piece: u32) {
        if let Some(Slot::Missing { asked, .. }) = self.slots.get_mut(piece as usize) {
            *asked = asked.saturating_sub(1);
        }
    }

    /// Whether a piece of so many bytes belongs there.
    pub(crate) fn fits(&self, piece: u32, len: usize) -> bool {
        len > 0 && metadata_piece_len(self.total_len, piece) as usize == len
    }

    /// A piece that [`MetadataAssembly::fits`] came; nothing changes if it is there already.
    pub(crate) fn put(&mut self, now: Instant, piece: u32, bytes: &[u8], from: SocketAddr) {
        let Some(slot @ Slot::Missing { .. }) = self.slots.get_mut(piece as usize) else { return };
        *slot = Slot::Here { bytes: bytes.into(), from };
        self.done_len += bytes.len() as u32;
        self.missing_count -= 1;
        self.progress_at = now;
    }

    fn pieces(&self) -> impl Iterator<Item = (u32, &[u8], SocketAddr)> {
        (0..).zip(&self.slots).filter_map(|(piece, slot)| match slot {
            Slot::Here { bytes, from } => Some((piece, &bytes[..], *from)),
            Slot::Missing { .. } => None,
        })
    }

    /// SHA-1 over the whole.
    pub(crate) fn infohash(&self) -> InfoHash {
        let hash = self.pieces().fold(Sha1::new(), |hash, (_, bytes, _)| hash.chain_update(bytes));
        InfoHash(hash.finalize().into())
    }

    /// Who sent it, if one peer sent it all.
    pub(crate) fn sole_contributor(&self) -> Option<SocketAddr> {
        let mut senders = self.pieces().map(|(_, _, from)| from);
        let first = senders.next()?;
        senders.all(|from| from == first).then_some(first)
    }

    /// Who sent what.
    pub(crate) fn evidence(&self) -> Evidence {
        self.pieces().map(|(piece, bytes, from)| (from, piece, Sha1::digest(bytes).into())).collect()
    }

    /// Those whose piece is not what this assembly, which hashes, has there; each once.
    pub(crate) fn liars(&self, evidence: &Evidence) -> Vec<SocketAddr> {
        let right: Vec<[u8; 20]> = self.pieces().map(|(_, bytes, _)| Sha1::digest(bytes).into()).collect();
        let lies = evidence.iter().filter(|(_, piece, hash)| right.get(*piece as usize) != Some(hash));
        let mut liars: Vec<_> = lies.map(|(from, ..)| *from).collect();
        liars.sort_unstable();
        liars.dedup();
        liars
    }

    /// The whole; each piece is given up as it is taken over.
    pub(crate) fn into_bytes(self) -> Bytes {
        let mut whole = Vec::with_capacity(self.total_len as usize);
        for slot in self.slots {
            if let Slot::Here { bytes, .. } = slot {
                whole.extend_from_slice(&bytes);
            }
        }
        whole.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(host: u8) -> SocketAddr {
        SocketAddr::from(([80, 0, 0, host], 1))
    }

    #[test]
    fn each_piece_is_asked_once_before_any_is_asked_twice() {
        let (mut assembly, mut rng) = (MetadataAssembly::new(40_000, Instant::ZERO), Rng::from_number(1));
        let mut asked: Vec<_> =
            (0..3).map(|_| assembly.pick(Instant::ZERO, &[], &mut rng).unwrap()).collect();
        assert_eq!(assembly.pick(Instant::ZERO, &[], &mut rng), None);
        assembly.release(1);
        assert_eq!(assembly.pick(Instant::ZERO, &asked, &mut rng), Some(1));
        let later = Instant::ZERO + SECOND_AFTER;
        assert_eq!(assembly.pick(later, &asked, &mut rng), None, "not of the same peer");
        assembly.put(later, 0, &[0; 16_384], addr(1));
        asked = (0..4).map(|_| assembly.pick(later, &[0], &mut rng).unwrap_or(9)).collect();
        asked.sort_unstable();
        assert_eq!(asked, [1, 2, 9, 9], "a second time each, and what is there never");
    }

    #[test]
    fn liars_are_those_whose_pieces_differ_from_the_right_ones() {
        let right = [vec![1; 16_384], vec![2; 16_384], vec![3; 5]];
        let assembly = |falsified: usize| {
            let mut assembly = MetadataAssembly::new(2 * 16_384 + 5, Instant::ZERO);
            for (piece, bytes) in right.iter().enumerate() {
                let mut bytes = bytes.clone();
                bytes[0] ^= u8::from(piece == falsified);
                assert!(
                    assembly.fits(piece as u32, bytes.len()) && !assembly.fits(piece as u32, bytes.len() + 1)
                );
                assembly.put(Instant::ZERO, piece as u32, &bytes, addr(piece as u8));
            }
            assembly
        };
        let (good, bad) = (assembly(9), assembly(1));
        assert_eq!(good.infohash(), InfoHash::of(&right.concat()));
        assert_ne!(good.infohash(), bad.infohash());
        assert_eq!((good.liars(&bad.evidence()), good.sole_contributor()), (vec![addr(1)], None));
        assert_eq!((good.done_len(), good.is_complete()), (32_773, true));
        assert_eq!(good.into_bytes(), right.concat());
    }
}
