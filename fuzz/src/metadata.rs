//! A torrent that fetches its metadata (BEP 9) among peers that have it, lie about it, or say
//! anything else, and goes on with its content.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use sprat::proto::bitfield::Bitfield;
use sprat::proto::block::Block;
use sprat::proto::infohash::InfoHash;
use sprat::proto::piece::Geometry;
use sprat::proto::rng::Rng;
use sprat::proto::time::Instant;
use sprat::proto::torrent::Torrent;
use sprat::proto::torrent::event::{ConnId, Output, Receipt, Settings};
use sprat::proto::torrent::metadata::METADATA_LEN_MAX;
use sprat::proto::wire::extension::ExtensionHandshake;
use sprat::proto::wire::message::Message;
use sprat::proto::wire::metadata::{MetadataMessage, UT_METADATA_ID, metadata_piece_len};

use super::input::Input;
use super::timer::{WAKE_COUNT_MAX, later};
use super::torrent::{CONN_COUNT_MAX, connected, lease, message, settings, source};

/// Three pieces of metadata.
const METADATA_LEN: u32 = 40_000;
const PIECE_COUNT: u32 = 25;
/// Outputs of one input.
const OUTPUT_COUNT_MAX: usize = 1_000;

pub fn metadata(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut rig = Rig::new(&mut input);
    while !input.is_empty() && !rig.is_done {
        rig.step(&mut input);
        rig.drain();
    }
    if rig.is_done {
        rig.go_on(&mut input);
    }
}

struct Rig {
    machine: Torrent,
    settings: Settings,
    now: Instant,
    metadata: Bytes,
    conns: BTreeSet<ConnId>,
    conn_count: u32,
    dials: Vec<SocketAddr>,
    asked: Vec<(ConnId, u32)>,
    /// Bytes of room that were asked for and not granted.
    wanted_len: Vec<u32>,
    reserved_len: u64,
    is_done: bool,
}

impl Rig {
    fn new(input: &mut Input<'_>) -> Self {
        let metadata: Bytes = (0..METADATA_LEN).map(|at| (at / 7) as u8).collect::<Vec<_>>().into();
        let infohash = InfoHash::of(&metadata);
        let settings = Settings { infohash, private: false, ..settings(input) };
        let now = Instant::from_micros(1_000_000);
        Self {
            machine: Torrent::without_metadata(settings.clone(), Rng::from_number(1), now),
            settings,
            now,
            metadata,
            conns: BTreeSet::new(),
            conn_count: 0,
            dials: Vec::new(),
            asked: Vec::new(),
            wanted_len: Vec::new(),
            reserved_len: 0,
            is_done: false,
        }
    }

    fn conn(&self, input: &mut Input<'_>) -> Option<ConnId> {
        let conns: Vec<ConnId> = self.conns.iter().copied().collect();
        input.one_of(&conns)
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let now = self.now;
        match input.byte() % 16 {
            0 | 1 if self.conns.len() < CONN_COUNT_MAX => {
                self.conn_count += 1;
                let conn = ConnId(self.conn_count);
                self.conns.insert(conn);
                let connected = connected(input, &mut self.dials);
                self.machine.handle_connected(now, conn, connected);
            }
            2 => {
                if let Some(conn) = self.conn(input) {
                    self.conns.remove(&conn);
                    self.machine.handle_disconnected(now, conn);
                }
            }
            3..=5 => self.greet(input),
            6..=8 => self.answer(input),
            9 => {
                if let Some(conn) = self.conn(input)
                    && let Some(message) = message(input, PIECE_COUNT, &[])
                {
                    self.machine.handle_message(now, conn, message);
                }
            }
            10 => {
                if let Some(conn) = self.conn(input) {
                    let block = Block { piece: 0, offset: 0, len: 16_384 };
                    assert_eq!(self.machine.handle_block(now, conn, block), Receipt::Discard);
                }
            }
            11 => self.wait(input),
            12 => {
                if let Some(len) = self.wanted_len.pop() {
                    self.reserved_len += u64::from(len);
                    self.machine.handle_metadata_reserved(now, len);
                }
            }
            13 => {
                let addrs: Vec<SocketAddr> = (0..input.byte() % 8).map(|_| input.addr()).collect();
                self.machine.handle_candidates(now, source(input), &addrs);
            }
            14 => {
                if let Some(addr) = input.one_of(&self.dials) {
                    self.dials.retain(|dialled| *dialled != addr);
                    self.machine.handle_dial_failed(now, addr);
                }
            }
            _ => match input.is_set() {
                true => self.machine.handle_lease(now, lease(input)),
                false => self.machine.handle_external_ip(now, input.addr().ip()),
            },
        }
    }

