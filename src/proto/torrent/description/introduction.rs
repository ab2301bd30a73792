//! What a peer says of itself before anybody knows the torrent's description: kept for the torrent.
//!
//! Of what can change only the latest is kept, and everything that a peer can make us keep has a
//! limit. How many pieces there are is not known, so a bitfield has the length of its bytes, and
//! what is wrong with it shows only later.

use std::collections::BTreeSet;

use crate::proto::bitfield::Bitfield;
use crate::proto::peer::faults::{Fault, Faults};
use crate::proto::peer::remote::ALLOWED_FAST_MAX;
use crate::proto::piece::{PIECE_COUNT_MAX, PieceIndex};
use crate::proto::torrent::event::DisconnectReason;
use crate::proto::wire::dont_have::{self, LT_DONTHAVE_ID};
use crate::proto::wire::extension::ExtensionHandshake;
use crate::proto::wire::message::Message;

/// Pieces kept of a peer that told no bitfield, some 100 KiB of heap; a peer that gains more
/// meanwhile does not go on to the torrent, for we would not know all that it has.
pub(super) const HAVES_MAX: usize = 4_096;

/// What the peer has.
#[derive(Debug)]
enum Told {
    /// It said nothing, or only single pieces.
    Haves(BTreeSet<PieceIndex>),
    Field(Bitfield),
    /// Everything but what it took back since.
    AllBut(BTreeSet<PieceIndex>),
    /// More than we keep.
    TooMuch,
}

/// What one peer said.
#[derive(Debug)]
pub(super) struct Introduction {
    told: Told,
    /// Whether any word on pieces came.
    announced: bool,
    allowed_fast: Vec<PieceIndex>,
    peer_choking: bool,
    peer_interested: bool,
    extension: Option<ExtensionHandshake>,
}

impl Introduction {
    /// Nothing said.
    pub(super) fn new() -> Self {
        Self {
            told: Told::Haves(BTreeSet::new()),
            announced: false,
            allowed_fast: Vec::new(),
            peer_choking: true,
            peer_interested: false,
            extension: None,
        }
    }

    /// It has a piece.
    pub(super) fn have(&mut self, piece: PieceIndex) -> Result<(), DisconnectReason> {
        if piece >= PIECE_COUNT_MAX {
            return Err(NO_SUCH_PIECE);
        }
        self.announced = true;
        match &mut self.told {
            Told::Haves(haves) if haves.len() < HAVES_MAX => {
                haves.insert(piece);
            }
            Told::Haves(_) => self.told = Told::TooMuch,
            Told::Field(field) if piece < field.len() => {
                field.set(piece);
            }
            Told::Field(_) => return Err(NO_SUCH_PIECE),
            Told::AllBut(gone) => _ = gone.remove(&piece),
            Told::TooMuch => {}
        }
        Ok(())
    }

    /// It has a piece no more (BEP 54).
    pub(super) fn dont_have(
        &mut self,
        piece: PieceIndex,
        faults: &mut Faults,
    ) -> Result<(), DisconnectReason> {
        if piece >= PIECE_COUNT_MAX {
            return Err(NO_SUCH_PIECE);
        }
        let had = match &mut self.told {
            Told::Haves(haves) => haves.remove(&piece),
            Told::Field(field) if piece < field.len() => field.clear(piece),
            Told::Field(_) => return Err(NO_SUCH_PIECE),
            Told::AllBut(gone) if gone.len() < HAVES_MAX => gone.insert(piece),
            Told::AllBut(_) => {
                self.told = Told::TooMuch;
                true
            }
            Told::TooMuch => true,
        };
        if had { Ok(()) } else { faults.count(Fault::Retraction) }
    }

