//! The state that the peer announced: its pieces, the pieces that it allows while choked, its
//! extensions.
//!
//! Availability by BEP 3 and 6: a bitfield comes once and before any other message on pieces. A
//! later have-all is accepted (clients that finish between handshakes), a later have-none is
//! ignored. Announced pieces may be retracted (BEP 54).

use std::collections::VecDeque;

use super::faults::{Fault, Faults};
use crate::proto::bitfield::Bitfield;
use crate::proto::connection::DisconnectReason;
use crate::proto::piece::PieceIndex;
use crate::proto::wire::extension::ExtensionHandshake;

/// Most allowed-fast pieces of the peer that are kept; more are ignored.
pub const ALLOWED_FAST_MAX: usize = 64;
/// Most suggested pieces that are kept; the oldest is dropped.
pub const SUGGESTED_MAX: usize = 16;

/// The announced state of a peer.
#[derive(Debug)]
pub struct Remote {
    have: Bitfield,
    /// Whether any message on pieces came.
    announced: bool,
    /// Pieces that the peer has, and that we lack and want.
    wanted_count: u32,
    /// Pieces that the peer retracted.
    retracted_count: u32,
    /// Pieces that the peer allows while choked.
    allowed_fast: Vec<PieceIndex>,
    /// Pieces that the peer suggested.
    suggested: VecDeque<PieceIndex>,
    extension: Option<ExtensionHandshake>,
}

impl Remote {
    /// Creates it without announcements, in a torrent of `piece_count` pieces.
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

    /// Sets the number of pieces, before any announcement of pieces.
    pub fn begin_content(&mut self, piece_count: u32) {
        self.have = Bitfield::new(piece_count);
    }

    /// Returns the peer's pieces.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// The number of pieces that the peer has and that we lack and want.
    pub fn wanted_count(&self) -> u32 {
        self.wanted_count
    }

    /// Handles a bitfield; returns true for the first message on pieces. aria2 sends another one
    /// when it gained many pieces at once, so a later one is added to the known pieces.
    ///
    /// # Errors
    /// It is of another torrent, or repeatedly announces nothing new.
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

    /// The peer has everything.
    pub fn handle_have_all(&mut self) {
        self.announced = true;
        self.have = Bitfield::full(self.have.len());
    }

    /// The peer has nothing. Returns true for the first message on pieces; a later one is ignored.
    pub fn handle_have_none(&mut self) -> bool {
        !std::mem::replace(&mut self.announced, true)
    }

    /// The peer gained a piece. Returns true if that was unknown.
    ///
    /// # Errors
    /// There is no such piece.
    pub fn handle_have(&mut self, piece: PieceIndex) -> Result<bool, DisconnectReason> {
        self.check(piece)?;
        self.announced = true;
        Ok(self.have.set(piece))
    }

    /// The peer lost a piece. Returns true if it had the piece. Its permission to request it while
    /// choked applies again when it regains the piece; its suggestion is dropped.
    ///
    /// # Errors
    /// There is no such piece, or the peer retracted too many.
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

    /// Whether the peer retracted pieces. Then its pieces are counted one by one, however many they
    /// are, so that a peer that alternates between everything and less costs no scan of all pieces
    /// each time.
    pub fn is_fickle(&self) -> bool {
        self.retracted_count > 0
    }

    /// Recounts the pieces that the peer has and we want; `wants` says which pieces we lack and
    /// want.
    pub fn recount(&mut self, wants: impl Fn(PieceIndex) -> bool) {
        self.wanted_count = self.have.iter_set().filter(|&piece| wants(piece)).count() as u32;
    }

    /// The peer gained a piece that we lack and want.
    pub fn wanted_gained(&mut self) {
        self.wanted_count += 1;
    }

    /// The peer retracted a piece that we lack and want.
    pub fn wanted_retracted(&mut self) {
        self.wanted_count = self.wanted_count.saturating_sub(1);
    }

    /// A piece is no longer wanted, because we have it.
    pub fn wanted_lost(&mut self, piece: PieceIndex) {
        if self.have.get(piece) {
            self.wanted_count = self.wanted_count.saturating_sub(1);
        }
    }

    /// The peer allows this piece while choked.
    ///
    /// # Errors
    /// There is no such piece, or the peer sent too many such messages.
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

    /// The peer suggests this piece. A long download from one seed sees more suggestions than are
    /// kept, so one that replaces the oldest is no fault.
    ///
    /// # Errors
    /// There is no such piece, or the peer repeats its suggestions.
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

    /// Returns the pieces that may be requested while choked.
    pub fn allowed_fast(&self) -> &[PieceIndex] {
        &self.allowed_fast
    }

    /// Returns the suggested pieces, oldest first.
    pub fn suggested(&self) -> impl Iterator<Item = PieceIndex> {
        self.suggested.iter().copied()
    }

    /// Handles an extension handshake; a later one replaces the keys that it has (BEP 10).
    pub fn handle_extension(&mut self, later: ExtensionHandshake) {
        self.extension.get_or_insert_default().update(later);
    }

    /// Returns the extension handshake, if one came.
    pub fn extension(&self) -> Option<&ExtensionHandshake> {
        self.extension.as_ref()
    }

    /// Returns the peer's number for `sp_have`, if it supports it.
    pub fn sp_have(&self) -> Option<u8> {
        self.extension.as_ref().and_then(|extension| extension.sp_have)
    }

    /// Returns the peer's number for `lt_donthave`, if it supports it.
    pub fn lt_donthave(&self) -> Option<u8> {
        self.extension.as_ref().and_then(|extension| extension.lt_donthave)
    }

    /// Returns the peer's number for `ut_metadata`, if it supports it.
    pub fn ut_metadata(&self) -> Option<u8> {
        self.extension.as_ref().and_then(|extension| extension.ut_metadata)
    }

    /// Whether the peer will never request anything: complete, or upload-only (BEP 21).
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
    fn messages_on_pieces_may_follow_each_other() {
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
