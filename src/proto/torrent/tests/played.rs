//! A machine that fetches a description, and the peers that a test plays: honest, lying, silent, or
//! worse.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;

use super::rules::connected;
use super::swarm::{FAST, settings};
use crate::proto::infohash::InfoHash;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::Torrent;
use crate::proto::torrent::event::{ConnId, DisconnectReason, Event, Output, Settings};
use crate::proto::torrent::metadata::MetadataProgress;
use crate::proto::wire::extension::ExtensionHandshake;
use crate::proto::wire::message::Message;
use crate::proto::wire::metadata::{MetadataMessage, UT_METADATA_ID, metadata_piece_len};

/// A played peer's number for `ut_metadata`.
pub(super) const THEIR_ID: u8 = 9;
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Seven pieces, the last one short.
pub(super) fn info() -> Bytes {
    (0..100_000_u32).map(|at| (at / 7) as u8).collect::<Vec<_>>().into()
}

/// What a played peer does with requests.
#[derive(Clone, Debug)]
pub(super) enum Manner {
    /// Answers from these bytes, and claims their length.
    Answers(Bytes),
    Silent(u32),
    Rejects(u32),
    /// Answers with this instead of pieces, whatever was asked.
    Says(u32, MetadataMessage),
}

impl Manner {
    fn total_len(&self) -> u32 {
        match self {
            Self::Answers(bytes) => bytes.len() as u32,
            Self::Silent(total_len) | Self::Rejects(total_len) | Self::Says(total_len, _) => *total_len,
        }
    }

    fn answer(&self, piece: u32) -> Option<MetadataMessage> {
        match self {
            Self::Answers(all) => {
                let total_len = all.len() as u32;
                let start = piece as usize * 16_384;
                let bytes = all.slice(start..start + metadata_piece_len(total_len, piece) as usize);
                Some(MetadataMessage::Data { piece, total_len, bytes })
            }
            Self::Silent(_) => None,
            Self::Rejects(_) => Some(MetadataMessage::Reject(piece)),
            Self::Says(_, message) => Some(message.clone()),
        }
    }
}

/// The right bytes but for one piece.
pub(super) fn falsified(piece: usize) -> Manner {
    let mut bytes = info().to_vec();
    bytes[piece * 16_384] ^= 1;
    Manner::Answers(bytes.into())
}

pub(super) fn honest() -> Manner {
    Manner::Answers(info())
}

/// The machine, and the peers that the test plays.
pub(super) struct Rig {
    pub(super) torrent: Torrent,
    pub(super) now: Instant,
    pub(super) manners: BTreeMap<ConnId, Manner>,
    /// Answers under way: they take 20 ms.
    pub(super) answers: VecDeque<(Instant, ConnId, MetadataMessage)>,
    pub(super) outputs: Vec<Output>,
    pub(super) described: Option<Bytes>,
    pub(super) reserved: u64,
    pub(super) reserved_max: u64,
    /// Room that is granted in all.
    pub(super) grants: u64,
}

pub(super) fn own_settings() -> Settings {
    Settings { infohash: InfoHash::of(&info()), dht_port: Some(6882), pex: true, ..settings(0) }
}

impl Rig {
    pub(super) fn new() -> Self {
        let now = Instant::from_micros(1_000_000);
        Self {
            torrent: Torrent::without_metadata(own_settings(), Rng::from_number(4), now),
            now,
            manners: BTreeMap::new(),
            answers: VecDeque::new(),
            outputs: Vec::new(),
            described: None,
            reserved: 0,
            reserved_max: 0,
            grants: u64::MAX,
        }
    }

    /// A peer comes and says that it has the dictionary.
    pub(super) fn meet(&mut self, number: u8, manner: Manner) -> ConnId {
        let conn = ConnId(u32::from(number));
        self.torrent.handle_connected(self.now, conn, connected(number, FAST));
        let handshake = ExtensionHandshake {
            ut_metadata: Some(THEIR_ID),
            metadata_size: Some(manner.total_len()),
            ..ExtensionHandshake::default()
        };
        self.manners.insert(conn, manner);
        self.say(conn, Message::Extended { id: 0, payload: handshake.encode() });
        conn
    }

    pub(super) fn say(&mut self, conn: ConnId, message: Message) {
        self.torrent.handle_message(self.now, conn, message);
        self.drain();
    }

