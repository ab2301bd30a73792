//! How many connected peers have each piece, and the startable pieces in order of rarity.
//!
//! Startable pieces stand in one array, grouped by their count of copies, so that one more or one
//! less copy is one swap over a group's border, and the rarest piece of a peer is found from the
//! front. A peer that has everything is counted once, not once a piece, unless it is fickle: one
//! that took back pieces. Looking for a piece never looks at more than `SCAN_MAX` entries of the
//! array: if the peer has none of them, the peer's own bitfield is walked instead.
//!
//! Invariants: group `c` is `order[starts[c]..starts[c + 1]]` and holds the startable pieces with
//! `c` copies; `places[order[i]] == i`. It knows no peers, only their bitfields.

use super::pieces::Pieces;
use crate::proto::bitfield::Bitfield;
use crate::proto::piece::PieceIndex;
use crate::proto::rng::Rng;

/// Entries looked at before the peer's bitfield is walked instead: a few microseconds.
const SCAN_MAX: usize = 2_048;
/// The place of a piece that is not startable.
const NOWHERE: u32 = u32::MAX;

/// Counts of copies among the neighbours.
#[derive(Debug)]
pub struct Availability {
    piece_count: usize,
    /// Copies of each piece, those of complete peers not counted; empty until there is one.
    counts: Vec<u16>,
    /// Peers that have everything.
    seed_count: u32,
    order: Vec<PieceIndex>,
    /// Empty until a piece is startable: who only seeds never needs it.
    places: Vec<u32>,
    starts: Vec<u32>,
    /// No startable piece has a lower number.
    lowest: PieceIndex,
}

/// Returns whether the peer has all pieces; false for a torrent without pieces.
fn has_all(have: &Bitfield) -> bool {
    have.is_full() && !have.is_empty()
}

impl Availability {
    /// Nobody connected, nothing startable before the first [`Availability::follow`].
    pub fn new(piece_count: u32) -> Self {
        Self {
            piece_count: piece_count as usize,
            counts: Vec::new(),
            seed_count: 0,
            order: Vec::new(),
            places: Vec::new(),
            starts: vec![0, 0],
            lowest: 0,
        }
    }

    /// A peer came, or told its bitfield (an empty one need not be added).
    pub fn add_peer(&mut self, have: &Bitfield, is_fickle: bool) {
        if has_all(have) && !is_fickle {
            self.seed_count += 1;
        } else {
            have.iter_set().for_each(|piece| self.increment(piece));
        }
    }

    /// A peer left, or is about to replace its bitfield; `have` is all that it was counted with.
    pub fn remove_peer(&mut self, have: &Bitfield, is_fickle: bool) {
        if has_all(have) && !is_fickle {
            self.seed_count -= 1;
        } else {
            have.iter_set().for_each(|piece| self.decrement(piece));
        }
    }

    /// A peer gained `piece`; `have` already has it.
    pub fn gain(&mut self, piece: PieceIndex, have: &Bitfield, is_fickle: bool) {
        if have.is_full() && !is_fickle {
            self.seed_count += 1;
            have.iter_set().filter(|&other| other != piece).for_each(|other| self.decrement(other));
        } else {
            self.increment(piece);
        }
    }

    /// A peer took back `piece`; `have` does not have it any more. `was_fickle`: before, too. From
    /// now on it is.
    pub fn lose(&mut self, piece: PieceIndex, have: &Bitfield, was_fickle: bool) {
        if have.count() + 1 == have.len() && !was_fickle {
            self.seed_count -= 1;
            have.iter_set().for_each(|other| self.increment(other));
        } else {
            self.decrement(piece);
        }
    }

    /// Copies of this piece among the connected peers.
    pub fn count(&self, piece: PieceIndex) -> u32 {
        self.seed_count + self.counts.get(piece as usize).map_or(0, |&count| u32::from(count))
    }

    /// Copies of the rarest piece; walks over all pieces, for snapshots.
    pub fn min(&self) -> u32 {
        self.seed_count + u32::from(self.counts.iter().copied().min().unwrap_or(0))
    }

    /// Connected peers that have everything, and always had since they told.
    pub fn seeds(&self) -> u32 {
        self.seed_count
    }

    /// Takes over which pieces became startable or ceased to be.
    pub fn follow(&mut self, pieces: &mut Pieces) {
        for piece in pieces.take_changed() {
            match (pieces.is_startable(piece), self.is_listed(piece)) {
                (true, false) => self.list(piece),
                (false, true) => self.unlist(piece),
                (true, true) | (false, false) => {}
            }
        }
    }

