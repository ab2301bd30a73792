//! What the other end told of itself: its pieces, what it lets us have while choked, its
//! extensions.
//!
//! Availability by BEP 3 and 6: a bitfield comes once and before any other word on pieces. Have-all
//! after other words is tolerated (clients that finish between handshakes), have-none is then
//! ignored. What was announced may be taken back (BEP 54).

use std::collections::VecDeque;

use super::faults::{Fault, Faults};
use crate::proto::bitfield::Bitfield;
use crate::proto::piece::PieceIndex;
use crate::proto::torrent::event::DisconnectReason;
use crate::proto::wire::extension::ExtensionHandshake;

/// Allowed-fast pieces of theirs that we remember; more are ignored.
pub const ALLOWED_FAST_MAX: usize = 64;
/// Suggested pieces that we remember; the oldest goes.
pub const SUGGESTED_MAX: usize = 16;

/// The other end, as it describes itself.
#[derive(Debug)]
pub struct Remote {
    have: Bitfield,
    /// Whether any word on pieces came.
    announced: bool,
    /// Pieces that they have, and that we lack and want.
    wanted_count: u32,
    /// Pieces that they took back.
    retracted_count: u32,
    /// Pieces that they let us ask for while choked.
    allowed_fast: Vec<PieceIndex>,
    /// Pieces that they would like us to ask for.
    suggested: VecDeque<PieceIndex>,
    extension: Option<ExtensionHandshake>,
}

impl Remote {
    /// Someone of whom nothing is known, in a torrent of so many pieces.
    pub fn new(piece_count: u32) -> Self {
        Self {
            have: Bitfield::new(piece_count),
            announced: false,
            wanted_count: 0,
            retracted_count: 0,
            allowed_fast: Vec::new(),
            suggested: VecDeque::new(),
            extension: None,
        }
    }

    /// The number of pieces is known now; nothing was said about pieces yet.
    pub fn begin_content(&mut self, piece_count: u32) {
        self.have = Bitfield::new(piece_count);
    }

    /// The pieces they have.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Pieces that they have and that we lack and want.
    pub fn wanted_count(&self) -> u32 {
        self.wanted_count
    }

    /// What they have; true if that is their first word on pieces. It should be, but aria2 sends
    /// another one when it gained much at once, so a later one adds to what we know.
    ///
    /// # Errors
    /// It is of another torrent, or tells nothing new again and again.
    pub fn handle_bitfield(
        &mut self,
        field: &Bitfield,
        faults: &mut Faults,
    ) -> Result<bool, DisconnectReason> {
        if field.len() != self.have.len() {
            return Err(DisconnectReason::Protocol("bitfield of another length"));
        }
        let is_first = !std::mem::replace(&mut self.announced, true);
        if !is_first && !field.has_more_than(&self.have) {
            faults.count(Fault::Hint)?;
        }
        self.have.set_all(field);
        Ok(is_first)
    }

    /// They have everything.
    pub fn handle_have_all(&mut self) {
        self.announced = true;
        self.have = Bitfield::full(self.have.len());
    }

    /// They have nothing; true if that is their first word, else it means nothing.
    pub fn handle_have_none(&mut self) -> bool {
        !std::mem::replace(&mut self.announced, true)
    }

    /// They gained a piece; true if we did not know.
    ///
    /// # Errors
    /// No such piece.
    pub fn handle_have(&mut self, piece: PieceIndex) -> Result<bool, DisconnectReason> {
        self.check(piece)?;
        self.announced = true;
        Ok(self.have.set(piece))
    }

    /// They have a piece no more; true if they had it. That they let us ask for it while choked
    /// will hold again when they have it again; that they would like us to does not.
    ///
    /// # Errors
    /// No such piece, or they took back too much.
    pub fn handle_dont_have(
        &mut self,
        piece: PieceIndex,
        faults: &mut Faults,
    ) -> Result<bool, DisconnectReason> {
        self.check(piece)?;
        if !self.have.get(piece) || self.retracted_count >= self.have.len() {
            faults.count(Fault::Retraction)?;
        }
        if !self.have.clear(piece) {
            return Ok(false);
        }
        self.retracted_count += 1;
        self.suggested.retain(|&suggested| suggested != piece);
        Ok(true)
    }

    /// Whether they took back pieces: their pieces are counted one by one from then on, however
    /// many they are, so that who has everything and then not, and so on, costs no walk over all
    /// pieces each time.
    pub fn is_fickle(&self) -> bool {
        self.retracted_count > 0
    }

    /// Counts anew what they have that we want: `wants` says which pieces we lack and want.
    pub fn recount(&mut self, wants: impl Fn(PieceIndex) -> bool) {
        self.wanted_count = self.have.iter_set().filter(|&piece| wants(piece)).count() as u32;
    }

    /// They gained a piece that we lack and want.
    pub fn wanted_gained(&mut self) {
        self.wanted_count += 1;
    }

