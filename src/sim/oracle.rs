//! What the protocol allows a peer to say on one connection, by what was said on it before: BEP 3
//! and 6. For oracles, which hold the machines against it.

use std::collections::BTreeSet;

use crate::proto::block::Block;
use crate::proto::piece::PieceIndex;
use crate::proto::wire::message::Message;

/// One end of a connection, as far as its rights follow from what passed.
#[derive(Debug)]
pub struct ProtocolOracle {
    /// The other end chokes this one.
    choked: bool,
    /// Pieces that this end may ask for even so.
    allowed_fast: BTreeSet<PieceIndex>,
    /// Requests of the other end that are neither answered nor rejected.
    asked: BTreeSet<Block>,
}

impl Default for ProtocolOracle {
    /// A connection on which nothing passed yet.
    fn default() -> Self {
        Self { choked: true, allowed_fast: BTreeSet::new(), asked: BTreeSet::new() }
    }
}

impl ProtocolOracle {
    /// Notes a message of the other end.
    pub fn heard(&mut self, message: &Message) {
        match message {
            Message::Choke => self.choked = true,
            Message::Unchoke => self.choked = false,
            Message::AllowedFast(piece) => {
                self.allowed_fast.insert(*piece);
            }
            Message::Request(block) => {
                self.asked.insert(*block);
            }
            Message::KeepAlive
            | Message::Interested
            | Message::NotInterested
            | Message::Have(_)
            | Message::Bitfield(_)
            | Message::Cancel(_)
            | Message::Port(_)
            | Message::Suggest(_)
            | Message::HaveAll
            | Message::HaveNone
            | Message::Reject(_)
            | Message::Extended { .. } => {}
        }
    }

    /// Notes a message that this end is about to send.
    ///
    /// # Errors
    /// The protocol does not allow it; says why.
    pub fn may_say(&mut self, message: &Message) -> Result<(), &'static str> {
        match message {
            Message::Request(block) if self.choked && !self.allowed_fast.contains(&block.piece) => {
                Err("a request to a peer that chokes us")
            }
            Message::Reject(block) if !self.asked.remove(block) => Err("a reject of what was not asked"),
            Message::Request(_)
            | Message::Reject(_)
            | Message::Choke
            | Message::Unchoke
            | Message::AllowedFast(_)
            | Message::KeepAlive
            | Message::Interested
            | Message::NotInterested
            | Message::Have(_)
            | Message::Bitfield(_)
            | Message::Cancel(_)
            | Message::Port(_)
            | Message::Suggest(_)
            | Message::HaveAll
            | Message::HaveNone
            | Message::Extended { .. } => Ok(()),
        }
    }

    /// Notes a block that this end is about to send. Returns whether it was asked for.
    pub fn may_send(&mut self, block: Block) -> bool {
        self.asked.remove(&block)
    }

    /// Notes that a block could not be sent: the request is still to be answered.
    pub fn not_sent(&mut self, block: Block) {
        self.asked.insert(block);
    }
}
