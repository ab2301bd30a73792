//! Wrong pieces traced to the exact liar.
//!
//! Of each failed piece the hash of every block and its sender are remembered. When a good copy
//! comes, those whose block differs from it lied, and nobody else is accused. One who sent a whole
//! wrong piece alone lied for certain at once.
//!
//! Invariant: `hash_count` is the number of remembered hashes, at most `HASHES_MAX`. It bans nobody
//! itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::pieces::Contributors;
use crate::proto::piece::PieceIndex;
use crate::proto::torrent::event::BlockHashes;

/// Block hashes remembered over all failed pieces: 20 bytes each, 5 MiB. Beyond it the oldest are
/// forgotten: those liars are found when they lie again.
const HASHES_MAX: usize = 262_144;
/// Failed copies remembered of one piece; beyond it the oldest is forgotten.
const COPIES_MAX: usize = 8;

#[derive(Debug)]
struct Copy {
    contributors: Contributors,
    hashes: BlockHashes,
}

/// Failed pieces and who sent their blocks.
#[derive(Debug, Default)]
pub struct Suspects {
    copies: BTreeMap<PieceIndex, VecDeque<Copy>>,
    /// Pieces in the order of their first failure.
    oldest: VecDeque<PieceIndex>,
    hash_count: usize,
}

impl Suspects {
    /// Nobody is suspected.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the next good copy of the piece should come with its block hashes.
    pub fn wants_hashes(&self, piece: PieceIndex) -> bool {
        self.copies.contains_key(&piece)
    }

    /// The piece failed: who sent it, and the hash of each block. The liar, if only one sent it
    /// all.
    pub fn failed(
        &mut self,
        piece: PieceIndex,
        contributors: Contributors,
        hashes: BlockHashes,
    ) -> Option<SocketAddr> {
        let sole = contributors.sole();
        if sole.is_none() && !contributors.addrs().is_empty() {
            self.remember(piece, Copy { contributors, hashes });
        }
        sole
    }

    fn remember(&mut self, piece: PieceIndex, copy: Copy) {
        self.hash_count += copy.hashes.len();
        if !self.copies.contains_key(&piece) {
            self.oldest.push_back(piece);
        }
        let copies = self.copies.entry(piece).or_default();
        copies.push_back(copy);
        if copies.len() > COPIES_MAX
            && let Some(forgotten) = copies.pop_front()
        {
            self.hash_count -= forgotten.hashes.len();
        }
        while self.hash_count > HASHES_MAX
            && let Some(&piece) = self.oldest.front()
        {
            self.forget(piece);
        }
    }

    fn forget(&mut self, piece: PieceIndex) -> Option<VecDeque<Copy>> {
        let copies = self.copies.remove(&piece)?;
        self.oldest.retain(|&other| other != piece);
        self.hash_count -= copies.iter().map(|copy| copy.hashes.len()).sum::<usize>();
        Some(copies)
    }

    /// The piece is good: everyone who once sent a block of it that differs, each once.
    pub fn good(&mut self, piece: PieceIndex, hashes: &BlockHashes) -> Vec<SocketAddr> {
        let mut liars = Vec::new();
        for copy in self.forget(piece).into_iter().flatten() {
            for (index, (theirs, right)) in copy.hashes.iter().zip(hashes).enumerate() {
                if theirs != right {
                    liars.extend(copy.contributors.of(index));
                }
            }
        }
        liars.sort_unstable();
        liars.dedup();
        liars
    }
}

#[cfg(test)]
mod tests {
    use super::super::pieces::Pieces;
    use super::*;
    use crate::proto::bitfield::Bitfield;
    use crate::proto::piece::Geometry;
    use crate::proto::torrent::event::ConnId;

    fn addr(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 1))
    }

    /// A piece whose blocks came from these hosts.
    fn sent_by(hosts: &[u8]) -> Contributors {
        let len = hosts.len() as u32 * 16_384;
        let geometry = Geometry::new(u64::from(len), len).unwrap();
        let mut pieces = Pieces::new(geometry, Bitfield::new(1), Bitfield::full(1));
        for (index, &host) in (0..).zip(hosts) {
            let block = geometry.block(0, index);
            pieces.request(block, ConnId(0));
            let _ = pieces.receive(block, ConnId(0), addr(host));
        }
        pieces.failed(0)
    }

    fn hashes(bytes: &[u8]) -> BlockHashes {
        bytes.iter().map(|&byte| [byte; 20]).collect()
    }

    #[test]
    fn exactly_those_who_lied_are_found_when_a_good_copy_comes() {
        let mut suspects = Suspects::new();
        assert_eq!(suspects.failed(7, sent_by(&[1, 2, 1, 3]), hashes(b"aXcd")), None);
        assert_eq!(suspects.failed(7, sent_by(&[1, 3, 4, 4]), hashes(b"abYd")), None);
        assert!(suspects.wants_hashes(7) && !suspects.wants_hashes(8));
        assert_eq!(suspects.good(7, &hashes(b"abcd")), [addr(2), addr(4)]);
        assert!(!suspects.wants_hashes(7));
        assert!(suspects.good(7, &hashes(b"abcd")).is_empty());
    }

    #[test]
    fn who_sent_a_whole_wrong_piece_lied() {
        let mut suspects = Suspects::new();
        assert_eq!(suspects.failed(0, sent_by(&[9, 9]), hashes(b"ab")), Some(addr(9)));
        assert!(!suspects.wants_hashes(0));
    }

    #[test]
    fn memory_is_bounded() {
        let mut suspects = Suspects::new();
        for piece in 0..2_000 {
            suspects.failed(piece, sent_by(&[1, 2]), vec![[0; 20]; 1_000]);
            suspects.failed(1, sent_by(&[1, 2]), vec![[0; 20]; 10]);
        }
        assert!(suspects.hash_count <= HASHES_MAX);
        assert!(suspects.wants_hashes(1_999) && !suspects.wants_hashes(2));
        assert!(suspects.oldest.len() == suspects.copies.len());
    }
}