    pub(super) fn say_metadata(&mut self, conn: ConnId, message: &MetadataMessage) {
        self.say(conn, Message::Extended { id: UT_METADATA_ID, payload: message.encode() });
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.torrent.poll_output() {
            match &output {
                Output::Send(conn, Message::Extended { id: THEIR_ID, payload }) => {
                    let request = MetadataMessage::decode(payload).unwrap();
                    let MetadataMessage::Request(piece) = request else { continue };
                    let answer = self.manners.get(conn).and_then(|manner| manner.answer(piece));
                    let at = self.now + Duration::from_millis(20);
                    self.answers.extend(answer.map(|answer| (at, *conn, answer)));
                }
                Output::ReserveMetadata(len) if self.reserved + u64::from(*len) <= self.grants => {
                    self.reserved += u64::from(*len);
                    self.reserved_max = self.reserved_max.max(self.reserved);
                    self.torrent.handle_metadata_reserved(self.now, *len);
                }
                Output::ReleaseMetadata(len) => self.reserved -= u64::from(*len),
                Output::Metadata(bytes) => {
                    assert!(self.described.replace(bytes.clone()).is_none(), "once");
                }
                Output::Disconnect(conn, _) => drop(self.manners.remove(conn)),
                Output::ReserveMetadata(_)
                | Output::Send(..)
                | Output::Dial(_)
                | Output::DhtNode(_)
                | Output::Event(_) => {}
                Output::SendBlock(..)
                | Output::SendMetadata(..)
                | Output::VerifyPiece { .. }
                | Output::DropPiece(_) => unreachable!("it has no content: {output:?}"),
            }
            self.outputs.push(output);
        }
    }

    /// Lets time pass until the description is there; whether it is.
    pub(super) fn run(&mut self, span: Duration) -> bool {
        let (end, mut steps) = (self.now + span, 0);
        while self.described.is_none() {
            let timeout = self.torrent.poll_timeout();
            let answer = self.answers.front().map(|answer| answer.0);
            let Some(at) = timeout.into_iter().chain(answer).min().filter(|&at| at <= end) else { break };
            assert!(at > self.now || answer == Some(at), "a timer that does not move on");
            steps += 1;
            assert!(steps < 100_000, "spins");
            self.now = self.now.max(at);
            if answer == Some(at) {
                let (_, conn, message) = self.answers.pop_front().unwrap();
                if self.manners.contains_key(&conn) {
                    self.say_metadata(conn, &message);
                }
            } else {
                self.torrent.handle_timeout(self.now);
                self.drain();
            }
        }
        if self.described.is_none() {
            self.now = end;
        }
        self.described == Some(info())
    }

    pub(super) fn progress(&self) -> MetadataProgress {
        self.torrent.metadata_progress().unwrap()
    }

    pub(super) fn banned(&self) -> BTreeSet<SocketAddr> {
        let banned = |output: &Output| {
            if let Output::Event(Event::PeerBanned(addr)) = output { Some(*addr) } else { None }
        };
        self.outputs.iter().filter_map(banned).collect()
    }

    pub(super) fn closed(&self, conn: ConnId) -> Option<DisconnectReason> {
        let closed = |output: &Output| {
            if let Output::Disconnect(closed, reason) = output { Some((*closed, *reason)) } else { None }
        };
        self.outputs.iter().filter_map(closed).find(|(closed, _)| *closed == conn).map(|(_, reason)| reason)
    }

    /// What this peer was told.
    pub(super) fn told(&self, conn: ConnId) -> Vec<Message> {
        let told = |output: &Output| {
            if let Output::Send(to, message) = output { Some((*to, message.clone())) } else { None }
        };
        let told = self.outputs.iter().filter_map(told);
        told.filter(|(to, _)| *to == conn).map(|(_, message)| message).collect()
    }

    /// Pieces that this peer was asked for.
    pub(super) fn asked(&self, conn: ConnId) -> Vec<u32> {
        let asked = |message: &Message| {
            let Message::Extended { id: THEIR_ID, payload } = message else { return None };
            let message = MetadataMessage::decode(payload).ok()?;
            if let MetadataMessage::Request(piece) = message { Some(piece) } else { None }
        };
        self.told(conn).iter().filter_map(asked).collect()
    }
}

pub(super) fn addr_of(number: u8) -> SocketAddr {
    connected(number, FAST).addr
}