    /// It has these pieces, besides what it said before; `fits`: there is room to keep them.
    pub(super) fn bitfield(
        &mut self,
        mut field: Bitfield,
        fits: bool,
        faults: &mut Faults,
    ) -> Result<(), DisconnectReason> {
        if field.is_empty() {
            return self.have_none(faults);
        }
        self.announced = true;
        match &mut self.told {
            Told::Haves(haves) if fits => {
                if haves.last().is_some_and(|&last| last >= field.len()) {
                    return Err(NO_SUCH_PIECE);
                }
                haves.iter().for_each(|&piece| _ = field.set(piece));
                self.told = Told::Field(field);
            }
            Told::Field(known) if known.len() == field.len() => {
                if !field.has_more_than(known) {
                    return faults.count(Fault::Hint);
                }
                known.set_all(&field);
            }
            Told::Field(_) => return Err(DisconnectReason::Protocol("bitfield of another length")),
            Told::Haves(_) => self.told = Told::TooMuch,
            Told::AllBut(gone) => {
                let gone_count = gone.len();
                gone.retain(|&piece| !field.get(piece));
                return if gone.len() == gone_count { faults.count(Fault::Hint) } else { Ok(()) };
            }
            Told::TooMuch => return faults.count(Fault::Hint),
        }
        Ok(())
    }

    /// It has everything.
    pub(super) fn have_all(&mut self) {
        self.announced = true;
        self.told = Told::AllBut(BTreeSet::new());
    }

    /// It has nothing; after other words that means nothing.
    pub(super) fn have_none(&mut self, faults: &mut Faults) -> Result<(), DisconnectReason> {
        if std::mem::replace(&mut self.announced, true) { faults.count(Fault::Hint) } else { Ok(()) }
    }

    /// It lets us ask for this piece while choked.
    pub(super) fn allowed_fast(
        &mut self,
        piece: PieceIndex,
        faults: &mut Faults,
    ) -> Result<(), DisconnectReason> {
        if self.allowed_fast.contains(&piece) || self.allowed_fast.len() >= ALLOWED_FAST_MAX {
            return faults.count(Fault::Hint);
        }
        self.allowed_fast.push(piece);
        Ok(())
    }

    /// It chokes us, or not any more.
    pub(super) fn choking(&mut self, choking: bool) {
        self.peer_choking = choking;
    }

    /// It is interested, or not.
    pub(super) fn interested(&mut self, interested: bool) {
        self.peer_interested = interested;
    }

    /// Its extension handshake; a later one replaces what it names.
    pub(super) fn handle_extension(&mut self, later: ExtensionHandshake) {
        self.extension.get_or_insert_default().update(later);
    }

    /// Its extension handshake, if it came.
    pub(super) fn extension(&self) -> Option<&ExtensionHandshake> {
        self.extension.as_ref()
    }

    /// Bytes that its bitfield takes here.
    pub(super) fn field_len(&self) -> usize {
        match &self.told {
            Told::Field(field) => field.as_bytes().len(),
            Told::Haves(_) | Told::AllBut(_) | Told::TooMuch => 0,
        }
    }

    /// All of it as messages, for the torrent; None: it said more than we kept.
    pub(super) fn into_messages(self) -> Option<Vec<Message>> {
        let mut messages = Vec::new();
        match self.told {
            Told::Haves(haves) if haves.is_empty() && self.announced => messages.push(Message::HaveNone),
            Told::Haves(haves) => messages.extend(haves.into_iter().map(Message::Have)),
            Told::Field(field) => messages.push(Message::Bitfield(field)),
            Told::AllBut(gone) => {
                let taken_back =
                    |piece| Message::Extended { id: LT_DONTHAVE_ID, payload: dont_have::encode(piece) };
                messages.push(Message::HaveAll);
                messages.extend(gone.into_iter().map(taken_back));
            }
            Told::TooMuch => return None,
        }
        if let Some(extension) = self.extension {
            messages.push(Message::Extended { id: 0, payload: extension.encode() });
        }
        messages.extend(self.allowed_fast.into_iter().map(Message::AllowedFast));
        messages.extend(self.peer_interested.then_some(Message::Interested));
        messages.extend((!self.peer_choking).then_some(Message::Unchoke));
        Some(messages)
    }
}

const NO_SUCH_PIECE: DisconnectReason = DisconnectReason::Protocol("no such piece");

#[cfg(test)]
mod tests {
    use super::*;

    fn field(bytes: &[u8]) -> Bitfield {
        Bitfield::from_wire(bytes, 8 * bytes.len() as u32).unwrap()
    }

    #[test]
    fn haves_go_into_the_bitfield_whichever_comes_first() {
        let mut faults = Faults::default();
        let mut peer = Introduction::new();
        peer.have(3).unwrap();
        peer.bitfield(field(&[0x80, 0]), true, &mut faults).unwrap();
        peer.have(15).unwrap();
        assert!(peer.have(16).is_err());
        assert!(peer.bitfield(field(&[0]), true, &mut faults).is_err(), "of another length");
        assert_eq!(peer.field_len(), 2);
        assert_eq!(peer.into_messages(), Some(vec![Message::Bitfield(field(&[0x90, 1]))]));
    }

