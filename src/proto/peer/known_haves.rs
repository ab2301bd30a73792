//! What a peer knows of our pieces: whether it has anything left to request, and which gained
//! pieces it is still to be told of.

use std::collections::BTreeSet;

use crate::proto::bitfield::Bitfield;
use crate::proto::piece::PieceIndex;

/// Our pieces as the peer knows them.
#[derive(Debug, Default)]
pub struct KnownHaves {
    /// Our pieces that the peer knows of and lacks.
    lacking_count: u32,
    /// Pieces of this interval that the peer knows already, or need not be told because it had
    /// everything.
    early: BTreeSet<PieceIndex>,
    /// Whether there may be pieces that the peer lacks and does not know of.
    owed: bool,
    /// Pieces suggested to it, with the number of blocks that it has not requested.
    suggested: Vec<(PieceIndex, u32)>,
}

impl KnownHaves {
    /// The peer was told all of `have`, including the pieces that others are told at the end of the
    /// interval.
    pub fn greet(&mut self, have: &Bitfield, news: &BTreeSet<PieceIndex>) {
        self.lacking_count = have.count();
        self.early.clone_from(news);
    }

    /// The peer announced its pieces: recounts.
    pub fn recount(&mut self, have: &Bitfield, news: &BTreeSet<PieceIndex>, theirs: &Bitfield) {
        let told = have.iter_set().filter(|&piece| !theirs.get(piece) && self.knows(piece, news));
        self.lacking_count = told.count() as u32;
    }

    /// The peer gained a piece that we have.
    pub fn peer_gained(&mut self, piece: PieceIndex, news: &BTreeSet<PieceIndex>) {
        self.suggested.retain(|&(suggested, _)| suggested != piece);
        if self.knows(piece, news) {
            self.lacking_count = self.lacking_count.saturating_sub(1);
        }
    }

    /// The peer retracted a piece that we have. Returns whether to announce the piece now, because
    /// it was not announced while the peer had everything; otherwise the interval's message
    /// announces it.
    pub fn peer_lost(&mut self, piece: PieceIndex, news: &BTreeSet<PieceIndex>) -> bool {
        let knows = self.knows(piece, news);
        if knows {
            self.lacking_count += 1;
        } else {
            self.owed = true;
        }
        knows
    }

    /// We lost a piece. Returns whether the peer may know that we had it.
    pub fn lose(&mut self, piece: PieceIndex, news: &BTreeSet<PieceIndex>, theirs: &Bitfield) -> bool {
        let knew = self.knows(piece, news);
        if knew && !theirs.get(piece) {
            self.lacking_count = self.lacking_count.saturating_sub(1);
        }
        self.early.remove(&piece);
        self.suggested.retain(|&(suggested, _)| suggested != piece);
        knew
    }

    /// Notes that the peer was suggested this piece of `block_count` blocks.
    pub fn suggest(&mut self, piece: PieceIndex, block_count: u32) {
        self.suggested.push((piece, block_count));
    }

    /// The peer requested a block. Returns true for the last one of a suggested piece: its HAVE
    /// would say so later, and clients that omit redundant HAVEs never send it.
    pub fn peer_asked(&mut self, piece: PieceIndex) -> bool {
        let Some(at) = self.suggested.iter().position(|&(suggested, _)| suggested == piece) else {
            return false;
        };
        let left = &mut self.suggested[at].1;
        *left = left.saturating_sub(1);
        let taken = *left == 0;
        if taken {
            self.suggested.remove(at);
        }
        taken
    }

    /// The number of suggested pieces that the peer has not fully requested.
    pub fn suggested_count(&self) -> usize {
        self.suggested.len()
    }

    /// Takes the suggestions that the peer will not follow.
    pub fn take_suggested(&mut self) -> impl Iterator<Item = PieceIndex> {
        std::mem::take(&mut self.suggested).into_iter().map(|(piece, _)| piece)
    }

    /// Whether the peer can request nothing else from us.
    pub fn is_exhausted(&self) -> bool {
        self.lacking_count == 0
    }

    /// Notes pieces that the peer has not been told of.
    pub fn owe(&mut self) {
        self.owed = true;
    }

    /// Whether [`KnownHaves::tell`] may have something to announce.
    pub fn is_owed(&self) -> bool {
        self.owed
    }

    /// Notes that the peer is told of this piece before the interval ends; `lacks` says whether it
    /// lacks it.
    pub fn tell_early(&mut self, piece: PieceIndex, lacks: bool) {
        self.early.insert(piece);
        self.lacking_count += u32::from(lacks);
    }

    /// Takes the pieces of `news` that the peer does not know; none if it has everything. The
    /// caller announces them now.
    pub fn tell(&mut self, news: &BTreeSet<PieceIndex>, theirs: &Bitfield) -> Vec<PieceIndex> {
        self.owed = false;
        let fresh = |piece: &PieceIndex| !theirs.is_full() && !self.early.contains(piece);
        let told: Vec<_> = news.iter().copied().filter(fresh).collect();
        self.early.extend(news);
        self.lacking_count += told.iter().filter(|&&piece| !theirs.get(piece)).count() as u32;
        told
    }

    /// Ends the interval: all peers know its pieces.
    pub fn end_interval(&mut self) {
        self.early.clear();
    }

    fn knows(&self, piece: PieceIndex, news: &BTreeSet<PieceIndex>) -> bool {
        !news.contains(&piece) || self.early.contains(&piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_announced_once_and_not_to_a_complete_peer() {
        let mut have = Bitfield::new(8);
        let mut theirs = Bitfield::new(8);
        let mut known = KnownHaves::default();
        known.greet(&have, &BTreeSet::new());
        assert!(known.is_exhausted());
        have.set(1);
        known.tell_early(1, true);
        assert!(!known.is_exhausted());
        theirs.set(3);
        let news = BTreeSet::from([1, 2, 3]);
        assert!(KnownHaves::default().tell(&news, &Bitfield::full(8)).is_empty());
        assert_eq!(known.tell(&news, &theirs), [2, 3]);
        assert!(known.tell(&news, &theirs).is_empty());
        known.end_interval();
        have.set(2);
        known.peer_gained(1, &BTreeSet::new());
        known.peer_gained(2, &BTreeSet::new());
        assert!(known.is_exhausted());
        theirs.set(1);
        known.recount(&have, &BTreeSet::new(), &theirs);
        assert!(!known.is_exhausted());
    }
}