    /// A peer says in its extension handshake how long the metadata is, rightly or not.
    fn greet(&mut self, input: &mut Input<'_>) {
        let Some(conn) = self.conn(input) else { return };
        let metadata_size = match input.byte() % 8 {
            0 => None,
            1 => Some(0),
            2 => Some(METADATA_LEN_MAX + 1),
            3 => Some(METADATA_LEN + 20_000),
            _ => Some(METADATA_LEN),
        };
        let ut_metadata = (!input.byte().is_multiple_of(8)).then_some(9);
        let handshake = ExtensionHandshake { ut_metadata, metadata_size, ..ExtensionHandshake::default() };
        let message = Message::Extended { id: 0, payload: handshake.encode() };
        self.machine.handle_message(self.now, conn, message);
    }

    /// A peer answers a request, or says something about metadata without one.
    fn answer(&mut self, input: &mut Input<'_>) {
        let (conn, piece) = if !self.asked.is_empty() && input.byte() < 240 {
            self.asked.swap_remove(input.below(self.asked.len()))
        } else {
            let Some(conn) = self.conn(input) else { return };
            (conn, u32::from(input.byte()))
        };
        if !self.conns.contains(&conn) {
            return;
        }
        let start = (piece as usize * 16_384).min(self.metadata.len());
        let len = metadata_piece_len(METADATA_LEN, piece) as usize;
        let bytes = self.metadata.slice(start..(start + len).min(self.metadata.len()));
        let message = match input.byte() % 8 {
            0 => MetadataMessage::Reject(piece),
            1 => MetadataMessage::Request(piece),
            2 => {
                let mut bytes = bytes.to_vec();
                bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
                MetadataMessage::Data { piece, total_len: METADATA_LEN, bytes: bytes.into() }
            }
            3 => {
                let bytes = Bytes::copy_from_slice(input.string());
                MetadataMessage::Data { piece, total_len: input.u32(), bytes }
            }
            _ => MetadataMessage::Data { piece, total_len: METADATA_LEN, bytes },
        };
        let message = Message::Extended { id: UT_METADATA_ID, payload: message.encode() };
        self.machine.handle_message(self.now, conn, message);
    }

    fn wait(&mut self, input: &mut Input<'_>) {
        self.now = later(input, self.now, self.machine.poll_timeout());
        for _ in 0..WAKE_COUNT_MAX {
            if self.machine.poll_timeout().is_none_or(|at| at > self.now) {
                return;
            }
            self.machine.handle_timeout(self.now);
            self.drain();
        }
        panic!("a timer that does not move on");
    }

    fn drain(&mut self) {
        for _ in 0..OUTPUT_COUNT_MAX {
            let Some(output) = self.machine.poll_output() else { return };
            self.act(output);
        }
        panic!("an input leads to endless outputs");
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Send(conn, Message::Extended { id: 9, payload }) => {
                let request = MetadataMessage::decode(&payload).expect("ours is read");
                if let (MetadataMessage::Request(piece), true) = (request, self.conns.contains(&conn)) {
                    self.asked.push((conn, piece));
                }
            }
            Output::Disconnect(conn, _) => {
                assert!(self.conns.remove(&conn), "{conn:?} is closed already");
                self.machine.handle_disconnected(self.now, conn);
            }
            Output::Dial(addr) => {
                assert!(!self.dials.contains(&addr), "{addr} is dialled already");
                self.dials.push(addr);
            }
            Output::ReserveMetadata(len) => self.wanted_len.push(len),
            Output::ReleaseMetadata(len) => {
                let rest = self.reserved_len.checked_sub(u64::from(len));
                self.reserved_len = rest.expect("no more is released than was reserved");
            }
            Output::Metadata(bytes) => {
                assert!(bytes == self.metadata && !self.is_done);
                self.is_done = true;
            }
            Output::Send(..) | Output::DhtNode(_) | Output::Event(_) => {}
            Output::SendBlock(..)
            | Output::SendMetadata(..)
            | Output::VerifyPiece { .. }
            | Output::DropPiece(_) => panic!("there is no content yet: {output:?}"),
        }
    }

    /// The torrent goes on with its content and the connections.
    fn go_on(mut self, input: &mut Input<'_>) {
        let private = input.is_set();
        if private {
            self.machine.handle_private(self.now);
        }
        let geometry = Geometry::new(u64::from(PIECE_COUNT) * 16_384, 16_384).expect("a sound geometry");
        let mut have = Bitfield::new(PIECE_COUNT);
        if input.is_set() {
            have.set(3);
        }
        let settings = Settings { metadata: self.metadata, private, ..self.settings };
        let wanted = Bitfield::full(PIECE_COUNT);
        self.machine.handle_content(self.now, settings, geometry, have, wanted);
        for output in std::iter::from_fn(|| self.machine.poll_output()).take(OUTPUT_COUNT_MAX) {
            if let Output::Send(conn, _) | Output::Disconnect(conn, _) = output {
                assert!(self.conns.contains(&conn), "{conn:?} is closed");
            }
        }
    }
}