    #[test]
    fn what_is_taken_back_is_not_passed_on_whatever_was_said() {
        let mut faults = Faults::default();
        let mut peer = Introduction::new();
        peer.dont_have(3, &mut faults).unwrap();
        [3, 4].into_iter().for_each(|piece| peer.have(piece).unwrap());
        peer.dont_have(3, &mut faults).unwrap();
        peer.bitfield(field(&[0xc0]), true, &mut faults).unwrap();
        peer.dont_have(1, &mut faults).unwrap();
        assert!(peer.dont_have(8, &mut faults).is_err());
        assert_eq!(peer.into_messages(), Some(vec![Message::Bitfield(field(&[0x88]))]));
        let mut peer = Introduction::new();
        peer.have_all();
        [9, 3, 7].into_iter().for_each(|piece| peer.dont_have(piece, &mut faults).unwrap());
        peer.have(7).unwrap();
        peer.bitfield(field(&[0, 0x40]), true, &mut faults).unwrap();
        assert!(peer.dont_have(PIECE_COUNT_MAX, &mut faults).is_err());
        let gone = Message::Extended { id: LT_DONTHAVE_ID, payload: dont_have::encode(3) };
        assert_eq!(peer.into_messages(), Some(vec![Message::HaveAll, gone]));
    }

    #[test]
    fn what_is_kept_of_what_is_taken_back_is_bounded() {
        let mut faults = Faults::default();
        let mut peer = Introduction::new();
        peer.have_all();
        assert!((0..=HAVES_MAX as u32).all(|piece| peer.dont_have(piece, &mut faults).is_ok()));
        assert_eq!(peer.into_messages(), None);
        let mut peer = Introduction::new();
        assert!((0..20_000).any(|_| peer.dont_have(3, &mut faults).is_err()));
    }

    #[test]
    fn an_empty_bitfield_says_nothing() {
        let mut faults = Faults::default();
        let mut peer = Introduction::new();
        peer.bitfield(field(&[]), true, &mut faults).unwrap();
        peer.have(3).unwrap();
        assert_eq!(peer.into_messages(), Some(vec![Message::Have(3)]));
    }

    #[test]
    fn of_what_changes_the_latest_is_kept_and_the_handshake_comes_before_what_it_rules() {
        let mut faults = Faults::default();
        let mut peer = Introduction::new();
        peer.have_none(&mut faults).unwrap();
        for choking in [false, true, false] {
            peer.choking(choking);
            peer.interested(choking);
        }
        let handshake = |port, request_queue_max| ExtensionHandshake {
            port,
            request_queue_max,
            ..ExtensionHandshake::default()
        };
        peer.handle_extension(handshake(Some(1), Some(5)));
        peer.handle_extension(handshake(Some(2), None));
        peer.allowed_fast(7, &mut faults).unwrap();
        let extended = Message::Extended { id: 0, payload: handshake(Some(2), Some(5)).encode() };
        let expected = vec![Message::HaveNone, extended, Message::AllowedFast(7), Message::Unchoke];
        assert_eq!(peer.into_messages(), Some(expected));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut faults = Faults::default();
        let mut peer = Introduction::new();
        assert!((0..HAVES_MAX as u32).all(|piece| peer.have(1_000 * piece).is_ok()));
        assert!(peer.have(PIECE_COUNT_MAX).is_err());
        peer.have(1).unwrap();
        assert_eq!(peer.into_messages(), None);
        let mut peer = Introduction::new();
        peer.bitfield(field(&[0; 9]), false, &mut faults).unwrap();
        assert_eq!((peer.field_len(), peer.into_messages()), (0, None));
        let mut peer = Introduction::new();
        peer.have_all();
        assert!((0..2_000).any(|_| peer.have_none(&mut faults).is_err()));
        assert!((0..2_000).any(|piece| peer.allowed_fast(piece, &mut faults).is_err()));
        assert!(peer.into_messages().unwrap().len() <= 1 + ALLOWED_FAST_MAX);
    }
}