    /// They took back a piece that we lack and want.
    pub fn wanted_retracted(&mut self) {
        self.wanted_count = self.wanted_count.saturating_sub(1);
    }

    /// We do not want this piece any more, for we have it.
    pub fn wanted_lost(&mut self, piece: PieceIndex) {
        if self.have.get(piece) {
            self.wanted_count = self.wanted_count.saturating_sub(1);
        }
    }

    /// They let us ask for this piece while choked.
    ///
    /// # Errors
    /// No such piece, or too many such hints.
    pub fn handle_allowed_fast(
        &mut self,
        piece: PieceIndex,
        faults: &mut Faults,
    ) -> Result<(), DisconnectReason> {
        self.check(piece)?;
        if self.allowed_fast.contains(&piece) || self.allowed_fast.len() >= ALLOWED_FAST_MAX {
            return faults.count(Fault::Hint);
        }
        self.allowed_fast.push(piece);
        Ok(())
    }

    /// They would like us to ask for this piece. A long download from one seed sees more
    /// suggestions than are kept, so that a new one pushes out the oldest is no fault.
    ///
    /// # Errors
    /// No such piece, or the same ones again and again.
    pub fn handle_suggest(&mut self, piece: PieceIndex, faults: &mut Faults) -> Result<(), DisconnectReason> {
        self.check(piece)?;
        if self.suggested.contains(&piece) {
            return faults.count(Fault::Hint);
        }
        if self.suggested.len() == SUGGESTED_MAX {
            self.suggested.pop_front();
        }
        self.suggested.push_back(piece);
        Ok(())
    }

    /// The pieces that we may ask for while choked.
    pub fn allowed_fast(&self) -> &[PieceIndex] {
        &self.allowed_fast
    }

    /// The pieces that they suggested, oldest first.
    pub fn suggested(&self) -> impl Iterator<Item = PieceIndex> {
        self.suggested.iter().copied()
    }

    /// Their extension handshake; a later one replaces what it names (BEP 10).
    pub fn handle_extension(&mut self, later: ExtensionHandshake) {
        self.extension.get_or_insert_default().update(later);
    }

    /// Their extension handshake, if it came.
    pub fn extension(&self) -> Option<&ExtensionHandshake> {
        self.extension.as_ref()
    }

    /// Their number for `sp_have`, if they take it.
    pub fn sp_have(&self) -> Option<u8> {
        self.extension.as_ref().and_then(|extension| extension.sp_have)
    }

    /// Their number for `lt_donthave`, if they take it.
    pub fn lt_donthave(&self) -> Option<u8> {
        self.extension.as_ref().and_then(|extension| extension.lt_donthave)
    }

    /// Their number for `ut_metadata`, if they take it.
    pub fn ut_metadata(&self) -> Option<u8> {
        self.extension.as_ref().and_then(|extension| extension.ut_metadata)
    }

    /// Whether they will never ask us for anything: complete, or upload-only (BEP 21).
    pub fn is_seed(&self) -> bool {
        self.announced && self.have.is_full()
    }

    fn check(&self, piece: PieceIndex) -> Result<(), DisconnectReason> {
        if piece < self.have.len() { Ok(()) } else { Err(DisconnectReason::Protocol("no such piece")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_bitfield_adds_and_repeats_are_bounded() {
        let mut faults = Faults::default();
        let mut remote = Remote::new(9);
        assert_eq!(remote.handle_bitfield(&Bitfield::new(9), &mut faults), Ok(true));
        assert_eq!(remote.handle_have(3), Ok(true));
        assert_eq!(remote.handle_bitfield(&Bitfield::new(9), &mut faults), Ok(false));
        assert_eq!(remote.have().count(), 1);
        assert!(remote.handle_bitfield(&Bitfield::full(8), &mut faults).is_err());
        let flood =
            (0..2_000).try_for_each(|_| remote.handle_bitfield(&Bitfield::new(9), &mut faults).map(drop));
        assert!(flood.is_err());
    }

    #[test]
    fn words_on_pieces_may_follow_each_other() {
        let mut remote = Remote::new(9);
        assert_eq!(remote.handle_have(3), Ok(true));
        assert_eq!(remote.handle_have(3), Ok(false));
        assert!(remote.handle_have(9).is_err());
        assert!(!remote.handle_have_none());
        assert_eq!(remote.have().count(), 1);
        remote.handle_have_all();
        assert!(remote.is_seed());
    }

    #[test]
    fn hints_are_bounded() {
        let mut faults = Faults::default();
        let mut remote = Remote::new(100_000);
        for piece in 0..100_000 {
            remote.handle_suggest(piece, &mut faults).unwrap();
        }
        assert_eq!(remote.suggested().count(), SUGGESTED_MAX);
        let flood = (0..2_000).try_for_each(|piece| remote.handle_allowed_fast(piece, &mut faults));
        assert!(flood.is_err());
        assert_eq!(remote.allowed_fast().len(), ALLOWED_FAST_MAX);
    }
}
