//! A piece on its way: which of its blocks are open, asked for (of whom) and there (from whom).
//!
//! Invariants: `open_count` and `there_count` count the slots; no slot before `open_from` is open;
//! only slots that are asked for stand in `doubled`. It knows neither its number nor its length in
//! bytes. Blocks of an earlier run have no sender.

use std::net::SocketAddr;

use crate::proto::torrent::event::ConnId;

/// The place of who is not known any more. A piece has at most 65,536 blocks, so with such a one
/// among them there is no sender at this place.
const NOBODY: u16 = u16::MAX;

/// Who sent which block of a piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contributors {
    addrs: Vec<SocketAddr>,
    /// For each block, its sender's place in `addrs`, or [`NOBODY`].
    blocks: Vec<u16>,
}

impl Contributors {
    /// Who sent the block of this number.
    pub fn of(&self, index: usize) -> Option<SocketAddr> {
        self.addrs.get(usize::from(*self.blocks.get(index)?)).copied()
    }

    /// The one who sent everything, if it was one.
    pub fn sole(&self) -> Option<SocketAddr> {
        match self.addrs[..] {
            [addr] if !self.blocks.contains(&NOBODY) => Some(addr),
            _ => None,
        }
    }

    /// The numbers of all blocks that somebody sent.
    pub fn blocks(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.blocks).filter(|(_, sender)| **sender != NOBODY).map(|(index, _)| index)
    }

    /// Everyone who sent a block, in order of their first.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Open,
    /// Asked of this connection, and of those in `Active::doubled`.
    Asked(ConnId),
    /// There; the sender's place in `Active::senders`, or [`NOBODY`].
    There(u16),
}

#[derive(Debug)]
pub(super) struct Active {
    pub(super) slots: Vec<Slot>,
    pub(super) open_count: u32,
    pub(super) there_count: u32,
    /// No slot before this one is open.
    pub(super) open_from: u32,
    senders: Vec<SocketAddr>,
    /// Further askings of blocks that are asked for already (endgame).
    pub(super) doubled: Vec<(u32, ConnId)>,
    /// On parole, the one peer that is asked, and how many of its blocks are under way.
    pub(super) sole: Option<(ConnId, u32)>,
}

impl Active {
    pub(super) fn new(block_count: u32) -> Self {
        Self {
            slots: vec![Slot::Open; block_count as usize],
            open_count: block_count,
            there_count: 0,
            open_from: 0,
            senders: Vec::new(),
            doubled: Vec::new(),
            sole: None,
        }
    }

    pub(super) fn asked_count(&self) -> u32 {
        self.slots.len() as u32 - self.open_count - self.there_count
    }

    pub(super) fn is_whole(&self) -> bool {
        self.there_count as usize == self.slots.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open_count as usize == self.slots.len()
    }

    pub(super) fn is_open_to(&self, conn: ConnId) -> bool {
        self.sole.is_none_or(|(sole, under_way)| sole == conn || under_way == 0)
    }

    /// Everyone asked for this block.
    pub(super) fn asked(&self, index: u32) -> impl Iterator<Item = ConnId> {
        let first = match self.slots[index as usize] {
            Slot::Asked(conn) => Some(conn),
            Slot::Open | Slot::There(_) => None,
        };
        first.into_iter().chain(self.doubled.iter().filter(move |d| d.0 == index).map(|d| d.1))
    }

    pub(super) fn ask(&mut self, index: u32, conn: ConnId) -> bool {
        match self.slots[index as usize] {
            Slot::There(_) => return false,
            Slot::Asked(_) if self.asked(index).any(|asked| asked == conn) => return false,
            Slot::Asked(_) => self.doubled.push((index, conn)),
            Slot::Open => {
                self.slots[index as usize] = Slot::Asked(conn);
                self.open_count -= 1;
            }
        }
        true
    }

    pub(super) fn release(&mut self, index: u32, conn: ConnId) -> bool {
        let Some(&Slot::Asked(first)) = self.slots.get(index as usize) else { return false };
        if first != conn {
            let place = self.doubled.iter().position(|&doubled| doubled == (index, conn));
            return place.map(|place| self.doubled.swap_remove(place)).is_some();
        }
        self.slots[index as usize] = match self.doubled.iter().position(|doubled| doubled.0 == index) {
            Some(place) => Slot::Asked(self.doubled.swap_remove(place).1),
            None => {
                self.open_count += 1;
                self.open_from = self.open_from.min(index);
                Slot::Open
            }
        };
        true
    }

    /// The block is there, from an earlier run; false: it is not open.
    pub(super) fn restore(&mut self, index: u32) -> bool {
        let slot = self.slots.get_mut(index as usize).filter(|slot| **slot == Slot::Open);
        let is_open = slot.map(|slot| *slot = Slot::There(NOBODY)).is_some();
        self.open_count -= u32::from(is_open);
        self.there_count += u32::from(is_open);
        is_open
    }

    /// Counts the sole peer's blocks under way, where the piece is on parole.
    pub(super) fn note_sole(&mut self, conn: ConnId, change: i32) {
        match &mut self.sole {
            Some((sole, under_way)) if *sole == conn => *under_way = under_way.saturating_add_signed(change),
            Some((_, under_way)) if *under_way > 0 => {}
            sole => *sole = (change > 0).then_some((conn, 1)),
        }
    }

    pub(super) fn sender(&mut self, addr: SocketAddr) -> u16 {
        let place = self.senders.iter().rposition(|&sender| sender == addr).unwrap_or_else(|| {
            self.senders.push(addr);
            self.senders.len() - 1
        });
        u16::try_from(place).expect("a piece has at most 65,536 blocks, and each sender sent one")
    }

    pub(super) fn contributors(self) -> Contributors {
        let blocks = self.slots.iter().map(|slot| match slot {
            Slot::There(sender) => *sender,
            Slot::Open | Slot::Asked(_) => NOBODY,
        });
        Contributors { blocks: blocks.collect(), addrs: self.senders }
    }
}
