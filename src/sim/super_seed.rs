//! A seed that super-seeds (BEP 16), as libtorrent and rtorrent do: it claims to have nothing,
//! shows each peer a few pieces, and shows the next one when it learns where the last one went.
//!
//! The machine of the host is an ordinary seed. What it says of its pieces is replaced here, and so
//! is its extension handshake, since no client that super-seeds speaks `sp_have`. Suggestions and
//! allowed-fast sets, which would name other pieces, are left out.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::piece::PieceIndex;
use crate::proto::torrent::event::ConnId;
use crate::proto::wire::extension::ExtensionHandshake;
use crate::proto::wire::message::Message;

/// When a super-seed shows a peer the next piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reveal {
    /// When the peer says that it has the one before; two pieces are shown at a time (libtorrent).
    WhenDownloaded,
    /// When another peer says so, or the peer itself while it is the only one; one piece at a time
    /// (rtorrent).
    WhenShared,
}

/// What each peer was shown.
#[derive(Debug)]
pub(super) struct SuperSeed {
    reveal: Reveal,
    /// How many peers were shown each piece.
    shown_counts: Vec<u32>,
    peers: BTreeMap<ConnId, Shown>,
}

/// One peer.
#[derive(Debug, Default)]
struct Shown {
    /// Every piece that it has or was shown.
    known: BTreeSet<PieceIndex>,
    /// Shown, and not said to have arrived yet.
    awaited: BTreeSet<PieceIndex>,
}

impl SuperSeed {
    /// Nothing shown yet.
    pub(super) fn new(reveal: Reveal, piece_count: u32) -> Self {
        Self { reveal, shown_counts: vec![0; piece_count as usize], peers: BTreeMap::new() }
    }

    /// What is sent to the peer in place of a message of the machine.
    pub(super) fn disguise(&mut self, conn: ConnId, message: Message) -> Vec<Message> {
        match message {
            Message::HaveAll | Message::Bitfield(_) => {
                self.peers.insert(conn, Shown::default());
                let first = (0..self.at_once()).filter_map(|_| self.show(conn));
                [Message::HaveNone].into_iter().chain(first).collect()
            }
            Message::Suggest(_) | Message::AllowedFast(_) => Vec::new(),
            Message::Extended { id: 0, payload } => {
                let ours = ExtensionHandshake::decode(&payload).unwrap_or_default();
                let plain = ExtensionHandshake { sp_have: None, upload_only: false, ..ours };
                vec![Message::Extended { id: 0, payload: plain.encode() }]
            }
            message @ (Message::KeepAlive
            | Message::Choke
            | Message::Unchoke
            | Message::Interested
            | Message::NotInterested
            | Message::Have(_)
            | Message::Request(_)
            | Message::Cancel(_)
            | Message::Port(_)
            | Message::HaveNone
            | Message::Reject(_)
            | Message::Extended { .. }) => vec![message],
        }
    }

    /// The peer said something: what is shown to whom because of it.
    pub(super) fn heard(&mut self, conn: ConnId, message: &Message) -> Vec<(ConnId, Message)> {
        let Message::Have(piece) = *message else { return Vec::new() };
        let Some(peer) = self.peers.get_mut(&conn) else { return Vec::new() };
        peer.known.insert(piece);
        let own = self.reveal == Reveal::WhenDownloaded || self.peers.len() == 1;
        let freed = self.peers.iter_mut().filter(|(other, _)| own == (**other == conn));
        let freed = freed.filter_map(|(other, shown)| shown.awaited.remove(&piece).then_some(*other));
        let freed: Vec<_> = freed.collect();
        freed.into_iter().filter_map(|other| Some((other, self.show(other)?))).collect()
    }

    /// The connection is closed: the peer may have been the last but one.
    pub(super) fn left(&mut self, conn: ConnId) {
        self.peers.remove(&conn);
    }

    fn at_once(&self) -> usize {
        match self.reveal {
            Reveal::WhenDownloaded => 2,
            Reveal::WhenShared => 1,
        }
    }

    /// Shows the peer the piece that fewest others were shown, if it lacks any.
    fn show(&mut self, conn: ConnId) -> Option<Message> {
        let peer = self.peers.get_mut(&conn)?;
        let lacking = (0..).zip(&self.shown_counts).filter(|(piece, _)| !peer.known.contains(piece));
        let (piece, _) = lacking.min_by_key(|&(_, count)| count)?;
        self.shown_counts[piece as usize] += 1;
        peer.known.insert(piece);
        peer.awaited.insert(piece);
        Some(Message::Have(piece))
    }
}