    /// The rarest startable piece of a peer, any of several; None if there is none.
    pub fn rarest(&self, have: &Bitfield, rng: &mut Rng) -> Option<PieceIndex> {
        let mut left = SCAN_MAX;
        for bounds in self.starts.windows(2) {
            let group = &self.order[bounds[0] as usize..bounds[1] as usize];
            let (before, after) = group.split_at(rng.below(group.len()));
            for &piece in after.iter().chain(before) {
                if have.get(piece) {
                    return Some(piece);
                }
                left -= 1;
                if left == 0 {
                    return self.rarest_of(have, rng);
                }
            }
        }
        None
    }

    /// The same, by the peer's bitfield: for peers that have little of what is startable.
    fn rarest_of(&self, have: &Bitfield, rng: &mut Rng) -> Option<PieceIndex> {
        let (mut best, mut best_count, mut ties) = (None, u16::MAX, 0);
        for piece in have.iter_set().filter(|&piece| self.is_listed(piece)) {
            let count = self.counts.get(piece as usize).copied().unwrap_or(0);
            if count < best_count {
                (best, best_count, ties) = (Some(piece), count, 1);
            } else if count == best_count {
                ties += 1;
                if rng.below(ties) == 0 {
                    best = Some(piece);
                }
            }
        }
        best
    }

    /// Any startable piece of a peer.
    pub fn random(&self, have: &Bitfield, rng: &mut Rng) -> Option<PieceIndex> {
        let (before, after) = self.order.split_at(rng.below(self.order.len()));
        let near = after.iter().chain(before).take(SCAN_MAX).find(|&&piece| have.get(piece)).copied();
        near.or_else(|| self.rarest_of(have, rng))
    }

    /// The startable piece of a peer with the lowest number.
    pub fn lowest(&mut self, have: &Bitfield) -> Option<PieceIndex> {
        let end = self.places.len() as u32;
        self.lowest = (self.lowest..end).find(|&piece| self.is_listed(piece)).unwrap_or(end);
        (self.lowest..end).find(|&piece| have.get(piece) && self.is_listed(piece))
    }

    fn is_listed(&self, piece: PieceIndex) -> bool {
        self.places.get(piece as usize).is_some_and(|&place| place != NOWHERE)
    }

    /// The group that a piece is in, if it is startable.
    fn group(&self, piece: PieceIndex) -> usize {
        self.counts.get(piece as usize).map_or(0, |&count| usize::from(count))
    }

    fn increment(&mut self, piece: PieceIndex) {
        self.counts.resize(self.piece_count, 0);
        let count = self.group(piece);
        self.counts[piece as usize] += 1;
        if self.starts.len() < count + 3 {
            self.starts.push(self.order.len() as u32);
        }
        if self.is_listed(piece) {
            self.starts[count + 1] -= 1;
            self.swap(piece, self.starts[count + 1]);
        }
    }

    fn decrement(&mut self, piece: PieceIndex) {
        let count = self.group(piece);
        self.counts[piece as usize] -= 1;
        if self.is_listed(piece) {
            self.swap(piece, self.starts[count]);
            self.starts[count] += 1;
        }
    }

    fn list(&mut self, piece: PieceIndex) {
        self.places.resize(self.piece_count, NOWHERE);
        let count = self.group(piece);
        self.lowest = self.lowest.min(piece);
        self.places[piece as usize] = self.order.len() as u32;
        self.order.push(piece);
        let end = self.starts.len() - 1;
        self.starts[end] += 1;
        // Each group above hands its first place down by moving its first piece to its new end.
        for group in (count + 1..end).rev() {
            self.swap(piece, self.starts[group]);
            self.starts[group] += 1;
        }
    }

    fn unlist(&mut self, piece: PieceIndex) {
        let count = self.group(piece);
        for group in count + 1..self.starts.len() {
            self.starts[group] -= 1;
            self.swap(piece, self.starts[group]);
        }
        self.order.pop();
        self.places[piece as usize] = NOWHERE;
    }

    fn swap(&mut self, piece: PieceIndex, place: u32) {
        let from = self.places[piece as usize];
        let other = self.order[place as usize];
        self.order.swap(from as usize, place as usize);
        self.places[other as usize] = from;
        self.places[piece as usize] = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::piece::Geometry;

    fn set(len: u32, pieces: &[u32]) -> Bitfield {
        let mut field = Bitfield::new(len);
        pieces.iter().for_each(|&piece| {
            field.set(piece);
        });
        field
    }

    fn setting(piece_count: u32) -> (Pieces, Availability) {
        let geometry = Geometry::new(u64::from(piece_count) * 16_384, 16_384).unwrap();
        let mut pieces = Pieces::new(geometry, Bitfield::new(piece_count), Bitfield::full(piece_count));
        let mut availability = Availability::new(piece_count);
        availability.follow(&mut pieces);
        (pieces, availability)
    }

    fn check(availability: &Availability) {
        for (count, bounds) in (0..).zip(availability.starts.windows(2)) {
            for place in bounds[0]..bounds[1] {
                let piece = availability.order[place as usize];
                assert_eq!(availability.group(piece), count);
                assert_eq!(availability.places[piece as usize], place);
            }
        }
        assert_eq!(*availability.starts.last().unwrap() as usize, availability.order.len());
    }

    #[test]
    fn the_rarest_piece_of_a_peer_is_found_and_ties_are_random() {
        let (mut pieces, mut availability) = setting(6);
        let mut rng = Rng::from_number(1);
        availability.add_peer(&Bitfield::full(6), false);
        availability.add_peer(&set(6, &[0, 1, 2, 3]), false);
        availability.add_peer(&set(6, &[0, 1]), false);
        assert_eq!((availability.count(0), availability.count(5), availability.min()), (3, 1, 1));
        let mut seen = [0; 6];
        for _ in 0..1_000 {
            seen[availability.rarest(&Bitfield::full(6), &mut rng).unwrap() as usize] += 1;
        }
        assert_eq!(seen[..4], [0; 4]);
        assert!(seen[4] > 300 && seen[5] > 300, "{seen:?}");
        assert_eq!(availability.rarest(&set(6, &[0, 3]), &mut rng), Some(3));
        pieces.verified(3);
        availability.follow(&mut pieces);
        assert_eq!(availability.rarest(&set(6, &[0, 3]), &mut rng), Some(0));
        assert_eq!(availability.rarest(&set(6, &[3]), &mut rng), None);
        assert_eq!(availability.lowest(&set(6, &[2, 5])), Some(2));
    }

    #[test]
    fn groups_stay_exact_whatever_comes_and_goes() {
        let mut rng = Rng::from_number(2);
        let (mut pieces, mut availability) = setting(50);
        let mut peers: Vec<(Bitfield, bool)> = Vec::new();
        for _ in 0..5_000 {
            let piece = rng.below(50) as u32;
            match rng.below(7) {
                0 if peers.len() < 12 => {
                    let mut have = Bitfield::new(50);
                    for _ in 0..rng.below(120) {
                        have.set(rng.below(50) as u32);
                    }
                    if rng.below(4) == 0 {
                        have = Bitfield::full(50);
                    }
                    availability.add_peer(&have, false);
                    peers.push((have, false));
                }
                0 | 1 if !peers.is_empty() => {
                    let (have, is_fickle) = peers.swap_remove(rng.below(peers.len()));
                    availability.remove_peer(&have, is_fickle);
                }
                2 if pieces.have().get(piece) => drop(pieces.lost(piece)),
                2 => drop(pieces.verified(piece)),
                3 if !peers.is_empty() => {
                    let at = rng.below(peers.len());
                    let (have, is_fickle) = &mut peers[at];
                    if have.clear(piece) {
                        availability.lose(piece, have, std::mem::replace(is_fickle, true));
                    }
                }
                _ if !peers.is_empty() => {
                    let at = rng.below(peers.len());
                    let (have, is_fickle) = &mut peers[at];
                    if have.set(piece) {
                        availability.gain(piece, have, *is_fickle);
                    }
                }
                _ => {}
            }
            availability.follow(&mut pieces);
            check(&availability);
            let copies = peers.iter().filter(|(have, _)| have.get(piece)).count();
            assert_eq!(availability.count(piece) as usize, copies);
            assert_eq!(availability.is_listed(piece), pieces.is_startable(piece));
        }
    }

    #[test]
    fn a_poor_peer_among_many_rare_pieces_is_still_served() {
        let (_, mut availability) = setting(50_000);
        let poor = set(50_000, &[777, 40_000]);
        availability.add_peer(&poor, false);
        availability.add_peer(&set(50_000, &[777]), false);
        let mut rng = Rng::from_number(3);
        assert_eq!(availability.rarest(&poor, &mut rng), Some(40_000));
        assert!(availability.random(&poor, &mut rng).is_some());
    }
}
